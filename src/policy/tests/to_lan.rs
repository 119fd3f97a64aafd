//! Host → LAN.

use super::*;
use crate::wire::record::Gso;
use std::net::{IpAddr, Ipv6Addr};

const OK: Result<(), DropReason> = Ok(());

fn arp(op: u16, sender_mac: MacAddr, sender_ip: Ipv4Addr) -> Vec<u8> {
    ether(MacAddr::BROADCAST, NIC, &[], 0x0806, &arp_packet(op, sender_mac, sender_ip, HOST4))
}

fn nd_from(src: impl Into<IpAddr>, message: &[u8]) -> Vec<u8> {
    from_nic(src, 58, message)
}

fn router_advertisement() -> Vec<u8> {
    [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &lla(1, NIC)].concat()
}

fn link_local() -> Ipv6Addr {
    LINK_LOCAL.parse().unwrap()
}

#[test]
fn a_packet_of_the_nics_passes() {
    for rules in [plain(), strict(), bridge()] {
        assert_eq!(to_lan(rules, &from_nic(NIC4, 6, &tcp(1, 0x10, &[], b"x"))), OK);
        assert_eq!(to_lan(rules, &from_nic(NIC6, 17, &udp(1, 2, b"x"))), OK);
        assert_eq!(to_lan(rules, &nd_from(link_local(), &[128, 0, 0, 0, 0, 1, 0, 1])), OK);
    }
}

#[test]
fn a_frame_shorter_than_its_header_is_dropped() {
    for n in 0..14 {
        assert_eq!(to_lan(bridge(), &opaque(HOST, NIC, &[], 14)[..n]), Err(DropReason::Undersize));
    }
}

#[test]
fn a_frame_longer_than_the_mtu_is_dropped() {
    for rules in [vlan(), NicRules { vlan: true, ..bridge() }] {
        assert_eq!(to_lan(rules, &opaque(HOST, NIC, &[], 1514)), OK);
        assert_eq!(to_lan(rules, &opaque(HOST, NIC, &[], 1515)), Err(DropReason::Oversize));
        assert_eq!(to_lan(rules, &opaque(HOST, NIC, &[(0x8100, 7)], 1518)), OK);
        assert_eq!(to_lan(rules, &opaque(HOST, NIC, &[(0x8100, 7)], 1519)), Err(DropReason::Oversize));
    }
}

#[test]
fn a_super_frame_is_measured_by_its_packets() {
    let frame = with_partial_checksum(from_nic(NIC4, 6, &tcp(1, 0x10, &[], &[0; 40_000])));
    let ask = |size| {
        let offload = Offload { needs_checksum: true, gso: Some(Gso::Tcp(size)) };
        contract(plain()).host_to_lan(Instant::now(), &frame[..192], frame.len(), offload)
    };
    assert_eq!(ask(1460), OK);
    assert_eq!(ask(1461), Err(DropReason::Oversize));
    assert_eq!(ask(7), Err(DropReason::BadOffload));
}

#[test]
fn a_group_address_as_source_is_dropped() {
    assert_eq!(to_lan(bridge(), &opaque(HOST, ALL_NODES, &[], 60)), Err(DropReason::SourceNotUnicast));
}

#[test]
fn another_mac_as_source_is_dropped() {
    assert_eq!(to_lan(plain(), &opaque(HOST, THIRD, &[], 60)), Err(DropReason::SpoofedMac));
    assert_eq!(to_lan(bridge(), &opaque(HOST, THIRD, &[], 60)), OK);
}

#[test]
fn frames_to_link_local_groups_are_dropped() {
    for last in 0..=0x0f {
        let dst = MacAddr([1, 0x80, 0xc2, 0, 0, last]);
        for rules in [plain(), bridge()] {
            assert_eq!(to_lan(rules, &opaque(dst, NIC, &[], 60)), Err(DropReason::LinkLocalGroup), "{dst}");
        }
    }
    assert_eq!(to_lan(plain(), &opaque(MacAddr([1, 0x80, 0xc2, 0, 0, 0x10]), NIC, &[], 60)), OK);
}

