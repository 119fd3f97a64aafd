//! The end of the way down: check → write.
//!
//! ```text
//! frame ── contract ─┬─ joins what waits ──────────────────────────► waits on
//!                    ├─ others may join it ── flush what waits ────► waits
//!                    └─ anything else ─────── flush what waits ────► written from where it was decrypted
//! ```
//!
//! Small datagrams cost what their writes cost, so those of one flow that come one behind the other are written as one
//! super-frame ([`Joiner`]). What waits is written before any other frame of the worker, and at the latest when the
//! receive batch has been worked off: order is kept, and nothing waits for what has not yet come.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::capture::Fate;
use super::outside::Outside;
use super::parts::MAX_PARTS;
use super::tables::{Nic, Tables};
use super::unpack::{Frame, Sink};
use super::{NicKey, Notice, cut, probe};
use crate::metrics::DropReason;
use crate::nic::Side;
use crate::types::{NicId, Path};
use crate::wire::control::MAX_LEN;
use crate::wire::join::Joiner;

/// Pieces of one write: vnet header, a salvaged frame's head, its parts.
const MAX_PIECES: usize = MAX_PARTS + 2;

const _: () = assert!(MAX_PIECES <= 1024, "IOV_MAX");

/// Frames that are to be written as one; empty between receive batches.
#[derive(Default)]
pub struct Waiting {
    joiner: Joiner,
    /// Whose they are.
    nic: Option<NicKey>,
}

/// Where unpacked frames go: through the contract into their NICs.
pub struct Delivery<'a> {
    /// What may yet be joined.
    pub waiting: &'a mut Waiting,
    /// Where the NICs are.
    pub tables: &'a mut Tables,
    /// Where to count.
    pub out: &'a Outside,
    /// When the datagram at hand was received.
    pub now: Instant,
    /// The path that it came by, and whether it is its lane's newest.
    pub came: Option<(Path, bool)>,
}

impl Delivery<'_> {
    /// Writes what waits.
    pub fn flush(&mut self) {
        let Some(key) = self.waiting.nic.take() else { return };
        let (Some(joined), Some(nic)) = (self.waiting.joiner.finish(), self.tables.nics.get_mut(&key)) else {
            return;
        };
        let (frames, bytes) = joined.frames;
        let written = match joined.offload.to_vnet(joined.frame, joined.frame.len()) {
            Ok(vnet) => write(nic, &[&vnet.to_bytes(), joined.frame].map(IoSlice::new)),
            Err(reason) => Err(reason.into()),
        };
        match written {
            Ok(()) => {
                self.tables.written = Some(key);
                nic.counters.downlink.add(frames, bytes, self.out.turn.get());
                self.out.counters.joined.fetch_add(frames.saturating_sub(1) as u64, Relaxed);
            }
            Err(Refused::Because(reason)) => nic.counters.drops.add(reason, frames as u64),
            Err(Refused::Dead(e)) => self.tables.dead.push((key, e)),
        }
    }

    /// A frame that passes: into its NIC, or to those that wait to be. What is dropped is counted here.
    #[inline]
    fn pass<'a>(
        &mut self,
        key: NicKey,
        frame: &Frame<'a>,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), DropReason> {
        if self.wait(key, frame) {
            return Ok(());
        }
        let Some(nic) = self.tables.nics.get_mut(&key) else { return Ok(()) };
        match deliver(nic, frame, pieces, self.out) {
            Ok(()) => {
                self.tables.written = Some(key);
                nic.counters.downlink.count(frame.total, self.out.turn.get());
                self.out.counters.salvaged.fetch_add(frame.salvaged as u64, Relaxed);
                Ok(())
            }
            Err(Refused::Because(reason)) => {
                nic.counters.drops.count(reason);
                Err(reason)
            }
            Err(Refused::Dead(e)) => {
                self.tables.dead.push((key, e));
                Err(DropReason::NicRefused)
            }
        }
    }

    /// A frame that does not pass: counted, unless it is a marked one that is waited for. True where it was.
    #[inline]
    fn refuse<'a>(
        &mut self,
        key: NicKey,
        frame: &Frame<'a>,
        pieces: impl Iterator<Item = &'a [u8]>,
        reason: DropReason,
    ) -> bool {
        let waits = self.tables.nics.get(&key).is_some_and(|nic| !nic.expected.is_empty());
        if waits && probe::refused(self.tables, key, frame, pieces, reason, self.out, self.now) {
            return true;
        }
        if let Some(nic) = self.tables.nics.get(&key) {
            nic.refuse(key, reason, self.out);
        }
        false
    }

    /// The same for a NIC that somebody captures.
    #[cold]
    fn show<'a>(
        &mut self,
        key: NicKey,
        frame: &Frame<'a>,
        pieces: impl Iterator<Item = &'a [u8]>,
        checked: Result<(), DropReason>,
    ) {
        let Some(nic) = self.tables.nics.get_mut(&key) else { return };
        nic.captures.retain(|c| !c.is_over());
        let (pieces, wanted): (Vec<_>, _) = (pieces.collect(), nic.snaplen().min(frame.total));
        let mut bytes = Vec::with_capacity(wanted);
        for piece in &pieces {
            let n = wanted.saturating_sub(bytes.len()).min(piece.len());
            bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
        }
        let fate = match checked {
            Ok(()) => self.pass(key, frame, pieces.into_iter()).map_or_else(Fate::Dropped, |()| Fate::Passed),
            // One that has come as it should is shown where it is dealt with.
            Err(reason) => match self.refuse(key, frame, pieces.into_iter(), reason) {
                true if reason == DropReason::StrayProbe => return,
                _ => Fate::Dropped(reason),
            },
        };
        if let Some(nic) = self.tables.nics.get(&key) {
            let gso = frame.offload.gso.map_or(0, |gso| gso.size());
            nic.copy((self.out.side, true, fate), (frame.total, gso), bytes.into());
        }
    }

    /// True where the frame now waits.
    #[inline]
    fn wait(&mut self, key: NicKey, frame: &Frame<'_>) -> bool {
        let Waiting { joiner, nic } = &mut *self.waiting;
        let may_join = frame.offload.gso.is_none() && frame.head.len() == frame.total && frame.salvaged == 0;
        if may_join && *nic == Some(key) && joiner.join(frame.offload, frame.head) {
            return true;
        }
        self.flush();
        let takes = |nic: &Nic| nic.queue.offloads().udp();
        let waits = may_join
            && self.tables.nics.get(&key).is_some_and(takes)
            && self.waiting.joiner.begin(frame.offload, frame.head);
        self.waiting.nic = waits.then_some(key);
        waits
    }
}

