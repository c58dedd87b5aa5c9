//! Finds the command that kills the writer, and sets it aside instead of dying of it for ever.
//!
//! After several starts in a row that committed nothing, commands are applied one at a time, and the control file
//! names the one at hand. One that the writer died of again and again gets an outcome without being run.

use penholder_protocol::{Code, Rejection, Sequence, StreamId, WriterState};

use crate::Error;
use crate::apply::rejection;
use crate::batch::Entry;
use crate::control::ControlFile;

/// Starts without a commit after which commands are applied one at a time.
const STARTS_BEFORE_CAUTION: u32 = 3;
/// Starts without a commit after which the command at hand is condemned.
const STARTS_BEFORE_VERDICT: u32 = 6;

/// What is known about a command that may be killing the writer.
#[derive(Debug)]
pub(crate) struct Suspicion {
    cautious: bool,
    condemned: Option<(StreamId, Sequence)>,
    committed: bool,
}

impl Suspicion {
    /// Judges by how the last runs ended, and counts this one; the control file is written with the raised epoch.
    pub(crate) fn at_start(control: &mut ControlFile) -> Self {
        let content = &mut control.content;
        // A run that stalled and was then killed died of the machine, not of a command.
        let clean = content.state != WriterState::Running;
        content.fruitless_starts = if clean { 0 } else { content.fruitless_starts.saturating_add(1) };
        let suspect = content.suspect.take();
        let condemned = suspect.filter(|_| content.fruitless_starts >= STARTS_BEFORE_VERDICT);
        let cautious = content.fruitless_starts >= STARTS_BEFORE_CAUTION;
        if cautious {
            log::warn!(
                "{} starts in a row committed nothing: applying commands one by one",
                content.fruitless_starts
            );
        }
        Self { cautious, condemned, committed: false }
    }

    /// Narrows a batch to one command while caution is needed, and names it durably enough to survive an abort.
    /// Returns the commands that have to wait.
    pub(crate) fn isolate(
        &self,
        batch: &mut Vec<Entry>,
        control: &mut ControlFile,
    ) -> Result<Vec<Entry>, Error> {
        if !self.cautious || self.committed {
            return Ok(Vec::new());
        }
        let rest = batch.split_off(batch.len().min(1));
        control.content.suspect = batch.first().map(|entry| (entry.stream, entry.sequence));
        control.write(false)?;
        Ok(rest)
    }

    /// Why a command is not run at all.
    pub(crate) fn verdict(&self, entry: &Entry) -> Option<Rejection> {
        let message = "the writer died of this command several times; it was set aside without being run";
        (self.condemned == Some((entry.stream, entry.sequence)))
            .then(|| rejection(Code::Poison, message, None))
    }

    /// A batch was committed: the writer is not dying of what it does.
    pub(crate) fn clear(&mut self, control: &mut ControlFile) -> Result<(), Error> {
        if self.committed {
            return Ok(());
        }
        self.committed = true;
        control.content.fruitless_starts = 0;
        control.content.suspect = None;
        control.write(false)
    }
}
