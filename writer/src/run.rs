//! The writer from start to end: all of its control flow.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penholder_protocol::{Layout, WriterState};

use crate::ballast::Ballast;
use crate::batch::{Entry, Touches, touches_of};
use crate::checkpoint::{self, Checkpoints};
use crate::commit::{Books, Committed, Committer};
use crate::control::ControlFile;
use crate::database::{self, Database};
use crate::descriptors::{self, streams_max};
use crate::doorbell::{Doorbell, Stop, Wake};
use crate::grants::Grants;
use crate::intake::Intake;
use crate::judge::Judge;
use crate::keeper::Keeper;
use crate::lock::StoreLock;
use crate::observer::{Observer, Ready};
use crate::place::Place;
use crate::receipts::Receipts;
use crate::reclaim::reclaim;
use crate::recover::recover;
use crate::references::{Along, References};
use crate::stream::Rules;
use crate::suspect::Suspicion;
use crate::watermark::Watermarks;
use crate::{Config, Error, access, crash, fence, filesystem, leftovers, split};

/// Sessions in a row that may fail without a commit between them before the writer gives up.
const FAILURES_COUNT_MAX: u32 = 5;

/// Finished segments that are reclaimed at once, without waiting for the interval.
const FINISHED_COUNT_MAX: usize = 64;

/// Time without sleep after which the writer takes the watch off the spool and looks for itself.
const AWAKE_TIME: Duration = Duration::from_millis(10);

/// Batches of more bytes than this take long enough for a thread to be started that reads what follows.
const READ_AHEAD_BYTES_MIN: usize = 32 << 10;

/// How often it then looks for new segments: what a new client waits at most beside a busy writer.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Runs the writer until it is asked to stop, or with [`Config::once`] until the spool is empty.
///
/// An error says that the writer ended; every command whose receipt was given is durable all the same, and the rest
/// waits in the spool.
pub fn run(config: &Config, stop: &Stop, observer: &mut dyn Observer) -> Result<(), Error> {
    let layout = Layout::new(&config.store);
    database::check_build()?;
    descriptors::raise_limit();
    access::make_directories(&layout)?;
    access::check(&layout, config)?;
    access::keep_segments_private(&layout);
    filesystem::check(layout.root(), config.allow_filesystem)?;
    let grants = Arc::new(Grants::look_up(config, rustix::process::geteuid().as_raw())?);
    let lock = StoreLock::acquire(&layout)?;
    split::settle_unfinished(&layout)?;
    let mut control = ControlFile::open(&layout, config)?;
    let ballast = Ballast::new(&layout, config.ballast_bytes);
    leftovers::remove(&layout);
    let mut suspicion = Suspicion::at_start(&mut control);
    let mut keepers = Vec::new();
    let mut failures = 0;
    loop {
        let mut commits = 0;
        let slots = &control.content.databases;
        let ended = Keeper::complete(&mut keepers, &layout, config, slots).and_then(|()| {
            let kept = Kept {
                config,
                layout: &layout,
                grants: &grants,
                place: Place::new(&layout, &lock, &keepers),
                keepers: &keepers,
                control: &mut control,
                suspicion: &mut suspicion,
            };
            session(kept, stop, observer, &ballast, &mut commits)
        });
        let Err(error) = ended else { return Ok(()) };
        failures = if commits > 0 { 1 } else { failures + 1 };
        // What is damaged as soon as it is opened will be so the next time.
        let give_up =
            failures >= FAILURES_COUNT_MAX && !error.is_disk_full() || commits == 0 && error.is_damage();
        if give_up || !error.is_retryable() || stop.requested() {
            return Err(error);
        }
        stall(&error, &mut control, &ballast, stop, observer, failures);
        if stop.requested() {
            return Ok(());
        }
    }
}

