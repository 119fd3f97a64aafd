//! Who a NIC is: its MAC and the addresses that it may claim.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::types::{MacAddr, NicAddr};

/// A NIC's MAC and addresses.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Its MAC.
    pub(super) mac: MacAddr,
    /// Its configured IPv4 addresses.
    pub(super) v4: Vec<Ipv4Addr>,
    /// Its configured IPv6 addresses, and the link-local one that its kernel derives from the MAC.
    pub(super) v6: Vec<Ipv6Addr>,
}

impl Owner {
    pub(super) fn new(mac: MacAddr, addrs: &[NicAddr]) -> Self {
        let mut owner = Self { mac, v4: Vec::new(), v6: vec![link_local(mac)] };
        for addr in addrs {
            match addr.ip {
                IpAddr::V4(ip) => owner.v4.push(ip),
                IpAddr::V6(ip) => owner.v6.push(ip),
            }
        }
        owner
    }

    /// True for the NIC's own addresses.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.contains(&ip),
            IpAddr::V6(ip) => self.v6.contains(&ip),
        }
    }
}

/// The link-local address with the modified EUI-64 of `mac` (RFC 4291, appendix A), which Linux gives an interface
/// unless told otherwise (`addr_gen_mode` 0).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_link_local_address_is_derived() {
        let mac = "be:17:dd:5c:07:17".parse().unwrap();
        assert_eq!(link_local(mac), "fe80::bc17:ddff:fe5c:717".parse::<Ipv6Addr>().unwrap());
    }
}
