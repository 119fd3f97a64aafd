//! What both control loops wait for besides the workers: signals, link events, the machine's waking up, and a time.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Moment;
use crate::nic::events::{Event, Events};
use crate::sys::clock::{self, ClockChanges};
use crate::sys::limits::step_back;
use crate::sys::poll::await_readable;

/// How much nicer than the workers the control loop is.
const NICER: u8 = 5;

/// Forwarding comes before handshakes, reloads and answers, where there is not enough of the processor for all of them.
/// Called by the control loop's thread, once it has started the workers.
pub fn let_workers_first() {
    step_back(NICER);
}

/// What a person or a supervisor wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGINT or SIGTERM.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Rekey,
}

/// The signals that mean something to us.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    user: Signal,
}

impl Signals {
    /// From now on these signals are ours.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next wish.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.hang_up.recv() => Wish::Reload,
            _ = self.user.recv() => Wish::Rekey,
        }
    }
}

/// Link events, waited for.
pub struct LinkEvents {
    events: Events,
    /// The same socket, as the reactor knows it.
    ready: AsyncFd<OwnedFd>,
}

impl LinkEvents {
    /// Subscribes in this thread's network namespace.
    pub fn new() -> io::Result<Self> {
        Self::of(Events::open()?)
    }

    /// Of another namespace.
    pub fn of(events: Events) -> io::Result<Self> {
        let ready = await_readable(events.as_fd().try_clone_to_owned()?)?;
        Ok(Self { events, ready })
    }

    /// What has happened since the last time, at least one thing.
    pub async fn next(&mut self) -> Vec<Event> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The same, as a step of a future.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Event>> {
        loop {
            let Ok(mut ready) = ready!(self.ready.poll_read_ready(cx)) else {
                // The reactor is gone, and with it whoever waits.
                return Poll::Pending;
            };
            let mut events = Vec::new();
            while let Ok(Some(event)) = self.events.poll() {
                events.push(event);
            }
            ready.clear_ready();
            if !events.is_empty() {
                return Poll::Ready(events);
            }
        }
    }
}

/// Sleeps of the machine, waited for.
pub struct Sleeps {
    changes: ClockChanges,
    /// The same timer, as the reactor knows it.
    ready: AsyncFd<OwnedFd>,
}

impl Sleeps {
    /// From now on.
    pub fn new() -> io::Result<Self> {
        clock::notice_sleep();
        let changes = ClockChanges::watch()?;
        let ready = await_readable(changes.as_fd().try_clone_to_owned()?)?;
        Ok(Self { changes, ready })
    }

    /// How long the machine has slept, once it is awake again. [`clock::now`] has been put forward by as much.
    pub async fn next(&mut self) -> Duration {
        loop {
            let Ok(mut ready) = self.ready.readable().await else {
                // The reactor is gone, and with it whoever waits.
                return std::future::pending().await;
            };
            self.changes.taken();
            ready.clear_ready();
            if let Some(slept) = clock::notice_sleep() {
                return slept;
            }
        }
    }
}

/// The time of day, which a config's moments are compared with.
pub fn wall_clock() -> Moment {
    Moment(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()))
}

/// A future that is polled across turns of a loop.
pub type Waiting<T> = Pin<Box<dyn Future<Output = T>>>;

/// Waits until [`clock::now`] shows `at`; for ever where that is `None`.
pub async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(clock::plain(at).into()).await,
        None => std::future::pending().await,
    }
}
