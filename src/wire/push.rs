//! The blob that a server pushes: a client's NICs, and a script.
//!
//! ```text
//! version u8 = 1 | mode u8 | nics u16 | script length u32 | nics × NIC | script
//! NIC: id u16 | mac 6 | mtu u16 | name | parent | addresses u8 | addresses × ADDR
//! name, parent: length u8 | bytes (a parent of length 0: the client's choice)
//! ADDR: family u8 (4 or 6) | prefix u8 (255: none) | 4 or 16 bytes
//! mode: 0 the client's choice, 1 tap, 2 macvtap
//! ```
//!
//! Integers are little-endian. Nothing stands in it that a server may not set on a client: no keys, paths or policies.

use std::net::IpAddr;

use crate::types::{MacAddr, Mtu, NicAddr, NicId, NicMode, NicName, NicSpec};
use crate::wire::control::Reader;

/// Longest blob in bytes.
pub const MAX_LEN: usize = 1 << 20;

/// NICs in one blob at the most.
pub const MAX_NICS: usize = 1024;

/// Addresses of one NIC at the most.
pub const MAX_ADDRS: usize = 16;

const VERSION: u8 = 1;
const NO_PREFIX: u8 = 255;

/// One NIC of a client, as its server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedNic {
    /// Its number in the records of this client's sessions.
    pub id: NicId,
    /// What it is to be.
    pub spec: NicSpec,
    /// The interface that it should be made on.
    pub parent: Option<NicName>,
}

/// What a server wants of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Push {
    /// What kind of interfaces to make.
    pub mode: Option<NicMode>,
    /// The client's NICs.
    pub nics: Vec<PushedNic>,
    /// A script to run before anything else; empty: none.
    pub script: Vec<u8>,
}

/// Why a blob means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// It ends early, has bytes to spare, or counts that cannot be.
    #[error("the pushed config is malformed")]
    Malformed,
    /// Another version than ours.
    #[error(
        "the pushed config has version {0}, this program reads version 1; use the same release on both sides"
    )]
    Version(u8),
    /// A value that no NIC can have.
    #[error("the pushed config has an impossible value: {0}")]
    Value(String),
    /// It does not fit.
    #[error("config and script together have {0} bytes, {MAX_LEN} at the most can be pushed")]
    TooLong(usize),
}

impl Push {
    /// The blob. Fails where it would be longer than [`MAX_LEN`] or a count would not fit.
    pub fn encode(&self) -> Result<Vec<u8>, PushError> {
        if self.nics.len() > MAX_NICS || self.nics.iter().any(|n| n.spec.addrs.len() > MAX_ADDRS) {
            return Err(PushError::Value(format!(
                "more than {MAX_NICS} NICs or {MAX_ADDRS} addresses on one"
            )));
        }
        let script = u32::try_from(self.script.len()).map_err(|_| PushError::TooLong(self.script.len()))?;
        let mut out = vec![VERSION];
        out.push(match self.mode {
            None => 0,
            Some(NicMode::Tap) => 1,
            Some(NicMode::Macvtap) => 2,
        });
        out.extend((self.nics.len() as u16).to_le_bytes());
        out.extend(script.to_le_bytes());
        for nic in &self.nics {
            nic.encode(&mut out);
        }
        out.extend(&self.script);
        if out.len() > MAX_LEN { Err(PushError::TooLong(out.len())) } else { Ok(out) }
    }

    /// Reads a blob whose hash has been checked; every value in the result is valid.
    pub fn decode(blob: &[u8]) -> Result<Self, PushError> {
        let mut r = Reader(blob);
        match r.u8().ok_or(PushError::Malformed)? {
            VERSION => {}
            other => return Err(PushError::Version(other)),
        }
        let mode = match r.u8().ok_or(PushError::Malformed)? {
            0 => None,
            1 => Some(NicMode::Tap),
            2 => Some(NicMode::Macvtap),
            other => return Err(PushError::Value(format!("mode {other}"))),
        };
        let count = usize::from(r.u16().ok_or(PushError::Malformed)?);
        let script = r.u32().ok_or(PushError::Malformed)? as usize;
        if count > MAX_NICS {
            return Err(PushError::Malformed);
        }
        let mut nics = Vec::with_capacity(count);
        for _ in 0..count {
            nics.push(PushedNic::read(&mut r)?);
        }
        if r.0.len() != script {
            return Err(PushError::Malformed);
        }
        Ok(Self { mode, nics, script: r.0.to_vec() })
    }
}

