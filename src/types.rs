//! Parsed newtypes: the words that every room of the house shares.
//!
//! Each type is checked once, where text or bytes come in; a value that exists is valid, and no code
//! after that checks it again. Nothing here does I/O.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod sorted;
mod stack;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

pub use self::sorted::Sorted;
pub use self::stack::{NetnsName, NicStack, Routing};

/// Why a text is not a value of one of these types. Displays as one sentence that says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

fn refuse<T>(why: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError(why.into()))
}

/// The name of a network interface: 1 to 15 bytes of `[A-Za-z0-9_.-]`, and neither `.` nor `..`
/// (`dev_valid_name` in the kernel, narrowed to characters that are safe in paths, logs and shells).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NicName(String);

impl NicName {
    /// Longest name in bytes: `IFNAMSIZ` less the terminating zero (linux/if.h).
    pub const MAX_LEN: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NicName {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        if s.is_empty() || s.len() > Self::MAX_LEN {
            return refuse(format!(
                "an interface name has 1 to {} characters, {s:?} has {}",
                Self::MAX_LEN,
                s.len()
            ));
        }
        if let Some(c) = s.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.-".contains(*c)) {
            return refuse(format!(
                "{c:?} cannot stand in an interface name; use letters, digits, '_', '.' and '-'"
            ));
        }
        if s == "." || s == ".." {
            return refuse(format!("{s:?} cannot be an interface name"));
        }
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Display for NicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Which NIC of a session a record is for. The server numbers a client's NICs; the number means
/// nothing outside that client's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NicId(pub u16);

impl fmt::Display for NicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An IEEE 802 MAC-48 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// True for group addresses, broadcast included: the I/G bit (IEEE 802-2014, 8.2.2).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// True where an interface may own the address: not a group address and not all zero.
    pub const fn is_assignable(self) -> bool {
        !self.is_multicast()
            && u64::from_be_bytes([0, 0, self.0[0], self.0[1], self.0[2], self.0[3], self.0[4], self.0[5]])
                != 0
    }
}

impl FromStr for MacAddr {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let mut mac = [0u8; 6];
        let mut parts = s.split([':', '-']);
        for byte in &mut mac {
            let Some(Ok(b)) = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .map(|p| u8::from_str_radix(p, 16))
            else {
                return refuse(format!(
                    "{s:?} is not a MAC address; write six pairs of hex digits, like \"be:17:dd:5c:07:17\""
                ));
            };
            *byte = b;
        }
        if parts.next().is_some() {
            return refuse(format!(
                "{s:?} has more than six bytes; a MAC address looks like \"be:17:dd:5c:07:17\""
            ));
        }
        Ok(Self(mac))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The largest payload of an Ethernet frame in bytes, its 14-byte header and VLAN tags not counted: 68 to 9000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u16);

impl Mtu {
    /// Least MTU of an IPv4 link (RFC 791).
    pub const MIN: u16 = 68;
    /// The usual jumbo frame.
    pub const MAX: u16 = 9000;
    /// Ethernet's own.
    pub const DEFAULT: Self = Self(1500);

    /// The payload size in bytes.
    pub const fn bytes(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = ParseError;

    fn try_from(n: u32) -> Result<Self, ParseError> {
        match u16::try_from(n) {
            Ok(n @ Self::MIN..=Self::MAX) => Ok(Self(n)),
            _ => refuse(format!("an MTU is {} to {}, not {n}", Self::MIN, Self::MAX)),
        }
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of interface carries a NIC on a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicMode {
    /// A tap device of our own.
    Tap,
    /// A macvtap on top of a real interface.
    Macvtap,
}

impl fmt::Display for NicMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
        })
    }
}

/// An address of a NIC, with the prefix length of its subnet where the user wrote one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NicAddr {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the subnet. `None`: the address is left to the user to apply.
    pub prefix: Option<u8>,
}

