//! The batch: frames are read straight into the datagrams that will carry them.
//!
//! ```text
//! |<-------------- slot: one datagram --------------->|<------------- slot ...
//! +--------+--------+-------------+--------+----------+--------+--------+-------- - -
//! | DATA   | record | frame 1     | record | frame 2, | tag | DATA   | record | frame 2, goes on
//! | header | header | (whole)     | header | first    |     | header | header |
//! +--------+--------+-------------+--------+----------+--------+--------+-------- - -
//!                   ^^^^^^^^^^^^^^         ^^^^^^^^^^^                  ^^^^^^^^ - -
//!                   the places that a read scatters a frame into
//! ```
//!
//! Flow: [`start`](Batch::start), then for each frame [`open`](Batch::open), [`read`](Batch::read) and, if it may
//! pass, [`pack`](Batch::pack), which writes the record headers round what the kernel has already put in place;
//! at last [`seal`](Batch::seal). A frame that is not packed is overwritten by the next. All datagrams but the
//! last are full, which is what UDP GSO wants.
//!
//! A frame's length is known only after the read, so behind the places that are offered stands the *spill*, which
//! takes whatever is longer than expected: a read never truncates. [`place_tail`](Batch::place_tail) copies the
//! spilled bytes to where they belong, in this batch or the next: the only copy, for the rare wrong guess.
//!
//! Invariants: every byte that is sealed was written by a read, by a record header, or is zero, so nothing of an
//! earlier peer's frames leaks; the first part of a split frame has at least [`MIN_FIRST_PART`] bytes.

use std::io::{self, IoSliceMut};
use std::iter;

use crate::metrics::DropReason;
use crate::proto::session::{DATA_OVERHEAD, Lane, TAG_LEN};
use crate::sys::udp::{MAX_SEGMENTS, MAX_TRAIN};
use crate::types::NicId;
use crate::wire::datagram::DATA_HEADER_LEN;
use crate::wire::record::{HEADER_LEN, MAX_FRAME, MIN_FIRST_PART, Offload, Record};

/// Smallest datagram in bytes that frames are packed into: less would make more parts of a frame than a receiver joins.
pub const MIN_DATAGRAM: usize = 512;

/// Longest train in bytes. With link, IP and UDP headers it stays below the 65,536 bytes that a device takes as one
/// (`GSO_LEGACY_MAX_SIZE` in linux/netdevice.h); a byte more, and the kernel cuts it into datagrams on the spot.
pub const MAX_BATCH: usize = 65_400;

/// Bytes of a datagram that carry nothing of a frame, when it holds one record.
pub const SLOT_OVERHEAD: usize = DATA_OVERHEAD + HEADER_LEN;

/// Least room that a frame may begin in: the record header and the first part.
const MIN_ROOM: usize = HEADER_LEN + MIN_FIRST_PART;

/// Least room that the rest of a frame is continued in.
const MIN_TAIL_ROOM: usize = HEADER_LEN + 64;

/// Places of a read of what one slot takes: the front, the slot, the spill.
const MIN_PLACES: usize = 3;

/// Places of one read: the front, each slot, the spill.
const MAX_PLACES: usize = MAX_SEGMENTS + 2;

const _: () = assert!(MAX_BATCH + 14 + 8 + 40 + 8 < 65_536 && MAX_BATCH <= MAX_TRAIN);
const _: () = assert!(MAX_PLACES <= 1024, "IOV_MAX");
const _: () = assert!(MIN_DATAGRAM >= DATA_OVERHEAD + MIN_ROOM, "every slot can begin a frame");
const _: () = assert!(MAX_BATCH <= u16::MAX as usize, "a record's length fits its field");

/// One GSO buffer of datagrams in the making.
pub struct Batch {
    bytes: Box<[u8]>,
    spill: Box<[u8]>,
    /// Bytes of each datagram but the last.
    slot: usize,
    /// Where the last slot ends.
    limit: usize,
    /// Where the current slot begins.
    base: usize,
    /// Where the next record header goes, in the current slot.
    at: usize,
    /// Where the last datagram with anything in it ends, its tag included.
    used: usize,
    /// Bytes of frame that the last read was expected to bring, and so was offered places for.
    expected: usize,
    /// Names the next split frame.
    next_frame: u16,
    tail: Option<Tail>,
}

/// What of a frame is still in the spill.
#[derive(Clone, Copy)]
struct Tail {
    nic: NicId,
    frame: u16,
    /// Where in the frame the rest begins.
    offset: usize,
    /// Where in the spill it begins.
    from: usize,
    /// Bytes of it.
    len: usize,
}

impl Batch {
    /// An empty batch of the smallest datagrams.
    pub fn new() -> Self {
        let mut new = Self {
            bytes: vec![0; MAX_BATCH].into(),
            spill: vec![0; MAX_FRAME.saturating_add(1)].into(),
            slot: MIN_DATAGRAM,
            limit: 0,
            base: 0,
            at: 0,
            used: 0,
            expected: 0,
            next_frame: 0,
            tail: None,
        };
        new.start(MIN_DATAGRAM);
        new
    }

