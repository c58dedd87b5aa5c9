//! The joined report: time from one database, projects and appointments from the other, both as of one moment.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use penholder_client::read::{LocalTime, Reader, Snapshot, Span, Tracker};
use serde::{Deserialize, Serialize};

use crate::Result;

/// Rows of the table in the terminal; the page shows them all.
const ROWS_MAX: usize = 10;
/// Programs without a project that the terminal names.
const STRANGERS_MAX: usize = 5;
/// How far around an appointment the report looks for events.
const MARGIN: Duration = Duration::ZERO;

/// What the app server answers at `/report`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Time per project and day, the longest first within a day, what has no project last.
    pub(crate) days: Vec<Day>,
    /// Programs that belong to no project, with their sessions, the most first.
    pub(crate) strangers: Vec<(String, u64)>,
    /// Appointments with what happened meanwhile.
    pub(crate) appointments: Vec<Appointment>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Day {
    pub(crate) date: String,
    pub(crate) project: Option<String>,
    pub(crate) seconds: u64,
    pub(crate) sessions: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Appointment {
    pub(crate) title: String,
    pub(crate) events: usize,
    /// Programs that did something then.
    pub(crate) programs: usize,
}

impl Report {
    pub(crate) fn read(reader: &mut Reader, tracker: &mut Tracker) -> Result<Self> {
        let snapshot = reader.snapshot()?;
        let local = LocalTime::utc();
        let ever = Span { from: 0, to: local.now };
        let mut days: Vec<Day> = tracker
            .time_per_project_per_day(&snapshot, ever, local)?
            .into_iter()
            .map(|row| Day {
                date: row.day.to_string(),
                project: row.project.map(|project| project.name),
                seconds: row.time.as_secs(),
                sessions: row.sessions,
            })
            .collect();
        let key = |day: &Day| (day.date.clone(), day.project.is_none(), std::cmp::Reverse(day.seconds));
        days.sort_by_key(key);
        let mut by_program = BTreeMap::new();
        for session in tracker.sessions_without_project(&snapshot, ever)? {
            *by_program.entry(family(&session.app).to_owned()).or_insert(0) += 1;
        }
        let mut strangers: Vec<(String, u64)> = by_program.into_iter().collect();
        strangers.sort_by_key(|(name, sessions)| (u64::MAX - sessions, name.clone()));
        Ok(Self { days, strangers, appointments: appointments(&snapshot, tracker)? })
    }

    /// The report as a terminal shows it.
    pub(crate) fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["day", "project", "process time", "sessions"]);
        for day in self.days.iter().take(ROWS_MAX) {
            let project = day.project.as_deref().unwrap_or("(no project)");
            table.add_row([day.date.as_str(), project, &hours(day.seconds), &day.sessions.to_string()]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut lines = vec![table.to_string()];
        if self.days.len() > ROWS_MAX {
            lines.push(format!(" and {} more", self.days.len() - ROWS_MAX));
        }
        let strangers = self.strangers.iter().take(STRANGERS_MAX);
        let strangers: Vec<_> = strangers.map(|(name, sessions)| format!("{name} ({sessions})")).collect();
        lines.push(format!(" without a project, among others: {}", strangers.join(", ")));
        lines.extend(self.appointments.iter().map(|entry| {
            let (events, programs) = (entry.events, entry.programs);
            format!(" {}: meanwhile {events} events of {programs} programs", entry.title)
        }));
        lines.join("\n")
    }
}

fn appointments(snapshot: &Snapshot<'_>, tracker: &mut Tracker) -> Result<Vec<Appointment>> {
    let mut ids: Vec<i64> = Vec::new();
    snapshot.stream("config", "SELECT id FROM calendar_events ORDER BY starts_at, id", [], |row| {
        ids.push(row.get(0)?);
        Ok(())
    })?;
    let mut appointments = Vec::new();
    for id in ids {
        if let Some(found) = tracker.events_around_calendar_entry(snapshot, id, MARGIN)? {
            let mut programs: Vec<_> = found.events.iter().filter_map(|event| event.app.as_deref()).collect();
            programs.sort_unstable();
            programs.dedup();
            let (events, programs) = (found.events.len(), programs.len());
            appointments.push(Appointment { title: found.entry.title, events, programs });
        }
    }
    Ok(appointments)
}

/// Kernel threads come in families: `kworker/1:2` is one of the kworkers.
fn family(app: &str) -> &str {
    app.split(['/', ':']).next().unwrap_or(app)
}

fn hours(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The report as a browser shows it.
pub(crate) fn page(report: &Report) -> String {
    let mut rows = String::new();
    for day in &report.days {
        let project = escape(day.project.as_deref().unwrap_or("(no project)"));
        let (time, sessions) = (hours(day.seconds), day.sessions);
        // Writing to a string cannot fail.
        writeln!(rows, "<tr><td>{}<td>{project}<td>{time}<td>{sessions}", escape(&day.date)).ok();
    }
    format!(
        "<!doctype html><html lang=en><title>Time per project</title>\
         <style>body{{font:16px sans-serif;margin:2em}}td,th{{padding:.2em 1em;text-align:left}}</style>\
         <h1>Time per project and day</h1><table><tr><th>day<th>project<th>process time<th>sessions\n{rows}</table>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
