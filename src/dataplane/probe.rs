//! Marked frames: from one end's NIC to the other's and back, as any frame goes, told of at every step.
//!
//! ```text
//! control ── Command::Probe ──► inject ── check ── pack ── seal ── send ══► open ── check ── expected? ─┬─ write (server)
//!                                                                                                       └─ inject, back
//! ```
//!
//! They cost nothing where none are about: the contract refuses every marked frame ([`DropReason::StrayProbe`]), and only
//! then is it looked up whether this NIC expects it. An expectation is good for one frame, and for a few seconds. On a
//! client's LAN none is ever seen: a client's NIC is not written to.

use std::io::IoSlice;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::capture::Fate;
use super::outside::Outside;
use super::tables::{Nic, Tables};
use super::unpack::Frame;
use super::uplink::Uplink;
use super::{NicKey, Notice, VNET_NONE};
use crate::metrics::DropReason;
use crate::nic::Side;
use crate::sys::clock;
use crate::types::MacAddr;
use crate::wire::probe;

/// Marked frames that one NIC waits for at a time; the oldest is forgotten for another.
const EXPECTED: usize = 4;

/// What is to be done with a marked frame that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the other end's: back to it.
    Answer,
    /// It is ours, come back.
    Return,
}

/// A marked frame that is to come.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Which one.
    pub token: u64,
    /// What then.
    pub role: Role,
    /// Until when.
    pub until: Instant,
}

/// What has become of a marked frame, for control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ours is on its way; the time is that of its start.
    Sent,
    /// The other end's has come, is in the NIC and on its way back: how long each took.
    Answered {
        /// From its reception into the NIC.
        there: Duration,
        /// From there to the socket.
        back: Duration,
    },
    /// Ours is back; on a server, and in the NIC.
    Returned,
    /// It has been dropped here.
    Dropped(DropReason),
}

/// A marked frame that has come and passed.
pub struct Marked {
    key: NicKey,
    expected: Expected,
    len: usize,
    came: Instant,
}

impl Nic {
    /// Waits for a marked frame.
    pub fn expect(&mut self, expected: Expected, now: Instant) {
        self.expected.retain(|e| e.until > now && e.token != expected.token);
        if self.expected.len() >= EXPECTED {
            self.expected.remove(0);
        }
        self.expected.push(expected);
    }

    /// Whether this frame is one that is waited for; from then on it is not.
    #[cold]
    pub fn take_expected(&mut self, head: &[u8], now: Instant) -> Option<Expected> {
        let token = probe::token(head)?;
        let at = self.expected.iter().position(|e| e.token == token && e.until > now)?;
        Some(self.expected.remove(at))
    }

    /// Destination and source of a marked frame that leaves at this end.
    fn outward(&self, side: Side) -> (MacAddr, MacAddr) {
        match side {
            Side::Client => (self.contract.mac(), probe::STATION),
            Side::Server => (probe::STATION, self.contract.mac()),
        }
    }
}

/// A frame that the contract has refused, as `reason` says, has come for a NIC that waits for marked ones. True where it
/// was one of them: it is then dealt with.
#[cold]
pub fn refused<'a>(
    tables: &mut Tables,
    key: NicKey,
    frame: &Frame<'a>,
    pieces: impl Iterator<Item = &'a [u8]>,
    reason: DropReason,
    out: &Outside,
    came: Instant,
) -> bool {
    let Some(nic) = tables.nics.get_mut(&key) else { return false };
    let Some(expected) = nic.take_expected(frame.head, came) else { return false };
    // The other way round than a frame that leaves.
    let (src, dst) = nic.outward(out.side);
    let bytes: Vec<u8> = pieces.flatten().copied().collect();
    let broken = bytes != probe::frame(dst, src, expected.token, frame.total);
    if reason != DropReason::StrayProbe || broken {
        nic.counters.drops.count(reason);
        out.tell(Notice::Probe { key, token: expected.token, step: Step::Dropped(reason), at: came });
        return true;
    }
    nic.counters.probes.fetch_add(1, Relaxed);
    tables.marked.push(Marked { key, expected, len: frame.total, came });
    true
}

/// Deals with the marked frames that have come: into the NIC, and back.
pub fn settle(uplink: &mut Uplink, tables: &mut Tables, out: &Outside) {
    while let Some(Marked { key, expected: Expected { token, role, .. }, len, came }) = tables.marked.pop() {
        let step = match (write(tables, key, token, len, out), role) {
            (Err(reason), _) => Step::Dropped(reason),
            (Ok(()), Role::Return) => Step::Returned,
            (Ok(()), Role::Answer) => {
                let written = clock::now();
                match uplink.inject(key, token, len, tables, out, written) {
                    Ok(()) => Step::Answered {
                        there: written.saturating_duration_since(came),
                        back: clock::now().saturating_duration_since(written),
                    },
                    Err(reason) => Step::Dropped(reason),
                }
            }
        };
        out.tell(Notice::Probe { key, token, step, at: clock::now() });
    }
}

/// Sends a marked frame of our own on its way, and waits for it.
pub fn start(
    uplink: &mut Uplink,
    tables: &mut Tables,
    out: &Outside,
    (key, token, len, until): (NicKey, u64, usize, Instant),
) {
    let now = clock::now();
    let Some(nic) = tables.nics.get_mut(&key) else { return };
    nic.expect(Expected { token, role: Role::Return, until }, now);
    let step = match uplink.inject(key, token, len, tables, out, now) {
        Ok(()) => Step::Sent,
        Err(reason) => Step::Dropped(reason),
    };
    // Before it was sent: the other end may have it before this thread has its turn again.
    out.tell(Notice::Probe { key, token, step, at: now });
}

/// The marked frame that leaves a NIC at this end, and what it counts.
pub fn outward(nic: &Nic, side: Side, token: u64, len: usize) -> Vec<u8> {
    let (dst, src) = nic.outward(side);
    nic.counters.probes.fetch_add(1, Relaxed);
    probe::frame(dst, src, token, len)
}

/// Into the NIC, where that is the host's. A LAN is spared it.
fn write(tables: &Tables, key: NicKey, token: u64, len: usize, out: &Outside) -> Result<(), DropReason> {
    let Some(nic) = tables.nics.get(&key) else { return Err(DropReason::UnknownNic) };
    let (src, dst) = nic.outward(out.side);
    let frame = probe::frame(dst, src, token, len);
    nic.show(&frame, out.side, true, Fate::Probe);
    if out.side == Side::Client {
        return Ok(());
    }
    let written = nic.queue.write_vectored(&[&VNET_NONE, &frame[..]].map(IoSlice::new));
    written.map(drop).map_err(|_| {
        nic.counters.drops.count(DropReason::NicBusy);
        DropReason::NicBusy
    })
}
