//! How many datagrams of a session were sent and came, one way.

use super::reader::Reader;

/// What has come of what was sent, one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams that were sent, as far as the sequence numbers of those that arrived say.
    pub expected: u64,
    /// Datagrams of those that arrived.
    pub arrived: u64,
}

impl Tally {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            expected: self.expected.saturating_add(other.expected),
            arrived: self.arrived.saturating_add(other.arrived),
        }
    }

    /// The tally at the front, where there is a whole one; else nothing is taken.
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let [expected, arrived]: [[u8; 8]; 2] = r.array::<16>()?.as_chunks().0.try_into().ok()?;
        Some(Self { expected: u64::from_le_bytes(expected), arrived: u64::from_le_bytes(arrived) })
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        for n in [self.expected, self.arrived] {
            out.extend(n.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up_and_stay_at_the_most_that_they_can_say() {
        let tally = |expected, arrived| Tally { expected, arrived };
        assert_eq!(tally(10, 9).plus(tally(3, 1)), tally(13, 10));
        assert_eq!(tally(u64::MAX, 9).plus(tally(3, 1)), tally(u64::MAX, 10));
    }
}