    /// Begins anew with datagrams of `datagram` bytes of UDP payload (held to [`MIN_DATAGRAM`] and [`MAX_BATCH`]).
    /// A tail that waits to be placed is kept.
    pub fn start(&mut self, datagram: usize) {
        self.slot = datagram.clamp(MIN_DATAGRAM, MAX_BATCH);
        let full = MAX_BATCH.checked_div(self.slot).unwrap_or(1).min(MAX_SEGMENTS);
        self.limit = full.saturating_mul(self.slot);
        let rest = MAX_BATCH.saturating_sub(self.limit);
        // The last datagram may be a shorter one.
        if full < MAX_SEGMENTS && rest >= DATA_OVERHEAD.saturating_add(MIN_ROOM) {
            self.limit = MAX_BATCH;
        }
        self.base = 0;
        self.at = DATA_HEADER_LEN;
        self.used = 0;
    }

    /// True where nothing has been packed since the start.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// True where the batch had better leave before a frame of `expected` bytes is read: that would spill. An early
    /// batch takes it even so, for a short train costs more than a copy.
    pub fn should_leave(&self, expected: usize) -> bool {
        self.used > MAX_BATCH / 2 && self.capacity() < expected
    }

    /// Bytes of one frame that the batch still has places for, without spilling.
    pub fn capacity(&self) -> usize {
        let here = match self.room() {
            room if room >= MIN_ROOM => room.saturating_sub(HEADER_LEN),
            _ => 0,
        };
        let behind = self.limit.saturating_sub(self.base.saturating_add(self.slot));
        let (slots, last) =
            (behind.checked_div(self.slot).unwrap_or(0), behind.checked_rem(self.slot).unwrap_or(0));
        here.saturating_add(slots.saturating_mul(self.slot.saturating_sub(SLOT_OVERHEAD)))
            .saturating_add(last.saturating_sub(SLOT_OVERHEAD))
    }

    /// Makes room to begin a frame, in the current slot or the next. False: the batch is full.
    pub fn open(&mut self) -> bool {
        self.room() >= MIN_ROOM || self.next_slot()
    }

    /// Lends the places for one frame to `read` (`readv`), `front` before them, and gives back what it returned.
    /// A frame of up to `expected` bytes lands where it is to be sent from, a longer one of up to [`MAX_FRAME`]
    /// partly in the spill. To be called after [`Self::open`] said yes.
    #[inline]
    pub fn read<R>(
        &mut self,
        front: &mut [u8],
        expected: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<R>,
    ) -> io::Result<R> {
        self.expected = expected;
        // Most frames go into one datagram, and need no more places than that.
        if self.room().saturating_sub(HEADER_LEN) >= expected {
            self.read_into::<MIN_PLACES, R>(front, read)
        } else {
            self.read_into::<MAX_PLACES, R>(front, read)
        }
    }

