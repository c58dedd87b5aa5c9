//! Everything that can wake the writer. A ring is only ever a hint: the writer looks for itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::Error;

/// What woke the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// A segment was written to.
    Spool,
    /// Segments may have come that nobody named: read the directory.
    Rescan,
    /// Nothing rang in the time given.
    Timer,
    /// The writer is to end.
    Stop,
}

/// The wish that the writer ends; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requested: AtomicBool,
    /// The doorbells to ring; those that are gone are dropped when another is hung up.
    bells: Mutex<Vec<Weak<Bell>>>,
}

impl Stop {
    /// A wish not made yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the writer to finish its batch and end.
    pub fn request(&self) {
        self.shared.requested.store(true, Ordering::SeqCst);
        for bell in self.bells().iter().filter_map(Weak::upgrade) {
            bell.ring();
        }
    }

    /// Whether it was asked to.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.shared.requested.load(Ordering::SeqCst)
    }

    /// Makes SIGTERM and SIGINT ask; the second one ends the process at once, with code 1.
    pub fn on_signals(&self) -> Result<(), Error> {
        let failed = || Error::io("watch signals from", Path::new("the system"));
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(failed())?;
        let stop = self.clone();
        let wait = move || {
            for (count, signal) in signals.forever().enumerate() {
                if count > 0 {
                    signal_hook::low_level::exit(1);
                }
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("signal");
                log::info!("{name}: finishing the batch; once more ends at once");
                stop.request();
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop).map_err(failed())
    }

    fn bells(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Bell>>> {
        self.shared.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One bell for everybody who may ring; the flags tell who did.
#[derive(Debug)]
struct Bell {
    spool: AtomicBool,
    rescan: AtomicBool,
    ringer: Sender<()>,
}

impl Bell {
    /// Wakes the writer; a bell that rings already is enough.
    fn ring(&self) {
        match self.ringer.try_send(()) {
            Ok(()) | Err(_) => {}
        }
    }

    /// Raises a flag, then rings; whoever raised it before has rung, or is about to.
    fn ring_for(&self, flag: &AtomicBool) {
        if !flag.swap(true, Ordering::SeqCst) {
            self.ring();
        }
    }
}

/// Where the writer sleeps; a watch on the spool rings it.
#[derive(Debug)]
pub(crate) struct Doorbell {
    bell: Arc<Bell>,
    rung: Receiver<()>,
    stop: Stop,
    spool: PathBuf,
    watcher: Option<RecommendedWatcher>,
    muted: bool,
}

impl Doorbell {
    /// Hangs up the bell, with a watch on the directory `spool` if `notify`; without one only the timer wakes.
    pub(crate) fn open(spool: &Path, notify: bool, stop: &Stop) -> Result<Self, Error> {
        let (ringer, rung) = bounded(1);
        let bell = Arc::new(Bell { spool: AtomicBool::new(false), rescan: AtomicBool::new(false), ringer });
        {
            let mut bells = stop.bells();
            bells.retain(|bell| bell.strong_count() > 0);
            bells.push(Arc::downgrade(&bell));
        }
        // Events carry resolved paths on some systems.
        let spool = std::fs::canonicalize(spool).map_err(Error::io("find", spool))?;
        let watcher = if notify { watch(&spool, &bell) } else { None };
        Ok(Self { bell, rung, stop: stop.clone(), spool, watcher, muted: false })
    }

    /// Takes the watch off: a writer that is awake looks for itself, and an event for every write of every client
    /// costs a core that is wanted for better.
    pub(crate) fn mute(&mut self) {
        if let Some(watcher) = &mut self.watcher
            && !self.muted
        {
            // A watch that stays on only costs time.
            self.muted = watcher.unwatch(&self.spool).is_ok();
        }
    }

    /// Whether clients ring in vain: the watch is off, or there is none.
    pub(crate) fn is_muted(&self) -> bool {
        self.muted || self.watcher.is_none()
    }

    /// Puts the watch on again; true if it was off, and the writer must look once more before it sleeps.
    pub(crate) fn unmute(&mut self) -> bool {
        let was_muted = std::mem::take(&mut self.muted);
        if was_muted
            && let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.watch(&self.spool, RecursiveMode::NonRecursive)
        {
            log::warn!(
                "cannot watch {} again: {error}; looking at it on the timer only",
                self.spool.display()
            );
            self.watcher = None;
        }
        was_muted
    }

    /// Sleeps until something rings or `timeout` is over, and forgets what it returns.
    pub(crate) fn wait(&self, timeout: Duration) -> Wake {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            // The flags first: one ring may stand for several, and a ring may be left of flags that were taken.
            if self.stop.requested() {
                return Wake::Stop;
            }
            if self.take_rescan() {
                return Wake::Rescan;
            }
            if self.take_spool() {
                return Wake::Spool;
            }
            let rang = match deadline {
                Some(deadline) => self.rung.recv_deadline(deadline).is_ok(),
                None => self.rung.recv().is_ok(),
            };
            if !rang {
                return Wake::Timer;
            }
        }
    }

    /// Whether a segment was written to since this was last asked.
    pub(crate) fn take_spool(&self) -> bool {
        // Looked at in every turn of a busy writer: the exchange is dearer than the load.
        self.bell.spool.load(Ordering::Relaxed) && self.bell.spool.swap(false, Ordering::SeqCst)
    }

    /// Whether the directory is to be read again since this was last asked.
    pub(crate) fn take_rescan(&self) -> bool {
        self.bell.rescan.load(Ordering::Relaxed) && self.bell.rescan.swap(false, Ordering::SeqCst)
    }
}

/// Watches the spool; `None`, with a warning, if the system has no watch to spare.
fn watch(spool: &Path, bell: &Arc<Bell>) -> Option<RecommendedWatcher> {
    let handler = Handler { bell: Arc::clone(bell), tmp: spool.join("tmp"), spool: spool.to_owned() };
    let watcher = RecommendedWatcher::new(handler, notify::Config::default())
        .and_then(|mut watcher| watcher.watch(spool, RecursiveMode::NonRecursive).map(|()| watcher));
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            log::warn!(
                "cannot watch {}: {error}; looking at it on the timer only, commands wait longer",
                spool.display()
            );
            None
        }
    }
}

