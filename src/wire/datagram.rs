//! The five datagrams: what a UDP payload is.
//!
//! ```text
//!         0       1         2       3
//!       +-------+---------+-------+------+
//!       | type  | version | suite | zero |  then, little-endian throughout:
//!       +-------+---------+-------+------+
//! HELLO  sender_index u32 | nonce 16 | zero 12 | mac 16                                  52 bytes
//! COOKIE receiver_index u32 | nonce 12 | sealed cookie 16 + tag 16                       52
//! INIT   sender_index u32 | Noise message 1 (112) | mac 16                              136
//! RESP   sender_index u32 | receiver_index u32 | Noise message 2 (64) | mac 16           92
//! DATA   receiver_index u32 | counter u64 | ciphertext | tag 16                          32 + plaintext
//! ```
//!
//! No answer is longer than its question. Lengths are exact; anything else is dropped, unanswered.

use crate::metrics::DropReason;
use crate::types::Suite;

/// The protocol version that this code speaks.
pub const VERSION: u8 = 1;

/// Bytes of a MAC at the end of a handshake datagram.
pub const MAC_LEN: usize = 16;
/// Bytes of a cookie.
pub const COOKIE_LEN: usize = 16;
/// Bytes of a HELLO.
pub const HELLO_LEN: usize = 52;
/// Bytes of a COOKIE.
pub const COOKIE_DATAGRAM_LEN: usize = 52;
/// Bytes of the INIT header: what the Noise prologue binds.
pub const INIT_HEADER_LEN: usize = 8;
/// Noise message 1: e (32), s (32 + 16), payload (16 + 16).
pub const NOISE_1_LEN: usize = 112;
/// Bytes of an INIT.
pub const INIT_LEN: usize = INIT_HEADER_LEN + NOISE_1_LEN + MAC_LEN;
/// Noise message 2: e (32), payload (16 + 16).
pub const NOISE_2_LEN: usize = 64;
/// Bytes of a RESP.
pub const RESP_LEN: usize = 12 + NOISE_2_LEN + MAC_LEN;
/// Bytes of a DATA datagram before its ciphertext.
pub const DATA_HEADER_LEN: usize = 16;

/// Bytes of the shortest DATA datagram.
pub const DATA_LEN_MIN: u16 = (DATA_HEADER_LEN + MAC_LEN) as u16;

/// Where the receiver's index is in a DATA datagram.
pub const INDEX_OFFSET: u16 = 4;
/// Where a HELLO has four bytes of zero each.
pub const HELLO_ZERO: [u16; 3] = [24, 28, 32];
/// Where the lane is in a DATA datagram: the highest byte of its counter.
pub const LANE_OFFSET: u8 = 15;
/// Bytes of the payload of either handshake message.
pub const NOISE_PAYLOAD_LEN: usize = 16;

const _: () =
    assert!(INIT_LEN == 136 && RESP_LEN == 92 && RESP_LEN <= INIT_LEN && COOKIE_DATAGRAM_LEN <= HELLO_LEN);

/// The type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// Client to server: may I?
    Hello = 1,
    /// Server to client: prove that you are where you say.
    Cookie = 2,
    /// Client to server: Noise message 1.
    Init = 3,
    /// Server to client: Noise message 2.
    Resp = 4,
    /// Either way: sealed records.
    Data = 5,
}

/// What the first four bytes of any datagram say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the rest is.
    pub kind: Type,
    /// Which Noise protocol it belongs to.
    pub suite: Suite,
}

impl Header {
    const fn encode(self) -> [u8; 4] {
        [self.kind as u8, VERSION, self.suite as u8, 0]
    }

