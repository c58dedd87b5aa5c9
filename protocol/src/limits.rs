//! Every limit of the format, with its unit and its reason. Part of the format: never configurable.

/// Longest frame, header included, in bytes. Bounds what a reader allocates for a length it has not verified yet.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// A frame takes no further command once it is this long, in bytes: it bounds what one frame decodes into, and how
/// finely the writer shares its time between streams.
pub const FRAME_BYTES_SOFT: usize = 256 << 10;

/// A segment is closed and the next one begun once it is this long, in bytes: small enough to be reclaimed soon.
pub const SEGMENT_BYTES_SOFT: u64 = 8 << 20;

/// Longest segment a writer reads, in bytes: the soft length, one submit of the largest size and its definitions.
pub const SEGMENT_BYTES_MAX: u64 = SEGMENT_BYTES_SOFT + SUBMIT_BYTES_MAX as u64;

/// Longest file of the spool that is opened, in bytes: a segment of the longest, and the frame that began before its end.
pub const SPOOL_FILE_BYTES_MAX: u64 = SEGMENT_BYTES_MAX + FRAME_BYTES_MAX as u64;

/// Longest single submit (one `write`), in bytes, all its frames together.
pub const SUBMIT_BYTES_MAX: usize = 64 << 20;

/// Longest SQL text of one statement, in bytes.
pub const SQL_BYTES_MAX: usize = 256 << 10;

/// Most statement texts one segment may define; a client rotates before it reaches this.
pub const DEFINITIONS_COUNT_MAX: usize = 4096;

/// Most commands in one frame.
pub const FRAME_COMMANDS_MAX: usize = 65_535;

/// Most statements in one command.
pub const COMMAND_STATEMENTS_MAX: usize = 4096;

/// Most parameters of one statement: SQLite's own default bound.
pub const STATEMENT_PARAMS_MAX: usize = 32_766;

/// Highest sequence of a command: what an INTEGER column holds.
pub const SEQUENCE_MAX: u64 = i64::MAX as u64;

/// Most bytes of results (`RETURNING` rows) that one receipt carries; rows beyond are counted as truncated.
pub const RESULT_BYTES_MAX: usize = 64 << 10;

/// Longest receipt record, in bytes: the results and their framing.
pub const RECORD_BYTES_MAX: usize = RESULT_BYTES_MAX + (16 << 10);

/// Most bytes of an error message that are kept in an outcome.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// Longest database name, in bytes: what a slot of the control file holds.
pub const DATABASE_NAME_BYTES_MAX: usize = 24;

/// Most databases in one store: the slots of the control file.
pub const DATABASES_COUNT_MAX: usize = 8;

const _: () = assert!(FRAME_BYTES_MAX <= SUBMIT_BYTES_MAX);
const _: () = assert!(SQL_BYTES_MAX * 4 <= FRAME_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX * 2 < RECORD_BYTES_MAX - RESULT_BYTES_MAX);
