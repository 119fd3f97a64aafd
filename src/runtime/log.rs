//! The log: human lines on standard error, without a time where journald adds its own.
//!
//! Whoever reads it is never waited for: lines that do not fit into a pipe that nobody empties, or on a full disk, are left
//! out, and the next that fits says how many they were.

use std::io::{self, IsTerminal, Write, stderr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::{Registry, fmt, registry};

use crate::config::Level;
use crate::sys::poll::has_room;

/// The level of the log that was started.
static LEVEL: OnceLock<Handle<LevelFilter, Registry>> = OnceLock::new();

/// Lines that were left out since the last one that was not.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// What a pipe takes without waiting once it has room at all (pipe(7), `PIPE_BUF`).
const AT_ONCE: usize = 4096;

/// Logs from now on. Later calls change nothing.
pub fn start(level: Level) {
    let (filter, handle) = Layer::new(LevelFilter::from(level));
    let log = fmt::layer()
        .with_writer(|| Unhurried(stderr()))
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

/// A writer of whole lines that never waits for its reader.
struct Unhurried<W>(W);

impl<W: Write + std::os::fd::AsFd> Unhurried<W> {
    /// All of the line, or what fits.
    fn put(&mut self, mut line: &[u8]) -> io::Result<()> {
        while !line.is_empty() {
            if !has_room(&self.0) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let (part, rest) = line.split_at(line.len().min(AT_ONCE));
            self.0.write_all(part)?;
            line = rest;
        }
        Ok(())
    }
}

impl<W: Write + std::os::fd::AsFd> Write for Unhurried<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let left_out = LEFT_OUT.swap(0, Relaxed);
        let note = match left_out {
            0 => Ok(()),
            n => {
                self.put(format!("tap-rs: {n} lines of the log were left out: nobody took them\n").as_bytes())
            }
        };
        if note.is_err() {
            LEFT_OUT.fetch_add(left_out.saturating_add(1), Relaxed);
        } else if self.put(line).is_err() {
            LEFT_OUT.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for_and_hears_how_much_it_has_missed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = Unhurried(writer);
        let line = format!("{}\n", "x".repeat(999));
        // More than any pipe holds.
        for _ in 0..5000 {
            assert_eq!(log.write(line.as_bytes()).unwrap(), line.len());
        }
        let mut buffer = vec![0; 4 << 20];
        let held = reader.read(&mut buffer).unwrap();
        assert!(held < 4_000_000, "{held}");
        log.write_all(b"again\n").unwrap();
        let len = reader.read(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(text.ends_with("again\n") && text.contains("lines of the log were left out"), "{text}");
        drop(reader);
        assert_eq!(log.write(b"to nobody\n").unwrap(), 10);
    }
}
