//! What a worker knows: its NICs, their peers, and the sessions that it receives on.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::batch::MIN_DATAGRAM;
use super::capture::{Capture, Copied, Fate, Way};
use super::outside::Outside;
use super::probe::{Expected, Marked};
use super::{NicKey, Notice, PeerKey};
use crate::metrics::{DropReason, NicCounters};
use crate::nic::{Queue, Side};
use crate::policy::Contract;
use crate::proto::session::{Lane, Opener};
use crate::sys::udp::UdpSocket;
use crate::types::{NicId, Path};

/// How long after a report of a peer's new address the next one waits, and how long one of the same address does.
const MOVED_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Everything of a worker that commands change.
#[derive(Default)]
pub struct Tables {
    /// By control's keys.
    pub nics: Map<NicKey, Nic>,
    /// By control's keys.
    pub peers: Map<PeerKey, Peer>,
    /// By our index of the session.
    pub sessions: Map<u32, Session>,
    /// NICs whose descriptors have died: to be removed and reported after the current burst.
    pub dead: Vec<(NicKey, io::Error)>,
    /// Marked frames that have come in this turn.
    pub marked: Vec<Marked>,
    /// The NIC that was written to last, after a rest: it may have an answer already.
    pub written: Option<NicKey>,
}

/// One queue of a NIC.
pub struct Nic {
    /// Whose NIC.
    pub peer: PeerKey,
    /// Its number in that peer's sessions.
    pub id: NicId,
    /// Where its frames are read and written.
    pub queue: Queue,
    /// This worker reads it; otherwise another does, and this one only writes.
    pub reads: bool,
    /// What may pass.
    pub contract: Contract,
    /// What did.
    pub counters: Arc<NicCounters>,
    /// ARP requests for its addresses are answered here.
    pub reply_arp: bool,
    /// Nothing passes yet; its LAN is listened to.
    pub hold: Option<Hold>,
    /// How long the next frame is likely to be.
    pub length: usize,
    /// Who looks at its frames; mostly nobody.
    pub captures: Vec<Capture>,
    /// Marked frames that it waits for.
    pub expected: Vec<Expected>,
}

/// A NIC that is held back until it is known that its addresses are free.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// The NIC itself.
    pub key: NicKey,
    /// Control has been told that one is not.
    pub told: bool,
}

/// A peer.
pub struct Peer {
    /// Where its datagrams go.
    pub path: Option<Path>,
    /// A socket that is connected along it, if there is one.
    pub line: Option<Arc<UdpSocket>>,
    /// Bytes of UDP payload of a full datagram to it.
    pub datagram: usize,
    /// The session that is sealed with.
    pub active: Option<u32>,
    /// A lane for each session.
    pub lanes: Vec<OwnedLane>,
    /// Its NICs, by their numbers.
    nics: Vec<(NicId, NicKey)>,
    moved: Option<(Path, Instant)>,
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// Where its datagrams go.
    pub path: Path,
    /// A socket that is connected along it.
    pub line: Option<&'a UdpSocket>,
}

/// The right to seal in one session.
pub struct OwnedLane {
    /// Our index of the session.
    pub index: u32,
    /// The right.
    pub lane: Lane,
    /// Control has been told that the session carries much.
    pub rekey_told: bool,
}

/// A session to receive on.
pub struct Session {
    /// Whose session.
    pub peer: PeerKey,
    /// Opens its datagrams.
    pub opener: Arc<Opener>,
    /// Control has been told that the peer uses it.
    pub use_told: bool,
    /// Control has been told that it carries much.
    pub rekey_told: bool,
}

impl Nic {
    /// Counts a frame that does not pass. Control is told of a storm's first.
    pub fn refuse(&self, key: NicKey, reason: DropReason, out: &Outside) {
        self.counters.drops.count(reason);
        if matches!(reason, DropReason::Storm | DropReason::Loop) {
            self.tell_of_storm(key, out);
        }
    }

    #[cold]
    fn tell_of_storm(&self, key: NicKey, out: &Outside) {
        let told = &self.counters.storm_told;
        if !told.load(Relaxed) && !told.swap(true, Relaxed) && !out.tell(Notice::Storm { key }) {
            told.store(false, Relaxed);
        }
    }
}

impl Tables {
    /// The NIC that a session means by a number.
    pub fn nic_key(&self, session: u32, id: NicId) -> Option<NicKey> {
        self.peers.get(&self.sessions.get(&session)?.peer)?.nic(id)
    }

    /// Adds a NIC to its peer, and gives back what stood under its key. Without the peer nothing happens.
    pub fn add_nic(&mut self, key: NicKey, nic: Nic) -> Option<Nic> {
        let old = self.remove_nic(key);
        if let Some(peer) = self.peers.get_mut(&nic.peer) {
            peer.nics.retain(|&(id, _)| id != nic.id);
            peer.nics.push((nic.id, key));
            peer.nics.sort_unstable();
            self.nics.insert(key, nic);
        }
        old
    }

