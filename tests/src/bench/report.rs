//! The tables: on the terminal, and as Markdown for the documents.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};

use crate::goals::goals;
use crate::peer::Peer;
use crate::results::{Point, Results, Subject};

const PROCESSES: [&str; 8] =
    ["", "peer", "per second", "by Penholder's", "median", "1 in 1,000", "in full", "worst"];
const OTHERS: [&str; 4] = ["", "peer", "median", "unit"];
const GOALS: [&str; 6] = ["", "Penholder", "the other", "ratio", "goal", "verdict"];

/// A run for people: what it was measured on, then everything, the goals last.
pub(crate) struct Terminal<'a>(pub(crate) &'a Results);

impl fmt::Display for Terminal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0.machine {
            writeln!(f, "{name:>26}: {value}")?;
        }
        let (rounds, seconds) = (self.0.rounds, self.0.seconds);
        writeln!(f, "{:>26}: {rounds}, medians over them; timed ones {seconds} s each", "rounds")?;
        writeln!(f, "{:>26}: exact and in order in every round, verified row by row", "delivery")?;
        for (head, rows) in tables(self.0).into_iter().filter(|(_, rows)| !rows.is_empty()) {
            let mut table = Table::new();
            table.load_style(presets::UTF8_FULL_CONDENSED);
            table.set_header(&head);
            table.add_rows(rows);
            for (column, name) in table.column_iter_mut().zip(head) {
                if !name.is_empty() && name != "peer" {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
            writeln!(f, "{table}")?;
        }
        Ok(())
    }
}

/// The same tables, as the documents show them.
pub(crate) struct Markdown<'a>(pub(crate) &'a Results);

impl fmt::Display for Markdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (head, rows)) in tables(self.0).into_iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            writeln!(f, "{gap}| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()))?;
            for row in rows {
                writeln!(f, "| {} |", row.join(" | ").replace("NOT MET", "**NOT MET**"))?;
            }
        }
        Ok(())
    }
}

/// Head and rows of each table: client processes, everything else, goals.
fn tables(results: &Results) -> [(Vec<&'static str>, Vec<Vec<String>>); 3] {
    let processes = results.about(Subject::Processes).map(|point| processes_row(results, point));
    let others = results.points.iter().filter(|point| point.subject != Subject::Processes).map(|point| {
        vec![
            point.subject.words(point.at),
            point.peer.to_string(),
            number(point.value()),
            point.subject.unit().to_owned(),
        ]
    });
    [
        (PROCESSES.to_vec(), processes.collect()),
        (OTHERS.to_vec(), others.collect()),
        (GOALS.to_vec(), goals(results).iter().map(|goal| goal.cells().to_vec()).collect()),
    ]
}

fn processes_row(results: &Results, point: &Point) -> Vec<String> {
    let ours = results.point(Subject::Processes, Peer::Penholder, point.at).map(Point::value);
    let ratio = ours.filter(|_| point.peer != Peer::Penholder).map(|ours| number(point.value() / ours));
    let ms = |value: Option<f64>| value.map(|value| format!("{} ms", number(value))).unwrap_or_default();
    vec![
        if point.at == 1 { "1 process".into() } else { format!("{} processes", point.at) },
        point.peer.to_string(),
        number(point.value()),
        ratio.unwrap_or_default(),
        ms(point.latency(0.5)),
        ms(point.latency(0.999)),
        ms(point.latency_in_full(0.999)),
        ms(point.latency(1.0)),
    ]
}

/// How a unit is written behind a number.
pub(crate) fn short(unit: &str) -> String {
    match unit {
        "per second" => "/s".into(),
        "of the rate" => String::new(),
        unit => format!(" {unit}"),
    }
}

/// Three significant digits or whole numbers, whichever is more.
pub(crate) fn number(value: f64) -> String {
    if value >= 10.0 && value.fract() == 0.0 {
        return grouped(&format!("{value:.0}"));
    }
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else if value >= 1.0 {
        2
    } else {
        3
    };
    let plain = format!("{value:.digits$}");
    match plain.split_once('.') {
        // Of a whole number nothing but zeros would follow.
        Some((whole, fraction)) if fraction.bytes().any(|digit| digit != b'0') => {
            format!("{}.{fraction}", grouped(whole))
        }
        Some((whole, _)) => grouped(whole),
        None => grouped(&plain),
    }
}

/// Thousands set apart.
fn grouped(whole: &str) -> String {
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
