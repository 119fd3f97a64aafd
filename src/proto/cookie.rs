//! Cookies: proof that a client receives at the address it sends from, before any Diffie-Hellman.
//!
//! ```text
//! client                                   server
//!   HELLO, MAC under the server's name  →    checked; nothing is kept
//!   ←  COOKIE, sealed to that HELLO          cookie = MAC(secret, address)
//!   INIT, MAC under the cookie          →    recomputed from the address; then Noise
//! ```
//!
//! A scanner that does not know the server's public key gets silence. An off-path attacker neither sees a cookie nor
//! can open one. The secret turns over every [`SECRET_LIFE`]; the one before it still counts.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use rand::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::aead::AeadKey;
use crate::keys::PublicKey;
use crate::types::Suite;
use crate::wire::datagram::{COOKIE_LEN, HELLO_LEN, MAC_LEN};

/// How long a secret makes cookies; a cookie is good for once to twice as long.
pub const SECRET_LIFE: Duration = Duration::from_secs(60);

/// BLAKE2s with a 16-byte result, keyed (RFC 7693).
pub fn mac(key: &[u8], bytes: &[u8]) -> [u8; MAC_LEN] {
    // A BLAKE2s key has 1 to 32 bytes; ours have 16 or 32.
    let Ok(mut mac) = Blake2sMac::<U16>::new_from_slice(key) else { return [0; MAC_LEN] };
    Mac::update(&mut mac, bytes);
    mac.finalize().into_bytes().into()
}

/// Compares in constant time.
pub fn equal(a: &[u8; MAC_LEN], b: &[u8; MAC_LEN]) -> bool {
    a.ct_eq(b).into()
}

/// The keys that follow from a server's public key: what a client must know to be answered at all.
pub struct ServerName {
    hello: [u8; 32],
    seal: AeadKey,
}

impl ServerName {
    /// The keys of this server. `None` only if the AEAD refuses 32 bytes of key.
    pub fn new(server: &PublicKey) -> Option<Self> {
        let derive = |label: &[u8]| -> [u8; 32] {
            Blake2s256::new().chain_update(label).chain_update(server.as_bytes()).finalize().into()
        };
        let seal = AeadKey::new(Suite::ChaCha, &derive(b"tap-rs v1 cookie"))?;
        Some(Self { hello: derive(b"tap-rs v1 hello"), seal })
    }

    /// The MAC of a HELLO over `signed`.
    pub fn hello_mac(&self, signed: &[u8]) -> [u8; MAC_LEN] {
        mac(&self.hello, signed)
    }

    /// Seals a cookie to the HELLO that asked for it.
    pub fn seal(
        &self,
        hello: &[u8; HELLO_LEN],
        nonce: [u8; 12],
        cookie: &[u8; COOKIE_LEN],
    ) -> Option<[u8; COOKIE_LEN + 16]> {
        let mut text = *cookie;
        let tag = self.seal.seal_under(nonce, hello, &mut text).ok()?;
        let mut sealed = [0; COOKIE_LEN + 16];
        let (a, b) = sealed.split_first_chunk_mut::<COOKIE_LEN>()?;
        *a = text;
        b.copy_from_slice(&tag);
        Some(sealed)
    }

    /// Opens a cookie sealed to our HELLO; `None` if it was not.
    pub fn open(
        &self,
        hello: &[u8; HELLO_LEN],
        nonce: [u8; 12],
        mut sealed: [u8; COOKIE_LEN + 16],
    ) -> Option<[u8; COOKIE_LEN]> {
        let cookie = self.seal.open_under(nonce, hello, &mut sealed).ok()?;
        cookie.first_chunk().copied()
    }
}

/// A server's secrets: it knows every cookie that it could have given, and remembers none.
pub struct CookieJar {
    current: Zeroizing<[u8; 32]>,
    previous: Zeroizing<[u8; 32]>,
    turned: Instant,
}

impl CookieJar {
    /// Fresh secrets.
    pub fn new(now: Instant, rng: &mut impl CryptoRng) -> Self {
        Self { current: fresh(rng), previous: fresh(rng), turned: now }
    }

