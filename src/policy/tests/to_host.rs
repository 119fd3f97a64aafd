//! LAN → host.

use super::*;
use crate::wire::record::Gso;
use std::net::Ipv6Addr;

const OK: Result<(), DropReason> = Ok(());

fn arp(op: u16, src: MacAddr, sender_mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Vec<u8> {
    ether(MacAddr::BROADCAST, src, &[], 0x0806, &arp_packet(op, sender_mac, sender_ip, target_ip))
}

fn nd_from(src: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    ether(NIC, HOST, &[], 0x86dd, &ipv6(src, NIC6, 58, message))
}

#[test]
fn a_packet_for_the_nic_passes() {
    for frame in [tcp_frame(false, 100), tcp_frame(true, 100), udp_frame(false, 9), udp_frame(true, 9)] {
        assert_eq!(to_host(plain(), &frame), OK);
        assert_eq!(to_host(strict(), &frame), OK);
    }
}

#[test]
fn a_frame_shorter_than_its_header_is_dropped() {
    let frame = opaque(NIC, HOST, &[(0x8100, 7)], 18);
    for n in (0..14).chain(14..18) {
        assert_eq!(to_host(bridge(), &frame[..n]), Err(DropReason::Undersize), "{n} bytes");
    }
    assert_eq!(to_host(plain(), &frame), OK);
    assert_eq!(to_host(plain(), &opaque(NIC, HOST, &[], 14)), OK);
}

#[test]
fn a_frame_longer_than_the_mtu_is_dropped() {
    for rules in [plain(), bridge()] {
        assert_eq!(to_host(rules, &opaque(NIC, HOST, &[], 1514)), OK);
        assert_eq!(to_host(rules, &opaque(NIC, HOST, &[], 1515)), Err(DropReason::Oversize));
        assert_eq!(to_host(rules, &opaque(NIC, HOST, &[(0x8100, 7)], 1518)), OK);
        assert_eq!(to_host(rules, &opaque(NIC, HOST, &[(0x8100, 7)], 1519)), Err(DropReason::Oversize));
    }
}

#[test]
fn a_super_frame_is_measured_by_its_packets() {
    let frame = tcp_frame(false, 40_000);
    let now = Instant::now();
    let mut c = contract(plain());
    let mut ask = |size| {
        let offload = Offload { needs_checksum: true, gso: Some(Gso::Tcp(size)) };
        c.lan_to_host(now, &frame[..192], frame.len(), offload)
    };
    assert_eq!(ask(1448), OK);
    assert_eq!(ask(1449), Err(DropReason::Oversize));
    assert_eq!(ask(0), Err(DropReason::BadOffload));
    assert_eq!(ask(40_000), Err(DropReason::Oversize), "a size that leaves the frame whole");
}

#[test]
fn a_super_frame_is_as_long_as_the_longest_frame_at_the_most() {
    let offload = Offload { needs_checksum: true, gso: Some(Gso::Tcp(1000)) };
    let frame = |total: usize| tcp_frame(true, total - tcp_frame(true, 0).len());
    let ask = |f: Vec<u8>| contract(plain()).lan_to_host(Instant::now(), &f, f.len(), offload);
    assert_eq!(ask(frame(MAX_FRAME - 1)), OK);
    assert_eq!(ask(frame(MAX_FRAME)), OK);
    assert_eq!(ask(frame(MAX_FRAME + 1)), Err(DropReason::Oversize));
}

#[test]
fn a_super_frame_of_another_kind_than_its_headers_is_dropped() {
    let frame = tcp_frame(false, 4000);
    let offload = Offload { needs_checksum: true, gso: Some(Gso::Udp(1000)) };
    let got = contract(plain()).lan_to_host(Instant::now(), &frame, frame.len(), offload);
    assert_eq!(got, Err(DropReason::BadOffload));
}

#[test]
fn a_group_address_as_source_is_dropped() {
    for rules in [plain(), bridge()] {
        assert_eq!(to_host(rules, &opaque(NIC, ALL_NODES, &[], 60)), Err(DropReason::SourceNotUnicast));
    }
}

#[test]
fn the_nics_own_mac_as_source_is_a_loop() {
    assert_eq!(to_host(plain(), &opaque(MacAddr::BROADCAST, NIC, &[], 60)), Err(DropReason::Loop));
    assert_eq!(to_host(bridge(), &opaque(MacAddr::BROADCAST, NIC, &[], 60)), OK);
}

#[test]
fn a_frame_for_another_station_is_dropped() {
    assert_eq!(to_host(plain(), &opaque(THIRD, HOST, &[], 60)), Err(DropReason::NotForNic));
    assert_eq!(to_host(bridge(), &opaque(THIRD, HOST, &[], 60)), OK);
    for dst in [NIC, MacAddr::BROADCAST, ALL_NODES, MacAddr([1, 0x80, 0xc2, 0, 0, 0x0e])] {
        assert_eq!(to_host(plain(), &opaque(dst, HOST, &[], 60)), OK, "{dst}");
    }
}

#[test]
fn one_tag_passes_and_a_nested_one_is_dropped() {
    for rules in [plain(), vlan(), bridge()] {
        for tag in [(0x8100, 7), (0x8100, 0), (0x88a8, 7)] {
            assert_eq!(to_host(rules, &opaque(NIC, HOST, &[tag], 60)), OK);
            for inner in [0x8100, 0x88a8, 0x9100] {
                let frame = ether(NIC, HOST, &[tag, (inner, 8)], 0x88b5, &[0; 40]);
                assert_eq!(to_host(rules, &frame), Err(DropReason::NestedTag), "{tag:x?} {inner:#x}");
            }
        }
    }
}

#[test]
fn arp_that_claims_the_nics_address_is_dropped() {
    for op in [1, 2, 9] {
        let frame = arp(op, HOST, HOST, NIC4, HOST4);
        assert_eq!(to_host(plain(), &frame), Err(DropReason::SpoofedArp), "operation {op}");
        assert_eq!(to_host(bridge(), &frame), OK);
    }
    assert_eq!(
        to_host(plain(), &arp(1, HOST, HOST, NIC4, NIC4)),
        Err(DropReason::SpoofedArp),
        "announcement"
    );
}

#[test]
fn arp_that_claims_the_nics_mac_is_dropped() {
    assert_eq!(to_host(plain(), &arp(2, HOST, NIC, HOST4, NIC4)), Err(DropReason::SpoofedArp));
}

#[test]
fn a_claim_in_a_tagged_frame_is_seen() {
    let body = arp_packet(2, HOST, NIC4, HOST4);
    let frame = ether(NIC, HOST, &[(0x8100, 0)], 0x0806, &body);
    assert_eq!(to_host(plain(), &frame), Err(DropReason::SpoofedArp));
}

#[test]
fn malformed_arp_is_dropped() {
    let good = arp(1, HOST, HOST, HOST4, NIC4);
    assert_eq!(to_host(plain(), &good), OK);
    for at in 14..20 {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(to_host(plain(), &bad), Err(DropReason::SpoofedArp), "byte {at}");
    }
    assert_eq!(to_host(plain(), &good[..41]), Err(DropReason::SpoofedArp));
}

#[test]
fn questions_and_probes_for_the_nics_address_pass() {
    assert_eq!(to_host(plain(), &arp(1, HOST, HOST, HOST4, NIC4)), OK);
    assert_eq!(to_host(plain(), &arp(1, HOST, HOST, Ipv4Addr::UNSPECIFIED, NIC4)), OK);
    assert_eq!(to_host(plain(), &arp(2, THIRD, HOST, HOST4, NIC4)), OK, "proxies answer for others");
    let ask = nd(135, NIC6, &[&lla(1, HOST)]);
    assert_eq!(to_host(plain(), &nd_from(HOST6, &ask)), OK);
    assert_eq!(to_host(plain(), &nd_from(Ipv6Addr::UNSPECIFIED, &nd(135, NIC6, &[]))), OK);
}

#[test]
fn questions_for_other_addresses_stay_on_the_lan_and_announcements_pass() {
    let other = Ipv4Addr::new(18, 8, 80, 151);
    assert_eq!(to_host(plain(), &arp(1, HOST, HOST, HOST4, other)), Err(DropReason::NotForNic));
    assert_eq!(to_host(plain(), &arp(1, HOST, HOST, HOST4, HOST4)), OK, "its own address, to all");
    assert_eq!(to_host(plain(), &arp(2, HOST, HOST, HOST4, other)), OK, "an answer");
    let mut of_none = contract_with(plain(), &[]);
    let question = arp(1, HOST, HOST, HOST4, other);
    assert_eq!(of_none.lan_to_host(Instant::now(), &question, 42, Offload::default()), OK);
}

#[test]
fn nd_that_claims_the_nics_address_is_dropped() {
    for address in [NIC6, LINK_LOCAL.parse().unwrap()] {
        for frame in [
            nd_from(HOST6, &nd(136, address, &[&lla(2, HOST)])),
            nd_from(address, &nd(135, HOST6, &[&lla(1, HOST)])),
            nd_from(address, &[&[133, 0, 0, 0, 0, 0, 0, 0][..], &lla(1, HOST)].concat()),
            nd_from(address, &[134; 1].iter().chain(&[0; 15]).copied().collect::<Vec<_>>()),
            nd_from(HOST6, &[nd(137, address, &[]), vec![0; 16]].concat()),
        ] {
            assert_eq!(to_host(plain(), &frame), Err(DropReason::SpoofedNd), "{address}, type {}", frame[54]);
            assert_eq!(to_host(bridge(), &frame), OK);
        }
    }
    assert_eq!(to_host(plain(), &nd_from(HOST6, &nd(136, HOST6, &[&lla(2, HOST)]))), OK);
}

#[test]
fn a_claim_behind_extension_headers_is_seen() {
    let claim = nd(136, NIC6, &[&lla(2, HOST)]);
    let padded = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &claim].concat();
    let frame = ether(NIC, HOST, &[], 0x86dd, &ipv6(HOST6, NIC6, 60, &padded));
    assert_eq!(to_host(plain(), &frame), Err(DropReason::SpoofedNd));
    let harmless = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(1, 2, b"x")].concat();
    assert_eq!(to_host(plain(), &ether(NIC, HOST, &[], 0x86dd, &ipv6(HOST6, NIC6, 60, &harmless))), OK);
}

