//! Typed queries on the built-in activity-tracker schema: examples of joins across databases, and useful as such.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, Row, params};

use super::{Lookup, ReadError, Snapshot};

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;

/// Sessions that end after the span begins, and those that still run: two searches of one index, that of
/// the end. The `+` keeps SQLite from the index of the beginning, which would walk through all that is older.
const SESSIONS: &str = "\
    SELECT id, started_at, ended_at, project_id, domain, app, title FROM activity_sessions \
    WHERE ended_at > ?1 AND +started_at < ?2 \
    UNION ALL \
    SELECT id, started_at, ended_at, project_id, domain, app, title FROM activity_sessions \
    WHERE ended_at IS NULL AND started_at < ?2";

const EVENTS: &str = "\
    SELECT e.id, e.at, e.kind, e.data, s.app, s.title, s.project_id, s.domain \
    FROM activity_events AS e LEFT JOIN activity_sessions AS s ON s.id = e.session_id \
    WHERE e.at >= ?1 AND e.at < ?2 ORDER BY e.at, e.id";

const ENTRY: &str = "SELECT id, title, starts_at, ends_at FROM calendar_events WHERE id = ?1";

/// A stretch of time in Unix milliseconds, from its first moment to the first one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first moment that belongs to it, in ms.
    pub from: i64,
    /// The first moment that no longer does, in ms.
    pub to: i64,
}

/// What time it is for the user: where days begin, and how far a session that still runs has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// The present moment, in Unix milliseconds: a running session counts up to here.
    pub now: i64,
    /// How far local time is ahead of UTC, in minutes: 60 for Berlin in winter. One value for a whole report.
    pub utc_offset_minutes: i32,
}

impl LocalTime {
    /// The system's time with days as in UTC.
    #[must_use]
    pub fn utc() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { now: i64::try_from(now.as_millis()).unwrap_or(i64::MAX), utc_offset_minutes: 0 }
    }

    fn offset_ms(self) -> i64 {
        i64::from(self.utc_offset_minutes) * MINUTE_MS
    }
}

/// A calendar day, as the number of days since 1970-01-01; shown as `2026-11-20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub i64);

impl fmt::Display for Day {
    /// Counts in years that begin in March, so that the leap day is the last one of its year.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0 + 719_468; // since 0000-03-01
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// A project, as reports name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// `projects.id`.
    pub id: i64,
    /// `projects.name`.
    pub name: String,
}

/// The time that one project got on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectDay {
    /// The day, in local time.
    pub day: Day,
    /// The project; `None`: time that belongs to no project.
    pub project: Option<Project>,
    /// How much of that day its sessions took, overlaps counted twice.
    pub time: Duration,
    /// How many sessions have a part in it.
    pub sessions: u64,
}

/// A row of `activity_sessions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: i64,
    /// When it began, in Unix milliseconds.
    pub started_at: i64,
    /// When it ended, in Unix milliseconds; `None` while it runs.
    pub ended_at: Option<i64>,
    /// Name of the program.
    pub app: String,
    /// Title of its window.
    pub title: Option<String>,
    /// Host name, when the program is a browser.
    pub domain: Option<String>,
}

/// A row of `calendar_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalendarEntry {
    /// Its id.
    pub id: i64,
    /// What it is called.
    pub title: String,
    /// When it begins, in Unix milliseconds.
    pub starts_at: i64,
    /// When it is over, in Unix milliseconds.
    pub ends_at: i64,
}

/// An event, with what its session tells about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEvent {
    /// `activity_events.id`.
    pub id: i64,
    /// When it happened, in Unix milliseconds.
    pub at: i64,
    /// What happened.
    pub kind: String,
    /// Details, usually JSON.
    pub data: Option<String>,
    /// The program of its session.
    pub app: Option<String>,
    /// The window title of its session.
    pub title: Option<String>,
    /// The project of its session.
    pub project: Option<Project>,
}

/// A calendar entry and what happened around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEvents {
    /// The entry.
    pub entry: CalendarEntry,
    /// The project that a keyword in its title names.
    pub project: Option<Project>,
    /// What happened, in order of time.
    pub events: Vec<EntryEvent>,
}

