//! Frames that are nearly right, for targets whose interesting paths lie behind well-formed headers.

use std::sync::OnceLock;

use super::input::Input;
use tap_rs::types::{MacAddr, Mtu, NicAddr, NicRules, NicSpec};
use tap_rs::wire::record::{Gso, Offload};

/// The NIC's MAC.
pub const NIC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
/// A LAN host's.
pub const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x20];
/// The NIC's IPv4 address.
pub const NIC4: [u8; 4] = [10, 1, 1, 1];
/// A LAN host's.
pub const HOST4: [u8; 4] = [10, 1, 1, 2];
/// The NIC's IPv6 address.
pub const NIC6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// A LAN host's.
pub const HOST6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// The NIC that frames are held against.
pub fn nic() -> NicSpec {
    let addr = |text: &str| text.parse::<NicAddr>().expect("an address");
    NicSpec {
        name: "mv0".parse().expect("a name"),
        mac: MacAddr(NIC),
        addrs: vec![addr("10.1.1.1/24"), addr("2001:db8::1/64")],
        mtu: Mtu::DEFAULT,
    }
}

/// The rules that a byte stands for.
pub fn rules(byte: u8) -> NicRules {
    NicRules {
        bridge: byte & 1 != 0,
        vlan: byte & 2 != 0,
        strict: byte & 4 != 0,
        broadcast_pps: if byte & 8 == 0 { 1000 } else { 3 },
    }
}

/// Offload metadata.
pub fn offload(input: &mut Input<'_>) -> Offload {
    let byte = input.u8();
    let gso = match byte >> 1 & 3 {
        1 => Some(Gso::Tcp(input.u16())),
        2 => Some(Gso::Udp(input.u16())),
        _ => None,
    };
    Offload { needs_checksum: byte & 1 != 0, gso }
}

/// A frame's length: short ones are made faster, and what is long differs little.
pub fn length(input: &mut Input<'_>) -> usize {
    let n = usize::from(input.u16());
    if n & 0xe000 == 0xe000 { n & 0x3fff } else { n & 0x7ff }
}

/// Payload bytes that tell where they are from.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| (0..1 << 14).map(|i: usize| (i ^ i >> 8) as u8).collect())
}

/// TCP or UDP over IPv4 or IPv6, `total` bytes if that is enough for the headers, from the NIC or to it; then a few
/// bytes are set as the input says.
pub fn frame(input: &mut Input<'_>, total: usize) -> Vec<u8> {
    let shape = input.u8();
    let (v6, udp, tag, from_nic) = (shape & 1 != 0, shape & 2 != 0, shape & 4 != 0, shape & 8 != 0);
    let patches = usize::from(shape >> 4 & 3);
    let mut f = Vec::with_capacity(total);
    let (dst, src) = if from_nic { (HOST, NIC) } else { (NIC, HOST) };
    f.extend(dst);
    f.extend(src);
    if tag {
        f.extend([0x81, 0, 0, 7]);
    }
    f.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
    let (l4, behind) = (if udp { 8 } else { 20 }, f.len() + if v6 { 40 } else { 20 });
    let total = total.max(behind + l4);
    let length = |from: usize| u16::try_from(total - from).unwrap_or(u16::MAX).to_be_bytes();
    let protocol = if udp { 17 } else { 6 };
    if v6 {
        let [a, b] = length(behind);
        f.extend([0x60, 0, 0, 0, a, b, protocol, 64]);
        f.extend(if from_nic { [NIC6, HOST6] } else { [HOST6, NIC6] }.concat());
    } else {
        let [a, b] = length(behind - 20);
        f.extend([0x45, 0, a, b, 0, 1, 0x40, 0, 64, protocol, 0, 0]);
        f.extend(if from_nic { [NIC4, HOST4] } else { [HOST4, NIC4] }.concat());
    }
    f.extend([0x30, 0x39, 0, 80]);
    if udp {
        f.extend(length(behind));
        f.extend([0, 0]);
    } else {
        f.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    }
    f.extend(pattern().get(f.len()..total).unwrap_or_default());
    f.resize(total, 0);
    for _ in 0..patches {
        let (at, byte) = (input.u8(), input.u8());
        if let Some(b) = f.get_mut(usize::from(at)) {
            *b = byte;
        }
    }
    f
}
