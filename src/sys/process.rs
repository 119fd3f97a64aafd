//! What a process does to itself and its children: namespaces and mounts, daemons, process attributes.

use std::ffi::{CStr, c_int, c_uint};
use std::io::{self, ErrorKind, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use super::{c_path, check};

/// Moves the calling thread, and what it starts from now on, into a new network namespace. It lives as long as a
/// thread, a process, a descriptor or a mount holds it. Needs `CAP_SYS_ADMIN`.
pub fn new_netns() -> io::Result<()> {
    // SAFETY: no pointers; only the calling thread changes its namespace.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into the network namespace that `netns` is open on (`/proc/self/ns/net`,
/// `/run/netns/NAME`). Needs `CAP_SYS_ADMIN`.
pub fn enter_netns(netns: impl AsFd) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is borrowed.
    check(unsafe { libc::setns(netns.as_fd().as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling process, which has one thread, into the mount namespace that `mounts` is open on
/// (`/proc/1/ns/mnt`); its working directory is then the root. Needs `CAP_SYS_ADMIN` and `CAP_SYS_CHROOT`.
pub fn enter_mounts(mounts: impl AsFd) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is borrowed.
    check(unsafe { libc::setns(mounts.as_fd().as_raw_fd(), libc::CLONE_NEWNS) }).map(drop)
}

/// Gives the calling thread mounts of its own: what it mounts from now on, nobody else sees. It no longer
/// shares its working directory and umask with the other threads. Needs `CAP_SYS_ADMIN`.
pub fn new_mounts() -> io::Result<()> {
    // SAFETY: no pointers; only the calling thread changes its namespace.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) })?;
    mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE)
}

/// Mounts on the directory `at` a `/sys` that shows the calling thread's network namespace; see [`new_mounts`].
pub fn mount_sysfs(at: &Path) -> io::Result<()> {
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(c"sysfs", &c_path(at)?, Some(c"sysfs"), flags)
}

/// Shows what is at `source` also at `at`.
pub fn bind_mount(source: &Path, at: &Path) -> io::Result<()> {
    mount(&c_path(source)?, &c_path(at)?, None, libc::MS_BIND | libc::MS_REC)
}

/// Has what is mounted below the mount `at` come and go wherever that is shown. `EINVAL`: it is not a mount.
pub fn share_mounts(at: &Path) -> io::Result<()> {
    mount(c"none", &c_path(at)?, None, libc::MS_SHARED | libc::MS_REC)
}

/// Takes the topmost mount off `at`.
pub fn unmount(at: &Path) -> io::Result<()> {
    let at = c_path(at)?;
    // SAFETY: the string ends in zero and outlives the call.
    check(unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

fn mount(source: &CStr, at: &CStr, kind: Option<&CStr>, flags: libc::c_ulong) -> io::Result<()> {
    let kind = kind.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: the strings end in zero and outlive the call; this kernel interface allows a null type and data.
    check(unsafe { libc::mount(source.as_ptr(), at.as_ptr(), kind, flags, ptr::null()) }).map(drop)
}

/// Makes a character device node that only its owner may open. Fails where `path` exists. Needs `CAP_MKNOD`.
pub fn make_char_device(path: &Path, major: c_uint, minor: c_uint) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the string ends in zero and outlives the call.
    check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(major, minor)) }).map(drop)
}

/// Has the child of `command` killed when the thread that starts it ends, however that comes about.
pub fn die_with_parent(command: &mut Command) {
    let arrange = || {
        // SAFETY: no pointers.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) }).map(drop)
    };
    // SAFETY: the closure makes one system call and allocates nothing: fit for the child of a threaded process.
    unsafe { command.pre_exec(arrange) };
}

/// Sends `signal` to every process of the group that the child with this id leads
/// (`CommandExt::process_group(0)`). Only for a child that has not been waited for: its id may be another's then.
pub fn signal_group(leader: u32, signal: c_int) -> io::Result<()> {
    let group = match c_int::try_from(leader) {
        Ok(group) if group > 1 => group,
        _ => return Err(ErrorKind::InvalidInput.into()),
    };
    // SAFETY: no pointers.
    check(unsafe { libc::killpg(group, signal) }).map(drop)
}

/// Bars debuggers of the same user and core dumps from this process's memory.
pub fn keep_memory_private() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0 as libc::c_ulong) }).map(drop)
}

/// True for root.
pub fn is_root() -> bool {
    // SAFETY: no pointers; never fails.
    unsafe { libc::geteuid() == 0 }
}

/// True where the process with this id runs a program of our name. An id from a file may have been given to another
/// program since.
pub fn is_like_us(pid: u32) -> bool {
    name_of(std::process::id()).is_some_and(|ours| is_named(pid, &ours))
}

/// What process lists show for a process; none where there is no such process.
pub fn name_of(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

/// True where a process with this id runs under this name, as [`name_of`] gives it.
pub fn is_named(pid: u32, name: &str) -> bool {
    // A process that has ended keeps its name until it is waited for.
    let ended = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    };
    name_of(pid).is_some_and(|theirs| theirs == name) && !ended()
}

/// Lives in a daemon until it works, while the command that started it waits in the foreground.
#[must_use = "the foreground waits until it is told"]
#[derive(Debug)]
pub struct Foreground(PipeWriter);

impl Foreground {
    /// Lets the foreground command end with this exit status.
    pub fn release(mut self, status: u8) -> io::Result<()> {
        self.0.write_all(&[status])
    }
}