/// Runs in notify's thread for every event, thus for every write of a client: it only raises flags.
struct Handler {
    bell: Arc<Bell>,
    spool: PathBuf,
    tmp: PathBuf,
}

impl notify::EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) if event.need_rescan() => {
                log::info!("notifications were lost: too many of them; looking at the whole spool");
                self.bell.ring_for(&self.bell.rescan);
            }
            Ok(event) => self.judge(&event),
            Err(_) => self.bell.ring_for(&self.bell.rescan),
        }
    }
}

impl Handler {
    fn judge(&self, event: &notify::Event) {
        let path = event.paths.first();
        let of_spool_itself = path.is_some_and(|path| *path == self.spool);
        match event.kind {
            // Our own opens among them, and changes of modes and times.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => {}
            // The writer's own deletions, and files put into the quarantine, leave nothing to look for.
            EventKind::Remove(_) if !of_spool_itself => {}
            EventKind::Modify(ModifyKind::Data(_)) if !of_spool_itself => {
                if !self.in_tmp(path) {
                    self.bell.ring_for(&self.bell.spool);
                }
            }
            EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(_)
            | EventKind::Any
            | EventKind::Other => {
                if !self.in_tmp(path) {
                    self.bell.ring_for(&self.bell.rescan);
                }
            }
        }
    }

    /// Whether the file is still under construction.
    fn in_tmp(&self, path: Option<&PathBuf>) -> bool {
        path.is_some_and(|path| path.starts_with(&self.tmp))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    /// Long enough for any notification, short enough to wait for none.
    const LONG: Duration = Duration::from_secs(5);
    const SHORT: Duration = Duration::from_millis(150);

    fn spool() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        fs::create_dir_all(spool.join("tmp")).unwrap();
        (directory, spool)
    }

    #[test]
    fn a_write_to_a_segment_rings_for_the_spool() {
        let (_directory, spool) = spool();
        let mut segment = fs::File::create(spool.join("a.live")).unwrap();
        let doorbell = Doorbell::open(&spool, true, &Stop::new()).unwrap();
        assert_eq!(doorbell.wait(SHORT), Wake::Timer);
        segment.write_all(b"frame").unwrap();
        assert_eq!(doorbell.wait(LONG), Wake::Spool);
        assert!(!doorbell.take_spool());
        assert_eq!(doorbell.wait(SHORT), Wake::Timer);
    }

