//! How much is measured: a whole run, a quick one, and what the command line changes about either.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::peer::Peer;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Experiment {
    /// Throughput and latency of 1 to 32 client processes, for every peer.
    Processes,
    /// Bulk, live and from a backlog, beside one connection.
    Bulk,
    /// The same work beside more and more idle streams.
    Idle,
    /// The same work in a larger and larger database.
    Rows,
    /// The start of a writer with streams in the spool.
    Start,
    /// The application join beside SQLite's ATTACH.
    Join,
    /// Wakeups of a writer that has nothing to do.
    Wakeups,
    /// A program that spins for the writer's lock.
    Fence,
    /// The migration beside `VACUUM INTO`.
    Split,
}

/// What the command line may change.
#[derive(Args)]
pub(crate) struct Choices {
    /// A short run, for a first look: one round, little data, noisy numbers; about a minute.
    #[arg(long)]
    quick: bool,
    /// Measures only these.
    #[arg(long, value_enum, value_name = "WORD", value_delimiter = ',')]
    only: Vec<Experiment>,
    /// Compares only with these.
    #[arg(long, value_enum, value_name = "WORD", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Numbers of client processes.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    processes: Vec<usize>,
    /// Rounds; the tables show medians over them.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Length of one timed measurement, in seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Divides every amount of data by this: rows, commands, streams, megabytes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    shrink: u64,
}

/// How much is measured.
pub(crate) struct Effort {
    only: Vec<Experiment>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) processes: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// Commands of one bulk measurement, and of the largest backlog.
    pub(crate) bulk_commands: u64,
    /// Rows of the largest database.
    pub(crate) rows: u64,
    pub(crate) idle_streams: u64,
    pub(crate) start_streams: u64,
    pub(crate) sessions: u64,
    pub(crate) wakeups: Duration,
    pub(crate) legacy_megabytes: u64,
}

impl Effort {
    /// What was asked for, complete.
    pub(crate) fn of(choices: &Choices) -> Self {
        let mut effort = if choices.quick { Self::quick() } else { Self::whole() };
        effort.only.clone_from(&choices.only);
        if !choices.peers.is_empty() {
            effort.peers.retain(|peer| choices.peers.contains(peer));
        }
        if !choices.processes.is_empty() {
            effort.processes.clone_from(&choices.processes);
        }
        effort.rounds = choices.rounds.unwrap_or(effort.rounds);
        effort.seconds = choices.seconds.unwrap_or(effort.seconds);
        let amounts = [
            &mut effort.bulk_commands,
            &mut effort.rows,
            &mut effort.idle_streams,
            &mut effort.start_streams,
            &mut effort.sessions,
            &mut effort.legacy_megabytes,
        ];
        for amount in amounts {
            *amount = (*amount / choices.shrink).max(1);
        }
        effort
    }

    fn whole() -> Self {
        Self {
            only: Vec::new(),
            peers: Peer::SERVING.to_vec(),
            processes: vec![1, 2, 4, 8, 16, 32],
            rounds: 5,
            seconds: 2.0,
            bulk_commands: 1_000_000,
            rows: 10_000_000,
            idle_streams: 1000,
            start_streams: 1000,
            sessions: 2_000_000,
            wakeups: Duration::from_secs(5),
            legacy_megabytes: 500,
        }
    }

    fn quick() -> Self {
        Self {
            processes: vec![1, 8, 16],
            rounds: 1,
            seconds: 0.5,
            bulk_commands: 200_000,
            rows: 1_000_000,
            sessions: 500_000,
            wakeups: Duration::from_secs(2),
            legacy_megabytes: 50,
            ..Self::whole()
        }
    }

    pub(crate) fn wants(&self, experiment: Experiment) -> bool {
        self.only.is_empty() || self.only.contains(&experiment)
    }
}
