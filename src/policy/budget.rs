//! How much broadcast and multicast a NIC may send one way: a token bucket in integers.

use std::time::Instant;

use crate::metrics::DropReason;
use crate::wire::ether::Link;

/// What one packet costs. With this unit, one nanosecond earns exactly as many units as packets are allowed a
/// second.
const PACKET: u64 = 1_000_000_000;

/// A token bucket that holds one second's worth of packets.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Packets a second.
    rate: u64,
    /// At most `rate * PACKET`.
    credit: u64,
    /// When `credit` was last topped up.
    at: Option<Instant>,
}

/// The largest bucket fits.
const _: () = assert!((u32::MAX as u64).checked_mul(PACKET).is_some());

impl Budget {
    /// A full bucket for `rate` packets a second; with 0 nothing passes.
    pub(super) const fn new(rate: u32) -> Self {
        let rate = rate as u64;
        Self { rate, credit: rate.saturating_mul(PACKET), at: None }
    }

    /// Takes `packets` out of the bucket where the frame is for a group, and nothing where it is for one station.
    /// `Err(Storm)` where too little is left; the bucket then keeps what it has. A clock that stands still or
    /// goes back earns nothing.
    #[inline]
    pub(super) fn charge(&mut self, now: Instant, link: &Link, packets: usize) -> Result<(), DropReason> {
        if link.dst.is_multicast() { self.take(now, packets as u64) } else { Ok(()) }
    }

    fn take(&mut self, now: Instant, packets: u64) -> Result<(), DropReason> {
        let last = *self.at.get_or_insert(now);
        let earned = u64::try_from(now.saturating_duration_since(last).as_nanos()).unwrap_or(u64::MAX);
        let full = self.rate.saturating_mul(PACKET);
        self.credit = self.credit.saturating_add(earned.saturating_mul(self.rate)).min(full);
        self.at = Some(last.max(now));
        self.credit = packets
            .checked_mul(PACKET)
            .and_then(|cost| self.credit.checked_sub(cost))
            .ok_or(DropReason::Storm)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_one_seconds_worth_and_refills_at_the_rate() {
        let t = Instant::now();
        let mut b = Budget::new(10);
        assert!((0..10).all(|_| b.take(t, 1).is_ok()));
        assert_eq!(b.take(t, 1), Err(DropReason::Storm));
        assert_eq!(b.take(t + Duration::from_millis(99), 1), Err(DropReason::Storm));
        assert!(b.take(t + Duration::from_millis(100), 1).is_ok());
        let later = t + Duration::from_secs(1_000_000);
        assert!((0..10).all(|_| b.take(later, 1).is_ok()), "never more than the burst");
        assert_eq!(b.take(later, 1), Err(DropReason::Storm));
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing() {
        let t = Instant::now() + Duration::from_secs(100);
        let mut b = Budget::new(2);
        assert!(b.take(t, 2).is_ok());
        for _ in 0..10 {
            assert_eq!(b.take(t - Duration::from_secs(50), 1), Err(DropReason::Storm));
            assert_eq!(b.take(t, 1), Err(DropReason::Storm));
        }
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_pass() {
        let t = Instant::now();
        let mut b = Budget::new(0);
        assert_eq!(b.take(t, 1), Err(DropReason::Storm));
        assert_eq!(b.take(t + Duration::from_secs(9), 1), Err(DropReason::Storm));
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_burst_and_rate(
            rate in 1u32..500, steps in prop::collection::vec((0u64..20_000, 1u64..4), 1..300),
        ) {
            let start = Instant::now();
            let mut b = Budget::new(rate);
            let (mut micros, mut passed) = (0, 0);
            for (step, n) in steps {
                micros += step;
                if b.take(start + Duration::from_micros(micros), n).is_ok() {
                    passed += n;
                }
                prop_assert!(passed * 1_000_000 <= u64::from(rate) * (1_000_000 + micros));
            }
        }

        #[test]
        fn no_numbers_overflow(rate in any::<u32>(), n in any::<u64>(), secs in 0u64..10_000_000_000) {
            let t = Instant::now();
            let mut b = Budget::new(rate);
            let _ = b.take(t, n);
            let _ = b.take(t + Duration::from_secs(secs), n);
        }
    }
}
