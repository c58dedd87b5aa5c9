//! What Penholder wants to reach, as ratios within one run, and whether it did.

use crate::peer::Peer;
use crate::report::{number, short};
use crate::results::{Point, Results, Subject};

/// The verdict that nobody should overlook.
pub(crate) const NOT_MET: &str = "NOT MET";

/// What a number must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// One goal, and how far it was reached.
pub(crate) struct Goal {
    pub(crate) what: String,
    bound: Bound,
    /// `None` where this run did not measure it.
    reached: Option<Reached>,
}

struct Reached {
    ours: f64,
    /// Whom the goal is about, if it is about a ratio.
    theirs: Option<f64>,
    unit: &'static str,
}

impl Reached {
    fn value(&self) -> f64 {
        self.theirs.map_or(self.ours, |theirs| self.ours / theirs)
    }
}

impl Goal {
    fn new(what: impl Into<String>, bound: Bound, reached: Option<Reached>) -> Self {
        Self { what: what.into(), bound, reached }
    }

    /// What, Penholder, the other side, ratio, goal, verdict.
    pub(crate) fn cells(&self) -> [String; 6] {
        let bound = match self.bound {
            Bound::AtLeast(bound) => format!("at least {}", plain(bound)),
            Bound::AtMost(bound) if bound < 0.1 => format!("at most {}", ratio(bound)),
            Bound::AtMost(bound) => format!("at most {}", plain(bound)),
        };
        let Some(reached) = &self.reached else {
            let none = String::new;
            return [self.what.clone(), none(), none(), none(), bound, "not measured".into()];
        };
        let with_unit = |value: f64| format!("{}{}", number(value), short(reached.unit));
        [
            self.what.clone(),
            with_unit(reached.ours),
            reached.theirs.map(with_unit).unwrap_or_default(),
            reached.theirs.map(|_| ratio(reached.value())).unwrap_or_default(),
            bound,
            if self.bound.holds(reached.value()) { "met" } else { NOT_MET }.into(),
        ]
    }
}

/// A bound as one writes it down.
fn plain(bound: f64) -> String {
    ((bound * 100.0).round() / 100.0).to_string()
}

/// A ratio well below one is read more easily as a fraction.
fn ratio(value: f64) -> String {
    if value < 0.1 { format!("1/{}", number((1.0 / value).round())) } else { number(value) }
}

/// Every goal, in the order of what users meet first.
pub(crate) fn goals(results: &Results) -> Vec<Goal> {
    let look = Look { results };
    let mut goals = Vec::new();
    for (processes, times) in [(8, 8.0), (16, 12.0)] {
        let name = format!("{processes} processes against {processes} with SQLite, throughput");
        goals.push(Goal::new(name, Bound::AtLeast(times), look.rates(processes, Peer::Sqlite)));
        let tail = |point: &Point| point.latency_in_full(0.999);
        goals.push(Goal::new(
            "... latency of 1 in 1,000, stalls in full",
            Bound::AtMost(0.01),
            look.latencies(processes, tail),
        ));
    }
    goals.push(Goal::new(
        "8 processes against 8 sessions of PostgreSQL, throughput",
        Bound::AtLeast(2.0),
        look.rates(8, Peer::Postgres),
    ));
    goals.push(Goal::new(
        "1 process against a direct commit, median latency",
        Bound::AtMost(1.1),
        look.latencies(1, |point| point.latency(0.5)),
    ));
    goals.extend(look.in_bulk());
    goals.extend(look.costs());
    goals.extend(look.the_rest());
    goals
}

/// Finds in the results what a goal is about.
struct Look<'a> {
    results: &'a Results,
}

