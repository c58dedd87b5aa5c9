//! Deletes segments whose commands are durable in every database they touch and were told to their clients.

use std::io::ErrorKind;
use std::path::Path;

use penholder_protocol::{Layout, sync_directory};

use crate::clock::Clock;
use crate::control::ControlFile;
use crate::intake::Intake;
use crate::receipts::Receipts;
use crate::stream::Finished;
use crate::watermark::Watermarks;
use crate::{Error, crash};

/// Reclaims what the intake has finished. Order: what a restored database is measured against, durable; unlink;
/// directory synced. The watermark rows go at a later start.
pub(crate) fn reclaim(
    layout: &Layout,
    intake: &mut Intake,
    control: &mut ControlFile,
    clock: &Clock,
    receipts: &mut Receipts,
    watermarks: &Watermarks,
) -> Result<(), Error> {
    let finished = intake.take_finished();
    for segment in &finished {
        check(*segment, receipts, watermarks);
    }
    if !finished.is_empty() {
        delete(layout, &finished, control, clock)?;
    }
    // Whatever is over, whether or not this round found its last segment.
    intake.take_over().into_iter().try_for_each(|over| receipts.close(over))
}

/// Stays on in release: what is deleted is nowhere else.
fn check(segment: Finished, receipts: &Receipts, watermarks: &Watermarks) {
    let Finished { name, last } = segment;
    assert!(
        watermarks.highest(name.stream) >= last && receipts.is_told(name.stream, last),
        "a segment goes when every command in it is committed in every database it touches, and told"
    );
}

fn delete(
    layout: &Layout,
    finished: &[Finished],
    control: &mut ControlFile,
    clock: &Clock,
) -> Result<(), Error> {
    for (index, slot) in control.content.databases.iter_mut().enumerate() {
        slot.reclaimed = clock.of(index);
    }
    control.write(true)?;
    crash::point("before_unlink");
    finished.iter().try_for_each(|segment| unlink(&layout.segment(segment.name)))?;
    sync_directory(&layout.spool()).map_err(Error::io("sync", &layout.spool()))?;
    crash::point("after_unlink");
    Ok(())
}

fn unlink(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        // Its owner put something else in its place; that is looked at like anything new.
        Err(error) if matches!(error.kind(), ErrorKind::IsADirectory | ErrorKind::PermissionDenied) => {
            log::warn!("{} is no segment any more and is left alone: {error}", path.display());
            Ok(())
        }
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use penholder_protocol::{SegmentKind, SegmentName, Sequence, StoreId, StreamId};

    use super::*;

    #[test]
    #[should_panic(expected = "a segment goes when every command in it is committed")]
    fn no_segment_goes_whose_last_command_no_database_has() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        std::fs::create_dir(layout.receipts()).unwrap();
        let receipts = Receipts::open(&layout, StoreId([1; 16]), |_| true).unwrap();
        let name = SegmentName { stream: StreamId([2; 16]), number: 1, kind: SegmentKind::Sealed };
        check(Finished { name, last: Sequence(0) }, &receipts, &Watermarks::default());
        check(Finished { name, last: Sequence(1) }, &receipts, &Watermarks::default());
    }

    #[test]
    fn what_a_client_put_in_the_place_of_its_segment_stops_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        unlink(&path).unwrap();
        std::fs::write(&path, "segment").unwrap();
        unlink(&path).unwrap();
        assert!(!path.exists());
        std::fs::create_dir(&path).unwrap();
        unlink(&path).unwrap();
        assert!(path.is_dir());
        let below_a_file = directory.path().join("file").join("segment");
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert!(unlink(&below_a_file).is_err(), "anything else is the machine's failure");
    }
}
