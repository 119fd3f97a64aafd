//! Two ends that use one key in turn are told apart by the instance that each run of the program draws.
//!
//! A program that was restarted, however often, never draws an instance again. One that has made room for another and
//! comes back is still running: there are two boxes with one key, or two servers. Somebody must be told, and a server
//! lets whoever came last be for a while.

use std::time::{Duration, Instant};

/// So many times must an instance come back ...
const FLAPS: usize = 2;
/// ... within this time, and after no more than this, for it to be flapping; ...
const FLAP_SPAN: Duration = Duration::from_secs(60);
/// ... and then whoever came last is left alone for this long.
const FLAP_HOLD: Duration = Duration::from_secs(5);

/// So many instances are remembered: as many boxes as may take turns with one key without being missed.
const KNOWN: usize = 16;

/// Which run of the other end's program there was last, and which had been there lately.
#[derive(Debug, Default)]
pub(crate) struct Flaps {
    /// 0: none yet.
    instance: u64,
    /// Since when there is this one.
    since: Option<Instant>,
    /// What had to make room, and when, the last one last; at most [`KNOWN`].
    gone: Vec<(Instant, u64)>,
    /// When such a one came back, the last time last; at most [`FLAPS`].
    returns: Vec<Instant>,
}

impl Flaps {
    /// A session with this instance is current now. True where instances flap.
    pub(crate) fn arrives(&mut self, now: Instant, instance: u64) -> bool {
        let before = std::mem::replace(&mut self.instance, instance);
        if before == 0 || before == instance {
            return false;
        }
        self.since = Some(now);
        let fresh = |t: &Instant| now.saturating_duration_since(*t) < FLAP_SPAN;
        self.gone.retain(|(t, _)| fresh(t));
        self.returns.retain(fresh);
        let back = self.gone.iter().position(|(_, gone)| *gone == instance);
        if let Some(n) = back {
            self.gone.remove(n);
            push(&mut self.returns, FLAPS, now);
        }
        push(&mut self.gone, KNOWN, (now, before));
        back.is_some() && self.returns.len() == FLAPS
    }

    /// Instances flap, this is another one, and the last one has its time.
    pub(crate) fn bars(&self, now: Instant, instance: u64) -> bool {
        let held = self.since.is_some_and(|t| now.saturating_duration_since(t) < FLAP_HOLD);
        self.returns.len() == FLAPS && held && instance != self.instance
    }
}

/// Behind the others; the first makes room.
fn push<T>(list: &mut Vec<T>, most: usize, item: T) {
    if list.len() == most {
        list.remove(0);
    }
    list.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of instances that arrive after so many milliseconds, which made them flap.
    fn flapped(flaps: &mut Flaps, t0: Instant, arrivals: &[(u64, u64)]) -> Vec<bool> {
        arrivals.iter().map(|(ms, n)| flaps.arrives(t0 + Duration::from_millis(*ms), *n)).collect()
    }

    #[test]
    fn two_returns_are_flapping_and_hold_others_off_for_five_seconds() {
        let (t0, mut flaps) = (Instant::now(), Flaps::default());
        let at = |ms: u64| t0 + Duration::from_millis(ms);
        let seen = flapped(&mut flaps, t0, &[(0, 1), (1000, 2), (2000, 1), (3000, 2)]);
        assert_eq!(seen, [false, false, false, true]);
        assert!(flaps.bars(at(7999), 1) && flaps.bars(at(7999), 3) && !flaps.bars(at(7999), 2));
        assert!(!flaps.bars(at(8000), 1));
        assert_eq!(
            flapped(&mut flaps, t0, &[(9000, 1), (9001, 1)]),
            [true, false],
            "the same again is no change"
        );
        assert!(flaps.bars(at(13_999), 2));
        assert_eq!(flapped(&mut flaps, t0, &[(100_000, 2)]), [false], "long after the others");
        assert!(!flaps.bars(at(100_000), 1));
    }

    #[test]
    fn one_return_is_not_flapping_and_bars_nobody() {
        let (t0, mut flaps) = (Instant::now(), Flaps::default());
        assert_eq!(flapped(&mut flaps, t0, &[(0, 1), (0, 2), (0, 1)]), [false; 3]);
        assert!(!flaps.bars(t0, 2));
    }

    #[test]
    fn restarts_are_not_flapping_however_many() {
        let (t0, mut flaps) = (Instant::now(), Flaps::default());
        for n in 1..1000 {
            assert!(!flaps.arrives(t0, n) && !flaps.bars(t0, n + 1), "{n}");
            assert!(flaps.gone.len() <= KNOWN);
        }
    }

    #[test]
    fn sessions_of_one_run_are_no_changes() {
        let (t0, mut flaps) = (Instant::now(), Flaps::default());
        assert_eq!(flapped(&mut flaps, t0, &[(0, 1), (1, 1), (2, 1), (3, 1)]), [false; 4]);
        assert!(flaps.gone.is_empty() && !flaps.bars(t0, 2));
    }

    #[test]
    fn a_restart_between_two_that_flap_is_held_off_and_told_of_no_more() {
        let (t0, mut flaps) = (Instant::now(), Flaps::default());
        flapped(&mut flaps, t0, &[(0, 1), (0, 2), (0, 1), (0, 2)]);
        assert!(flaps.bars(t0, 3));
        assert_eq!(flapped(&mut flaps, t0, &[(5000, 3), (5001, 1)]), [false, true]);
    }

    #[test]
    fn boxes_in_turn_are_told_up_to_as_many_as_are_remembered() {
        for (boxes, told) in [(3, true), (KNOWN as u64 + 1, true), (KNOWN as u64 + 2, false)] {
            let (t0, mut flaps) = (Instant::now(), Flaps::default());
            let flapped = (0..5 * boxes).any(|n| flaps.arrives(t0, n % boxes + 1));
            assert_eq!(flapped, told, "{boxes}");
        }
    }

    #[test]
    fn a_return_counts_for_less_than_a_minute_and_so_does_who_was_there() {
        let t0 = Instant::now();
        for (last, flapping) in [(59_999, true), (60_000, false)] {
            let mut flaps = Flaps::default();
            let seen = flapped(&mut flaps, t0, &[(0, 1), (0, 2), (0, 3), (1, 1), (last, 2)]);
            assert_eq!(seen.last(), Some(&flapping), "{last} ms, and 2 had gone at 0");
            let mut flaps = Flaps::default();
            let seen = flapped(&mut flaps, t0, &[(0, 1), (0, 2), (0, 1), (1, 3), (last, 1)]);
            assert_eq!(seen.last(), Some(&flapping), "{last} ms, and 1 had come back at 0");
        }
    }
}
