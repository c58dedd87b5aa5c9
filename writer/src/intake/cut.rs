//! Cuts the next batch from what the streams hold.

use crate::Config;
use crate::batch::Entry;
use crate::intake::Intake;

impl Intake {
    /// Cuts a batch: bounded, fair by bytes, commands of a stream in order, one kind of command.
    ///
    /// A batch holds commands over one database or commands over several, never both. In the former, a stream is cut
    /// where it goes back to a database that commits earlier: a crash between two commits must leave a prefix of it.
    pub(super) fn cut(&mut self, config: &Config) -> Vec<Entry> {
        let mut batch: Vec<Entry> = Vec::new();
        let (mut bytes, mut passed_over) = (0, None);
        for (place, id) in self.turns.iter() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let mut reached = 0;
            while let Some(entry) = stream.queue.front() {
                let several = entry.touches.are_several();
                let fits = batch.first().map(|first| first.touches).is_none_or(|first| {
                    // Of commands over several, all that a crash leaves to be done is recorded in one first database.
                    first.are_several() == several && (!several || first.first() == entry.touches.first())
                });
                let full = bytes >= config.batch_bytes_max || batch.len() >= config.batch_commands_count_max;
                if !fits || full || entry.touches.first() < reached {
                    passed_over = passed_over.or(Some(place));
                    break;
                }
                reached = if several { 0 } else { entry.touches.first() };
                bytes += entry.bytes;
                batch.extend(stream.queue.pop_front());
            }
            if stream.queue.is_empty() {
                stream.queue_bytes = 0;
            }
        }
        self.turns.begin_with(passed_over);
        batch
    }
}
