//! What snow is given to work with: our X25519, our AEADs, BLAKE2s of the blake2 crate, randomness from a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use blake2::{Blake2s256, Digest};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Seed;
use crate::keys::{PrivateKey, x25519};
use crate::proto::aead::{AeadKey, TAG_LEN};
use crate::types::Suite;

/// Gives snow its primitives.
pub struct Resolver {
    seed: Seed,
    own: KeyPair,
    known: Option<Known>,
}

/// Whether anybody has this static key. A responder asks as soon as it has decrypted it, before the agreement that
/// would prove it to be the sender's: who is not known costs one agreement, not two.
pub type Known = Arc<dyn Fn(&[u8; 32]) -> bool + Send + Sync>;

#[derive(Clone, Default)]
struct KeyPair {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Resolver {
    /// Ephemeral keys come from this seed. The public key of `own` is known, and not derived for each handshake again.
    pub fn new(seed: &Seed, own: &PrivateKey) -> Self {
        let own = KeyPair { private: Zeroizing::new(*own.as_bytes()), public: *own.public().as_bytes() };
        Self { seed: seed.clone(), own, known: None }
    }

    /// The same for a responder of IK that goes on only with whom it knows.
    pub fn of_responder(seed: &Seed, own: &PrivateKey, known: Known) -> Self {
        Self { known: Some(known), ..Self::new(seed, own) }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom(StdRng::from_seed(*self.seed))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let dh = DhX25519 {
            own: self.own.clone(),
            pair: KeyPair::default(),
            known: self.known.clone(),
            agreed: AtomicBool::new(false),
        };
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(dh) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| Box::new(HashBlake2s::default()) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let suite = match choice {
            CipherChoice::ChaChaPoly => Suite::ChaCha,
            CipherChoice::AESGCM => Suite::Aes,
            #[allow(unreachable_patterns, reason = "snow has more ciphers under features that we do not use")]
            _ => return None,
        };
        Some(Box::new(NoiseCipher { suite, key: None }))
    }
}

struct SeededRandom(StdRng);

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

struct DhX25519 {
    /// The static pair, whose public key need not be derived.
    own: KeyPair,
    pair: KeyPair,
    known: Option<Known>,
    /// The static key has agreed with the other side's ephemeral one (`es`); next comes its static one (`ss`).
    agreed: AtomicBool,
}

impl DhX25519 {
    fn refuses(&self, public: &[u8; 32]) -> bool {
        let is_own = self.pair.public == self.own.public;
        is_own && self.agreed.swap(true, Relaxed) && self.known.as_ref().is_some_and(|known| !known(public))
    }
}

impl Dh for DhX25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let Ok(private) = <[u8; 32]>::try_from(privkey).map(Zeroizing::new) else { return };
        self.pair = if bool::from(private.ct_eq(&*self.own.private)) {
            self.own.clone()
        } else {
            KeyPair { public: x25519::public_key(&private), private }
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *private)?;
        self.set(&*private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.pair.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.pair.private
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // snow keeps keys in larger arrays, zeros behind.
        let public = pubkey.first_chunk().ok_or(snow::Error::Dh)?;
        if self.refuses(public) {
            return Err(snow::Error::Dh);
        }
        let shared = x25519::shared_secret(&self.pair.private, public).ok_or(snow::Error::Dh)?;
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&*shared);
        Ok(())
    }
}

#[derive(Default)]
struct HashBlake2s(Blake2s256);

impl Hash for HashBlake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::default();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = std::mem::take(&mut self.0).finalize();
        if let Some(out) = out.get_mut(..hash.len()) {
            out.copy_from_slice(&hash);
        }
    }
}

struct NoiseCipher {
    suite: Suite,
    key: Option<AeadKey>,
}

impl Cipher for NoiseCipher {
    fn name(&self) -> &'static str {
        if self.suite.is_aes() { "AESGCM" } else { "ChaChaPoly" }
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = AeadKey::new(self.suite, key);
    }

    /// The trait has no way to fail: what cannot be sealed has length 0, which no message of ours has.
    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let mut seal = || {
            let (text, rest) = out.split_at_mut_checked(plaintext.len())?;
            text.copy_from_slice(plaintext);
            let place = rest.first_chunk_mut::<TAG_LEN>()?;
            *place = self.key.as_ref()?.seal(nonce, authtext, text).ok()?;
            text.len().checked_add(TAG_LEN)
        };
        seal().unwrap_or(0)
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let mut text = Zeroizing::new(ciphertext.to_vec());
        let key = self.key.as_ref().ok_or(snow::Error::Decrypt)?;
        let plain = key.open(nonce, authtext, &mut text).map_err(|_| snow::Error::Decrypt)?;
        out.get_mut(..plain.len()).ok_or(snow::Error::Decrypt)?.copy_from_slice(plain);
        Ok(plain.len())
    }
}
