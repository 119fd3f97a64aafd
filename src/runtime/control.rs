//! What both control loops wait for besides the workers: signals, link events, and a time.

use std::io;
use std::time::Instant;

use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::nic::events::{Event, Events};

/// What a person or a supervisor wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGINT or SIGTERM.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals that mean something to us.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on these signals are ours.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next wish.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}

/// Link events, waited for.
pub struct LinkEvents(AsyncFd<Events>);

impl LinkEvents {
    /// Subscribes in this thread's network namespace.
    pub fn new() -> io::Result<Self> {
        Ok(Self(AsyncFd::register(Events::open()?)?))
    }

    /// What has happened since the last time, at least one thing.
    pub async fn next(&mut self) -> Vec<Event> {
        loop {
            let Ok(mut ready) = self.0.readable_mut().await else {
                // The reactor is gone, and with it whoever waits.
                return std::future::pending().await;
            };
            let mut events = Vec::new();
            while let Ok(Some(event)) = ready.get_inner_mut().poll() {
                events.push(event);
            }
            ready.clear_ready();
            if !events.is_empty() {
                return events;
            }
        }
    }
}

/// Waits until `at`; for ever where that is `None`.
pub async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
