//! The asking end: `tap-rs status` and the other commands for a running tap-rs.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::request::Refusal;
use super::{FOLDER, Request};

/// How long an answer may take; a reload may have a thousand NICs to open.
const PATIENCE: Duration = Duration::from_secs(5);
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// The longest document that is read: a thousand clients with a NIC each have under 1 MiB.
const MOST: u64 = 64 << 20;

/// What an answer of a process that is no more looks like.
const ENDED: [io::ErrorKind; 5] = [
    io::ErrorKind::ConnectionRefused,
    io::ErrorKind::ConnectionReset,
    io::ErrorKind::BrokenPipe,
    io::ErrorKind::UnexpectedEof,
    io::ErrorKind::NotFound,
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no tap-rs is running here; start one with `tap-rs -c FILE`")]
    Nobody,
    /// Nobody of that name listens.
    #[error("no tap-rs named {0} is running here; there are: {1}")]
    Unknown(String, String),
    /// Several listen, and only one can be meant.
    #[error("several tap-rs are running here; name one of {0}")]
    Several(String),
    /// The sockets are root's.
    #[error("only root may ask a running tap-rs; put `sudo` before the command")]
    Forbidden,
    /// It listens and does not answer.
    #[error("{0} does not answer: {1}")]
    Mute(String, io::Error),
    /// It will not; one sentence of its own.
    #[error("{0}: {1}")]
    Refused(String, String),
}

/// What the tap-rs of this name says, or all that run here, each with its name.
///
/// # Errors
/// One sentence for whoever asked.
pub fn ask_all(name: Option<&str>, request: &Request) -> Result<Vec<(String, Vec<u8>)>, AskError> {
    let mut answers = Vec::new();
    for (name, path) in named(name)? {
        match exchange(&path, request) {
            Ok(document) => answers.push((name, document)),
            // Killed, or just ending.
            Err(e) if ENDED.contains(&e.kind()) => continue,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(AskError::Forbidden),
            Err(e) => return Err(AskError::Mute(name, e)),
        }
    }
    if answers.is_empty() { Err(AskError::Nobody) } else { answers.into_iter().map(granted).collect() }
}

/// What one tap-rs says: the one of this name, or the only one that runs here.
///
/// # Errors
/// One sentence for whoever asked.
pub fn ask(name: Option<&str>, request: &Request) -> Result<Vec<u8>, AskError> {
    let there = named(name)?;
    let [(only, _)] = there.as_slice() else {
        let names: Vec<_> = there.into_iter().map(|(name, _)| name).collect();
        return Err(if names.is_empty() { AskError::Nobody } else { AskError::Several(names.join(", ")) });
    };
    ask_all(Some(only), request)?.pop().map(|(_, document)| document).ok_or(AskError::Nobody)
}

/// The names of those that run here.
///
/// # Errors
/// Only root may know.
pub fn names() -> Result<Vec<String>, AskError> {
    match sockets() {
        Ok(sockets) => Ok(sockets.into_iter().map(|(name, _)| name).collect()),
        Err(AskError::Nobody) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn granted((name, document): (String, Vec<u8>)) -> Result<(String, Vec<u8>), AskError> {
    match serde_json::from_slice::<Refusal>(&document) {
        Ok(refusal) => Err(AskError::Refused(name, refusal.error)),
        Err(_) => Ok((name, document)),
    }
}

/// The sockets of this name, or all; an error where others are there.
fn named(name: Option<&str>) -> Result<Vec<(String, PathBuf)>, AskError> {
    let mut sockets = sockets()?;
    let Some(wanted) = name else { return Ok(sockets) };
    let known = sockets.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
    sockets.retain(|(n, _)| n == wanted);
    if sockets.is_empty() && !known.is_empty() {
        return Err(AskError::Unknown(wanted.to_owned(), known));
    }
    Ok(sockets)
}

fn sockets() -> Result<Vec<(String, PathBuf)>, AskError> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(AskError::Forbidden),
        Err(_) => return Err(AskError::Nobody),
    };
    let name = |path: &Path| {
        let file = path.file_name()?.to_str()?;
        file.strip_suffix(".sock").map(str::to_owned)
    };
    let mut found: Vec<_> =
        entries.flatten().map(|e| e.path()).filter_map(|path| Some((name(&path)?, path))).collect();
    found.sort();
    Ok(found)
}

fn exchange(path: &Path, request: &Request) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(match request {
        Request::Status {} => PATIENCE,
        Request::Reload { .. } => LONG_PATIENCE,
    }))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut document = Vec::new();
    stream.take(MOST).read_to_end(&mut document)?;
    if document.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(document) }
}
