//! Draws a run: one SVG per question, from the same numbers as the tables.

use std::path::Path;

use plotters::style::{BLACK, RGBColor};

use crate::chart::{Chart, Line};
use crate::peer::Peer;
use crate::report::number;
use crate::results::{Point, Results, SHARES, Subject};

/// Client processes of the latency plot.
const LATENCY_PROCESSES: u64 = 8;
/// Colours that stay apart for the colour-blind (Okabe and Ito), ours first.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(110, 110, 110),
];

/// Draws all that the run measured into `directory`.
pub(crate) fn draw(results: &Results, directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let charts = [throughput(results), latency(results), backlog(results), rows(results), idle(results)];
    for chart in charts.iter().filter(|chart| chart.series.iter().any(|line| line.values.len() > 1)) {
        chart
            .draw(directory)
            .unwrap_or_else(|error| panic!("{}/{}: {error}", directory.display(), chart.file));
    }
}

/// Commands a second against client processes, and the limit.
fn throughput(results: &Results) -> Chart {
    let at = amounts(results, &[Subject::Processes]);
    let mut series: Vec<Line> =
        peers(results).map(|peer| line(results, Subject::Processes, peer, &at)).collect();
    if let Some(limit) = results.about(Subject::Bulk).find(|point| point.peer == Peer::Connection) {
        let values = (0..at.len()).map(|place| (place as f64, limit.value())).collect();
        let name = "limit: one connection in bulk".into();
        series.push(Line { name, color: BLACK, values });
    }
    Chart {
        file: "throughput.svg",
        title: "Commands a second, one at a time, each waited for".into(),
        x: "client processes",
        y: "commands a second",
        places: at.iter().map(|at| number(*at as f64)).collect(),
        series,
    }
}

/// Latency against the share of commands that it holds for.
fn latency(results: &Results) -> Chart {
    let points = results.about(Subject::Processes).filter(|point| point.at == LATENCY_PROCESSES);
    let series = points.map(|point| {
        let values = SHARES.iter().enumerate().map(|(place, share)| {
            (place as f64, point.latency_in_full(*share).unwrap_or(f64::NAN).max(0.001))
        });
        Line { name: point.peer.to_string(), color: color(point.peer), values: values.collect() }
    });
    let place = |share: &f64| {
        if *share < 1.0 { format!("{} %", (share * 1e6).round() / 1e4) } else { "worst".into() }
    };
    Chart {
        file: "latency.svg",
        title: format!("Latency with {LATENCY_PROCESSES} processes, a stall counted for as long as it lasts"),
        x: "share of the commands",
        y: "milliseconds, at most",
        places: SHARES.iter().map(place).collect(),
        series: series.collect(),
    }
}

fn backlog(results: &Results) -> Chart {
    let at = amounts(results, &[Subject::Backlog]);
    let mut from_backlog = line(results, Subject::Backlog, Peer::Penholder, &at);
    from_backlog.name = "from a backlog, start included".into();
    let mut series = vec![from_backlog];
    for (peer, name) in [(Peer::Penholder, "live, 4 processes"), (Peer::Connection, "one connection")] {
        if let Some(point) = results.about(Subject::Bulk).find(|point| point.peer == peer) {
            let values = (0..at.len()).map(|place| (place as f64, point.value())).collect();
            series.push(Line { name: name.into(), color: COLORS[series.len()], values });
        }
    }
    Chart {
        file: "backlog.svg",
        title: "Commands a second that waited while no writer ran".into(),
        x: "commands in the backlog",
        y: "commands a second",
        places: at.iter().map(|at| number(*at as f64)).collect(),
        series,
    }
}

fn rows(results: &Results) -> Chart {
    let subjects = [
        (Subject::RowsApplied, Peer::Penholder),
        (Subject::RowsBulk, Peer::Penholder),
        (Subject::RowsBulk, Peer::Connection),
    ];
    beside("rows.svg", "Cost against the size of the table", "rows in the table", results, &subjects)
}

fn idle(results: &Results) -> Chart {
    let subjects = [(Subject::IdleApplied, Peer::Penholder), (Subject::IdleBulk, Peer::Penholder)];
    beside("idle.svg", "Cost against idle clients", "idle streams, connected and silent", results, &subjects)
}

/// Rates beside what should cost nothing.
fn beside(
    file: &'static str,
    title: &str,
    x: &'static str,
    results: &Results,
    of: &[(Subject, Peer)],
) -> Chart {
    let at = amounts(results, &of.iter().map(|(subject, _)| *subject).collect::<Vec<_>>());
    let series = of.iter().enumerate().map(|(index, &(subject, peer))| {
        let what = if matches!(subject, Subject::RowsApplied | Subject::IdleApplied) {
            "8 processes"
        } else {
            "bulk"
        };
        Line { name: format!("{peer}, {what}"), color: COLORS[index], ..line(results, subject, peer, &at) }
    });
    Chart {
        file,
        title: title.into(),
        x,
        y: "commands a second",
        places: at.iter().map(|at| number(*at as f64)).collect(),
        series: series.collect(),
    }
}

/// Who was measured with client processes.
fn peers(results: &Results) -> impl Iterator<Item = Peer> {
    Peer::SERVING
        .into_iter()
        .filter(|peer| results.about(Subject::Processes).any(|point| point.peer == *peer))
}

/// The amounts that were measured, in order.
fn amounts(results: &Results, subjects: &[Subject]) -> Vec<u64> {
    let mut at: Vec<u64> =
        subjects.iter().flat_map(|subject| results.about(*subject)).map(|p| p.at).collect();
    at.sort_unstable();
    at.dedup();
    at
}

fn line(results: &Results, subject: Subject, peer: Peer, at: &[u64]) -> Line {
    let value = |at: &u64| results.point(subject, peer, *at).map(Point::value);
    let values = at.iter().enumerate().filter_map(|(place, at)| Some((place as f64, value(at)?)));
    Line { name: peer.to_string(), color: color(peer), values: values.collect() }
}

fn color(peer: Peer) -> RGBColor {
    Peer::SERVING.iter().position(|known| *known == peer).map_or(BLACK, |index| COLORS[index])
}
