//! unpack: the records of an opened datagram, and the frames that they make.
//!
//! ```text
//! plaintext ─┬─ Whole ──────────────────────────► Sink::frame
//!            ├─ First, Next ── Reassembly ─┬────► Sink::frame     every part has come
//!            │                             └────► salvage ── Sink::frame, once a run of whole packets
//!            ├─ Control ────────────────────────► Sink::control
//!            └─ anything else ──────────────────► Sink::drop
//! ```
//!
//! Nothing is copied: a frame is handed on as the pieces in which it lies.

use std::iter;
use std::time::Instant;

use super::parts::{Buffers, Key, NoBuffers, Part, Partial, Place};
use super::reassembly::Reassembly;
use super::salvage::salvage;
use crate::metrics::DropReason;
use crate::types::NicId;
use crate::wire::record::{HEADER_LEN, Offload, Record};

/// Where a datagram came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The session that it opened under.
    pub session: u32,
    /// Its lane.
    pub lane: u8,
    /// Its sequence number in that lane.
    pub seq: u64,
    /// The receive buffer that it lies in.
    pub buffer: u16,
    /// Where in that buffer its plaintext begins.
    pub start: usize,
    /// When it was received.
    pub now: Instant,
}

/// A frame, ready to be written but for its contract.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The session that it came in.
    pub session: u32,
    /// Whose frame.
    pub nic: NicId,
    /// What is still to be done to it.
    pub offload: Offload,
    /// Its front: all of it, or at least [`MIN_FIRST_PART`](crate::wire::record::MIN_FIRST_PART) bytes.
    pub head: &'a [u8],
    /// Its length in bytes.
    pub total: usize,
    /// How many packets it saves from a larger frame; 0 for a frame that is as it was sent.
    pub salvaged: usize,
}

/// Where what is unpacked goes.
pub trait Sink {
    /// Whether the session has this NIC.
    fn has(&self, session: u32, nic: NicId) -> bool;
    /// A frame, and the pieces that it is to be written from.
    fn frame<'a>(&mut self, frame: Frame<'a>, pieces: impl Iterator<Item = &'a [u8]>);
    /// A control message.
    fn control(&mut self, session: u32, message: &[u8]);
    /// Something of the session's is not delivered.
    fn drop(&mut self, session: u32, reason: DropReason);
}

/// Takes a datagram's plaintext apart. True where it held anything: an empty one is a keepalive.
pub fn unpack(
    reassembly: &mut Reassembly,
    from: Origin,
    plaintext: &[u8],
    buffers: &impl Buffers,
    sink: &mut impl Sink,
) -> bool {
    let mut rest = plaintext;
    loop {
        let (record, body, behind) = match Record::decode(rest) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return !plaintext.is_empty(),
            Err(reason) => {
                sink.drop(from.session, reason);
                return true;
            }
        };
        let at = plaintext.len().saturating_sub(rest.len()).saturating_add(HEADER_LEN);
        rest = behind;
        match record {
            Record::Control => sink.control(from.session, body),
            Record::Whole { nic, .. } | Record::First { nic, .. } | Record::Next { nic, .. }
                if !sink.has(from.session, nic) =>
            {
                sink.drop(from.session, DropReason::UnknownNic);
            }
            Record::Whole { nic, offload } => {
                if !reassembly.is_empty() {
                    reassembly.overtake(from.session, from.lane, from.seq);
                    work_off(reassembly, buffers, sink);
                    hurry(reassembly, from, buffers, sink);
                }
                let (session, total) = (from.session, body.len());
                let frame = Frame { session, nic, offload, head: body, total, salvaged: 0 };
                sink.frame(frame, iter::once(body));
            }
            Record::First { frame, .. } => {
                join(reassembly, from, (record, frame, 0), (at, body), buffers, sink);
            }
            Record::Next { frame, offset, .. } => {
                join(reassembly, from, (record, frame, offset), (at, body), buffers, sink);
            }
        }
    }
}

/// Hands on what is here of the frames that a datagram overtook: behind the last of a lane in a receive batch. Sooner, and
/// where each datagram is a train of its own, every packet behind a hole would be a frame of its own.
pub fn hurry(reassembly: &mut Reassembly, from: Origin, buffers: &impl Buffers, sink: &mut impl Sink) {
    for frame in reassembly.overtaken(from.session, from.lane, from.seq) {
        salvage(frame, buffers, sink);
    }
}

/// Hands on what is here of the frames that have waited long, and gives up those that have waited too long.
pub fn expire(reassembly: &mut Reassembly, now: Instant, sink: &mut impl Sink) {
    for frame in reassembly.overdue(now) {
        salvage(frame, &NoBuffers, sink);
    }
    reassembly.expire(now);
    work_off(reassembly, &NoBuffers, sink);
}

fn join(
    reassembly: &mut Reassembly,
    from: Origin,
    (record, frame, offset): (Record, u16, u32),
    (at, body): (usize, &[u8]),
    buffers: &impl Buffers,
    sink: &mut impl Sink,
) {
    let key = Key { session: from.session, lane: from.lane, frame };
    let start = u32::try_from(from.start.saturating_add(at)).unwrap_or(u32::MAX);
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let part = Part { offset, len, place: Place::Received { buffer: from.buffer, start } };
    let joined = reassembly.add(key, record, part, from.seq, from.now);
    work_off(reassembly, buffers, sink);
    match joined {
        Ok(None) => {}
        Ok(Some(mut whole)) => {
            hurry(reassembly, from, buffers, sink);
            if whole.handed().is_empty() {
                deliver(&whole, buffers, sink);
            } else {
                salvage(&mut whole, buffers, sink);
            }
            reassembly.recycle(whole);
        }
        Err(reason) => sink.drop(from.session, reason),
    }
}

fn deliver(whole: &Partial, buffers: &impl Buffers, sink: &mut impl Sink) {
    let Some((total, offload)) = whole.head else { return };
    let head = whole.pieces(buffers).next().map_or(&[][..], |(_, bytes)| bytes);
    let frame = Frame { session: whole.key.session, nic: whole.nic, offload, head, total, salvaged: 0 };
    sink.frame(frame, whole.pieces(buffers).map(|(_, bytes)| bytes));
}

/// Saves what can be saved of the frames that were given up.
fn work_off(reassembly: &mut Reassembly, buffers: &impl Buffers, sink: &mut impl Sink) {
    while let Some((mut frame, reason)) = reassembly.given_up() {
        sink.drop(frame.key.session, reason);
        salvage(&mut frame, buffers, sink);
        reassembly.recycle(frame);
    }
}