/// Goes on in the background, in a session of its own. The process that called it stays until
/// [`Foreground::release`] and ends with that status, or with 1 where the daemon ends without. Working
/// directory, umask and open descriptors stay as they are.
///
/// To be called while the process has one thread; refused otherwise.
pub fn daemonize() -> io::Result<Foreground> {
    alone("become a daemon")?;
    let (mut status, foreground) = io::pipe()?;
    if fork()? {
        drop(foreground);
        let mut byte = [1];
        let _ = status.read_exact(&mut byte);
        exit_now(c_int::from(u8::from_ne_bytes(byte)));
    }
    // SAFETY: no pointers.
    check(unsafe { libc::setsid() })?;
    // A session's leader would get a terminal by opening one; its child cannot.
    if fork()? {
        exit_now(0);
    }
    Ok(Foreground(foreground))
}

/// A copy of this process that was started with [`split`].
#[derive(Debug)]
pub struct Copy(libc::pid_t);

impl Copy {
    /// Waits for its end.
    pub fn wait(&self) {
        let mut status = 0;
        loop {
            // SAFETY: the kernel writes one `int`.
            match check(unsafe { libc::waitpid(self.0, &mut status, 0) }) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Also where it is nobody's to wait for.
                _ => return,
            }
        }
    }
}

/// Goes on in two processes: `Some` in the one that was there before, `None` in its copy, which ends with [`leave`].
///
/// To be called while the process has one thread; refused otherwise.
pub fn split() -> io::Result<Option<Copy>> {
    alone("fork")?;
    // SAFETY: `alone` has made sure that there is one thread, so that no lock stays taken in the child.
    match check(unsafe { libc::fork() })? {
        0 => Ok(None),
        child => Ok(Some(Copy(child))),
    }
}

/// The process that started this one.
pub fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

/// What process lists show for the calling thread; 15 bytes of it.
pub fn set_name(name: &CStr) {
    // SAFETY: the string ends in zero and outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Ends this process at once, without destructors and exit handlers.
pub fn leave(status: u8) -> ! {
    exit_now(status.into())
}

/// Leaves the group and the terminal that this process was started in, and lives on when those are told to stop; its
/// children need not be waited for.
pub fn stand_apart() {
    let ignored = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGPIPE, libc::SIGCHLD];
    // SAFETY: no pointers. `setsid` fails where there is nothing to do.
    unsafe {
        libc::setsid();
        for signal in ignored {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// Takes signals as a process does that was just started; undoes what [`stand_apart`] did to them.
pub fn take_signals_again() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGCHLD] {
        // SAFETY: no pointers to functions of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Closes every descriptor but the standard three and `keep`.
///
/// For a copy of a process only: whoever owns those descriptors must not be dropped any more.
pub fn close_others(keep: BorrowedFd<'_>) {
    let keep = c_uint::try_from(keep.as_raw_fd()).unwrap_or(2);
    let close = |from: c_uint, to: c_uint| {
        if from <= to {
            // SAFETY: no pointers. The caller gives the descriptors up. Kernels before 5.9 leave them open.
            // By its number: musl has no function for it.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    };
    close(3, keep.saturating_sub(1));
    close(keep.saturating_add(1).max(3), c_uint::MAX);
}

/// Becomes nobody, for good, with no privileges and no way back to any. Does nothing where this is not root.
pub fn become_nobody() {
    const NOBODY: c_uint = 65_534;
    // SAFETY: no pointers but an empty list. One thread, so that all of the process changes.
    unsafe {
        libc::setgroups(0, ptr::null());
        libc::setresgid(NOBODY, NOBODY, NOBODY);
        libc::setresuid(NOBODY, NOBODY, NOBODY);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0);
    }
}

fn alone(what: &str) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() == 1 {
        return Ok(());
    }
    Err(io::Error::other(format!("a process with several threads cannot {what}")))
}

/// True in the parent.
fn fork() -> io::Result<bool> {
    // SAFETY: `daemonize` has made sure that there is one thread, so that no lock stays taken in the child.
    Ok(check(unsafe { libc::fork() })? != 0)
}

/// Ends the process without destructors and exit handlers, which are the child's.
fn exit_now(status: c_int) -> ! {
    // SAFETY: no pointers; does not return.
    unsafe { libc::_exit(status) }
}

/// Puts `file` in the place of standard input (0), output (1) or error (2).
pub fn replace_stdio(file: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if !(0..=2).contains(&number) {
        return Err(ErrorKind::InvalidInput.into());
    }
    // SAFETY: no pointers; std treats these three numbers as always open, and `dup2` never leaves one closed.
    check(unsafe { libc::dup2(file.as_raw_fd(), number) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let start = || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "sleep 60"]);
            die_with_parent(&mut command);
            command.spawn().unwrap()
        };
        let mut child = std::thread::spawn(start).join().unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_process_is_like_us_while_it_runs_under_our_name() {
        assert!(is_like_us(std::process::id()) && !is_like_us(u32::MAX));
        let script = "read x; read name </proc/$PPID/comm; printf %s \"$name\" >/proc/$$/comm; echo; read x";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        assert!(!is_like_us(child.id()), "a shell");
        to.write_all(b"go\n").unwrap();
        from.read_exact(&mut [0]).unwrap();
        assert!(is_like_us(child.id()));
        drop(to);
        assert_eq!(from.read(&mut [0]).unwrap(), 0, "it ends");
        let deadline = Instant::now() + Duration::from_secs(30);
        while is_like_us(child.id()) {
            assert!(Instant::now() < deadline, "it only waits to be waited for");
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_group_dies_with_its_leader() {
        let mut child =
            Command::new("/bin/sh").args(["-c", "sleep 60 & wait"]).process_group(0).spawn().unwrap();
        signal_group(child.id(), libc::SIGKILL).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(signal_group(0, libc::SIGKILL).is_err() && signal_group(1, libc::SIGKILL).is_err());
    }

    #[test]
    fn a_threaded_process_does_not_become_a_daemon() {
        // The test runner has threads.
        assert!(daemonize().is_err());
    }
}
