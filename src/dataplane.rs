//! The data path: worker threads that own NIC queues and a socket, and carry frames both ways.
//!
//! ```text
//! uplink     read → check → pack → seal → send
//! downlink   recv → open → check → unpack → write
//!
//!            ┌──────────────────── worker: one thread, one epoll ────────────────────┐
//!  queue ──► │ readv into the batch ── contract ── record headers ── Lane::seal      │ ──► sendmsg, UDP_SEGMENT
//!  queue ◄── │ writev from the train ── contract ── records ── Opener::open          │ ◄── recvmmsg, UDP_GRO
//!            └──────▲──────────────────────────────────────────────────────────┬─────┘
//!                   │ Command: moves ownership (queues, lanes)                 │ Notice: bounded, dropped when full
//!                   └───────────────────────── control plane ◄─────────────────┘
//! ```
//!
//! **Nothing is copied in user space.** The kernel scatters a frame into the very datagrams that will carry it, with
//! room left out for record headers and tags ([`batch`]); these are sealed where they lie and leave in one system
//! call. On the other side datagrams are opened where they were received, and a frame is gathered from there by the
//! write ([`parts`]). The exceptions are rare and counted: a frame longer than foreseen, and a frame whose parts came
//! in different receive batches. Only UDP datagrams are copied on purpose, where that saves a write for each
//! ([`join`](crate::wire::join)).
//!
//! **Nothing waits.** A burst ends when a queue has nothing more to read; what is in the batch then leaves. There is no
//! timer, but for frames with parts missing: what is there is handed on at once or within a fraction of a millisecond
//! ([`salvage`]), and the rest given up within milliseconds.
//! An idle worker sleeps without a time-out.
//!
//! **Everything is bounded.** The large buffers belong to the worker, not to NICs or sessions: a batch and its spill
//! (128 KiB), receive slots of 64 KiB, frames under way (under 4 MiB at the very worst). Each NIC has a budget per
//! turn, and the events of one wait are worked off in turn.
//!
//! A bad packet is counted under a [`DropReason`](crate::metrics::DropReason), with its NIC where that is known. Only a
//! dead descriptor is told to control. The worker knows nothing of handshakes, timers or control messages: it hands
//! their datagrams and records on.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod batch;
pub mod capture;
mod cut;
mod delivery;
mod downlink;
mod lines;
mod outside;
pub mod parts;
pub mod probe;
pub mod reassembly;
mod rest;
#[cfg(test)]
mod roundtrip;
pub mod salvage;
mod seam;
mod sync;
mod tables;
#[cfg(test)]
mod tests;
pub mod unpack;
mod uplink;
mod worker;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use self::capture::Capture;
use self::probe::{Expected, Step};
pub use self::seam::WorkerGone;
pub use self::worker::{WorkerConfig, WorkerHandle, spawn};
use crate::metrics::NicCounters;
use crate::nic::{Queue, VNET_HEADER_LEN};
use crate::policy::Contract;
use crate::proto::session::{Lane, Opener};
use crate::types::{MacAddr, NicId, Path};

/// A NIC's queue, as control names it to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NicKey(pub u32);

/// A peer, as control names it to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey(pub u32);

