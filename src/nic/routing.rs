//! Several NICs in one subnet: what comes in by one is answered by the same one.
//!
//! ```text
//!   rule 1000: from 18.8.80.150 lookup 23117      table 23117: 18.8.80.0/24 dev tap0 src 18.8.80.150
//!   rule 1000: from 18.8.80.151 lookup 27004                   default via 18.8.80.1 dev tap0
//! ```
//! A NIC has a table of its own. Its number follows from the interface's name, and is the next free one where somebody
//! has it, so that a NIC has the same table each time. Routes and rules are marked with [`OURS`](super::netlink::OURS): what a killed process
//! has left is known by that, by the keeper and by the next that starts. Routes come before rules and go after them, so
//! that a rule without a route is nobody's.
//!
//! On its own interface ARP is told to be as strict as a host with one NIC is without being told, and routers of the
//! client's LAN do not get to configure this box. In a namespace of its own the NIC also has the default route.

use std::io;
use std::net::IpAddr;

use tracing::{debug, info};

use super::netlink::{Netlink, NetlinkError, Prefix, Route, Rule};
use super::setup::Undo;
use super::sysctl::{self, Sysctl};
use super::{Devices, Nic, NicRequest};
use crate::types::{NicAddr, NicName, Routing};

/// Where our rules stand: before those that VPNs put in (from 5210 on), and before the main table.
const PRIORITY: u32 = 1000;

/// The first number of a table, and how many there are. Distributions and their tools stay well below.
const TABLES: (u32, u32) = (20_000, 10_000);

/// The metric that the kernel gives IPv6 routes by itself.
const METRIC: u32 = 1024;

const MAIN: u32 = libc::RT_TABLE_MAIN as u32;

/// The routes and rules of a NIC.
#[derive(Debug, Default)]
pub(super) struct SourceRoutes {
    /// `None`: it has only routes in the main table.
    pub(super) table: Option<u32>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
}

impl Nic {
    /// Gives the NIC, which is up, its routes and rules. What stood there is undone at the end.
    pub(super) fn set_routes(
        &mut self,
        devices: &dyn Devices,
        request: &NicRequest,
    ) -> Result<(), NetlinkError> {
        let stack = &request.stack;
        if stack.routing == Routing::None && stack.netns.is_none() {
            return Ok(());
        }
        forget(&mut self.netlink, self.index, &request.spec.addrs)?;
        let table = match stack.routing {
            Routing::Auto if request.spec.addrs.iter().any(is_routed) => {
                Some(free_table(&mut self.netlink, &self.name)?)
            }
            _ => None,
        };
        self.source_routes = SourceRoutes::plan(request, self.index, table);
        self.add_missing_routes()?;
        if let Some(table) = table {
            info!(nic = %self.name, table, "answers by itself: it has a routing table of its own");
            self.answer_by_itself(devices, request);
        }
        Ok(())
    }

    /// Puts routes and rules back that somebody has removed. True where there were some.
    pub(super) fn add_missing_routes(&mut self) -> Result<bool, NetlinkError> {
        let (netlink, wanted) = (&mut self.netlink, &self.source_routes);
        let mut mended = false;
        for table in [wanted.table, Some(MAIN)].into_iter().flatten() {
            let mine = wanted.routes.iter().filter(|r| r.table == Some(table));
            if mine.clone().next().is_none() {
                continue;
            }
            let there = netlink.routes(Some(table))?;
            for route in mine.filter(|r| !there.contains(r)) {
                netlink.add_route(route)?;
                mended = true;
            }
        }
        if wanted.rules.is_empty() {
            return Ok(mended);
        }
        let there = netlink.rules()?;
        for rule in wanted.rules.iter().filter(|r| !there.contains(r)) {
            netlink.add_rule(rule)?;
            mended = true;
        }
        Ok(mended)
    }

    /// Takes them away: rules first.
    pub(super) fn remove_routes(&mut self) {
        let SourceRoutes { routes, rules, .. } = std::mem::take(&mut self.source_routes);
        let gone = rules.iter().map(|rule| self.netlink.delete_rule(rule)).collect::<Vec<_>>();
        let gone = gone.into_iter().chain(routes.iter().map(|route| self.netlink.delete_route(route)));
        for e in gone.filter_map(Result::err).filter(|e| !e.is_missing()) {
            debug!(nic = %self.name, "{e}");
        }
    }

    /// The settings that make an interface mind its own addresses.
    fn answer_by_itself(&mut self, devices: &dyn Devices, request: &NicRequest) {
        let netns = request.stack.netns.as_ref();
        let of_all = devices.sysctl(netns, Sysctl::RpFilter, "all").and_then(|file| sysctl::read(&file));
        let strict = of_all.is_ok_and(|value| value == 1);
        let to = |key, now| match key {
            Sysctl::ArpIgnore => (now == 0).then_some(1),
            Sysctl::ArpAnnounce => (now < 2).then_some(2),
            // The strict filter asks the main table about broadcasts, and that names one of the NICs.
            Sysctl::RpFilter => (now == 1 || (strict && now == 0)).then_some(2),
            Sysctl::AcceptRa => (now != 0).then_some(0),
            Sysctl::DisableIpv6 => None,
        };
        for key in [Sysctl::ArpIgnore, Sysctl::ArpAnnounce, Sysctl::RpFilter, Sysctl::AcceptRa] {
            let changed = devices
                .sysctl(netns, key, self.name.as_str())
                .and_then(|file| self.change_sysctl(key, file, |now| to(key, now)));
            if let Err(e) = changed {
                // The contract drops wrong ARP answers anyway.
                debug!(nic = %self.name, ?key, "cannot be set: {e}");
            }
        }
    }

