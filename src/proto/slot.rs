//! One session as the control plane holds it, and what came of those that are gone.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::proto::output::Arrivals;
use crate::proto::session::{Lane, Opener, REKEY_AFTER_DATAGRAMS};
use crate::proto::timers::REKEY_AFTER_BYTES;
use crate::types::{Path, Suite};
use crate::wire::control::Tally;
use crate::wire::datagram::RESP_LEN;

/// What a server keeps of a handshake until its session is used.
pub(crate) struct Handshaken {
    /// The INIT's MAC: the same INIT again gets the same RESP.
    pub init_mac: [u8; 16],
    /// The RESP.
    pub resp: [u8; RESP_LEN],
    /// Where the INIT came from.
    pub path: Path,
}

/// One session as the control plane holds it.
pub(crate) struct Slot {
    pub opener: Arc<Opener>,
    pub lane: Lane,
    pub suite: Suite,
    pub since: Instant,
    /// The other end's instance: which run of which program made this handshake.
    pub instance: u64,
    /// On a server, the client's static key in its handshake.
    pub key: [u8; 32],
    /// Something has opened on it.
    pub used: bool,
    /// On a server, the MAC of the INIT that it came from: the same INIT makes no other session.
    pub init_mac: Option<[u8; 16]>,
    /// What the peer said last of what it received in this session.
    told: Option<Tally>,
}

impl Slot {
    pub(crate) fn new(now: Instant, opener: Arc<Opener>, lane: Lane, suite: Suite, instance: u64) -> Self {
        Self {
            opener,
            lane,
            suite,
            since: now,
            instance,
            key: [0; 32],
            used: false,
            init_mac: None,
            told: None,
        }
    }

    /// What the peer says that it has received in this session. An older word may be overtaken on the way.
    pub(crate) fn hear(&mut self, tally: Tally) {
        if self.told.is_none_or(|told| told.expected <= tally.expected) {
            self.told = Some(tally);
        }
    }

    /// What the peer has told, as far as it can be true.
    fn told(&self) -> Option<Tally> {
        let sent = self.opener.volume().sent.load(Relaxed);
        let expected = self.told?.expected.min(sent);
        Some(Tally { expected, arrived: self.told?.arrived.min(expected) })
    }

    pub(crate) fn index(&self) -> u32 {
        self.opener.index()
    }

    /// It has carried as much as one should.
    pub(crate) fn worn(&self) -> bool {
        let v = self.opener.volume();
        let datagrams = v.sent.load(Relaxed).max(v.received.load(Relaxed));
        let bytes = v.sent_bytes.load(Relaxed).max(v.received_bytes.load(Relaxed));
        datagrams >= REKEY_AFTER_DATAGRAMS || bytes >= REKEY_AFTER_BYTES
    }
}

/// What came of sessions with a peer that are gone.
#[derive(Default)]
pub(crate) struct Past {
    incoming: Tally,
    outgoing: Option<Tally>,
}

impl Past {
    /// A session is being forgotten.
    pub(crate) fn add(&mut self, slot: &Slot) {
        self.incoming = self.incoming.plus(slot.opener.tally());
        self.outgoing = self.outgoing.into_iter().chain(slot.told()).reduce(Tally::plus);
    }

    /// With those that are `live`: what has come of what the peer sent.
    pub(crate) fn incoming(&self, live: &[&Slot]) -> Arrivals {
        let recent = live.iter().map(|slot| slot.opener.tally()).fold(Tally::default(), Tally::plus);
        Arrivals { total: self.incoming.plus(recent), recent }
    }

    /// Likewise of what was sent to it; `None` where it has never said so.
    pub(crate) fn outgoing(&self, live: &[&Slot]) -> Option<Arrivals> {
        let recent = live.iter().filter_map(|slot| slot.told()).reduce(Tally::plus);
        let total = self.outgoing.into_iter().chain(recent).reduce(Tally::plus)?;
        Some(Arrivals { total, recent: recent.unwrap_or_default() })
    }
}
