//! Waiting on many descriptors in one thread (epoll), waking that thread from another (eventfd), and lending a
//! descriptor to tokio.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, c_long, epoll_event};
use tokio::io::unix::AsyncFd;

use super::check;

/// Nanoseconds of a millisecond.
const MILLI: u32 = 1_000_000;

/// A set of watched descriptors (epoll(7)). A descriptor leaves the set by [`Epoll::delete`] or when its last
/// duplicate is closed.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// What to be told about a descriptor. Errors and hang-ups are always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(u32);

impl Interest {
    /// Errors and hang-ups only.
    pub const NONE: Self = Self(0);
    /// There is something to read; told as long as it is so.
    pub const READ: Self = Self(libc::EPOLLIN as u32);

    /// The same, told once for each change instead of as long as it is so: read until `WouldBlock`.
    #[must_use]
    pub const fn edge(self) -> Self {
        Self(self.0 | libc::EPOLLET as u32)
    }
}

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self(fd))
    }

    /// Watches `fd`; its events carry `token`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), token, interest)
    }

    /// Watches an added `fd` for something else from now on.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), token, interest)
    }

    /// Stops watching `fd`.
    pub fn delete(&self, fd: impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), 0, Interest::NONE)
    }

    /// Sleeps until something happens, at most `timeout` (`None`: for ever; before Linux 5.11 rounded up to a
    /// millisecond), and puts what happened into `events`. A signal ends the wait early, with no events.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.filled = 0;
        let n = match timeout.filter(|t| t.subsec_nanos() % MILLI != 0) {
            Some(timeout) => match self.wait_finely(events, timeout) {
                Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => self.wait_coarsely(events, Some(timeout)),
                other => other,
            },
            None => self.wait_coarsely(events, timeout),
        };
        match n {
            Ok(n) => events.filled = usize::try_from(n).unwrap_or(0),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn wait_coarsely(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<c_int> {
        let (ms, room) = (timeout.map_or(-1, millis), events.room());
        // SAFETY: the kernel writes at most `room` events into the array, which has at least as many.
        check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.room.as_mut_ptr(), room, ms) })
    }

    fn wait_finely(&self, events: &mut Events, timeout: Duration) -> io::Result<c_int> {
        // `struct __kernel_timespec`: 64 bits each on every architecture.
        let timeout = [timeout.as_secs(), timeout.subsec_nanos().into()];
        let room = events.room();
        // SAFETY: the kernel writes at most `room` events into the array, which has at least as many, and reads the
        // timeout, which outlives the call; a null signal mask is none. Through `syscall`, for musl has no binding.
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd() as c_long,
                events.room.as_mut_ptr(),
                room as c_long,
                timeout.as_ptr(),
                ptr::null::<libc::sigset_t>(),
                0 as c_long,
            )
        };
        check(c_int::try_from(n).unwrap_or(-1))
    }

    fn control(&self, op: c_int, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = epoll_event { events: interest.0, u64: token };
        // SAFETY: `event` outlives the call, which copies it; both descriptors are borrowed.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, fd.as_raw_fd(), &mut event) }).map(drop)
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Room for the events of one [`Epoll::wait`], used again for the next.
pub struct Events {
    room: Box<[epoll_event]>,
    filled: usize,
}

impl Events {
    /// Room for `n` events a wait, at least one; what does not fit comes with the next wait.
    pub fn with_capacity(n: usize) -> Self {
        Self { room: vec![epoll_event { events: 0, u64: 0 }; n.max(1)].into(), filled: 0 }
    }

    fn room(&self) -> c_int {
        c_int::try_from(self.room.len()).unwrap_or(c_int::MAX)
    }

    /// What the last wait brought.
    pub fn iter(&self) -> impl Iterator<Item = Ready> + '_ {
        self.room.iter().take(self.filled).map(|e| Ready { token: e.u64, bits: e.events })
    }
}

/// One descriptor's news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What the descriptor was added with.
    pub token: u64,
    bits: u32,
}

impl Ready {
    /// A read would not block (at an error it fails at once).
    pub fn readable(self) -> bool {
        self.has(libc::EPOLLIN)
    }

    /// An error is pending (`EPOLLERR`): on a tap, its interface is gone; on a socket, see `SO_ERROR`.
    pub fn error(self) -> bool {
        self.has(libc::EPOLLERR)
    }

    /// The other end is gone (`EPOLLHUP`).
    pub fn hang_up(self) -> bool {
        self.has(libc::EPOLLHUP)
    }

