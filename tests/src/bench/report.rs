//! The tables: on the terminal, and as Markdown for the documents.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};

use crate::goals::{NOT_MET, goals};
use crate::peer::Peer;
use crate::results::{Point, Results, Subject};

/// One table. Documents show it between a line with its name and one that says that it ends, see [`fill`].
struct Sheet {
    name: &'static str,
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

/// The column whose numbers above one say that somebody is faster.
const BY_OURS: &str = "by Penholder's";

/// All of them, the goals last.
fn sheets(results: &Results) -> [Sheet; 4] {
    let (rounds, seconds) = (results.rounds, results.seconds);
    let rounds = format!("{rounds}, medians over them; what is timed, for {seconds} s each");
    let told =
        [("rounds", rounds), ("delivery", "exact and in order in every round, verified row by row".into())];
    let told = told.map(|(name, value)| (name.to_owned(), value));
    let machine = results.machine.iter().chain(&told).map(|(name, value)| vec![name.clone(), value.clone()]);
    let others = results.points.iter().filter(|point| point.subject != Subject::Processes).map(|point| {
        let (words, unit) = (point.subject.words(point.at), point.subject.unit().to_owned());
        vec![words, point.peer.to_string(), number(point.value()), unit]
    });
    let processes = results.about(Subject::Processes).map(|point| processes_row(results, point));
    let goals = goals(results).iter().map(|goal| goal.cells().to_vec()).collect();
    [
        Sheet { name: "machine", head: &["", ""], rows: machine.collect() },
        Sheet {
            name: "processes",
            head: &["", "peer", "per second", BY_OURS, "median", "1 in 1,000", "in full", "worst"],
            rows: processes.collect(),
        },
        Sheet { name: "others", head: &["", "peer", "median", "unit"], rows: others.collect() },
        Sheet {
            name: "goals",
            head: &["", "Penholder", "the other", "ratio", "goal", "verdict"],
            rows: goals,
        },
    ]
}

/// A run on the terminal.
pub(crate) struct Terminal<'a>(pub(crate) &'a Results);

impl fmt::Display for Terminal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [machine, tables @ ..] = sheets(self.0);
        for row in machine.rows {
            writeln!(f, "{:>31}: {}", row[0], row[1])?;
        }
        for sheet in tables.into_iter().filter(|sheet| !sheet.rows.is_empty()) {
            let mut table = Table::new();
            table.load_style(presets::UTF8_FULL_CONDENSED);
            table.set_header(sheet.head);
            table.add_rows(sheet.rows);
            for (column, name) in table.column_iter_mut().zip(sheet.head) {
                if !name.is_empty() && *name != "peer" {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
            writeln!(f, "{table}")?;
        }
        Ok(())
    }
}

/// Puts the tables into a document, each between the lines `<!-- bench: NAME -->` and `<!-- bench: end -->`.
pub(crate) fn fill(document: &str, results: &Results) -> String {
    let sheets = sheets(results);
    let (mut filled, mut skipping) = (String::new(), false);
    for line in document.lines() {
        skipping &= line != "<!-- bench: end -->";
        if !skipping {
            filled += line;
            filled.push('\n');
        }
        let name = line.strip_prefix("<!-- bench: ").and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(sheet) = sheets.iter().find(|sheet| Some(sheet.name) == name) {
            filled += &sheet.to_string();
            skipping = true;
        }
    }
    assert!(!skipping, "a table of the document has no end");
    filled
}

/// As Markdown.
impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |\n|{}", self.head.join(" | "), "---|".repeat(self.head.len()))?;
        for row in &self.rows {
            let cells = row.iter().zip(self.head).map(|(cell, name)| {
                let faster = *name == BY_OURS && cell.replace(',', "").parse().is_ok_and(|by: f64| by > 1.0);
                if faster || cell == NOT_MET { format!("**{cell}**") } else { cell.clone() }
            });
            writeln!(f, "| {} |", cells.collect::<Vec<_>>().join(" | "))?;
        }
        Ok(())
    }
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
