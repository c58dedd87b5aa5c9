//! `penholder exec --stdin`: commands in, one per line, and what became of them out, in the same order.
//!
//! A thread reads and parses; the main thread submits whatever has arrived in one write, waits for the oldest command
//! in flight, and prints all that are answered. So one line at a time is answered at once, and a file goes through in
//! batches of up to a window.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use penholder_client::{Client, ClientError, Ticket};
use penholder_protocol::Command;
use penholder_protocol::limits::FRAME_BYTES_MAX;

use super::args::{ExecArgs, Level};
use super::exit::{Exit, Failure};
use super::line::Lines;
use super::outcome::{self, Report};
use super::output::Output;
use super::{render, submit};

/// Longest line, in bytes: the longest command there can be, with every byte of it escaped.
const LINE_BYTES_MAX: u64 = 6 * FRAME_BYTES_MAX as u64 + (64 << 10);

/// A command and the line it came from; or why a line is none, and then nothing follows.
type Parsed = Result<(u64, Command), String>;

/// Submits what stdin holds, until it ends or something is wrong.
pub(super) fn run(args: &ExecArgs, output: &mut Output) -> Result<Exit, Failure> {
    let mut client = submit::connect(&args.store, args.timeout)?;
    let window = usize::try_from(args.window).unwrap_or(usize::MAX);
    let (sender, receiver) = bounded(window);
    // It ends with stdin, or with the process: nothing but the process could wake it from a read.
    std::thread::spawn(move || read_lines(&mut io::stdin().lock(), &sender));
    let mut flight = Flight { args, output, ticketed: VecDeque::new(), printed: 0, exit: Exit::Ok };
    let mut arrived = Vec::new();
    loop {
        let ended = take(&receiver, window - flight.ticketed.len(), flight.ticketed.is_empty(), &mut arrived);
        let submitted = flight.submit(&mut client, &mut arrived);
        if let Some(error) = submitted.err().or(ended.as_ref().and_then(|ended| ended.clone().err())) {
            flight.land_all(&mut client)?;
            let before = render::count(flight.printed, "command");
            flight.output.complain(&format!("{error}; submitted: {before} before it, none behind it"));
            return Ok(flight.exit.or_worse(Exit::Failure));
        }
        if ended.is_some() {
            flight.land_all(&mut client)?;
            return Ok(flight.exit);
        }
        flight.land_some(&mut client)?;
        if flight.exit == Exit::TimedOut {
            flight.land_all(&mut client)?;
            let first = render::count(flight.printed, "command");
            flight.output.complain(&format!("stopped reading; submitted: the first {first}, none behind"));
            return Ok(flight.exit);
        }
    }
}

/// Takes what has arrived, at most `room` commands; waits for the first only if nothing else is to be done.
///
/// Returns how the input ended, once it has.
fn take(
    receiver: &Receiver<Parsed>,
    room: usize,
    may_wait: bool,
    arrived: &mut Vec<(u64, Command)>,
) -> Option<Result<(), String>> {
    while arrived.len() < room {
        let next = if may_wait && arrived.is_empty() {
            receiver.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            receiver.try_recv()
        };
        match next {
            Ok(Ok(command)) => arrived.push(command),
            Ok(Err(error)) => return Some(Err(error)),
            Err(TryRecvError::Disconnected) => return Some(Ok(())),
            Err(TryRecvError::Empty) => return None,
        }
    }
    None
}

/// The commands in flight, oldest first, and what was seen of those before.
struct Flight<'a> {
    args: &'a ExecArgs,
    output: &'a mut Output,
    ticketed: VecDeque<(Ticket, Instant)>,
    /// How many are reported; also the number of the last.
    printed: u64,
    exit: Exit,
}

