//! The frames that a hostile peer would like to have pass, each way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::wire::neighbour::Arp;
use crate::wire::probe::frame;
use crate::wire::sample::{
    HOST6, from_nic, ipv4, ipv6, nd, tcp, to_nic, udp, udp_frame, with_partial_checksum,
};

const THIRD: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
const GROUP: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

fn opaque(to: MacAddr, from: MacAddr, tags: &[(u16, u16)], len: usize) -> Vec<u8> {
    let mut frame = ether(to, from, tags, 0x88b5, &[]);
    frame.resize(len, 0);
    frame
}

fn arp(from: MacAddr, op: u16, (mac, ip): (MacAddr, Ipv4Addr), target_ip: Ipv4Addr) -> Vec<u8> {
    let body = Arp { op, sender_mac: mac, sender_ip: ip, target_mac: MacAddr([0; 6]), target_ip };
    ether(MacAddr::BROADCAST, from, &[], 0x0806, &body.to_bytes())
}

fn link(kind: u8, mac: MacAddr) -> Vec<u8> {
    [&[kind, 1][..], &mac.0].concat()
}

/// 16 or 40 bytes of a router advertisement or a redirect.
fn router() -> Vec<u8> {
    [&[134, 0, 0, 0, 64, 0, 7, 8][..], &[0; 8], &link(1, NIC)].concat()
}

fn redirect(target: Ipv6Addr) -> Vec<u8> {
    [nd(137, target, &[]), vec![0; 16]].concat()
}

fn snap(to: MacAddr, from: MacAddr, kind: u16) -> Vec<u8> {
    let body = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind.to_be_bytes(), &[0; 40]].concat();
    ether(to, from, &[], body.len() as u16, &body)
}

#[test]
fn nothing_that_a_client_may_not_send_passes_and_the_other_client_does_not_notice() {
    let mut scene = Scene::new(Side::Server);
    let from_lan = |next, body: &[u8]| ether(NIC, HOST, &[], 0x86dd, &ipv6(HOST6, NIC6, next, body));
    let from = |src, message: &[u8]| ether(NIC, HOST, &[], 0x86dd, &ipv6(src, NIC6, 58, message));
    let advertisement = nd(136, NIC6, &[&link(2, HOST)]);
    let hidden = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &advertisement].concat();
    let fragment = [&[58, 0, 0, 1, 0, 0, 0, 9][..], &advertisement].concat();
    let deep: Vec<u8> = (0..12).flat_map(|_| [60, 0, 1, 4, 0, 0, 0, 0]).collect();
    let other = Ipv4Addr::new(18, 8, 80, 151);
    use DropReason as D;
    for (what, frame, reason) in [
        ("13 bytes", opaque(NIC, HOST, &[], 14)[..13].to_vec(), D::Undersize),
        ("half a tag", opaque(NIC, HOST, &[(0x8100, 7)], 18)[..16].to_vec(), D::Undersize),
        ("a frame over the MTU", opaque(NIC, HOST, &[], 1515), D::Oversize),
        ("a tagged frame over the MTU", opaque(NIC, HOST, &[(0x8100, 7)], 1519), D::Oversize),
        ("a tag in a tag", opaque(NIC, HOST, &[(0x8100, 7), (0x8100, 8)], 64), D::NestedTag),
        ("a tag in a provider's tag", opaque(NIC, HOST, &[(0x88a8, 7), (0x8100, 8)], 64), D::NestedTag),
        ("from a group", opaque(NIC, GROUP, &[], 64), D::SourceNotUnicast),
        ("from everybody", opaque(NIC, MacAddr::BROADCAST, &[], 64), D::SourceNotUnicast),
        ("from the NIC itself", opaque(MacAddr::BROADCAST, NIC, &[], 64), D::Loop),
        ("to another host", opaque(THIRD, HOST, &[], 64), D::NotForNic),
        ("to the neighbour's NIC", opaque(NEXT_DOOR, HOST, &[], 64), D::NotForNic),
        ("a question for another host", arp(HOST, 1, (HOST, HOST4), other), D::NotForNic),
        ("a claim to the NIC's address", arp(HOST, 2, (HOST, NIC4), HOST4), D::SpoofedArp),
        ("an announcement of it", arp(HOST, 1, (HOST, NIC4), NIC4), D::SpoofedArp),
        ("a claim to the NIC's MAC", arp(HOST, 2, (NIC, HOST4), NIC4), D::SpoofedArp),
        ("half an ARP", arp(HOST, 1, (HOST, HOST4), NIC4)[..41].to_vec(), D::SpoofedArp),
        ("an advertisement of the NIC's address", from(HOST6, &advertisement), D::SpoofedNd),
        ("a solicitation from it", from(NIC6, &nd(135, HOST6, &[&link(1, HOST)])), D::SpoofedNd),
        ("a router advertisement from it", from(NIC6, &router()), D::SpoofedNd),
        ("a redirect for it", from(HOST6, &redirect(NIC6)), D::SpoofedNd),
        ("an advertisement behind headers", from_lan(60, &hidden), D::SpoofedNd),
        ("an advertisement in a fragment", from_lan(44, &fragment), D::SpoofedNd),
        ("headers without end", from_lan(60, &deep), D::SpoofedNd),
        ("the tunnel\'s own datagram", to_nic(false, 17, &udp(4000, 5000, b"sealed")), D::OwnDatagram),
        ("a marked frame that nobody waits for", frame(NIC, HOST, 7, 64), D::StrayProbe),
        ("a broadcast over the budget", opaque(MacAddr::BROADCAST, HOST, &[], 64), D::Storm),
    ] {
        scene.frame(what, (plain(), frame), reason);
    }
    let many = udp_frame(false, 1300);
    scene.frame("130 datagrams in one", (cut(Gso::Udp(10)), many), D::BadOffload);
    let piece =
        ether(NIC, HOST, &[], 0x0800, &ipv4(HOST4, NIC4, 6, &[], 0x2000, &tcp(1, 0x10, &[], &[0; 400])));
    scene.frame("a fragment to be cut", (cut(Gso::Tcp(100)), piece), D::BadOffload);
    scene.whichever_way(&sample::tcp_frame(false, 4000));
    assert_eq!(scene.tries, 65);
}

