//! The whole play: three roles at full speed, the writer killed in the middle, the report, the proof.

use std::io::BufRead;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::processes::now_ms;
use crate::promises::Promised;
use crate::proof::Proof;
use crate::report::Report;
use crate::roles::{Role, Stage};
use crate::terminal::{grouped, say};
use crate::traffic::{self, CONNECTIONS, Connection, Plan, Tally};

/// How long the store stays without a writer after each kill.
const OUTAGE: Duration = Duration::from_millis(700);
/// How often the writer is killed.
const KILLS: u32 = 2;

/// Runs everything and prints it; whether the proof held.
pub(crate) fn run(stage: &Stage, duration: Duration) -> Result<bool> {
    let started = Instant::now();
    let writer = Role::start_writer(stage)?;
    say(started.elapsed(), "writer     serves the store");
    let mut server = Role::start("app-server", stage)?;
    let url = format!("http://{}", server.first_line()?);
    say(started.elapsed(), &format!("app server answers at {url}"));
    let mut daemon = Role::start("daemon", stage)?;
    say(started.elapsed(), "daemon     records the processes of this machine");

    let plan = Plan::of_this_machine();
    let (tally, events, stop) = (Tally::default(), AtomicU64::new(0), AtomicBool::new(false));
    let recorded = daemon.output()?;
    let (report, writer) = thread::scope(|scope| -> Result<(Report, Role)> {
        let mut writer = writer;
        scope
            .spawn(|| recorded.lines().map_while(std::io::Result::ok).for_each(|line| count(&line, &events)));
        // Whatever ends this scope early also ends the threads in it.
        let _stopped = StopOnDrop(&stop);
        let connections: Vec<_> = (0..CONNECTIONS).map(|number| Connection::new(number, &url)).collect();
        traffic::create_projects(&connections, &plan, &tally)?;
        let (plan, tally, stop) = (&plan, &tally, &stop);
        let drive = |connection: Connection| move || traffic::drive(&connection, plan, tally, stop);
        let drivers: Vec<_> =
            connections.into_iter().map(|connection| scope.spawn(drive(connection))).collect();

        let act = duration / (KILLS + 1);
        for kill in 1..=KILLS {
            watch(act, started, tally, &events);
            writer = kill_and_restart(writer, stage, kill, &url, tally, started)?;
        }
        watch(act, started, tally, &events);
        stop.store(true, Ordering::Relaxed);
        for driver in drivers {
            driver.join().map_err(|_| "a connection panicked")??;
        }
        daemon.finish()?;
        say(started.elapsed(), "the daemon knows the outcome of every command it submitted");
        Ok((ureq::get(format!("{url}/report")).call()?.into_body().read_json()?, writer))
    })?;
    server.finish()?;
    writer.finish()?;
    say(started.elapsed(), "all three roles ended cleanly");

    println!("\nTime per project and day, joined over both databases\n{}", report.to_text());
    let slowest = tally.slowest_us.load(Ordering::Relaxed) / 1000;
    println!("\nWrites through HTTP\n {}; the slowest took {} ms", summary(&tally), grouped(slowest));
    let mut promised = Promised::default();
    for role in ["app-server", "daemon"] {
        promised.read(&stage.promises_of(role))?;
    }
    let proof = Proof::of(&stage.store, &promised)?;
    println!("\nEvery acknowledged write, looked up one by one\n{}", proof.to_text());
    println!(
        "\n{} after {:.1} s",
        if proof.holds() { "nothing lost" } else { "FAILED" },
        started.elapsed().as_secs_f64()
    );
    Ok(proof.holds())
}

/// Kills the writer while everybody writes, and starts another one; an appointment marks the time in between.
fn kill_and_restart(
    writer: Role,
    stage: &Stage,
    kill: u32,
    url: &str,
    tally: &Tally,
    started: Instant,
) -> Result<Role> {
    let killed_at = now_ms();
    writer.kill()?;
    say(started.elapsed(), "writer     killed with SIGKILL; the others go on");
    thread::sleep(OUTAGE);
    let restarted = Instant::now();
    let writer = Role::start_writer(stage)?;
    let took = restarted.elapsed();
    say(started.elapsed(), &format!("writer     started and recovered in {} ms", took.as_millis()));
    traffic::note(url, &format!("Outage {kill} of the writer"), killed_at, now_ms(), tally)?;
    Ok(writer)
}

/// Shows once a second how far everybody is.
fn watch(duration: Duration, started: Instant, tally: &Tally, events: &AtomicU64) {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_secs(1)));
        let events = grouped(events.load(Ordering::Relaxed));
        say(started.elapsed(), &format!("{events:>9} events queued, {}", summary(tally)));
    }
}

fn summary(tally: &Tally) -> String {
    let of = |counter: &AtomicU64| grouped(counter.load(Ordering::Relaxed));
    format!(
        "{} confirmed, {} refused, {} repeated",
        of(&tally.confirmed),
        of(&tally.refused),
        of(&tally.repeated)
    )
}

fn count(line: &str, events: &AtomicU64) {
    if let Ok(number) = line.parse() {
        events.store(number, Ordering::Relaxed);
    }
}

/// Asks the threads of a scope to end when it is left.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
