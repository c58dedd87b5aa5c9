//! `penholder serve`: runs the writer, and tells people and systemd how it is.

use std::time::{Duration, Instant};

use penholder::{Config, Observer, Ready, Stop};
use sd_notify::NotifyState;

use super::args::ServeArgs;
use super::exit::{Exit, Failure};
use super::output::Output;

/// Runs until a signal asks to stop, or with `--once` until the spool is empty.
pub(super) fn run(args: &ServeArgs, output: &mut Output) -> Result<Exit, Failure> {
    let watchdog = sd_notify::watchdog_enabled();
    let config = config(args, watchdog).map_err(|error| {
        let is_wrong = matches!(error, penholder::Error::Refused { .. });
        if is_wrong { Failure::usage(error.to_string()) } else { error.into() }
    })?;
    let stop = Stop::new();
    stop.on_signals()?;
    let mut watch =
        Watch { output, pulse: watchdog.map(|time| time / 3), last_beat: Instant::now(), is_ready: false };
    let ended = penholder::run(&config, &stop, &mut watch);
    tell(&[NotifyState::Stopping]);
    ended?;
    Ok(Exit::Ok)
}

/// Flags over the environment over `penholder.toml` over the defaults.
fn config(args: &ServeArgs, watchdog: Option<Duration>) -> Result<Config, penholder::Error> {
    let mut config = Config::load(args.store.clone())?;
    if args.schema.is_some() {
        config.schema.clone_from(&args.schema);
    }
    config.once |= args.once;
    config.allow_filesystem |= args.allow_filesystem;
    config.accept_rollback |= args.accept_rollback;
    config.notify &= !args.no_notify;
    // systemd has to hear from the loop even when nothing happens.
    if let Some(watchdog) = watchdog {
        config.safety_poll = config.safety_poll.min(watchdog / 3);
    }
    // Before anything of the store is made.
    config.check_schema()?;
    config.validate()
}

/// Passes on what the writer's loop says.
struct Watch<'o> {
    output: &'o mut Output,
    /// Time between two signs of life for systemd; `None`: it does not ask for them.
    pulse: Option<Duration>,
    last_beat: Instant,
    /// It said so: after a failure of the disk the writer starts over, and need not be waited for again.
    is_ready: bool,
}

impl Observer for Watch<'_> {
    fn ready(&mut self, ready: &Ready) {
        if std::mem::replace(&mut self.is_ready, true) {
            return;
        }
        let line = format!(
            "ready: store {}, epoch {}, pid {}",
            ready.store.display(),
            ready.epoch,
            std::process::id()
        );
        if let Err(error) = self.output.line(&line).and_then(|()| self.output.finish()) {
            log::warn!("nobody takes the ready line: {error}");
        }
        tell(&[NotifyState::Ready, NotifyState::Status(&line)]);
    }

    fn beat(&mut self) {
        if self.pulse.is_some_and(|pulse| self.last_beat.elapsed() >= pulse) {
            self.last_beat = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Tells systemd, if it is there.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify the service manager: {error}");
    }
}
