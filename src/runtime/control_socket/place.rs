//! The socket's place in the file system. Made by the keeper: for the tunnel there are no files to be made.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::FOLDER;
use crate::sys::hold::hold;
use crate::sys::inotify::watch_name;
use crate::sys::lock::turn;
use crate::sys::unix::connect;

/// A socket that is listened to, under a name.
pub struct Place {
    /// Whoever connects comes here.
    pub listener: UnixListener,
    /// Has something to read when the name is lost. `None`: the system has no watch to spare.
    pub watch: Option<OwnedFd>,
    /// The name, to be removed in the end.
    pub name: Name,
}

/// A name of ours, and the file that it led to when it was made.
pub struct Name {
    path: PathBuf,
    /// Held open: as long as it is, no other file gets its inode number, whatever has become of its name.
    file: File,
}

impl Name {
    /// Removes it, unless it is another process's by now.
    pub fn remove(&self) {
        let _turn = turn(Path::new(FOLDER));
        let inode = |metadata: io::Result<Metadata>| metadata.map(|m| m.ino());
        if let (Ok(ours), Ok(found)) = (inode(self.file.metadata()), inode(fs::symlink_metadata(&self.path)))
            && ours == found
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Place {
    /// `/run/tap-rs/NAME.sock`, where NAME is the config file's; with the number of `process` behind it where another
    /// process has that.
    pub fn make(config: &Path, process: u32) -> io::Result<Self> {
        Self::make_in(Path::new(FOLDER), config, process)
    }

    fn make_in(folder: &Path, config: &Path, process: u32) -> io::Result<Self> {
        let name = config.file_stem().unwrap_or_default().to_string_lossy();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // Whoever made it, by hand perhaps: from here on nobody else comes in, whatever the umask says of a new socket.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        // Several may start or end just now.
        let _turn = turn(folder);
        sweep(folder);
        let unfinished = folder.join(format!(".{name}-{process}"));
        let _ = fs::remove_file(&unfinished);
        let listener = UnixListener::bind(&unfinished)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))?;
        let path = first_free(
            &unfinished,
            &[folder.join(format!("{name}.sock")), folder.join(format!("{name}-{process}.sock"))],
        );
        fs::remove_file(&unfinished)?;
        let path = path?;
        let file = hold(&path)?;
        Ok(Self { listener, watch: watch_name(&path).ok(), name: Name { path, file } })
    }
}

/// Gives the socket the first of these names that nobody has.
fn first_free(socket: &Path, names: &[PathBuf]) -> io::Result<PathBuf> {
    for name in names {
        match fs::hard_link(socket, name) {
            Ok(()) => return Ok(name.clone()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Removes the sockets that killed processes left, and no other file.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_socket = entry.file_type().is_ok_and(|t| t.is_socket());
        let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
        if is_socket && connect(&path).is_err_and(|e| refused(&e)) {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_killed_processes_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for dead in ["gone.sock", ".gone-4194304"] {
            drop(UnixListener::bind(at(dead)).unwrap());
        }
        let _alive = UnixListener::bind(at("alive.sock")).unwrap();
        fs::write(at("office.pid"), "1").unwrap();
        let place = Place::make_in(folder.path(), Path::new("/etc/tap-rs/office.toml"), 7).unwrap();
        assert_eq!(place.name.path, at("office.sock"));
        assert_eq!(names(folder.path()), ["alive.sock", "office.pid", "office.sock"]);
    }

    #[test]
    fn nobody_else_comes_into_a_folder_that_was_open() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("tap-rs");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let place = Place::make_in(&open, Path::new("office.toml"), 7).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&open), mode(&place.name.path)), (0o700, 0o600));
    }

    #[test]
    fn a_name_that_another_has_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let make = |process| Place::make_in(folder.path(), Path::new("office.toml"), process);
        let (first, second) = (make(7).unwrap(), make(8).unwrap());
        assert_eq!(
            (first.name.path, second.name.path),
            (folder.path().join("office.sock"), folder.path().join("office-8.sock"))
        );
        assert_eq!(make(8).err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
        assert_eq!(names(folder.path()), ["office-8.sock", "office.sock"], "nothing half made is left");
    }

    /// File systems that give the lowest free inode number give the second socket the first one's.
    #[test]
    fn a_name_that_another_has_taken_over_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let make = |process| Place::make_in(folder.path(), Path::new("office.toml"), process).unwrap();
        let first = make(7);
        drop(first.listener);
        let second = make(8);
        first.name.remove();
        assert_eq!(names(folder.path()), ["office.sock"]);
        second.name.remove();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn one_that_stands_still_with_a_full_queue_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mute.sock");
        let _mute = UnixListener::bind(&path).unwrap();
        // Whoever gave up stays in the queue until somebody accepts.
        let full = (0..100_000).find_map(|_| connect(&path).err());
        assert_eq!(full.map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
        Place::make_in(folder.path(), Path::new("office.toml"), 7).unwrap();
        assert_eq!(names(folder.path()), ["mute.sock", "office.sock"]);
    }
}
