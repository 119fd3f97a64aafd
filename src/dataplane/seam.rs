//! The two seams between control's thread and a worker's.
//!
//! ```text
//! control ── Orders::send ── queue ── bell ──► epoll wakes ── Inbox::take_all ── worker
//! control ◄── bounded queue ◄── tell (a peer's), tell_of_stranger (anybody's: half of the queue) ── worker
//! ```
//!
//! A command is queued before the bell is rung, and the bell is silenced before the queue is looked at: whatever is
//! queued after the last look rings anew. A worker never waits for control, so that control may wait for a worker.
//!
//! What queues and bell are made of stands in [`super::sync`]; `tests/seams.rs` puts models in their place and runs
//! this very file through every order in which the threads can take their steps.

use std::io;
use std::ops::ControlFlow;

use super::sync::{EventFd, Receiver, Sender, SyncSender, TryRecvError, TrySendError, sync_channel};

/// Control's end: what is sent here is done by the worker, in order.
pub struct Orders<T> {
    queue: SyncSender<T>,
    bell: EventFd,
}

/// The worker's end.
pub struct Inbox<T> {
    queue: Receiver<T>,
    bell: EventFd,
}

/// The worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data-plane worker has ended")]
pub struct WorkerGone;

/// Both ends, with room for `waiting` commands.
pub fn orders<T>(waiting: usize) -> io::Result<(Orders<T>, Inbox<T>)> {
    let (sender, receiver) = sync_channel(waiting);
    let bell = EventFd::new()?;
    let inbox = Inbox { queue: receiver, bell: bell.try_clone()? };
    Ok((Orders { queue: sender, bell }, inbox))
}

impl<T> Orders<T> {
    /// Has the worker do something, after everything sent before. Waits while the queue is full.
    pub fn send(&self, command: T) -> Result<(), WorkerGone> {
        match self.queue.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command)) => {
                // The worker never waits for us, so it empties the queue as soon as it hears of it.
                let _ = self.bell.notify();
                self.queue.send(command).map_err(|_| WorkerGone)?;
            }
            Err(TrySendError::Disconnected(_)) => return Err(WorkerGone),
        }
        self.bell.notify().map_err(|_| WorkerGone)
    }
}

impl<T> Inbox<T> {
    /// What is readable while there may be commands.
    pub fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// Silences the bell and hands every command to `each`, until that breaks off or control is gone.
    pub fn take_all(&self, mut each: impl FnMut(T) -> ControlFlow<()>) -> io::Result<ControlFlow<()>> {
        self.bell.drain()?;
        loop {
            match self.queue.try_recv() {
                Ok(command) => {
                    if each(command).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Err(TryRecvError::Disconnected) => return Ok(ControlFlow::Break(())),
                Err(TryRecvError::Empty) => return Ok(ControlFlow::Continue(())),
            }
        }
    }
}

/// Queues a notice if there is room now.
pub fn tell<T>(notices: &Sender<T>, notice: T) -> bool {
    notices.try_reserve().map(|place| place.send(notice)).is_ok()
}

/// The same for what somebody has sent who need not be anybody's peer: it finds room while no more than half of the
/// queue is in use, so that a flood of it never keeps a session's own word out. The place is taken before the queue is
/// measured: of workers that do this at once none sees less in use than there is.
pub fn tell_of_stranger<T>(notices: &Sender<T>, notice: T) -> bool {
    let Ok(place) = notices.try_reserve() else { return false };
    let used = notices.max_capacity().saturating_sub(notices.capacity());
    if used.saturating_mul(2) > notices.max_capacity() {
        return false;
    }
    place.send(notice);
    true
}