    fn has(self, bit: c_int) -> bool {
        self.bits & bit as u32 != 0
    }
}

/// A counter that wakes whoever waits on it (eventfd(2)), nonblocking.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// A new one, not notified.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        let fd =
            unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
        Ok(Self(fd.into()))
    }

    /// Makes it readable, until it is drained. Any thread may; never blocks.
    pub fn notify(&self) -> io::Result<()> {
        match (&self.0).write(&1u64.to_ne_bytes()) {
            // The counter is full: whoever waits is being woken already.
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            other => other.map(drop),
        }
    }

    /// Makes it unreadable again; true where it had been notified. Drain first, then look for the work, so
    /// that work added meanwhile notifies anew.
    pub fn drain(&self) -> io::Result<bool> {
        match (&self.0).read(&mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Another handle on the same counter.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until `fd` takes a write, at most `timeout`, rounded up to a millisecond. A signal ends the wait early.
///
/// For a socket that is full once in a while this is cheaper than an [`Epoll`] that watches it for room, for that is
/// told of every datagram that leaves.
pub fn await_room(fd: impl AsFd, timeout: Duration) -> io::Result<()> {
    let mut one = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the kernel reads and writes one `struct pollfd`, which outlives the call; the descriptor is borrowed.
    match check(unsafe { libc::poll(&mut one, 1, millis(timeout)) }) {
        Err(e) if e.kind() != ErrorKind::Interrupted => Err(e),
        _ => Ok(()),
    }
}

/// True where `fd` takes a write now, or says at once why not.
pub fn has_room(fd: impl AsFd) -> bool {
    let mut one = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: as above.
    matches!(check(unsafe { libc::poll(&mut one, 1, 0) }), Ok(1..))
}

/// Rounded up.
fn millis(t: Duration) -> c_int {
    c_int::try_from(t.as_nanos().div_ceil(MILLI.into())).unwrap_or(c_int::MAX)
}

/// Hands a descriptor to the tokio runtime of this thread, which then says when it is readable.
///
/// # Errors
/// The kernel's poller does not take it, as it does not take regular files.
pub fn await_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and stays the same file until AsyncFd drops it or gives it back.
    Ok(unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(epoll: &Epoll, timeout_ms: u64) -> Vec<u64> {
        let mut events = Events::with_capacity(4);
        epoll.wait(&mut events, Some(Duration::from_millis(timeout_ms))).unwrap();
        events.iter().filter(|e| e.readable()).map(|e| e.token).collect()
    }

    #[test]
    fn a_notified_eventfd_wakes_a_waiter_until_it_is_drained() {
        let (epoll, event) = (Epoll::new().unwrap(), EventFd::new().unwrap());
        epoll.add(&event, 7, Interest::READ).unwrap();
        assert!(tokens(&epoll, 0).is_empty());
        event.notify().unwrap();
        event.notify().unwrap();
        assert_eq!(tokens(&epoll, 1000), [7]);
        assert_eq!(tokens(&epoll, 0), [7]);
        assert!(event.drain().unwrap());
        assert!(!event.drain().unwrap());
        assert!(tokens(&epoll, 0).is_empty());
    }

    #[test]
    fn edges_are_told_once_and_deleted_descriptors_never() {
        let (epoll, event) = (Epoll::new().unwrap(), EventFd::new().unwrap());
        epoll.add(&event, 1, Interest::READ.edge()).unwrap();
        event.notify().unwrap();
        assert_eq!(tokens(&epoll, 1000), [1]);
        assert!(tokens(&epoll, 0).is_empty());
        epoll.modify(&event, 2, Interest::READ).unwrap();
        assert_eq!(tokens(&epoll, 1000), [2]);
        epoll.delete(&event).unwrap();
        assert!(tokens(&epoll, 0).is_empty());
    }

    #[test]
    fn room_is_awaited_no_longer_than_it_takes() {
        let (full, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while (&full).write(&[0; 4096]).is_ok() {}
        let before = std::time::Instant::now();
        await_room(&full, Duration::from_millis(3)).unwrap();
        assert!(before.elapsed() >= Duration::from_millis(3));
        await_room(&peer, Duration::from_secs(600)).unwrap();
    }

    #[test]
    fn a_wait_is_never_shorter_than_asked() {
        let epoll = Epoll::new().unwrap();
        let before = std::time::Instant::now();
        epoll.wait(&mut Events::with_capacity(1), Some(Duration::from_micros(1500))).unwrap();
        assert!(before.elapsed() >= Duration::from_micros(1500));
    }
}