    /// Removes a NIC.
    pub fn remove_nic(&mut self, key: NicKey) -> Option<Nic> {
        let nic = self.nics.remove(&key)?;
        if let Some(peer) = self.peers.get_mut(&nic.peer) {
            peer.nics.retain(|&(_, k)| k != key);
        }
        Some(nic)
    }

    /// Removes a peer with its sessions, and gives back its NICs and the indices of its sessions.
    pub fn remove_peer(&mut self, key: PeerKey) -> (Vec<Nic>, Vec<u32>) {
        let nics = self.peers.remove(&key).map_or(Vec::new(), |peer| peer.nics);
        let nics = nics.into_iter().filter_map(|(_, nic)| self.nics.remove(&nic)).collect();
        let indices: Vec<u32> =
            self.sessions.iter().filter(|(_, s)| s.peer == key).map(|(&index, _)| index).collect();
        for index in &indices {
            self.sessions.remove(index);
        }
        (nics, indices)
    }

    /// Forgets a session, both ways.
    pub fn retire(&mut self, index: u32) {
        let Some(session) = self.sessions.remove(&index) else { return };
        if let Some(peer) = self.peers.get_mut(&session.peer) {
            peer.lanes.retain(|l| l.index != index);
            peer.active = peer.active.filter(|&active| active != index);
        }
    }
}

impl Nic {
    /// Shows a frame that is in one piece to whoever captures this NIC. `written`: into the NIC, not read from it.
    pub fn show(&self, frame: &[u8], side: Side, written: bool, fate: Fate) {
        if !self.captures.is_empty() {
            self.copy((side, written, fate), (frame.len(), 0), frame.into());
        }
    }

    /// How much of a frame is wanted by whoever captures this NIC, in bytes.
    pub fn snaplen(&self) -> usize {
        self.captures.iter().map(Capture::snaplen).max().unwrap_or_default()
    }

    /// Hands a copied frame of `total` bytes to whoever captures this NIC.
    #[cold]
    pub fn copy(
        &self,
        (side, written, fate): (Side, bool, Fate),
        (total, gso): (usize, u16),
        bytes: Box<[u8]>,
    ) {
        // A server writes what comes from the LAN, a client reads it.
        let way = if written == (side == Side::Server) { Way::In } else { Way::Out };
        let frame = Copied { at: SystemTime::now(), way, fate, total, gso, bytes };
        self.captures.iter().for_each(|capture| capture.take(&frame));
    }
}

impl Peer {
    /// A peer without sessions.
    pub fn new() -> Self {
        Self {
            path: None,
            line: None,
            datagram: MIN_DATAGRAM,
            active: None,
            lanes: Vec::new(),
            nics: Vec::new(),
            moved: None,
        }
    }

    /// Where to send, and the right to.
    pub fn way(&mut self) -> Option<(Route<'_>, &mut OwnedLane)> {
        let (active, path) = (self.active?, self.path?);
        let route = Route { path, line: self.line.as_deref() };
        Some((route, self.lanes.iter_mut().find(|l| l.index == active)?))
    }

    /// True where there is a session to send on.
    pub fn can_send(&self) -> bool {
        self.path.is_some() && self.active.is_some_and(|active| self.lanes.iter().any(|l| l.index == active))
    }

    /// True where control should hear that the peer's newest datagram came by `path`: not by the one we know, and
    /// not reported just now.
    pub fn has_moved(&mut self, path: Path, now: Instant) -> bool {
        let Some(known) = self.path else { return false };
        if known.remote == path.remote && (known.local.is_none() || known.local == path.local) {
            return false;
        }
        let (another, same) = MOVED_PAUSE;
        let tell = match self.moved {
            None => true,
            Some((last, at)) => {
                now.saturating_duration_since(at) >= if last == path { same } else { another }
            }
        };
        if tell {
            self.moved = Some((path, now));
        }
        tell
    }

    fn nic(&self, id: NicId) -> Option<NicKey> {
        // Most peers have few.
        let at = self.nics.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        self.nics.get(at).map(|&(_, key)| key)
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self::new()
    }
}

/// A map under keys that this program chose itself: nobody outside can make them collide.
pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<OwnKeys>>;

/// One multiplication.
#[derive(Clone, Copy, Default)]
pub struct OwnKeys(u64);

impl Hasher for OwnKeys {
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u32(b.into()));
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = self.0.wrapping_add(n.into()).wrapping_mul(0xf135_7aea_2e62_a9c5);
    }
}
