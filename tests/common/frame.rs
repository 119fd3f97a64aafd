//! Frames made by hand.

use std::net::{Ipv4Addr, Ipv6Addr};

pub const BROADCAST: [u8; 6] = [0xff; 6];
/// A host that is not there: a source for frames that nobody answers.
pub const STRANGER: [u8; 6] = [2, 0xbe, 0xef, 0, 0, 1];

pub fn ethernet(dst: [u8; 6], src: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&dst[..], &src, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The same frame with an 802.1Q tag.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// `operation` 1 asks, 2 answers (RFC 826). The Ethernet source is `src`, the ARP sender `sender`.
pub fn arp(
    operation: u16,
    (src, dst): ([u8; 6], [u8; 6]),
    (sender, sender_ip): ([u8; 6], Ipv4Addr),
    target_ip: Ipv4Addr,
) -> Vec<u8> {
    let target = if operation == 1 { [0; 6] } else { dst };
    let head = [0, 1, 8, 0, 6, 4];
    let body =
        [&head[..], &operation.to_be_bytes(), &sender, &sender_ip.octets(), &target, &target_ip.octets()];
    ethernet(dst, src, 0x0806, &body.concat())
}

pub fn arp_request(src: [u8; 6], src_ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(1, (src, BROADCAST), (src, src_ip), target)
}

pub fn udp4(
    (dst, src): ([u8; 6], [u8; 6]),
    (from, to): (Ipv4Addr, Ipv4Addr),
    (sport, dport): (u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let udp = udp((sport, dport), payload);
    let mut ip = vec![0x45, 0];
    ip.extend(u16::try_from(20 + udp.len()).unwrap().to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    ip.extend(udp);
    ethernet(dst, src, 0x0800, &ip)
}

fn udp((sport, dport): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    // A checksum of zero means none (RFC 768).
    [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

/// A neighbour advertisement (RFC 4861) of `target` at the MAC `owner`.
pub fn neighbour_advertisement((dst, src): ([u8; 6], [u8; 6]), target: Ipv6Addr, owner: [u8; 6]) -> Vec<u8> {
    let body = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets(), &[2, 1], &owner].concat();
    icmp6((dst, src), (target, "ff02::1".parse().unwrap()), body)
}

/// The link-local address that Linux derives from a MAC (RFC 4291, appendix A).
pub fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f].into()
}

/// A router advertisement (RFC 4861) from `router`.
pub fn router_advertisement((dst, src): ([u8; 6], [u8; 6]), router: Ipv6Addr) -> Vec<u8> {
    let body = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    icmp6((dst, src), (router, "ff02::1".parse().unwrap()), body)
}

fn icmp6((dst, src): ([u8; 6], [u8; 6]), (from, to): (Ipv6Addr, Ipv6Addr), mut body: Vec<u8>) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap();
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 0], &len.to_be_bytes(), &[0, 0, 0, 58], &body];
    let sum = checksum(&pseudo.concat()).to_be_bytes();
    body[2..4].copy_from_slice(&sum);
    let head = [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[58, 255], &from.octets(), &to.octets()];
    ethernet(dst, src, 0x86dd, &[head.concat(), body].concat())
}

fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// True where the bytes occur in the frame.
pub fn contains(frame: &[u8], what: &[u8]) -> bool {
    frame.windows(what.len()).any(|w| w == what)
}
