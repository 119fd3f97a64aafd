//! Counters, and the one list of reasons why a packet was dropped.
//!
//! A packet is dropped, never an error: it is counted under a [`DropReason`], and the enum *is* the label
//! set of `status` and of the metrics. Each worker owns its counters and writes them with relaxed stores;
//! whoever wants a sum joins the workers' counters on demand.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a datagram, a record or a frame went no further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// Every reason, in the order of the variants.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason as a label: lower case with underscores, stable between releases.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

drop_reasons! {
    // -- a datagram that is no datagram of ours
    /// Shorter than a header, or not as long as its type must be.
    BadLength = "bad_length",
    /// A type byte that version 1 does not know.
    UnknownType = "unknown_type",
    /// Another protocol version.
    BadVersion = "bad_version",
    /// A suite that does not exist, is not allowed here, or is not the session's.
    BadSuite = "bad_suite",
    /// A reserved byte that is not zero.
    ReservedBits = "reserved_bits",
    /// Dropped by the kernel at a server's sockets that are open to all: it cannot be meant for this server, or too much came.
    Unwanted = "unwanted",
    // -- the handshake
    /// The MAC over a handshake datagram is wrong.
    BadMac = "bad_mac",
    /// The sealed cookie does not open.
    BadCookie = "bad_cookie",
    /// Noise refused the handshake message.
    BadHandshake = "bad_handshake",
    /// A handshake datagram or a control message that nobody waits for in this state.
    Unexpected = "unexpected",
    /// A valid handshake with a static key that is not in the allow-list.
    UnknownKey = "unknown_key",
    /// A listed client that has not been let in, or not yet.
    Unverified = "unverified",
    /// Over the rate that handshakes from one source, or offers and enrolments from one peer, may come at.
    RateLimited = "rate_limited",
    /// The bounded queue to the control plane was full.
    QueueFull = "queue_full",
    // -- a session's datagram
    /// No session has this receiver index.
    UnknownIndex = "unknown_index",
    /// A lane number past the last one.
    BadLane = "bad_lane",
    /// The counter was seen before.
    Replayed = "replayed",
    /// The counter is older than the replay window.
    TooOld = "too_old",
    /// The AEAD tag is wrong.
    Unauthentic = "unauthentic",
    /// The session's keys are past their last use.
    Expired = "expired",
    /// A record that runs past its datagram, or is of no known kind.
    BadRecord = "bad_record",
    /// A control message that does not parse.
    BadControl = "bad_control",
    /// An offer that cannot be, a piece of it out of place, or a whole that is not what was offered.
    BadPush = "bad_push",
    /// A record for a NIC that is not the session's.
    UnknownNic = "unknown_nic",
    /// Offload metadata that the frame's own headers do not bear out.
    BadOffload = "bad_offload",
    // -- reassembly
    /// Parts of a frame that contradict one another.
    PartConflict = "part_conflict",
    /// A frame whose missing parts did not come in time.
    PartExpired = "part_expired",
    /// A frame given up to make room for a newer one.
    PartEvicted = "part_evicted",
    // -- the NIC contract
    /// Shorter than an Ethernet header.
    Undersize = "undersize",
    /// Longer than the MTU and headers allow.
    Oversize = "oversize",
    /// A group address as source.
    SourceNotUnicast = "source_not_unicast",
    /// The NIC's own MAC as source where it must not come from: a loop.
    Loop = "loop",
    /// For another MAC than the NIC's.
    NotForNic = "not_for_nic",
    /// From another MAC than the NIC's.
    SpoofedMac = "spoofed_mac",
    /// ARP that claims an address for a MAC that does not own it.
    SpoofedArp = "spoofed_arp",
    /// Neighbour discovery that claims an address for a MAC that does not own it.
    SpoofedNd = "spoofed_nd",
    /// To 01:80:C2:00:00:0X: bridges, link aggregation, port authentication.
    LinkLocalGroup = "link_local_group",
    /// A VLAN tag where none is allowed.
    VlanTag = "vlan_tag",
    /// A VLAN tag inside a VLAN tag.
    NestedTag = "nested_tag",
    /// `strict`: an IP source that is not the NIC's.
    SpoofedIp = "spoofed_ip",
    /// `strict`: a DHCP server's message.
    DhcpServer = "dhcp_server",
    /// `strict`: an IPv6 router advertisement.
    RouterAdvert = "router_advert",
    /// Over the NIC's budget of broadcast and multicast.
    Storm = "storm",
    /// One of the tunnel's own datagrams, come back as a frame.
    OwnDatagram = "own_datagram",
    /// A frame that is marked as `tap-rs doctor` marks its own, and that nobody waits for.
    StrayProbe = "stray_probe",
    // -- this box
    /// The NIC is not up yet: its LAN has not been heard on whether its addresses are free.
    NotLive = "not_live",
    /// There is no session to send on.
    NoSession = "no_session",
    /// The NIC took no more frames, or is down.
    NicBusy = "nic_busy",
    /// The NIC refused the frame.
    NicRefused = "nic_refused",
    /// The path does not carry datagrams of this size.
    DatagramTooBig = "datagram_too_big",
    /// The socket took no more datagrams.
    SocketBusy = "socket_busy",
    /// The network refused the datagram.
    SocketRefused = "socket_refused",
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}

