//! What the first link of the way to an address carries, by the routes as they stand.
//!
//! A connected socket tells that, too (`IP_MTU`), but mixes it with what ICMP has told the kernel of the path behind:
//! true or forged, and for ten minutes after the path has grown again.

use std::net::IpAddr;

use super::address::{family, octets};
use super::link::Link;
use super::message::{Message, attributes};
use super::{Netlink, Result};

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_METRICS: u16 = 8;
const RTAX_MTU: u16 = 2;
/// The route as it was made, without what has been learnt since (linux/rtnetlink.h; since 4.13).
const RTM_F_FIB_MATCH: u32 = 0x2000;

/// The interface's number, and the MTU that the route itself names.
struct Way {
    interface: u32,
    mtu: Option<u32>,
}

impl Netlink {
    /// The most bytes, IP header included, that a packet to `to` may have on its first link. `None`: there is no route,
    /// or one over several links.
    pub fn first_link_mtu(&mut self, to: IpAddr, from: Option<IpAddr>) -> Result<Option<u32>> {
        let bits = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
        let [f0, f1, f2, f3] = RTM_F_FIB_MATCH.to_ne_bytes();
        let head = [family(to), bits(to), from.map_or(0, bits), 0, 0, 0, 0, 0, f0, f1, f2, f3];
        let message = Message::new(libc::RTM_GETROUTE, 0, &head)
            .attr(RTA_DST, octets(to).as_ref())
            .maybe(RTA_SRC, from.map(octets));
        let way = match self.query(("look up the route to", to), message, libc::RTM_NEWROUTE, Way::parse) {
            Ok(found) => found.into_iter().next(),
            Err(e) if matches!(e.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => None,
            Err(e) => return Err(e),
        };
        let Some(way) = way else { return Ok(None) };
        let link: Option<Link> = self.link(way.interface)?;
        Ok(link.map(|link| way.mtu.unwrap_or(u32::MAX).min(link.mtu)))
    }
}

impl Way {
    fn parse(body: &[u8]) -> Option<Self> {
        let (_, rest) = body.split_first_chunk::<12>()?;
        let find = |kind: u16| attributes(rest).find(|a| a.kind == kind);
        let mtu = find(RTA_METRICS).and_then(|m| attributes(m.value).find(|a| a.kind == RTAX_MTU));
        Some(Self { interface: find(RTA_OIF)?.number()?, mtu: mtu.and_then(|a| a.number()) })
    }
}
