//! What a run found out: one list of points, which the tables, the goals, the JSON and the plots are made from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::peer::Peer;
use crate::workload::Progress;

/// Version of the JSON.
const SCHEMA: u32 = 2;
/// The share of commands that each latency is about; the last one is the worst.
pub(crate) const SHARES: [f64; 8] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0];

/// What was measured. The unit belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// Commands a second, one at a time, by so many processes.
    Processes,
    /// Rows a second in bulk, so many in all.
    Bulk,
    /// Commands a second from a backlog of so many, from the writer's start until the last is applied.
    Backlog,
    /// The writer's peak memory in MiB, with a backlog of so many commands.
    Memory,
    /// The same with a backlog of so many MiB, in values of one.
    MemoryLarge,
    /// The same with so many streams of one command each.
    MemoryStreams,
    /// Commands a second by eight processes, beside so many idle streams.
    IdleApplied,
    /// Rows a second in bulk, beside so many idle streams.
    IdleBulk,
    /// Commands a second by eight processes, in a table of so many rows.
    RowsApplied,
    /// Rows a second in bulk, in a table of so many rows.
    RowsBulk,
    /// Seconds from the writer's start to the first row, with so many streams in the spool.
    StartFirst,
    /// Seconds from the writer's start to the last row, with so many streams in the spool.
    StartLast,
    /// Seconds for a join that gives every row, of so many.
    JoinRows,
    /// Seconds for a join that gives a sum per row of the small side.
    JoinSums,
    /// Wakeups a second with so many idle clients.
    Wakeups,
    /// Rate beside a program that spins for the writer's lock, by the rate without it.
    FenceQuiet,
    /// The same by the rate beside a program that spins elsewhere.
    FenceElsewhere,
    /// Seconds for a copy of a legacy database of so many megabytes.
    Split,
    /// Peak memory of that in MiB.
    SplitMemory,
}

impl Subject {
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Processes
            | Self::Bulk
            | Self::Backlog
            | Self::IdleApplied
            | Self::IdleBulk
            | Self::RowsApplied
            | Self::RowsBulk
            | Self::Wakeups => "per second",
            Self::Memory | Self::MemoryLarge | Self::MemoryStreams | Self::SplitMemory => "MiB",
            Self::StartFirst | Self::StartLast | Self::JoinRows | Self::JoinSums | Self::Split => "s",
            Self::FenceQuiet | Self::FenceElsewhere => "of the rate",
        }
    }

    /// What a line of the table says, `at` filled in.
    pub(crate) fn words(self, at: u64) -> String {
        let at = crate::report::number(at as f64);
        match self {
            Self::Processes => format!("{at} processes, one command at a time"),
            Self::Bulk => format!("{at} rows in bulk"),
            Self::Backlog => format!("backlog of {at} commands"),
            Self::Memory => format!("writer's peak memory, backlog of {at} commands"),
            Self::MemoryLarge => format!("writer's peak memory, backlog of {at} values of 1 MiB"),
            Self::MemoryStreams => format!("writer's peak memory, backlog of {at} streams"),
            Self::IdleApplied => format!("8 processes, beside {at} idle streams"),
            Self::IdleBulk => format!("bulk, beside {at} idle streams"),
            Self::RowsApplied => format!("8 processes, in {at} rows"),
            Self::RowsBulk => format!("bulk, in {at} rows"),
            Self::StartFirst => format!("start with {at} streams in the spool, first row"),
            Self::StartLast => format!("start with {at} streams in the spool, last row"),
            Self::JoinRows => format!("join of {at} rows, row by row"),
            Self::JoinSums => format!("join of {at} rows, summed up"),
            Self::Wakeups => format!("idle writer, {at} clients connected, wakeups"),
            Self::FenceQuiet => "8 processes beside one that spins for the lock".into(),
            Self::FenceElsewhere => "the same, by the rate beside one that spins elsewhere".into(),
            Self::Split => format!("split of {at} MB, proven, or VACUUM INTO"),
            Self::SplitMemory => format!("peak memory of a split of {at} MB"),
        }
    }
}

/// One measurement, in every round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) subject: Subject,
    pub(crate) peer: Peer,
    pub(crate) at: u64,
    pub(crate) rounds: Vec<Round>,
}

/// What one round found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) value: f64,
    /// Milliseconds, one per share of [`SHARES`]; empty where no single command is timed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) latency: Vec<f64>,
    /// The same with stalls counted in full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) latency_in_full: Vec<f64>,
}

impl Round {
    pub(crate) fn of(progress: &Progress) -> Self {
        let in_full = progress.in_full();
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        Self {
            value: rounded(progress.rate()),
            latency: SHARES.iter().map(|share| progress.latency_ms(*share)).collect(),
            latency_in_full: SHARES.iter().map(|s| in_full.value_at_quantile(*s) as f64 / 1000.0).collect(),
        }
    }
}

/// Everything that one run found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    schema: u32,
    /// One line each: what, and its value.
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) points: Vec<Point>,
}

impl Results {
    pub(crate) fn new(machine: Vec<(String, String)>, rounds: usize, seconds: f64) -> Self {
        Self { schema: SCHEMA, machine, rounds, seconds, points: Vec::new() }
    }

    /// Reads what an earlier run wrote.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let results: Self =
            serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(results.schema, SCHEMA, "{} was written by another version", path.display());
        results
    }

    /// Takes one round of a measurement.
    pub(crate) fn record(&mut self, subject: Subject, peer: Peer, at: u64, round: Round) {
        let same = |point: &&mut Point| (point.subject, point.peer, point.at) == (subject, peer, at);
        match self.points.iter_mut().find(same) {
            Some(point) => point.rounds.push(round),
            None => self.points.push(Point { subject, peer, at, rounds: vec![round] }),
        }
    }

    /// Takes one round of a measurement that is a single number.
    pub(crate) fn number(&mut self, subject: Subject, peer: Peer, at: u64, value: f64) {
        self.record(subject, peer, at, Round { value, ..Round::default() });
    }

    /// The points about one subject, in the order in which they were measured.
    pub(crate) fn about(&self, subject: Subject) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(move |point| point.subject == subject)
    }

    pub(crate) fn point(&self, subject: Subject, peer: Peer, at: u64) -> Option<&Point> {
        self.about(subject).find(|point| (point.peer, point.at) == (peer, at))
    }
}

impl Point {
    /// The median over the rounds.
    pub(crate) fn value(&self) -> f64 {
        self.median(|round| Some(round.value)).unwrap_or(f64::NAN)
    }

    /// The median over the rounds of the latency that this share of the commands stayed within, in milliseconds.
    pub(crate) fn latency(&self, share: f64) -> Option<f64> {
        self.median(|round| round.latency.get(index(share)).copied())
    }

    /// The same with stalls counted in full.
    pub(crate) fn latency_in_full(&self, share: f64) -> Option<f64> {
        self.median(|round| round.latency_in_full.get(index(share)).copied())
    }

    fn median(&self, value: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.rounds.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| median(&values))
    }
}

fn index(share: f64) -> usize {
    SHARES.iter().position(|known| known.total_cmp(&share).is_eq()).expect("one of SHARES")
}

/// The middle one; the mean of the two middle ones of an even number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        f64::NAN
    } else if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}
