//! Bulk: live from four processes, from a backlog that piled up while no writer ran, and on one connection.

use std::path::Path;
use std::sync::Arc;

use penholder_client::{Client, Durability};
use penholder_protocol::Text;

use crate::bed::Bed;
use crate::client::submit_rows;
use crate::direct;
use crate::effort::Effort;
use crate::peer::Peer;
use crate::process::{Fleet, Job, Role};
use crate::results::{Results, Round, Subject};
use crate::spool::Spool;
use crate::workload::{DATABASE, INSERT, Progress, large_command, verify};

/// Commands per stream of a backlog: below the quota of unapplied bytes.
const STREAM_COMMANDS: u64 = 50_000;
/// Values of a mebibyte per stream: as above.
const STREAM_VALUES: u64 = 40;
/// The backlogs, as parts of the largest one.
const BACKLOGS: [u64; 4] = [1000, 100, 10, 1];
/// The backlog of large values, as a part of the largest one of small ones.
const COMMANDS_PER_VALUE: u64 = 4000;

/// Measures all three, round by round.
pub(crate) fn measure(effort: &Effort, scratch: &Path, results: &mut Results) {
    let commands = effort.bulk_commands;
    for round in 1..=effort.rounds {
        eprintln!("round {round}/{}: bulk and backlogs of up to {commands} commands", effort.rounds);
        // Who goes first changes with every round.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                let mut bed = Bed::new(scratch);
                let progress = bed.bulk(commands);
                bed.finish();
                results.record(Subject::Bulk, Peer::Penholder, commands, Round::of(&progress));
            } else {
                let progress = on_one_connection(scratch, commands);
                results.record(Subject::Bulk, Peer::Connection, commands, Round::of(&progress));
            }
        }
        for backlog in BACKLOGS.map(|part| commands / part).into_iter().filter(|backlog| *backlog > 0) {
            let streams: Vec<u64> = parts(backlog, STREAM_COMMANDS);
            let spool = Spool::fill(scratch, &streams, |client, number, count| {
                submit_rows(client, number, count);
            });
            let drained = spool.drain();
            let rate = backlog as f64 / drained.last.as_secs_f64();
            results.number(Subject::Backlog, Peer::Penholder, backlog, rate);
            results.number(Subject::Memory, Peer::Penholder, backlog, drained.peak_mib);
        }
        let values = (commands / COMMANDS_PER_VALUE).max(1);
        let spool = Spool::fill(scratch, &parts(values, STREAM_VALUES), submit_values);
        results.number(Subject::MemoryLarge, Peer::Penholder, values, spool.drain().peak_mib);
    }
}

/// `whole` as parts of at most `most`.
fn parts(whole: u64, most: u64) -> Vec<u64> {
    (0..whole).step_by(most as usize).map(|begun| most.min(whole - begun)).collect()
}

fn submit_values(client: &mut Client, number: u64, count: u64) {
    let text: Arc<Text> = Text::new(DATABASE, INSERT);
    for sequence in 1..=count {
        client.submit(large_command(&text, number, sequence), Durability::Queued).unwrap();
    }
}

/// A thousand rows per transaction, in one process.
fn on_one_connection(scratch: &Path, rows: u64) -> Progress {
    let place = tempfile::Builder::new().prefix("connection-").tempdir_in(scratch).unwrap();
    direct::create(place.path());
    let role = Role::counted(Job::Connection, place.path(), 1, rows);
    let progress = Fleet::start(std::iter::once(role)).run();
    verify(place.path(), &progress.counts);
    progress
}