    #[inline]
    fn read_into<const PLACES: usize, R>(
        &mut self,
        front: &mut [u8],
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<R>,
    ) -> io::Result<R> {
        let expected = self.expected;
        let mut places: [IoSliceMut<'_>; PLACES] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut n = 0usize;
        for (place, bytes) in places.iter_mut().zip(iter::once(front).chain(self.places(expected))) {
            *place = IoSliceMut::new(bytes);
            n = n.saturating_add(1);
        }
        read(places.get_mut(..n).unwrap_or_default())
    }

    /// The front of the frame of `total` bytes that was read: all of it or at least [`MIN_FIRST_PART`] bytes.
    #[inline]
    pub fn head(&self, total: usize) -> &[u8] {
        let start = self.at.saturating_add(HEADER_LEN);
        let end = start.saturating_add(total).min(self.plaintext_end());
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Lets `change` work on the whole frame that was read, in one piece. It is copied out and back: for the few
    /// frames whose checksum must be made here.
    #[cold]
    pub fn with_whole<R>(&mut self, total: usize, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut whole = Vec::with_capacity(total);
        for place in self.places(self.expected) {
            let n = total.saturating_sub(whole.len()).min(place.len());
            whole.extend_from_slice(place.get(..n).unwrap_or_default());
        }
        let result = change(&mut whole);
        let mut rest = whole.as_slice();
        for place in self.places(self.expected) {
            let (here, behind) = rest.split_at(rest.len().min(place.len()));
            if let Some(place) = place.get_mut(..here.len()) {
                place.copy_from_slice(here);
            }
            rest = behind;
        }
        result
    }

    /// A copy of the frame that was read, of `most` bytes at the most. For captures.
    #[cold]
    pub fn copy(&mut self, total: usize, most: usize) -> Box<[u8]> {
        let wanted = total.min(most);
        let mut copy = Vec::with_capacity(wanted);
        for place in self.places(self.expected) {
            let n = wanted.saturating_sub(copy.len()).min(place.len());
            copy.extend_from_slice(place.get(..n).unwrap_or_default());
        }
        copy.into()
    }

    /// Keeps the frame of `total` bytes that was read: writes its record headers. What the read spilled waits
    /// for [`Self::place_tail`].
    #[inline]
    pub fn pack(&mut self, nic: NicId, offload: Offload, total: usize) {
        let room = self.room().saturating_sub(HEADER_LEN);
        if total <= room {
            self.record(Record::Whole { nic, offload }, total);
            return;
        }
        let frame = self.next_frame;
        self.next_frame = frame.wrapping_add(1);
        self.record(Record::First { nic, frame, total: narrow(total), offload }, room);
        let mut offset = room;
        while offset < total && offset < self.expected && self.next_slot() {
            let len = self.room().saturating_sub(HEADER_LEN).min(total.saturating_sub(offset));
            self.record(Record::Next { nic, frame, offset: narrow(offset) }, len);
            offset = offset.saturating_add(len);
        }
        if offset < total {
            self.tail = Some(Tail { nic, frame, offset, from: 0, len: total.saturating_sub(offset) });
        }
    }

    /// True where part of the last frame is in the spill.
    pub fn has_tail(&self) -> bool {
        self.tail.is_some()
    }

    /// Copies what the last frame spilled to its place. False: the batch is full and must be sent, a new one
    /// started and this called again.
    #[must_use]
    pub fn place_tail(&mut self) -> bool {
        while let Some(tail) = self.tail {
            if self.room() < MIN_TAIL_ROOM && !self.next_slot() {
                return false;
            }
            let len = self.room().saturating_sub(HEADER_LEN).min(tail.len);
            let at = self.at.saturating_add(HEADER_LEN);
            let from = self.spill.get(tail.from..tail.from.saturating_add(len));
            let to = self.bytes.get_mut(at..at.saturating_add(len));
            if let (Some(from), Some(to)) = (from, to) {
                to.copy_from_slice(from);
            }
            let Tail { nic, frame, offset, .. } = tail;
            self.record(Record::Next { nic, frame, offset: narrow(offset) }, len);
            self.tail = Some(Tail {
                offset: offset.saturating_add(len),
                from: tail.from.saturating_add(len),
                len: tail.len.saturating_sub(len),
                ..tail
            })
            .filter(|t| t.len > 0);
        }
        true
    }

    /// Forgets a tail: the batch that the frame began in was not sent.
    pub fn drop_tail(&mut self) {
        self.tail = None;
    }

    /// Seals every datagram in place. Gives the train, ready to be sent, and the bytes of each datagram but the last.
    pub fn seal(&mut self, lane: &mut Lane) -> Result<(&[u8], usize), DropReason> {
        let train = self.bytes.get_mut(..self.used).unwrap_or_default();
        train.chunks_mut(self.slot).try_for_each(|datagram| lane.seal(datagram))?;
        Ok((train, self.slot))
    }

    /// How many datagrams the batch has come to.
    pub fn datagrams(&self) -> usize {
        self.used.div_ceil(self.slot)
    }

    /// Bytes of plaintext left in the current slot.
    #[inline]
    fn room(&self) -> usize {
        self.plaintext_end().saturating_sub(self.at)
    }

    #[inline]
    fn plaintext_end(&self) -> usize {
        self.base.saturating_add(self.slot).min(self.limit).saturating_sub(TAG_LEN)
    }

    /// Pads the current slot and goes on to the next, if there is one.
    fn next_slot(&mut self) -> bool {
        let next = self.base.saturating_add(self.slot);
        if next >= self.limit {
            return false;
        }
        let end = self.plaintext_end();
        self.bytes.get_mut(self.at..end).unwrap_or_default().fill(0);
        self.base = next;
        self.at = next.saturating_add(DATA_HEADER_LEN);
        true
    }

    /// The places that a frame of up to `expected` bytes goes into, and behind them the spill.
    #[inline]
    fn places(&mut self, expected: usize) -> impl Iterator<Item = &mut [u8]> {
        let end = self.plaintext_end();
        let next = self.base.saturating_add(self.slot).min(self.limit);
        let (here, behind) =
            self.bytes.get_mut(..self.limit).and_then(|b| b.split_at_mut_checked(next)).unwrap_or_default();
        let here = here.get_mut(self.at.saturating_add(HEADER_LEN)..end).unwrap_or_default();
        let behind = behind.chunks_mut(self.slot).map(|datagram| {
            let end = datagram.len().saturating_sub(TAG_LEN);
            datagram.get_mut(DATA_HEADER_LEN.saturating_add(HEADER_LEN)..end).unwrap_or_default()
        });
        let mut covered = 0usize;
        iter::once(here)
            .chain(behind)
            .take_while(move |place| {
                let needed = covered == 0 || covered < expected;
                covered = covered.saturating_add(place.len());
                needed
            })
            .chain(iter::once(&mut *self.spill))
    }

    /// Writes the header of a record whose body of `len` bytes stands behind it already.
    #[inline]
    fn record(&mut self, record: Record, len: usize) {
        let body = self.at.saturating_add(HEADER_LEN);
        let header = record.encode(u16::try_from(len).unwrap_or(u16::MAX));
        if let Some(place) = self.bytes.get_mut(self.at..body) {
            place.copy_from_slice(&header);
        }
        self.at = body.saturating_add(len);
        self.used = self.at.saturating_add(TAG_LEN);
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// Offsets are at most [`MAX_FRAME`], which fits.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}
