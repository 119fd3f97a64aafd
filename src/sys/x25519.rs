//! X25519 of AWS-LC, without the key objects around it: those know every other curve and kind of key too, and a
//! program that names them carries 1.3 MB of code that it never runs.

use zeroize::Zeroizing;

/// The public key of a private one (RFC 7748, section 6.1).
pub fn public_key(private: &[u8; 32]) -> [u8; 32] {
    let mut public = [0; 32];
    // SAFETY: both pointers are to 32 bytes, which is what the function reads and writes (openssl/curve25519.h).
    unsafe { aws_lc_sys::X25519_public_from_private(public.as_mut_ptr(), private.as_ptr()) };
    public
}

/// The shared secret of a private key and somebody's public one; `None` where it would be all zero, because the
/// public key is a point of low order (RFC 7748, section 6.1).
pub fn shared_secret(private: &[u8; 32], public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let mut shared = Zeroizing::new([0; 32]);
    // SAFETY: all pointers are to 32 bytes, which is what the function reads and writes (openssl/curve25519.h).
    let done = unsafe { aws_lc_sys::X25519(shared.as_mut_ptr(), private.as_ptr(), public.as_ptr()) };
    (done == 1 && *shared != [0; 32]).then_some(shared)
}

#[cfg(test)]
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
