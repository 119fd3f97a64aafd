//! X25519 (RFC 7748): the one function behind key pairs and handshakes.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// The public key of a private one (RFC 7748, section 6.1).
pub fn public_key(private: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*private)).to_bytes()
}

/// The shared secret of a private key and somebody's public one; `None` where it would be all zero, because the
/// public key is a point of low order (RFC 7748, section 6.1).
pub fn shared_secret(private: &[u8; 32], public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let shared = StaticSecret::from(*private).diffie_hellman(&PublicKey::from(*public));
    shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    /// Bob's keys are those of RFC 7748, section 6.1.
    #[test]
    fn two_sides_agree_and_a_published_key_pair_is_one() {
        let hex = |s: &str| -> [u8; 32] {
            std::array::from_fn(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap())
        };
        let alice = [7; 32];
        let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let (a, b) = (public_key(&alice), public_key(&bob));
        assert_eq!(b, hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let shared = shared_secret(&alice, &b).unwrap();
        assert_eq!(shared, shared_secret(&bob, &a).unwrap());
    }

    #[test]
    fn points_of_low_order_have_no_secret() {
        let mut one = [0; 32];
        one[0] = 1;
        assert!(shared_secret(&[7; 32], &[0; 32]).is_none());
        assert!(shared_secret(&[7; 32], &one).is_none());
    }
}
