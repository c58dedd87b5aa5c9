//! `penholder.toml` as it is written, and the environment variables over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penholder_protocol::Layout;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{Config, Error, Reference};

/// How variables begin; then the table and the key in capitals: `PENHOLDER_WAKE_SAFETY_POLL_MS`.
const PREFIX: &str = "PENHOLDER_";

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    databases: Vec<String>,
    /// Empty: the built-in schema.
    schema: PathBuf,
    allow_filesystem: bool,
    wake: Wake,
    batch: Batch,
    space: Space,
    wal: Wal,
    keys: Keys,
    reclaim: Reclaim,
    sqlite: Sqlite,
    grants: BTreeMap<String, String>,
    roles: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    references: Vec<Reference>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Wake {
    notify: bool,
    safety_poll_ms: u64,
    gather_us: u64,
    spin_us: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Batch {
    bytes_max: usize,
    commands_count_max: usize,
    time_max_ms: u64,
    turn_bytes: usize,
    command_deadline_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Space {
    quota_stream_bytes: u64,
    streams_user_max: usize,
    free_bytes_min: u64,
    ballast_bytes: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Wal {
    bytes_soft: u64,
    bytes_hard: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    count_max: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Reclaim {
    interval_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Sqlite {
    cache_bytes: u64,
    heap_bytes_max: u64,
}

/// The defaults of every table are those of [`Config::new`].
macro_rules! defaults {
    ($($table:ident $field:ident),*) => {$(
        impl Default for $table {
            fn default() -> Self {
                Settings::default().$field
            }
        }
    )*};
}
defaults!(Wake wake, Batch batch, Space space, Wal wal, Keys keys, Reclaim reclaim, Sqlite sqlite);

impl Default for Settings {
    fn default() -> Self {
        let config = Config::new("");
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            databases: config.databases,
            schema: config.schema.unwrap_or_default(),
            allow_filesystem: config.allow_filesystem,
            wake: Wake {
                notify: config.notify,
                safety_poll_ms: milliseconds(config.safety_poll),
                gather_us: microseconds(config.gather),
                spin_us: microseconds(config.spin),
            },
            batch: Batch {
                bytes_max: config.batch_bytes_max,
                commands_count_max: config.batch_commands_count_max,
                time_max_ms: milliseconds(config.batch_time_max),
                turn_bytes: config.turn_bytes,
                command_deadline_ms: milliseconds(config.command_deadline),
            },
            space: Space {
                quota_stream_bytes: config.quota_stream_bytes,
                streams_user_max: config.streams_user_max,
                free_bytes_min: config.free_bytes_min,
                ballast_bytes: config.ballast_bytes,
            },
            wal: Wal { bytes_soft: config.wal_bytes_soft, bytes_hard: config.wal_bytes_hard },
            keys: Keys { count_max: config.keys_count_max },
            reclaim: Reclaim { interval_ms: milliseconds(config.reclaim_interval) },
            sqlite: Sqlite { cache_bytes: config.cache_bytes, heap_bytes_max: config.heap_bytes_max },
            grants: config.grants,
            roles: config.roles,
            references: config.references,
        }
    }
}

impl Settings {
    fn into_config(self, store: PathBuf) -> Config {
        Config {
            databases: self.databases,
            schema: (!self.schema.as_os_str().is_empty()).then_some(self.schema),
            allow_filesystem: self.allow_filesystem,
            notify: self.wake.notify,
            safety_poll: Duration::from_millis(self.wake.safety_poll_ms),
            gather: Duration::from_micros(self.wake.gather_us),
            spin: Duration::from_micros(self.wake.spin_us),
            batch_bytes_max: self.batch.bytes_max,
            batch_commands_count_max: self.batch.commands_count_max,
            batch_time_max: Duration::from_millis(self.batch.time_max_ms),
            turn_bytes: self.batch.turn_bytes,
            command_deadline: Duration::from_millis(self.batch.command_deadline_ms),
            quota_stream_bytes: self.space.quota_stream_bytes,
            streams_user_max: self.space.streams_user_max,
            free_bytes_min: self.space.free_bytes_min,
            ballast_bytes: self.space.ballast_bytes,
            wal_bytes_soft: self.wal.bytes_soft,
            wal_bytes_hard: self.wal.bytes_hard,
            keys_count_max: self.keys.count_max,
            reclaim_interval: Duration::from_millis(self.reclaim.interval_ms),
            cache_bytes: self.sqlite.cache_bytes,
            heap_bytes_max: self.sqlite.heap_bytes_max,
            grants: self.grants,
            roles: self.roles,
            references: self.references,
            ..Config::new(store)
        }
    }
}

impl Config {
    /// Reads `penholder.toml` of the store, if there is one, and the environment over it; not validated yet.
    ///
    /// A relative `schema` is relative to the store in the file, and to the working directory in the environment.
    pub fn load(store: impl Into<PathBuf>) -> Result<Self, Error> {
        let store = store.into();
        let path = Layout::new(&store).settings();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        let mut settings = parse(&path, &text)?;
        if !settings.schema.as_os_str().is_empty() {
            settings.schema = store.join(&settings.schema);
        }
        Ok(override_with(&settings, environment)?.into_config(store))
    }
}

/// Reads the text of `penholder.toml`.
fn parse(path: &Path, text: &str) -> Result<Settings, Error> {
    toml::from_str(text).map_err(|error| explain(path, text, &error))
}

/// Names the file, the line and what stands there.
fn explain(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let number = text.get(..start).map_or(0, |before| before.matches('\n').count());
    let line = text.lines().nth(number).unwrap_or_default().trim();
    let what = format!("{} line {}: {} in `{line}`", path.display(), number + 1, error.message());
    Error::refused(what, "correct the file and start again")
}

/// Puts variables over settings; a variable of one of the tables that names no key is refused.
fn override_with(
    settings: &Settings,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Settings, Error> {
    let unreadable = |error: &dyn std::error::Error| Error::refused(error.to_string(), "check the variables");
    let mut table = Table::try_from(settings).map_err(|error| unreadable(&error))?;
    for (variable, text) in variables {
        let name = variable.trim_start_matches(PREFIX).to_ascii_lowercase();
        let Some(value) = place(&mut table, &name) else {
            if table.iter().any(|(key, value)| value.is_table() && name.starts_with(&format!("{key}_"))) {
                return Err(Error::refused(
                    format!("the variable {variable} names no setting"),
                    "correct its name, or unset it",
                ));
            }
            continue; // Of the command line, or of another tool.
        };
        *value = same_kind(value, &text).ok_or_else(|| {
            let kind = value.type_str();
            Error::refused(format!("the variable {variable} is {text:?}, not {kind}"), "correct or unset it")
        })?;
    }
    table.try_into().map_err(|error: toml::de::Error| unreadable(&error))
}

/// Where a variable's value belongs: `wake_notify` is the key `notify` of the table `wake`.
fn place<'t>(table: &'t mut Table, name: &str) -> Option<&'t mut Value> {
    table.iter_mut().find_map(|(key, value)| {
        if let Value::Table(inner) = value {
            return inner.get_mut(name.strip_prefix(key.as_str())?.strip_prefix('_')?);
        }
        (key == name).then_some(value)
    })
}

/// The text as a value of the kind that `old` has.
fn same_kind(old: &Value, text: &str) -> Option<Value> {
    match old {
        Value::Boolean(_) => match text {
            "1" | "true" | "yes" | "on" => Some(Value::Boolean(true)),
            "0" | "false" | "no" | "off" => Some(Value::Boolean(false)),
            _ => None,
        },
        Value::Integer(_) => text.parse().ok().filter(|&number: &i64| number >= 0).map(Value::Integer),
        Value::Array(_) => {
            Some(Value::Array(text.split(',').map(|word| Value::String(word.trim().into())).collect()))
        }
        Value::String(_) => Some(Value::String(text.into())),
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    fn settings(text: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
        let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let settings = parse(Path::new("store/penholder.toml"), text)?;
        Ok(override_with(&settings, variables)?.into_config("store".into()))
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(settings("", &[]).unwrap(), Config::new("store"));
    }

    #[test]
    fn a_key_left_out_of_a_table_keeps_its_default() {
        let config = settings("[wake]\nsafety_poll_ms = 250\n[wal]\nbytes_soft = 1000\n", &[]).unwrap();
        let expected =
            Config { safety_poll: Duration::from_millis(250), wal_bytes_soft: 1000, ..Config::new("store") };
        assert_eq!(config, expected);
    }

    #[test]
    fn the_environment_goes_over_the_file() {
        let variables = [
            ("PENHOLDER_WAKE_SAFETY_POLL_MS", "7"),
            ("PENHOLDER_WAKE_NOTIFY", "off"),
            ("PENHOLDER_DATABASES", "a, b"),
            ("PENHOLDER_SCHEMA", "migrations"),
            ("PENHOLDER_LOG", "debug"),
        ];
        let config = settings("[wake]\nsafety_poll_ms = 250\nspin_us = 0\n", &variables).unwrap();
        let expected = Config {
            safety_poll: Duration::from_millis(7),
            notify: false,
            spin: Duration::ZERO,
            databases: vec!["a".into(), "b".into()],
            schema: Some("migrations".into()),
            ..Config::new("store")
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_mistake_is_reported_with_key_line_and_file() {
        for (text, line, key) in [
            ("[wake]\n\nsafety_pol_ms = 1\n", "line 3", "safety_pol_ms"),
            ("[wal]\nbytes_soft = \"4M\"\n", "line 2", "bytes_soft"),
            ("[batch]\nbytes_max = -1\n", "line 2", "bytes_max"),
            ("databases = [\"a\"\nschema = 1", "line 2", "schema"),
            ("\n[surprise]\n", "line 2", "surprise"),
        ] {
            let message = settings(text, &[]).unwrap_err().to_string();
            let named = [line, key, "store/penholder.toml"].iter().all(|part| message.contains(part));
            assert!(named && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_variable_that_is_misspelt_or_of_the_wrong_kind_is_reported_by_name() {
        for (name, value) in [
            ("PENHOLDER_WAKE_SAFETY_POLL", "7"),
            ("PENHOLDER_WAL_BYTES_SOFT", "4M"),
            ("PENHOLDER_WAL_BYTES_SOFT", "-1"),
            ("PENHOLDER_WAKE_NOTIFY", "maybe"),
        ] {
            let message = settings("", &[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn grants_and_references_are_read() {
        let text = "[grants]\n\"user:1\" = \"app\"\n[roles.app]\n\"activity.a\" = [\"insert\"]\n\
                    [[references]]\nfrom = \"activity.a.b\"\nto = \"config.c.d\"\non_delete = \"set null\"\n";
        let config = settings(text, &[]).unwrap().validate().unwrap();
        assert_eq!(config.grants["user:1"], "app");
        assert_eq!(config.roles["app"]["activity.a"], ["insert"]);
        assert_eq!(config.references[0].on_delete, crate::OnDelete::SetNull);
        let message = settings(&text.replace("set null", "vanish"), &[]).unwrap_err().to_string();
        assert!(message.contains("line 8") && message.contains("vanish"), "{message}");
    }

    #[test]
    fn a_store_without_a_settings_file_and_a_schema_within_the_store_both_load() {
        let store = tempfile::tempdir().unwrap();
        let path = store.path().to_owned();
        assert_eq!(Config::load(path.clone()).unwrap().schema, None);
        std::fs::write(path.join("penholder.toml"), "schema = \"migrations\"\n").unwrap();
        assert_eq!(Config::load(path.clone()).unwrap().schema, Some(path.join("migrations")));
    }
}
