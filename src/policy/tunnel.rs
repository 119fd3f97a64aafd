//! Recognises the tunnel's own datagrams among the frames that it carries.
//!
//! A route or a bridge set up wrongly can lead the tunnel's UDP into the tunnel; each turn would wrap it once
//! more. Only first and whole packets show their ports: the tunnel never sends fragments.

use std::net::{IpAddr, SocketAddr};

use crate::wire::ether::{Link, ethertype};
use crate::wire::ip::{Ip, protocol};

/// The two ends of the UDP flow that carries a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tunnel {
    a: SocketAddr,
    b: SocketAddr,
}

impl Tunnel {
    pub(super) fn new(a: SocketAddr, b: SocketAddr) -> Self {
        let plain = |s: SocketAddr| SocketAddr::new(s.ip().to_canonical(), s.port());
        Self { a: plain(a), b: plain(b) }
    }

    /// True where the frame is a datagram of this flow, in either direction.
    #[inline]
    pub(super) fn carries(&self, head: &[u8], total: usize, link: &Link) -> bool {
        let protocol_at = match link.ethertype {
            ethertype::IPV4 => link.l3.checked_add(9),
            ethertype::IPV6 => link.l3.checked_add(6),
            _ => return false,
        };
        if protocol_at.and_then(|at| head.get(at)) != Some(&protocol::UDP) {
            return false;
        }
        let Some(ip) = Ip::parse(head, total, link) else { return false };
        let Some((from, to)) = ip.udp_ports(head) else { return false };
        let is = |end: &SocketAddr, addr: IpAddr, port: u16| {
            end.port() == port && (end.ip() == addr || end.ip().is_unspecified())
        };
        (is(&self.a, ip.src, from) && is(&self.b, ip.dst, to))
            || (is(&self.b, ip.src, from) && is(&self.a, ip.dst, to))
    }
}
