//! Hearing of what becomes of a file (inotify(7)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::{c_path, check};

/// A descriptor with something to read once the file has lost its name: it was removed, moved, or replaced. Also when
/// its attributes have changed.
pub fn watch_name(path: &Path) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
    // SAFETY: the kernel has just made it, and nothing else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // A removed name is a changed number of links, which is an attribute.
    let events = libc::IN_ATTRIB | libc::IN_MOVE_SELF | libc::IN_DONT_FOLLOW;
    // SAFETY: the kernel reads a string that ends with a zero and outlives the call; the descriptor is ours.
    check(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), name.as_ptr(), events) })?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixListener;

    fn has_told(watch: &OwnedFd) -> bool {
        File::from(watch.try_clone().unwrap()).read(&mut [0; 256]).is_ok()
    }

    #[test]
    fn a_lost_name_is_told_while_the_socket_is_still_open() {
        let folder = tempfile::tempdir().unwrap();
        let name = |n: &str| folder.path().join(n);
        let lose: [&dyn Fn(&Path); 3] = [
            &|path| fs::remove_file(path).unwrap(),
            &|path| fs::rename(path, name("elsewhere")).unwrap(),
            &|path| {
                fs::write(name("other"), "").unwrap();
                fs::rename(name("other"), path).unwrap();
            },
        ];
        for (n, lose) in lose.into_iter().enumerate() {
            let path = name(&n.to_string());
            let _socket = UnixListener::bind(&path).unwrap();
            let watch = watch_name(&path).unwrap();
            fs::write(name("unrelated"), "").unwrap();
            fs::remove_file(name("unrelated")).unwrap();
            assert!(!has_told(&watch));
            lose(&path);
            assert!(has_told(&watch), "{n}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_watched() {
        assert_eq!(watch_name(Path::new("/nonexistent")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
