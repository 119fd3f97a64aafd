//! The log: human lines on standard error, without a time where journald adds its own.

use std::io::{IsTerminal, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::Level;

/// Logs from now on. Later calls change nothing.
pub fn start(level: Level) {
    let colour = stderr().is_terminal();
    let log = fmt::Subscriber::builder()
        .with_max_level(LevelFilter::from(level))
        .with_writer(stderr)
        .with_ansi(colour)
        .with_target(false)
        .log_internal_errors(false);
    // Set where standard error is a stream of the journal (systemd.exec(5)).
    let started = if std::env::var_os("JOURNAL_STREAM").is_some() {
        tracing::subscriber::set_global_default(log.without_time().finish())
    } else {
        tracing::subscriber::set_global_default(log.finish())
    };
    if started.is_err() {
        tracing::debug!("the log was started before");
    }
}
