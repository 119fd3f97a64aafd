//! Routes and the rules that choose their tables (`struct rtmsg`, `RTA_*`: linux/rtnetlink.h; `struct fib_rule_hdr`,
//! `FRA_*`: linux/fib_rules.h).

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
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;

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
}

/// A rule: what comes from `from` is looked up in `table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Source addresses.
    pub from: Prefix,
    /// The table's number.
    pub table: u32,
    /// Rules are asked in this order, smallest first; `None`: the kernel puts it before those that are there.
    pub priority: Option<u32>,
}

impl Prefix {
    /// Every IPv4 address.
    pub const ALL_V4: Self = Self { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 };
    /// Every IPv6 address.
    pub const ALL_V6: Self = Self { ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED), len: 0 };

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
        let message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; 12]);
        let of_table = |body: &[u8]| Route::parse(body).filter(|r| r.table == Some(wanted));
        self.query(("list", "the routes"), message, libc::RTM_NEWROUTE, of_table)
    }

    /// Adds a rule. `EEXIST` where there is the same already.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.change("add the rule", rule, rule.message(libc::RTM_NEWRULE, flags))
    }

    /// Removes a rule.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<()> {
        self.change("remove the rule", rule, rule.message(libc::RTM_DELRULE, 0))
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
        let (protocol, kind_of_route) = if adding { (RTPROT_STATIC, libc::RTN_UNICAST) } else { (0, 0) };
        let head = head(self.to, 0, table, [protocol, scope, kind_of_route]);
        let destination = (self.to.len > 0).then(|| octets(self.to.ip));
        Message::new(kind, flags, &head)
            .maybe(RTA_DST, destination)
            .maybe(RTA_GATEWAY, self.via.map(octets))
            .maybe(RTA_OIF, self.interface.map(u32::to_ne_bytes))
            .maybe(RTA_PREFSRC, self.source.map(octets))
            .maybe(RTA_PRIORITY, self.metric.map(u32::to_ne_bytes))
            .number(RTA_TABLE, table)
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let (&[af, len, _, _, table, _, _, kind, ..], rest) = body.split_first_chunk::<12>()?;
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

impl Rule {
    fn message(&self, kind: u16, flags: i32) -> Message {
        let from = Prefix { len: 0, ..self.from };
        let head = head(from, self.from.len, self.table, [0, 0, FR_ACT_TO_TBL]);
        let source = (self.from.len > 0).then(|| octets(self.from.ip));
        Message::new(kind, flags, &head)
            .maybe(FRA_SRC, source)
            .maybe(FRA_PRIORITY, self.priority.map(u32::to_ne_bytes))
            .number(FRA_TABLE, self.table)
    }
}

/// `struct rtmsg`: family, destination and source lengths, TOS, table; then protocol, scope, type; flags.
/// `struct fib_rule_hdr` differs in those three: two reserved bytes, action.
fn head(to: Prefix, source_len: u8, table: u32, [a, b, c]: [u8; 3]) -> [u8; 12] {
    // Larger numbers do not fit here and are in an attribute.
    let table = u8::try_from(table).unwrap_or(libc::RT_TABLE_UNSPEC);
    [family(to.ip), to.len, source_len, 0, table, a, b, c, 0, 0, 0, 0]
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

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} lookup {}", self.from, self.table)
    }
}
