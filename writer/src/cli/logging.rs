//! The log on stderr.

use env_logger::{Builder, WriteStyle};
use log::LevelFilter;

use super::args::{Color, Common};

/// Starts logging: a writer tells what it does, other commands only what is wrong.
pub(super) fn start(common: &Common, is_writer: bool) {
    let usual: i16 = if is_writer { 3 } else { 2 };
    let level = match usual + i16::from(common.verbose)
        - 2 * i16::from(common.quiet.min(1))
        - i16::from(common.quiet / 2)
    {
        ..=0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        5.. => LevelFilter::Trace,
    };
    let mut builder = Builder::new();
    builder.filter_level(level).parse_default_env().write_style(match common.color {
        Color::Auto => WriteStyle::Auto,
        Color::Always => WriteStyle::Always,
        Color::Never => WriteStyle::Never,
    });
    builder.init();
}
