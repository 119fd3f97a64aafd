//! Network namespaces of a thread (network_namespaces(7)).
//!
//! A socket stays in the namespace that it was made in, so a thread enters, makes what it needs, and ends;
//! the sockets may then be used from anywhere. Nothing here changes the process as a whole.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Moves the calling thread, and it alone, into a namespace, given as an open `/run/netns/NAME` or
/// `/proc/PID/ns/net`.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` if the file is no network namespace.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    // SAFETY: setns takes an open descriptor and a flag; CLONE_NEWNET concerns the calling thread only.
    check(unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Moves the calling thread, and it alone, into a new namespace, and returns a handle to it. The namespace
/// lasts as long as a handle, a thread, a process or a socket is in it; its virtual interfaces go with it.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn create() -> io::Result<File> {
    // SAFETY: unshare takes a flag; CLONE_NEWNET concerns the calling thread only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    current()
}

/// The calling thread's namespace.
///
/// # Errors
/// `/proc` is not there.
pub fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Gives the calling thread, and what it starts, a `/sys` that shows the interfaces of its own network namespace:
/// a mount namespace that follows the host's but is not seen by it, with sysfs mounted anew.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn remount_sysfs() -> io::Result<()> {
    let (none, sysfs, root, sys) = (c"none", c"sysfs", c"/", c"/sys");
    // SAFETY: unshare takes a flag; CLONE_NEWNS gives the calling thread its own root and directory, and concerns
    // no other thread. The texts are literals that end in a zero byte; mount keeps no pointer.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let following = libc::MS_SLAVE | libc::MS_REC;
        check(libc::mount(none.as_ptr(), root.as_ptr(), std::ptr::null(), following, std::ptr::null()))?;
        check(libc::mount(sysfs.as_ptr(), sys.as_ptr(), sysfs.as_ptr(), 0, std::ptr::null()))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
