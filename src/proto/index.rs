//! The numbers by which an end finds its sessions. The other end's do not matter: each receives by its own.

use rand::{CryptoRng, Rng, RngExt};

/// Bits that all indices of one run of a server have. Whoever has seen none of its sessions does not know them, so that
/// what he makes up can be dropped by four bytes, before it is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Which bits.
    pub mask: u32,
    /// What they are; zero outside the mask.
    pub value: u32,
}

/// One guess in 4,096 is right, and a million indices are left.
const BITS: u32 = 0xfff;

impl Tag {
    /// Another than anybody could know.
    pub fn new(rng: &mut impl CryptoRng) -> Self {
        Self { mask: BITS, value: rng.random::<u32>() & BITS }
    }
}

/// A random index with this tag that is not taken.
pub fn free_index(rng: &mut impl Rng, tag: Tag, taken: impl Fn(u32) -> bool) -> u32 {
    loop {
        let index = (rng.next_u32() & !tag.mask) | tag.value;
        if !taken(index) {
            return index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::collections::HashSet;

    #[test]
    fn indices_have_their_tag_and_are_otherwise_any() {
        let mut rng = StdRng::from_seed([1; 32]);
        let tag = Tag::new(&mut rng);
        assert_ne!(tag, Tag::new(&mut rng));
        let mut taken = HashSet::new();
        for _ in 0..1000 {
            let index = free_index(&mut rng, tag, |index| taken.contains(&index));
            assert_eq!(index & tag.mask, tag.value);
            assert!(taken.insert(index));
        }
        let any = free_index(&mut StdRng::from_seed([1; 32]), Tag::default(), |_| false);
        assert_eq!(any, StdRng::from_seed([1; 32]).next_u32());
    }
}
