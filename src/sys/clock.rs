//! The protocol's clock: monotonic, and runs on while the machine sleeps (docs/PROTOCOL.md, "Clocks").
//!
//! [`Instant`] stands still in suspend (`CLOCK_MONOTONIC`). [`now`] is that plus the time asleep, which
//! [`notice_sleep`] takes from `CLOCK_BOOTTIME` when [`ClockChanges`] says that there may be something to notice: a
//! read costs no more than the plain clock does, and two reads never contradict each other by what passes between
//! two system calls.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::check;

/// A shorter sleep is none: it may as well be what passed between two looks at the clocks.
const SHORTEST: Duration = Duration::from_millis(500);

/// Nanoseconds asleep that [`now`] counts.
static ASLEEP: AtomicU64 = AtomicU64::new(0);

/// The time for state machines and their timers.
pub fn now() -> Instant {
    Instant::now() + asleep()
}

/// When the plain clock will show what [`now`] does at `at`: for timers of others, which go by that.
pub fn plain(at: Instant) -> Instant {
    at.checked_sub(asleep()).unwrap_or(at)
}

/// Looks whether the machine has slept since the last look, and has [`now`] count it. Returns how long it was.
pub fn notice_sleep() -> Option<Duration> {
    let (monotonic, boot) = (read(libc::CLOCK_MONOTONIC), read(libc::CLOCK_BOOTTIME));
    note(&ASLEEP, boot.saturating_sub(monotonic))
}

fn asleep() -> Duration {
    Duration::from_nanos(ASLEEP.load(Relaxed))
}

/// All of the time asleep is `total` by now.
fn note(known: &AtomicU64, total: Duration) -> Option<Duration> {
    let more = total.saturating_sub(Duration::from_nanos(known.load(Relaxed)));
    if more < SHORTEST {
        return None;
    }
    known.store(u64::try_from(total.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    Some(more)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`. Both clocks are older than any kernel that has what else we need.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Becomes readable when somebody has set the wall clock, which the kernel does itself after a sleep
/// (`TFD_TIMER_CANCEL_ON_SET`, timerfd_create(2)).
#[derive(Debug)]
pub struct ClockChanges(OwnedFd);

impl ClockChanges {
    /// From now on.
    pub fn watch() -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_REALTIME, flags))?) };
        #[allow(deprecated, reason = "libc says so of musl's, because it will have 64 bits")]
        let never = libc::timespec { tv_sec: libc::time_t::MAX / 2, tv_nsec: 0 };
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let when = libc::itimerspec { it_interval: none, it_value: never };
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        // SAFETY: the kernel reads one `itimerspec`, and is given no place to write the old one to.
        check(unsafe {
            libc::timerfd_settime(fd.as_raw_fd(), flags, &raw const when, std::ptr::null_mut())
        })?;
        Ok(Self(fd))
    }

    /// Takes the news in, so that the descriptor is no longer readable.
    pub fn taken(&self) {
        let mut count = [0u8; 8];
        // It is `ECANCELED` where there was something, `EAGAIN` where not.
        // SAFETY: the kernel writes at most eight bytes into `count`.
        let _ = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for ClockChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_counted_once_and_jitter_never() {
        let known = AtomicU64::new(0);
        assert_eq!(note(&known, Duration::from_millis(499)), None);
        assert_eq!(note(&known, Duration::from_secs(3600)), Some(Duration::from_secs(3600)));
        assert_eq!(note(&known, Duration::from_millis(3_600_400)), None);
        assert_eq!(note(&known, Duration::from_secs(3599)), None, "time does not go back");
        let ten_years = Duration::from_secs(10 * 365 * 86_400);
        assert_eq!(note(&known, ten_years), Some(ten_years - Duration::from_secs(3600)));
        assert!(note(&known, Duration::MAX).is_some());
    }

    #[test]
    fn nothing_has_changed_where_nobody_has_set_the_clock() {
        use crate::sys::poll::{Epoll, Events, Interest};
        let changes = ClockChanges::watch().unwrap();
        let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(1));
        epoll.add(&changes, 0, Interest::READ).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.iter().count(), 0);
        changes.taken();
        let before = now();
        assert!(plain(before) <= Instant::now() && now() >= before);
    }
}
