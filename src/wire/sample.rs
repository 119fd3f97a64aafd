//! Frames for tests, built layer by layer from the inside out, checksums partial where a kernel would leave them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{pseudo_header_sum, sum};
use super::ip::Transport;
use crate::types::MacAddr;

pub(crate) const NIC: MacAddr = MacAddr([0xbe, 0x17, 0xdd, 0x5c, 0x07, 0x17]);
pub(crate) const HOST: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x99]);
pub(crate) const NIC4: Ipv4Addr = Ipv4Addr::new(18, 8, 80, 150);
pub(crate) const HOST4: Ipv4Addr = Ipv4Addr::new(18, 8, 80, 9);
pub(crate) const NIC6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

/// An Ethernet frame; each tag is (TPID, TCI).
pub(crate) fn ether(dst: MacAddr, src: MacAddr, tags: &[(u16, u16)], kind: u16, body: &[u8]) -> Vec<u8> {
    let mut f = [dst.0, src.0].concat();
    for (tpid, tci) in tags {
        f.extend([tpid.to_be_bytes(), tci.to_be_bytes()].concat());
    }
    f.extend(kind.to_be_bytes());
    f.extend(body);
    f
}

/// An IPv4 packet with a right header checksum; `options` is a multiple of four bytes, `frag` the fragment field.
pub(crate) fn ipv4(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    proto: u8,
    options: &[u8],
    frag: u16,
    body: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut p = vec![0x40 | (header / 4) as u8, 0];
    p.extend(((header + body.len()) as u16).to_be_bytes());
    p.extend(0xfffeu16.to_be_bytes());
    p.extend(frag.to_be_bytes());
    p.extend([64, proto, 0, 0]);
    p.extend([src.octets(), dst.octets()].concat());
    p.extend(options);
    let check = !sum(&p);
    p[10..12].copy_from_slice(&check.to_be_bytes());
    p.extend(body);
    p
}

/// An IPv6 packet; `next` is the first of its next headers.
pub(crate) fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, body: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((body.len() as u16).to_be_bytes());
    p.extend([next, 255]);
    p.extend([src.octets(), dst.octets()].concat());
    p.extend(body);
    p
}

/// A TCP segment, its checksum still zero.
pub(crate) fn tcp(seq: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut t = vec![0x30, 0x39, 0x00, 0x50];
    t.extend(seq.to_be_bytes());
    t.extend([0, 0, 0, 1]);
    t.extend([((20 + options.len()) / 4 * 16) as u8, flags, 0x10, 0, 0, 0, 0, 0]);
    t.extend(options);
    t.extend(payload);
    t
}

/// A UDP datagram, its checksum still zero.
pub(crate) fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut u = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    u.extend(((8 + payload.len()) as u16).to_be_bytes());
    u.extend([0, 0]);
    u.extend(payload);
    u
}

/// Writes the partial checksum that a sending kernel leaves to its NIC.
pub(crate) fn with_partial_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let t = Transport::parse(&frame, frame.len()).expect("TCP or UDP");
    let partial = pseudo_header_sum(t.ip.src, t.ip.dst, t.ip.protocol, t.ip.l4_len());
    let at = t.ip.l4 + usize::from(t.checksum_offset());
    frame[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    frame
}

/// A TCP frame from the LAN's host to the NIC over IPv4 or IPv6.
pub(crate) fn tcp_frame(v6: bool, payload: usize) -> Vec<u8> {
    let body = tcp(7, 0x18, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &vec![0x5a; payload]);
    with_partial_checksum(to_nic(v6, 6, &body))
}

/// A UDP frame from the LAN's host to the NIC over IPv4 or IPv6.
pub(crate) fn udp_frame(v6: bool, payload: usize) -> Vec<u8> {
    with_partial_checksum(to_nic(v6, 17, &udp(4000, 5000, &vec![0xa5; payload])))
}

/// A frame from the LAN's host to the NIC that carries `body` as IP protocol `proto`.
pub(crate) fn to_nic(v6: bool, proto: u8, body: &[u8]) -> Vec<u8> {
    match v6 {
        false => ether(NIC, HOST, &[], 0x0800, &ipv4(HOST4, NIC4, proto, &[], 0x4000, body)),
        true => ether(NIC, HOST, &[], 0x86dd, &ipv6(HOST6, NIC6, proto, body)),
    }
}

/// A frame from the NIC to the LAN's host that carries `body` as IP protocol `proto`, from an address of choice.
pub(crate) fn from_nic(src: impl Into<IpAddr>, proto: u8, body: &[u8]) -> Vec<u8> {
    match src.into() {
        IpAddr::V4(src) => ether(HOST, NIC, &[], 0x0800, &ipv4(src, HOST4, proto, &[], 0x4000, body)),
        IpAddr::V6(src) => ether(HOST, NIC, &[], 0x86dd, &ipv6(src, HOST6, proto, body)),
    }
}

/// A neighbour discovery message with a target (solicitation 135, advertisement 136), its checksum left out.
pub(crate) fn nd(kind: u8, target: Ipv6Addr, options: &[&[u8]]) -> Vec<u8> {
    let mut m = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    m.extend(target.octets());
    m.extend(options.concat());
    m
}
