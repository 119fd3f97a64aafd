//! ARP: who may claim which IPv4 address, and the client's own answers.

use crate::metrics::DropReason;
use crate::types::MacAddr;
use crate::wire::ether::{self, HEADER_LEN, Link, ethertype};
use crate::wire::neighbour::Arp;

use super::owner::Owner;

/// Bytes of an answer: an untagged Ethernet frame that the interface pads.
pub const REPLY_LEN: usize = HEADER_LEN + Arp::LEN;

/// A frame from the LAN comes from another MAC than the NIC's (the envelope says so): it may claim neither the
/// NIC's addresses nor the NIC's MAC. Probes (sender `0.0.0.0`) claim nothing. A request for another address stays on
/// the LAN: a host with several NICs in one subnet would answer it with the wrong one. Announcements pass.
pub(super) fn from_lan(owner: &Owner, head: &[u8], link: &Link) -> Result<(), DropReason> {
    let arp = Arp::parse(head, link.l3).ok_or(DropReason::SpoofedArp)?;
    if arp.sender_mac == owner.mac || owner.v4.contains(&arp.sender_ip) {
        return Err(DropReason::SpoofedArp);
    }
    let ours = owner.v4.is_empty() || owner.v4.contains(&arp.target_ip);
    let announcement = arp.sender_ip == arp.target_ip;
    if arp.op == Arp::REQUEST && !ours && !announcement { Err(DropReason::NotForNic) } else { Ok(()) }
}

/// The host claims its own MAC and its own addresses, or none in a probe. A NIC without configured IPv4 addresses
/// is held to its MAC alone, except under `strict`.
pub(super) fn from_host(owner: &Owner, strict: bool, head: &[u8], link: &Link) -> Result<(), DropReason> {
    let arp = Arp::parse(head, link.l3).ok_or(DropReason::SpoofedArp)?;
    let any_address = owner.v4.is_empty() && !strict;
    let address = any_address || owner.v4.contains(&arp.sender_ip);
    let right = match arp.op {
        Arp::REQUEST => address || arp.sender_ip.is_unspecified(),
        Arp::REPLY => address,
        _ => false,
    };
    if right && arp.sender_mac == owner.mac { Ok(()) } else { Err(DropReason::SpoofedArp) }
}

/// The answer to a request for one of `owner`'s addresses. None to a sender that has the owner's MAC or address
/// (its own request, or a conflict), nor to one that is not the frame's source: that answer would go to a third
/// station.
pub(super) fn reply(owner: &Owner, frame: &[u8]) -> Option<[u8; REPLY_LEN]> {
    let link = Link::parse(frame).filter(|l| l.ethertype == ethertype::ARP && l.tags == 0)?;
    let request = Arp::parse(frame, link.l3).filter(|a| a.op == Arp::REQUEST)?;
    let asker = request.sender_mac;
    let honest = asker == link.src && asker.is_assignable() && asker != owner.mac;
    let for_us = link.dst == owner.mac || link.dst == MacAddr::BROADCAST;
    if !honest || !for_us || !owner.v4.contains(&request.target_ip) || owner.v4.contains(&request.sender_ip) {
        return None;
    }
    let arp = Arp {
        op: Arp::REPLY,
        sender_mac: owner.mac,
        sender_ip: request.target_ip,
        target_mac: asker,
        target_ip: request.sender_ip,
    };
    let mut out = [0; REPLY_LEN];
    let (header, body) = out.split_first_chunk_mut::<HEADER_LEN>()?;
    *header = ether::header(asker, owner.mac, ethertype::ARP);
    *body.first_chunk_mut()? = arp.to_bytes();
    Some(out)
}
