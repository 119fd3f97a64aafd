//! The config file: read once, checked fully, and turned into types that need no check after that.
//!
//! ```text
//! bytes → text → TOML document → raw::File (known keys, right types) → ClientConfig or ServerConfig
//! ```
//!
//! The names are those of the original tap-rs, with new ones beside them; `docs/CONFIG.md` lists them all. A run
//! over a file collects every error and every warning, each with its line and column and with what to write
//! instead. Paths are relative to the file's folder. Key files are read here to see that they can be, and
//! forgotten: whoever needs a key reads it again from its path. Nothing here opens a socket or an interface.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod address;
mod check;
mod client;
mod common;
pub mod edit;
mod hooks;
mod invite;
mod left_out;
#[cfg(feature = "full")]
pub mod migrate;
mod moment;
mod nic;
mod nicarg;
mod raw;
mod report;
mod server;
mod stack;
mod suggest;

use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

pub use address::{Host, ServerAddr};
pub use client::{ClientConfig, ClientNic, Limits, NICS_MAX, NicSource, ScriptPolicy, SuiteChoice};
pub use common::{Common, Daemon, Level};
pub use hooks::{Hook, Hooks, may_run};
pub use invite::InviteString;
pub use moment::Moment;
pub use nic::ADDRS_MAX;
pub use nicarg::{NicArg, Span};
pub use raw::KEYS;
pub use report::{Note, Place, Report, Warning};
pub use server::{CLIENT_NAME_MAX, ClientEntry, Invite, PUSH_MAX, ServerConfig, ServerNic};

use crate::keys;
use crate::types::NicName;
use check::Check;
use report::Notes;

/// Longest config file in bytes: a thousand NICs need a tenth of it, and the original's `script_content` fits.
pub const FILE_MAX: usize = 4 << 20;

/// Which side of the tunnel a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Stands on the LAN and owns the NICs there.
    Client,
    /// Answers for them from elsewhere.
    Server,
}

impl Role {
    const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What the command line says over the file. Its paths are relative to the working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Which side was asked for. `None`: the file's `run_mode` decides.
    pub role: Option<Role>,
    /// Instead of `log`.
    pub log: Option<Level>,
    /// Instead of `private_key`.
    pub private_key: Option<PathBuf>,
    /// The private key where the file names none: one that the service manager hands over.
    pub credential: Option<PathBuf>,
    /// Instead of the client's `[server] public_key`: base64 or a path.
    pub server_key: Option<String>,
    /// Instead of the client's `psk`.
    pub psk: Option<PathBuf>,
}

impl Overrides {
    /// With paths that mean the same from every working directory.
    pub fn absolute(mut self) -> Self {
        let fixed = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        self.private_key = self.private_key.map(fixed);
        self.psk = self.psk.map(fixed);
        // A key in base64 is no path.
        self.server_key = self.server_key.map(|text| match Path::new(&text).is_file() {
            true => fixed(PathBuf::from(&text)).to_string_lossy().into_owned(),
            false => text,
        });
        self
    }
}

/// A config that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// A client's.
    Client(ClientConfig),
    /// A server's.
    Server(ServerConfig),
}

impl Config {
    /// What both sides have.
    pub fn common(&self) -> &Common {
        match self {
            Self::Client(c) => &c.common,
            Self::Server(s) => &s.common,
        }
    }
}

/// Reads and checks a config file, and the key files and scripts that it names.
pub fn load(path: &Path, overrides: &Overrides) -> Result<(Config, Vec<Warning>), Report> {
    let bytes = read(path, FILE_MAX).or_else(|e| Notes::new(path, "").fail(None, unreadable(&e)))?;
    let folder = folder_of(path);
    check_bytes(path, &folder, &bytes, overrides)
}

/// The interfaces that a client's file names, whatever else is wrong with it: for whoever is to set them down when the
/// key, for one, is no longer there. None where they come from the server.
///
/// # Errors
/// The file cannot be read, or is not TOML.
pub fn client_interfaces(path: &Path) -> Result<Vec<NicName>, Report> {
    let bytes = read(path, FILE_MAX).or_else(|e| Notes::new(path, "").fail(None, unreadable(&e)))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut notes = Notes::new(path, &text);
    let Some(file) = raw::parse(&text, &mut notes) else { return notes.finish(None).map(|(names, _)| names) };
    let is_client = file.run_mode.as_ref().is_some_and(|mode| mode.get_ref().eq_ignore_ascii_case("client"));
    if !is_client || check::switch(&file.use_remote_config, false) {
        return Ok(Vec::new());
    }
    let nics = file.nics.as_ref().map(|nics| nics.get_ref().as_slice()).unwrap_or_default();
    let name = |nic: &raw::Nic| nic.ifname.as_ref()?.get_ref().parse().ok();
    Ok(nics.iter().filter_map(|nic| name(nic.get_ref())).collect())
}

