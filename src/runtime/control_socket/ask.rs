//! The asking end: `tap-rs status` and the other commands for a running tap-rs.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::request::Refusal;
use super::{FOLDER, Request};
use crate::sys::unix::connect;

/// How long an answer may take; a reload may have a thousand NICs to open.
const PATIENCE: Duration = Duration::from_secs(5);
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// The longest document that is read: a thousand clients with a NIC each have under 1 MiB.
const MOST: u64 = 64 << 20;

/// The longest first line of a stream, in bytes.
const LONGEST_LINE: usize = 64 << 10;

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

/// What the tap-rs of this name says, or all that run here, each with its name. One of several that does not answer is told
/// of, and keeps nobody from the others' answers.
///
/// # Errors
/// One sentence for whoever asked.
pub fn ask_all(name: Option<&str>, request: &Request) -> Result<Vec<(String, Vec<u8>)>, AskError> {
    let (mut answers, mut mute) = (Vec::new(), None);
    for (name, path) in named(name)? {
        match exchange(&path, request) {
            Ok(document) => answers.push((name, document)),
            // Killed, or just ending.
            Err(e) if ENDED.contains(&e.kind()) => continue,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(AskError::Forbidden),
            Err(e) => mute = Some(AskError::Mute(name, e)),
        }
    }
    match (mute, answers.is_empty()) {
        (Some(mute), true) => return Err(mute),
        (None, true) => return Err(AskError::Nobody),
        (Some(mute), false) => drop(writeln!(io::stderr(), "{mute}")),
        (None, false) => {}
    }
    answers.into_iter().map(granted).collect()
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

/// The connection to the tap-rs of this name, over which it answers bit by bit. Its first line, without the line's end, has
/// been read and is no refusal.
///
/// # Errors
/// One sentence for whoever asked.
pub fn ask_stream(name: &str, request: &Request) -> Result<(String, UnixStream), AskError> {
    let Some((name, path)) = named(Some(name))?.pop() else { return Err(AskError::Nobody) };
    let first = || -> io::Result<(Vec<u8>, UnixStream)> {
        let mut stream = reach(&path)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&line(request)?)?;
        let (mut first, mut byte) = (Vec::new(), [0]);
        // Byte by byte: what follows is another's to read.
        while first.len() < LONGEST_LINE {
            match stream.read(&mut byte) {
                Ok(1..) if byte != *b"\n" => first.extend(byte),
                Ok(_) => break,
                // Stopped and continued, say.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(late(PATIENCE)(e)),
            }
        }
        stream.set_read_timeout(None)?;
        if first.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((first, stream)) }
    };
    match first() {
        Ok((first, stream)) => {
            let (_, first) = granted((name, first))?;
            Ok((String::from_utf8_lossy(&first).into_owned(), stream))
        }
        Err(e) if ENDED.contains(&e.kind()) => Err(AskError::Nobody),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(AskError::Forbidden),
        Err(e) => Err(AskError::Mute(name, e)),
    }
}

fn line(request: &Request) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    Ok(line)
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
    let mut stream = reach(path)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let patience = match request {
        Request::Reload { .. } => LONG_PATIENCE,
        _ => PATIENCE,
    };
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&line(request)?)?;
    let mut document = Vec::new();
    stream.take(MOST).read_to_end(&mut document).map_err(late(patience))?;
    if document.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(document) }
}

fn reach(path: &Path) -> io::Result<UnixStream> {
    connect(path).map_err(|e| in_words(e, || "too many wait for it already; restart it".to_owned()))
}

fn late(patience: Duration) -> impl Fn(io::Error) -> io::Error {
    move |e| {
        in_words(e, || format!("nothing came in {} s; it may stand still: restart it", patience.as_secs()))
    }
}

/// A socket says of a limit only that it would have to wait.
fn in_words(e: io::Error, why: impl FnOnce() -> String) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, why()),
        _ => e,
    }
}
