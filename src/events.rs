//! Events of the log without `tracing`: for the tiny flavour, where that and its macros would be 30 kB.
//!
//! ```text
//!   info!(%client, bytes = 7, "text {x}") ──▶ Event on the stack ──▶ what the log has registered by [`register`]
//! ```
//!
//! The macros take what those of `tracing` take of what this program uses: `target: …`, then fields (`%shown`, `?debugged`,
//! `name = value`), then a message. `debug!` and `trace!` are checked by the compiler and make no code.

use std::fmt::Arguments;
use std::sync::OnceLock;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It ends the program.
    Error,
    /// Somebody should do something.
    Warn,
    /// The state has changed.
    Info,
}

/// A place in the code that tells something. Its address tells one from another.
#[derive(Debug)]
pub struct Site {
    /// Of whatever it tells.
    pub level: Level,
    /// What it is told for; empty for most.
    pub target: &'static str,
}

/// Something that is told.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Where in the code.
    pub site: &'static Site,
    /// Names with their values.
    pub fields: &'a [(&'static str, Arguments<'a>)],
    /// What has happened.
    pub message: Arguments<'a>,
}

static LOG: OnceLock<fn(&Event<'_>)> = OnceLock::new();

/// Tells events to `log` from now on; the first that is registered stays. Before that nothing is told.
pub fn register(log: fn(&Event<'_>)) {
    let _ = LOG.set(log);
}

/// Tells an event.
pub fn tell(event: &Event<'_>) {
    if let Some(log) = LOG.get() {
        log(event);
    }
}

/// Takes the fields off one by one: `[what is taken] what is left`.
macro_rules! event {
    ($level:ident, target: $target:expr, $($rest:tt)+) => {
        $crate::events::event!(@ $level, $target, [] $($rest)+)
    };
    ($level:ident, $($rest:tt)+) => { $crate::events::event!(@ $level, "", [] $($rest)+) };
    (@ $level:ident, $target:expr, [$($taken:tt)*] %$name:ident, $($rest:tt)+) => {
        $crate::events::event!(@ $level, $target, [$($taken)* (stringify!($name), format_args!("{}", $name)),] $($rest)+)
    };
    (@ $level:ident, $target:expr, [$($taken:tt)*] ?$name:ident, $($rest:tt)+) => {
        $crate::events::event!(@ $level, $target, [$($taken)* (stringify!($name), format_args!("{:?}", $name)),] $($rest)+)
    };
    (@ $level:ident, $target:expr, [$($taken:tt)*] $name:ident, $($rest:tt)+) => {
        $crate::events::event!(@ $level, $target, [$($taken)* (stringify!($name), format_args!("{:?}", $name)),] $($rest)+)
    };
    (@ $level:ident, $target:expr, [$($taken:tt)*] $name:ident = %$value:expr, $($rest:tt)+) => {
        $crate::events::event!(@ $level, $target, [$($taken)* (stringify!($name), format_args!("{}", $value)),] $($rest)+)
    };
    (@ $level:ident, $target:expr, [$($taken:tt)*] $name:ident = ?$value:expr, $($rest:tt)+) => {
        $crate::events::event!(@ $level, $target, [$($taken)* (stringify!($name), format_args!("{:?}", $value)),] $($rest)+)
    };
    (@ $level:ident, $target:expr, [$($taken:tt)*] $name:ident = $value:expr, $($rest:tt)+) => {
        $crate::events::event!(@ $level, $target, [$($taken)* (stringify!($name), format_args!("{:?}", $value)),] $($rest)+)
    };
    (@ $level:ident, $target:expr, [$($taken:tt)*] $($message:tt)+) => {{
        static SITE: $crate::events::Site = $crate::events::Site { level: $crate::events::Level::$level, target: $target };
        $crate::events::tell(&$crate::events::Event { site: &SITE, fields: &[$($taken)*], message: format_args!($($message)+) })
    }};
}

macro_rules! error { ($($event:tt)+) => { $crate::events::event!(Error, $($event)+) }; }
macro_rules! warning { ($($event:tt)+) => { $crate::events::event!(Warn, $($event)+) }; }
macro_rules! info { ($($event:tt)+) => { $crate::events::event!(Info, $($event)+) }; }
macro_rules! debug { ($($event:tt)+) => { if false { $crate::events::event!(Info, $($event)+) } }; }

// `warn` is also the name of an attribute, which a macro of this crate must not be called while it is being made.
pub(crate) use {debug, error, event, info, warning as warn};
