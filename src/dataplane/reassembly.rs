//! Split frames under way: which are complete, which are given up.
//!
//! A frame of which something is missing is handed on as far as it is here, packet by packet, as soon as the missing
//! datagram has been overtaken, or after [`HURRY`]: a TCP behind it learns of the loss at once, and what is late and not
//! lost is handed on when it comes. Bounded in count, per session and in all, and so in bytes; a frame waits for its rest
//! at most [`PATIENCE`]. It is given up sooner where a later frame of its lane is about to be delivered and the datagrams
//! that should have completed it are clearly lost, not late, and where a newer frame needs its place.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::parts::{Buffers, Key, Part, Partial};
use crate::metrics::DropReason;
use crate::types::NicId;
use crate::wire::record::{MAX_FRAME, Record};

/// Most frames under way in one worker.
pub const MAX_FRAMES: usize = 48;

/// Most frames under way in one session: a peer cannot take everybody's room.
pub const MAX_PER_SESSION: usize = 16;

/// How long missing parts are waited for.
pub const PATIENCE: Duration = Duration::from_millis(4);

/// How long a frame is waited for as a whole.
pub const HURRY: Duration = Duration::from_micros(250);

/// How many datagrams may overtake another without its counting as lost.
pub const REORDER: u64 = 16;

/// Frames whose memory is kept for the next.
const SPARE: usize = 4;

const _: () = assert!((MAX_FRAMES + SPARE) * MAX_FRAME < 4 << 20, "a worker's reassembly stays under 4 MiB");

/// A worker's split frames.
#[derive(Default)]
pub struct Reassembly {
    /// Oldest first.
    frames: VecDeque<Partial>,
    given_up: VecDeque<(Partial, DropReason)>,
    spare: Vec<Partial>,
}

impl Reassembly {
    /// Takes a part: the body of a `First` or `Next` record that came in datagram `seq` of its lane. Gives the
    /// frame that it completes. Before that is delivered, and after each error, the caller works off
    /// [`Self::given_up`].
    pub fn add(
        &mut self,
        key: Key,
        record: Record,
        part: Part,
        seq: u64,
        now: Instant,
    ) -> Result<Option<Partial>, DropReason> {
        let (nic, head) = match record {
            Record::First { nic, total, offload, .. } => (nic, Some((total, offload))),
            Record::Next { nic, .. } => (nic, None),
            Record::Whole { .. } | Record::Control => return Err(DropReason::BadRecord),
        };
        let at = self.entry(key, nic, now);
        let Some(frame) = self.frames.get_mut(at) else { return Ok(None) };
        frame.newest = frame.newest.max(seq);
        let taken = match head {
            _ if frame.nic != nic => Err(DropReason::PartConflict),
            Some((total, offload)) => frame.first(total, offload, part),
            None => frame.next(part),
        };
        if taken.is_ok() && !frame.is_complete() {
            return Ok(None);
        }
        let frame = self.frames.remove(at);
        match (taken, frame) {
            (Ok(()), Some(frame)) => {
                self.overtake(key.session, key.lane, seq);
                Ok(Some(frame))
            }
            (Err(reason), Some(frame)) => {
                self.recycle(frame);
                Err(reason)
            }
            (taken, None) => taken.map(|()| None),
        }
    }

    /// A frame that came in datagram `seq` is about to be delivered: gives up the frames of its lane that it
    /// would overtake for good.
    pub fn overtake(&mut self, session: u32, lane: u8, seq: u64) {
        if self.frames.is_empty() {
            return;
        }
        self.give_up(DropReason::PartExpired, |f| {
            (f.key.session, f.key.lane) == (session, lane) && f.newest.saturating_add(REORDER) <= seq
        });
    }

    /// Gives up the frames that have waited long enough.
    pub fn expire(&mut self, now: Instant) {
        self.give_up(DropReason::PartExpired, |f| f.deadline <= now);
    }

    /// The frames of a lane that should be handed on as far as they are here, now that datagram `seq` has come.
    pub fn overtaken(&mut self, session: u32, lane: u8, seq: u64) -> impl Iterator<Item = &mut Partial> {
        let of_lane = move |f: &Partial| (f.key.session, f.key.lane) == (session, lane);
        self.frames.iter_mut().filter(move |f| of_lane(f) && f.is_overtaken(seq))
    }

    /// The frames that should be handed on as far as they are here, because of the time.
    pub fn overdue(&mut self, now: Instant) -> impl Iterator<Item = &mut Partial> {
        self.frames.iter_mut().filter(move |f| f.is_fresh() && f.early <= now)
    }

    /// When [`Self::overdue`] or [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.frames.iter().map(|f| if f.is_fresh() { f.early } else { f.deadline }).min()
    }

    /// The next frame that has been given up, and why; to be salvaged and recycled.
    pub fn given_up(&mut self) -> Option<(Partial, DropReason)> {
        self.given_up.pop_front()
    }

    /// Forgets the frames of a session that is no more.
    pub fn forget(&mut self, session: u32) {
        self.frames.retain(|f| f.key.session != session);
    }

    /// Copies what is still pointed at out of the receive batch's buffers. Returns how many frames it copied from.
    pub fn keep(&mut self, buffers: &impl Buffers) -> u64 {
        self.frames.iter_mut().map(|f| u64::from(f.keep(buffers))).sum()
    }

    /// Takes a frame that is done with, for its memory.
    pub fn recycle(&mut self, frame: Partial) {
        if self.spare.len() < SPARE {
            self.spare.push(frame);
        }
    }

    /// Frames under way.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True where no frame is under way.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that frames under way and spare ones hold.
    pub fn memory(&self) -> usize {
        self.frames.iter().chain(&self.spare).map(|f| f.memory()).fold(0, usize::saturating_add)
    }

    /// Where the frame of this name stands; a new one, if need be.
    fn entry(&mut self, key: Key, nic: NicId, now: Instant) -> usize {
        if let Some(at) = self.frames.iter().rposition(|f| f.key == key) {
            return at;
        }
        self.make_room(key.session);
        let times = (now.checked_add(HURRY).unwrap_or(now), now.checked_add(PATIENCE).unwrap_or(now));
        let mut frame = self.spare.pop().unwrap_or_else(|| Partial::new(key, nic, times));
        frame.renew(key, nic, times);
        self.frames.push_back(frame);
        self.frames.len().saturating_sub(1)
    }

    /// Gives up the oldest frame of `session` where that has too many, or of the greediest session where all
    /// together have.
    fn make_room(&mut self, session: u32) {
        let count = |session| self.frames.iter().filter(|f| f.key.session == session).count();
        let victim = if count(session) >= MAX_PER_SESSION {
            Some(session)
        } else if self.frames.len() >= MAX_FRAMES {
            // The first of several equals is the one with the oldest frame.
            self.frames.iter().map(|f| f.key.session).rev().max_by_key(|&s| count(s))
        } else {
            None
        };
        let at = victim.and_then(|s| self.frames.iter().position(|f| f.key.session == s));
        if let Some(frame) = at.and_then(|at| self.frames.remove(at)) {
            self.given_up.push_back((frame, DropReason::PartEvicted));
        }
    }

    fn give_up(&mut self, reason: DropReason, which: impl Fn(&Partial) -> bool) {
        let mut at = 0usize;
        while let Some(frame) = self.frames.get(at) {
            if !which(frame) {
                at = at.saturating_add(1);
            } else if let Some(frame) = self.frames.remove(at) {
                self.given_up.push_back((frame, reason));
            }
        }
    }
}
