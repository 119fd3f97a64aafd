//! The log: human lines on standard error, without a time where journald adds its own.

use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::{Registry, fmt, registry};

use crate::config::Level;

/// The level of the log that was started.
static LEVEL: OnceLock<Handle<LevelFilter, Registry>> = OnceLock::new();

/// Logs from now on. Later calls change nothing.
pub fn start(level: Level) {
    let (filter, handle) = Layer::new(LevelFilter::from(level));
    let log = fmt::layer()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .log_internal_errors(false);
    // Set where standard error is a stream of the journal (systemd.exec(5)).
    let started = if std::env::var_os("JOURNAL_STREAM").is_some() {
        tracing::subscriber::set_global_default(registry().with(filter).with(log.without_time()))
    } else {
        tracing::subscriber::set_global_default(registry().with(filter).with(log))
    };
    match started {
        Ok(()) => drop(LEVEL.set(handle)),
        Err(_) => tracing::debug!("the log was started before"),
    }
}

/// Logs at another level from now on.
pub fn set(level: Level) {
    if let Some(handle) = LEVEL.get() {
        // It fails only where the log is no more.
        let _ = handle.reload(LevelFilter::from(level));
    }
}