#[test]
fn nd_in_fragments_is_dropped() {
    for more in [0, 1] {
        let piece = [&[58, 0, 0, more, 0, 0, 0, 9][..], &nd(136, HOST6, &[])].concat();
        let frame = ether(NIC, HOST, &[], 0x86dd, &ipv6(HOST6, NIC6, 44, &piece));
        assert_eq!(to_host(plain(), &frame), Err(DropReason::SpoofedNd), "M = {more}");
    }
    let later = [&[58, 0, 0, 9, 0, 0, 0, 9][..], &[0; 64]].concat();
    assert_eq!(to_host(plain(), &ether(NIC, HOST, &[], 0x86dd, &ipv6(HOST6, NIC6, 44, &later))), OK);
}

#[test]
fn ipv6_that_cannot_be_followed_is_dropped() {
    let mut cut = nd_from(HOST6, &nd(136, HOST6, &[]));
    cut.pop();
    assert_eq!(to_host(plain(), &cut), Err(DropReason::SpoofedNd), "a packet longer than its frame");
    assert_eq!(to_host(plain(), &nd_from(HOST6, &[])), Err(DropReason::SpoofedNd), "no ICMPv6 type");
    assert_eq!(to_host(plain(), &nd_from(HOST6, &[136, 0, 0])), Err(DropReason::SpoofedNd), "no target");
}

