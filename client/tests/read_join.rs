//! Joins across the databases in application code, and the typed queries on the built-in schema.

#![cfg(feature = "read")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod read_common;

use std::collections::BTreeMap;
use std::time::Duration;

use penholder_client::read::{Day, Large, LocalTime, Lookup, Project, ProjectDay, Span, Tracker};
use read_common::{Random, Store};

const HOUR: i64 = 3_600_000;
/// 2026-11-20, 00:00 UTC.
const DAY: Day = Day(20_777);
const MIDNIGHT: i64 = DAY.0 * 24 * HOUR;
const UTC: LocalTime = LocalTime { now: MIDNIGHT + 48 * HOUR, utc_offset_minutes: 0 };
const WEEK: Span = Span { from: MIDNIGHT - 72 * HOUR, to: MIDNIGHT + 96 * HOUR };

const PROJECTS: &str = "
    INSERT INTO projects(id, name) VALUES (1, 'Garden'), (2, 'Bridge');
    INSERT INTO project_domains VALUES ('example.com', 1), ('docs.example.com', 2);
    INSERT INTO project_calendar_keywords VALUES ('Plan', 1), ('planning', 2);
    INSERT INTO calendar_events(id, title, starts_at, ends_at) VALUES
        (1, 'Sprint PLANNING', 1000000, 2000000), (2, 'Lunch', 0, 1), (3, 'the plan', 0, 1)";

fn names() -> Lookup<i64, String> {
    Lookup::new("config", "SELECT id, name FROM projects", |row| Ok((row.get(0)?, row.get(1)?)))
}

fn project(id: i64, name: &str) -> Project {
    Project { id, name: name.to_owned() }
}

fn session(id: i64, from: i64, to: Option<i64>, project: Option<i64>, domain: Option<&str>) -> String {
    let number = |value: Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
    let domain = domain.map_or("NULL".to_owned(), |domain| format!("'{domain}'"));
    let (to, project) = (number(to), number(project));
    format!(
        "INSERT INTO activity_sessions(id, started_at, ended_at, app, domain, project_id) \
         VALUES ({id}, {from}, {to}, 'app', {domain}, {project});"
    )
}

#[test]
fn a_lookup_is_loaded_again_only_when_its_own_database_changes() {
    let store = Store::new();
    let (mut writer, mut reader, mut names) = (store.writer(), store.reader(), names());
    assert_eq!((names.at(&reader.snapshot().unwrap()).unwrap().len(), names.loads()), (0, 1));
    writer.commit("", "INSERT INTO activity_events(at, kind) VALUES (1, 'x')");
    names.at(&reader.snapshot().unwrap()).unwrap();
    assert_eq!(names.loads(), 1, "a batch over activity alone");
    writer.commit(PROJECTS, "");
    for _ in 0..3 {
        assert_eq!(names.at(&reader.snapshot().unwrap()).unwrap()[&2], "Bridge");
    }
    assert_eq!(names.loads(), 2);
    writer.commit("DELETE FROM projects WHERE id = 2", "DELETE FROM activity_events");
    assert_eq!(names.at(&reader.snapshot().unwrap()).unwrap().get(&2), None);
    assert_eq!(names.loads(), 3);
}

#[test]
fn a_lookup_that_failed_to_load_is_loaded_again_and_one_lookup_can_serve_two_stores() {
    let (store, other) = (Store::new(), Store::new());
    store.writer().commit("INSERT INTO projects(id, name) VALUES (1, 'here'), (2, 'here too')", "");
    other.writer().commit("INSERT INTO projects(id, name) VALUES (1, 'there')", "");
    let (mut reader, mut other) = (store.reader(), other.reader());
    let mut names = names();
    assert_eq!(names.at(&reader.snapshot().unwrap()).unwrap()[&1], "here");
    assert_eq!(names.at(&other.snapshot().unwrap()).unwrap()[&1], "there", "the same tick in another store");
    let mut broken: Lookup<i64, i64> =
        Lookup::new("config", "SELECT id, name FROM projects", |row| Ok((row.get(0)?, row.get(1)?)));
    for _ in 0..2 {
        assert!(broken.at(&reader.snapshot().unwrap()).is_err());
    }
    assert_eq!(broken.loads(), 0);
}

