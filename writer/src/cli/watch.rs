//! How far a split is: a bar on a terminal, a line every ten seconds elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use penholder::split::{Look, Progress, Stage};

use super::render;

/// Time between two looks of the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// Time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Draws on stderr until it is stopped.
pub(super) struct Watch {
    /// Dropped to stop it.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to draw, unless nobody wants to see it.
    pub(super) fn start(progress: &Arc<Progress>, quiet: bool) -> Self {
        if quiet {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = channel::<()>();
        let progress = Arc::clone(progress);
        let draw = move || {
            let is_terminal = std::io::stderr().is_terminal();
            let bar = if is_terminal { bar() } else { ProgressBar::hidden() };
            let interval = if is_terminal { BAR_INTERVAL } else { LINE_INTERVAL };
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let look = progress.look();
                if is_terminal {
                    bar.set_length(look.rows_total.max(1));
                    bar.set_position(look.rows);
                    bar.set_message(message(look));
                } else {
                    eprintln!("{}", line(look));
                }
            }
            bar.finish_and_clear();
        };
        Self { stop: Some(stop), thread: Some(std::thread::spawn(draw)) }
    }

    /// Takes the bar away.
    pub(super) fn stop(mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::warn!("the progress bar failed");
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg:44} [{wide_bar}] {percent:>3} % {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn message(look: Look) -> String {
    let word = match look.stage {
        Stage::Planning => return "reading the old database".into(),
        Stage::Copying => "copying",
        Stage::Verifying => "verifying",
        Stage::Publishing => return "publishing the store".into(),
    };
    format!("{word}: {}, {} rows read", render::bytes(look.bytes), look.rows)
}

fn line(look: Look) -> String {
    let of = if look.rows_total == 0 {
        String::new()
    } else {
        format!(
            " of {}; {} of about {}",
            look.rows_total,
            render::bytes(look.bytes),
            render::bytes(look.bytes_total)
        )
    };
    format!("{}{of}", message(look))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rows_and_bytes_of_both() {
        let look = Look { stage: Stage::Verifying, rows: 5, rows_total: 20, bytes: 2048, bytes_total: 4096 };
        assert_eq!(line(look), "verifying: 2.0 KiB, 5 rows read of 20; 2.0 KiB of about 4.0 KiB");
        let look = Look { stage: Stage::Planning, rows: 0, rows_total: 0, bytes: 0, bytes_total: 0 };
        assert_eq!(line(look), "reading the old database");
    }
}
