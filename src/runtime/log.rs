//! The log: fields for the journal where standard error is one, else lines for people.
//!
//! What others can provoke is bounded, in [`limit`]: each kind of message about each client or NIC is told a few times in
//! ten seconds, and then how often it was not. What the operator has asked for (the answer to a reload, what a script
//! prints) goes by the target [`ASKED`] and is always told. `debug` and `trace` are for those who look for something, and
//! are not bounded.
//!
//! Whoever reads the lines is never waited for ([`unhurried`]).

mod limit;
mod unhurried;

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IsTerminal, Write, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level as Severity, Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{Layer, Registry, registry};

use self::limit::Told;
pub use self::limit::{tell_hidden, tell_last_hidden};
use self::unhurried::Unhurried;
use crate::config::Level;

/// The target of what is told however often it comes.
pub const ASKED: &str = "tap_rs::asked";

/// The level of the log that was started.
static LEVEL: OnceLock<Handle<LevelFilter, Registry>> = OnceLock::new();

/// Logs from now on. Later calls change nothing.
pub fn start(level: Level) {
    let (filter, handle) = reload::Layer::new(LevelFilter::from(level));
    let log = registry().with(filter).with(Bounded);
    match tracing::subscriber::set_global_default(log.with(output())) {
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

/// Keeps what is too often from the layers behind it.
struct Bounded;

impl<S: Subscriber> Layer<S> for Bounded {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        limit::admits(&event)
    }
}

fn output<S: Subscriber + for<'a> LookupSpan<'a>>() -> Box<dyn Layer<S> + Send + Sync> {
    if !is_journal() {
        return Box::new(people());
    }
    match tracing_journald::layer() {
        Ok(fields) => Box::new(
            fields
                .with_syslog_identifier("tap-rs".to_owned())
                .with_field_prefix(Some("TAP_RS".to_owned()))
                .with_priority_mappings(PriorityMappings {
                    info: Priority::Informational,
                    debug: Priority::Debug,
                    ..PriorityMappings::default()
                }),
        ),
        // A stream without its socket, as in some containers: sd-daemon(3) says what its lines may begin with.
        Err(_) => Box::new(
            fmt::layer()
                .with_writer(Prefixed)
                .with_ansi(false)
                .with_target(false)
                .with_level(false)
                .without_time()
                .log_internal_errors(false),
        ),
    }
}

fn people<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> + Send + Sync {
    let colour = stderr().is_terminal() && super::status::paint::wants_colour();
    fmt::layer()
        .with_writer(|| Unhurried(stderr()))
        .with_ansi(colour)
        .with_target(false)
        .log_internal_errors(false)
}

/// Standard error is the very stream that the journal made for this service (systemd.exec(5), `$JOURNAL_STREAM`). The
/// variable alone says little: it is inherited by what redirects its output.
fn is_journal() -> bool {
    let told = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Some((device, inode)) = told.split_once(':') else { return false };
    let stream = stderr().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    stream.is_ok_and(|m| m.dev().to_string() == device && m.ino().to_string() == inode)
}

/// Lines with their severity in front, `<6>`.
struct Prefixed;

impl<'a> MakeWriter<'a> for Prefixed {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(6)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line(severity(*meta.level()))
    }
}

/// One event; syslog(3)'s number for its severity.
struct Line(u8);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // In one piece: others may write to the stream as well.
        Unhurried(stderr()).write_all(&[format!("<{}>", self.0).as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn severity(level: Severity) -> u8 {
    match level {
        Severity::ERROR => 3,
        Severity::WARN => 4,
        Severity::INFO => 6,
        _ => 7,
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::OFF,
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

impl Told for &Event<'_> {
    fn site(&self) -> usize {
        std::ptr::from_ref(self.metadata()).addr()
    }

    fn is_bounded(&self) -> bool {
        *self.metadata().level() <= Severity::INFO && self.metadata().target() != ASKED
    }

    fn is_warning(&self) -> bool {
        *self.metadata().level() < Severity::INFO
    }

    fn each(&self, take: &mut dyn FnMut(&str, &dyn Debug)) {
        self.record(&mut Each(take));
    }
}

/// Fields of an event, one after the other.
struct Each<'a>(&'a mut dyn FnMut(&str, &dyn Debug));

impl Visit for Each<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        (self.0)(field.name(), value);
    }
}
