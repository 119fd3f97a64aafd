//! The parts of one split frame, wherever they lie.
//!
//! While a receive batch is being worked on, parts stay where they were decrypted and are only pointed at; a frame
//! that is complete by then is written from there. What is left at the end of the batch moves into a buffer
//! of the frame's own ([`Partial::keep`]).

use std::ops::Range;
use std::time::Instant;

use super::batch::{MIN_DATAGRAM, SLOT_OVERHEAD};
use crate::metrics::DropReason;
use crate::types::NicId;
use crate::wire::record::{MAX_FRAME, MIN_FIRST_PART, Offload};

/// Most parts of one frame: what the longest frame comes to in the smallest datagrams, begun in the least room.
pub const MAX_PARTS: usize = 160;

const _: () = assert!(MAX_FRAME.div_ceil(MIN_DATAGRAM - SLOT_OVERHEAD) + 2 <= MAX_PARTS);
const _: () = assert!(MAX_PARTS < 1024, "a frame is one writev (IOV_MAX)");

/// Where a receive batch's buffers are looked up.
pub trait Buffers {
    /// The bytes of buffer `i`; empty where there is none.
    fn buffer(&self, i: usize) -> &[u8];
}

/// The buffers when there are none: between receive batches everything is kept.
pub struct NoBuffers;

impl Buffers for NoBuffers {
    fn buffer(&self, _: usize) -> &[u8] {
        &[]
    }
}

/// Which frame a part is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The session, by our index.
    pub session: u32,
    /// The lane that it came on.
    pub lane: u8,
    /// The sender's name for the frame.
    pub frame: u16,
}

/// Bytes `offset..offset + len` of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where in the frame.
    pub offset: u32,
    /// How many, at least one.
    pub len: u32,
    /// Where they are.
    pub place: Place,
}

/// Where a part's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a buffer of the receive batch, from this byte.
    Received {
        /// Which buffer.
        buffer: u16,
        /// Where in it.
        start: u32,
    },
    /// In the frame's own buffer, at the part's offset.
    Kept,
}

impl Part {
    fn end(self) -> u32 {
        self.offset.saturating_add(self.len)
    }
}

/// A frame of which not all parts have come.
pub struct Partial {
    /// Which frame.
    pub key: Key,
    /// Whose frame.
    pub nic: NicId,
    /// When what is here is handed on, complete or not.
    pub early: Instant,
    /// When it is given up.
    pub deadline: Instant,
    /// The newest datagram that carried a part of it.
    pub newest: u64,
    /// Total length and offload metadata, once the first part has come.
    pub head: Option<(usize, Offload)>,
    /// In order, without overlap.
    parts: Vec<Part>,
    /// Bytes in `parts`.
    have: u32,
    kept: Vec<u8>,
    /// Packets of it that have been handed on already; in order, without overlap.
    handed: Vec<Range<usize>>,
    /// There may be packets to hand on.
    fresh: bool,
}

impl Partial {
    /// Nothing of a frame yet.
    pub fn new(key: Key, nic: NicId, (early, deadline): (Instant, Instant)) -> Self {
        Self {
            key,
            nic,
            early,
            deadline,
            newest: 0,
            head: None,
            parts: Vec::with_capacity(64),
            have: 0,
            kept: Vec::new(),
            handed: Vec::new(),
            fresh: false,
        }
    }

    /// Uses the memory of a frame that is done with for another.
    pub fn renew(&mut self, key: Key, nic: NicId, (early, deadline): (Instant, Instant)) {
        (self.key, self.nic, self.early, self.deadline) = (key, nic, early, deadline);
        (self.newest, self.head, self.have, self.fresh) = (0, None, 0, false);
        self.parts.clear();
        self.handed.clear();
    }

    /// Takes the first part. `PartConflict` where it contradicts what is known, or is too short to stand for
    /// the frame's headers.
    pub fn first(&mut self, total: u32, offload: Offload, part: Part) -> Result<(), DropReason> {
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let least = u32::try_from(total.min(MIN_FIRST_PART)).unwrap_or(u32::MAX);
        let known = self.head.is_some_and(|head| head != (total, offload));
        let reaches = self.parts.last().map_or(0, |p| p.end()).max(part.end());
        if known || part.offset != 0 || part.len < least || total > MAX_FRAME || !fits(reaches, total) {
            return Err(DropReason::PartConflict);
        }
        self.head = Some((total, offload));
        self.insert(part)
    }

