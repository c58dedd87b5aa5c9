//! The table on the terminal, and the same as JSON.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// What a number must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Told for information.
    None,
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Goal {
    fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::None => "",
            Self::AtLeast(bound) if value >= bound => "met",
            Self::AtMost(bound) if value <= bound => "met",
            Self::AtLeast(_) | Self::AtMost(_) => "NOT MET",
        }
    }

    fn bound(self) -> String {
        match self {
            Self::None => String::new(),
            Self::AtLeast(bound) => format!("at least {}", number(bound)),
            Self::AtMost(bound) => format!("at most {}", number(bound)),
        }
    }
}

/// The same work on both sides, one value per round.
pub(crate) struct Comparison {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) penholder: Vec<f64>,
    pub(crate) direct: Vec<f64>,
    /// About the ratio of the medians, ours by theirs.
    pub(crate) goal: Goal,
}

impl Comparison {
    fn ratio(&self) -> f64 {
        median(&self.penholder) / median(&self.direct)
    }
}

/// A single number.
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
}

/// Everything one run found out.
pub(crate) struct Report {
    machine: Vec<(&'static str, String)>,
    rounds: usize,
    seconds: f64,
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) measures: Vec<Measure>,
}

impl Report {
    pub(crate) fn new(machine: Vec<(&'static str, String)>, rounds: usize, seconds: f64) -> Self {
        Self { machine, rounds, seconds, comparisons: Vec::new(), measures: Vec::new() }
    }

    pub(crate) fn to_json(&self) -> Value {
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let comparison = |row: &Comparison| {
            json!({
                "name": row.name.trim().replace('\n', " "), "unit": row.unit, "penholder": row.penholder, "direct": row.direct,
                "penholder_median": median(&row.penholder), "direct_median": median(&row.direct),
                "ratio": row.ratio(), "goal": row.goal.bound(), "verdict": row.goal.verdict(row.ratio()),
            })
        };
        let measure = |row: &Measure| {
            json!({
                "name": row.name.trim().replace('\n', " "), "unit": row.unit, "value": row.value,
                "goal": row.goal.bound(), "verdict": row.goal.verdict(row.value),
            })
        };
        json!({
            "schema": 1,
            "machine": machine,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "delivery": "exact in every round",
            "comparisons": self.comparisons.iter().map(comparison).collect::<Vec<_>>(),
            "measures": self.measures.iter().map(measure).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.machine {
            writeln!(f, "{name:>26}: {value}")?;
        }
        writeln!(
            f,
            "{:>26}: {}, medians over them; timed ones {} s each",
            "rounds", self.rounds, self.seconds
        )?;
        writeln!(f, "{:>26}: exact in every round, verified row by row", "delivery")?;
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["", "Penholder", "directly", "unit", "ratio", "goal", "verdict"]);
        for row in &self.comparisons {
            table.add_row([
                row.name.clone(),
                number(median(&row.penholder)),
                number(median(&row.direct)),
                row.unit.to_owned(),
                number(row.ratio()),
                row.goal.bound(),
                row.goal.verdict(row.ratio()).to_owned(),
            ]);
        }
        for row in &self.measures {
            table.add_row([
                row.name.clone(),
                number(row.value),
                String::new(),
                row.unit.to_owned(),
                String::new(),
                row.goal.bound(),
                row.goal.verdict(row.value).to_owned(),
            ]);
        }
        for column in [1, 2, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        write!(f, "{table}")
    }
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

/// Three significant digits or whole numbers, whichever is more.
fn number(value: f64) -> String {
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
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), None), |(w, f)| (w, Some(f)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}
