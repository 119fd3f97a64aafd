//! The commands that answer and end: keys, `check`, `init`, `migrate`.
//!
//! Secrets go straight to the descriptor, past the standard library's buffers, which nobody wipes.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

#[cfg(feature = "full")]
pub mod ask;
#[cfg(feature = "full")]
pub mod init;
#[cfg(feature = "full")]
pub mod migrate;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cli::{DEFAULT_CONFIG, FileArgs};
use crate::config::{self, ClientConfig, Config, NicSource, Overrides, ScriptPolicy, ServerConfig};
use crate::keys::{KeyError, PresharedKey, PrivateKey};
use crate::types::{NicMode, NicSpec};

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was asked for cannot be done; one sentence, or one line for each error of a config.
    #[error("{0}")]
    Refused(String),
    /// The command line makes no sense; one sentence.
    #[error("{0}")]
    Usage(String),
    /// Nobody reads our output any more.
    #[error("standard output is closed")]
    OutputClosed,
}

impl From<KeyError> for Failure {
    fn from(e: KeyError) -> Self {
        Self::Refused(e.0)
    }
}

impl From<config::Report> for Failure {
    fn from(report: config::Report) -> Self {
        Self::Refused(report.to_string())
    }
}

/// Makes a private key, in a file or on standard output.
pub fn keygen(out: Option<&Path>) -> Result<(), Failure> {
    let key = PrivateKey::generate(&mut rand::rng());
    let Some(path) = out else {
        warn_of_readers();
        return print_line(&key.to_base64());
    };
    key.write_new(path)?;
    print_line(&key.public().to_string())
}

/// Reads a private key from standard input and prints its public key.
pub fn pubkey() -> Result<(), Failure> {
    // A key and its line end, and one byte more to tell what is too long.
    let mut buffer = Zeroizing::new([0u8; 64]);
    let input = unbuffered(io::stdin().as_fd())?;
    let used = read_full(&input, buffer.as_mut_slice())
        .map_err(|e| Failure::Refused(format!("cannot read standard input: {e}")))?;
    let text = buffer.get(..used).unwrap_or_default();
    let key = PrivateKey::from_text(text).map_err(|e| {
        Failure::Refused(format!("standard input: {e}; try `tap-rs pubkey < keys/client.key`"))
    })?;
    print_line(&key.public().to_string())
}

/// Makes a pre-shared key, in a file or on standard output.
pub fn genpsk(out: Option<&Path>) -> Result<(), Failure> {
    let key = PresharedKey::generate(&mut rand::rng());
    let Some(path) = out else {
        warn_of_readers();
        return print_line(&key.to_base64());
    };
    Ok(key.write_new(path)?)
}

/// Checks a config and says what it would run.
pub fn check(args: &FileArgs, overrides: &Overrides) -> Result<(), Failure> {
    let path = config_path(args.config.as_deref())?;
    let checked = config::load(&path, overrides);
    let warnings = checked.as_ref().map_or_else(|report| &report.warnings, |(_, warnings)| warnings);
    for warning in warnings {
        eprintln_quietly(&format!("warning: {warning}"));
    }
    let (config, _) = checked?;
    print_line(&match config {
        Config::Client(c) => client_summary(&path, &c),
        Config::Server(s) => server_summary(&path, &s),
    })
}

/// Where the configs are that go by a name alone (FHS 3.0, 3.7).
pub const CONFIGS: &str = "/etc/tap-rs";

/// The config file that was named, or else the original's default where it exists.
pub fn config_path(named: Option<&Path>) -> Result<PathBuf, Failure> {
    match named {
        Some(name) if is_bare(name) && !name.exists() => {
            Ok(Path::new(CONFIGS).join(name).with_extension("toml"))
        }
        Some(path) => Ok(path.to_owned()),
        None if Path::new(DEFAULT_CONFIG).exists() => Ok(PathBuf::from(DEFAULT_CONFIG)),
        None => {
            let make = if cfg!(feature = "full") { "; `tap-rs init` makes a matching pair" } else { "" };
            Err(Failure::Usage(format!(
                "no config file; name one with `-c FILE`, or see `tap-rs --help`{make}"
            )))
        }
    }
}