#[test]
fn echo_and_other_protocols_pass() {
    assert_eq!(to_host(plain(), &nd_from(HOST6, &[128, 0, 0, 0, 0, 1, 0, 1])), OK);
    assert_eq!(to_host(plain(), &to_nic(true, 50, &[0; 40])), OK);
    assert_eq!(to_host(plain(), &to_nic(false, 1, &[8, 0, 0, 0, 0, 1, 0, 1])), OK);
}

#[test]
fn broadcast_over_the_budget_is_a_storm() {
    let now = Instant::now();
    let mut c = contract(NicRules { broadcast_pps: 3, ..plain() });
    let mut send = |dst| {
        let f = opaque(dst, HOST, &[], 60);
        c.lan_to_host(now, &f, f.len(), Offload::default())
    };
    assert!((0..100).all(|_| send(NIC).is_ok()), "unicast is free");
    assert!((0..3).all(|_| send(ALL_NODES).is_ok()));
    assert_eq!(send(MacAddr::BROADCAST), Err(DropReason::Storm));
    assert_eq!(send(NIC), OK);
    let f = opaque(MacAddr::BROADCAST, NIC, &[], 60);
    assert_eq!(c.host_to_lan(now, &f, 60, Offload::default()), OK, "the other direction has its own");
}

#[test]
fn a_multicast_super_frame_costs_as_many_as_it_is_cut_into() {
    let now = Instant::now();
    let mut frame = udp_frame(false, 4000);
    frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
    let offload = Offload { needs_checksum: true, gso: Some(Gso::Udp(1000)) };
    let mut c = contract(NicRules { broadcast_pps: 7, ..plain() });
    assert_eq!(c.lan_to_host(now, &frame, frame.len(), offload), OK);
    assert_eq!(c.lan_to_host(now, &frame, frame.len(), offload), Err(DropReason::Storm));
}

#[test]
fn a_dropped_frame_costs_no_budget() {
    let now = Instant::now();
    let mut c = contract(NicRules { broadcast_pps: 1, ..plain() });
    let bad = opaque(MacAddr::BROADCAST, NIC, &[], 60);
    let good = opaque(MacAddr::BROADCAST, HOST, &[], 60);
    assert_eq!(c.lan_to_host(now, &bad, 60, Offload::default()), Err(DropReason::Loop));
    assert_eq!(c.lan_to_host(now, &good, 60, Offload::default()), OK);
}

