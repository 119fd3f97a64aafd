//! The NIC contract: may this frame pass, in this direction, on this NIC?
//!
//! ```text
//!            client                                server
//! LAN ──► lan_to_host ── seal ═══ open ── lan_to_host ──► stack
//! LAN ◄── host_to_lan ── open ═══ seal ── host_to_lan ◄── stack
//! ```
//!
//! Both ends hold the same contract and both check every frame, before sealing and again after opening: neither
//! end is protected by the other's good will. Each direction is one method that reads like the table in
//! `docs/FRAMES.md`: envelope (length, tags, addresses), content (who claims what), budget. A frame of TCP or
//! UDP without tags leaves after a few compares.
//!
//! What is here is pure: time is an argument, nothing is sent, nothing is logged. What a frame's owner may claim
//! is `owner`'s business; which frames need a vnet header is `wire`'s.
//!
//! Where a claim cannot be read (ARP of odd lengths, IPv6 headers that cannot be followed), the frame is dropped
//! as if the claim were false.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod arp;
mod budget;
mod claim;
mod nd;
mod owner;
mod strict;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::metrics::DropReason;
use crate::types::{MacAddr, NicRules, NicSpec};
use crate::wire::ether::{self, Link, ethertype};
use crate::wire::ip::protocol;
use crate::wire::probe;
use crate::wire::record::{MAX_FRAME, Offload};
use crate::wire::shape::Shape;
use budget::Budget;
use owner::Owner;
use tunnel::Tunnel;

/// The rules for one NIC, and what is left of its budgets. Each end of a session has one for each NIC.
#[derive(Clone, Debug)]
pub struct Contract {
    owner: Owner,
    rules: NicRules,
    /// Longest untagged frame in bytes.
    longest: usize,
    tunnel: Option<Tunnel>,
    to_host: Budget,
    to_lan: Budget,
}

impl Contract {
    /// The contract for the NIC `spec`, its budgets full.
    pub fn new(spec: &NicSpec, rules: NicRules) -> Self {
        Self {
            owner: Owner::new(spec.mac, &spec.addrs),
            rules,
            longest: usize::from(spec.mtu.bytes()).saturating_add(ether::HEADER_LEN),
            tunnel: None,
            to_host: Budget::new(rules.broadcast_pps),
            to_lan: Budget::new(rules.broadcast_pps),
        }
    }

    /// The NIC's MAC.
    pub fn mac(&self) -> MacAddr {
        self.owner.mac
    }

    /// Names the tunnel's own endpoints on this box, so that its datagrams do not go round in it: this end's
    /// address and the other's, in any order. An unspecified address (`0.0.0.0`, `::`) stands for every address.
    pub fn set_tunnel(&mut self, endpoints: Option<(SocketAddr, SocketAddr)>) {
        self.tunnel = endpoints.map(|(a, b)| Tunnel::new(a, b));
    }

    /// May a frame from the client's LAN go to the projected host? Asked at the client before sealing and at the
    /// server after opening.
    ///
    /// `head` is the frame, or at least the first [`MIN_FIRST_PART`](crate::wire::record::MIN_FIRST_PART) bytes
    /// of it; `total` is its length. A frame that passes is charged to the budget, so ask once.
    ///
    /// A marked frame ([`probe`]) that would pass is `Err(StrayProbe)`: whoever waits for it knows what to do with it, and
    /// to all others it is one that must not pass.
    #[inline]
    pub fn lan_to_host(
        &mut self,
        now: Instant,
        head: &[u8],
        total: usize,
        offload: Offload,
    ) -> Result<(), DropReason> {
        let (link, packets) = self.envelope(head, total, offload)?;
        if !self.rules.bridge {
            if link.src == self.owner.mac {
                return Err(DropReason::Loop);
            }
            if link.dst != self.owner.mac && !link.dst.is_multicast() {
                return Err(DropReason::NotForNic);
            }
        }
        self.is_not_own(head, total, &link)?;
        match link.ethertype {
            ethertype::LOCAL if probe::is_marked(head, &link) => return Err(DropReason::StrayProbe),
            _ if self.rules.bridge => {}
            ethertype::ARP => arp::from_lan(&self.owner, head, &link)?,
            ethertype::IPV6 if !is_plain_ipv6(head, &link) => nd::from_lan(&self.owner, head, total, &link)?,
            _ => {}
        }
        self.to_host.charge(now, &link, packets)
    }

