//! What a NIC says to its LAN for itself: where an address is from now on, by a gratuitous ARP (RFC 5227, section 3) or
//! an unsolicited neighbour advertisement (RFC 4861, section 7.2.6); and before that the question whether anybody has it,
//! by an ARP probe (RFC 5227, section 2.1.1) or a solicitation from nowhere (RFC 4862, section 5.4.2). The question claims
//! nothing: nobody's neighbour table changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{pseudo_header_sum, sum};
use super::neighbour::Arp;
use crate::types::MacAddr;

const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
/// All nodes of the link (RFC 4291, section 2.7.1), and their group's MAC (RFC 2464).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// A frame that says that `ip` is at `mac`, to everyone.
pub fn announcement(mac: MacAddr, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => gratuitous_arp(mac, ip),
        IpAddr::V6(ip) => unsolicited_advertisement(mac, ip),
    }
}

/// A frame that asks everyone who may have `ip` for it. An answer comes to `mac`, or to all.
pub fn question(mac: MacAddr, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp_request(mac, Ipv4Addr::UNSPECIFIED, ip),
        IpAddr::V6(ip) => {
            let [.., a, b, c] = ip.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            // Type 135; target. No option: the asker has no address to be answered at.
            let body = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &ip.octets()].concat();
            icmpv6(mac, (Ipv6Addr::UNSPECIFIED, group), [0x33, 0x33, 0xff, a, b, c], body)
        }
    }
}

fn gratuitous_arp(mac: MacAddr, ip: Ipv4Addr) -> Vec<u8> {
    // A request is taken in by hosts that ignore replies which they have not asked for.
    arp_request(mac, ip, ip)
}

fn arp_request(mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Vec<u8> {
    let arp = Arp { op: Arp::REQUEST, sender_mac: mac, sender_ip, target_mac: MacAddr([0; 6]), target_ip };
    [&[0xff; 6][..], &mac.0, &ARP, &arp.to_bytes()].concat()
}

fn unsolicited_advertisement(mac: MacAddr, ip: Ipv6Addr) -> Vec<u8> {
    // Type 136, flags: override; target; option 2, target link-layer address.
    let body = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &ip.octets(), &[2, 1], &mac.0].concat();
    icmpv6(mac, (ip, ALL_NODES), ALL_NODES_MAC, body)
}

/// A frame with an ICMPv6 message whose checksum is still to be put in.
fn icmpv6(mac: MacAddr, (from, to): (Ipv6Addr, Ipv6Addr), group: [u8; 6], mut body: Vec<u8>) -> Vec<u8> {
    let pseudo = pseudo_header_sum(from.into(), to.into(), ICMPV6, body.len());
    let checksum = !super::checksum::add(sum(&body), pseudo);
    for (to, from) in body.iter_mut().skip(2).zip(checksum.to_be_bytes()) {
        *to = from;
    }
    let length = u16::try_from(body.len()).unwrap_or(0).to_be_bytes();
    // Hop limit 255: not from beyond a router.
    let header = [&[0x60, 0, 0, 0][..], &length, &[ICMPV6, 255], &from.octets(), &to.octets()].concat();
    [&group[..], &mac.0, &IPV6, &header, &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn a_gratuitous_arp_claims_the_address_for_the_mac() {
        let frame = announcement(MAC, [192, 0, 2, 1].into());
        let arp = Arp::parse(&frame, 14).unwrap();
        assert_eq!(
            (arp.sender_mac, arp.sender_ip, arp.target_ip),
            (MAC, arp.target_ip, [192, 0, 2, 1].into())
        );
        assert_eq!((&frame[..6], &frame[6..12], frame.len()), (&[0xff; 6][..], &MAC.0[..], 42));
    }

    #[test]
    fn an_advertisement_sums_up_and_names_the_mac() {
        let ip: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let frame = announcement(MAC, ip.into());
        let body = &frame[54..];
        let pseudo = pseudo_header_sum(ip.into(), ALL_NODES.into(), ICMPV6, body.len());
        assert_eq!(super::super::checksum::add(sum(body), pseudo), 0xffff);
        assert_eq!((body[0], &body[8..24], &body[26..]), (136, &ip.octets()[..], &MAC.0[..]));
    }

    #[test]
    fn a_question_claims_nothing() {
        let frame = question(MAC, [192, 0, 2, 1].into());
        let arp = Arp::parse(&frame, 14).unwrap();
        assert_eq!((arp.op, arp.sender_ip.is_unspecified()), (Arp::REQUEST, true));
        assert_eq!((arp.sender_mac, arp.target_ip), (MAC, [192, 0, 2, 1].into()));

        let ip: Ipv6Addr = "2001:db8::1:2:3".parse().unwrap();
        let frame = question(MAC, ip.into());
        let (group, body) = ("ff02::1:ff02:3".parse::<Ipv6Addr>().unwrap(), &frame[54..]);
        let pseudo = pseudo_header_sum(Ipv6Addr::UNSPECIFIED.into(), group.into(), ICMPV6, body.len());
        assert_eq!(super::super::checksum::add(sum(body), pseudo), 0xffff);
        assert_eq!((&frame[..6], &frame[22..38]), (&[0x33, 0x33, 0xff, 2, 0, 3][..], &[0; 16][..]));
        assert_eq!((body[0], &body[8..], &frame[38..54]), (135, &ip.octets()[..], &group.octets()[..]));
    }
}
