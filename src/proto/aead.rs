//! The AEAD of a session: one key, one direction, in place.
//!
//! Keys come from the raw split of a finished Noise handshake (Noise, section 5.2) and are used exactly as
//! Noise transport messages use them (section 12): nonce = four zero bytes ‖ 64-bit counter, little-endian for
//! ChaChaPoly and big-endian for AESGCM, and empty associated data. Any Noise library interoperates.

// Two libraries of one shape: which of them is all that differs.
#[cfg(feature = "aws-lc")]
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
#[cfg(not(feature = "aws-lc"))]
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::types::Suite;

/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;

/// The ciphertext was not made with this key and counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthentic;

/// An AEAD key. Safe to share: sealing takes the counter from whoever owns the right to it.
pub struct AeadKey {
    key: LessSafeKey,
    big_endian: bool,
}

impl AeadKey {
    /// The key of one direction of a session. `None` only if the library refuses 32 bytes of key, which it does not.
    pub fn new(suite: Suite, key: &[u8; 32]) -> Option<Self> {
        let algorithm = if suite.is_aes() { &AES_256_GCM } else { &CHACHA20_POLY1305 };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { key, big_endian: suite.is_aes() })
    }

    /// Encrypts `plaintext` in place and returns the tag that goes behind it.
    pub fn seal(
        &self,
        counter: u64,
        associated: &[u8],
        plaintext: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Unauthentic> {
        self.seal_under(self.nonce(counter), associated, plaintext)
    }

    /// The same under a nonce that is not a counter.
    pub fn seal_under(
        &self,
        nonce: [u8; NONCE_LEN],
        associated: &[u8],
        plaintext: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Unauthentic> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(associated), plaintext);
        tag.map_err(|_| Unauthentic)?.as_ref().try_into().map_err(|_| Unauthentic)
    }

    /// Verifies `ciphertext` with its tag behind it, decrypts it in place and returns the plaintext.
    pub fn open<'a>(
        &self,
        counter: u64,
        associated: &[u8],
        ciphertext: &'a mut [u8],
    ) -> Result<&'a mut [u8], Unauthentic> {
        self.open_under(self.nonce(counter), associated, ciphertext)
    }

    /// The same under a nonce that is not a counter.
    pub fn open_under<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        associated: &[u8],
        ciphertext: &'a mut [u8],
    ) -> Result<&'a mut [u8], Unauthentic> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place(nonce, Aad::from(associated), ciphertext).map_err(|_| Unauthentic)
    }

    fn nonce(&self, counter: u64) -> [u8; NONCE_LEN] {
        let counter = if self.big_endian { counter.to_be_bytes() } else { counter.to_le_bytes() };
        let [a, b, c, d, e, f, g, h] = counter;
        [0, 0, 0, 0, a, b, c, d, e, f, g, h]
    }
}