#[test]
fn a_marked_frame_that_nobody_waits_for_is_dropped() {
    let mut frame = crate::wire::probe::frame(NIC, HOST, 7, 60);
    for rules in [plain(), bridge()] {
        assert_eq!(to_host(rules, &frame), Err(DropReason::StrayProbe));
    }
    frame[14] ^= 1;
    assert_eq!(to_host(plain(), &frame), OK, "of that type, and not marked");
}

#[test]
fn the_tunnels_own_datagrams_are_dropped() {
    let mut c = contract(plain());
    let mut ask = |ends: Option<(&str, &str)>, frame: &[u8]| {
        c.set_tunnel(ends.map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())));
        c.lan_to_host(Instant::now(), frame, frame.len(), Offload::default())
    };
    let own = Err(DropReason::OwnDatagram);
    let v4 = udp_frame(false, 40); // 18.8.80.9:4000 → 18.8.80.150:5000
    assert_eq!(ask(None, &v4), OK);
    assert_eq!(ask(Some(("18.8.80.9:4000", "18.8.80.150:5000")), &v4), own);
    assert_eq!(ask(Some(("18.8.80.150:5000", "18.8.80.9:4000")), &v4), own, "the way back");
    assert_eq!(ask(Some(("[::ffff:18.8.80.9]:4000", "0.0.0.0:5000")), &v4), own);
    assert_eq!(ask(Some(("18.8.80.9:4000", "18.8.80.150:5001")), &v4), OK);
    assert_eq!(ask(Some(("18.8.80.9:4000", "18.8.80.151:5000")), &v4), OK);
    assert_eq!(ask(Some(("18.8.80.150:5000", "18.8.80.10:4000")), &v4), OK, "from somebody else");
    let v6 = udp_frame(true, 40);
    assert_eq!(ask(Some(("[2001:db8::9]:4000", "[2001:db8::7]:5000")), &v6), own);
    assert_eq!(ask(Some(("18.8.80.9:4000", "18.8.80.150:5000")), &tcp_frame(false, 4)), OK);
}

mod answers {
    use super::*;

    fn answer(frame: &[u8]) -> Option<Vec<u8>> {
        contract(plain()).reply_arp(frame).map(|r| r.to_vec())
    }

    #[test]
    fn a_request_for_the_nics_address_is_answered() {
        let want = Arp { op: 2, sender_mac: NIC, sender_ip: NIC4, target_mac: HOST, target_ip: HOST4 };
        let want = ether(HOST, NIC, &[], 0x0806, &want.to_bytes());
        let mut request = arp(1, HOST, HOST, HOST4, NIC4);
        assert_eq!(answer(&request), Some(want.clone()));
        request[..6].copy_from_slice(&NIC.0);
        request.resize(60, 0);
        assert_eq!(answer(&request), Some(want), "to the NIC alone, padded");
        assert!(answer(&arp(1, HOST, HOST, Ipv4Addr::UNSPECIFIED, NIC4)).is_some(), "a probe");
    }

    #[test]
    fn the_answer_may_go_out() {
        let reply = answer(&arp(1, HOST, HOST, HOST4, NIC4)).unwrap();
        assert_eq!(to_lan(strict(), &reply), OK);
    }

    #[test]
    fn nothing_else_is_answered() {
        let mut elsewhere = arp(1, HOST, HOST, HOST4, NIC4);
        elsewhere[..6].copy_from_slice(&THIRD.0);
        let body = arp_packet(1, HOST, HOST4, NIC4);
        for (what, frame) in [
            ("a reply", arp(2, HOST, HOST, HOST4, NIC4)),
            ("another address", arp(1, HOST, HOST, HOST4, HOST4)),
            ("the owner's own probe", arp(1, NIC, NIC, Ipv4Addr::UNSPECIFIED, NIC4)),
            ("the owner's MAC inside", arp(1, HOST, NIC, HOST4, NIC4)),
            ("a conflict", arp(1, HOST, HOST, NIC4, NIC4)),
            ("for a third station", arp(1, HOST, THIRD, HOST4, NIC4)),
            ("from a group", arp(1, ALL_NODES, ALL_NODES, HOST4, NIC4)),
            ("to another MAC", elsewhere),
            ("tagged", ether(MacAddr::BROADCAST, HOST, &[(0x8100, 7)], 0x0806, &body)),
            ("cut", arp(1, HOST, HOST, HOST4, NIC4)[..41].to_vec()),
            ("no ARP", udp_frame(false, 40)),
        ] {
            assert_eq!(answer(&frame), None, "{what}");
        }
    }
}
