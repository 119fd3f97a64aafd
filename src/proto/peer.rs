//! What both ends do once there are keys: key slots, PINGs, keepalives, path MTU.
//!
//! ```text
//!   next ──first datagram opens on it──▶ current ──replaced──▶ previous ──replaced or too old──▶ gone
//! ```
//!
//! A client's new session is current at once: it may send first. A server's new session waits as *next* until the
//! client has used it, so that a replayed message 1 changes nothing. Receiving works in all three slots, which is why
//! a rekey loses no frame.

mod ping;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rand::CryptoRng;

pub(crate) use self::ping::Ponged;
use self::ping::{Ping, Purpose};
use crate::proto::activity::Activity;
use crate::proto::output::{Output, Outputs, PeerId, SessionInfo};
use crate::proto::pmtu::{FLOOR, PathMtu};
use crate::proto::session::{DATA_OVERHEAD, Keys, establish};
use crate::proto::slot::{Handshaken, Past, Slot};
use crate::proto::timers::{KEEPALIVE_AFTER, REJECT_AFTER};
use crate::types::Path;
use crate::wire::control::{Control, Tally};
use crate::wire::datagram::DATA_HEADER_LEN;
use crate::wire::record::{HEADER_LEN, Record};

/// One peer.
pub(crate) struct Peer {
    pub id: PeerId,
    pub activity: Arc<Activity>,
    pub path: Option<Path>,
    pub next: Option<(Slot, Handshaken)>,
    pub current: Option<Slot>,
    pub previous: Option<Slot>,
    pub rtt: Option<Duration>,
    jitter: Option<Duration>,
    /// What came of sessions that are gone.
    past: Past,
    pmtu: PathMtu,
    ceiling: u16,
    pings: VecDeque<Ping>,
    /// When its timers were last looked at.
    looked: Instant,
    /// When a PING from another address than the path's was last answered.
    ponged_elsewhere: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(id: PeerId, now: Instant) -> Self {
        Self {
            id,
            activity: Arc::new(Activity::new(now)),
            path: None,
            next: None,
            current: None,
            previous: None,
            rtt: None,
            jitter: None,
            past: Past::default(),
            pmtu: PathMtu::new(now, ORDINARY),
            ceiling: ORDINARY,
            pings: VecDeque::new(),
            looked: now,
            ponged_elsewhere: None,
        }
    }

    /// Makes a session of a handshake's keys, and has it received on. `None` only if the AEAD refuses its key.
    pub(crate) fn install(
        &self,
        now: Instant,
        keys: &Keys,
        instance: u64,
        out: &mut Outputs,
    ) -> Option<Slot> {
        let (mut lanes, opener) = establish(keys, Arc::clone(&self.activity))?;
        let lane = lanes.take()?;
        out.push(Output::Install { peer: self.id, opener: Arc::clone(&opener), lanes });
        Some(Slot::new(now, opener, lane, keys.suite, instance))
    }

    /// Sends with `slot` from now on, to `path`.
    pub(crate) fn promote(&mut self, now: Instant, slot: Slot, path: Path, out: &mut Outputs) {
        if self.path != Some(path) {
            self.path = Some(path);
            self.pmtu = PathMtu::new(now, self.ceiling);
        }
        let (index, datagram) = (slot.index(), self.pmtu.size());
        out.push(Output::Use { peer: self.id, index, path, datagram });
        let old = self.current.replace(slot);
        if let Some(gone) = std::mem::replace(&mut self.previous, old) {
            self.retire(&gone, out);
        }
    }

    /// Forgets a session, but not what came of it.
    fn retire(&mut self, slot: &Slot, out: &mut Outputs) {
        self.past.add(slot);
        out.push(Output::Retire { index: slot.index() });
    }

    /// Forgets every session.
    pub(crate) fn clear(&mut self, out: &mut Outputs) {
        let next = self.next.take().map(|(slot, _)| slot);
        for slot in [next, self.current.take(), self.previous.take()].into_iter().flatten() {
            self.retire(&slot, out);
        }
        self.pings.clear();
        self.activity.forgive();
    }

    /// Forgets the sessions that are too old to be used. True where the current one was among them.
    pub(crate) fn expire(&mut self, now: Instant, out: &mut Outputs) -> bool {
        let old = |slot: &Slot| now.saturating_duration_since(slot.since) >= REJECT_AFTER;
        let next = self.next.take_if(|(slot, _)| old(slot)).map(|(slot, _)| slot);
        let (current, previous) = (self.current.take_if(|s| old(s)), self.previous.take_if(|s| old(s)));
        let lost = current.is_some();
        for slot in [next, current, previous].into_iter().flatten() {
            self.retire(&slot, out);
        }
        lost
    }

