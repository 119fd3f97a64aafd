//! Who is taken for the owner of an address of the NIC's.

use std::net::IpAddr;

use super::*;
use crate::wire::announce::{announcement, question};

fn claimed(frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
    contract(plain()).claimed_by_other(frame, frame.len())
}

fn arp_of(src: MacAddr, arp: [u8; 28]) -> Vec<u8> {
    ether(NIC, src, &[], 0x0806, &arp)
}

#[test]
fn who_answers_or_asks_with_the_address_has_it() {
    let yes = Some((IpAddr::V4(NIC4), HOST));
    for op in [Arp::REPLY, Arp::REQUEST] {
        assert_eq!(claimed(&arp_of(HOST, arp_packet(op, HOST, NIC4, HOST4))), yes);
    }
    assert_eq!(claimed(&announcement(HOST, NIC4.into())), yes);
    assert_eq!(claimed(&announcement(HOST, NIC6.into())), Some((NIC6.into(), HOST)));
    let advertisement = ether(NIC, HOST, &[], 0x86dd, &ipv6(NIC6, HOST6, 58, &nd(136, NIC6, &[])));
    assert_eq!(claimed(&advertisement), Some((NIC6.into(), HOST)), "without an option as well");
}

#[test]
fn who_asks_for_the_address_has_it_not() {
    for ip in [NIC4.into(), NIC6.into()] {
        assert_eq!(claimed(&question(HOST, ip)), None);
    }
    assert_eq!(claimed(&arp_of(HOST, arp_packet(Arp::REQUEST, HOST, HOST4, NIC4))), None);
    assert_eq!(claimed(&to_nic(true, 58, &nd(135, NIC6, &[]))), None);
}

#[test]
fn frames_of_the_nics_own_mac_prove_nothing() {
    for ip in [NIC4.into(), NIC6.into()] {
        assert_eq!(claimed(&announcement(NIC, ip)), None);
    }
    assert_eq!(claimed(&arp_of(NIC, arp_packet(Arp::REPLY, HOST, NIC4, HOST4))), None);
    assert_eq!(
        claimed(&arp_of(HOST, arp_packet(Arp::REPLY, NIC, NIC4, HOST4))),
        None,
        "reflected by a bridge"
    );
}

#[test]
fn claims_of_other_addresses_and_other_lans_and_broken_ones_are_none() {
    assert_eq!(claimed(&announcement(HOST, HOST4.into())), None);
    assert_eq!(claimed(&announcement(HOST, HOST6.into())), None);
    let arp = arp_packet(Arp::REPLY, HOST, NIC4, HOST4);
    assert_eq!(claimed(&ether(NIC, HOST, &[(0x8100, 7)], 0x0806, &arp)), None, "another VLAN");
    for ip in [NIC4.into(), NIC6.into()] {
        let whole = announcement(HOST, ip);
        for len in 0..if ip == IpAddr::V4(NIC4) { 42 } else { 78 } {
            assert_eq!(claimed(&whole[..len]), None, "{ip} cut to {len}");
        }
    }
}
