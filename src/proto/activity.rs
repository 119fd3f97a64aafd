//! When a peer was last heard and spoken to, and how much a session has carried.
//!
//! Workers write here once a batch; the control plane reads when one of its timers is due. That is all that timers
//! know of the data path: it never arms one, and an idle tunnel wakes nobody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Datagrams and bytes, each way, under one session's keys.
#[derive(Debug, Default)]
pub struct Volume {
    /// Datagrams sealed.
    pub sent: AtomicU64,
    /// Bytes of those datagrams.
    pub sent_bytes: AtomicU64,
    /// Datagrams opened.
    pub received: AtomicU64,
    /// Bytes of those datagrams.
    pub received_bytes: AtomicU64,
}

impl Volume {
    /// Counts a sealed batch.
    pub fn count_sent(&self, datagrams: u64, bytes: u64) {
        self.sent.fetch_add(datagrams, Relaxed);
        self.sent_bytes.fetch_add(bytes, Relaxed);
    }

    /// Counts an opened batch.
    pub fn count_received(&self, datagrams: u64, bytes: u64) {
        self.received.fetch_add(datagrams, Relaxed);
        self.received_bytes.fetch_add(bytes, Relaxed);
    }
}

/// The times that matter to a peer's timers; outlives the peer's sessions.
///
/// Times are milliseconds since `epoch`, plus one; 0 stands for never.
#[derive(Debug)]
pub struct Activity {
    epoch: Instant,
    received: AtomicU64,
    unanswered: AtomicU64,
    owed: AtomicU64,
    framed: AtomicU64,
    dozing: AtomicBool,
}

impl Activity {
    /// Nothing has happened yet.
    pub fn new(epoch: Instant) -> Self {
        let never = || AtomicU64::new(0);
        Self {
            epoch,
            received: never(),
            unanswered: never(),
            owed: never(),
            framed: never(),
            dozing: AtomicBool::new(false),
        }
    }

    /// A batch was sent at `now`. `asks`: it holds frames, which call for an answer; control records
    /// and keepalives do not. True where the control plane dozes and must be told, once.
    pub fn note_sent(&self, now: Instant, asks: bool) -> bool {
        self.owed.store(0, Relaxed);
        if !asks {
            return false;
        }
        let t = self.stamp(now);
        self.framed.store(t, Relaxed);
        self.arm(&self.unanswered, t)
    }

    /// A question of the control plane's own goes out at `now`: it calls for an answer, but is no traffic.
    pub fn note_request(&self, now: Instant) {
        if self.unanswered.load(Relaxed) == 0 {
            self.unanswered.store(self.stamp(now), Relaxed);
        }
    }

    /// A verified batch came in at `now`. `asks` and the result are as for [`Self::note_sent`].
    pub fn note_received(&self, now: Instant, asks: bool) -> bool {
        let t = self.stamp(now);
        self.received.store(t, Relaxed);
        self.unanswered.store(0, Relaxed);
        if !asks {
            return false;
        }
        self.framed.store(t, Relaxed);
        self.arm(&self.owed, t)
    }

    /// When the last verified datagram came in.
    pub fn received(&self) -> Option<Instant> {
        self.at(&self.received)
    }

    /// Since when we have been sending without hearing anything.
    pub fn unanswered(&self) -> Option<Instant> {
        self.at(&self.unanswered)
    }

    /// Since when the peer has been sending without hearing anything.
    pub fn owed(&self) -> Option<Instant> {
        self.at(&self.owed)
    }

    /// When the last frame or request passed, either way.
    pub fn framed(&self) -> Option<Instant> {
        self.at(&self.framed)
    }

    /// The peer is being given up, or a new handshake answers for what was unanswered.
    pub fn forgive(&self) {
        self.unanswered.store(0, Relaxed);
    }

    /// The control plane has no timer of this peer's running: the next batch that starts one must say so.
    /// False where one has been started already.
    pub fn doze(&self) -> bool {
        let armed = || self.unanswered().is_some() || self.owed().is_some();
        if armed() {
            return false;
        }
        self.dozing.store(true, Relaxed);
        // A batch may have come in between, and not have seen the flag.
        let late = armed();
        if late {
            self.dozing.store(false, Relaxed);
        }
        !late
    }

    fn arm(&self, timer: &AtomicU64, t: u64) -> bool {
        if timer.load(Relaxed) != 0 {
            return false;
        }
        timer.store(t, Relaxed);
        self.dozing.load(Relaxed) && self.dozing.swap(false, Relaxed)
    }

    fn stamp(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis())
            .unwrap_or(u64::MAX - 1)
            .saturating_add(1)
    }

    fn at(&self, stamp: &AtomicU64) -> Option<Instant> {
        let ms = stamp.load(Relaxed).checked_sub(1)?;
        self.epoch.checked_add(Duration::from_millis(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hearing_anything_answers_what_was_sent() {
        let t0 = Instant::now();
        let a = Activity::new(t0);
        a.note_sent(t0, true);
        a.note_sent(t0 + Duration::from_secs(1), true);
        assert_eq!(a.unanswered(), Some(t0));
        a.note_received(t0 + Duration::from_secs(2), false);
        assert_eq!((a.unanswered(), a.owed()), (None, None));
    }

    #[test]
    fn frames_received_are_owed_an_answer_until_anything_is_sent() {
        let t0 = Instant::now();
        let a = Activity::new(t0);
        a.note_received(t0, true);
        assert_eq!(a.owed(), Some(t0));
        a.note_sent(t0, false);
        assert_eq!((a.owed(), a.unanswered()), (None, None));
    }

    #[test]
    fn a_dozing_control_plane_is_woken_once() {
        let t0 = Instant::now();
        let a = Activity::new(t0);
        assert!(a.doze());
        assert!(a.note_sent(t0, true));
        assert!(!a.note_sent(t0, true));
        assert!(!a.doze());
        // What was started comes to an end, and is started again: control is awake, and asks by itself.
        a.note_received(t0, false);
        assert!(!a.note_sent(t0, true));
    }

    #[test]
    fn when_a_peer_was_heard_last_outlives_what_is_forgiven() {
        let (t0, t1) = (Instant::now(), Instant::now() + Duration::from_secs(7));
        let a = Activity::new(t0);
        assert_eq!((a.received(), a.framed()), (None, None));
        a.note_received(t0 + Duration::from_secs(5), false);
        assert_eq!((a.received(), a.framed()), (Some(t0 + Duration::from_secs(5)), None));
        a.note_sent(t0 + Duration::from_secs(6), true);
        assert!(a.unanswered().is_some());
        a.forgive();
        assert_eq!((a.unanswered(), a.received()), (None, Some(t0 + Duration::from_secs(5))));
        a.note_received(t1, true);
        assert!(a.received() > Some(t0 + Duration::from_secs(5)));
    }
}
