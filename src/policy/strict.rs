//! What `strict = true` adds for frames of the projected host: its IP sources are its own, and it is neither DHCP
//! server nor router.

use std::net::IpAddr;

use crate::metrics::DropReason;
use crate::wire::ether::Link;
use crate::wire::ip::{Fragment, Ip, protocol};
use crate::wire::neighbour::NdKind;

use super::owner::Owner;

/// UDP ports (RFC 2131 section 4.1, RFC 8415 section 7.2).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;

/// Holds an IPv4 or IPv6 frame to the rules. Besides its own addresses the host may speak from `0.0.0.0` as a DHCP
/// client and from `::` in ICMPv6. A packet that cannot be read is taken for the worst that it could be.
pub(super) fn from_host(owner: &Owner, head: &[u8], total: usize, link: &Link) -> Result<(), DropReason> {
    let ip = Ip::parse(head, total, link).ok_or(DropReason::SpoofedIp)?;
    let ports = ip.udp_ports(head);
    let own = match ip.src {
        src if owner.has(src) => true,
        IpAddr::V4(src) => src.is_unspecified() && ports == Some((DHCP_CLIENT, DHCP_SERVER)),
        IpAddr::V6(src) => src.is_unspecified() && ip.protocol == protocol::ICMPV6,
    };
    if !own {
        return Err(DropReason::SpoofedIp);
    }
    if ip.protocol == protocol::UDP && ip.fragment != Fragment::Later {
        let (server, client) =
            if ip.src.is_ipv4() { (DHCP_SERVER, DHCP_CLIENT) } else { (DHCPV6_SERVER, DHCPV6_CLIENT) };
        // Clients take answers from any port.
        if ports.is_none_or(|(from, to)| from == server || to == client) {
            return Err(DropReason::DhcpServer);
        }
    }
    match NdKind::of(head, &ip) {
        Ok(Some(NdKind::RouterAdvertisement)) | Err(_) if ip.src.is_ipv6() => Err(DropReason::RouterAdvert),
        _ => Ok(()),
    }
}