impl Sink for Delivery<'_> {
    fn has(&self, session: u32, nic: NicId) -> bool {
        self.tables.nic_key(session, nic).is_some()
    }

    #[inline]
    fn frame<'a>(&mut self, frame: Frame<'a>, pieces: impl Iterator<Item = &'a [u8]>) {
        let Some(key) = self.tables.nic_key(frame.session, frame.nic) else {
            return self.out.counters.drops.count(DropReason::UnknownNic);
        };
        let Some(nic) = self.tables.nics.get_mut(&key) else { return };
        let checked = check(nic, &frame, self.out.side, self.now);
        if !nic.captures.is_empty() {
            return self.show(key, &frame, pieces, checked);
        }
        if let Err(reason) = checked {
            self.refuse(key, &frame, pieces, reason);
            return;
        }
        let _ = self.pass(key, &frame, pieces);
    }

    fn control(&mut self, session: u32, message: &[u8]) {
        // What waits for the control plane is bounded in bytes as well.
        if message.len() > MAX_LEN {
            return self.out.counters.drops.count(DropReason::BadControl);
        }
        if let Some((path, newest)) = self.came {
            self.out.tell(Notice::Control { index: session, path, newest, bytes: message.into() });
        }
    }

    fn drop(&mut self, _: u32, reason: DropReason) {
        self.out.counters.drops.count(reason);
    }
}

/// Why a frame was not written.
enum Refused {
    Because(DropReason),
    Dead(io::Error),
}

impl From<DropReason> for Refused {
    fn from(reason: DropReason) -> Self {
        Self::Because(reason)
    }
}

/// check: may it pass?
#[inline]
fn check(nic: &mut Nic, frame: &Frame<'_>, side: Side, now: Instant) -> Result<(), DropReason> {
    let &Frame { head, total, offload, .. } = frame;
    if nic.hold.is_some() {
        return Err(DropReason::NotLive);
    }
    match side {
        Side::Client => nic.contract.host_to_lan(now, head, total, offload),
        Side::Server => nic.contract.lan_to_host(now, head, total, offload),
    }
}

/// write: one frame behind a vnet header, or what it stands for where the NIC takes no more than that.
#[inline]
fn deliver<'a>(
    nic: &Nic,
    frame: &Frame<'a>,
    mut pieces: impl Iterator<Item = &'a [u8]>,
    out: &Outside,
) -> Result<(), Refused> {
    let &Frame { head, total, offload, .. } = frame;
    if !cut::takes(nic.queue.offloads(), offload) {
        out.counters.cut.fetch_add(1, Relaxed);
        return cut::each(offload, pieces, total, |vnet, packet| {
            write(nic, &[vnet, packet].map(IoSlice::new))
        })?;
    }
    let vnet = offload.to_vnet(head, total)?.to_bytes();
    let first = pieces.next().unwrap_or_default();
    let Some(second) = pieces.next() else {
        return write(nic, &[&vnet, first].map(IoSlice::new));
    };
    let mut slices = [IoSlice::new(&[]); MAX_PIECES];
    let [front, rest @ ..] = &mut slices;
    *front = IoSlice::new(&vnet);
    let mut n = 1usize;
    for (slice, piece) in rest.iter_mut().zip([first, second].into_iter().chain(pieces)) {
        *slice = IoSlice::new(piece);
        n = n.saturating_add(1);
    }
    write(nic, slices.get(..n).unwrap_or_default())
}

#[inline]
fn write(nic: &Nic, slices: &[IoSlice<'_>]) -> Result<(), Refused> {
    let Err(e) = nic.queue.write_vectored(slices) else { return Ok(()) };
    Err(match e.raw_os_error() {
        // Full, short of memory, or the interface is down.
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EIO | libc::ENETDOWN | libc::EINTR) => {
            DropReason::NicBusy.into()
        }
        Some(libc::EINVAL | libc::E2BIG | libc::EMSGSIZE | libc::EFAULT) => DropReason::NicRefused.into(),
        _ => Refused::Dead(e),
    })
}