#[test]
fn nothing_that_a_server_may_not_send_passes_and_the_other_nic_does_not_notice() {
    let mut scene = Scene::new(Side::Client);
    let own = |message: &[u8]| from_nic(NIC6, 58, message);
    let advertisement = nd(136, NIC6, &[&link(2, NIC)]);
    let fragment = [&[58, 0, 0, 1, 0, 0, 0, 9][..], &advertisement].concat();
    let hidden = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &advertisement].concat();
    let deep: Vec<u8> = (0..12).flat_map(|_| [60, 0, 1, 4, 0, 0, 0, 0]).collect();
    let nowhere = Ipv4Addr::UNSPECIFIED;
    use DropReason as D;
    for (what, frame, reason) in [
        ("13 bytes", opaque(HOST, NIC, &[], 14)[..13].to_vec(), D::Undersize),
        ("half a tag", opaque(HOST, NIC, &[(0x8100, 7)], 18)[..16].to_vec(), D::Undersize),
        ("a frame over the MTU", opaque(HOST, NIC, &[], 1515), D::Oversize),
        ("a tag in a tag", opaque(HOST, NIC, &[(0x8100, 7), (0x8100, 8)], 64), D::NestedTag),
        ("a tag", opaque(HOST, NIC, &[(0x8100, 7)], 64), D::VlanTag),
        ("a priority tag", opaque(HOST, NIC, &[(0x8100, 0)], 64), D::VlanTag),
        ("a provider's tag", opaque(HOST, NIC, &[(0x88a8, 7)], 64), D::VlanTag),
        ("a vendor's tag", ether(HOST, NIC, &[], 0x9100, &[0; 46]), D::VlanTag),
        ("a tag in LLC", snap(HOST, NIC, 0x8100), D::VlanTag),
        ("from a group", opaque(HOST, GROUP, &[], 64), D::SourceNotUnicast),
        ("from another host", opaque(HOST, THIRD, &[], 64), D::SpoofedMac),
        ("from the neighbour's NIC", opaque(HOST, NEXT_DOOR, &[], 64), D::SpoofedMac),
        ("a BPDU", snap(MacAddr([1, 0x80, 0xc2, 0, 0, 0]), NIC, 0), D::LinkLocalGroup),
        ("a pause frame", opaque(MacAddr([1, 0x80, 0xc2, 0, 0, 1]), NIC, &[], 64), D::LinkLocalGroup),
        ("LACP", opaque(MacAddr([1, 0x80, 0xc2, 0, 0, 2]), NIC, &[], 64), D::LinkLocalGroup),
        ("802.1X", opaque(MacAddr([1, 0x80, 0xc2, 0, 0, 3]), NIC, &[], 64), D::LinkLocalGroup),
        ("LLDP", opaque(MacAddr([1, 0x80, 0xc2, 0, 0, 0xe]), NIC, &[], 64), D::LinkLocalGroup),
        ("a claim to a host's address", arp(NIC, 2, (NIC, HOST4), NIC4), D::SpoofedArp),
        ("an announcement of it", arp(NIC, 1, (NIC, HOST4), HOST4), D::SpoofedArp),
        ("a claim for another MAC", arp(NIC, 2, (HOST, NIC4), HOST4), D::SpoofedArp),
        ("an answer from nowhere", arp(NIC, 2, (NIC, nowhere), HOST4), D::SpoofedArp),
        ("half an ARP", arp(NIC, 1, (NIC, NIC4), HOST4)[..41].to_vec(), D::SpoofedArp),
        ("ARP in LLC", snap(HOST, NIC, 0x0806), D::SpoofedArp),
        ("an advertisement of a host's address", own(&nd(136, HOST6, &[&link(2, NIC)])), D::SpoofedNd),
        ("an advertisement of another MAC", own(&nd(136, NIC6, &[&link(2, THIRD)])), D::SpoofedNd),
        ("a router that is another", from_nic(HOST6, 58, &router()), D::SpoofedNd),
        ("a redirect from another", from_nic(HOST6, 58, &redirect(HOST6)), D::SpoofedNd),
        ("an advertisement in a fragment", from_nic(NIC6, 44, &fragment), D::SpoofedNd),
        ("an advertisement behind headers", from_nic(NIC6, 60, &hidden), D::SpoofedNd),
        ("headers without end", from_nic(NIC6, 60, &deep), D::SpoofedNd),
        ("IPv6 in LLC", snap(HOST, NIC, 0x86dd), D::SpoofedNd),
        ("the tunnel\'s own datagram", from_nic(NIC4, 17, &udp(5000, 4000, b"sealed")), D::OwnDatagram),
        ("a marked frame that nobody waits for", frame(HOST, NIC, 7, 64), D::StrayProbe),
        ("a broadcast over the budget", opaque(MacAddr::BROADCAST, NIC, &[], 64), D::Storm),
    ] {
        scene.frame(what, (plain(), frame), reason);
    }
    let long = with_partial_checksum(from_nic(NIC4, 6, &tcp(7, 0x18, &[], &[0x5a; 4000])));
    scene.whichever_way(&long);
    strictly(&mut scene);
    assert_eq!(scene.tries, 78);
}

/// What `strict = true` forbids as well.
fn strictly(scene: &mut Scene) {
    scene.hold_to(NicRules { strict: true, ..NicRules::default() });
    let lease = |src: IpAddr, from, to| from_nic(src, 17, &udp(from, to, b"a lease"));
    let piece = ipv4(NIC4, HOST4, 17, &[], 0x2000, &udp(67, 68, &[0; 16]));
    use DropReason as D;
    for (what, frame, reason) in [
        ("from another address", lease(HOST4.into(), 1, 2), D::SpoofedIp),
        ("from another IPv6 address", lease(HOST6.into(), 1, 2), D::SpoofedIp),
        ("IPv4 in LLC", snap(HOST, NIC, 0x0800), D::SpoofedIp),
        ("a DHCP server", lease(NIC4.into(), 67, 68), D::DhcpServer),
        ("a DHCP server in fragments", ether(HOST, NIC, &[], 0x0800, &piece), D::DhcpServer),
        ("a DHCPv6 server", lease(NIC6.into(), 547, 546), D::DhcpServer),
        ("a router", from_nic(NIC6, 58, &router()), D::RouterAdvert),
    ] {
        scene.frame(what, (plain(), frame), reason);
    }
}
