//! Noise IK, by snow, over primitives of our choice.
//!
//! [`Initiator`] and [`respond`] are the whole handshake: message 1 out, message 2 back, keys. The resolver gives
//! snow our X25519, our AEADs and BLAKE2s of the blake2 crate; an all-zero Diffie-Hellman result is refused
//! (RFC 7748, section 6.1), which snow itself does not do. Randomness comes in as a seed.
//!
//! Rules that snow leaves to its user: no state is read after an error, keys are split off only when the handshake is
//! finished, and keys of the wrong length never reach it.

mod primitives;

use std::sync::Arc;

use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

pub use self::primitives::{Known, Resolver};
use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::metrics::DropReason;
use crate::proto::session::Keys;
use crate::types::Suite;
use crate::wire::datagram::{COOKIE_LEN, INIT_HEADER_LEN, Init, NOISE_1_LEN, NOISE_2_LEN, NOISE_PAYLOAD_LEN};

/// What each handshake message carries inside.
pub type Payload = [u8; NOISE_PAYLOAD_LEN];

/// A seed for one handshake's ephemeral key. Never used twice.
pub type Seed = Zeroizing<[u8; 32]>;

const PROLOGUE: &[u8] = b"tap-rs v1 ";

/// Where a pre-shared key is mixed in: at the end of message 2 (Noise, section 9.4).
const PSK_LOCATION: usize = 2;

/// A client that has written message 1 and waits for message 2.
pub struct Initiator {
    state: HandshakeState,
    suite: Suite,
    local_index: u32,
}

/// Everything that a handshake is bound to on the client.
pub struct Offerer<'a> {
    /// The client's own key.
    pub identity: &'a PrivateKey,
    /// The server's.
    pub server: &'a PublicKey,
    /// Mixed in where the suite says so.
    pub psk: Option<&'a PresharedKey>,
    /// Which suite.
    pub suite: Suite,
    /// The index that the client wants in what it receives.
    pub local_index: u32,
    /// The cookie that the server gave for this address.
    pub cookie: &'a [u8; COOKIE_LEN],
}

impl Initiator {
    /// Writes message 1. `None` where the suite wants a pre-shared key and there is none.
    pub fn start(offer: &Offerer<'_>, payload: &Payload, seed: &Seed) -> Option<(Self, Init)> {
        let header = Init::header(offer.suite, offer.local_index);
        let prologue = prologue(&header, offer.cookie);
        let builder = builder(offer.suite, Resolver::new(seed, offer.identity))?
            .local_private_key(offer.identity.as_bytes())
            .and_then(|b| b.remote_public_key(offer.server.as_bytes()))
            .and_then(|b| b.prologue(&prologue))
            .ok()?;
        let mut state = builder.build_initiator().ok()?;
        if offer.suite.has_psk() {
            state.set_psk(PSK_LOCATION, offer.psk?.as_bytes()).ok()?;
        }
        let mut noise = [0; NOISE_1_LEN];
        if state.write_message(payload, &mut noise).ok()? != NOISE_1_LEN {
            return None;
        }
        let init = Init { suite: offer.suite, sender_index: offer.local_index, noise };
        Some((Self { state, suite: offer.suite, local_index: offer.local_index }, init))
    }

    /// Reads message 2. After an error the handshake still waits: a forged message 2 ends nothing.
    pub fn finish(
        &mut self,
        noise: &[u8; NOISE_2_LEN],
        remote_index: u32,
    ) -> Result<(Keys, Payload), DropReason> {
        // snow writes the plaintext before it has seen the whole message, so it needs a place as long as the message.
        let mut plain = [0; NOISE_2_LEN];
        let n = self.state.read_message(noise, &mut plain).map_err(|_| DropReason::BadHandshake)?;
        let payload =
            *plain.first_chunk().filter(|_| n == NOISE_PAYLOAD_LEN).ok_or(DropReason::BadHandshake)?;
        let (send, receive) = split(&mut self.state)?;
        let keys = Keys { suite: self.suite, send, receive, local_index: self.local_index, remote_index };
        Ok((keys, payload))
    }
}

/// What a server needs to know to answer message 1.
pub struct Answerer<'a> {
    /// The server's own key.
    pub identity: &'a PrivateKey,
    /// Whom it answers at all.
    pub known: Known,
    /// The cookie under which the INIT's MAC was right.
    pub cookie: &'a [u8; COOKIE_LEN],
    /// The index that the server wants in what it receives.
    pub local_index: u32,
}

/// A server's answer to an INIT.
pub struct Answer {
    /// The session's keys.
    pub keys: Keys,
    /// Message 2.
    pub noise: [u8; NOISE_2_LEN],
    /// What message 1 carried.
    pub payload: Payload,
}

