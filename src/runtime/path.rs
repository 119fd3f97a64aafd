//! What this box knows of the way to a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::nic::netlink::Netlink;
use crate::sys::udp::path_mtu_hint;
use crate::types::Path;

/// The longest UDP payload in bytes that the first link towards `path` carries. What ICMP says of the links behind it does
/// not count, unless the way begins on several links at once.
pub fn ceiling(path: &Path) -> u16 {
    let headers = if path.remote.is_ipv4() { 28 } else { 48 };
    first_link_mtu(path).or_else(|| path_mtu_hint(path)).unwrap_or(1500).saturating_sub(headers)
}

fn first_link_mtu(path: &Path) -> Option<u16> {
    let mtu = Netlink::open().ok()?.first_link_mtu(path.remote.ip(), path.local).ok()??;
    // The loopback device has 65536.
    Some(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Every address of the family of `peer`, at this port.
pub fn any_like(peer: SocketAddr, port: u16) -> SocketAddr {
    let any: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    (any, port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_link_to_this_host_carries_the_longest_packet() {
        for (to, headers) in [("127.0.0.1:9", 28), ("[::1]:9", 48)] {
            let path = Path::new(to.parse().unwrap(), None);
            assert_eq!(first_link_mtu(&path), Some(u16::MAX));
            assert_eq!(ceiling(&path), u16::MAX - headers);
        }
        let own = Path::new("127.0.0.1:9".parse().unwrap(), Some([127, 0, 0, 1].into()));
        assert_eq!(first_link_mtu(&own), Some(u16::MAX));
    }
}