/// The queries, and the small tables of `config` that they keep in memory until `config` changes.
///
/// A session belongs to the project it names itself; if it names none, or one that no longer exists, to the
/// project of its domain or of the nearest parent domain (`docs.example.com`, then `example.com`, then `com`).
#[derive(Debug)]
pub struct Tracker {
    projects: Lookup<i64, String>,
    domains: Lookup<String, i64>,
    keywords: Lookup<String, i64>,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracker {
    /// Reads nothing yet.
    #[must_use]
    pub fn new() -> Self {
        fn pair<K: rusqlite::types::FromSql, V: rusqlite::types::FromSql>(
            row: &Row<'_>,
        ) -> rusqlite::Result<(K, V)> {
            Ok((row.get(0)?, row.get(1)?))
        }
        let lower = |row: &Row<'_>| pair::<String, i64>(row).map(|(word, id)| (word.to_lowercase(), id));
        Self {
            projects: Lookup::new("config", "SELECT id, name FROM projects", pair),
            domains: Lookup::new("config", "SELECT domain, project_id FROM project_domains", lower),
            keywords: Lookup::new(
                "config",
                "SELECT keyword, project_id FROM project_calendar_keywords",
                lower,
            ),
        }
    }

    /// Adds up the time within `span` per project and local day, earliest day first, then by project name, the
    /// time without a project last. A session that runs past midnight counts for both days.
    pub fn time_per_project_per_day(
        &mut self,
        snapshot: &Snapshot<'_>,
        span: Span,
        local: LocalTime,
    ) -> Result<Vec<ProjectDay>, ReadError> {
        let projects = self.projects.at(snapshot)?;
        let of = ProjectOf { projects, domains: self.domains.at(snapshot)? };
        let mut sums: HashMap<(Day, Option<i64>), (i64, u64)> = HashMap::new();
        snapshot.stream("activity", SESSIONS, params![span.from, span.to], |row| {
            let started: i64 = row.get(1)?;
            let ended = row.get::<_, Option<i64>>(2)?.unwrap_or(local.now);
            let project = of.session(row, 3, 4)?;
            for (day, time) in days(started.max(span.from), ended.min(span.to), local.offset_ms()) {
                let sum = sums.entry((day, project)).or_default();
                *sum = (sum.0 + time, sum.1 + 1);
            }
            Ok(())
        })?;
        let mut sums: Vec<ProjectDay> = sums
            .into_iter()
            .map(|((day, id), (time, sessions))| ProjectDay {
                day,
                project: of.named(id),
                time: Duration::from_millis(time.unsigned_abs()),
                sessions,
            })
            .collect();
        sums.sort_by(|a, b| {
            let key = |sum: &ProjectDay| (sum.day, sum.project.is_none());
            let name = |sum: &ProjectDay| sum.project.as_ref().map(|project| project.name.clone());
            key(a).cmp(&key(b)).then_with(|| name(a).cmp(&name(b)))
        });
        Ok(sums)
    }

    /// Lists the sessions within `span` that belong to no project, in order of their beginning.
    pub fn sessions_without_project(
        &mut self,
        snapshot: &Snapshot<'_>,
        span: Span,
    ) -> Result<Vec<Session>, ReadError> {
        let projects = self.projects.at(snapshot)?;
        let of = ProjectOf { projects, domains: self.domains.at(snapshot)? };
        let mut sessions = Vec::new();
        snapshot.stream("activity", SESSIONS, params![span.from, span.to], |row| {
            if of.session(row, 3, 4)?.is_none() {
                sessions.push(Session {
                    id: row.get(0)?,
                    started_at: row.get(1)?,
                    ended_at: row.get(2)?,
                    domain: row.get(4)?,
                    app: row.get(5)?,
                    title: row.get(6)?,
                });
            }
            Ok(())
        })?;
        sessions.sort_by_key(|session| (session.started_at, session.id));
        Ok(sessions)
    }

    /// Finds what happened from `margin` before a calendar entry begins to `margin` after it is over.
    /// `None`: there is no entry with this id.
    pub fn events_around_calendar_entry(
        &mut self,
        snapshot: &Snapshot<'_>,
        entry: i64,
        margin: Duration,
    ) -> Result<Option<EntryEvents>, ReadError> {
        let Some(entry) = find_entry(snapshot, entry)? else { return Ok(None) };
        let projects = self.projects.at(snapshot)?;
        let of = ProjectOf { projects, domains: self.domains.at(snapshot)? };
        let margin = i64::try_from(margin.as_millis()).unwrap_or(i64::MAX);
        let (from, to) = (entry.starts_at.saturating_sub(margin), entry.ends_at.saturating_add(margin));
        let mut events = Vec::new();
        snapshot.stream("activity", EVENTS, params![from, to], |row| {
            events.push(EntryEvent {
                id: row.get(0)?,
                at: row.get(1)?,
                kind: row.get(2)?,
                data: row.get(3)?,
                app: row.get(4)?,
                title: row.get(5)?,
                project: of.named(of.session(row, 6, 7)?),
            });
            Ok(())
        })?;
        let project = of.named(keyword_in(&entry.title, self.keywords.at(snapshot)?));
        Ok(Some(EntryEvents { entry, project, events }))
    }
}

/// The small side of every join here.
struct ProjectOf<'a> {
    projects: &'a HashMap<i64, String>,
    domains: &'a HashMap<String, i64>,
}