/// Checks a text as if it stood in the file at `path`.
pub fn check_text(path: &Path, text: &str, overrides: &Overrides) -> Result<(Config, Vec<Warning>), Report> {
    check_bytes(path, &folder_of(path), text.as_bytes(), overrides)
}

fn unreadable(e: &io::Error) -> String {
    let hint = match e.kind() {
        ErrorKind::NotFound if cfg!(feature = "full") => "; `tap-rs init` makes a matching pair",
        ErrorKind::NotFound => "; `configs/` has examples, and docs/CONFIG.md has the smallest pair",
        ErrorKind::PermissionDenied => "; run as root, or as the owner of the file",
        ErrorKind::IsADirectory => "; name the file in it",
        _ => "",
    };
    format!("cannot read the config: {e}{hint}")
}

/// As [`load`], for the bytes of a file that would stand at `path` in `folder`.
pub fn check_bytes(
    path: &Path,
    folder: &Path,
    bytes: &[u8],
    overrides: &Overrides,
) -> Result<(Config, Vec<Warning>), Report> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let readable = bytes.get(..e.valid_up_to()).unwrap_or_default();
            let text = std::str::from_utf8(readable).unwrap_or_default();
            let message =
                "this is not UTF-8; save the file as UTF-8, or convert it: `iconv -f GB18030 -t UTF-8`";
            return Notes::new(path, text).fail(Some(text.len()), message.to_owned());
        }
    };
    let mut check = Check { notes: Notes::new(path, text), folder, files: Vec::new() };
    let file = raw::parse(text, &mut check.notes);
    let config = file.as_ref().and_then(|file| checked(&mut check, file, overrides));
    let no_keys = overrides.private_key.is_none() && overrides.server_key.is_none();
    match (check.notes.finish(config), file) {
        // Whatever else is wrong with it, this mends most of it and says the rest.
        (Err(_), Some(file)) if no_keys && is_of_the_original(&file) => {
            let migrate = if cfg!(feature = "full") { "" } else { ", of the full flavour," };
            let message = format!(
                "this is a config of the original tap-rs, which had no keys; `tap-rs migrate {} -o new.toml --keys .`{migrate} writes one \
                 for this version, makes the key, and says what it changes",
                keys::shell_word(path)
            );
            Notes::new(path, text).fail(None, message)
        }
        (done, _) => done,
    }
}

/// All that the original wanted is there, and nothing that says who may talk to whom.
fn is_of_the_original(file: &raw::File) -> bool {
    let old = file.run_mode.is_some() && file.tap_mode.is_some() && file.nics.is_some();
    let named = |s: &toml::Spanned<raw::Server>| s.get_ref().public_key.is_some();
    let new = file.private_key.is_some() || file.clients.is_some() || file.server.as_ref().is_some_and(named);
    old && file.server.is_some() && !new
}

fn checked(check: &mut Check<'_>, file: &raw::File, overrides: &Overrides) -> Option<Config> {
    if !cfg!(feature = "full") {
        left_out::refuse(check, file);
    }
    match role(check, file, overrides.role)? {
        Role::Client => client::client(check, file, overrides).map(Config::Client),
        Role::Server => server::server(check, file, overrides).map(Config::Server),
    }
}

fn role(check: &mut Check<'_>, file: &raw::File, asked: Option<Role>) -> Option<Role> {
    let written =
        check.choice("run_mode", &file.run_mode, &[("client", Role::Client), ("server", Role::Server)]);
    match (written, asked) {
        (Some(written), Some(asked)) if written != asked => {
            let message = format!(
                "this is a {written}'s file and was given to `tap-rs {asked}`; run `tap-rs {written} -c FILE`",
                written = written.word(),
                asked = asked.word()
            );
            check.notes.error(check::span(&file.run_mode), message);
            None
        }
        (None, None) if file.run_mode.is_none() => {
            check.notes.missing(
                "run_mode",
                0..0,
                "no `run_mode`; write run_mode = \"client\" or run_mode = \"server\"",
            );
            None
        }
        _ => written.or(asked),
    }
}

/// A whole file of at most `most` bytes.
fn read(path: &Path, most: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is allowed, to tell a file that is too long.
    std::fs::File::open(path)?.take(most.saturating_add(1) as u64).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(std::io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// The absolute folder of a file: a process in the background has another working directory.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

#[cfg(test)]
#[path = "config/tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests;
