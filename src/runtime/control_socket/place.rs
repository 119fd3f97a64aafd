//! The socket's place in the file system. Made by the keeper: for the tunnel there are no files to be made.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::FOLDER;
use crate::sys::inotify::watch_name;
use crate::sys::lock::turn;

/// A socket that is listened to, under a name.
pub struct Place {
    /// Whoever connects comes here.
    pub listener: UnixListener,
    /// Has something to read when the name is lost. `None`: the system has no watch to spare.
    pub watch: Option<OwnedFd>,
    /// The name, to be removed in the end.
    pub name: Name,
}

/// A name of ours, and which file it led to when it was made.
pub struct Name {
    path: PathBuf,
    inode: u64,
}

impl Name {
    /// Removes it, unless it is another process's by now.
    pub fn remove(&self) {
        let _turn = turn(Path::new(FOLDER));
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Place {
    /// `/run/tap-rs/NAME.sock`, where NAME is the config file's; with the number of `process` behind it where another
    /// process has that.
    pub fn make(config: &Path, process: u32) -> io::Result<Self> {
        let name = config.file_stem().unwrap_or_default().to_string_lossy();
        let folder = Path::new(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // Several may start or end just now.
        let _turn = turn(folder);
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
            let inode = fs::symlink_metadata(&path)?.ino();
            return Ok(Self { listener, watch: watch_name(&path).ok(), name: Name { path, inode } });
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

/// Removes what killed processes left.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
        if UnixStream::connect(&path).is_err_and(|e| refused(&e)) {
            let _ = fs::remove_file(&path);
        }
    }
}
