//! `penholder backup`: a copy of all databases as of one moment, made while the writer runs.
//!
//! A snapshot holds a read transaction on each database, and SQLite's backup copies out of that transaction. The copy
//! is built beside its place and appears there as a whole.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use penholder_client::read::{Reader, Snapshot};
use penholder_protocol::{StreamId, publish, sync_directory};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use serde::Serialize;

use super::args::BackupArgs;
use super::exit::{Exit, Failure};
use super::output::{GOOD, Output};
use super::render;

/// Stands beside the databases in the copy.
const MANIFEST: &str = "MANIFEST.json";

#[derive(Serialize)]
struct Manifest {
    schema: u32,
    penholder: &'static str,
    store_id: String,
    created: String,
    /// The newest tick in the copy.
    tick: u64,
    databases: Vec<Copied>,
}

#[derive(Serialize)]
struct Copied {
    name: String,
    file: String,
    tick: u64,
    bytes: u64,
    page_count: u64,
}

/// Copies the store, or leaves nothing behind.
pub(super) fn run(args: &BackupArgs, output: &mut Output) -> Result<Exit, Failure> {
    let mut reader = Reader::open(&args.store)?;
    let parent = check_place(&args.to, &args.store)?;
    let suffix = StreamId::random().map_err(Failure::on("cannot draw a name"))?;
    let aside = parent.join(format!(".penholder-backup-{suffix}"));
    let place = || format!("cannot create {}", aside.display());
    DirBuilder::new().mode(0o750).create(&aside).map_err(Failure::on(place()))?;
    let copied = copy(&mut reader, &args.store, &aside).and_then(|manifest| {
        let moved = std::fs::rename(&aside, &args.to).and_then(|()| sync_directory(&parent));
        moved.map_err(Failure::on(format!("cannot move the copy to {}", args.to.display())))?;
        Ok(manifest)
    });
    let manifest = match copied {
        Ok(manifest) => manifest,
        Err(failure) => {
            if let Err(error) = std::fs::remove_dir_all(&aside) {
                output.complain(&format!("cannot remove {}: {error}", aside.display()));
            }
            return Err(failure);
        }
    };
    if args.json {
        output.json(&manifest)?;
        return Ok(Exit::Ok);
    }
    let bytes = manifest.databases.iter().map(|copied| copied.bytes).sum();
    let count = render::count(manifest.databases.len() as u64, "database");
    let word = output.paint(GOOD, "copied");
    let line = format!(
        "{word} {count}, {}, as of tick {}, to {}",
        render::bytes(bytes),
        manifest.tick,
        args.to.display()
    );
    output.line(line)?;
    Ok(Exit::Ok)
}

/// Refuses a place that holds something or is in the store; returns the directory that it is in.
fn check_place(place: &Path, store: &Path) -> Result<PathBuf, Failure> {
    match std::fs::read_dir(place).map(|mut items| items.next().is_none()) {
        Ok(true) => {}
        Ok(false) => {
            return Err(Failure::usage(format!(
                "{} is not empty; choose another directory",
                place.display()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::usage(format!("cannot use {}: {error}", place.display()))),
    }
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let find = |path: &Path| {
        std::fs::canonicalize(path).map_err(Failure::on(format!("cannot use {}", path.display())))
    };
    let parent = find(parent)?;
    if parent.starts_with(find(store)?) {
        return Err(Failure::usage(format!(
            "{} is inside the store; choose a place outside it",
            place.display()
        )));
    }
    Ok(parent)
}

fn copy(reader: &mut Reader, store: &Path, aside: &Path) -> Result<Manifest, Failure> {
    let names: Vec<String> = reader.databases().map(str::to_owned).collect();
    let snapshot = reader.snapshot()?;
    let databases =
        names.iter().map(|name| copy_one(&snapshot, name, aside)).collect::<Result<_, Failure>>()?;
    let manifest = Manifest {
        schema: 1,
        penholder: env!("CARGO_PKG_VERSION"),
        store_id: snapshot.store().to_string(),
        created: format!("{:.3}", Timestamp::now()),
        tick: snapshot.newest().0,
        databases,
    };
    drop(snapshot);
    let failed = || Failure::on(format!("cannot write {}", aside.display()));
    match std::fs::read(store.join("penholder.toml")) {
        Ok(settings) => publish(aside, aside, "penholder.toml", &settings, 0o640).map_err(failed())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::on("cannot read penholder.toml")(error)),
    }
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    publish(aside, aside, MANIFEST, &text, 0o640).map_err(failed())?;
    Ok(manifest)
}

/// Copies one database out of the snapshot, and looks at the copy: its clock, and that its pages fit together.
fn copy_one(snapshot: &Snapshot<'_>, name: &str, aside: &Path) -> Result<Copied, Failure> {
    let failed = || Failure::on(format!("cannot copy {name}.db"));
    let file = format!("{name}.db");
    let path = aside.join(&file);
    let mut target = Connection::open(&path).map_err(failed())?;
    let copied = Backup::new(snapshot.database(name)?, &mut target).and_then(|backup| backup.step(-1));
    let done = copied.map_err(failed())?;
    if done != StepResult::Done {
        return Err(Failure::new(format!("cannot copy {name}.db: it is busy; try again")));
    }
    let wrong: String = target.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed())?;
    if wrong != "ok" {
        return Err(Failure::new(format!(
            "the copy of {name}.db is damaged, run `penholder check`: {wrong}"
        )));
    }
    let expected = snapshot.tick(name)?.0;
    let sql = "SELECT tick FROM _penholder_clock WHERE database = ?1";
    let tick: u64 = target.query_row(sql, [name], |row| row.get(0)).map_err(failed())?;
    if tick != expected {
        return Err(Failure::new(format!(
            "the copy of {name}.db is at tick {tick}, the snapshot at {expected}"
        )));
    }
    let page_count = target.pragma_query_value(None, "page_count", |row| row.get(0)).map_err(failed())?;
    // The last one to close takes the write-ahead log away; from here on the copy is one file.
    target.close().map_err(|(_, error)| failed()(error))?;
    let mode = Permissions::from_mode(0o640);
    let metadata = std::fs::set_permissions(&path, mode).and_then(|()| std::fs::metadata(&path));
    let bytes = metadata.map_err(Failure::on(format!("cannot copy {name}.db")))?.len();
    Ok(Copied { name: name.to_owned(), file, tick, bytes, page_count })
}