    /// Reads the first four bytes, and checks that the datagram is as long as its type must be.
    pub fn decode(datagram: &[u8]) -> Result<Self, DropReason> {
        let Some(&[kind, version, suite, zero]) = datagram.first_chunk::<4>() else {
            return Err(DropReason::BadLength);
        };
        let (kind, fits) = match kind {
            1 => (Type::Hello, datagram.len() == HELLO_LEN),
            2 => (Type::Cookie, datagram.len() == COOKIE_DATAGRAM_LEN),
            3 => (Type::Init, datagram.len() == INIT_LEN),
            4 => (Type::Resp, datagram.len() == RESP_LEN),
            5 => (Type::Data, datagram.len() >= usize::from(DATA_LEN_MIN)),
            _ => return Err(DropReason::UnknownType),
        };
        if version != VERSION {
            return Err(DropReason::BadVersion);
        }
        let suite = Suite::from_u8(suite).ok_or(DropReason::BadSuite)?;
        if zero != 0 {
            return Err(DropReason::ReservedBits);
        }
        if fits { Ok(Self { kind, suite }) } else { Err(DropReason::BadLength) }
    }
}

/// Client to server: asks for a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which suite the handshake will use.
    pub suite: Suite,
    /// Names the client's attempt; comes back in the COOKIE.
    pub sender_index: u32,
    /// Random: makes each HELLO, and so each sealed cookie, different.
    pub nonce: [u8; 16],
}

impl Hello {
    /// The datagram; `mac` computes the MAC over all bytes before it.
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> [u8; MAC_LEN]) -> [u8; HELLO_LEN] {
        let mut d = [0; HELLO_LEN];
        put(&mut d, 0, &Header { kind: Type::Hello, suite: self.suite }.encode());
        put(&mut d, 4, &self.sender_index.to_le_bytes());
        put(&mut d, 8, &self.nonce);
        sign(&mut d, mac);
        d
    }

    /// The HELLO, the bytes that its MAC covers, and the MAC.
    pub fn decode(d: &[u8; HELLO_LEN]) -> Result<(Self, &[u8], &[u8; MAC_LEN]), DropReason> {
        let suite = Header::decode(d)?.suite;
        let (signed, mac) = signature(d)?;
        if take::<12>(d, 24)? != [0; 12] {
            return Err(DropReason::ReservedBits);
        }
        let sender_index = u32::from_le_bytes(take(d, 4)?);
        Ok((Self { suite, sender_index, nonce: take(d, 8)? }, signed, mac))
    }
}

/// Server to client: a cookie, sealed to the HELLO that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The HELLO's suite.
    pub suite: Suite,
    /// The HELLO's `sender_index`.
    pub receiver_index: u32,
    /// Random nonce of the seal.
    pub nonce: [u8; 12],
    /// The cookie under ChaCha20-Poly1305, tag behind it.
    pub sealed: [u8; COOKIE_LEN + 16],
}

impl Cookie {
    /// The datagram.
    pub fn encode(&self) -> [u8; COOKIE_DATAGRAM_LEN] {
        let mut d = [0; COOKIE_DATAGRAM_LEN];
        put(&mut d, 0, &Header { kind: Type::Cookie, suite: self.suite }.encode());
        put(&mut d, 4, &self.receiver_index.to_le_bytes());
        put(&mut d, 8, &self.nonce);
        put(&mut d, 20, &self.sealed);
        d
    }

    /// The COOKIE.
    pub fn decode(d: &[u8; COOKIE_DATAGRAM_LEN]) -> Result<Self, DropReason> {
        let suite = Header::decode(d)?.suite;
        let receiver_index = u32::from_le_bytes(take(d, 4)?);
        Ok(Self { suite, receiver_index, nonce: take(d, 8)?, sealed: take(d, 20)? })
    }
}

/// Client to server: Noise message 1, under a MAC that only the holder of the cookie can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// Which suite.
    pub suite: Suite,
    /// The index that the client wants in what it receives.
    pub sender_index: u32,
    /// The Noise message.
    pub noise: [u8; NOISE_1_LEN],
}

impl Init {
    /// The first bytes of the datagram: they stand in the Noise prologue, so they are fixed before the message is made.
    pub fn header(suite: Suite, sender_index: u32) -> [u8; INIT_HEADER_LEN] {
        let [a, b, c, d] = Header { kind: Type::Init, suite }.encode();
        let [e, f, g, h] = sender_index.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// The datagram; `mac` computes the MAC over all bytes before it.
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> [u8; MAC_LEN]) -> [u8; INIT_LEN] {
        let mut d = [0; INIT_LEN];
        put(&mut d, 0, &Self::header(self.suite, self.sender_index));
        put(&mut d, 8, &self.noise);
        sign(&mut d, mac);
        d
    }