impl FromStr for NicAddr {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let (addr, prefix) = match s.split_once('/') {
            Some((a, p)) => (a, Some(p)),
            None => (s, None),
        };
        let Ok(ip) = addr.parse::<IpAddr>() else {
            return refuse(format!(
                "{s:?} is not an address; write one like \"18.8.80.150/24\" or \"2001:db8::7/64\""
            ));
        };
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return refuse(format!("{ip} cannot be the address of one NIC"));
        }
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix.map(str::parse::<u8>) {
            None => None,
            Some(Ok(p)) if p >= 1 && p <= most => Some(p),
            Some(_) => return refuse(format!("the prefix length in {s:?} must be 1 to {most}")),
        };
        Ok(Self { ip, prefix })
    }
}

impl fmt::Display for NicAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(p) => write!(f, "{}/{p}", self.ip),
            None => write!(f, "{}", self.ip),
        }
    }
}

/// Whether the kernel's offloads are used: super-frames, and checksums left to be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadMode {
    /// Every offload that the kernel has.
    Auto,
    /// None: every frame is whole and at most the MTU long. Slow, for kernels and capture tools that need it.
    Off,
}

/// One projected NIC: what both ends must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicSpec {
    /// The interface's name on this box.
    pub name: NicName,
    /// The MAC that it has on both ends.
    pub mac: MacAddr,
    /// Its addresses: those that the ARP and neighbour-discovery rules hold it to.
    pub addrs: Vec<NicAddr>,
    /// Largest frame payload.
    pub mtu: Mtu,
}

/// Where datagrams of one peer come from and go to: its address, and ours that it speaks to. A box with several
/// addresses answers from the one it was spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The peer's address and port. IPv4 is always written as IPv4, never as `::ffff:a.b.c.d`.
    pub remote: SocketAddr,
    /// Our address, where it is known; `None`: the kernel chooses.
    pub local: Option<IpAddr>,
}

impl Path {
    /// A path in its one canonical form: v4-mapped IPv6 addresses become IPv4, and an IPv6 flow label is
    /// forgotten, so that equal paths compare equal.
    pub fn new(remote: SocketAddr, local: Option<IpAddr>) -> Self {
        let remote = match remote {
            SocketAddr::V6(v6) => match v6.ip().to_canonical() {
                IpAddr::V4(ip) => SocketAddr::new(ip.into(), v6.port()),
                IpAddr::V6(ip) => std::net::SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into(),
            },
            v4 => v4,
        };
        Self { remote, local: local.map(|ip| ip.to_canonical()) }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local {
            Some(local) => write!(f, "{} at {local}", self.remote),
            None => write!(f, "{}", self.remote),
        }
    }
}

/// How strictly the NIC contract is applied to one NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicRules {
    /// Lifts the MAC part of the contract: the NIC stands for a whole segment behind a bridge.
    pub bridge: bool,
    /// Lets 802.1Q tags out onto the client's LAN.
    pub vlan: bool,
    /// Also holds IPv4 sources to the NIC's addresses and bars DHCP servers and router advertisements.
    pub strict: bool,
    /// Broadcast and multicast frames a second that may pass in each direction, averaged; bursts of as many again.
    pub broadcast_pps: u32,
}

impl Default for NicRules {
    fn default() -> Self {
        Self { bridge: false, vlan: false, strict: false, broadcast_pps: 1000 }
    }
}

/// Which Noise protocol name a session uses; one byte of every datagram header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// `Noise_IK_25519_ChaChaPoly_BLAKE2s`
    ChaCha = 0x01,
    /// `Noise_IK_25519_AESGCM_BLAKE2s`
    Aes = 0x02,
    /// `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`
    ChaChaPsk = 0x11,
    /// `Noise_IKpsk2_25519_AESGCM_BLAKE2s`
    AesPsk = 0x12,
}

