//! Who else on the LAN has one of the NIC's addresses: what is listened for before the NIC goes up.
//!
//! A host that has an address answers the question for it, and says so in everything that it asks by ARP. The *question*
//! of another (ARP from `0.0.0.0`, a solicitation from `::`) is no claim: switches ask like that to learn who is where, and
//! a host that is about to take the address will hear of the NIC, which by then is up.

use std::net::IpAddr;

use crate::types::MacAddr;
use crate::wire::ether::{Link, ethertype};
use crate::wire::ip::Ip;
use crate::wire::neighbour::{Arp, Nd, NdKind};

use super::owner::Owner;

/// The address of `owner`'s that the frame claims for another MAC, and that MAC.
pub(super) fn by_other(owner: &Owner, head: &[u8], total: usize) -> Option<(IpAddr, MacAddr)> {
    // Behind a tag is another LAN.
    let link = Link::parse(head).filter(|link| link.src != owner.mac && link.tags == 0)?;
    match link.ethertype {
        ethertype::ARP => {
            let arp = Arp::parse(head, link.l3).filter(|arp| arp.sender_mac != owner.mac)?;
            owner.v4.contains(&arp.sender_ip).then_some((arp.sender_ip.into(), arp.sender_mac))
        }
        ethertype::IPV6 => {
            let ip = Ip::parse(head, total, &link)?;
            if NdKind::of(head, &ip) != Ok(Some(NdKind::NeighbourAdvertisement)) {
                return None;
            }
            let target = Nd::parse(head, &ip, NdKind::NeighbourAdvertisement).ok()?.target?;
            owner.v6.contains(&target).then_some((target.into(), link.src))
        }
        _ => None,
    }
}
