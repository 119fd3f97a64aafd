//! What this box knows of the way to a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::sys::udp::path_mtu_hint;
use crate::types::Path;

/// The longest UDP payload in bytes that the first link towards `path` carries.
pub fn ceiling(path: &Path) -> u16 {
    let headers = if path.remote.is_ipv4() { 28 } else { 48 };
    path_mtu_hint(path).unwrap_or(1500).saturating_sub(headers)
}

/// Every address of the family of `peer`, at this port.
pub fn any_like(peer: SocketAddr, port: u16) -> SocketAddr {
    let any: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    (any, port).into()
}
