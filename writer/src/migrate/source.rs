//! Where migrations are read from: those built in, and those in a directory.

use std::path::Path;

use super::{MIGRATION_BYTES_MAX, Migration};
use crate::Error;

/// The built-in schema, in order: database, number, name, text.
const BUILTIN: [(&str, u32, &str, &str); 2] = [
    ("config", 1, "config", include_str!("../../schema/config/001_config.sql")),
    ("activity", 1, "activity", include_str!("../../schema/activity/001_activity.sql")),
];

/// How to lay out a directory of migrations.
const LAYOUT: &str = "name each file <database>/NNN_name.sql, from 001 without gaps";

/// The built-in migrations of a database; none if the activity tracker has no database of that name.
pub(super) fn builtin(database: &str) -> Vec<Migration> {
    let ours = BUILTIN.iter().filter(|(of, ..)| *of == database);
    let migration = |&(of, number, name, sql): &(&str, u32, &str, &str)| Migration {
        number,
        name: name.into(),
        sql: sql.into(),
        place: format!("{of}/{number:03}_{name}.sql (built in)"),
    };
    ours.map(migration).collect()
}

/// Refuses a directory of migrations that the databases of the store cannot all be made from, before any is touched.
pub(crate) fn check_directory(directory: &Path, databases: &[String]) -> Result<(), Error> {
    let mut count = 0;
    for database in databases {
        count += of_directory(directory, database)?.len();
    }
    for (name, path) in entries(directory)? {
        if !path.is_dir() && has_sql_extension(&name) {
            let what = format!("{} belongs to no database", path.display());
            return Err(Error::refused(what, LAYOUT));
        }
        if path.is_dir() && !databases.contains(&name) {
            let what = format!("{} is no database of the store, which has {databases:?}", path.display());
            return Err(Error::refused(
                what,
                "correct the directory's name, or list the database in penholder.toml",
            ));
        }
    }
    if count == 0 {
        let what = format!("{} holds no migrations of the databases {databases:?}", directory.display());
        return Err(Error::refused(what, LAYOUT));
    }
    Ok(())
}

/// The migrations of a database in `directory/<database>`; none if that does not exist.
pub(super) fn of_directory(directory: &Path, database: &str) -> Result<Vec<Migration>, Error> {
    if !directory.is_dir() {
        return Err(Error::refused(
            format!("{} is not a directory", directory.display()),
            "name the directory of migrations in --schema, PENHOLDER_SCHEMA or penholder.toml, whichever names this one",
        ));
    }
    let directory = directory.join(database);
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut migrations = Vec::new();
    for (name, path) in entries(&directory)? {
        let Some((number, title)) = parse(&name) else {
            return Err(Error::refused(format!("{} is not named like a migration", path.display()), LAYOUT));
        };
        let sql = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        if sql.len() > MIGRATION_BYTES_MAX {
            let what = format!("{} is longer than {MIGRATION_BYTES_MAX} bytes", path.display());
            return Err(Error::refused(what, "split it into several migrations"));
        }
        migrations.push(Migration { number, name: title.into(), sql, place: path.display().to_string() });
    }
    migrations.sort_by_key(|migration| migration.number);
    for (expected, migration) in (1..).zip(&migrations) {
        if migration.number > expected {
            let what = format!("migration {expected:03} is missing before {}", migration.place);
            return Err(Error::refused(what, LAYOUT));
        }
        if migration.number < expected {
            let what = format!("{} has the number of another migration", migration.place);
            return Err(Error::refused(what, LAYOUT));
        }
    }
    Ok(migrations)
}

/// `012_name.sql` as its number and name.
fn parse(file: &str) -> Option<(u32, &str)> {
    let (number, name) = file.strip_suffix(".sql")?.split_once('_')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let valid = number.len() == 3
        && number.bytes().all(|b| b.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(plain);
    let number = valid.then(|| number.parse().ok())??;
    (number >= 1).then_some((number, name))
}

/// What is in a directory, by name; hidden files are not looked at.
fn entries(directory: &Path) -> Result<Vec<(String, std::path::PathBuf)>, Error> {
    let list = || -> std::io::Result<Vec<_>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                found.push((name, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    };
    list().map_err(Error::io("list", directory))
}

fn has_sql_extension(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_three_digits_and_a_word() {
        assert_eq!(parse("001_a.sql"), Some((1, "a")));
        assert_eq!(parse("120_two_words-x.sql"), Some((120, "two_words-x")));
        for name in [
            "000_a.sql",
            "1_a.sql",
            "0001_a.sql",
            "001.sql",
            "001_.sql",
            "001_a.SQL",
            "001_a b.sql",
            "+01_a.sql",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_built_in_texts_are_numbered_without_gaps_and_named_as_files_are() {
        for database in ["config", "activity"] {
            let migrations = builtin(database);
            assert!(!migrations.is_empty());
            for (number, migration) in (1..).zip(&migrations) {
                let file = format!("{:03}_{}.sql", migration.number, migration.name);
                assert_eq!(parse(&file), Some((number, migration.name.as_str())));
                assert!(migration.sql.len() <= MIGRATION_BYTES_MAX);
            }
        }
        assert_eq!(builtin("other"), []);
    }

    #[test]
    fn every_file_of_the_built_in_schema_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
        for database in ["config", "activity"] {
            let texts = |migrations: Vec<Migration>| -> Vec<_> {
                migrations
                    .into_iter()
                    .map(|migration| (migration.number, migration.name, migration.sql))
                    .collect()
            };
            assert!(
                of_directory(&root, database).is_ok_and(|files| texts(files) == texts(builtin(database)))
            );
        }
    }
}
