//! What if: requests and answers over a Unix socket instead of files. The same SQL, the same group commit, the same
//! gathering; but a command is gone when the writer dies before its commit, and nobody can submit while none runs.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::event::{PollFd, PollFlags, poll};

use crate::direct;
use crate::process::{self, Role};
use crate::workload::{INSERT, row};

/// Longest time to wait for more requests before a commit; our writer's own setting.
const GATHER: Duration = Duration::from_micros(60);
/// The socket, beside the database.
const SOCKET: &str = "socket";
/// Client, sequence and time, before the text.
const FIXED_BYTES: usize = 24;

/// The name of a socket in `directory`, however long that one's own name is: of a socket it may have 107 bytes.
pub(crate) fn address(directory: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).into()
}

/// Runs as a client: a request per command, until the time is over.
pub(crate) fn one_by_one(role: &Role) {
    let directory = File::open(&role.place).unwrap();
    let mut stream = UnixStream::connect(address(&directory, SOCKET)).unwrap();
    let (mut request, mut answer) = (Vec::new(), [0; 8]);
    process::one_by_one(role, |sequence| {
        let (client, number, at, data) = row(role.client, sequence);
        request.clear();
        request.extend(((FIXED_BYTES + data.len()) as u32).to_le_bytes());
        for value in [client, number, at] {
            request.extend(value.to_le_bytes());
        }
        request.extend(data.as_bytes());
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(u64::from_le_bytes(answer), sequence);
    });
}

/// Runs as the writer, until it is killed.
pub(crate) fn write(place: &Path) {
    let directory = File::open(place).unwrap();
    let listener = UnixListener::bind(address(&directory, SOCKET)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut database = direct::open(place, "full");
    database.prepare_cached(INSERT).unwrap();
    process::tell_ready();
    let (mut clients, mut before): (Vec<Connected>, usize) = (Vec::new(), 0);
    loop {
        wait(&listener, &clients);
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).unwrap();
            clients.push(Connected { stream, received: Vec::new() });
        }
        let mut ready = receive(&mut clients);
        let begun = Instant::now();
        while ready > 0 && ready < before && begun.elapsed() < GATHER {
            std::thread::yield_now();
            ready = receive(&mut clients);
        }
        if ready > 0 {
            commit(&mut database, &mut clients);
            before = ready;
        }
    }
}

/// A client, and what has arrived of its request.
struct Connected {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Connected {
    /// The request, once all of it is there: the values, without the length before them.
    fn request(&self) -> Option<&[u8]> {
        let (length, rest) = self.received.split_first_chunk()?;
        (rest.len() == u32::from_le_bytes(*length) as usize).then_some(rest)
    }
}

/// Waits until somebody connects or sends.
fn wait(listener: &UnixListener, clients: &[Connected]) {
    let mut watched = vec![PollFd::new(listener, PollFlags::IN)];
    watched.extend(clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)));
    poll(&mut watched, None).unwrap();
}

/// Takes what has arrived, forgets who is gone, and counts the requests that are complete.
fn receive(clients: &mut Vec<Connected>) -> usize {
    let mut bytes = [0; 4096];
    clients.retain_mut(|client| {
        if client.request().is_some() {
            return true;
        }
        match client.stream.read(&mut bytes) {
            Ok(count) => {
                client.received.extend(&bytes[..count]);
                count > 0
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    });
    clients.iter().filter(|client| client.request().is_some()).count()
}

/// Commits every complete request in one transaction, then answers.
fn commit(database: &mut Connection, clients: &mut [Connected]) {
    let transaction = database.transaction().unwrap();
    let mut statement = transaction.prepare_cached(INSERT).unwrap();
    let mut answers = Vec::new();
    for (index, request) in clients.iter().enumerate().filter_map(|(i, c)| Some((i, c.request()?))) {
        let (fixed, data) = request.split_at(FIXED_BYTES);
        let number = |at: usize| i64::from_le_bytes(*fixed[at..].first_chunk().unwrap());
        statement.execute((number(0), number(8), number(16), std::str::from_utf8(data).unwrap())).unwrap();
        answers.push((index, number(8)));
    }
    drop(statement);
    transaction.commit().unwrap();
    for (index, answer) in answers {
        clients[index].received.clear();
        // A client that died meanwhile is forgotten with the next look.
        drop(clients[index].stream.write(&answer.to_le_bytes()));
    }
}
