//! The document: what `tap-rs status --json` prints.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One running tap-rs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `client` or `server`.
    pub role: String,
    /// The program's version.
    pub version: String,
    /// Its process number.
    pub pid: u32,
    /// The config file that it was started with.
    pub config: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The socket's own address.
    pub local: String,
    /// Resident memory of the process that carries frames, in kilobytes; 0 where that is not known.
    #[serde(default)]
    pub memory_kb: u64,
    /// On a client its server; on a server its clients.
    pub peers: Vec<Peer>,
    /// Every NIC.
    pub nics: Vec<Nic>,
    /// The workers, added up.
    pub plane: Plane,
}

/// The other end of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The client's name; on a client the server's address as configured.
    pub name: String,
    /// `established`, `silent` or `none`.
    pub state: String,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The Noise protocol name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Seconds since the last handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_age_s: Option<u64>,
    /// Seconds since a datagram of it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard_s: Option<u64>,
    /// Smoothed round-trip time in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// How far round-trip times are from that, smoothed, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_us: Option<u64>,
    /// What has been lost of what it sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_in: Option<Loss>,
    /// What has been lost of what was sent to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_out: Option<Loss>,
    /// The longest datagram that its path is known to carry, in bytes of UDP payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datagram_bytes: Option<u16>,
    /// Under the session in use.
    pub sent: Volume,
    /// Under the session in use.
    pub received: Volume,
    /// What a client said last of its box.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// What became of the last push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
}

/// What has come of the datagrams of one way, over all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Datagrams that were sent, as far as the sequence numbers of those that arrived say.
    pub expected: u64,
    /// Datagrams of those that arrived.
    pub arrived: u64,
    /// Hundredths of those expected that did not arrive, in this session and the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_percent: Option<f64>,
}

/// Datagrams and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Datagrams.
    pub datagrams: u64,
    /// UDP payload bytes.
    pub bytes: u64,
}

/// A client's load report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Seconds since it came.
    pub age_s: u64,
    /// One-minute load average.
    pub load: f64,
    /// Memory of the box in kilobytes.
    pub memory_kb: u64,
    /// What of it is available.
    pub available_kb: u64,
    /// Seconds since the client started.
    pub uptime_s: u64,
}

/// The last push.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// Its revision, 16 hexadecimal digits.
    pub revision: String,
    /// `applied`, `script_refused`, `script_failed`, `config_refused` or `nic_failed`.
    pub state: String,
    /// The script's status where it failed.
    pub code: u8,
}

/// One NIC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Nic {
    /// The interface's name.
    pub name: String,
    /// Whose it is.
    pub peer: String,
    /// `tap` or `macvtap`.
    pub mode: String,
    /// `up`, `down`, `probing`, `conflict` or `gone`.
    pub state: String,
    /// Who has one of its addresses on the client's LAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
    /// The network namespace that it lives in, where that is not the program's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// The routing table that it has to itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The projected MAC.
    pub mac: String,
    /// Its addresses.
    pub addrs: Vec<String>,
    /// Largest frame payload.
    pub mtu: u16,
    /// The kernel's offloads in use: `none`, `checksum`, `checksum, TCP` or `checksum, TCP, UDP`.
    pub offload: String,
    /// Towards the peer.
    pub uplink: Flow,
    /// From the peer.
    pub downlink: Flow,
    /// Frames that went no further, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Marked frames of `tap-rs doctor`, either way.
    #[serde(default)]
    pub probes: u64,
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Frames; a super-frame counts once.
    pub frames: u64,
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
    /// Seconds since the last one passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_s: Option<u64>,
}

/// What the workers have done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plane {
    /// Worker threads.
    pub workers: usize,
    /// Returns from `epoll_wait`.
    pub wakeups: u64,
    /// Sent, by system calls, datagrams and bytes.
    pub sent: Trains,
    /// Received, likewise.
    pub received: Trains,
    /// Packets saved from super-frames that never completed.
    pub salvaged: u64,
    /// What was dropped before it was known to be a NIC's, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Each worker's part.
    #[serde(default)]
    pub by_worker: Vec<Worker>,
}

/// One worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Returns from `epoll_wait`.
    pub wakeups: u64,
    /// What it has sent.
    pub sent: Trains,
    /// What it has received.
    pub received: Trains,
}

/// Trains of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trains {
    /// System calls, or buffers of one.
    pub trains: u64,
    /// Datagrams in them.
    pub datagrams: u64,
    /// UDP payload bytes in those.
    pub bytes: u64,
}