#[test]
fn a_tag_passes_only_where_the_nic_allows_tags() {
    for tag in [(0x8100, 7), (0x8100, 0), (0x88a8, 7)] {
        let frame = opaque(HOST, NIC, &[tag], 60);
        assert_eq!(to_lan(plain(), &frame), Err(DropReason::VlanTag));
        assert_eq!(to_lan(bridge(), &frame), Err(DropReason::VlanTag));
        assert_eq!(to_lan(vlan(), &frame), OK);
    }
}

#[test]
fn a_nested_tag_is_dropped() {
    for inner in [0x8100, 0x88a8, 0x9100] {
        let frame = ether(HOST, NIC, &[(0x8100, 7), (inner, 8)], 0x88b5, &[0; 40]);
        for rules in [plain(), vlan(), bridge()] {
            assert_eq!(to_lan(rules, &frame), Err(DropReason::NestedTag), "{inner:#x}");
        }
    }
}

#[test]
fn tags_of_vendors_count_as_tags() {
    for kind in [0x9100, 0x9200, 0x9300] {
        let frame = ether(HOST, NIC, &[], kind, &[0; 46]);
        assert_eq!(to_lan(plain(), &frame), Err(DropReason::VlanTag));
        assert_eq!(to_lan(vlan(), &frame), Err(DropReason::VlanTag), "what is behind it is not read");
    }
}

#[test]
fn arp_for_another_mac_is_dropped() {
    for op in [1, 2] {
        assert_eq!(to_lan(plain(), &arp(op, NIC, NIC4)), OK);
        assert_eq!(to_lan(plain(), &arp(op, HOST, NIC4)), Err(DropReason::SpoofedArp));
        assert_eq!(to_lan(bridge(), &arp(op, HOST, NIC4)), OK);
    }
}

#[test]
fn arp_for_another_address_is_dropped() {
    for op in [1, 2] {
        assert_eq!(to_lan(plain(), &arp(op, NIC, HOST4)), Err(DropReason::SpoofedArp));
        assert_eq!(to_lan(bridge(), &arp(op, NIC, HOST4)), OK);
    }
}

#[test]
fn arp_probes_pass_but_replies_from_nowhere_do_not() {
    assert_eq!(to_lan(plain(), &arp(1, NIC, Ipv4Addr::UNSPECIFIED)), OK);
    assert_eq!(to_lan(plain(), &arp(2, NIC, Ipv4Addr::UNSPECIFIED)), Err(DropReason::SpoofedArp));
}

#[test]
fn arp_of_other_kinds_is_dropped() {
    assert_eq!(to_lan(plain(), &arp(8, NIC, NIC4)), Err(DropReason::SpoofedArp));
    for at in 14..20 {
        let mut bad = arp(1, NIC, NIC4);
        bad[at] ^= 0x10;
        assert_eq!(to_lan(plain(), &bad), Err(DropReason::SpoofedArp), "byte {at}");
    }
}

#[test]
fn a_spoofed_claim_in_an_allowed_tag_is_seen() {
    let body = arp_packet(2, NIC, HOST4, HOST4);
    let frame = ether(HOST, NIC, &[(0x8100, 7)], 0x0806, &body);
    assert_eq!(to_lan(vlan(), &frame), Err(DropReason::SpoofedArp));
}

#[test]
fn a_nic_without_addresses_is_held_to_its_mac() {
    let ask = |rules, frame: &[u8]| {
        contract_with(rules, &[]).host_to_lan(Instant::now(), frame, frame.len(), Offload::default())
    };
    assert_eq!(ask(plain(), &arp(2, NIC, HOST4)), OK);
    assert_eq!(ask(plain(), &arp(2, HOST, HOST4)), Err(DropReason::SpoofedArp));
    assert_eq!(ask(strict(), &arp(2, NIC, HOST4)), Err(DropReason::SpoofedArp));
    assert_eq!(ask(plain(), &nd_from(link_local(), &nd(136, link_local(), &[&lla(2, NIC)]))), OK);
    let global = nd_from(NIC6, &nd(136, NIC6, &[&lla(2, NIC)]));
    assert_eq!(ask(plain(), &global), Err(DropReason::SpoofedNd));
}