#[test]
fn a_join_streams_every_row_with_its_value_or_none_as_sqlite_joins_attached_databases() {
    let store = Store::new();
    let mut random = Random::new();
    let project = |id: i64| format!("INSERT INTO projects(id, name) VALUES ({id}, 'p{id}');");
    let projects = (0..40).map(project).collect::<Vec<_>>().concat();
    let sessions: String = (1..2_000)
        .map(|id| session(id, 0, None, Some(random.signed_below(60)).filter(|key| *key != 50), None))
        .collect();
    store.writer().commit(&projects, &sessions);

    let mut reader = store.reader();
    let mut joined = Vec::new();
    let large =
        Large { database: "activity", sql: "SELECT id, project_id FROM activity_sessions WHERE id > ?1" };
    let count = names().join(
        &reader.snapshot().unwrap(),
        large,
        [10],
        |row| row.get(1),
        |row, name| {
            joined.push((row.get::<_, i64>(0)?, name.cloned()));
            Ok(())
        },
    );
    assert_eq!(count.unwrap(), 1_989);

    let oracle = rusqlite::Connection::open(store.layout().database("activity")).unwrap();
    oracle.execute("ATTACH ?1 AS config", [store.layout().database("config").to_str().unwrap()]).unwrap();
    let sql = "SELECT s.id, p.name FROM activity_sessions s LEFT JOIN config.projects p ON p.id = s.project_id \
               WHERE s.id > 10 ORDER BY s.id";
    let mut expected = oracle.prepare(sql).unwrap();
    let expected = expected.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(joined, expected.collect::<Result<Vec<(i64, Option<String>)>, _>>().unwrap());
}

#[test]
fn time_is_counted_per_project_and_local_day_and_clipped_to_the_span() {
    let store = Store::new();
    let at = |hour: i64| MIDNIGHT + hour * HOUR;
    let sessions = [
        session(1, at(-1), Some(at(2)), Some(1), None), // past midnight
        session(2, at(3), Some(at(4)), Some(2), Some("example.com")), // its own project wins
        session(3, at(4), Some(at(6)), None, Some("shop.example.com")), // of the parent domain
        session(4, at(6), Some(at(7)), Some(99), Some("docs.example.com")), // a project that is gone
        session(5, at(7), Some(at(8)), None, Some("notexample.com")),
        session(6, at(47), None, None, None),                // still runs
        session(7, at(-500), Some(at(-400)), Some(1), None), // long ago
        session(8, at(5), Some(at(5)), Some(2), None),       // took no time
    ];
    store.writer().commit(PROJECTS, &sessions.concat());
    let (mut reader, mut tracker) = (store.reader(), Tracker::new());
    let mut report = |span, local| -> Vec<(i64, Option<i64>, u64, u64)> {
        let rows = tracker.time_per_project_per_day(&reader.snapshot().unwrap(), span, local).unwrap();
        let flat = |row: ProjectDay| {
            let minutes = row.time.as_secs() / 60;
            (row.day.0 - DAY.0, row.project.map(|project| project.id), minutes, row.sessions)
        };
        rows.into_iter().map(flat).collect()
    };
    let utc = vec![
        (-1, Some(1), 60, 1),
        (0, Some(2), 120, 2), // Bridge before Garden
        (0, Some(1), 240, 2),
        (0, None, 60, 1),
        (1, None, 60, 1),
    ];
    assert_eq!(report(WEEK, UTC), utc);
    let berlin = LocalTime { utc_offset_minutes: 60, ..UTC };
    assert_eq!(report(WEEK, berlin)[..2], [(0, Some(2), 120, 2), (0, Some(1), 300, 2)]);
    let morning = Span { from: at(1), to: at(5) };
    assert_eq!(report(morning, UTC), [(0, Some(2), 60, 1), (0, Some(1), 120, 2)]);
}

