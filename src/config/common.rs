//! What both sides have: the log, the daemon, the key, the timers.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;

use crate::keys::{PublicKey, shell_word};
use crate::types::{Mtu, NicMode, OffloadMode, ParseError};

use super::check::{Check, span, switch};
use super::hooks::{Hooks, hooks};
use super::raw::{File, Number, Text, TextOrNumber};
use super::suggest::closest;
use super::{Overrides, Role};

/// Settings that mean the same on either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// The least severe message that is logged.
    pub log: Level,
    /// Where to go when leaving the foreground. `None`: stay in it.
    pub daemon: Option<Daemon>,
    /// The file with this side's private key.
    pub private_key: PathBuf,
    /// How long the peer may leave us without an answer before a new handshake starts: 1 s to 1 h.
    pub dead_peer: Duration,
    /// Whether the kernel's offloads are used.
    pub offload: OffloadMode,
    /// Where metrics are given out over HTTP. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Programs that are run when something happens.
    pub hooks: Hooks,
    /// Threads that carry frames: 1 to 15, as many as a session has lanes for them.
    pub workers: NonZeroU8,
}

/// The files of a process in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Holds the process number while it runs.
    pub pid: PathBuf,
    /// Takes standard output, appended.
    pub stdout: PathBuf,
    /// Takes standard error, the log included, appended.
    pub stderr: PathBuf,
}

/// A log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Off,
    /// What keeps it from working.
    Error,
    /// What works but should not be so.
    Warn,
    /// State changes.
    Info,
    /// Decisions.
    Debug,
    /// Every packet.
    Trace,
}

