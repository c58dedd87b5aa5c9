//! Finds the command that kills the writer, and sets it aside instead of dying of it for ever.
//!
//! After several starts in a row that committed nothing, commands are applied one at a time, and the control file
//! names the one at hand. One that the writer died of again and again gets an outcome without being run. So does one at
//! which it fails alone in a way in which no machine fails.

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
    /// Commands are applied one at a time, each named in the control file while it runs.
    cautious: bool,
    /// The command that was being applied alone when the last run died.
    last_suspect: Option<(StreamId, Sequence)>,
    condemned: Option<(StreamId, Sequence)>,
    committed: bool,
}

impl Suspicion {
    /// Judges by how the last run ended, and counts this one; the control file is written with the raised epoch.
    pub(crate) fn at_start(control: &mut ControlFile) -> Self {
        let content = &mut control.content;
        // A run that stalled and was then killed died of the machine, not of a command.
        let died = content.state == WriterState::Running;
        content.fruitless_starts = if died { content.fruitless_starts.saturating_add(1) } else { 0 };
        // Taken out: a death during recovery is not this command's.
        let last_suspect = content.suspect.take();
        let condemned = last_suspect.filter(|_| content.fruitless_starts >= STARTS_BEFORE_VERDICT);
        let cautious = content.fruitless_starts >= STARTS_BEFORE_CAUTION;
        if cautious {
            log::warn!(
                "{} starts in a row committed nothing: applying commands one by one",
                content.fruitless_starts
            );
        }
        Self { cautious, last_suspect, condemned, committed: false }
    }

    /// Narrows a batch to one command while caution is needed, and names it where it survives an abort.
    /// Returns the commands that have to wait.
    pub(crate) fn isolate(
        &self,
        batch: &mut Vec<Entry>,
        control: &mut ControlFile,
    ) -> Result<Vec<Entry>, Error> {
        if !self.cautious {
            return Ok(Vec::new());
        }
        let done = batch.iter().take_while(|entry| entry.is_done).count();
        if done > 0 {
            // Applied in an earlier run: they are only told again.
            return Ok(batch.split_off(done));
        }
        let rest = batch.split_off(batch.len().min(1));
        let suspect = batch.first().map(|entry| (entry.stream, entry.sequence));
        if suspect != self.last_suspect {
            // It has no part in the deaths before it.
            control.content.fruitless_starts = STARTS_BEFORE_CAUTION;
        }
        control.content.suspect = suspect;
        control.write(false)?;
        Ok(rest)
    }

    /// Whether commands are tried one at a time, because one of them may be a killer.
    pub(crate) fn is_cautious(&self) -> bool {
        self.cautious
    }

    /// The command at hand was run and is about to be committed: if the writer dies now, it is not of the command.
    ///
    /// A commit waits for the disk, so that is where a writer that is killed for other reasons mostly is.
    pub(crate) fn acquit(&self, control: &mut ControlFile) -> Result<(), Error> {
        if !self.cautious || control.content.suspect.take().is_none() {
            return Ok(());
        }
        control.write(false)
    }

    /// Applying a batch failed: if not for the machine, then the next commands are applied one at a time; or the one at
    /// hand is condemned, if it was alone.
    ///
    /// Its outcome takes the statements of the writer that every outcome takes: where these fail, it never gets it.
    pub(crate) fn blame(&mut self, error: &Error, control: &mut ControlFile) {
        if !error.is_of_the_writer() {
            return;
        }
        log::error!("a defect of the writer: {error}; looking for the command at which it shows");
        self.condemned = control.content.suspect.take();
        self.cautious = true;
    }

    /// Why a command is not run at all.
    pub(crate) fn verdict(&self, entry: &Entry) -> Option<Rejection> {
        let message = "the writer died of this command or failed at it several times; it was set aside without being run";
        (self.condemned == Some((entry.stream, entry.sequence)))
            .then(|| rejection(Code::Poison, message, None))
    }

    /// A batch was committed: whatever was applied in it did not kill the writer.
    pub(crate) fn clear(&mut self, batch: &[Entry], control: &mut ControlFile) -> Result<(), Error> {
        if (self.committed && !self.cautious) || batch.iter().all(|entry| entry.is_done) {
            return Ok(());
        }
        self.committed = true;
        self.last_suspect = None;
        control.content.fruitless_starts = 0;
        control.content.suspect = None;
        control.write(false)
    }

    /// Everything that waited was applied: no caution is needed any more.
    pub(crate) fn relax(&mut self) {
        self.cautious = false;
    }
}