#[test]
fn time_per_project_per_day_agrees_with_counting_every_minute() {
    let store = Store::new();
    let mut random = Random::new();
    let minute = 60_000;
    let mut sessions = String::new();
    let mut expected: BTreeMap<(i64, Option<i64>), u64> = BTreeMap::new();
    let offset = random.signed_below(1_500) - 750;
    let now = MIDNIGHT + 2_000 * minute;
    let span = Span { from: MIDNIGHT - 900 * minute, to: MIDNIGHT + 2_500 * minute };
    for id in 0..300 {
        let from = MIDNIGHT + (random.signed_below(5_000) - 2_000) * minute;
        let to = (random.below(20) > 0).then(|| from + random.signed_below(2_000) * minute);
        let project = Some(random.signed_below(3)).filter(|id| *id > 0);
        sessions += &session(id, from, to, project, None);
        for at in (from..to.unwrap_or(now)).step_by(60_000) {
            if (span.from..span.to).contains(&at) {
                let day = (at + offset * minute).div_euclid(24 * HOUR);
                *expected.entry((day, project)).or_default() += 60;
            }
        }
    }
    store.writer().commit(PROJECTS, &sessions);
    let local = LocalTime { now, utc_offset_minutes: i32::try_from(offset).unwrap() };
    let mut reader = store.reader();
    let rows = Tracker::new().time_per_project_per_day(&reader.snapshot().unwrap(), span, local).unwrap();
    let found =
        rows.into_iter().map(|row| ((row.day.0, row.project.map(|project| project.id)), row.time.as_secs()));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
}

#[test]
fn sessions_without_a_project_are_those_that_neither_they_nor_their_domain_assign() {
    let store = Store::new();
    let sessions = [
        session(1, MIDNIGHT + 5, Some(MIDNIGHT + 6), None, None),
        session(2, MIDNIGHT, None, None, Some("elsewhere.org")),
        session(3, MIDNIGHT, Some(MIDNIGHT + 6), None, Some("a.b.example.com")),
        session(4, MIDNIGHT, Some(MIDNIGHT + 6), Some(2), None),
        session(5, MIDNIGHT, Some(MIDNIGHT + 6), Some(99), None),
        session(6, WEEK.to, None, None, None),
        session(7, WEEK.from - 9, Some(WEEK.from), None, None),
    ];
    let mut writer = store.writer();
    writer.commit(PROJECTS, &sessions.concat());
    let (mut reader, mut tracker) = (store.reader(), Tracker::new());
    let found = tracker.sessions_without_project(&reader.snapshot().unwrap(), WEEK).unwrap();
    assert_eq!(found.iter().map(|session| session.id).collect::<Vec<_>>(), [2, 5, 1]);
    assert_eq!((found[0].ended_at, found[0].domain.as_deref()), (None, Some("elsewhere.org")));
    writer.commit("INSERT INTO project_domains VALUES ('elsewhere.org', 2)", "");
    let found = tracker.sessions_without_project(&reader.snapshot().unwrap(), WEEK).unwrap();
    assert_eq!(found.iter().map(|session| session.id).collect::<Vec<_>>(), [5, 1], "config was read again");
}

#[test]
fn events_around_a_calendar_entry_come_with_their_session_and_both_projects() {
    let store = Store::new();
    let event = |id: i64, at: i64, session: &str| {
        format!("INSERT INTO activity_events VALUES ({id}, {session}, {at}, 'focus', '{{}}');")
    };
    let activity = [
        session(7, 0, None, None, Some("example.com")),
        event(1, 989_999, "NULL"),
        event(2, 990_000, "7"),
        event(3, 2_009_999, "NULL"),
        event(4, 2_010_000, "7"),
    ];
    store.writer().commit(PROJECTS, &activity.concat());
    let (mut reader, mut tracker) = (store.reader(), Tracker::new());
    let snapshot = reader.snapshot().unwrap();
    let mut around =
        |entry| tracker.events_around_calendar_entry(&snapshot, entry, Duration::from_secs(10)).unwrap();
    let planning = around(1).unwrap();
    assert_eq!(
        (planning.entry.title.as_str(), planning.project),
        ("Sprint PLANNING", Some(project(2, "Bridge")))
    );
    assert_eq!(planning.events.iter().map(|event| event.id).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(
        (planning.events[0].app.as_deref(), &planning.events[0].project),
        (Some("app"), &Some(project(1, "Garden")))
    );
    assert_eq!((planning.events[1].app.as_deref(), &planning.events[1].project), (None, &None));
    assert_eq!(around(2).unwrap().project, None);
    assert_eq!(around(3).unwrap().project, Some(project(1, "Garden")));
    assert_eq!(around(4), None);
}

#[test]
fn days_are_shown_as_calendar_dates() {
    let shown = [(0, "1970-01-01"), (-1, "1969-12-31"), (11_016, "2000-02-29"), (DAY.0, "2026-11-20")];
    for (day, text) in shown {
        assert_eq!(Day(day).to_string(), text);
    }
}
