//! The one-time string that `tap-rs invite` prints and `tap-rs join` takes.
//!
//! ```text
//! base64url, without padding, of (integers little-endian):
//! version u8 = 1 | suites u8 | until u64 | server's public key 32 | secret 16 | port u16 | host length u8 | host | checksum 4
//! ```
//!
//! `suites`: bit 0 AES-256-GCM, bit 1 ChaCha20-Poly1305. `until`: seconds since 1970. `host`: an address or a DNS name.
//! `checksum`: the first bytes of the SHA-256 of all before it, against slips of whoever copies it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::keys::PublicKey;
use crate::types::ParseError;

use super::address::ServerAddr;
use super::moment::Moment;

const VERSION: u8 = 1;
const CHECKSUM: usize = 4;

/// What a box needs to become a client.
pub struct InviteString {
    /// Where the server is.
    pub server: ServerAddr,
    /// Who the server is.
    pub server_key: PublicKey,
    /// The secret of this invite.
    pub secret: Zeroizing<[u8; 16]>,
    /// Until when the server takes it.
    pub until: Moment,
    /// The server accepts AES-256-GCM.
    pub aes: bool,
    /// The server accepts ChaCha20-Poly1305.
    pub chacha: bool,
}

impl InviteString {
    /// The string, which whoever has it may use.
    pub fn text(&self) -> Zeroizing<String> {
        let host = self.server.host.to_string();
        let mut bytes = Zeroizing::new(vec![VERSION, u8::from(self.aes) | u8::from(self.chacha) << 1]);
        bytes.extend(self.until.0.to_le_bytes());
        bytes.extend(self.server_key.as_bytes());
        bytes.extend(self.secret.iter());
        bytes.extend(self.server.port.to_le_bytes());
        // A DNS name has at most 253 bytes, an address fewer.
        bytes.push(u8::try_from(host.len()).unwrap_or(u8::MAX));
        bytes.extend(host.as_bytes());
        let sum = checksum(&bytes);
        bytes.extend(sum);
        Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes))
    }
}

impl FromStr for InviteString {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let damaged = || {
            ParseError(
                "this is no whole invite: a character is missing, changed or too many; copy the line that \
                 `tap-rs invite` printed once more"
                    .to_owned(),
            )
        };
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(s.trim()).map_err(|_| damaged())?);
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(damaged)?;
        if checksum(body) != *sum {
            return Err(damaged());
        }
        match body.first() {
            Some(&VERSION) => read(body).ok_or_else(damaged),
            other => Err(ParseError(format!(
                "this invite has version {}, and this tap-rs reads version {VERSION}; install the release that the \
                 server has",
                other.copied().unwrap_or_default()
            ))),
        }
    }
}

impl fmt::Debug for InviteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an invite to {} until {}", self.server, self.until)
    }
}

fn read(body: &[u8]) -> Option<InviteString> {
    let (head, rest) = body.split_first_chunk::<10>()?;
    let [_, suites, until @ ..] = *head;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let (secret, rest) = rest.split_first_chunk::<16>()?;
    let ([a, b, length], host) = rest.split_first_chunk::<3>()?;
    let host = std::str::from_utf8(host).ok().filter(|h| h.len() == usize::from(*length))?;
    let port = u16::from_le_bytes([*a, *b]);
    let colons = host.contains(':');
    let server = if colons { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Some(InviteString {
        server: server.parse().ok()?,
        server_key: PublicKey::try_from(*key).ok()?,
        secret: Zeroizing::new(*secret),
        until: Moment(u64::from_le_bytes(until)),
        aes: suites & 1 != 0,
        chacha: suites & 2 != 0,
    })
    .filter(|invite| invite.aes || invite.chacha)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(bytes));
    [a, b, c, d]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::keys::PrivateKey;
    use proptest::prelude::*;

    fn invite(server: &str) -> InviteString {
        InviteString {
            server: server.parse().unwrap(),
            server_key: PrivateKey::generate(&mut rand::rng()).public(),
            secret: Zeroizing::new([7; 16]),
            until: Moment(1_795_428_000),
            aes: true,
            chacha: false,
        }
    }

    #[test]
    fn an_invite_survives_being_copied() {
        for server in ["203.0.113.10:1234", "[2001:db8::1]:9", "tunnel.example.net:65535"] {
            let (before, text) = (invite(server), invite(server).text());
            assert!(text.len() < 200 && !text.contains(['=', '+', '/']), "{}", *text);
            let after: InviteString = format!(" {}\n", *before.text()).parse().unwrap();
            assert_eq!((after.server.to_string(), after.server_key), (server.to_owned(), before.server_key));
            assert_eq!((*after.secret, after.until), (*before.secret, before.until));
            assert_eq!((after.aes, after.chacha), (true, false));
        }
    }

    #[test]
    fn no_changed_cut_or_lengthened_invite_is_taken() {
        let text = invite("203.0.113.10:1234").text();
        for at in 0..text.len() {
            for other in ["A", "z", "_", "=", "é"] {
                let mut changed = text.to_string();
                changed.replace_range(at..=at, other);
                let same = changed == *text;
                // The last character has bits to spare, which the decoder wants to be zero.
                assert!(same || changed.parse::<InviteString>().is_err_and(|e| e.0.contains("once more")));
            }
            assert!(text[..at].parse::<InviteString>().is_err());
        }
        assert!(format!("{}A", *text).parse::<InviteString>().is_err());
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = URL_SAFE_NO_PAD.decode(&*invite("h.example:1").text()).unwrap();
        bytes.truncate(bytes.len() - CHECKSUM);
        bytes[0] = 2;
        let sum = checksum(&bytes);
        bytes.extend(sum);
        let why = URL_SAFE_NO_PAD.encode(&bytes).parse::<InviteString>().unwrap_err();
        assert!(why.0.contains("version 2"), "{why:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_invite_or_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), right in any::<bool>()) {
            if right {
                bytes.splice(0..0, [VERSION, 3]);
                let sum = checksum(&bytes);
                bytes.extend(sum);
            }
            let _ = URL_SAFE_NO_PAD.encode(&bytes).parse::<InviteString>();
        }
    }
}