    #[test]
    fn a_segment_that_is_created_or_renamed_into_the_spool_rings_for_a_rescan() {
        let (_directory, spool) = spool();
        let doorbell = Doorbell::open(&spool, true, &Stop::new()).unwrap();
        fs::File::create(spool.join("a.live")).unwrap();
        assert_eq!(doorbell.wait(LONG), Wake::Rescan);
        fs::write(spool.join("tmp/b"), "segment").unwrap();
        assert_eq!(doorbell.wait(SHORT), Wake::Timer);
        fs::rename(spool.join("tmp/b"), spool.join("b.seg")).unwrap();
        assert_eq!(doorbell.wait(LONG), Wake::Rescan);
        assert!(!doorbell.take_rescan());
    }

    #[test]
    fn reading_deleting_and_building_files_rings_for_nothing() {
        let (_directory, spool) = spool();
        fs::write(spool.join("a.live"), "segment").unwrap();
        let doorbell = Doorbell::open(&spool, true, &Stop::new()).unwrap();
        fs::read(spool.join("a.live")).unwrap();
        fs::read_dir(&spool).unwrap().count();
        fs::write(spool.join("tmp/b"), "segment").unwrap();
        fs::remove_file(spool.join("a.live")).unwrap();
        assert_eq!(doorbell.wait(SHORT), Wake::Timer);
    }

    #[test]
    fn a_spool_that_is_moved_away_or_an_error_of_the_watch_rings_for_a_rescan() {
        let (directory, spool) = spool();
        let doorbell = Doorbell::open(&spool, true, &Stop::new()).unwrap();
        fs::rename(&spool, directory.path().join("elsewhere")).unwrap();
        assert_eq!(doorbell.wait(LONG), Wake::Rescan);
        let mut handler =
            Handler { bell: Arc::clone(&doorbell.bell), spool: spool.clone(), tmp: spool.join("tmp") };
        notify::EventHandler::handle_event(&mut handler, Err(notify::Error::generic("overflow")));
        assert!(doorbell.take_rescan());
        let event = notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        notify::EventHandler::handle_event(&mut handler, Ok(event));
        assert!(doorbell.take_rescan());
    }

    #[test]
    fn without_a_watch_only_the_timer_and_a_stop_wake() {
        let (_directory, spool) = spool();
        let stop = Stop::new();
        let doorbell = Doorbell::open(&spool, false, &stop).unwrap();
        fs::write(spool.join("a.live"), "segment").unwrap();
        assert_eq!(doorbell.wait(SHORT), Wake::Timer);
        stop.request();
        assert_eq!(doorbell.wait(LONG), Wake::Stop);
    }

    #[test]
    fn a_stop_wakes_every_doorbell_and_goes_before_all_else() {
        let (_directory, spool) = spool();
        let stop = Stop::new();
        let one = Doorbell::open(&spool, false, &stop).unwrap();
        let two = Doorbell::open(&spool, false, &stop).unwrap();
        one.bell.ring_for(&one.bell.rescan);
        let asleep = std::thread::spawn(move || two.wait(LONG));
        std::thread::sleep(SHORT);
        stop.clone().request();
        assert!(stop.requested());
        assert_eq!(asleep.join().unwrap(), Wake::Stop);
        assert_eq!(one.wait(LONG), Wake::Stop);
        drop(one);
        let _three = Doorbell::open(&spool, false, &stop).unwrap();
        assert_eq!(stop.bells().len(), 1);
    }

    #[test]
    fn rings_before_the_wait_are_not_lost_and_many_are_one() {
        let (_directory, spool) = spool();
        let doorbell = Doorbell::open(&spool, false, &Stop::new()).unwrap();
        for _ in 0..1000 {
            doorbell.bell.ring_for(&doorbell.bell.spool);
        }
        doorbell.bell.ring_for(&doorbell.bell.rescan);
        assert_eq!(doorbell.wait(LONG), Wake::Rescan);
        assert_eq!(doorbell.wait(LONG), Wake::Spool);
        assert_eq!(doorbell.wait(SHORT), Wake::Timer);
    }
}