/// Reads message 1 and writes message 2. `admit` is asked about the client's static key, with what message 1 carried:
/// its error ends the handshake, its value goes out with the answer; a suite with a pre-shared key takes the key from it.
pub fn respond<'k, T>(
    server: &Answerer<'_>,
    init: &Init,
    payload: &Payload,
    seed: &Seed,
    admit: impl FnOnce(&[u8; 32], &Payload) -> Result<(T, Option<&'k PresharedKey>), DropReason>,
) -> Result<(T, Answer), DropReason> {
    let header = Init::header(init.suite, init.sender_index);
    let prologue = prologue(&header, server.cookie);
    let resolver = Resolver::of_responder(seed, server.identity, Arc::clone(&server.known));
    let mut state = builder(init.suite, resolver)
        .ok_or(DropReason::BadHandshake)?
        .local_private_key(server.identity.as_bytes())
        .and_then(|b| b.prologue(&prologue))
        .and_then(Builder::build_responder)
        .map_err(|_| DropReason::BadHandshake)?;
    let mut plain = [0; NOISE_1_LEN];
    let n = state.read_message(&init.noise, &mut plain).map_err(|_| DropReason::BadHandshake)?;
    let theirs = *plain.first_chunk().filter(|_| n == NOISE_PAYLOAD_LEN).ok_or(DropReason::BadHandshake)?;
    let client: [u8; 32] =
        state.get_remote_static().and_then(|k| k.try_into().ok()).ok_or(DropReason::BadHandshake)?;
    let (admitted, psk) = admit(&client, &theirs)?;
    if init.suite.has_psk() != psk.is_some() {
        return Err(DropReason::BadSuite);
    }
    if let Some(psk) = psk {
        state.set_psk(PSK_LOCATION, psk.as_bytes()).map_err(|_| DropReason::BadHandshake)?;
    }
    let mut noise = [0; NOISE_2_LEN];
    match state.write_message(payload, &mut noise) {
        Ok(NOISE_2_LEN) => {}
        _ => return Err(DropReason::BadHandshake),
    }
    let (receive, send) = split(&mut state)?;
    let (local_index, remote_index) = (server.local_index, init.sender_index);
    let keys = Keys { suite: init.suite, send, receive, local_index, remote_index };
    Ok((admitted, Answer { keys, noise, payload: theirs }))
}

fn builder<'a>(suite: Suite, resolver: Resolver) -> Option<Builder<'a>> {
    let params = suite.noise_name().parse().ok()?;
    Some(Builder::with_resolver(params, Box::new(resolver)))
}

fn prologue(header: &[u8; INIT_HEADER_LEN], cookie: &[u8; COOKIE_LEN]) -> Vec<u8> {
    [PROLOGUE, header, cookie].concat()
}

type RawKey = Zeroizing<[u8; 32]>;