impl Look<'_> {
    fn point(&self, subject: Subject, peer: Peer, at: u64) -> Option<&Point> {
        self.results.point(subject, peer, at)
    }

    /// The point with the largest amount.
    fn largest(&self, subject: Subject, peer: Peer) -> Option<&Point> {
        self.results.about(subject).filter(|point| point.peer == peer).max_by_key(|point| point.at)
    }

    fn rates(&self, processes: u64, peer: Peer) -> Option<Reached> {
        let ours = self.point(Subject::Processes, Peer::Penholder, processes)?.value();
        let theirs = self.point(Subject::Processes, peer, processes)?.value();
        Some(Reached { ours, theirs: Some(theirs), unit: Subject::Processes.unit() })
    }

    fn latencies(&self, processes: u64, of: impl Fn(&Point) -> Option<f64>) -> Option<Reached> {
        let ours = of(self.point(Subject::Processes, Peer::Penholder, processes)?)?;
        let theirs = of(self.point(Subject::Processes, Peer::Sqlite, processes)?)?;
        Some(Reached { ours, theirs: Some(theirs), unit: "ms" })
    }

    fn in_bulk(&self) -> [Goal; 2] {
        let live = self.largest(Subject::Bulk, Peer::Penholder).map(Point::value);
        let limit = self.largest(Subject::Bulk, Peer::Connection).map(Point::value);
        let replay = self.largest(Subject::Backlog, Peer::Penholder);
        let of = |ours: Option<f64>, theirs| {
            Some(Reached { ours: ours?, theirs: Some(theirs?), unit: Subject::Bulk.unit() })
        };
        let name = format!("backlog of {} commands against live bulk", amount(replay));
        [
            Goal::new("bulk from 4 processes against one connection", Bound::AtLeast(0.85), of(live, limit)),
            Goal::new(name, Bound::AtLeast(0.9), of(replay.map(Point::value), live)),
        ]
    }

    /// What a command costs beside what should cost nothing, by what it costs without.
    fn costs(&self) -> [Goal; 4] {
        // What a larger B-tree costs everybody is not ours to avoid.
        let growth =
            self.cost(Subject::RowsBulk, Peer::Connection).map_or(1.0, |plain| plain.value().max(1.0));
        let goal = |name: &str, subject, growth: f64| {
            let what = format!(
                "{name} {}, against none",
                amount_of(subject, self.largest(subject, Peer::Penholder))
            );
            Goal::new(what, Bound::AtMost(1.1 * growth), self.cost(subject, Peer::Penholder))
        };
        [
            goal("8 processes, a command with", Subject::IdleApplied, 1.0),
            goal("bulk, a command with", Subject::IdleBulk, 1.0),
            goal("8 processes, a command after", Subject::RowsApplied, growth),
            goal("bulk, a command after", Subject::RowsBulk, growth),
        ]
    }

    /// The cost of a command with most of it, and with none.
    fn cost(&self, subject: Subject, peer: Peer) -> Option<Reached> {
        let (most, none) = (self.largest(subject, peer)?, self.point(subject, peer, 0)?);
        let microseconds = |point: &Point| 1e6 / point.value();
        Some(Reached { ours: microseconds(most), theirs: Some(microseconds(none)), unit: "us" })
    }

    fn the_rest(&self) -> Vec<Goal> {
        let against = |subject, peer| {
            let (ours, theirs) = (self.largest(subject, Peer::Penholder)?, self.largest(subject, peer)?);
            Some(Reached { ours: ours.value(), theirs: Some(theirs.value()), unit: subject.unit() })
        };
        let alone = |subject, peer| {
            Some(Reached { ours: self.largest(subject, peer)?.value(), theirs: None, unit: subject.unit() })
        };
        let start = self.largest(Subject::StartFirst, Peer::Penholder);
        let backlogs = [Subject::Memory, Subject::MemoryLarge, Subject::MemoryStreams];
        let points = backlogs.into_iter().flat_map(|subject| self.results.about(subject));
        let most = points.flat_map(|point| &point.rounds).map(|round| round.value).max_by(f64::total_cmp);
        let memory = most.map(|ours| Reached { ours, theirs: None, unit: Subject::Memory.unit() });
        let at_most = Bound::AtMost;
        vec![
            Goal::new(
                "join in the application against ATTACH",
                at_most(1.0),
                against(Subject::JoinRows, Peer::Attach),
            ),
            Goal::new(
                "... against ATTACH that adds up by GROUP BY",
                at_most(1.0),
                against(Subject::JoinSums, Peer::Attach),
            ),
            Goal::new(
                format!("start with {} streams in the spool, until the first row", amount(start)),
                at_most(1.0),
                alone(Subject::StartFirst, Peer::Penholder),
            ),
            Goal::new("memory of the writer, with any backlog of this run", at_most(64.0), memory),
            Goal::new("wakeups of an idle writer", at_most(2.0), alone(Subject::Wakeups, Peer::Penholder)),
            Goal::new(
                "8 processes beside one that spins for the lock, of the rate without",
                Bound::AtLeast(0.95),
                alone(Subject::FenceQuiet, Peer::Penholder),
            ),
            Goal::new("split against VACUUM INTO, time", at_most(1.5), against(Subject::Split, Peer::Sqlite)),
            Goal::new("split, peak memory", at_most(64.0), alone(Subject::SplitMemory, Peer::Penholder)),
        ]
    }
}

fn amount(point: Option<&Point>) -> String {
    point.map_or_else(|| "many".into(), |point| number(point.at as f64))
}

fn amount_of(subject: Subject, point: Option<&Point>) -> String {
    let what =
        if matches!(subject, Subject::IdleApplied | Subject::IdleBulk) { "idle streams" } else { "rows" };
    format!("{} {what}", amount(point))
}