    /// The INIT, the bytes that its MAC covers, and the MAC.
    pub fn decode(d: &[u8; INIT_LEN]) -> Result<(Self, &[u8], &[u8; MAC_LEN]), DropReason> {
        let suite = Header::decode(d)?.suite;
        let (signed, mac) = signature(d)?;
        Ok((Self { suite, sender_index: u32::from_le_bytes(take(d, 4)?), noise: take(d, 8)? }, signed, mac))
    }
}

/// Server to client: Noise message 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resp {
    /// Which suite.
    pub suite: Suite,
    /// The index that the server wants in what it receives. Stands in the Noise payload too, which authenticates it.
    pub sender_index: u32,
    /// The INIT's `sender_index`.
    pub receiver_index: u32,
    /// The Noise message.
    pub noise: [u8; NOISE_2_LEN],
}

impl Resp {
    /// The datagram; `mac` computes the MAC over all bytes before it.
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> [u8; MAC_LEN]) -> [u8; RESP_LEN] {
        let mut d = [0; RESP_LEN];
        put(&mut d, 0, &Header { kind: Type::Resp, suite: self.suite }.encode());
        put(&mut d, 4, &self.sender_index.to_le_bytes());
        put(&mut d, 8, &self.receiver_index.to_le_bytes());
        put(&mut d, 12, &self.noise);
        sign(&mut d, mac);
        d
    }

    /// The RESP, the bytes that its MAC covers, and the MAC.
    pub fn decode(d: &[u8; RESP_LEN]) -> Result<(Self, &[u8], &[u8; MAC_LEN]), DropReason> {
        let suite = Header::decode(d)?.suite;
        let (signed, mac) = signature(d)?;
        let sender_index = u32::from_le_bytes(take(d, 4)?);
        let receiver_index = u32::from_le_bytes(take(d, 8)?);
        Ok((Self { suite, sender_index, receiver_index, noise: take(d, 12)? }, signed, mac))
    }
}

/// What either handshake message carries inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakePayload {
    /// A random number for one run of the sender's program.
    pub instance: u64,
    /// Message 1: features, of which there are none yet, 0. Message 2: the index that the RESP's header bears.
    pub bound: u64,
}

impl HandshakePayload {
    /// The 16 bytes.
    pub fn encode(self) -> [u8; NOISE_PAYLOAD_LEN] {
        let mut payload = [0; NOISE_PAYLOAD_LEN];
        put(&mut payload, 0, &self.instance.to_le_bytes());
        put(&mut payload, 8, &self.bound.to_le_bytes());
        payload
    }

    /// What the 16 bytes say; any do.
    pub fn decode(payload: &[u8; NOISE_PAYLOAD_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *payload;
        Self {
            instance: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            bound: u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        }
    }
}

/// What stands before a DATA datagram's ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The session's suite.
    pub suite: Suite,
    /// The index that the receiver chose.
    pub receiver_index: u32,
    /// Lane (8 bits) and sequence number (56 bits): the AEAD's nonce.
    pub counter: u64,
}

impl DataHeader {
    /// The 16 bytes.
    pub fn encode(self) -> [u8; DATA_HEADER_LEN] {
        let mut h = [0; DATA_HEADER_LEN];
        put(&mut h, 0, &Header { kind: Type::Data, suite: self.suite }.encode());
        put(&mut h, 4, &self.receiver_index.to_le_bytes());
        Self::put_counter(&mut h, self.counter);
        h
    }

    /// Writes another counter into an encoded header.
    pub fn put_counter(header: &mut [u8; DATA_HEADER_LEN], counter: u64) {
        put(header, 8, &counter.to_le_bytes());
    }

    /// The header and what it stands before.
    pub fn split(d: &mut [u8]) -> Result<(Self, &mut [u8]), DropReason> {
        let Header { kind: Type::Data, suite } = Header::decode(d)? else {
            return Err(DropReason::UnknownType);
        };
        let (receiver_index, counter) = (u32::from_le_bytes(take(d, 4)?), u64::from_le_bytes(take(d, 8)?));
        let (_, sealed) = d.split_at_mut_checked(DATA_HEADER_LEN).ok_or(DropReason::BadLength)?;
        Ok((Self { suite, receiver_index, counter }, sealed))
    }