    /// Changes a setting to what `to` makes of it, and remembers what it was.
    pub(super) fn change_sysctl(
        &mut self,
        key: Sysctl,
        file: std::fs::File,
        to: impl FnOnce(u8) -> Option<u8>,
    ) -> io::Result<()> {
        let before = sysctl::read(&file)?;
        let Some(value) = to(before) else { return Ok(()) };
        sysctl::write(&file, value)?;
        self.remember(Undo::Sysctl { key, file, before });
        Ok(())
    }
}

impl SourceRoutes {
    fn plan(request: &NicRequest, index: u32, table: Option<u32>) -> Self {
        let mut plan = Self { table, ..Self::default() };
        if let Some(table) = table {
            for addr in request.spec.addrs.iter().filter(|a| is_routed(a)) {
                plan.add_address(addr, index, table);
            }
            plan.routes.extend(request.stack.gateways.iter().map(|via| default_route(*via, index, table)));
        }
        if request.stack.netns.is_some() {
            // Of several NICs in one namespace the first is the default.
            let metric = Some(METRIC.saturating_add(index.min(METRIC)));
            let main = |via: &IpAddr| Route { metric, ..default_route(*via, index, MAIN) };
            plan.routes.extend(request.stack.gateways.iter().map(main));
        }
        plan
    }

    fn add_address(&mut self, addr: &NicAddr, index: u32, table: u32) {
        let Some(prefix) = addr.prefix else { return };
        let to = Prefix::subnet(addr.ip, prefix);
        if !self.routes.iter().any(|r| r.to == to) {
            self.routes.push(Route {
                to,
                via: None,
                source: Some(addr.ip),
                ..default_route(addr.ip, index, table)
            });
        }
        let from = Prefix::host(addr.ip);
        self.rules.push(Rule { from, table, priority: Some(PRIORITY), ours: true });
    }
}

fn default_route(via: IpAddr, index: u32, table: u32) -> Route {
    Route {
        to: if via.is_ipv4() { Prefix::ALL_V4 } else { Prefix::ALL_V6 },
        via: Some(via),
        interface: Some(index),
        table: Some(table),
        source: None,
        metric: via.is_ipv6().then_some(METRIC),
        ours: true,
    }
}

/// Its subnet is known, and is not every interface's.
fn is_routed(addr: &NicAddr) -> bool {
    let link_local = matches!(addr.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    addr.prefix.is_some() && !link_local
}

/// The number of a table that is empty and that no rule names.
fn free_table(netlink: &mut Netlink, name: &NicName) -> Result<u32, NetlinkError> {
    let (first, count) = TABLES;
    let rules = netlink.rules()?;
    let start = hash(name.as_str()).checked_rem(count).unwrap_or(0);
    for n in 0..count {
        let table = first.saturating_add(start.saturating_add(n).checked_rem(count).unwrap_or(0));
        if !rules.iter().any(|rule| rule.table == table) && netlink.routes(Some(table))?.is_empty() {
            return Ok(table);
        }
    }
    Err(NetlinkError {
        what: "find a free routing table for",
        whom: name.to_string(),
        kernel: None,
        error: io::ErrorKind::OutOfMemory.into(),
    })
}

/// FNV-1a, 32 bits: the same in every release, unlike the standard library's.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Removes what an earlier process has left of this NIC: rules for its addresses, and routes by its interface.
fn forget(netlink: &mut Netlink, index: u32, addrs: &[NicAddr]) -> Result<(), NetlinkError> {
    let rules = netlink.rules()?;
    let is_its = |rule: &&Rule| rule.ours && addrs.iter().any(|a| Prefix::host(a.ip) == rule.from);
    for rule in rules.iter().filter(is_its) {
        missing_is_fine(netlink.delete_rule(rule))?;
    }
    for route in netlink.our_routes()?.iter().filter(|r| r.interface == Some(index)) {
        missing_is_fine(netlink.delete_route(route))?;
    }
    Ok(())
}

/// Removes our rules to a table, and our routes in it.
pub(super) fn abandon(netlink: &mut Netlink, table: u32) -> Result<(), NetlinkError> {
    for rule in netlink.rules()?.iter().filter(|r| r.ours && r.table == table) {
        missing_is_fine(netlink.delete_rule(rule))?;
    }
    for route in netlink.routes(Some(table))?.iter().filter(|r| r.ours) {
        missing_is_fine(netlink.delete_route(route))?;
    }
    Ok(())
}

/// Removes the rules that killed processes have left in this network namespace: those of ours whose table has no route
/// of ours any more, for routes go with their interfaces. Gives their number.
pub fn sweep() -> Result<usize, NetlinkError> {
    let refused = |error| NetlinkError { what: "look for", whom: "old rules".into(), kernel: None, error };
    let mut netlink = Netlink::open().map_err(refused)?;
    let mut rules = netlink.rules()?;
    rules.retain(|rule| rule.ours);
    if rules.is_empty() {
        return Ok(0);
    }
    let routes = netlink.our_routes()?;
    let serves = |rule: &Rule, route: &Route| {
        (route.table, route.to.ip.is_ipv4()) == (Some(rule.table), rule.from.ip.is_ipv4())
    };
    rules.retain(|rule| !routes.iter().any(|route| serves(rule, route)));
    for rule in &rules {
        missing_is_fine(netlink.delete_rule(rule))?;
    }
    Ok(rules.len())
}

fn missing_is_fine(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    done.or_else(|e| if e.is_missing() { Ok(()) } else { Err(e) })
}
