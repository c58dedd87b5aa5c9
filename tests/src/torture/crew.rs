//! The processes that keep a store busy while faults happen: clients of every kind, and a reader.

use penholder_tests::{Mix, Process, Random, Store};
use rustix::process::Signal;

/// What the clients of a crew submit; enough to keep all paths of the writer busy.
const MIXES: [Mix; 4] = [Mix::All, Mix::Both, Mix::All, Mix::Activity];

/// Clients and a reader of one store.
pub(crate) struct Crew {
    workers: Vec<(Mix, Process)>,
    watcher: Option<Process>,
}

impl Crew {
    /// Four clients that submit until told to stop, and a reader; the store must be there.
    pub(crate) fn start(store: &mut Store) -> Self {
        let workers = MIXES.map(|mix| (mix, store.start_worker(mix, u64::MAX))).into();
        Self { workers, watcher: Some(store.start_watcher()) }
    }

    /// Kills a random client, and starts another one in its place.
    pub(crate) fn kill_one(&mut self, store: &mut Store, random: &mut Random) {
        let victim = pick(random, self.workers.len());
        let (mix, process) = &mut self.workers[victim];
        process.kill();
        *process = store.start_worker(*mix, u64::MAX);
    }

    /// A random client.
    pub(crate) fn someone(&self, random: &mut Random) -> &Process {
        &self.workers[pick(random, self.workers.len())].1
    }

    /// The reader.
    pub(crate) fn watcher(&self) -> &Process {
        self.watcher.as_ref().expect("the reader lives as long as the crew")
    }

    /// Stops everybody.
    pub(crate) fn pause(&self) {
        self.everybody().for_each(|process| process.signal(Signal::STOP));
    }

    /// Lets everybody go on who was stopped.
    pub(crate) fn resume(&self) {
        self.everybody().for_each(|process| process.signal(Signal::CONT));
    }

    fn everybody(&self) -> impl Iterator<Item = &Process> {
        self.workers.iter().map(|(_, process)| process).chain(&self.watcher)
    }

    /// Kills everybody at once, as a power cut does.
    pub(crate) fn kill_all(mut self) {
        for (_, process) in &mut self.workers {
            process.kill();
        }
        self.watcher.iter_mut().for_each(Process::kill);
    }

    /// Lets everybody come to their end, with every outcome; a writer must run.
    pub(crate) fn finish(mut self, store: &Store) {
        store.tell_workers_to_stop();
        self.workers.into_iter().for_each(|(_, process)| process.finish());
        self.watcher.take().into_iter().for_each(Process::finish);
    }
}

fn pick(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).unwrap()
}
