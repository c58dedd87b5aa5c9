//! A session of PostgreSQL: the wire protocol over a blocking socket, which costs the client less than any driver.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use postgres_protocol::types::{int8_to_sql, text_to_sql};

use crate::process::{self, Role};
use crate::socket::address;
use crate::workload::row;

/// The role that the cluster is made with, and its database.
pub(crate) const USER: &str = "bench";
/// Name of the socket in its directory; the port is a part of it.
pub(crate) const SOCKET: &str = ".s.PGSQL.5432";
/// The one statement that everybody runs.
const INSERT: &str = "INSERT INTO event (client, sequence, at, data) VALUES ($1, $2, $3, $4)";
/// What an error of the server begins with.
const ERROR_TAG: u8 = b'E';
/// Values are sent as the server keeps them.
const BINARY: i16 = 1;

/// Runs as a client: a prepared statement, committed by itself, per command.
pub(crate) fn one_by_one(role: &Role) {
    let mut session = Session::open(&role.place);
    session.prepare(INSERT);
    process::one_by_one(role, |sequence| session.insert(role.client, sequence));
}

/// One connection.
pub(crate) struct Session {
    stream: UnixStream,
    sent: BytesMut,
    received: BytesMut,
}

impl Session {
    /// Connects to the server whose socket is in `directory`.
    pub(crate) fn open(directory: &Path) -> Self {
        let stream = UnixStream::connect(address(&File::open(directory).unwrap(), SOCKET)).unwrap();
        let mut session = Self { stream, sent: BytesMut::new(), received: BytesMut::new() };
        frontend::startup_message([("user", USER), ("database", "postgres")], &mut session.sent).unwrap();
        session.exchange(|_| {});
        session
    }

    /// Runs statements without parameters, and shows each line of what a COPY among them sends.
    pub(crate) fn query(&mut self, sql: &str, each: impl FnMut(&str)) {
        frontend::query(sql, &mut self.sent).unwrap();
        self.exchange(each);
    }

    fn prepare(&mut self, sql: &str) {
        frontend::parse("", sql, [], &mut self.sent).unwrap();
        frontend::sync(&mut self.sent);
        self.exchange(|_| {});
    }

    /// Bind, execute and sync in one write; the answer comes once the commit is durable.
    fn insert(&mut self, client: u64, sequence: u64) {
        let (client, sequence, at, data) = row(client, sequence);
        let values = [Value::Number(client), Value::Number(sequence), Value::Number(at), Value::Text(data)];
        let bound = frontend::bind("", "", [BINARY], values, Value::write, [BINARY], &mut self.sent);
        assert!(bound.is_ok());
        frontend::execute("", 0, &mut self.sent).unwrap();
        frontend::sync(&mut self.sent);
        self.exchange(|_| {});
    }

    /// Sends what is prepared, and reads until the server is ready for more.
    fn exchange(&mut self, mut each: impl FnMut(&str)) {
        self.stream.write_all(&self.sent).unwrap();
        self.sent.clear();
        loop {
            let refused = self.received.first() == Some(&ERROR_TAG);
            assert!(!refused, "PostgreSQL: {}", String::from_utf8_lossy(&self.received));
            match Message::parse(&mut self.received).unwrap() {
                Some(Message::ReadyForQuery(_)) => return,
                Some(Message::CopyData(line)) => each(std::str::from_utf8(line.data()).unwrap().trim_end()),
                Some(_) => {}
                None => self.receive(),
            }
        }
    }

    fn receive(&mut self) {
        let mut bytes = [0; 8192];
        let count = self.stream.read(&mut bytes).unwrap();
        assert!(count > 0, "PostgreSQL closed the connection");
        self.received.extend_from_slice(&bytes[..count]);
    }
}

/// A parameter.
enum Value {
    Number(i64),
    Text(&'static str),
}

impl Value {
    #[expect(clippy::unnecessary_wraps, reason = "the signature that the protocol's encoder asks for")]
    fn write(self, to: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Number(value) => int8_to_sql(value, to),
            Self::Text(value) => text_to_sql(value, to),
        }
        Ok(IsNull::No)
    }
}
