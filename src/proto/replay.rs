//! The replay window of one lane: which counters have been seen (RFC 6479, without the shifts).
//!
//! [`Window::check`] is asked before the AEAD, so that a replay costs nothing; [`Window::commit`] is told after it,
//! so that a forgery changes nothing.

use crate::metrics::DropReason;
use crate::wire::control::Tally;

/// Words of the ring; one more than the window needs, because the newest word is only partly used.
const WORDS: u64 = 129;

/// A window over the sequence numbers of one lane.
pub struct Window {
    /// One past the highest sequence number seen.
    next: u64,
    /// How many have been taken.
    taken: u64,
    bits: [u64; WORDS as usize],
}

impl Window {
    /// How far behind the newest a sequence number may come and still be taken.
    pub const SIZE: u64 = (WORDS - 1) * 64;

    /// Nothing seen yet.
    pub const fn new() -> Self {
        Self { next: 0, taken: 0, bits: [0; WORDS as usize] }
    }

    /// May a datagram with this sequence number still be taken?
    pub fn check(&self, seq: u64) -> Result<(), DropReason> {
        if seq >= self.next {
            return Ok(());
        }
        if seq.saturating_add(Self::SIZE) < self.next {
            return Err(DropReason::TooOld);
        }
        let seen = self.bits.get(slot(seq)).is_none_or(|word| word & bit(seq) != 0);
        if seen { Err(DropReason::Replayed) } else { Ok(()) }
    }

    /// Marks a verified sequence number as seen. True where it is the newest so far.
    pub fn commit(&mut self, seq: u64) -> Result<bool, DropReason> {
        self.check(seq)?;
        let newest = seq >= self.next;
        if newest {
            self.forget_up_to(seq);
            self.next = seq.saturating_add(1);
        }
        if let Some(word) = self.bits.get_mut(slot(seq)) {
            *word |= bit(seq);
        }
        self.taken = self.taken.saturating_add(1);
        Ok(newest)
    }

    /// How many there must have been, and how many have been taken.
    pub fn tally(&self) -> Tally {
        Tally { expected: self.next, arrived: self.taken }
    }

    /// Clears the words that `seq` brings into the window.
    fn forget_up_to(&mut self, seq: u64) {
        let first = self.next.div_ceil(64);
        let last = seq / 64;
        for word in (first..=last).take(WORDS as usize) {
            if let Some(w) = self.bits.get_mut((word % WORDS) as usize) {
                *w = 0;
            }
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

const fn slot(seq: u64) -> usize {
    (seq / 64 % WORDS) as usize
}

const fn bit(seq: u64) -> u64 {
    1 << (seq % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn the_window_is_as_wide_as_the_protocol_says() {
        assert_eq!(Window::SIZE, 8192);
    }

    #[test]
    fn each_number_is_taken_once_within_the_window() {
        let mut w = Window::new();
        assert_eq!(w.commit(0), Ok(true));
        assert_eq!(w.check(0), Err(DropReason::Replayed));
        assert_eq!(w.commit(Window::SIZE - 1), Ok(true));
        assert_eq!(w.check(0), Err(DropReason::Replayed));
        assert_eq!(w.commit(1), Ok(false));
        assert_eq!(w.commit(Window::SIZE), Ok(true));
        assert_eq!(w.check(0), Err(DropReason::TooOld));
        assert_eq!(w.check(1), Err(DropReason::Replayed));
        assert_eq!(w.commit(2), Ok(false));
    }

    #[test]
    fn a_leap_forgets_everything_before_it() {
        let mut w = Window::new();
        for s in 0..200 {
            w.commit(s).unwrap();
        }
        let leap = 1 << 40;
        assert_eq!(w.commit(leap), Ok(true));
        assert_eq!(w.check(199), Err(DropReason::TooOld));
        for s in leap - Window::SIZE + 1..leap {
            assert_eq!(w.check(s), Ok(()), "{s}");
        }
    }

    #[test]
    fn what_is_missing_below_the_newest_is_tallied_until_it_comes() {
        let mut w = Window::new();
        for seq in [0, 1, 4] {
            w.commit(seq).unwrap();
        }
        assert_eq!(w.tally(), Tally { expected: 5, arrived: 3 });
        w.commit(3).unwrap();
        assert!(w.commit(3).is_err());
        assert_eq!(w.tally(), Tally { expected: 5, arrived: 4 });
    }

    proptest! {
        /// Against the obvious model: a set of everything seen and the highest of it.
        #[test]
        fn behaves_as_a_set_with_a_horizon(steps in prop::collection::vec((any::<bool>(), 0u64..20_000), 1..400)) {
            let (mut w, mut seen, mut base) = (Window::new(), HashSet::new(), 0u64);
            for (back, n) in steps {
                let seq = if back { base.saturating_sub(n) } else { base + n % 300 };
                let next = base.max(seen.iter().max().map_or(0, |m| m + 1));
                let want = if seq >= next { Ok(()) }
                    else if seq + Window::SIZE < next { Err(DropReason::TooOld) }
                    else if seen.contains(&seq) { Err(DropReason::Replayed) }
                    else { Ok(()) };
                prop_assert_eq!(w.check(seq), want);
                prop_assert_eq!(w.commit(seq).is_ok(), want.is_ok());
                if want.is_ok() { seen.insert(seq); }
                base = seen.iter().max().map_or(0, |m| m + 1);
            }
        }
    }
}
