//! Bytes that tell where in the stream they belong, and dice, both the same for the same seed.

use std::sync::LazyLock;

pub static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    // An odd length, so that it meets every boundary.
    (0..125_000).flat_map(|_| dice.roll().to_le_bytes()).chain([0x5a]).collect()
});

/// The stream's bytes from `at` on, as many as lie together.
pub fn noise(at: usize) -> &'static [u8] {
    &NOISE[at % NOISE.len()..]
}

/// Panics where `got` is not the stream's bytes from `at` on.
pub fn compare(mut at: usize, mut got: &[u8]) {
    while !got.is_empty() {
        let part = noise(at);
        let n = part.len().min(got.len());
        assert!(got[..n] == part[..n], "wrong bytes between {at} and {}", at + n);
        (at, got) = (at + n, &got[n..]);
    }
}

/// Numbers that look random (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((self.roll() >> 16) % n as u64) as usize
    }

    pub fn fork(&mut self) -> Self {
        Self(self.roll() | 1)
    }
}
