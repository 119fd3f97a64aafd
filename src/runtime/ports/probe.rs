//! Before a client's NIC goes live it asks its LAN who else has its addresses (RFC 5227, RFC 4862).
//!
//! ```text
//!   Idle ──session──▶ Asking ──240 ms of silence──▶ Idle, and up
//!     ▲                 │ ▲
//!     └──no session──   ▼ │ after 5 s
//!                      Taken: down, and said who has it
//! ```
//! While it asks, the link is up and the worker holds everything back but the question. Three questions, 80 ms apart,
//! take little where nobody answers, and a host on a LAN answers within a few. Nothing answers for the address from
//! here meanwhile, so that two hosts are never up with it because of us.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::types::MacAddr;

/// Between two questions, and after the last.
const PAUSE: Duration = Duration::from_millis(80);

/// How many questions.
const QUESTIONS: u8 = 3;

/// How long a NIC stays down whose address somebody else has.
const AGAIN: Duration = Duration::from_secs(5);

/// How far a NIC is with asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Probe {
    /// It does not ask: it is up, or there is no session.
    #[default]
    Idle,
    /// It has asked so many times.
    Asking { asked: u8, next: Instant },
    /// Somebody has one of its addresses.
    Taken { next: Instant, by: Holder },
}

/// Who has which address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) ip: IpAddr,
    pub(super) who: Who,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A host on the LAN.
    Lan(MacAddr),
    /// This box, on the interface of this name.
    Here(String),
}

/// What is to be done when a question's time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// From the first question.
    Begin,
    /// Once more.
    Ask,
    /// Nobody has answered.
    Up,
}

impl Probe {
    /// The first question is put.
    pub(super) fn begun(now: Instant) -> Self {
        Self::Asking { asked: 1, next: now + PAUSE }
    }

    pub(super) fn taken(now: Instant, by: Holder) -> Self {
        Self::Taken { next: now + AGAIN, by }
    }

    pub(super) fn is_asking(&self) -> bool {
        matches!(self, Self::Asking { .. })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Idle => None,
            Self::Asking { next, .. } | Self::Taken { next, .. } => Some(*next),
        }
    }

    /// What is due now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Step> {
        match self {
            Self::Asking { asked, next } if now >= *next => {
                if *asked >= QUESTIONS {
                    *self = Self::Idle;
                    return Some(Step::Up);
                }
                (*asked, *next) = (asked.saturating_add(1), now + PAUSE);
                Some(Step::Ask)
            }
            Self::Taken { next, .. } if now >= *next => Some(Step::Begin),
            _ => None,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Lan(mac) => write!(f, "{} is at {mac}", self.ip),
            Who::Here(interface) => write!(f, "{} is on this box's own {interface}", self.ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_after_three_questions_lets_the_nic_up_within_300_ms() {
        let start = Instant::now();
        let (mut probe, mut now, mut steps) = (Probe::begun(start), start, Vec::new());
        while let Some(next) = probe.poll_timeout() {
            assert_eq!(probe.handle_timeout(now), None, "not before its time");
            now = next;
            steps.extend(probe.handle_timeout(now));
        }
        assert_eq!(steps, [Step::Ask, Step::Ask, Step::Up]);
        assert!(now.duration_since(start) <= Duration::from_millis(300));
    }

    #[test]
    fn a_taken_address_is_asked_for_again() {
        let now = Instant::now();
        let by = Holder { ip: [10, 0, 0, 1].into(), who: Who::Lan(MacAddr([2; 6])) };
        let mut probe = Probe::taken(now, by);
        assert_eq!(probe.handle_timeout(now), None);
        assert_eq!(probe.handle_timeout(now + AGAIN), Some(Step::Begin));
    }
}