impl Level {
    const WORDS: [(&str, Self); 6] = [
        ("off", Self::Off),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl FromStr for Level {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let found = Self::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(s));
        found.map(|(_, level)| *level).ok_or_else(|| {
            let words = Self::WORDS.map(|(word, _)| word);
            let hint = match closest(s, &words) {
                Some(word) => format!("did you mean {word}?"),
                None => format!("write one of {}", words.join(", ")),
            };
            ParseError(format!("{s:?} is no log level; {hint}"))
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, level)| level == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}

/// The common part, and the public half of the private key where that could be read.
pub(super) fn common(
    check: &mut Check<'_>,
    file: &File,
    overrides: &Overrides,
    role: Role,
) -> Option<(Common, Option<PublicKey>)> {
    refuse_stream_transport(check, &file.protocol);
    let log = log_level(check, &file.log, overrides.log);
    let daemon = daemon(check, file);
    let dead_peer = seconds(check, "timeout", &file.timeout, 3600, 3);
    let offloads = [("auto", OffloadMode::Auto), ("off", OffloadMode::Off)];
    let offload = check.choice("offload", &file.offload, &offloads).unwrap_or(OffloadMode::Auto);
    let workers = check.number("workers", &file.workers, 1..=15, 1);
    let workers = NonZeroU8::new(workers).unwrap_or(NonZeroU8::MIN);
    let hooks = hooks(check, file.hooks.as_ref().map(Spanned::get_ref), role);
    let (private_key, public) = private_key(check, file, overrides)?;
    let metrics = metrics(check, file);
    Some((Common { log, daemon, private_key, dead_peer, offload, metrics, hooks, workers }, public))
}

/// `tap` or `macvtap`. The original also listed `tun`, and could not run it.
pub(super) fn nic_mode(check: &mut Check<'_>, key: &str, text: &Text) -> Option<NicMode> {
    if let Some(text) = text.as_ref().filter(|t| t.get_ref().eq_ignore_ascii_case("tun")) {
        let message =
            format!("`{key}` cannot be \"tun\", which has no Ethernet frames; write \"tap\" or \"macvtap\"");
        check.notes.error(text.span(), message);
        return None;
    }
    check.choice(key, text, &[("tap", NicMode::Tap), ("macvtap", NicMode::Macvtap)])
}

/// An MTU, or `default` where none is written.
pub(super) fn mtu(check: &mut Check<'_>, n: &Number, default: Mtu) -> Mtu {
    let bytes = check.number("mtu", n, u32::from(Mtu::MIN)..=u32::from(Mtu::MAX), u32::from(default.bytes()));
    Mtu::try_from(bytes).unwrap_or(default)
}

/// Whole seconds from 1 to `most`.
pub(super) fn seconds(check: &mut Check<'_>, key: &str, n: &Number, most: u64, default: u64) -> Duration {
    Duration::from_secs(check.number(key, n, 1..=most, default))
}

fn refuse_stream_transport(check: &mut Check<'_>, protocol: &Text) {
    if let Some(text) = protocol.as_ref().filter(|t| t.get_ref().eq_ignore_ascii_case("tcp")) {
        let message = "there is no TCP transport; write \"udp\", or leave the line out";
        check.notes.error(text.span(), message);
        return;
    }
    check.choice("protocol", protocol, &[("udp", ())]);
}

/// The original took any text here and did nothing with it, so a level that is none only earns a warning.
fn log_level(check: &mut Check<'_>, text: &Text, given: Option<Level>) -> Level {
    let written = text.as_ref().and_then(|text| match text.get_ref().parse() {
        Ok(level) => Some(level),
        Err(e) => {
            check.notes.warn(text.span(), format!("{e}; taken as info"));
            None
        }
    });
    given.or(written).unwrap_or(Level::Info)
}

/// An address and port, or a port of loopback alone.
fn metrics(check: &mut Check<'_>, file: &File) -> Option<SocketAddr> {
    let written = file.metrics.as_ref()?;
    let text = match written.get_ref() {
        TextOrNumber::Text(text) => text.clone(),
        TextOrNumber::Number(number) => number.to_string(),
    };
    let port = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let address =
        text.parse().or_else(|_| text.parse().map(port)).ok().filter(|a: &SocketAddr| a.port() != 0);
    if address.is_none() {
        let message = format!(
            "`metrics` cannot be {text:?}; write an address of this box and a port, like \"127.0.0.1:9095\", or a \
             port alone, which is one of 127.0.0.1"
        );
        check.notes.error(written.span(), message);
    }
    if address.is_some_and(|a| !a.ip().is_loopback()) {
        check.notes.warn(
            written.span(),
            "whoever can reach this address can read the metrics: names, MACs, traffic",
        );
    }
    address
}

fn daemon(check: &mut Check<'_>, file: &File) -> Option<Daemon> {
    let mut path = |key, text, default: &str| check.path(key, text).unwrap_or_else(|| PathBuf::from(default));
    let daemon = Daemon {
        pid: path("pid", &file.pid, "/run/tap-rs.pid"),
        stdout: path("stdout", &file.stdout, "/var/log/tap-rs.out"),
        stderr: path("stderr", &file.stderr, "/var/log/tap-rs.err"),
    };
    switch(&file.is_daemon, false).then_some(daemon)
}

fn private_key(
    check: &mut Check<'_>,
    file: &File,
    overrides: &Overrides,
) -> Option<(PathBuf, Option<PublicKey>)> {
    let credential = || overrides.credential.clone().or_else(|| of_service(check.notes.path()));
    let unnamed = || file.private_key.is_none().then(credential).flatten();
    if let Some(path) = overrides.private_key.clone().or_else(unnamed) {
        let public = check.private_key(None, &path);
        return Some((path, public));
    }
    if file.private_key.is_none() {
        let make = check.folder.join("keys/my.key");
        check.notes.missing("private_key", 0..0, format!(
            "no `private_key`; run `tap-rs keygen --out {}` and write private_key = \"keys/my.key\" above the first [section]",
            shell_word(&make)
        ));
    }
    let path = check.secret_path("private_key", &file.private_key)?;
    let public = check.private_key(span(&file.private_key), &path);
    Some((path, public))
}

/// The key that systemd has handed over to the service which runs `/etc/tap-rs/NAME.toml`: for what is done beside it by
/// hand, `tap-rs invite -c NAME` for one.
fn of_service(config: &Path) -> Option<PathBuf> {
    let name = config.strip_prefix("/etc/tap-rs").ok()?.to_str()?.strip_suffix(".toml")?;
    Some(PathBuf::from(format!("/run/credentials/tap-rs@{name}.service/private_key")))
        .filter(|key| key.exists())
}
