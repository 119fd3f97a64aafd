//! Two ends that use one key in turn are told apart by the instance that each run of the program draws.
//!
//! One restart is one change. Several within a minute are two boxes with one key, two servers with one key, or a program
//! that keeps being restarted: either way somebody must be told, and a server lets whoever came last be for a while.

use std::time::{Duration, Instant};

/// This many changes of instance ...
const FLAPS: usize = 3;
/// ... within this time are flapping, ...
const FLAP_SPAN: Duration = Duration::from_secs(60);
/// ... and then whoever came last is left alone for this long.
const FLAP_HOLD: Duration = Duration::from_secs(5);

/// Which run of the other end's program there was last, and how often that has changed lately.
#[derive(Debug, Default)]
pub(crate) struct Flaps {
    /// 0: none yet.
    instance: u64,
    /// When it changed, newest last; at most [`FLAPS`].
    changes: Vec<Instant>,
}

impl Flaps {
    /// A session with this instance is current now. True where instances flap.
    pub(crate) fn arrives(&mut self, now: Instant, instance: u64) -> bool {
        let before = std::mem::replace(&mut self.instance, instance);
        if before == 0 || before == instance {
            return false;
        }
        self.changes.retain(|t| now.saturating_duration_since(*t) < FLAP_SPAN);
        self.changes.push(now);
        if self.changes.len() > FLAPS {
            self.changes.remove(0);
        }
        self.changes.len() == FLAPS
    }

    /// Instances flap, this is another one, and the last one has its time.
    pub(crate) fn bars(&self, now: Instant, instance: u64) -> bool {
        let held = self.changes.last().is_some_and(|t| now.saturating_duration_since(*t) < FLAP_HOLD);
        self.changes.len() >= FLAPS && held && instance != self.instance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_changes_within_a_minute_are_flapping_and_hold_others_off_for_five_seconds() {
        let (t0, mut flaps) = (Instant::now(), Flaps::default());
        let at = |s: u64| t0 + Duration::from_secs(s);
        let flapped: Vec<_> = (0..4).map(|n| flaps.arrives(at(n), n % 2 + 1)).collect();
        assert_eq!(flapped, [false, false, false, true]);
        assert!(flaps.bars(at(7), 1) && !flaps.bars(at(7), 2) && !flaps.bars(at(8), 1));
        assert!(!flaps.arrives(at(100), 1), "long after the others");
        assert!(!flaps.arrives(at(101), 1), "the same again");
    }

    #[test]
    fn a_change_counts_for_less_than_a_minute() {
        let t0 = Instant::now();
        for (last, flapping) in [(59_999, true), (60_000, false)] {
            let mut flaps = Flaps::default();
            let times = [0, 0, 1, last].map(|ms| t0 + Duration::from_millis(ms));
            let flapped = times.into_iter().zip(1..).map(|(t, n)| flaps.arrives(t, n % 2 + 1)).last();
            assert_eq!(flapped, Some(flapping), "{last} ms");
        }
    }
}