impl Flight<'_> {
    /// Submits all of `arrived` in one write, and empties it.
    fn submit(&mut self, client: &mut Client, arrived: &mut Vec<(u64, Command)>) -> Result<(), String> {
        if arrived.is_empty() {
            return Ok(());
        }
        let (lines, commands): (Vec<u64>, Vec<Command>) = arrived.drain(..).unzip();
        match submit::submit(client, &commands, self.args.level) {
            Ok(tickets) => {
                self.note(tickets.iter());
                Ok(())
            }
            // One of them passes a limit, and nothing is queued: what stands before it still goes.
            Err(ClientError::Encode(_)) => self.submit_each(client, &lines, commands),
            Err(error) => {
                let (first, last) = (lines.first().copied().unwrap_or(0), lines.last().copied().unwrap_or(0));
                Err(format!("lines {first} to {last}: {error}"))
            }
        }
    }

    fn submit_each(
        &mut self,
        client: &mut Client,
        lines: &[u64],
        commands: Vec<Command>,
    ) -> Result<(), String> {
        for (line, command) in lines.iter().zip(commands) {
            let tickets = submit::submit(client, &[command], self.args.level);
            self.note(tickets.map_err(|error| format!("line {line}: {error}"))?.iter());
        }
        Ok(())
    }

    fn note(&mut self, tickets: impl Iterator<Item = Ticket>) {
        let now = Instant::now();
        self.ticketed.extend(tickets.map(|ticket| (ticket, now)));
    }

    /// Waits for the oldest command and reports it, with all behind it that are answered too.
    fn land_some(&mut self, client: &mut Client) -> Result<(), Failure> {
        let mut is_first = true;
        while let Some((ticket, submitted)) = self.ticketed.front().copied() {
            if is_first || self.args.level != Level::Applied {
                self.land(client, ticket, submitted)?;
            } else {
                let Some(outcome) = client.outcome(ticket)? else { break };
                self.print(&Report::Final(outcome))?;
            }
            is_first = false;
        }
        self.output.finish()
    }

    /// Waits for all that are in flight.
    fn land_all(&mut self, client: &mut Client) -> Result<(), Failure> {
        while let Some((ticket, submitted)) = self.ticketed.front().copied() {
            self.land(client, ticket, submitted)?;
        }
        self.output.finish()
    }

    fn land(&mut self, client: &mut Client, ticket: Ticket, submitted: Instant) -> Result<(), Failure> {
        if self.args.level != Level::Applied {
            return self.print(&Report::Queued);
        }
        let left = self.args.timeout.saturating_sub(submitted.elapsed());
        let error = match client.wait(ticket, left) {
            Ok(outcome) => return self.print(&Report::Final(outcome)),
            Err(error @ ClientError::Timeout { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        if self.exit != Exit::TimedOut {
            let rest = "commands reported as queued will be applied: do not submit them again";
            self.output.complain(&format!("{error}; {rest}"));
        }
        self.exit = self.exit.or_worse(Exit::TimedOut);
        self.print(&Report::Queued)
    }

    fn print(&mut self, report: &Report) -> Result<(), Failure> {
        self.ticketed.pop_front();
        self.printed += 1;
        self.exit = self.exit.or_worse(report.exit());
        outcome::print_json(self.output, self.printed, report)
    }
}

/// Parses lines until there are none, one is wrong, or nobody wants them any more.
fn read_lines(input: &mut impl BufRead, sender: &Sender<Parsed>) {
    let (mut lines, mut line) = (Lines::default(), Vec::new());
    for number in 1.. {
        line.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        let parsed = match read {
            Ok(0) => return,
            Ok(length) if length as u64 > LINE_BYTES_MAX => {
                Err(format!("longer than {LINE_BYTES_MAX} bytes"))
            }
            Ok(_) if line.trim_ascii().is_empty() => continue,
            Ok(_) => lines.parse(line.trim_ascii()),
            Err(error) => Err(format!("cannot read it: {error}")),
        };
        let is_wrong = parsed.is_err();
        let parsed =
            parsed.map(|command| (number, command)).map_err(|error| format!("line {number}: {error}"));
        if sender.send(parsed).is_err() || is_wrong {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_at_a_wrong_line_and_names_it() {
        let good = r#"{"db":"a","sql":"S"}"#;
        let input = format!("{good}\n\n{good}\nnonsense\n{good}\n");
        let (sender, receiver) = bounded(10);
        read_lines(&mut input.as_bytes(), &sender);
        drop(sender);
        let mut arrived = Vec::new();
        let ended = take(&receiver, 100, true, &mut arrived);
        assert_eq!(arrived.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3]);
        assert!(ended.unwrap().unwrap_err().starts_with("line 4: "));
    }

    #[test]
    fn a_last_line_without_its_end_counts() {
        let (sender, receiver) = bounded(10);
        read_lines(&mut br#"{"db":"a","sql":"S"}"#.as_slice(), &sender);
        drop(sender);
        let mut arrived = Vec::new();
        assert_eq!(take(&receiver, 1, true, &mut arrived), None);
        assert_eq!(take(&receiver, 1, false, &mut Vec::new()), Some(Ok(())));
        assert_eq!(arrived.len(), 1);
    }
}
