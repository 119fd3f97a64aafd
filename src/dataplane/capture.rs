//! Captures: copies of a NIC's frames as they pass, for whoever looks.
//!
//! ```text
//! worker ── Capture::take ──try_send──► queue: bounded in frames and in bytes ──► Captured::next ── control socket
//! ```
//!
//! A NIC without captures costs one branch a frame: nothing is copied, no clock is read. With one, the worker still never
//! waits: what the queue has no room for is counted and forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::metrics::DropReason;

/// Captures of one NIC at a time; another one is refused.
pub const MOST: usize = 4;

/// Frames that may wait to be read.
const FRAMES: usize = 1024;

/// Bytes of frames that may wait to be read, over one capture.
const BYTES: usize = 1 << 20;

/// Which way a frame went, as the projected NIC sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client's LAN to the projected host.
    In,
    /// From the projected host to the client's LAN.
    Out,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It went on.
    Passed,
    /// It went no further.
    Dropped(DropReason),
    /// The client answered it itself.
    Answered,
    /// It is a marked frame of `tap-rs doctor`.
    Probe,
}

/// A frame, or its front.
#[derive(Debug)]
pub struct Copied {
    /// When it was read from the NIC, or written to it.
    pub at: SystemTime,
    /// Which way it went.
    pub way: Way,
    /// What became of it.
    pub fate: Fate,
    /// Its length in bytes.
    pub total: usize,
    /// Payload bytes of the packets that it is cut into; 0 for a frame that is no super-frame.
    pub gso: u16,
    /// Its bytes, as many as were asked for.
    pub bytes: Box<[u8]>,
}

/// The worker's end.
#[derive(Clone, Debug)]
pub struct Capture {
    queue: mpsc::Sender<Copied>,
    room: Arc<Room>,
    snaplen: usize,
}

/// The reader's end. Dropping it ends the capture.
#[derive(Debug)]
pub struct Captured {
    queue: mpsc::Receiver<Copied>,
    room: Arc<Room>,
}

#[derive(Debug, Default)]
struct Room {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

/// A capture of the first `snaplen` bytes of each frame.
pub fn channel(snaplen: usize) -> (Capture, Captured) {
    let (sender, receiver) = mpsc::channel(FRAMES);
    let room = Arc::<Room>::default();
    (Capture { queue: sender, room: Arc::clone(&room), snaplen }, Captured { queue: receiver, room })
}

impl Capture {
    /// Nobody looks any more.
    pub fn is_over(&self) -> bool {
        self.queue.is_closed()
    }

    /// How many bytes of a frame are wanted.
    pub fn snaplen(&self) -> usize {
        self.snaplen
    }

    /// Hands a copy on, or counts it as lost.
    pub fn take(&self, frame: &Copied) {
        let bytes: Box<[u8]> = frame.bytes.get(..self.snaplen).unwrap_or(&frame.bytes).into();
        let len = bytes.len();
        if self.room.waiting.load(Relaxed).saturating_add(len) <= BYTES {
            // Counted before the reader can take it off.
            self.room.waiting.fetch_add(len, Relaxed);
            if self.queue.try_send(Copied { bytes, ..*frame }).is_ok() {
                return;
            }
            self.room.waiting.fetch_sub(len, Relaxed);
        }
        self.room.lost.fetch_add(1, Relaxed);
    }
}

impl Captured {
    /// The next frame; `None`: the NIC is gone.
    pub async fn next(&mut self) -> Option<Copied> {
        let copied = self.queue.recv().await?;
        self.room.waiting.fetch_sub(copied.bytes.len(), Relaxed);
        Some(copied)
    }

    /// The next frame, where there is one now.
    pub fn next_now(&mut self) -> Option<Copied> {
        let copied = self.queue.try_recv().ok()?;
        self.room.waiting.fetch_sub(copied.bytes.len(), Relaxed);
        Some(copied)
    }

    /// Frames so far that there was no room for.
    pub fn lost(&self) -> u64 {
        self.room.lost.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Copied {
        let bytes = vec![7; len].into();
        Copied { at: SystemTime::UNIX_EPOCH, way: Way::In, fate: Fate::Passed, total: len, gso: 0, bytes }
    }

    #[tokio::test]
    async fn what_a_slow_reader_has_no_room_for_is_counted_and_not_waited_for() {
        let (capture, mut captured) = channel(usize::MAX);
        (0..FRAMES + 5).for_each(|_| capture.take(&frame(60)));
        assert_eq!(captured.lost(), 5, "in frames");
        while captured.room.waiting.load(Relaxed) > 0 {
            captured.next().await.unwrap();
        }
        (0..20).for_each(|_| capture.take(&frame(65_000)));
        assert_eq!(captured.lost(), 5 + 20 - (BYTES / 65_000) as u64, "in bytes");
    }

    #[tokio::test]
    async fn only_the_front_is_kept() {
        let (capture, mut captured) = channel(20);
        capture.take(&frame(60));
        let got = captured.next().await.unwrap();
        assert_eq!((got.total, got.bytes.len()), (60, 20));
        drop(capture);
        assert!(captured.next().await.is_none(), "the NIC is gone");
    }

    #[test]
    fn a_reader_that_went_away_is_noticed() {
        let (capture, captured) = channel(20);
        assert!(!capture.is_over());
        drop(captured);
        assert!(capture.is_over());
    }
}
