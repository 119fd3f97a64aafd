//! The asking end: `tap-rs status`.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::socket::FOLDER;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no tap-rs is running here; start one with `tap-rs -c FILE`")]
    Nobody,
    /// Nobody of that name listens.
    #[error("no tap-rs named {0} is running here; there are: {1}")]
    Unknown(String, String),
    /// The sockets are root's.
    #[error("only root may ask; run `sudo tap-rs status`")]
    Forbidden,
    /// It listens and does not answer.
    #[error("{0} does not answer: {1}")]
    Mute(String, io::Error),
}

/// The documents of the tap-rs of this name, or of all that run here, each with its name.
///
/// # Errors
/// One sentence for whoever asked.
pub fn ask(name: Option<&str>) -> Result<Vec<(String, Vec<u8>)>, AskError> {
    let mut sockets = sockets()?;
    if let Some(wanted) = name {
        let known = sockets.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
        sockets.retain(|(n, _)| n == wanted);
        if sockets.is_empty() && !known.is_empty() {
            return Err(AskError::Unknown(wanted.to_owned(), known));
        }
    }
    let mut answers = Vec::new();
    for (name, path) in sockets {
        match read(&path) {
            Ok(document) => answers.push((name, document)),
            // Killed, or just ending.
            Err(e) if ENDED.contains(&e.kind()) => {}
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(AskError::Forbidden),
            Err(e) => return Err(AskError::Mute(name, e)),
        }
    }
    if answers.is_empty() { Err(AskError::Nobody) } else { Ok(answers) }
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

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut document = Vec::new();
    stream.take(MOST).read_to_end(&mut document)?;
    if document.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(document) }
}