/// The initiator's sending key and the responder's (Noise, section 5.2, `Split`).
fn split(state: &mut HandshakeState) -> Result<(RawKey, RawKey), DropReason> {
    if !state.is_handshake_finished() {
        return Err(DropReason::BadHandshake);
    }
    let (a, b) = state.dangerously_get_raw_split();
    Ok((a.into(), b.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::sync::Mutex;

    fn key(n: u8) -> PrivateKey {
        PrivateKey::generate(&mut StdRng::from_seed([n; 32]))
    }

    fn psk() -> PresharedKey {
        PresharedKey::generate(&mut StdRng::from_seed([9; 32]))
    }

    fn start(
        suite: Suite,
        client: &PrivateKey,
        server: &PrivateKey,
        psk: Option<&PresharedKey>,
    ) -> (Initiator, Init) {
        let offer = Offerer {
            identity: client,
            server: &server.public(),
            psk,
            suite,
            local_index: 7,
            cookie: &[3; COOKIE_LEN],
        };
        Initiator::start(&offer, &[1; 16], &Seed::new([4; 32])).unwrap()
    }

    fn answer(
        server: &PrivateKey,
        init: &Init,
        cookie: [u8; COOKIE_LEN],
        psk: Option<&PresharedKey>,
    ) -> Result<([u8; 32], Answer), DropReason> {
        let answerer =
            Answerer { identity: server, known: Arc::new(|_| true), cookie: &cookie, local_index: 8 };
        respond(&answerer, init, &[2; 16], &Seed::new([5; 32]), |k, _| Ok((*k, psk)))
    }

    #[test]
    fn both_sides_derive_the_same_keys_in_every_suite() {
        let (client, server, psk) = (key(1), key(2), psk());
        for suite in Suite::ALL {
            let psk = suite.has_psk().then_some(&psk);
            let (mut initiator, init) = start(suite, &client, &server, psk);
            let (who, answer) = answer(&server, &init, [3; 16], psk).unwrap();
            assert_eq!((&who, answer.payload), (client.public().as_bytes(), [1; 16]));
            let (keys, payload) = initiator.finish(&answer.noise, 8).unwrap();
            assert_eq!(payload, [2; 16]);
            assert!(keys.send == answer.keys.receive && keys.receive == answer.keys.send);
            assert!(keys.send != keys.receive);
        }
    }

    #[test]
    fn message_1_is_bound_to_its_header_and_cookie() {
        let (client, server) = (key(1), key(2));
        let (_, init) = start(Suite::Aes, &client, &server, None);
        assert_eq!(answer(&server, &init, [4; 16], None).err(), Some(DropReason::BadHandshake));
        let other = Init { sender_index: 6, ..init };
        assert_eq!(answer(&server, &other, [3; 16], None).err(), Some(DropReason::BadHandshake));
        let other = Init { suite: Suite::ChaCha, ..init };
        assert_eq!(answer(&server, &other, [3; 16], None).err(), Some(DropReason::BadHandshake));
        assert_eq!(answer(&client, &init, [3; 16], None).err(), Some(DropReason::BadHandshake));
        assert!(answer(&server, &init, [3; 16], None).is_ok());
    }

    /// An INIT that names a key whose private half the sender does not have.
    fn init_with_anothers_key(server: &PrivateKey, named: &PrivateKey) -> Init {
        let (_, mut init) = start(Suite::Aes, named, server, None);
        // The static key is sealed before `ss` is mixed in; what follows is what only its owner can seal.
        init.noise[NOISE_1_LEN - 1] ^= 1;
        init
    }

    #[test]
    fn whether_a_key_is_known_is_asked_once_and_before_it_is_proven() {
        let (client, server) = (key(1), key(2));
        for proven in [true, false] {
            let init = if proven {
                start(Suite::Aes, &client, &server, None).1
            } else {
                init_with_anothers_key(&server, &client)
            };
            for known in [true, false] {
                let asked = Arc::new(Mutex::new(Vec::new()));
                let answerer = Answerer {
                    identity: &server,
                    known: {
                        let asked = Arc::clone(&asked);
                        Arc::new(move |key| {
                            asked.lock().unwrap().push(*key);
                            known
                        })
                    },
                    cookie: &[3; COOKIE_LEN],
                    local_index: 8,
                };
                let seed = Seed::new([5; 32]);
                let answer = respond(&answerer, &init, &[2; 16], &seed, |_, _| Ok(((), None)));
                assert_eq!(answer.is_ok(), known && proven, "known {known}, proven {proven}");
                assert_eq!(*asked.lock().unwrap(), [*client.public().as_bytes()]);
            }
        }
    }

    #[test]
    fn a_forged_message_2_does_not_kill_the_handshake() {
        let (client, server) = (key(1), key(2));
        for suite in [Suite::Aes, Suite::ChaCha] {
            let (mut initiator, init) = start(suite, &client, &server, None);
            let (_, good) = answer(&server, &init, [3; 16], None).unwrap();
            for bit in 0..NOISE_2_LEN * 8 {
                // The top bit of an X25519 public key is ignored (RFC 7748, section 5), but it is hashed.
                let mut forged = good.noise;
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(initiator.finish(&forged, 8).err(), Some(DropReason::BadHandshake), "bit {bit}");
            }
            assert_eq!(initiator.finish(&[0; NOISE_2_LEN], 8).err(), Some(DropReason::BadHandshake));
            assert!(initiator.finish(&good.noise, 8).is_ok());
        }
    }

    #[test]
    fn a_wrong_psk_or_none_ends_the_handshake() {
        let (client, server, right) = (key(1), key(2), psk());
        let wrong = PresharedKey::generate(&mut StdRng::from_seed([8; 32]));
        let (mut initiator, init) = start(Suite::AesPsk, &client, &server, Some(&right));
        assert_eq!(answer(&server, &init, [3; 16], None).err(), Some(DropReason::BadSuite));
        let (_, bad) = answer(&server, &init, [3; 16], Some(&wrong)).unwrap();
        assert_eq!(initiator.finish(&bad.noise, 8).err(), Some(DropReason::BadHandshake));
        let (_, init) = start(Suite::Aes, &client, &server, None);
        assert_eq!(answer(&server, &init, [3; 16], Some(&right)).err(), Some(DropReason::BadSuite));
    }

    #[test]
    fn a_low_order_ephemeral_is_refused() {
        let (client, server) = (key(1), key(2));
        let (_, mut init) = start(Suite::Aes, &client, &server, None);
        init.noise[..32].fill(0);
        assert_eq!(answer(&server, &init, [3; 16], None).err(), Some(DropReason::BadHandshake));
    }
}
