//! Routes (`struct rtmsg`, `RTA_*`: linux/rtnetlink.h).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{family, octets, to_ip};
use super::message::{Message, attributes};
use super::{Netlink, Result};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTPROT_STATIC: u8 = 4;

/// What marks routes and rules as made by this program (`rtm_protocol`, `ip route show proto 116`): a number that
/// neither linux/rtnetlink.h nor iproute2's rt_protos has given to anybody. By it they are found and removed whoever
/// made them, and however that one ended.
pub const OURS: u8 = 116;

/// An address range: the first `len` bits of `ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// An address of the range; the bits after the first `len` are zero.
    pub ip: IpAddr,
    /// How many bits are fixed: 0 to 32, or to 128.
    pub len: u8,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; [`Prefix::ALL_V4`] and [`Prefix::ALL_V6`] make default routes.
    pub to: Prefix,
    /// The router, if the destination is not on the link itself.
    pub via: Option<IpAddr>,
    /// The interface's number, if the router does not tell.
    pub interface: Option<u32>,
    /// The table's number; `None`: the main one.
    pub table: Option<u32>,
    /// The source address for what we send there.
    pub source: Option<IpAddr>,
    /// The smallest wins; `None`: the kernel's default.
    pub metric: Option<u32>,
    /// Marked with [`OURS`]; otherwise as an administrator's.
    pub ours: bool,
}

impl Prefix {
    /// Every IPv4 address.
    pub const ALL_V4: Self = Self { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 };
    /// Every IPv6 address.
    pub const ALL_V6: Self = Self { ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED), len: 0 };

    /// The subnet of `ip` with the first `len` bits.
    pub fn subnet(ip: IpAddr, len: u8) -> Self {
        let host_bits = |bits: u32| bits.saturating_sub(u32::from(len));
        let ip = match ip {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(host_bits(32)).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(host_bits(128)).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        };
        Self { ip, len }
    }

    /// Just this address.
    pub const fn host(ip: IpAddr) -> Self {
        Self { ip, len: if ip.is_ipv4() { 32 } else { 128 } }
    }
}

impl Netlink {
    /// Adds a route, or replaces the one to the same destination with the same metric in the same table.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.change("add the route", route, route.message(libc::RTM_NEWROUTE, flags))
    }

    /// Removes a route.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        self.change("remove the route", route, route.message(libc::RTM_DELROUTE, 0))
    }

    /// The routes of one table (`None`: the main one), of both families, to a single interface or router.
    pub fn routes(&mut self, table: Option<u32>) -> Result<Vec<Route>> {
        let wanted = table.unwrap_or(u32::from(libc::RT_TABLE_MAIN));
        // Kernels from 4.20 on filter the list themselves.
        let message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; 12]).number(RTA_TABLE, wanted);
        let of_table = |body: &[u8]| Route::parse(body).filter(|r| r.table == Some(wanted));
        self.query(("list", "the routes"), message, libc::RTM_NEWROUTE, of_table)
    }

    /// The routes of all tables that are marked with [`OURS`].
    pub fn our_routes(&mut self) -> Result<Vec<Route>> {
        let head = [0, 0, 0, 0, 0, OURS, 0, 0, 0, 0, 0, 0];
        let message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &head);
        let ours = |body: &[u8]| Route::parse(body).filter(|r| r.ours);
        self.query(("list", "the routes"), message, libc::RTM_NEWROUTE, ours)
    }
}

impl Route {
    fn message(&self, kind: u16, flags: i32) -> Message {
        let table = self.table.unwrap_or(u32::from(libc::RT_TABLE_MAIN));
        let adding = kind == libc::RTM_NEWROUTE;
        let scope = match (adding, self.via, self.to.ip) {
            // When removing, any scope will do.
            (false, ..) => libc::RT_SCOPE_NOWHERE,
            (true, None, IpAddr::V4(_)) => libc::RT_SCOPE_LINK,
            _ => libc::RT_SCOPE_UNIVERSE,
        };
        let (protocol, kind_of_route) = match (adding, self.ours) {
            (true, false) => (RTPROT_STATIC, libc::RTN_UNICAST),
            (true, true) => (OURS, libc::RTN_UNICAST),
            (false, true) => (OURS, 0),
            (false, false) => (0, 0),
        };
        let head = head(self.to, table, [protocol, scope, kind_of_route]);
        let destination = (self.to.len > 0).then(|| octets(self.to.ip));
        Message::new(kind, flags, &head)
            .maybe(RTA_DST, destination)
            .maybe(RTA_GATEWAY, self.via.map(octets))
            .maybe(RTA_OIF, self.interface.map(u32::to_ne_bytes))
            .maybe(RTA_PREFSRC, self.source.map(octets))
            .maybe(RTA_PRIORITY, self.metric.map(u32::to_ne_bytes))
            .number(RTA_TABLE, table)
    }

    pub(in crate::nic) fn parse(body: &[u8]) -> Option<Self> {
        let (&[af, len, _, _, table, protocol, _, kind, ..], rest) = body.split_first_chunk::<12>()?;
        if kind != libc::RTN_UNICAST {
            return None;
        }
        let all = match libc::c_int::from(af) {
            libc::AF_INET => Prefix::ALL_V4,
            libc::AF_INET6 => Prefix::ALL_V6,
            _ => return None,
        };
        let mut route = Self {
            to: Prefix { len, ..all },
            via: None,
            interface: None,
            table: Some(u32::from(table)),
            source: None,
            metric: None,
            ours: protocol == OURS,
        };
        for a in attributes(rest) {
            match a.kind {
                RTA_DST => route.to.ip = to_ip(a.value)?,
                RTA_GATEWAY => route.via = to_ip(a.value),
                RTA_OIF => route.interface = a.number(),
                RTA_PREFSRC => route.source = to_ip(a.value),
                RTA_PRIORITY => route.metric = a.number(),
                RTA_TABLE => route.table = a.number(),
                _ => {}
            }
        }
        Some(route)
    }
}

/// `struct rtmsg`: family, destination and source lengths, TOS, table, protocol, scope, type, flags.
fn head(to: Prefix, table: u32, [protocol, scope, kind]: [u8; 3]) -> [u8; 12] {
    [family(to.ip), to.len, 0, 0, short(table), protocol, scope, kind, 0, 0, 0, 0]
}

/// A table's number where the header has one byte for it. Larger ones do not fit and are in an attribute.
pub(super) fn short(table: u32) -> u8 {
    u8::try_from(table).unwrap_or(libc::RT_TABLE_UNSPEC)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.len)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}", self.to)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(table) = self.table {
            write!(f, " in table {table}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_keeps_the_first_bits() {
        let subnet = |ip: &str, len| Prefix::subnet(ip.parse().unwrap(), len).to_string();
        assert_eq!(subnet("18.8.80.150", 24), "18.8.80.0/24");
        assert_eq!(subnet("18.8.80.150", 32), "18.8.80.150/32");
        assert_eq!(subnet("18.8.80.150", 0), "0.0.0.0/0");
        assert_eq!(subnet("2001:db8:ffff::7", 33), "2001:db8:8000::/33");
        assert_eq!(subnet("2001:db8::7", 128), "2001:db8::7/128");
    }
}