impl Suite {
    /// Every suite of protocol version 1.
    pub const ALL: [Self; 4] = [Self::ChaCha, Self::Aes, Self::ChaChaPsk, Self::AesPsk];

    /// The suite with this number on the wire.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0x01 => Some(Self::ChaCha),
            0x02 => Some(Self::Aes),
            0x11 => Some(Self::ChaChaPsk),
            0x12 => Some(Self::AesPsk),
            _ => None,
        }
    }

    /// True where the handshake mixes in a pre-shared key (Noise, section 9).
    pub const fn has_psk(self) -> bool {
        matches!(self, Self::ChaChaPsk | Self::AesPsk)
    }

    /// True where the AEAD is AES-256-GCM.
    pub const fn is_aes(self) -> bool {
        matches!(self, Self::Aes | Self::AesPsk)
    }

    /// The same AEAD, with or without a pre-shared key.
    #[must_use]
    pub const fn with_psk(self, psk: bool) -> Self {
        match (self.is_aes(), psk) {
            (false, false) => Self::ChaCha,
            (true, false) => Self::Aes,
            (false, true) => Self::ChaChaPsk,
            (true, true) => Self::AesPsk,
        }
    }

    /// The Noise protocol name (Noise, section 8).
    pub const fn noise_name(self) -> &'static str {
        match self {
            Self::ChaCha => "Noise_IK_25519_ChaChaPoly_BLAKE2s",
            Self::Aes => "Noise_IK_25519_AESGCM_BLAKE2s",
            Self::ChaChaPsk => "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
            Self::AesPsk => "Noise_IKpsk2_25519_AESGCM_BLAKE2s",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_what_the_kernel_and_a_shell_can_take() {
        for good in ["eth0", "tap-1", "a", "br_lan.100", "x23456789012345"] {
            assert_eq!(good.parse::<NicName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "x234567890123456", "a b", "a/b", "a;b", "é"] {
            assert!(bad.parse::<NicName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mac_reads_back_as_it_was_written() {
        let mac: MacAddr = "be:17:dd:5c:07:17".parse().unwrap();
        assert_eq!(mac.to_string(), "be:17:dd:5c:07:17");
        assert!(mac.is_assignable());
        for bad in [
            "",
            "be:17:dd:5c:07",
            "be:17:dd:5c:07:17:00",
            "be:17:dd:5c:7:17",
            "be17dd5c0717",
            "+e:17:dd:5c:07:17",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?}");
        }
        assert!(!MacAddr::BROADCAST.is_assignable() && !MacAddr([0; 6]).is_assignable());
    }

    #[test]
    fn a_bare_address_has_no_prefix() {
        assert_eq!("18.8.80.150".parse::<NicAddr>().unwrap().prefix, None);
        assert_eq!("2001:db8::7/64".parse::<NicAddr>().unwrap().prefix, Some(64));
        for bad in ["18.8.80.150/33", "18.8.80.150/0", "0.0.0.0/8", "224.0.0.1", "18.8.80", "::/64"] {
            assert!(bad.parse::<NicAddr>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_has_one_form() {
        let path = |remote: &str, local: &str| Path::new(remote.parse().unwrap(), local.parse().ok());
        assert_eq!(path("[::ffff:192.0.2.1]:9", "::ffff:192.0.2.2"), path("192.0.2.1:9", "192.0.2.2"));
        assert_eq!(path("[::ffff:192.0.2.1]:9", "::ffff:192.0.2.2").to_string(), "192.0.2.1:9 at 192.0.2.2");
        assert_eq!(path("[fe80::1%3]:9", "").to_string(), "[fe80::1%3]:9");
    }

    #[test]
    fn suites_survive_the_wire() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_u8(suite as u8), Some(suite));
            assert_eq!(suite.noise_name().contains("psk2"), suite.has_psk());
            assert_eq!(suite.noise_name().contains("AESGCM"), suite.is_aes());
        }
        assert_eq!(Suite::from_u8(3), None);
    }
}
