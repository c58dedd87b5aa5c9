//! What if: a queue of files. A client writes a file per command and renames it in; one writer applies whatever lies in
//! the directory in one transaction, deletes the files, and answers in a file per client.
//!
//! The files are not synced: the answer comes after the commit, so it promises as much as ours. A sync each would make
//! it slower.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::direct;
use crate::process::{self, Role};
use crate::workload::{INSERT, row};

/// How long a client looks for its answer without sleeping; as in our own client.
const SPIN: Duration = Duration::from_micros(50);
/// How long either side sleeps between two looks.
const NAP: Duration = Duration::from_micros(50);

/// Runs as a client: a file per command, until the time is over.
pub(crate) fn one_by_one(role: &Role) {
    let path = role.place.join("answers").join(role.client.to_string());
    let answers = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    answers.write_all_at(&0_u64.to_le_bytes(), 0).unwrap();
    process::one_by_one(role, |sequence| {
        submit(&role.place, role.client, sequence);
        wait(&answers, sequence);
    });
}

/// The name says whose command it is and which; the file holds the values.
fn submit(place: &Path, client: u64, sequence: u64) {
    let name = format!("{client}-{sequence}");
    let (_, _, at, data) = row(client, sequence);
    fs::write(place.join("tmp").join(&name), [&at.to_le_bytes(), data.as_bytes()].concat()).unwrap();
    fs::rename(place.join("tmp").join(&name), place.join("queue").join(&name)).unwrap();
}

fn wait(answers: &File, sequence: u64) {
    let (begun, mut answer) = (Instant::now(), [0; 8]);
    loop {
        answers.read_exact_at(&mut answer, 0).unwrap();
        if u64::from_le_bytes(answer) >= sequence {
            return;
        }
        if begun.elapsed() > SPIN {
            std::thread::sleep(NAP);
        }
    }
}

/// Runs as the writer, until it is killed.
pub(crate) fn write(place: &Path) {
    for directory in ["tmp", "queue", "answers"] {
        fs::create_dir(place.join(directory)).unwrap();
    }
    let mut database = direct::open(place, "full");
    database.prepare_cached(INSERT).unwrap();
    process::tell_ready();
    loop {
        let batch = read_queue(place);
        if batch.is_empty() {
            std::thread::sleep(NAP);
            continue;
        }
        let transaction = database.transaction().unwrap();
        let mut statement = transaction.prepare_cached(INSERT).unwrap();
        for (client, sequence, bytes) in &batch {
            let (at, data) = bytes.split_first_chunk().unwrap();
            let data = std::str::from_utf8(data).unwrap();
            statement
                .execute((client.cast_signed(), sequence.cast_signed(), i64::from_le_bytes(*at), data))
                .unwrap();
        }
        drop(statement);
        transaction.commit().unwrap();
        for (client, sequence, _) in &batch {
            fs::remove_file(place.join("queue").join(format!("{client}-{sequence}"))).unwrap();
            let answers = OpenOptions::new().write(true).open(place.join("answers").join(client.to_string()));
            answers.unwrap().write_all_at(&sequence.to_le_bytes(), 0).unwrap();
        }
    }
}

/// Client, sequence and bytes of every file in the queue: a client has at most one there.
fn read_queue(place: &Path) -> Vec<(u64, u64, Vec<u8>)> {
    let entries = fs::read_dir(place.join("queue")).unwrap().map(Result::unwrap);
    let command = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        let (client, sequence) = name.split_once('-').unwrap();
        (client.parse().unwrap(), sequence.parse().unwrap(), fs::read(entry.path()).unwrap())
    };
    entries.map(command).collect()
}