    /// May a frame from the projected host go out onto the client's LAN? Asked at the server before sealing and at
    /// the client after opening. Arguments as in [`lan_to_host`](Self::lan_to_host).
    #[inline]
    pub fn host_to_lan(
        &mut self,
        now: Instant,
        head: &[u8],
        total: usize,
        offload: Offload,
    ) -> Result<(), DropReason> {
        let (link, packets) = self.envelope(head, total, offload)?;
        if is_link_local_group(link.dst) {
            return Err(DropReason::LinkLocalGroup);
        }
        if (link.tags > 0 && !self.rules.vlan) || is_foreign_tag(link.ethertype) {
            return Err(DropReason::VlanTag);
        }
        if !self.rules.bridge && link.src != self.owner.mac {
            return Err(DropReason::SpoofedMac);
        }
        self.is_not_own(head, total, &link)?;
        let NicRules { bridge, strict, .. } = self.rules;
        match link.ethertype {
            ethertype::IPV4 | ethertype::IPV6 => {
                if strict {
                    strict::from_host(&self.owner, head, total, &link)?;
                }
                if !bridge && link.ethertype == ethertype::IPV6 && !is_plain_ipv6(head, &link) {
                    nd::from_host(&self.owner, head, total, &link)?;
                }
            }
            ethertype::ARP if !bridge => arp::from_host(&self.owner, strict, head, &link)?,
            ethertype::LOCAL if probe::is_marked(head, &link) => return Err(DropReason::StrayProbe),
            length if length < ethertype::MIN => is_no_disguise(self.rules, head, &link)?,
            _ => {}
        }
        self.to_lan.charge(now, &link, packets)
    }

    /// The client's own answer to an ARP request from the LAN for one of the NIC's IPv4 addresses, with the NIC's
    /// MAC; the request then goes no further. `None` for everything else, which
    /// [`lan_to_host`](Self::lan_to_host) judges as ever: replies, other addresses, tagged frames, requests in the
    /// name of the NIC itself or of a third station. A probe (RFC 5227) is answered, which defends the address.
    pub fn reply_arp(&self, frame: &[u8]) -> Option<[u8; arp::REPLY_LEN]> {
        arp::reply(&self.owner, frame)
    }

    /// Another station of the LAN says in this frame that it has one of the NIC's addresses: which, and what its MAC is.
    /// Frames of the NIC's own MAC never say that.
    pub fn claimed_by_other(&self, head: &[u8], total: usize) -> Option<(IpAddr, MacAddr)> {
        claim::by_other(&self.owner, head, total)
    }

    /// What holds for both directions and for bridges too: length, at most one tag, a source that one station
    /// can have. Gives the link header and the number of packets that the frame stands for.
    #[inline]
    fn envelope(&self, head: &[u8], total: usize, offload: Offload) -> Result<(Link, usize), DropReason> {
        let link = Link::parse(head).filter(|_| head.len() <= total).ok_or(DropReason::Undersize)?;
        let (mut longest, mut packets) = (total, 1);
        if offload.gso.is_some() {
            let shape = Shape::of(offload, head, total)?;
            (longest, packets) = (shape.largest(total), shape.packets());
        }
        let tags = usize::from(link.tags).saturating_add(is_foreign_tag(link.ethertype).into());
        if tags > 1 {
            return Err(DropReason::NestedTag);
        }
        if longest > self.longest.saturating_add(tags.saturating_mul(ether::TAG_LEN)) || total > MAX_FRAME {
            return Err(DropReason::Oversize);
        }
        if link.src.is_multicast() {
            return Err(DropReason::SourceNotUnicast);
        }
        Ok((link, packets))
    }

    #[inline]
    fn is_not_own(&self, head: &[u8], total: usize, link: &Link) -> Result<(), DropReason> {
        match &self.tunnel {
            Some(tunnel) if tunnel.carries(head, total, link) => Err(DropReason::OwnDatagram),
            _ => Ok(()),
        }
    }
}

/// True where an IPv6 packet carries TCP or UDP with nothing between: no claim can hide in it.
#[inline]
fn is_plain_ipv6(head: &[u8], link: &Link) -> bool {
    let next = link.l3.checked_add(6).and_then(|at| head.get(at));
    matches!(next, Some(&(protocol::TCP | protocol::UDP)))
}

/// 01:80:C2:00:00:00 to 0F: what bridges keep to one segment (IEEE 802.1Q table 8-1).
#[inline]
fn is_link_local_group(mac: MacAddr) -> bool {
    matches!(mac.0, [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00..=0x0f])
}

/// Tags of before 802.1ad, which Linux does not read but some switches do.
#[inline]
fn is_foreign_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x9100 | 0x9200 | 0x9300)
}

/// An LLC frame may carry an Ethernet payload a second way (SNAP, RFC 1042, and bridge tunnels, IEEE 802.1H). Some
/// stations read ARP and IP from it; what would be checked in the usual way may not go out in this one.
#[cold]
fn is_no_disguise(rules: NicRules, head: &[u8], link: &Link) -> Result<(), DropReason> {
    let Some(&[0xaa, 0xaa, 3, 0, 0, 0 | 0xf8, t0, t1]) = head.get(link.l3..).and_then(|l| l.first_chunk())
    else {
        return Ok(());
    };
    match u16::from_be_bytes([t0, t1]) {
        inner if ether::is_tag(inner) || is_foreign_tag(inner) => Err(DropReason::VlanTag),
        ethertype::IPV4 | ethertype::IPV6 if rules.strict => Err(DropReason::SpoofedIp),
        ethertype::ARP if !rules.bridge => Err(DropReason::SpoofedArp),
        ethertype::IPV6 if !rules.bridge => Err(DropReason::SpoofedNd),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