/// A count for each [`DropReason`]; any thread may read, one writes.
#[derive(Debug)]
pub struct Drops([AtomicU64; DropReason::COUNT]);

impl Drops {
    /// All zero.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::COUNT])
    }

    /// One more packet dropped for `reason`.
    pub fn count(&self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// `n` more packets dropped for `reason`.
    pub fn add(&self, reason: DropReason, n: u64) {
        if let Some(c) = self.0.get(reason as usize) {
            c.fetch_add(n, Relaxed);
        }
    }

    /// How many were dropped for `reason`.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).map_or(0, |c| c.load(Relaxed))
    }

    /// The reasons that have occurred, with their counts.
    pub fn seen(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&r| (r, self.of(r))).filter(|&(_, n)| n > 0)
    }
}

impl Default for Drops {
    fn default() -> Self {
        Self::new()
    }
}

/// Frames and bytes that went one way through one NIC.
#[derive(Debug, Default)]
pub struct Flow {
    /// Frames; a super-frame counts once.
    pub frames: AtomicU64,
    /// Bytes of those frames, Ethernet headers included.
    pub bytes: AtomicU64,
    /// When the last one passed.
    pub last: AtomicU64,
}

impl Flow {
    /// Counts one frame of `bytes` bytes.
    pub fn count(&self, bytes: usize, at: Stamp) {
        self.add(1, bytes, at);
    }

    /// Counts `frames` frames, `bytes` bytes in sum.
    pub fn add(&self, frames: usize, bytes: usize, at: Stamp) {
        self.frames.fetch_add(frames as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.last.store(at.0, Relaxed);
    }

    /// How long ago the last frame passed; `None` where none has.
    pub fn idle(&self, now: Instant) -> Option<Duration> {
        let passed = self.last.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(Stamp::of(now).0.saturating_sub(1).saturating_sub(passed)))
    }
}

/// A time that fits an atomic: milliseconds since the first time that was stamped, plus one; 0 stands for never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// The stamp of `now`.
    pub fn of(now: Instant) -> Self {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        let since = now.saturating_duration_since(*EPOCH.get_or_init(|| now)).as_millis();
        Self(u64::try_from(since).unwrap_or(u64::MAX - 1).saturating_add(1))
    }
}

/// What one NIC has carried. Shared between the worker that counts and the control plane that reports.
#[derive(Debug, Default)]
pub struct NicCounters {
    /// From the NIC towards the peer.
    pub uplink: Flow,
    /// From the peer into the NIC.
    pub downlink: Flow,
    /// Marked frames of `tap-rs doctor`, either way, which count nowhere else.
    pub probes: AtomicU64,
    /// Frames of this NIC that went no further, either way.
    pub drops: Drops,
    /// Control has been told of a storm or a loop, and has not seen its end yet.
    pub storm_told: AtomicBool,
}

/// Trains of datagrams that went one way through one socket.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Trains: one system call, or one buffer of one.
    pub trains: AtomicU64,
    /// Datagrams in them.
    pub datagrams: AtomicU64,
    /// Bytes of UDP payload in those.
    pub bytes: AtomicU64,
}

impl Traffic {
    /// Counts one train.
    pub fn count(&self, datagrams: u64, bytes: u64) {
        self.trains.fetch_add(1, Relaxed);
        self.datagrams.fetch_add(datagrams, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

/// What one data-plane worker has done. It writes; whoever wants to know reads, and adds up over workers.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Returns from `epoll_wait`.
    pub wakeups: AtomicU64,
    /// Sent to peers.
    pub sent: Traffic,
    /// Received from the socket, ours or not.
    pub received: Traffic,
    /// Frames that were longer than foreseen, so that their ends were copied on the way out.
    pub spilled: AtomicU64,
    /// Frames whose parts were copied on the way in, because not all came in one receive batch.
    pub kept: AtomicU64,
    /// Packets saved from super-frames that were never completed.
    pub salvaged: AtomicU64,
    /// Super-frames cut by hand, because their NIC takes none.
    pub cut: AtomicU64,
    /// Frames that were written together with the one before.
    pub joined: AtomicU64,
    /// What is dropped before it is known to be a NIC's.
    pub drops: Drops,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_speak_one_form() {
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::COUNT);
        assert!(labels.iter().all(|l| l.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn a_flow_knows_how_long_nothing_has_passed() {
        let (flow, now) = (Flow::default(), Instant::now());
        assert_eq!(flow.idle(now), None);
        flow.count(60, Stamp::of(now));
        assert_eq!(flow.idle(now + Duration::from_secs(3)), Some(Duration::from_secs(3)));
    }

    #[test]
    fn what_is_counted_is_seen() {
        let drops = Drops::new();
        drops.count(DropReason::Replayed);
        drops.add(DropReason::Storm, 2);
        assert_eq!(drops.seen().collect::<Vec<_>>(), [(DropReason::Replayed, 1), (DropReason::Storm, 2)]);
    }
}