#[test]
fn nd_for_the_nics_own_addresses_passes() {
    for own in [NIC6, link_local()] {
        for rules in [plain(), strict()] {
            assert_eq!(to_lan(rules, &nd_from(own, &nd(136, own, &[&lla(2, NIC)]))), OK);
            assert_eq!(to_lan(rules, &nd_from(own, &nd(135, HOST6, &[&lla(1, NIC)]))), OK);
            assert_eq!(to_lan(rules, &nd_from(Ipv6Addr::UNSPECIFIED, &nd(135, own, &[]))), OK);
        }
    }
    assert_eq!(to_lan(plain(), &nd_from(Ipv6Addr::UNSPECIFIED, &[133, 0, 0, 0, 0, 0, 0, 0])), OK);
    assert_eq!(to_lan(plain(), &nd_from(link_local(), &router_advertisement())), OK);
}

#[test]
fn nd_for_another_address_is_dropped() {
    let router: Ipv6Addr = "fe80::1".parse().unwrap();
    for other in [HOST6, router] {
        for message in [
            nd_from(NIC6, &nd(136, other, &[&lla(2, NIC)])),
            nd_from(other, &nd(136, NIC6, &[&lla(2, NIC)])),
            nd_from(other, &nd(135, HOST6, &[&lla(1, NIC)])),
            nd_from(other, &router_advertisement()),
            nd_from(other, &[&[133, 0, 0, 0, 0, 0, 0, 0][..], &lla(1, NIC)].concat()),
            nd_from(other, &[nd(137, NIC6, &[]), vec![0; 16]].concat()),
            nd_from(Ipv6Addr::UNSPECIFIED, &nd(135, other, &[])),
            nd_from(Ipv6Addr::UNSPECIFIED, &nd(136, NIC6, &[])),
        ] {
            assert_eq!(
                to_lan(plain(), &message),
                Err(DropReason::SpoofedNd),
                "{other}, type {}",
                message[54]
            );
            assert_eq!(to_lan(bridge(), &message), OK);
        }
    }
}

#[test]
fn nd_with_another_mac_is_dropped() {
    for message in [
        nd(136, NIC6, &[&lla(2, THIRD)]),
        nd(136, NIC6, &[&lla(2, NIC), &lla(2, THIRD)]),
        nd(135, HOST6, &[&lla(1, THIRD)]),
        [&[134; 1][..], &[0; 15], &lla(1, THIRD)].concat(),
    ] {
        assert_eq!(to_lan(plain(), &nd_from(NIC6, &message)), Err(DropReason::SpoofedNd));
    }
}

#[test]
fn malformed_nd_is_dropped() {
    for options in [&[2u8, 0, 0, 0, 0, 0, 0, 0][..], &[2, 2, 0, 0, 0, 0, 0, 0], &[2, 1, 0]] {
        let frame = nd_from(NIC6, &nd(136, NIC6, &[options]));
        assert_eq!(to_lan(plain(), &frame), Err(DropReason::SpoofedNd), "{options:?}");
    }
    assert_eq!(to_lan(plain(), &nd_from(NIC6, &[136; 23])), Err(DropReason::SpoofedNd));
    assert_eq!(to_lan(plain(), &nd_from(NIC6, &[])), Err(DropReason::SpoofedNd));
}

#[test]
fn nd_with_options_out_of_sight_is_dropped() {
    let filler = [&[5u8, 16][..], &[0; 126]].concat();
    let frame = nd_from(NIC6, &nd(136, NIC6, &[&lla(2, NIC), &filler]));
    let mut c = contract(plain());
    assert_eq!(c.host_to_lan(Instant::now(), &frame, frame.len(), Offload::default()), OK);
    let got = c.host_to_lan(Instant::now(), &frame[..192], frame.len(), Offload::default());
    assert_eq!(got, Err(DropReason::SpoofedNd));
}

