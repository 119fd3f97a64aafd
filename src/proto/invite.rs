//! An invite: a secret that is good for one new client, and what follows from it.
//!
//! ```text
//!   secret, server's key ──BLAKE2s──▶ a key pair: the server lists its public half, the invited box has the secret
//!   the invited box, by that key ──▶ a session like any other: ENROL(its own new key, proof) ──▶ ENROLLED
//! ```
//!
//! The server never has the secret, and neither does its config: what stands there cannot be used to enrol. Whoever does
//! not know the secret is a client with an unknown key. See docs/PROTOCOL.md, section 16.

use blake2::{Blake2s256, Digest};
use zeroize::Zeroizing;

use crate::keys::x25519;
use crate::keys::{PrivateKey, PublicKey};
use crate::proto::cookie::mac;
use crate::wire::datagram::MAC_LEN;

/// Bytes of an invite's secret: what there is to guess.
pub const SECRET_LEN: usize = 16;

/// The key pair of an invite to this server.
pub fn key_pair(secret: &[u8; SECRET_LEN], server: &PublicKey) -> PrivateKey {
    let hash = Blake2s256::new()
        .chain_update(b"tap-rs v1 invite")
        .chain_update(server.as_bytes())
        .chain_update(secret)
        .finalize();
    PrivateKey::from_bytes(Zeroizing::new(hash.into()))
}

/// That somebody has the private half of `key`: either side computes it from its own private key and the other's public
/// one. `None` where the other's is a point of low order.
pub fn proof(
    private: &[u8; 32],
    theirs: &[u8; 32],
    invite: &PublicKey,
    key: &[u8; 32],
) -> Option<[u8; MAC_LEN]> {
    let shared = x25519::shared_secret(private, theirs)?;
    let text = [b"tap-rs v1 enrol", &invite.as_bytes()[..], key].concat();
    Some(mac(&*shared, &text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn key(n: u8) -> PrivateKey {
        PrivateKey::generate(&mut StdRng::from_seed([n; 32]))
    }

    /// The values that stand in docs/PROTOCOL.md, section 16; the keys are those of its worked example.
    #[test]
    fn the_documented_values_are_these() {
        let doc = include_str!("../../docs/PROTOCOL.md");
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let key = |n: u8, text: &str| {
            let byte = |i: usize| u8::from_str_radix(text.get(2 * i..2 * i + 2).unwrap(), 16).unwrap();
            PrivateKey::from_bytes(Zeroizing::new(std::array::from_fn(|i| byte(i) ^ n)))
        };
        let server = key(0, "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let client = key(0, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let secret = std::array::from_fn(|i| i as u8);
        let invite = key_pair(&secret, &server.public());
        let public = *client.public().as_bytes();
        let proof = proof(client.as_bytes(), server.public().as_bytes(), &invite.public(), &public).unwrap();
        for (name, value) in [
            ("invite_secret", &secret[..]),
            ("invite_private", invite.as_bytes()),
            ("invite_public", invite.public().as_bytes()),
            ("enrol_proof", &proof),
        ] {
            let line = format!("{name}\n    {}\n", hex(value));
            assert!(doc.contains(&line), "docs/PROTOCOL.md wants\n{line}");
        }
    }

    #[test]
    fn every_secret_and_every_server_has_a_key_pair_of_its_own() {
        let (a, b) = (key(1).public(), key(2).public());
        let public = |secret, server| key_pair(secret, server).public();
        assert_eq!(public(&[1; 16], &a), public(&[1; 16], &a));
        assert_ne!(public(&[1; 16], &a), public(&[2; 16], &a));
        assert_ne!(public(&[1; 16], &a), public(&[1; 16], &b));
    }

    #[test]
    fn both_sides_compute_one_proof_and_nobody_else_does() {
        let (server, new, other) = (key(1), key(2), key(3));
        let invite = key_pair(&[7; 16], &server.public()).public();
        let public = *new.public().as_bytes();
        let said = proof(new.as_bytes(), server.public().as_bytes(), &invite, &public);
        assert!(said.is_some());
        assert_eq!(said, proof(server.as_bytes(), &public, &invite, &public));
        assert_ne!(said, proof(other.as_bytes(), server.public().as_bytes(), &invite, &public));
        assert_ne!(said, proof(new.as_bytes(), server.public().as_bytes(), &other.public(), &public));
        assert_eq!(proof(server.as_bytes(), &[0; 32], &invite, &[0; 32]), None);
    }
}