impl PushedNic {
    fn encode(&self, out: &mut Vec<u8>) {
        let spec = &self.spec;
        out.extend(self.id.0.to_le_bytes());
        out.extend(spec.mac.0);
        out.extend(spec.mtu.bytes().to_le_bytes());
        for name in [Some(&spec.name), self.parent.as_ref()] {
            let text = name.map_or("", NicName::as_str);
            out.push(text.len() as u8);
            out.extend(text.as_bytes());
        }
        out.push(spec.addrs.len() as u8);
        for addr in &spec.addrs {
            let prefix = addr.prefix.unwrap_or(NO_PREFIX);
            match addr.ip {
                IpAddr::V4(ip) => {
                    out.extend([4, prefix]);
                    out.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.extend([6, prefix]);
                    out.extend(ip.octets());
                }
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, PushError> {
        let id = NicId(r.u16().ok_or(PushError::Malformed)?);
        let mac = MacAddr(r.array().ok_or(PushError::Malformed)?);
        if !mac.is_assignable() {
            return Err(PushError::Value(format!("MAC {mac}")));
        }
        let mtu = u32::from(r.u16().ok_or(PushError::Malformed)?);
        let mtu = Mtu::try_from(mtu).map_err(|e| PushError::Value(e.0))?;
        let name = read_name(r)?.ok_or_else(|| PushError::Value("a NIC without a name".into()))?;
        let parent = read_name(r)?;
        let count = usize::from(r.u8().ok_or(PushError::Malformed)?);
        if count > MAX_ADDRS {
            return Err(PushError::Malformed);
        }
        let addrs = (0..count).map(|_| read_addr(r)).collect::<Result<_, _>>()?;
        Ok(Self { id, spec: NicSpec { name, mac, addrs, mtu }, parent })
    }
}

fn read_name(r: &mut Reader<'_>) -> Result<Option<NicName>, PushError> {
    let length = usize::from(r.u8().ok_or(PushError::Malformed)?);
    let bytes = r.bytes(length).ok_or(PushError::Malformed)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PushError::Malformed)?;
    text.parse().map(Some).map_err(|e: crate::types::ParseError| PushError::Value(e.0))
}

fn read_addr(r: &mut Reader<'_>) -> Result<NicAddr, PushError> {
    let (family, prefix) = (r.u8().ok_or(PushError::Malformed)?, r.u8().ok_or(PushError::Malformed)?);
    let ip: IpAddr = match family {
        4 => r.array::<4>().ok_or(PushError::Malformed)?.into(),
        6 => r.array::<16>().ok_or(PushError::Malformed)?.into(),
        _ => return Err(PushError::Malformed),
    };
    let text = if prefix == NO_PREFIX { ip.to_string() } else { format!("{ip}/{prefix}") };
    text.parse().map_err(|e: crate::types::ParseError| PushError::Value(e.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nic() -> impl Strategy<Value = PushedNic> {
        let addr = prop_oneof![
            (any::<[u8; 3]>(), 1u8..=32).prop_map(|([a, b, c], p)| format!("10.{a}.{b}.{c}/{p}")),
            any::<u8>().prop_map(|a| format!("192.0.2.{a}")),
            (any::<u16>(), 1u8..=128).prop_map(|(a, p)| format!("2001:db8::{a:x}/{p}")),
        ];
        let parent = prop::option::of("[a-z0-9_.-]{3,15}");
        (
            any::<u16>(),
            any::<[u8; 5]>(),
            68u32..=9000,
            "[A-Za-z0-9_-]{1,15}",
            parent,
            prop::collection::vec(addr, 0..4),
        )
            .prop_map(|(id, [a, b, c, d, e], mtu, name, parent, addrs)| PushedNic {
                id: NicId(id),
                spec: NicSpec {
                    name: name.parse().unwrap(),
                    mac: MacAddr([2, a, b, c, d, e]),
                    addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
                    mtu: mtu.try_into().unwrap(),
                },
                parent: parent.map(|p| p.parse().unwrap()),
            })
    }

    fn push() -> impl Strategy<Value = Push> {
        let mode = prop::sample::select(vec![None, Some(NicMode::Tap), Some(NicMode::Macvtap)]);
        (mode, prop::collection::vec(nic(), 0..5), prop::collection::vec(any::<u8>(), 0..50))
            .prop_map(|(mode, nics, script)| Push { mode, nics, script })
    }

    proptest! {
        #[test]
        fn pushes_survive_the_wire(push in push()) {
            prop_assert_eq!(Push::decode(&push.encode().unwrap()), Ok(push));
        }

        #[test]
        fn a_changed_byte_is_read_or_refused(push in push(), at: prop::sample::Index, value: u8, cut: bool) {
            let mut blob = push.encode().unwrap();
            let at = at.index(blob.len());
            if cut { blob.truncate(at) } else { blob[at] = value }
            if let Ok(read) = Push::decode(&blob) {
                prop_assert_eq!(read.encode().unwrap(), blob);
            }
        }
    }

    #[test]
    fn what_no_nic_can_be_is_refused() {
        let spec = NicSpec {
            name: "mv0".parse().unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            addrs: vec!["10.0.0.7/24".parse().unwrap()],
            mtu: 1500.try_into().unwrap(),
        };
        let nic = PushedNic { id: NicId(0), spec, parent: None };
        let blob = Push { nics: vec![nic], ..Push::default() }.encode().unwrap();
        assert!(Push::decode(&blob).is_ok());
        let name = blob.windows(3).position(|w| w == b"mv0").unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = blob.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            bad
        };
        for (what, bad) in [
            ("another version", with(0, &[2])),
            ("a mode that there is not", with(1, &[3])),
            ("more NICs than there are", with(2, &[2])),
            ("more NICs than there can be", with(2, &[0xff, 0xff])),
            ("more script than there is", with(4, &[1])),
            ("4 GiB of script", with(4, &[0xff; 4])),
            ("a group's MAC", with(10, &[3])),
            ("a MAC of zeros", with(10, &[0; 6])),
            ("an MTU of 67", with(16, &67u16.to_le_bytes())),
            ("an MTU of 9001", with(16, &9001u16.to_le_bytes())),
            ("a name with a slash", with(name, b"../")),
            ("a name with a space", with(name, b"a b")),
            ("a name that ends a string", with(name, &[0])),
            ("half of it", blob[..blob.len() / 2].to_vec()),
            ("nothing", vec![]),
        ] {
            assert!(Push::decode(&bad).is_err(), "{what}: {bad:?}");
        }
    }

    /// A push of this many NICs, with this many addresses on the first, and a script of this many bytes.
    fn large(nics: usize, addrs: usize, script: usize) -> Push {
        let nic = |n: usize| PushedNic {
            id: NicId(n as u16),
            spec: NicSpec {
                name: "mv0".parse().unwrap(),
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                addrs: vec!["10.0.0.7/24".parse().unwrap(); if n == 0 { addrs } else { 0 }],
                mtu: 1500.try_into().unwrap(),
            },
            parent: None,
        };
        Push { nics: (0..nics).map(nic).collect(), script: vec![7; script], ..Push::default() }
    }

    #[test]
    fn the_most_there_may_be_crosses_and_one_more_does_not() {
        for (nics, addrs, taken) in [
            (MAX_NICS, 0, true),
            (MAX_NICS + 1, 0, false),
            (1, MAX_ADDRS, true),
            (1, MAX_ADDRS + 1, false),
            (1, MAX_ADDRS + 2, false),
            (MAX_NICS + 2, 0, false),
        ] {
            let push = large(nics, addrs, 0);
            let blob = push.encode();
            assert_eq!(blob.is_ok(), taken, "{nics} NICs, {addrs} addresses");
            if let Ok(blob) = blob {
                assert_eq!(Push::decode(&blob), Ok(push));
            }
        }
        let empty = large(0, 0, 0).encode().unwrap().len();
        assert_eq!(large(0, 0, MAX_LEN - empty).encode().unwrap().len(), MAX_LEN);
        assert!(large(0, 0, MAX_LEN - empty + 1).encode().is_err());
    }

    /// Whole blobs, whose only fault is a count: nobody encodes them, so they are put together here.
    #[test]
    fn counts_over_their_bounds_are_refused_where_all_that_they_count_is_there() {
        let (one, two) = (large(1, 0, 0).encode().unwrap(), large(2, 0, 0).encode().unwrap());
        let nic = &two[one.len()..];
        for n in [MAX_NICS + 1, MAX_NICS + 2] {
            let mut blob = large(0, 0, 0).encode().unwrap();
            blob[2..4].copy_from_slice(&(n as u16).to_le_bytes());
            (0..n).for_each(|_| blob.extend(nic));
            assert_eq!(Push::decode(&blob), Err(PushError::Malformed), "{n} NICs");
        }
        let (bare, full) = (large(1, 0, 0).encode().unwrap(), large(1, 1, 0).encode().unwrap());
        let addr = &full[bare.len()..];
        for n in [MAX_ADDRS + 1, MAX_ADDRS + 2] {
            let mut blob = bare.clone();
            *blob.last_mut().unwrap() = n as u8;
            (0..n).for_each(|_| blob.extend(addr));
            assert_eq!(Push::decode(&blob), Err(PushError::Malformed), "{n} addresses");
        }
    }

    #[test]
    fn a_blob_too_long_is_refused_where_it_is_made() {
        let push = Push { script: vec![b'#'; MAX_LEN], ..Push::default() };
        assert!(matches!(push.encode(), Err(PushError::TooLong(_))));
    }
}
