//! Throughput and latency of more and more client processes, for every peer: all peers in each round, in turns.

use std::path::Path;

use crate::effort::Effort;
use crate::peer::{Peer, Stand};
use crate::postgres::Cluster;
use crate::results::{Results, Round, Subject};

/// Measures every number of processes with every peer, round by round.
pub(crate) fn measure(effort: &Effort, scratch: &Path, cluster: Option<&Cluster>, results: &mut Results) {
    let mut peers: Vec<Peer> = effort.peers.clone();
    peers.retain(|peer| *peer != Peer::Postgres || cluster.is_some());
    for round in 1..=effort.rounds {
        for &processes in &effort.processes {
            for &peer in &peers {
                eprintln!("round {round}/{}: {processes} processes: {peer}", effort.rounds);
                let stand = Stand::start(peer, scratch, cluster);
                let progress = stand.work(processes, effort.seconds);
                stand.finish(&progress.counts);
                results.record(Subject::Processes, peer, processes as u64, Round::of(&progress));
            }
        }
        // Another one goes first in every round, so that nobody profits from what the one before left.
        peers.rotate_left(1);
    }
}
