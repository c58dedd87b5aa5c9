//! The proof: every promise that a role wrote down is looked up in the databases, and the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use penholder_client::read::{Reader, Snapshot};
use rusqlite::types::FromSql;

use crate::Result;
use crate::promises::Promised;
use crate::terminal::grouped;

/// One kind of promise, kept or not.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    promised: u64,
    found: u64,
    /// Promised and not there.
    missing: u64,
    /// There and never promised, or there twice.
    surplus: u64,
}

/// Everything that was compared.
#[derive(Debug)]
pub(crate) struct Proof {
    findings: Vec<Finding>,
    damage: Vec<String>,
}

impl Proof {
    /// Compares the promises with one consistent cut over both databases.
    pub(crate) fn of(store: &Path, promised: &Promised) -> Result<Self> {
        let mut reader = Reader::open(store)?;
        let databases: Vec<String> = reader.databases().map(str::to_owned).collect();
        let snapshot = reader.snapshot()?;
        let mut findings = vec![
            sets(
                "sessions",
                &promised.sessions,
                &column(&snapshot, "activity", "SELECT id FROM activity_sessions")?,
            ),
            sets(
                "events",
                &promised.events,
                &column(&snapshot, "activity", "SELECT id FROM activity_events WHERE kind <> 'focus'")?,
            ),
            sets(
                "focuses, in activity",
                &promised.focuses,
                &column(&snapshot, "activity", "SELECT id FROM activity_events WHERE kind = 'focus'")?,
            ),
            sets("projects", &promised.projects, &column(&snapshot, "config", "SELECT name FROM projects")?),
            sets(
                "domains",
                &promised.domains,
                &column(&snapshot, "config", "SELECT domain FROM project_domains")?,
            ),
            sets(
                "appointments",
                &promised.appointments,
                &column(&snapshot, "config", "SELECT title FROM calendar_events")?,
            ),
        ];
        let mut settings = settings(&snapshot)?;
        // Counters that every change raised by one in the same command: a double apply shows here.
        let mut counter = |key: &str| settings.remove(key).and_then(|value| value.parse().ok()).unwrap_or(0);
        let (changes, focuses) = (counter("tracker.changes"), counter("tracker.focuses"));
        findings.push(counts("focuses, in config", promised.focuses.len() as u64, focuses));
        findings.push(counts("changes of settings", promised.setting_changes, changes));
        findings.push(sets(
            "last values of settings",
            &promised.settings.clone().into_iter().collect(),
            &settings.into_iter().collect::<Vec<_>>(),
        ));
        let rejected = column::<i64>(&snapshot, "config", "SELECT count(*) FROM _penholder_rejected")?;
        let rejected = rejected.first().map_or(0, |count| count.unsigned_abs());
        findings.push(counts("rejections", promised.rejected, rejected));

        let mut damage = Vec::new();
        for database in databases {
            let lines = column::<String>(&snapshot, &database, "PRAGMA integrity_check")?;
            damage.extend(
                lines.into_iter().filter(|line| line != "ok").map(|line| format!("{database}: {line}")),
            );
        }
        Ok(Self { findings, damage })
    }

    /// Whether every promise was kept, once, and nothing else is there.
    pub(crate) fn holds(&self) -> bool {
        self.damage.is_empty()
            && self.findings.iter().all(|finding| finding.missing == 0 && finding.surplus == 0)
    }

    /// The proof as a terminal shows it.
    pub(crate) fn to_text(&self) -> String {
        let line = |finding: &Finding| {
            let verdict = match (finding.missing, finding.surplus) {
                (0, 0) => "all there, once".to_owned(),
                (missing, surplus) => format!("LOST {missing}, TOO MANY {surplus}"),
            };
            let (promised, found) = (grouped(finding.promised), grouped(finding.found));
            format!(" {:<24}{promised:>12} promised {found:>12} found  {verdict}", finding.what)
        };
        let mut lines: Vec<String> = self.findings.iter().map(line).collect();
        lines.extend(self.damage.iter().map(|line| format!(" DAMAGED {line}")));
        lines.join("\n")
    }
}

/// Compares one by one.
fn sets<T: Ord>(what: &'static str, promised: &BTreeSet<T>, found: &[T]) -> Finding {
    let there: BTreeSet<&T> = found.iter().collect();
    let missing = promised.iter().filter(|one| !there.contains(one)).count();
    let kept = promised.len() - missing;
    Finding {
        what,
        promised: promised.len() as u64,
        found: found.len() as u64,
        missing: missing as u64,
        surplus: (found.len() - kept) as u64,
    }
}

fn counts(what: &'static str, promised: u64, found: u64) -> Finding {
    let (missing, surplus) = (promised.saturating_sub(found), found.saturating_sub(promised));
    Finding { what, promised, found, missing, surplus }
}

fn column<T: FromSql>(snapshot: &Snapshot<'_>, database: &str, sql: &str) -> Result<Vec<T>> {
    let mut values = Vec::new();
    snapshot.stream(database, sql, [], |row| {
        values.push(row.get(0)?);
        Ok(())
    })?;
    Ok(values)
}

fn settings(snapshot: &Snapshot<'_>) -> Result<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    snapshot.stream("config", "SELECT key, value FROM settings", [], |row| {
        settings.insert(row.get(0)?, row.get(1)?);
        Ok(())
    })?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_a_doubled_and_an_invented_write_are_all_noticed() {
        let promised = BTreeSet::from([1, 2, 3]);
        let finding = |found: &[i32]| {
            let finding = sets("rows", &promised, found);
            (finding.missing, finding.surplus)
        };
        assert_eq!(finding(&[3, 2, 1]), (0, 0));
        assert_eq!(finding(&[1, 2]), (1, 0));
        assert_eq!(finding(&[1, 2, 3, 3]), (0, 1));
        assert_eq!(finding(&[1, 2, 4]), (1, 1));
    }
}
