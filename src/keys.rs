//! Keys: static X25519 key pairs and pre-shared keys, and the files that hold them.
//!
//! A key file is one line of base64 for exactly 32 bytes. Files with secrets are opened without following a
//! link and are refused unless they are regular, owned by root or by whoever runs the program, and closed to
//! everyone else; each refusal names the command that mends it. Secrets are wiped when dropped and have
//! neither `Debug` nor `Clone`. Nothing here speaks Noise; randomness is an argument.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod file;
pub mod x25519;

use std::borrow::Borrow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use file::shell_word;

/// Length of every key in bytes.
pub const KEY_LEN: usize = 32;

/// Length of a key's base64 text, padding included.
pub const BASE64_LEN: usize = 44;

/// Why a text or a file is not a usable key: one sentence, and the command that mends it where there is one.
/// Never holds key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(pub String);

fn refuse<T>(why: impl Into<String>) -> Result<T, KeyError> {
    Err(KeyError(why.into()))
}

/// A static X25519 private key (RFC 7748). Wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey {
    secret: [u8; KEY_LEN],
    /// Derived once: it takes half as long as an agreement.
    #[zeroize(skip)]
    public: PublicKey,
}

impl PrivateKey {
    /// A new key from `rng`.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(&mut *secret);
        Self::from_bytes(secret)
    }

    /// The key with these bytes, which somebody has drawn or derived with care.
    pub fn from_bytes(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self { secret: *bytes, public: PublicKey(x25519::public_key(&bytes)) }
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.secret
    }

    /// The secret as text, without a newline.
    pub fn to_base64(&self) -> Zeroizing<String> {
        encode_secret(&self.secret)
    }

    /// Reads the key from a file that only its owner can read.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = file::read_secret(path, &format!("tap-rs keygen --out {}", shell_word(path)))?;
        Self::from_text(&text).map_err(|e| KeyError(format!("{}: {e}", path.display())))
    }

    /// Reads the key from text, as it comes from a pipe: one line of base64, with or without its newline.
    pub fn from_text(text: &[u8]) -> Result<Self, KeyError> {
        let secret = decode(text)?;
        if *secret == [0; KEY_LEN] {
            return refuse("an all-zero key is no secret; make a new one with `tap-rs keygen`");
        }
        Ok(Self::from_bytes(secret))
    }

    /// Creates `path` (mode 0600) with the key, and `path` + `.pub` (mode 0644) with the public key, and
    /// returns the latter's name. Refuses where either exists, and leaves neither behind if it fails.
    pub fn write_new(&self, path: &Path) -> Result<PathBuf, KeyError> {
        let public = public_path(path);
        file::write_new(path, 0o600, &self.to_base64())?;
        if let Err(e) = file::write_new(&public, 0o644, &self.public().to_string()) {
            file::remove(path);
            return Err(e);
        }
        Ok(public)
    }
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

/// A static X25519 public key: neither all zero nor any other point of low order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// The encoded point (RFC 7748, section 5).
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// `text` is the key itself in base64, or else a file that holds it, sought in `folder` if relative.
    pub fn from_text_or_file(text: &str, folder: &Path) -> Result<Self, KeyError> {
        match text.parse() {
            Ok(key) => return Ok(key),
            Err(e) if looks_like_key(text) => return Err(e),
            Err(_) => {}
        }
        let path = folder.join(text);
        let bytes = file::read_public(&path)?;
        refuse_private(&path, &bytes)?;
        let line = String::from_utf8_lossy(&bytes);
        line.trim_end_matches(['\r', '\n']).parse().map_err(|e| KeyError(format!("{}: {e}", path.display())))
    }
}

/// The bytes of a private key would pass for a public one, which nobody has. `tap-rs keygen` puts the right file beside it.
fn refuse_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    let beside = PathBuf::from(beside);
    let (Ok(private), Ok(public)) = (PrivateKey::from_text(bytes), file::read_public(&beside)) else {
        return Ok(());
    };
    if public.trim_ascii() != private.public().to_string().as_bytes() {
        return Ok(());
    }
    refuse(format!(
        "{} is a private key's file, which only its owner needs; name the public key beside it, {}",
        path.display(),
        beside.display()
    ))
}

