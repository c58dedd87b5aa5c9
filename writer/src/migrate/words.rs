//! The first words of a statement: enough to tell what has no place in a migration.

/// Statements that begin or end a transaction, or reach outside of it.
const FORBIDDEN: [&str; 9] =
    ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "VACUUM"];

/// Pragmas that change or check what is in the database; all others change how the writer works on it.
const PRAGMAS: [&str; 6] =
    ["USER_VERSION", "APPLICATION_ID", "FOREIGN_KEY_CHECK", "INTEGRITY_CHECK", "QUICK_CHECK", "OPTIMIZE"];

/// Why the statement may not stand in a migration; `None` if it may.
pub(super) fn objection(sql: &str) -> Option<String> {
    let (first, rest) = word(sql);
    if FORBIDDEN.contains(&first.as_str()) {
        return Some(format!("{first} has no place in it: each migration is one transaction of its own"));
    }
    if first != "PRAGMA" {
        return None;
    }
    let (mut name, rest) = word(rest);
    if let Some(rest) = skip(rest).strip_prefix('.') {
        name = word(rest).0; // The first one was the schema's name.
    }
    if PRAGMAS.contains(&name.as_str()) {
        return None;
    }
    Some(match name.as_str() {
        "FOREIGN_KEYS" | "DEFER_FOREIGN_KEYS" => {
            format!(
                "leave out PRAGMA {name}: foreign keys are off while a migration runs, and checked after it"
            )
        }
        _ => format!(
            "PRAGMA {name} has no place in it: the writer's connection is not a migration's to change"
        ),
    })
}

/// The first line of a statement that says something, for messages.
pub(super) fn first_line(sql: &str) -> &str {
    skip(sql).lines().next().unwrap_or_default().trim_end()
}

/// The next word in capitals, and what follows it.
fn word(sql: &str) -> (String, &str) {
    let text = skip(sql);
    let text = text.strip_prefix(['"', '`', '[', '\'']).unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word.to_ascii_uppercase(), rest.strip_prefix(['"', '`', ']', '\'']).unwrap_or(rest))
}

/// Passes over what SQLite passes over: white space, comments, empty statements, a byte order mark.
fn skip(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';' || c == '\u{feff}');
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else {
            return rest;
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_transaction_is_found_behind_comments_and_in_any_case() {
        for sql in [
            "COMMIT",
            "commit;",
            " \u{feff};; End",
            "-- BEGIN\n/* x */ Rollback TO a",
            "/**/savepoint a",
            "VACUUM",
            "attach 'x' AS y",
        ] {
            assert!(objection(sql).is_some(), "{sql}");
        }
    }

    #[test]
    fn a_word_within_a_statement_is_not_its_first() {
        for sql in [
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END",
            "INSERT INTO commits VALUES ('COMMIT')",
            "-- COMMIT",
            "/* COMMIT",
            "commits",
            "",
        ] {
            assert_eq!(objection(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_pragma_may_change_the_database_but_not_the_connection() {
        for sql in
            ["PRAGMA user_version = 3", "pragma main.application_id=7", "PRAGMA \"main\" . user_version = 1"]
        {
            assert_eq!(objection(sql), None, "{sql}");
        }
        for sql in
            ["PRAGMA synchronous = off", "PRAGMA main.journal_mode=delete", "PRAGMA 'locking_mode'=exclusive"]
        {
            assert!(objection(sql).is_some(), "{sql}");
        }
        assert!(objection("PRAGMA foreign_keys=off").is_some_and(|reason| reason.contains("checked after")));
    }

    #[test]
    fn a_message_quotes_the_first_line_that_says_something() {
        assert_eq!(first_line("\n-- why\nCREATE TABLE a (\n b)"), "CREATE TABLE a (");
    }
}
