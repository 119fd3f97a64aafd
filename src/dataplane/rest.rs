//! Whether a line comes from a rest.
//!
//! In traffic one system call for many frames is what makes a line fast; what comes after a rest mostly comes alone, and
//! asking for more costs it time on its way. So the first frame after a rest leaves before the next is asked for.

use std::time::{Duration, Instant};

/// A pause that is a rest.
const REST: Duration = Duration::from_micros(100);

/// When a line was last busy.
#[derive(Default)]
pub struct Rest(Option<Instant>);

impl Rest {
    /// It is busy at `now`. True where it had rested before.
    pub fn ends(&mut self, now: Instant) -> bool {
        self.0.replace(now).is_none_or(|last| now.saturating_duration_since(last) >= REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pause_is_a_rest() {
        let (mut rest, start) = (Rest::default(), Instant::now());
        let turns = [(0, true), (0, false), (99, false), (198, false), (298, true), (299, false)];
        for (micros, rested) in turns {
            assert_eq!(rest.ends(start + Duration::from_micros(micros)), rested, "{micros}");
        }
    }
}
