//! Stdout for data and stderr for the rest, with or without colours.

use std::io::{self, BufWriter, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::args::Color;
use super::exit::Failure;

pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const ODD: Style = AnsiColor::Yellow.on_default();
pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const STRONG: Style = Style::new().bold();

/// Where a command writes its data.
pub(super) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    /// Whether a person looks at it: then tables follow the width of the terminal.
    pub(super) is_terminal: bool,
    /// Whether to use colours in it.
    pub(super) is_colored: bool,
    is_stderr_colored: bool,
}

impl Output {
    /// Writes to stdout.
    pub(super) fn stdout(color: Color) -> Self {
        let allowed = |is_terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let is_terminal = io::stdout().is_terminal();
        Self {
            writer: BufWriter::new(Box::new(io::stdout())),
            is_terminal,
            is_colored: allowed(is_terminal),
            is_stderr_colored: allowed(io::stderr().is_terminal()),
        }
    }

    /// Writes one line.
    pub(super) fn line(&mut self, text: impl std::fmt::Display) -> Result<(), Failure> {
        Ok(writeln!(self.writer, "{text}")?)
    }

    /// Writes one value as one line of JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, value)?;
        Ok(self.writer.write_all(b"\n")?)
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.writer.write_all(bytes)?)
    }

    /// Makes what was written visible: to whoever waits at the other end of a pipe.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.writer.flush()?)
    }

    /// Colours a word, if colours are wanted.
    pub(super) fn paint(&self, style: Style, word: impl std::fmt::Display) -> String {
        paint(self.is_colored, style, word)
    }

    /// Tells the person on stderr what went wrong.
    pub(super) fn complain(&self, message: &str) {
        self.to_stderr(BAD, "error:", message);
    }

    /// Tells the person on stderr something beside the data.
    pub(super) fn remark(&self, message: &str) {
        self.to_stderr(FAINT, "note:", message);
    }

    fn to_stderr(&self, style: Style, word: &str, message: &str) {
        let word = paint(self.is_stderr_colored, style, word);
        // A closed stderr leaves nobody to tell.
        writeln!(io::stderr(), "{word} {message}").ok();
    }
}

fn paint(is_colored: bool, style: Style, word: impl std::fmt::Display) -> String {
    if is_colored { format!("{style}{word}{style:#}") } else { word.to_string() }
}