    /// Takes a later part.
    pub fn next(&mut self, part: Part) -> Result<(), DropReason> {
        let total = self.head.map_or(MAX_FRAME, |(total, _)| total);
        if part.offset == 0 || !fits(part.end(), total) {
            return Err(DropReason::PartConflict);
        }
        self.insert(part)
    }

    fn insert(&mut self, part: Part) -> Result<(), DropReason> {
        if part.len == 0 || self.parts.len() >= MAX_PARTS {
            return Err(DropReason::PartConflict);
        }
        // Parts come in order nearly always.
        let at = match self.parts.last() {
            Some(last) if part.offset < last.end() => self.parts.partition_point(|p| p.end() <= part.offset),
            _ => self.parts.len(),
        };
        match self.parts.get(at) {
            // Again what is here already.
            Some(p) if p.offset <= part.offset && part.end() <= p.end() => return Ok(()),
            Some(p) if p.offset < part.end() => return Err(DropReason::PartConflict),
            _ => self.parts.insert(at, part),
        }
        self.have = self.have.saturating_add(part.len);
        self.fresh = true;
        Ok(())
    }

    /// True where there may be packets to hand on, and no reason to wait for the rest of the frame: a later part
    /// of it is here, or a datagram `seq` that comes behind the one that should have brought the next part.
    pub fn is_overtaken(&self, seq: u64) -> bool {
        let hole = self.parts.last().is_some_and(|p| p.end() != self.have);
        self.fresh && (hole || self.newest.saturating_add(2) <= seq)
    }

    /// True where there may be packets to hand on.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The packets that have been handed on, in order.
    pub fn handed(&self) -> &[Range<usize>] {
        &self.handed
    }

    /// Notes that these packets have been handed on, and that there are no others for now.
    pub fn note_handed(&mut self, runs: Vec<Range<usize>>) {
        self.handed.extend(runs);
        self.handed.sort_unstable_by_key(|run| run.start);
        self.handed.dedup_by(|next, run| {
            let joins = run.end == next.start;
            if joins {
                run.end = next.end;
            }
            joins
        });
        self.fresh = false;
    }

    /// True where every byte is here.
    pub fn is_complete(&self) -> bool {
        self.head.is_some_and(|(total, _)| usize::try_from(self.have) == Ok(total))
    }

    /// What is here: offset and bytes, in order.
    pub fn pieces<'a>(
        &'a self,
        buffers: &'a (impl Buffers + ?Sized),
    ) -> impl Iterator<Item = (usize, &'a [u8])> {
        self.parts.iter().map(|p| (wide(p.offset), self.bytes(p, buffers)))
    }

    fn bytes<'a>(&'a self, part: &Part, buffers: &'a (impl Buffers + ?Sized)) -> &'a [u8] {
        let (bytes, start) = match part.place {
            Place::Received { buffer, start } => (buffers.buffer(buffer.into()), wide(start)),
            Place::Kept => (self.kept.as_slice(), wide(part.offset)),
        };
        bytes.get(start..start.saturating_add(wide(part.len))).unwrap_or_default()
    }

    /// Copies what lies in the receive batch's buffers to the frame's own. True where anything was copied.
    pub fn keep(&mut self, buffers: &impl Buffers) -> bool {
        let mut copied = false;
        let end = self.parts.last().map_or(0, |p| wide(p.end()));
        if self.kept.len() < end {
            // Old bytes stay in the buffer: only those that a part covers are ever looked at.
            self.kept.reserve_exact(end.saturating_sub(self.kept.len()));
            self.kept.resize(end, 0);
        }
        for part in &mut self.parts {
            let Place::Received { buffer, start } = part.place else { continue };
            let (len, start, offset) = (wide(part.len), wide(start), wide(part.offset));
            let from = buffers.buffer(buffer.into()).get(start..start.saturating_add(len));
            let to = self.kept.get_mut(offset..offset.saturating_add(len));
            if let (Some(from), Some(to)) = (from, to) {
                to.copy_from_slice(from);
            }
            part.place = Place::Kept;
            copied = true;
        }
        self.merge();
        copied
    }

    /// Joins neighbours that lie one behind the other in the frame's own buffer.
    fn merge(&mut self) {
        self.parts.dedup_by(|next, part| {
            let joins = part.end() == next.offset;
            if joins {
                part.len = part.len.saturating_add(next.len);
            }
            joins
        });
    }

    /// Bytes of the frame's own buffer.
    pub fn memory(&self) -> usize {
        self.kept.capacity()
    }
}

fn fits(end: u32, total: usize) -> bool {
    wide(end) <= total
}

fn wide(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