    /// Forgets the sessions that were made with keys that no longer count. True where the current one was among them.
    pub(crate) fn keep_keys(&mut self, kept: impl Fn(&[u8; 32]) -> bool, out: &mut Outputs) -> bool {
        let next = self.next.take_if(|(slot, _)| !kept(&slot.key)).map(|(slot, _)| slot);
        let (current, previous) =
            (self.current.take_if(|s| !kept(&s.key)), self.previous.take_if(|s| !kept(&s.key)));
        let lost = current.is_some();
        for slot in [next, current, previous].into_iter().flatten() {
            out.push(Output::Retire { index: slot.index() });
        }
        lost
    }

    /// Which slot has this index.
    pub(crate) fn slot(&mut self, index: u32) -> Option<&mut Slot> {
        let next = self.next.as_mut().map(|(slot, _)| slot);
        [next, self.current.as_mut(), self.previous.as_mut()]
            .into_iter()
            .flatten()
            .find(|s| s.index() == index)
    }

    /// One of its sessions has this index.
    pub(crate) fn has(&self, index: u32) -> bool {
        let next = self.next.as_ref().map(|(slot, _)| slot);
        [next, self.current.as_ref(), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|s| s.index() == index)
    }

    /// True where there is no session, or one with another run of the other end's program.
    pub(crate) fn is_new(&self, instance: u64) -> bool {
        self.current.as_ref().is_none_or(|slot| slot.instance != instance)
    }

    /// The session in use.
    pub(crate) fn info(&self) -> Option<SessionInfo> {
        let slot = self.current.as_ref()?;
        let live: Vec<_> = [&self.current, &self.previous].into_iter().flatten().collect();
        let v = slot.opener.volume();
        Some(SessionInfo {
            suite: slot.suite,
            since: slot.since,
            path: self.path?,
            datagram: self.pmtu.size(),
            rtt: self.rtt,
            jitter: self.jitter,
            heard: self.activity.received(),
            sent: (v.sent.load(Relaxed), v.sent_bytes.load(Relaxed)),
            received: (v.received.load(Relaxed), v.received_bytes.load(Relaxed)),
            incoming: self.past.incoming(&live),
            outgoing: self.past.outgoing(&live),
        })
    }

    /// True where this INIT has made a session that is in use already.
    pub(crate) fn has_answered(&self, init_mac: &[u8; 16]) -> bool {
        [&self.current, &self.previous].into_iter().flatten().any(|s| s.init_mac.as_ref() == Some(init_mac))
    }

    /// True where the current session has carried as much as one should.
    pub(crate) fn worn(&self) -> bool {
        self.current.as_ref().is_some_and(Slot::worn)
    }

    /// The first link towards the peer carries this much. Where that is new, what the path carries is found out anew.
    pub(crate) fn set_ceiling(&mut self, now: Instant, ceiling: u16, out: &mut Outputs) {
        if std::mem::replace(&mut self.ceiling, ceiling) == ceiling {
            return;
        }
        let before = self.pmtu.size();
        self.pmtu.set_ceiling(now, ceiling);
        self.resized(before, out);
    }

    /// The kernel refused a datagram as too long.
    pub(crate) fn handle_too_big(&mut self, now: Instant, out: &mut Outputs) {
        let before = self.pmtu.size();
        self.pmtu.handle_too_big(now);
        self.resized(before, out);
    }

    /// The way to the peer may have become another.
    pub(crate) fn search(&mut self, now: Instant) {
        self.pmtu.search(now);
    }

    /// Sends to `path` from now on.
    pub(crate) fn moved(&mut self, now: Instant, path: Path, out: &mut Outputs) {
        let before = self.pmtu.size();
        self.path = Some(path);
        self.pmtu = PathMtu::new(now, self.ceiling);
        out.push(Output::Path { peer: self.id, path });
        self.resized(before, out);
    }

    /// Sends a message on the current session.
    pub(crate) fn send(&mut self, now: Instant, message: &Control<'_>, out: &mut Outputs) {
        if let Some(path) = self.path {
            self.send_to(now, path, Some(message), 0, out);
        }
    }

    /// Sends an empty datagram: we are here.
    pub(crate) fn keepalive(&mut self, now: Instant, out: &mut Outputs) {
        if let Some(path) = self.path {
            self.send_to(now, path, None, 0, out);
        }
    }

