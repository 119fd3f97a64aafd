//! One test for each rule and direction, and what holds for all frames.

mod any_frame;
mod claim;
mod to_host;
mod to_lan;

use std::net::Ipv4Addr;
use std::time::Instant;

use super::*;
use crate::types::{Mtu, NicAddr};
use crate::wire::neighbour::Arp;
use crate::wire::sample::*;

const LINK_LOCAL: &str = "fe80::bc17:ddff:fe5c:717";
const NOBODY: MacAddr = MacAddr([0; 6]);
const THIRD: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
const ALL_NODES: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// The contract of the sample NIC, which has one IPv4 and one IPv6 address.
fn contract(rules: NicRules) -> Contract {
    contract_with(rules, &[NIC4.into(), NIC6.into()])
}

fn contract_with(rules: NicRules, ips: &[std::net::IpAddr]) -> Contract {
    let spec = NicSpec {
        name: "mv0".parse().unwrap(),
        mac: NIC,
        addrs: ips.iter().map(|&ip| NicAddr { ip, prefix: None }).collect(),
        mtu: Mtu::DEFAULT,
    };
    Contract::new(&spec, rules)
}

fn plain() -> NicRules {
    NicRules::default()
}

fn bridge() -> NicRules {
    NicRules { bridge: true, ..plain() }
}

fn vlan() -> NicRules {
    NicRules { vlan: true, ..plain() }
}

fn strict() -> NicRules {
    NicRules { strict: true, ..plain() }
}

fn to_host(rules: NicRules, frame: &[u8]) -> Result<(), DropReason> {
    contract(rules).lan_to_host(Instant::now(), frame, frame.len(), Offload::default())
}

fn to_lan(rules: NicRules, frame: &[u8]) -> Result<(), DropReason> {
    contract(rules).host_to_lan(Instant::now(), frame, frame.len(), Offload::default())
}

fn arp_packet(op: u16, sender_mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> [u8; 28] {
    Arp { op, sender_mac, sender_ip, target_mac: NOBODY, target_ip }.to_bytes()
}

/// A frame of a kind that nothing but its addresses matters of.
fn opaque(dst: MacAddr, src: MacAddr, tags: &[(u16, u16)], len: usize) -> Vec<u8> {
    let mut f = ether(dst, src, tags, 0x88b5, &[]);
    f.resize(len, 0);
    f
}

/// A link-layer address option.
fn lla(kind: u8, mac: MacAddr) -> Vec<u8> {
    [&[kind, 1][..], &mac.0].concat()
}