/// Waits for a machine that failed; the databases are opened anew and say what was committed.
fn stall(
    error: &Error,
    control: &mut ControlFile,
    ballast: &Ballast,
    stop: &Stop,
    observer: &mut dyn Observer,
    failures: u32,
) {
    log::error!("stalled: {error}; nothing is lost, commands stay in the spool");
    // On a full disk the control file may not be writable either; it is a hint.
    if let Err(error) = control.set_state(WriterState::Stalled) {
        log::warn!("cannot say so in the control file: {error}");
    }
    if error.is_disk_full() && failures > 1 {
        match ballast.release() {
            Ok(true) => log::warn!("gave up the ballast to let the spool drain"),
            Ok(false) => {}
            Err(error) => log::warn!("cannot give up the ballast: {error}"),
        }
    }
    let until = Instant::now() + Duration::from_millis(200) * failures.min(10);
    while Instant::now() < until && !stop.requested() {
        observer.beat();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What outlives a session.
struct Kept<'a> {
    config: &'a Config,
    layout: &'a Layout,
    grants: &'a Arc<Grants>,
    place: Place<'a>,
    /// One per database, in the same order: nobody else writes, not even while the databases are opened anew.
    keepers: &'a [Keeper],
    control: &'a mut ControlFile,
    suspicion: &'a mut Suspicion,
}

/// One opening of the databases; ends with a stop, or with the first failure of the machine.
fn session(
    kept: Kept<'_>,
    stop: &Stop,
    observer: &mut dyn Observer,
    ballast: &Ballast,
    commits: &mut u64,
) -> Result<(), Error> {
    let (config, layout) = (kept.config, kept.layout);
    fence::limit_heap(config.heap_bytes_max);
    let last = kept.control.content.state;
    let open = |keeper: &Keeper| database::open(layout, keeper, config, last);
    let connections = kept.keepers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let kept_ones = kept.keepers.iter().zip(&connections);
    let databases = kept_ones.map(|(keeper, opened)| Database::new(keeper, opened)).collect();
    let mut writer = Writer::recover(kept, databases)?;
    if let Err(error) = ballast.ensure() {
        log::warn!("no ballast: {error}");
    }
    let mut doorbell = Doorbell::open(&layout.spool(), config.notify, stop)?;
    let epoch = writer.kept.control.content.epoch;
    observer.ready(&Ready { store: config.store.clone(), epoch });
    while !stop.requested() {
        writer.listen(&mut doorbell);
        let batch = writer.intake.next(&writer.watermarks, config)?;
        writer.count_findings()?;
        if !batch.is_empty() {
            writer.commit(batch, commits)?;
        } else if writer.last_work.elapsed() < config.spin {
            writer.begin_ahead()?;
            writer.intake.pause.make();
        } else if writer.intake.has_more() {
            std::thread::yield_now();
        } else {
            writer.tidy_up()?;
            if doorbell.unmute() {
                // Once more, now that nothing can come unheard.
                writer.awake_since = Instant::now();
                writer.intake.want_rescan();
                continue;
            }
            if config.once && writer.intake.is_settled() {
                break;
            }
            observer.beat();
            writer.sleep(&doorbell)?;
        }
        writer.intake.set_aside()?;
        if writer.is_tidying_due() {
            writer.tidy_a_little()?;
            observer.beat();
        }
    }
    writer.close()
}

/// The one thread that owns the databases, and all that it knows.
struct Writer<'a, 'c> {
    kept: Kept<'a>,
    books: Books<'c>,
    watermarks: Watermarks,
    /// What the last batch touched: the next one most likely touches the same.
    last_touches: Touches,
    intake: Intake,
    receipts: Receipts,
    checkpoints: Checkpoints,
    awake_since: Instant,
    last_look: Instant,
    last_work: Instant,
    last_reclaim: Instant,
}

impl<'a, 'c> Writer<'a, 'c> {
    fn recover(kept: Kept<'a>, mut databases: Vec<Database<'c>>) -> Result<Self, Error> {
        let Kept { config, layout, .. } = kept;
        let recovered = recover(layout, config, kept.control, &mut databases)?;
        if kept.grants.has_roles() {
            for database in &mut databases {
                database.judge = Some(Judge::new(&database.name, database.connection, kept.grants)?);
            }
        }
        let references = References::install(config, &databases)?;
        kept.control.set_state(WriterState::Running)?;
        let (store, epoch) = (kept.control.content.store, kept.control.content.epoch);
        let rules = Rules {
            layout: layout.clone(),
            store,
            epoch,
            floor: recovered.floor,
            grants: Arc::clone(kept.grants),
            along: Along::new(config)?,
            databases: config.databases.clone(),
            turn_bytes: config.turn_bytes,
            device: std::fs::metadata(layout.spool()).map_err(Error::io("look at", &layout.spool()))?.dev(),
            streams_max: streams_max(),
            streams_user_max: config.streams_user_max.min(streams_max() - streams_max() / 4),
        };
        Ok(Self {
            watermarks: Watermarks::load(&databases)?,
            receipts: Receipts::open(layout, store, |stream| recovered.in_spool.contains_key(&stream))?,
            checkpoints: Checkpoints::new(&databases),
            last_touches: Touches::default(),
            intake: Intake::new(rules),
            books: Books {
                clock: recovered.clock,
                data_versions: databases.iter().map(Database::data_version).collect::<Result<_, _>>()?,
                begun: Touches::default(),
                references,
                databases,
            },
            awake_since: Instant::now(),
            last_look: Instant::now(),
            last_work: Instant::now(),
            last_reclaim: Instant::now(),
            kept,
        })
    }

    /// Learns what rang since it was last asked; what rang is only ever a hint.
    fn listen(&mut self, doorbell: &mut Doorbell) {
        if self.awake_since.elapsed() > AWAKE_TIME && self.last_work.elapsed() < AWAKE_TIME {
            doorbell.mute();
        }
        if doorbell.is_muted() && self.last_look.elapsed() > LOOK_INTERVAL {
            self.last_look = Instant::now();
            self.intake.want_rescan();
        }
        if doorbell.take_spool() {
            self.intake.want_sweep();
        }
        if doorbell.take_rescan() {
            self.intake.want_rescan();
        }
    }

    /// Makes a batch durable, then tells its outcomes: never the other way round.
    fn commit(&mut self, mut batch: Vec<Entry>, commits: &mut u64) -> Result<(), Error> {
        // Now and not ahead: what is committed to a file that was replaced is lost.
        self.kept.place.check()?;
        let waiting = self.kept.suspicion.isolate(&mut batch, self.kept.control)?;
        self.last_touches = touches_of(&batch);
        self.kept.place.check_logs(&self.books.databases, self.last_touches)?;
        let (committed, read) = self.commit_and_read_ahead(batch);
        let mut committed =
            committed.inspect_err(|error| self.kept.suspicion.blame(error, self.kept.control))?;
        self.watermarks.note(committed.touches, &committed.entries);
        crash::point("before_receipts");
        self.receipts.publish(&committed)?;
        crash::point("after_receipts");
        *commits += 1;
        self.kept.suspicion.clear(&committed.entries, self.kept.control)?;
        self.count_foreign_writes(committed.foreign_writes)?;
        committed.rest.extend(waiting);
        self.intake.put_back(committed.rest);
        self.last_work = Instant::now();
        self.checkpoints.run(&self.books.databases, self.kept.config, false)?;
        read
    }

    /// Commits a batch; while a large one is applied and synced, another thread reads what follows it.
    fn commit_and_read_ahead(&mut self, batch: Vec<Entry>) -> (Result<Committed, Error>, Result<(), Error>) {
        // Where a command is tried alone, it is to blame for what happens, and nobody else.
        let is_large = !self.kept.suspicion.is_cautious()
            && batch.iter().map(|entry| entry.bytes).sum::<usize>() > READ_AHEAD_BYTES_MIN;
        let (intake, watermarks, config) = (&mut self.intake, &self.watermarks, self.kept.config);
        let (suspicion, control) = (&*self.kept.suspicion, &mut *self.kept.control);
        let mut committer = Committer { books: &mut self.books, watermarks, suspicion, control, config };
        if !is_large {
            return (committer.commit(batch), Ok(()));
        }
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().name("read-ahead".into());
            // Without a thread it is read later.
            let reading = reader.spawn_scoped(scope, || intake.read_ahead(watermarks, config)).ok();
            let committed = committer.commit(batch);
            let read = reading.map_or(Ok(Ok(())), std::thread::ScopedJoinHandle::join);
            (committed, read.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// Does what the next batch would have to wait for, while its clients are still at it.
    fn begin_ahead(&mut self) -> Result<(), Error> {
        if !self.books.begun.is_empty() {
            return Ok(());
        }
        let touches = self.last_touches;
        let foreign = self.committer().begin_ahead(touches)?;
        self.count_foreign_writes(foreign)
    }

    fn committer(&mut self) -> Committer<'_, 'c> {
        Committer {
            books: &mut self.books,
            watermarks: &self.watermarks,
            suspicion: self.kept.suspicion,
            control: self.kept.control,
            config: self.kept.config,
        }
    }

    fn count_foreign_writes(&mut self, count: u64) -> Result<(), Error> {
        if count == 0 {
            return Ok(());
        }
        self.kept.control.content.foreign_writes += count;
        self.kept.control.write(false)
    }

    /// Counts in the control file what the intake found.
    fn count_findings(&mut self) -> Result<(), Error> {
        let findings = &mut self.intake.findings;
        let (torn, quarantined) =
            (std::mem::take(&mut findings.torn), std::mem::take(&mut findings.quarantined));
        if torn + quarantined == 0 {
            return Ok(());
        }
        self.kept.control.content.torn += torn;
        self.kept.control.content.quarantined += quarantined;
        self.kept.control.write(false)
    }

    /// Whether there was so much work for so long that segments pile up.
    fn is_tidying_due(&self) -> bool {
        self.intake.finished_count() > FINISHED_COUNT_MAX
            || self.intake.is_over_left()
            || self.last_reclaim.elapsed() > self.kept.config.reclaim_interval
    }

    fn tidy_a_little(&mut self) -> Result<(), Error> {
        self.last_reclaim = Instant::now();
        self.kept.place.check_all(&self.books.databases)?;
        self.kept.control.keep()?;
        let (receipts, clock, watermarks) = (&mut self.receipts, &self.books.clock, &self.watermarks);
        reclaim(self.kept.layout, &mut self.intake, self.kept.control, clock, receipts, watermarks)
    }

    /// Does what can wait until there is nothing better to do.
    fn tidy_up(&mut self) -> Result<(), Error> {
        self.committer().end_ahead(Touches::default())?;
        self.kept.suspicion.relax();
        self.tidy_a_little()?;
        self.checkpoints.run(&self.books.databases, self.kept.config, true)
    }

    /// Sleeps until something rings; what no event announces is looked for when the safety poll is over.
    fn sleep(&mut self, doorbell: &Doorbell) -> Result<(), Error> {
        match doorbell.wait(self.intake.patience(self.kept.config.safety_poll)) {
            Wake::Spool => self.intake.want_sweep(),
            Wake::Rescan | Wake::Timer => self.intake.want_rescan(),
            Wake::Stop => {}
        }
        self.awake_since = Instant::now();
        self.kept.place.check_all(&self.books.databases)
    }

    fn close(mut self) -> Result<(), Error> {
        self.tidy_up()?;
        checkpoint::at_stop(&self.books.databases)?;
        self.kept.control.set_state(WriterState::Stopped)
    }
}
