//! What running a pushed script takes from the kernel: a sealed memfd, and a child cut off from everything
//! that this process has open.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::check;

/// A file in memory that holds `bytes` and that nobody can change, shrink, grow, execute or unseal any more
/// (memfd_create(2), F_ADD_SEALS in fcntl(2)). The descriptor is close-on-exec and none of the standard three.
///
/// # Errors
/// What the kernel says; `ENOSYS` before Linux 3.17.
pub fn sealed_memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd()?);
    file.write_all(bytes)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    fcntl(file.as_fd(), libc::F_ADD_SEALS, seals)?;
    // A process started with its standard streams closed would get one of their numbers, which `Command` overwrites.
    let fd = fcntl(file.as_fd(), libc::F_DUPFD_CLOEXEC, 3)?;
    // SAFETY: fcntl has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn memfd() -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // Linux 6.3 knows "never executable", which `vm.memfd_noexec = 2` insists on; older kernels answer EINVAL.
    memfd_create(flags | libc::MFD_NOEXEC_SEAL).or_else(|e| match e.raw_os_error() {
        Some(libc::EINVAL) => memfd_create(flags),
        _ => Err(e),
    })
}

fn memfd_create(flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: the name is a literal that ends in a zero byte; the call keeps no pointer.
    let fd = check(unsafe { libc::memfd_create(c"tap-rs-script".as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the child that `command` will start a session of its own (setsid(2)), with umask 077, and with no
/// descriptor but its standard three and, where there is one, `keep`, which it has under the number that it has here.
///
/// `keep` must stay open until the child has been started; were it closed, the child would not start.
pub fn confine(command: &mut Command, keep: Option<BorrowedFd<'_>>) {
    let keep = keep.map(|fd| fd.as_raw_fd());
    // SAFETY: between fork and exec only async-signal-safe calls are made: setsid, umask, close_range, fcntl,
    // getrlimit; nothing allocates, locks or panics, and the closure owns nothing but integers.
    unsafe {
        command.pre_exec(move || {
            check(libc::setsid())?;
            libc::umask(0o077);
            let Some(keep) = keep else { return close_on_exec(3, RawFd::MAX) };
            close_on_exec(3, keep.wrapping_sub(1))?;
            close_on_exec(keep.wrapping_add(1), RawFd::MAX)?;
            check(libc::fcntl(keep, libc::F_SETFD, 0)).map(drop)
        });
    }
}

/// Marks the descriptors from `first` to `last`; they are not closed at once, because `Command` reports a
/// failed exec through one of them. Only async-signal-safe calls.
fn close_on_exec(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC closes nothing and takes no pointer.
    // By its number: musl has no function for it.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    match check(marked as libc::c_int) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            close_on_exec_one_by_one(first, last)
        }
        Err(e) => Err(e),
    }
}

/// The same before Linux 5.11.
fn close_on_exec_one_by_one(first: RawFd, last: RawFd) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    let last = last.min(RawFd::try_from(limit.rlim_max).unwrap_or(RawFd::MAX));
    for fd in first..=last {
        // SAFETY: F_SETFD takes no pointer; a number that is not open gives EBADF, which is as good.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// A descriptor that becomes readable when `child` has ended, before anybody has waited for it (pidfd_open(2)).
///
/// # Errors
/// What the kernel says; `ENOSYS` before Linux 5.3.
pub fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers. The child has not been waited for, because `Child::wait` needs
    // `&mut`, or if it has, the answer is ESRCH or a descriptor of some other process, which nothing is done to.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = check(RawFd::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec), and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn fcntl(fd: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> io::Result<RawFd> {
    // SAFETY: the descriptor is open, and the commands used here take an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) })
}

/// A copy that every child inherits, were it not kept from it.
#[cfg(test)]
pub fn inheritable(fd: BorrowedFd<'_>) -> OwnedFd {
    let copy = fcntl(fd, libc::F_DUPFD, 100).unwrap();
    // SAFETY: fcntl has just made it.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Read;

    #[test]
    fn a_sealed_memfd_can_be_read_and_nothing_else() {
        let fd = sealed_memfd(b"exit 7").unwrap();
        assert!(fd.as_raw_fd() > 2);
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "exit 7");

        let mut again = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        assert_eq!(again.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(again.set_len(0).is_err() && again.set_len(100).is_err());
        assert!(fcntl(again.as_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE).is_err());
        let flags = fcntl(fd.as_fd(), libc::F_GETFD, 0).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn descriptors_are_marked_one_by_one_where_the_kernel_is_old() {
        let file = File::open("/dev/null").unwrap();
        let copy = inheritable(file.as_fd());
        assert_eq!(fcntl(copy.as_fd(), libc::F_GETFD, 0).unwrap(), 0);
        close_on_exec_one_by_one(copy.as_raw_fd(), copy.as_raw_fd()).unwrap();
        assert_eq!(fcntl(copy.as_fd(), libc::F_GETFD, 0).unwrap(), libc::FD_CLOEXEC);
    }
}
