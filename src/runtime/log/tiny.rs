//! The log of the tiny flavour: lines on standard error. To a person they have the time and colours; to journald a priority, in the way of
//! sd-daemon(3), and no time, since it adds its own.
//!
//! Each line is one write, so that those of the keeper and of the tunnel never mix.

#[path = "limit.rs"]
mod limit;

use std::fmt::{self, Debug, Write as _};
use std::fs::File;
use std::io::{IsTerminal, Write as _, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use self::limit::admits;
pub use self::limit::{tell_hidden, tell_last_hidden};
use crate::config::{Level, Moment};

/// The target of what is told however often it comes.
pub const ASKED: &str = "tap_rs::asked";

/// Logs from now on. Later calls change nothing.
pub fn start(level: Level) {
    let reader = match std::env::var("JOURNAL_STREAM") {
        Ok(stream) if stderr_is(&stream) => Reader::Journal,
        _ if stderr().is_terminal() => Reader::Terminal,
        _ => Reader::File,
    };
    if tracing::subscriber::set_global_default(Log { reader }).is_err() {
        tracing::debug!("the log was started before");
        return;
    }
    set(level);
}

/// Logs at another level from now on.
pub fn set(level: Level) {
    MOST.store(level as u8, Relaxed);
    // What each place in the code remembers of it.
    tracing::callsite::rebuild_interest_cache();
}

/// The least severe level that is logged.
static MOST: AtomicU8 = AtomicU8::new(Level::Off as u8);

fn most() -> LevelFilter {
    let all = [Level::Off, Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
    all.get(usize::from(MOST.load(Relaxed))).map_or(LevelFilter::OFF, |level| (*level).into())
}

/// Whether standard error is this stream: `device:inode` (systemd.exec(5)).
fn stderr_is(stream: &str) -> bool {
    let file = stderr().as_fd().try_clone_to_owned().map(File::from);
    let meta = file.and_then(|file| file.metadata());
    meta.is_ok_and(|meta| format!("{}:{}", meta.dev(), meta.ino()) == stream)
}

#[derive(Clone, Copy)]
enum Reader {
    Journal,
    Terminal,
    File,
}

struct Log {
    reader: Reader,
}

/// There are no spans here.
impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= most()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(most())
    }

    fn event(&self, event: &Event<'_>) {
        if !admits(event) {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let text = self.reader.line(*event.metadata().level(), &line, SystemTime::now());
        // A log that nobody reads keeps nothing from working.
        let _ = stderr().write_all(text.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A message, and ` name=value` of each field.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl Reader {
    fn line(self, level: tracing::Level, line: &Line, now: SystemTime) -> String {
        let Line { message, fields } = line;
        let (priority, word, colour) = match level {
            tracing::Level::ERROR => (3, "ERROR", 31),
            tracing::Level::WARN => (4, " WARN", 33),
            tracing::Level::INFO => (6, " INFO", 32),
            tracing::Level::DEBUG => (7, "DEBUG", 34),
            tracing::Level::TRACE => (7, "TRACE", 35),
        };
        match self {
            Self::Journal => {
                let message = message.replace('\n', &format!("\n<{priority}>"));
                format!("<{priority}>{message}{fields}\n")
            }
            Self::Terminal => {
                format!(
                    "\x1b[2m{}\x1b[0m \x1b[{colour}m{word}\x1b[0m {message}\x1b[2m{fields}\x1b[0m\n",
                    Utc(now)
                )
            }
            Self::File => format!("{} {word} {message}{fields}\n", Utc(now)),
        }
    }
}

/// Shows as RFC 3339 has it, in UTC, with microseconds.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = Moment(since.as_secs()).to_string();
        write!(f, "{}.{:06}Z", seconds.trim_end_matches('Z'), since.subsec_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (951_868_800, "2000-03-01T00:00:00.000007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(7);
            assert_eq!(Utc(time).to_string(), text);
        }
    }

    #[test]
    fn journald_gets_a_priority_on_every_line_and_no_time() {
        let line = Line { message: "a\nb".into(), fields: " c=1".into() };
        let text = |reader: Reader| reader.line(tracing::Level::WARN, &line, UNIX_EPOCH);
        assert_eq!(text(Reader::Journal), "<4>a\n<4>b c=1\n");
        assert_eq!(text(Reader::File), "1970-01-01T00:00:00.000000Z  WARN a\nb c=1\n");
    }
}