    /// Turns the secret over where its time has come; call before the others.
    pub fn turn(&mut self, now: Instant, rng: &mut impl CryptoRng) {
        let age = now.saturating_duration_since(self.turned);
        if age < SECRET_LIFE {
            return;
        }
        self.previous = std::mem::replace(&mut self.current, fresh(rng));
        if age >= SECRET_LIFE.saturating_mul(2) {
            self.previous = fresh(rng);
        }
        self.turned = now;
    }

    /// The cookie of an address.
    pub fn bake(&self, address: SocketAddr) -> [u8; COOKIE_LEN] {
        mac(&*self.current, &encode(address))
    }

    /// The cookie of that address under which `mac_of` gives `expected`, if there is one.
    pub fn find(
        &self,
        address: SocketAddr,
        expected: &[u8; MAC_LEN],
        signed: &[u8],
    ) -> Option<[u8; COOKIE_LEN]> {
        let address = encode(address);
        [&self.current, &self.previous]
            .into_iter()
            .map(|secret| mac(&**secret, &address))
            .find(|cookie| equal(&mac(cookie, signed), expected))
    }
}

fn fresh(rng: &mut impl CryptoRng) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *secret);
    secret
}

/// 16 bytes of IPv6 or IPv4-mapped address and the port, little-endian.
fn encode(address: SocketAddr) -> [u8; 18] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut out = [0; 18];
    if let Some((a, b)) = out.split_first_chunk_mut::<16>() {
        *a = ip.octets();
        b.copy_from_slice(&address.port().to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PrivateKey;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_two_lives() {
        let (t0, mut rng) = (Instant::now(), StdRng::from_seed([1; 32]));
        let mut jar = CookieJar::new(t0, &mut rng);
        let cookie = jar.bake(address(1));
        let signature = mac(&cookie, b"init");
        assert_eq!(jar.find(address(1), &signature, b"init"), Some(cookie));
        assert_eq!(jar.find(address(2), &signature, b"init"), None);
        assert_eq!(jar.find(address(1), &signature, b"other"), None);
        jar.turn(t0 + SECRET_LIFE, &mut rng);
        assert_eq!(jar.find(address(1), &signature, b"init"), Some(cookie));
        jar.turn(t0 + SECRET_LIFE * 2, &mut rng);
        assert_eq!(jar.find(address(1), &signature, b"init"), None);
    }

    #[test]
    fn a_secret_turns_when_its_life_is_over_and_not_before() {
        let (t0, mut rng) = (Instant::now(), StdRng::from_seed([1; 32]));
        let mut jar = CookieJar::new(t0, &mut rng);
        let cookie = jar.bake(address(1));
        jar.turn(t0 + SECRET_LIFE - Duration::from_nanos(1), &mut rng);
        assert_eq!(jar.bake(address(1)), cookie);
        jar.turn(t0 + SECRET_LIFE, &mut rng);
        assert_ne!(jar.bake(address(1)), cookie);
    }

    #[test]
    fn an_old_secret_does_not_outlive_a_long_silence() {
        let (t0, mut rng) = (Instant::now(), StdRng::from_seed([1; 32]));
        let mut jar = CookieJar::new(t0, &mut rng);
        let cookie = jar.bake(address(1));
        jar.turn(t0 + SECRET_LIFE * 2, &mut rng);
        assert_eq!(jar.find(address(1), &mac(&cookie, b"init"), b"init"), None);
    }

    #[test]
    fn a_sealed_cookie_opens_only_for_its_hello_and_server() {
        let key = |n| PrivateKey::generate(&mut StdRng::from_seed([n; 32])).public();
        let (name, other) = (ServerName::new(&key(1)).unwrap(), ServerName::new(&key(2)).unwrap());
        let sealed = name.seal(&[5; HELLO_LEN], [6; 12], &[7; 16]).unwrap();
        assert_eq!(name.open(&[5; HELLO_LEN], [6; 12], sealed), Some([7; 16]));
        assert_eq!(name.open(&[4; HELLO_LEN], [6; 12], sealed), None);
        assert_eq!(name.open(&[5; HELLO_LEN], [5; 12], sealed), None);
        assert_eq!(other.open(&[5; HELLO_LEN], [6; 12], sealed), None);
    }
}
