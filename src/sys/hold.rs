//! Holding a file of any kind open, without opening what it stands for (`O_PATH`, open(2)).

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::path::Path;

use super::{c_path, check};

/// The file that `path` itself leads to, be it a socket or a link: it can be looked at, not read. While it is held, no
/// other file gets its inode number, whatever becomes of its names.
///
/// The standard library cannot: with musl it takes `O_PATH` for a way of access, and leaves it out.
pub fn hold(path: &Path) -> io::Result<File> {
    let name = c_path(path)?;
    // SAFETY: the kernel reads a string that ends with a zero and outlives the call.
    let fd = check(unsafe { libc::open(name.as_ptr(), libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just made it, and nothing else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_is_held_and_its_number_stays_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let inode = || fs::symlink_metadata(&path).unwrap().ino();
        drop(UnixListener::bind(&path).unwrap());
        let held = hold(&path).unwrap();
        assert_eq!(held.metadata().unwrap().ino(), inode());
        fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        assert_ne!(held.metadata().unwrap().ino(), inode());
    }
}