impl ProjectOf<'_> {
    /// The project of a session, from the columns in which the row has the session's own project and its domain.
    fn session(&self, row: &Row<'_>, project: usize, domain: usize) -> rusqlite::Result<Option<i64>> {
        let own: Option<i64> = row.get(project)?;
        if let Some(own) = own.filter(|id| self.projects.contains_key(id)) {
            return Ok(Some(own));
        }
        // Borrowed from SQLite: no allocation per row.
        let domain = row.get_ref(domain)?.as_str_or_null()?;
        Ok(domain.and_then(|domain| self.domain(domain)))
    }

    fn domain(&self, domain: &str) -> Option<i64> {
        let parents =
            std::iter::successors(Some(domain), |name| name.split_once('.').map(|(_, parent)| parent));
        parents.into_iter().find_map(|name| self.domains.get(name)).copied()
    }

    fn named(&self, id: Option<i64>) -> Option<Project> {
        id.and_then(|id| self.projects.get(&id).map(|name| Project { id, name: name.clone() }))
    }
}

/// Splits the time from `from` to `to` at local midnights: each day with the milliseconds that fall on it.
fn days(from: i64, to: i64, offset_ms: i64) -> impl Iterator<Item = (Day, i64)> {
    let mut at = from;
    std::iter::from_fn(move || {
        let day = Day(at.saturating_add(offset_ms).div_euclid(DAY_MS));
        let midnight = (day.0 + 1).saturating_mul(DAY_MS).saturating_sub(offset_ms);
        let time = (midnight.min(to) > at).then(|| midnight.min(to) - at)?;
        at += time;
        Some((day, time))
    })
}

fn find_entry(snapshot: &Snapshot<'_>, id: i64) -> Result<Option<CalendarEntry>, ReadError> {
    let find = || {
        snapshot.database("config").map(|config| {
            let mut statement = config.prepare_cached(ENTRY)?;
            let entry = statement.query_row([id], |row| {
                Ok(CalendarEntry {
                    id: row.get(0)?,
                    title: row.get(1)?,
                    starts_at: row.get(2)?,
                    ends_at: row.get(3)?,
                })
            });
            entry.optional()
        })
    };
    find()?.map_err(|source| ReadError::Sql { database: "config".to_owned(), source })
}

/// The project of the longest keyword in the title; of equally long ones, of the first in the alphabet.
fn keyword_in(title: &str, keywords: &HashMap<String, i64>) -> Option<i64> {
    let title = title.to_lowercase();
    let found = keywords.iter().filter(|(keyword, _)| title.contains(keyword.as_str()));
    found.max_by_key(|(keyword, _)| (keyword.len(), std::cmp::Reverse(*keyword))).map(|(_, id)| *id)
}