/// A name without folder and ending.
fn is_bare(name: &Path) -> bool {
    !name.as_os_str().as_encoded_bytes().iter().any(|byte| b"/.".contains(byte))
}

fn client_summary(path: &Path, c: &ClientConfig) -> String {
    let mut lines = vec![format!("{}: ok, a client of {}", path.display(), c.server)];
    match &c.nics {
        NicSource::Local(nics) => lines.extend(nics.iter().map(|n| nic_line(&n.spec, c.mode, ""))),
        NicSource::Remote { .. } => {
            lines.push(format!("  NICs from the server, at most {}", c.limits.max_nics))
        }
    }
    lines.push(match &c.script {
        ScriptPolicy::Never => "  scripts: never".to_owned(),
        ScriptPolicy::Pinned(hashes) => format!("  scripts: {} pinned", hashes.len()),
        ScriptPolicy::Any => "  scripts: any, as root".to_owned(),
    });
    lines.join("\n")
}

fn server_summary(path: &Path, s: &ServerConfig) -> String {
    let mut lines = vec![format!("{}: ok, a server on {}", path.display(), s.bind)];
    for client in &s.clients {
        let psk = if client.psk.is_some() { ", with a pre-shared key" } else { "" };
        lines.push(format!("  client {}: {}{psk}", client.name, client.says_who()));
        lines.extend(client.nics.iter().map(|n| nic_line(&n.spec, s.mode, "  ")));
        if let Some(script) = &client.script {
            lines.push(format!(
                "    script: {} bytes, script_sha256 = [\"{}\"]",
                script.len(),
                sha256(script)
            ));
        }
    }
    lines.join("\n")
}

fn nic_line(nic: &NicSpec, mode: NicMode, indent: &str) -> String {
    let addrs: Vec<String> = nic.addrs.iter().map(ToString::to_string).collect();
    format!("{indent}  {mode} {}: {} {}, MTU {}", nic.name, nic.mac, addrs.join(" "), nic.mtu)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A secret that is redirected into a file which others may read is no longer one.
fn warn_of_readers() {
    let Ok(meta) = unbuffered(io::stdout().as_fd()).and_then(|f| f.metadata().map_err(Failure::from)) else {
        return;
    };
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        eprintln_quietly(
            "warning: others may read the file that this goes to; run `chmod 600` on it, or use `--out PATH`",
        );
    }
}

/// One line on standard output.
pub fn print_line(text: &str) -> Result<(), Failure> {
    let mut output = unbuffered(io::stdout().as_fd())?;
    // One write: a reader sees the whole line or none of it.
    let mut line = Zeroizing::new(String::with_capacity(text.len().saturating_add(1)));
    line.push_str(text);
    line.push('\n');
    Ok(output.write_all(line.as_bytes())?)
}

/// Standard error may be closed too, and that is no reason to end.
pub fn eprintln_quietly(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Where a terminal's line ends.
#[cfg(feature = "full")]
pub const WIDTH: usize = 80;

/// A sentence behind a head, in lines of at most `width` characters where words allow; the others begin below its first word.
#[cfg(feature = "full")]
pub fn wrapped(head: &str, sentence: &str, width: usize) -> String {
    let indent = " ".repeat(head.chars().count().saturating_add(1));
    let mut lines = vec![head.to_owned()];
    for word in sentence.split_whitespace() {
        match lines.last_mut() {
            Some(line)
                if line.trim().is_empty()
                    || line == head
                    || line.chars().count().saturating_add(word.chars().count()) < width =>
            {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}

fn unbuffered(fd: BorrowedFd<'_>) -> Result<File, Failure> {
    Ok(File::from(fd.try_clone_to_owned()?))
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Refused(format!("cannot write to standard output: {e}")),
        }
    }
}

fn read_full(mut input: &File, mut room: &mut [u8]) -> io::Result<usize> {
    let size = room.len();
    while !room.is_empty() {
        match input.read(room) {
            Ok(0) => break,
            Ok(n) => room = room.split_at_mut_checked(n).map_or(&mut [], |(_, rest)| rest),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(size.saturating_sub(room.len()))
}