    /// When the timers that the data path arms are to be looked at. While frames pass that is once in a while, whatever
    /// they arm: they arm and disarm with every batch. When none do, the first that does will wake us.
    pub(crate) fn watch(&self) -> Option<Instant> {
        let busy = self.activity.framed().is_some_and(|t| t + WATCH * 2 >= self.looked);
        (self.current.is_some() && (busy || !self.activity.doze())).then(|| self.looked + WATCH)
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let slots = [self.next.as_ref().map(|(slot, _)| slot), self.current.as_ref(), self.previous.as_ref()];
        let expiry = slots.into_iter().flatten().map(|s| s.since + REJECT_AFTER).min();
        let live = self.current.as_ref();
        let keepalive = live.and_then(|_| self.activity.owed()).map(|t| t + KEEPALIVE_AFTER);
        let probe = live.and_then(|_| self.pmtu.poll_timeout(self.busy()));
        [expiry, keepalive, probe].into_iter().flatten().min()
    }

    /// Keeps the session alive and its path measured. Expiry is the caller's: see [`Self::expire`].
    pub(crate) fn handle_timeout(&mut self, now: Instant, rng: &mut impl CryptoRng, out: &mut Outputs) {
        self.looked = now;
        if self.current.is_none() {
            return;
        }
        if self.activity.owed().is_some_and(|t| now.saturating_duration_since(t) >= KEEPALIVE_AFTER) {
            self.keepalive(now, out);
        }
        let before = self.pmtu.size();
        let patience =
            self.rtt.unwrap_or_default().saturating_mul(3).clamp(PROBE_PATIENCE.0, PROBE_PATIENCE.1);
        let probe = self.pmtu.handle_timeout(now, self.busy(), patience, rng.next_u64());
        self.resized(before, out);
        if let (Some(probe), Some(path)) = (probe, self.path) {
            self.ping_to(now, path, Purpose::Probe, probe.token, probe.size, out);
        }
    }

    /// Frames have passed since the path was last confirmed.
    fn busy(&self) -> bool {
        self.activity.framed().is_some_and(|t| t + BUSY_FOR >= self.pmtu.due())
    }

    fn resized(&self, before: u16, out: &mut Outputs) {
        if self.pmtu.size() != before && self.current.is_some() {
            out.push(Output::Datagram { peer: self.id, size: self.pmtu.size() });
        }
    }

    /// What has come of what the peer sent in the session that we send in.
    fn tally(&self) -> Option<Tally> {
        self.current.as_ref().map(|slot| slot.opener.tally())
    }

    /// Seals one control record, or none, in a datagram of at least `size` bytes.
    fn send_to(
        &mut self,
        now: Instant,
        path: Path,
        message: Option<&Control<'_>>,
        size: u16,
        out: &mut Outputs,
    ) {
        let Some(slot) = self.current.as_mut() else { return };
        let mut bytes = vec![0; DATA_HEADER_LEN];
        if let Some(message) = message {
            let body = message.encode();
            bytes.extend(Record::Control.encode(body.len() as u16));
            bytes.extend(body);
        }
        let plaintext_end = usize::from(size).saturating_sub(DATA_OVERHEAD - DATA_HEADER_LEN);
        if bytes.len() < plaintext_end {
            bytes.resize(plaintext_end, 0);
        }
        bytes.resize(bytes.len().saturating_add(DATA_OVERHEAD - DATA_HEADER_LEN), 0);
        if slot.lane.seal(&mut bytes).is_ok() {
            slot.lane.volume().count_sent(1, bytes.len() as u64);
            // A probe may well be lost: it does not stand for the keepalive that is owed.
            if size == 0 {
                self.activity.note_sent(now, false);
            }
            out.push(Output::Send { path, bytes });
        }
    }
}

/// What a first link is taken to carry until somebody knows better: Ethernet's MTU less IPv6's and UDP's headers.
const ORDINARY: u16 = 1500 - 48;

/// How long a path MTU probe is waited for.
const PROBE_PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(400));

/// How often a busy peer's timers are looked at.
const WATCH: Duration = Duration::from_millis(500);

/// How long after a frame the path counts as busy.
const BUSY_FOR: Duration = Duration::from_millis(1500);

const _: () = assert!(DATA_OVERHEAD + HEADER_LEN + crate::wire::control::MAX_LEN <= FLOOR as usize);

#[cfg(test)]
mod tests;