    /// The receiver's index of a datagram whose header has been decoded.
    pub fn receiver_index(d: &[u8]) -> Result<u32, DropReason> {
        Ok(u32::from_le_bytes(take(d, 4)?))
    }
}

/// Copies `bytes` to `at`; every call's bounds are constants of the layouts above.
fn put(d: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = d.get_mut(at..).and_then(|d| d.get_mut(..bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

fn take<const N: usize>(d: &[u8], at: usize) -> Result<[u8; N], DropReason> {
    d.get(at..).and_then(|d| d.first_chunk::<N>()).copied().ok_or(DropReason::BadLength)
}

fn sign(d: &mut [u8], mac: impl FnOnce(&[u8]) -> [u8; MAC_LEN]) {
    if let Some((signed, place)) = d.split_last_chunk_mut::<MAC_LEN>() {
        *place = mac(signed);
    }
}

fn signature(d: &[u8]) -> Result<(&[u8], &[u8; MAC_LEN]), DropReason> {
    d.split_last_chunk::<MAC_LEN>().ok_or(DropReason::BadLength)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn suite() -> impl Strategy<Value = Suite> {
        prop::sample::select(&Suite::ALL[..])
    }

    fn mac(signed: &[u8]) -> [u8; MAC_LEN] {
        [signed.iter().fold(0, |a, b| a ^ b); MAC_LEN]
    }

    proptest! {
        #[test]
        fn datagrams_survive_the_wire(suite in suite(), a: u32, b: u32, c: u64, nonce: [u8; 16], fill: u8) {
            let hello = Hello { suite, sender_index: a, nonce };
            let d = hello.encode(mac);
            let (got, signed, m) = Hello::decode(&d).unwrap();
            prop_assert_eq!((got, *m), (hello, mac(signed)));

            let cookie = Cookie { suite, receiver_index: a, nonce: [fill; 12], sealed: [fill; 32] };
            prop_assert_eq!(Cookie::decode(&cookie.encode()), Ok(cookie));

            let init = Init { suite, sender_index: a, noise: [fill; NOISE_1_LEN] };
            let d = init.encode(mac);
            let (got, signed, m) = Init::decode(&d).unwrap();
            prop_assert_eq!((got, *m), (init, mac(signed)));

            let resp = Resp { suite, sender_index: a, receiver_index: b, noise: [fill; NOISE_2_LEN] };
            let d = resp.encode(mac);
            let (got, signed, m) = Resp::decode(&d).unwrap();
            prop_assert_eq!((got, *m), (resp, mac(signed)));

            let payload = HandshakePayload { instance: c, bound: u64::from(a) };
            prop_assert_eq!(HandshakePayload::decode(&payload.encode()), payload);

            let data = DataHeader { suite, receiver_index: a, counter: c };
            let mut d = data.encode().to_vec();
            d.extend([fill; 20]);
            let (got, sealed) = DataHeader::split(&mut d).unwrap();
            prop_assert_eq!((got, &sealed[..]), (data, &[fill; 20][..]));
        }

        #[test]
        fn a_header_is_exact_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            if let Ok(h) = Header::decode(&bytes) {
                prop_assert_eq!(&bytes[..4], &h.encode()[..]);
            }
        }
    }

    #[test]
    fn each_deviation_has_its_reason() {
        let good = Hello { suite: Suite::Aes, sender_index: 1, nonce: [0; 16] }.encode(mac);
        let with = |at: usize, value: u8| {
            let mut d = good;
            d[at] = value;
            Hello::decode(&d).err()
        };
        assert_eq!(with(0, 9), Some(DropReason::UnknownType));
        assert_eq!(with(1, 2), Some(DropReason::BadVersion));
        assert_eq!(with(2, 7), Some(DropReason::BadSuite));
        assert_eq!(with(3, 1), Some(DropReason::ReservedBits));
        assert_eq!(with(30, 1), Some(DropReason::ReservedBits));
        assert_eq!(Header::decode(&good[..51]), Err(DropReason::BadLength));
        assert_eq!(Header::decode(&[]), Err(DropReason::BadLength));
    }
}
