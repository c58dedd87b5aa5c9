//! The bytes that Penholder's processes exchange. Nothing here touches SQLite, and nothing starts a thread.
//!
//! A client turns [`Command`]s into frames with [`SegmentEncoder`] and appends them to a file in the spool; the
//! writer reads them back with [`SegmentDecoder`], and answers through a receipt file ([`receipt`]). Both sides
//! agree on the store's identity and age through the [`Control`] file. `docs/format.md` is the normative text.

pub mod limits;
mod id;
mod command;
mod outcome;
mod payload;
mod packed;
mod frame;
mod segment;
mod encode;
mod decode;
pub mod receipt;
mod progress;
mod control;
mod layout;
mod spool_file;
mod publish;
mod error;

pub use command::{Command, Statement, Text, Value};
pub use control::{Control, DatabaseSlot, WriterState};
pub use decode::{LaterFrame, SegmentDecoder, Step, Submitted};
pub use encode::{EncodeError, SegmentEncoder};
pub use error::DecodeError;
pub use id::{Epoch, Key, Sequence, StoreId, StreamId, Tick};
pub use layout::{Layout, SegmentKind, SegmentName};
pub use outcome::{Applied, Code, Outcome, Rejection, StatementResult};
pub use packed::{CommandRef, Packed, PackedCommand, Params, StatementRef, Statements, ValueRef};
pub use payload::{decode_commands, decode_outcome, encode_commands, encode_outcome};
pub use progress::{Progress, ProgressCell};
pub use publish::{publish, sync_directory};
pub use segment::{SegmentHeader, boot_id};
pub use spool_file::{NotOpened, SpoolFile};
