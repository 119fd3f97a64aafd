//! The socket's place in the file system. Made by the keeper: for the tunnel there are no files to be made.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::FOLDER;
use crate::sys::inotify::watch_name;

/// A socket that is listened to, under a name.
pub struct Place {
    /// Whoever connects comes here.
    pub listener: UnixListener,
    /// Has something to read when the name is lost. `None`: the system has no watch to spare.
    pub watch: Option<OwnedFd>,
    /// The name, to be removed in the end.
    pub path: PathBuf,
}

impl Place {
    /// `/run/tap-rs/NAME.sock`, where NAME is the config file's; with the number of `process` behind it where another
    /// process has that.
    pub fn make(config: &Path, process: u32) -> io::Result<Self> {
        let name = config.file_stem().unwrap_or_default().to_string_lossy();
        let folder = Path::new(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        sweep(folder);
        for file in [format!("{name}.sock"), format!("{name}-{process}.sock")] {
            let path = folder.join(file);
            if path.exists() {
                continue;
            }
            // Bound where nobody looks and then moved: nobody can connect before only root can.
            let unfinished = folder.join(format!(".{name}-{process}"));
            let _ = fs::remove_file(&unfinished);
            let listener = UnixListener::bind(&unfinished)?;
            listener.set_nonblocking(true)?;
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))?;
            fs::rename(&unfinished, &path)?;
            return Ok(Self { listener, watch: watch_name(&path).ok(), path });
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

/// Removes what killed processes left. Best effort: another process may do the same just now.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
        if UnixStream::connect(&path).is_err_and(|e| refused(&e)) {
            let _ = fs::remove_file(&path);
        }
    }
}