/// What control has a worker do. Commands are carried out in order; one that names something unknown does nothing.
pub enum Command {
    /// There is a peer of this name from now on.
    AddPeer(PeerKey),
    /// The peer is no more: nor are its sessions and NICs.
    RemovePeer(PeerKey),
    /// Takes a queue over. Its frames are the peer's, and the peer's records of this number are its.
    AddNic {
        /// Names it.
        key: NicKey,
        /// Whose NIC it is; must have been added.
        peer: PeerKey,
        /// Its number in that peer's sessions.
        id: NicId,
        /// Where its frames are.
        queue: Queue,
        /// Read it here; otherwise another worker does, and this one only writes.
        reads: bool,
        /// What may pass.
        contract: Box<Contract>,
        /// Where to count.
        counters: Arc<NicCounters>,
        /// Answer ARP requests from the LAN for its addresses (a client's NIC, where that is wanted).
        reply_arp: bool,
    },
    /// Another contract for a NIC: its configuration or the tunnel's endpoints have changed.
    UpdateNic {
        /// Which NIC.
        key: NicKey,
        /// What may pass from now on.
        contract: Box<Contract>,
        /// As in `AddNic`.
        reply_arp: bool,
    },
    /// From now on nothing passes a NIC, either way, and its LAN is listened to: who there has one of its addresses is
    /// told by one `Notice::Claimed`. Or it passes again.
    Hold {
        /// Which NIC.
        key: NicKey,
        /// Nothing passes.
        on: bool,
    },
    /// Writes frames of control's own out of a NIC.
    Announce {
        /// Which NIC.
        key: NicKey,
        /// Whole frames, their checksums complete.
        frames: Vec<Vec<u8>>,
    },
    /// Copies the frames of a NIC from now on, until nobody reads the copies.
    Capture {
        /// Which NIC.
        key: NicKey,
        /// Where the copies go.
        capture: Capture,
    },
    /// Waits for a marked frame of the other end's.
    Expect {
        /// On which NIC.
        key: NicKey,
        /// For which.
        expected: Expected,
    },
    /// Sends a marked frame as if the NIC had given it, and waits for it to come back.
    Probe {
        /// Which NIC.
        key: NicKey,
        /// Names it.
        token: u64,
        /// Its length in bytes.
        len: usize,
        /// How long it is waited for.
        until: Instant,
    },
    /// Closes a queue.
    RemoveNic(NicKey),
    /// Receives on a session from now on, and keeps the lane for when it is to be used.
    Install {
        /// Whose session.
        peer: PeerKey,
        /// Opens its datagrams.
        opener: Arc<Opener>,
        /// Seals them.
        lane: Lane,
    },
    /// Seals with an installed session from now on.
    Use {
        /// Whose session.
        peer: PeerKey,
        /// Its index, [`Opener::index`].
        index: u32,
        /// Where the datagrams go.
        path: Path,
        /// Bytes of UDP payload of a full datagram.
        datagram: u16,
    },
    /// Forgets a session, both ways.
    Retire {
        /// Its index.
        index: u32,
    },
    /// The peer's datagrams go elsewhere from now on.
    SetPath {
        /// Which peer.
        peer: PeerKey,
        /// Where to.
        path: Path,
    },
    /// The peer's full datagrams have another size from now on.
    SetDatagram {
        /// Which peer.
        peer: PeerKey,
        /// Bytes of UDP payload.
        datagram: u16,
    },
    /// Ends the worker; everything it owns is dropped.
    Stop,
}

/// What a worker tells control. The channel is bounded: what does not fit is counted as `QueueFull` and, where it
/// matters, told again.
#[derive(Debug)]
pub enum Notice {
    /// A datagram of a handshake: its four header bytes are right and it is no longer than the longest of them.
    Datagram {
        /// Where it came from.
        path: Path,
        /// All of it.
        bytes: Box<[u8]>,
    },
    /// The body of a control record.
    Control {
        /// The session that it came in.
        index: u32,
        /// The path that it came by.
        path: Path,
        /// Its datagram is the newest of its lane.
        newest: bool,
        /// The message.
        bytes: Box<[u8]>,
    },
    /// The first datagram has opened on a session, if only a keepalive: the peer has its keys.
    FirstUse {
        /// Which session.
        index: u32,
        /// The path that it came by.
        path: Path,
    },
    /// The newest datagram of a lane came by another path than the peer's.
    Moved {
        /// The session.
        index: u32,
        /// The new path, not yet proven.
        path: Path,
    },
    /// A timer of this peer's has something to wait for again ([`Activity`](crate::proto::activity::Activity)).
    Wake {
        /// Which peer.
        peer: PeerKey,
    },
    /// A session has carried so many datagrams that a new handshake is due.
    RekeyWanted {
        /// Which session.
        index: u32,
    },
    /// The kernel says that the path does not take datagrams of the size in use.
    DatagramTooBig {
        /// Whose path.
        peer: PeerKey,
    },
    /// A marked frame has come a step further.
    Probe {
        /// On which NIC.
        key: NicKey,
        /// Which one.
        token: u64,
        /// What step.
        step: Step,
        /// When.
        at: Instant,
    },
    /// Somebody on the LAN of a NIC that is held back has one of its addresses.
    Claimed {
        /// Which NIC.
        key: NicKey,
        /// The address.
        ip: IpAddr,
        /// Whose it is.
        mac: MacAddr,
    },
    /// The first frame of a storm or a loop was dropped; the next storm is told when control has seen the end of this.
    Storm {
        /// On which NIC.
        key: NicKey,
    },
    /// A queue has died and been closed.
    NicDead {
        /// Which.
        key: NicKey,
        /// Of what.
        error: io::Error,
    },
    /// The worker has ended: its socket or its epoll died.
    WorkerDead {
        /// Of what.
        error: io::Error,
    },
}

/// The vnet header of a frame that is as it should be.
const VNET_NONE: [u8; VNET_HEADER_LEN] = [0; VNET_HEADER_LEN];
