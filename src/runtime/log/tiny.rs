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
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use self::limit::Told;
pub use self::limit::{tell_hidden, tell_last_hidden};
use crate::config::{Level, Moment};
use crate::events::{self, Event, Level as Severity};

/// The target of what is told however often it comes.
pub const ASKED: &str = "tap_rs::asked";

/// Logs from now on. Later calls change the level alone.
pub fn start(level: Level) {
    READER.get_or_init(|| match std::env::var("JOURNAL_STREAM") {
        Ok(stream) if stderr_is(&stream) => Reader::Journal,
        _ if stderr().is_terminal() => Reader::Terminal,
        _ => Reader::File,
    });
    set(level);
    events::register(tell);
}

/// Logs at another level from now on.
pub fn set(level: Level) {
    MOST.store(level as u8, Relaxed);
}

/// The least severe level that is logged.
static MOST: AtomicU8 = AtomicU8::new(Level::Off as u8);

/// Who reads the lines.
static READER: OnceLock<Reader> = OnceLock::new();

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

fn tell(event: &Event<'_>) {
    let level = match event.site.level {
        Severity::Error => Level::Error,
        Severity::Warn => Level::Warn,
        Severity::Info => Level::Info,
    };
    if level as u8 > MOST.load(Relaxed) || !limit::admits(event) {
        return;
    }
    let reader = READER.get().copied().unwrap_or(Reader::File);
    // A log that nobody reads keeps nothing from working.
    let _ = stderr().write_all(reader.line(event, SystemTime::now()).as_bytes());
}

impl Told for Event<'_> {
    fn site(&self) -> usize {
        std::ptr::from_ref(self.site).addr()
    }

    fn is_bounded(&self) -> bool {
        self.site.target != ASKED
    }

    fn is_warning(&self) -> bool {
        self.site.level < Severity::Info
    }

    fn each(&self, take: &mut dyn FnMut(&str, &dyn Debug)) {
        take("message", &self.message);
        self.fields.iter().for_each(|(name, value)| take(name, value));
    }
}

impl Reader {
    /// A message, and ` name=value` of each field.
    fn line(self, event: &Event<'_>, now: SystemTime) -> String {
        let (message, mut fields) = (event.message, String::new());
        for (name, value) in event.fields {
            // Writing to a string does not fail.
            let _ = write!(fields, " {name}={value}");
        }
        let (priority, word, colour) = match event.site.level {
            Severity::Error => (3, "ERROR", 31),
            Severity::Warn => (4, " WARN", 33),
            Severity::Info => (6, " INFO", 32),
        };
        match self {
            Self::Journal => {
                let message = message.to_string().replace('\n', &format!("\n<{priority}>"));
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
        static SITE: events::Site = events::Site { level: Severity::Warn, target: "" };
        let text = |reader: Reader| {
            let event =
                Event { site: &SITE, fields: &[("c", format_args!("1"))], message: format_args!("a\nb") };
            reader.line(&event, UNIX_EPOCH)
        };
        assert_eq!(text(Reader::Journal), "<4>a\n<4>b c=1\n");
        assert_eq!(text(Reader::File), "1970-01-01T00:00:00.000000Z  WARN a\nb c=1\n");
    }
}