#[test]
fn nd_behind_extension_headers_or_in_fragments_is_dropped() {
    let message = nd(136, NIC6, &[&lla(2, NIC)]);
    for (kind, header) in [
        (0, [58, 0, 1, 4, 0, 0, 0, 0]),
        (60, [58, 0, 1, 4, 0, 0, 0, 0]),
        (44, [58, 0, 0, 0, 0, 0, 0, 9]),
        (44, [58, 0, 0, 1, 0, 0, 0, 9]),
    ] {
        let frame = from_nic(NIC6, kind, &[&header[..], &message].concat());
        assert_eq!(to_lan(plain(), &frame), Err(DropReason::SpoofedNd), "header {kind}");
    }
    let report = [&[58, 0, 5, 2, 0, 0, 1, 0][..], &[143, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(to_lan(plain(), &from_nic(link_local(), 0, &report)), OK, "multicast listener reports");
}

#[test]
fn ipv6_that_cannot_be_followed_is_dropped() {
    let chain: Vec<u8> = (0..12).flat_map(|_| [60, 0, 1, 4, 0, 0, 0, 0]).collect();
    assert_eq!(to_lan(plain(), &from_nic(NIC6, 60, &chain)), Err(DropReason::SpoofedNd));
}

#[test]
fn claims_disguised_as_llc_are_dropped() {
    let snap = |oui: u8, kind: u16| {
        let body = [&[0xaa, 0xaa, 3, 0, 0, oui][..], &kind.to_be_bytes(), &[0; 40]].concat();
        ether(HOST, NIC, &[], body.len() as u16, &body)
    };
    for oui in [0, 0xf8] {
        assert_eq!(to_lan(plain(), &snap(oui, 0x0806)), Err(DropReason::SpoofedArp));
        assert_eq!(to_lan(plain(), &snap(oui, 0x86dd)), Err(DropReason::SpoofedNd));
        assert_eq!(to_lan(plain(), &snap(oui, 0x8100)), Err(DropReason::VlanTag));
        assert_eq!(to_lan(bridge(), &snap(oui, 0x8100)), Err(DropReason::VlanTag));
        assert_eq!(to_lan(strict(), &snap(oui, 0x0800)), Err(DropReason::SpoofedIp));
        assert_eq!(to_lan(plain(), &snap(oui, 0x0800)), OK);
        assert_eq!(to_lan(bridge(), &snap(oui, 0x0806)), OK);
        assert_eq!(to_lan(bridge(), &snap(oui, 0x86dd)), OK);
        // The same bytes behind a type are no LLC.
        for kind in [0x0600u16, 0x88b5] {
            let mut typed = snap(oui, 0x0806);
            typed[12..14].copy_from_slice(&kind.to_be_bytes());
            assert_eq!(to_lan(plain(), &typed), OK, "{kind:#x}");
        }
    }
    assert_eq!(to_lan(plain(), &ether(HOST, NIC, &[], 38, &[0x42; 38])), OK, "other LLC");
}

#[test]
fn broadcast_over_the_budget_is_a_storm() {
    let now = Instant::now();
    for rules in [plain(), bridge()] {
        let mut c = contract(NicRules { broadcast_pps: 3, ..rules });
        let mut send = |dst| c.host_to_lan(now, &opaque(dst, NIC, &[], 60), 60, Offload::default());
        assert!((0..3).all(|_| send(MacAddr::BROADCAST).is_ok()));
        assert_eq!(send(ALL_NODES), Err(DropReason::Storm));
        assert_eq!(send(HOST), OK);
    }
}

#[test]
fn a_marked_frame_that_nobody_waits_for_is_dropped() {
    let mut frame = crate::wire::probe::frame(HOST, NIC, 7, 60);
    for rules in [plain(), bridge()] {
        assert_eq!(to_lan(rules, &frame), Err(DropReason::StrayProbe));
    }
    frame[14] ^= 1;
    assert_eq!(to_lan(plain(), &frame), OK, "of that type, and not marked");
}

#[test]
fn the_tunnels_own_datagrams_are_dropped() {
    let mut c = contract(bridge());
    c.set_tunnel(Some(("18.8.80.150:5000".parse().unwrap(), "18.8.80.9:4000".parse().unwrap())));
    let frame = from_nic(NIC4, 17, &udp(5000, 4000, b"sealed"));
    let got = c.host_to_lan(Instant::now(), &frame, frame.len(), Offload::default());
    assert_eq!(got, Err(DropReason::OwnDatagram));
}

mod strict_rules {
    use super::*;

    #[test]
    fn another_ip_as_source_is_dropped() {
        let other6: Ipv6Addr = "fe80::1".parse().unwrap();
        for src in [IpAddr::from(HOST4), HOST6.into(), other6.into()] {
            let frame = from_nic(src, 17, &udp(1, 2, b"x"));
            assert_eq!(to_lan(strict(), &frame), Err(DropReason::SpoofedIp), "{src}");
            assert_eq!(to_lan(plain(), &frame), OK);
        }
    }

    #[test]
    fn no_address_is_for_dhcp_clients_and_icmpv6_only() {
        let none4 = Ipv4Addr::UNSPECIFIED;
        let none6 = Ipv6Addr::UNSPECIFIED;
        assert_eq!(to_lan(strict(), &from_nic(none4, 17, &udp(68, 67, b"discover"))), OK);
        assert_eq!(to_lan(strict(), &from_nic(none4, 17, &udp(68, 53, b"x"))), Err(DropReason::SpoofedIp));
        assert_eq!(to_lan(strict(), &from_nic(none4, 6, &[0; 20])), Err(DropReason::SpoofedIp));
        assert_eq!(to_lan(strict(), &nd_from(none6, &[143, 0, 0, 0, 0, 0, 0, 0])), OK);
        assert_eq!(to_lan(strict(), &from_nic(none6, 17, &udp(1, 2, b"x"))), Err(DropReason::SpoofedIp));
    }

    #[test]
    fn malformed_ip_is_dropped() {
        let mut frame = from_nic(NIC4, 17, &udp(1, 2, b"x"));
        frame.pop();
        assert_eq!(to_lan(strict(), &frame), Err(DropReason::SpoofedIp));
        assert_eq!(to_lan(plain(), &frame), OK);
    }

    #[test]
    fn dhcp_servers_are_dropped() {
        for (src, from, to) in [
            (IpAddr::from(NIC4), 67, 68),
            (NIC4.into(), 67, 67),
            (NIC4.into(), 4000, 68),
            (link_local().into(), 547, 546),
            (link_local().into(), 4000, 546),
        ] {
            let frame = from_nic(src, 17, &udp(from, to, b"offer"));
            assert_eq!(to_lan(strict(), &frame), Err(DropReason::DhcpServer), "{from} → {to}");
            assert_eq!(to_lan(plain(), &frame), OK);
        }
        assert_eq!(to_lan(strict(), &from_nic(link_local(), 17, &udp(546, 547, b"solicit"))), OK);
    }

    #[test]
    fn a_dhcp_server_in_fragments_is_dropped() {
        for body in [&udp(67, 68, &[0; 16])[..], &[0, 67]] {
            let frame = ether(HOST, NIC, &[], 0x0800, &ipv4(NIC4, HOST4, 17, &[], 0x2000, body));
            assert_eq!(to_lan(strict(), &frame), Err(DropReason::DhcpServer));
        }
        let later = ether(HOST, NIC, &[], 0x0800, &ipv4(NIC4, HOST4, 17, &[], 2, &[0, 67, 0, 68]));
        assert_eq!(to_lan(strict(), &later), OK);
    }

    #[test]
    fn router_advertisements_are_dropped() {
        let frame = nd_from(link_local(), &router_advertisement());
        assert_eq!(to_lan(strict(), &frame), Err(DropReason::RouterAdvert));
        let hidden = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &router_advertisement()].concat();
        let frame = from_nic(link_local(), 60, &hidden);
        assert_eq!(to_lan(strict(), &frame), Err(DropReason::RouterAdvert));
        assert_eq!(to_lan(NicRules { strict: true, ..bridge() }, &frame), Err(DropReason::RouterAdvert));
        let in_ipv4 = from_nic(NIC4, 58, &router_advertisement());
        assert_eq!(to_lan(strict(), &in_ipv4), OK, "which is none to anybody");
    }
}