/// True for text that was meant as a key, whole or cut, rather than as a path.
pub fn looks_like_key(text: &str) -> bool {
    let alphabet = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let whole = text.len() == BASE64_LEN && text.ends_with('=');
    let cut = !text.starts_with('/') && (text.ends_with('=') || text.len() == BASE64_LEN - 1);
    text.chars().all(alphabet) && (whole || cut)
}

impl TryFrom<[u8; KEY_LEN]> for PublicKey {
    type Error = KeyError;

    /// Refuses the points that give an all-zero shared secret with any private key (RFC 7748, section 6.1).
    fn try_from(bytes: [u8; KEY_LEN]) -> Result<Self, KeyError> {
        // Clamping makes every scalar a multiple of 8, so any scalar exposes every point of low order.
        if x25519::shared_secret(&[0x55; KEY_LEN], &bytes).is_none() {
            return refuse(
                "this public key is one of the few that protect nothing; take the one that `tap-rs keygen` printed",
            );
        }
        Ok(Self(bytes))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(s: &str) -> Result<Self, KeyError> {
        Self::try_from(*decode(s.as_bytes())?)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Lets a map from public keys be asked with bytes that have not been checked.
impl Borrow<[u8; KEY_LEN]> for PublicKey {
    fn borrow(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

/// A secret that both ends mix into the handshake (Noise, section 9). Wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    /// A new key from `rng`.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut key = Self([0; KEY_LEN]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The secret as text, without a newline.
    pub fn to_base64(&self) -> Zeroizing<String> {
        encode_secret(&self.0)
    }

    /// Reads the key from a file that only its owner can read.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = file::read_secret(path, &format!("tap-rs genpsk --out {}", shell_word(path)))?;
        let key = Self(*decode(&text).map_err(|e| KeyError(format!("{}: {e}", path.display())))?);
        if key.0 == [0; KEY_LEN] {
            return refuse(format!(
                "{}: an all-zero key is no secret; make a new one with `tap-rs genpsk`",
                path.display()
            ));
        }
        Ok(key)
    }

    /// Creates `path` (mode 0600) with the key. Refuses where it exists.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        file::write_new(path, 0o600, &self.to_base64())
    }
}

fn encode_secret(bytes: &[u8; KEY_LEN]) -> Zeroizing<String> {
    // Room for all of it at once: a string that grows would leave pieces of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(BASE64_LEN));
    STANDARD.encode_string(bytes, &mut text);
    text
}

/// One line of base64 for exactly 32 bytes; a newline may follow.
fn decode(text: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // A little longer than a key: the decoder wants room for whole groups of three bytes.
    let mut bytes = Zeroizing::new([0u8; KEY_LEN + 4]);
    let length = match line.len() {
        BASE64_LEN => STANDARD.decode_slice(line, bytes.as_mut_slice()).ok(),
        _ => None,
    };
    match (length, bytes.first_chunk::<KEY_LEN>()) {
        (Some(KEY_LEN), Some(key)) => Ok(Zeroizing::new(*key)),
        _ => refuse(format!(
            "this is not a key; a key is one line of {BASE64_LEN} characters of base64 that ends in \"=\""
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// RFC 7748, section 6.1: Alice.
    const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_key_is_the_bytes_that_its_text_stands_for() {
        let private = PrivateKey::from_text(PRIVATE.as_bytes()).unwrap();
        assert_eq!(private.as_bytes()[..3], [0x77, 0x07, 0x6d]);
        let public: PublicKey = PUBLIC.parse().unwrap();
        assert_eq!(public.as_bytes()[..3], [0x85, 0x20, 0xf0]);
        assert_eq!(<PublicKey as Borrow<[u8; KEY_LEN]>>::borrow(&public), public.as_bytes());
        let folder = tempfile::tempdir().unwrap();
        file::write_new(&folder.path().join("psk"), 0o600, PRIVATE).unwrap();
        let psk = PresharedKey::read(&folder.path().join("psk")).unwrap();
        assert_eq!(psk.as_bytes(), private.as_bytes());
    }

    #[test]
    fn what_was_meant_as_a_key_is_told_from_a_path() {
        let cut = &PRIVATE[..BASE64_LEN - 1];
        for key in [PRIVATE, cut, "dwdtCnMY=", &format!("{PRIVATE}=")] {
            assert!(looks_like_key(key), "{key}");
        }
        let long_path = format!("/{}", &PRIVATE[..BASE64_LEN - 2]);
        let whole_path = format!("/{}", &PRIVATE[1..]);
        assert!(looks_like_key(&whole_path), "as long as a key, and ends like one");
        for path in
            ["server.pub", "keys/a", "/etc/key=", "", "a", &cut[1..], &long_path, &PRIVATE.replace('=', "a")]
        {
            assert!(!looks_like_key(path), "{path}");
        }
    }

    #[test]
    fn public_key_is_that_of_rfc_7748() {
        let key = PrivateKey::from_text(PRIVATE.as_bytes()).unwrap();
        assert_eq!(key.public().to_string(), PUBLIC);
        assert_eq!(key.to_base64().as_str(), PRIVATE);
        assert_eq!(PUBLIC.parse::<PublicKey>().unwrap(), key.public());
        assert_eq!(format!("{:?}", key.public()), PUBLIC);
    }

    #[test]
    fn points_of_low_order_are_refused() {
        // The list of https://cr.yp.to/ecdh.html#validate, as little-endian hex.
        for hex in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000080",
        ] {
            let mut point = [0u8; KEY_LEN];
            for (i, byte) in point.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
            }
            assert!(PublicKey::try_from(point).is_err(), "{hex}");
        }
    }

    #[test]
    fn only_one_line_of_exactly_32_bytes_is_a_key() {
        for good in [PRIVATE.to_owned(), format!("{PRIVATE}\n"), format!("{PRIVATE}\r\n")] {
            assert!(PrivateKey::from_text(good.as_bytes()).is_ok());
        }
        let zero = STANDARD.encode([0u8; 32]);
        for bad in [
            "",
            "\n",
            "garbage",
            &PRIVATE[..43],
            &format!("{PRIVATE}\n\n"),
            &format!(" {PRIVATE}"),
            &format!("{PRIVATE}{PRIVATE}"),
            &STANDARD.encode([7u8; 31]),
            &STANDARD.encode([7u8; 33]),
            &PRIVATE.replace("LCo=", "LCp="),
            &zero,
        ] {
            assert!(PrivateKey::from_text(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cut_key_is_not_taken_for_a_path() {
        let folder = Path::new("/nonexistent");
        let cut = PublicKey::from_text_or_file(&PUBLIC[..43], folder).unwrap_err();
        assert!(cut.0.contains("not a key"), "{cut}");
        let missing = PublicKey::from_text_or_file("keys/server.key.pub", folder).unwrap_err();
        assert!(missing.0.contains("/nonexistent/keys/server.key.pub"), "{missing}");
    }

    #[test]
    fn written_keys_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.key");
        let key = PrivateKey::generate(&mut rand::rng());
        let public = key.write_new(&path).unwrap();
        assert_eq!(public, folder.path().join("client.key.pub"));
        assert_eq!(PrivateKey::read(&path).unwrap().as_bytes(), key.as_bytes());
        let named = PublicKey::from_text_or_file("client.key.pub", folder.path()).unwrap();
        assert_eq!(named, key.public());
        assert!(key.write_new(&path).unwrap_err().0.contains("exists"));
    }

    #[test]
    fn a_written_pre_shared_key_reads_back_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("psk");
        let key = PresharedKey(*decode(PRIVATE.as_bytes()).unwrap());
        assert_eq!(*key.to_base64(), PRIVATE);
        key.write_new(&path).unwrap();
        assert_eq!(PresharedKey::read(&path).unwrap().as_bytes(), key.as_bytes());
        assert!(key.write_new(&path).unwrap_err().0.contains("exists"));
    }

    #[test]
    fn a_private_keys_file_is_no_public_key_where_the_public_one_is_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        PrivateKey::from_text(PRIVATE.as_bytes()).unwrap().write_new(&path).unwrap();
        let why = PublicKey::from_text_or_file("k", folder.path()).unwrap_err().0;
        assert!(why.contains("is a private key's file") && why.contains("k.pub"), "{why}");
        // What lies beside it is another's: nothing shows that this is private.
        std::fs::write(folder.path().join("k.pub"), PRIVATE).unwrap();
        assert!(PublicKey::from_text_or_file("k", folder.path()).is_ok());
    }

    #[test]
    fn no_private_key_is_left_where_the_public_one_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        std::fs::write(folder.path().join("k.pub"), "in the way").unwrap();
        assert!(PrivateKey::generate(&mut rand::rng()).write_new(&path).is_err());
        assert!(!path.exists());
    }
}
