//! A storm on a NIC: more broadcast than its budget, or its own frames coming back. The workers damp it frame by frame;
//! here it is told to people: once with a number when it has begun, and once when it is over.
//!
//! ```text
//!   Calm ──a frame over the budget──▶ Rising ──1 s──▶ Raging, told ──10 s without──▶ Calm, told
//!     ▲                                 │ hardly any          ▲ │ looked at every 10 s
//!     └─────────────────────────────────┘                     └─┘
//! ```
//! Nothing is looked at while it is calm: a worker says when one begins ([`NicCounters::storm_told`]).

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::metrics::{DropReason, NicCounters};

/// From the first frame to the log line that counts them.
const RISING: Duration = Duration::from_secs(1);

/// Between two looks at one that goes on.
const RAGING: Duration = Duration::from_secs(10);

/// Fewer frames than this between two looks are none: a switch that floods, a link that flaps.
const FEW: u64 = 10;

/// How far a NIC's storm is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Storm {
    /// There is none.
    #[default]
    Calm,
    /// Some frames were dropped, and people not told yet. `from`: what had been dropped before.
    Rising { from: u64, next: Instant },
    /// People are told. `last`: what had been dropped at the last look.
    Raging { from: u64, last: u64, next: Instant },
}

/// What people are to be told, with the frames dropped since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It has begun.
    Begun(u64),
    /// It is over.
    Over(u64),
}

impl Storm {
    /// A worker has dropped the first frame.
    pub(super) fn handle_first(&mut self, now: Instant, counters: &NicCounters) {
        if *self == Self::Calm {
            *self = Self::Rising { from: dropped(counters).saturating_sub(1), next: now + RISING };
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Calm => None,
            Self::Rising { next, .. } | Self::Raging { next, .. } => Some(*next),
        }
    }

    /// Looks at what has been dropped, where it is time.
    pub(super) fn handle_timeout(&mut self, now: Instant, counters: &NicCounters) -> Option<Told> {
        if self.poll_timeout().is_none_or(|next| now < next) {
            return None;
        }
        let all = dropped(counters);
        let (from, last, told) = match *self {
            Self::Rising { from, .. } => (from, from, false),
            Self::Raging { from, last, .. } => (from, last, true),
            Self::Calm => return None,
        };
        let sum = all.saturating_sub(from);
        if all.saturating_sub(last) >= FEW {
            *self = Self::Raging { from, last: all, next: now + RAGING };
            return (!told).then_some(Told::Begun(sum));
        }
        *self = Self::Calm;
        counters.storm_told.store(false, Relaxed);
        told.then_some(Told::Over(sum))
    }

    /// Frames dropped in the one that goes on.
    pub(super) fn going_on(&self, counters: &NicCounters) -> Option<u64> {
        match self {
            Self::Raging { from, .. } => Some(dropped(counters).saturating_sub(*from)),
            Self::Calm | Self::Rising { .. } => None,
        }
    }
}

fn dropped(counters: &NicCounters) -> u64 {
    counters.drops.of(DropReason::Storm).saturating_add(counters.drops.of(DropReason::Loop))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_storm_is_told_once_with_its_number_and_once_when_it_is_over() {
        let (t0, counters, mut storm) = (Instant::now(), NicCounters::default(), Storm::default());
        counters.storm_told.store(true, Relaxed);
        counters.drops.count(DropReason::Storm);
        storm.handle_first(t0, &counters);
        assert_eq!(storm.handle_timeout(t0 + SECOND / 2, &counters), None);
        counters.drops.add(DropReason::Storm, 499);
        assert_eq!(storm.going_on(&counters), None);
        assert_eq!(storm.handle_timeout(t0 + SECOND, &counters), Some(Told::Begun(500)));
        assert_eq!(storm.going_on(&counters), Some(500));
        counters.drops.add(DropReason::Loop, 500);
        assert_eq!(storm.handle_timeout(t0 + SECOND * 11, &counters), None, "it goes on");
        assert_eq!(storm.handle_timeout(t0 + SECOND * 21, &counters), Some(Told::Over(1000)));
        assert_eq!((storm, counters.storm_told.load(Relaxed)), (Storm::Calm, false));
    }

    #[test]
    fn a_few_frames_are_no_storm() {
        let (t0, counters, mut storm) = (Instant::now(), NicCounters::default(), Storm::default());
        counters.drops.add(DropReason::Loop, FEW - 1);
        storm.handle_first(t0, &counters);
        assert_eq!(storm.poll_timeout(), Some(t0 + SECOND));
        // All but the first were there before.
        assert_eq!(storm.handle_timeout(t0 + SECOND, &counters), None);
        assert_eq!(storm, Storm::Calm);
    }
}
