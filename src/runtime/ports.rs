//! The NICs of this process: opened, handed to the workers, followed when they die, put back in the end.
//!
//! ```text
//!   wanted ──open──▶ open ──number known──▶ in the plane ──peer live──▶ up: "nic ready"
//!     ▲                │ its interface or its descriptor died: once a second until it is back
//!     └────────────────┘
//! ```
//!
//! A client's NIC goes up when its LAN has been asked who else has its addresses ([`probe`]).
//!
//! [`Ports::set`] takes the whole list each time. What stays as it was is not touched.

mod live;
mod place;
mod port;
mod probe;
mod spaces;
mod storm;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tracing::{info, warn};

pub use self::place::Place;
use self::port::{Port, State};
use self::probe::{Holder, Who};
use self::spaces::Spaces;
use super::keeper::Keeper;
use super::plane::Plane;
use super::status::model;
use crate::dataplane::NicKey;
use crate::metrics::Flow;
use crate::nic::events::Event;
use crate::nic::{self, Nic, NicError, NicRequest};
use crate::proto::output::PeerId;
use crate::types::{MacAddr, NetnsName, NicId, NicRules};
use crate::wire::control::NicReport;

/// How often a NIC that is gone is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A NIC that this process is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose it is.
    pub peer: PeerId,
    /// Its number in that peer's sessions; `None` on a client that has not learnt it yet.
    pub id: Option<NicId>,
    /// The interface.
    pub request: NicRequest,
    /// How strictly the contract is applied.
    pub rules: NicRules,
    /// Answer ARP requests for it here.
    pub reply_arp: bool,
    /// Ask the LAN who else has its addresses before it goes up.
    pub probe: bool,
}

/// All NICs.
pub struct Ports {
    ports: Vec<Port>,
    spaces: Spaces,
    live: HashSet<PeerId>,
    tunnels: HashMap<PeerId, (SocketAddr, SocketAddr)>,
    /// Dropped last: it cleans up what it finds.
    keeper: Rc<Keeper>,
}

impl Ports {
    /// None so far. Their devices are opened by the keeper, which also sees that none stays up when we are gone.
    pub fn new(keeper: Rc<Keeper>) -> Self {
        Self {
            keeper,
            ports: Vec::new(),
            spaces: Spaces::default(),
            live: HashSet::new(),
            tunnels: HashMap::new(),
        }
    }

    /// Removes what killed servers have left of themselves on this box: rules without routes, and empty namespaces.
    pub fn sweep(&self) {
        self.keeper.sweep();
        match nic::sweep_rules() {
            Ok(0) => {}
            Ok(count) => info!(count, "removed routing rules that a killed tap-rs has left"),
            Err(e) => warn!("{e}"),
        }
    }

    /// These NICs and no others. Those that cannot be opened are tried again later; the first error comes back too.
    pub fn set(&mut self, now: Instant, plane: &mut Plane, wanted: Vec<Wanted>) -> Result<(), NicError> {
        let (keep, gone): (Vec<_>, Vec<_>) =
            self.ports.drain(..).partition(|port| wanted.iter().any(|w| port.serves(w)));
        self.ports = keep;
        for port in gone {
            self.close(port, plane);
        }
        let mut first = Ok(());
        for w in wanted {
            match self.ports.iter_mut().find(|port| port.serves(&w)) {
                Some(port) => {
                    let tunnel = self.tunnels.get(&w.peer).copied();
                    port.rewant(w, plane, tunnel);
                }
                None => {
                    let (port, opened) = Port::new(now, w, &self.keeper, plane.queues());
                    self.ports.push(port);
                    first = first.and(opened);
                }
            }
        }
        self.settle(now, plane);
        first
    }

    /// Those that there are to be now.
    pub fn wanted(&self) -> Vec<Wanted> {
        self.ports.iter().map(|port| port.wanted.clone()).collect()
    }

    /// A peer has a session now, or has none any more. `tunnel`: where its datagrams go from and to.
    pub fn set_live(
        &mut self,
        now: Instant,
        plane: &mut Plane,
        peer: PeerId,
        tunnel: Option<(SocketAddr, SocketAddr)>,
    ) {
        match tunnel {
            Some(tunnel) => {
                self.live.insert(peer);
                if self.tunnels.insert(peer, tunnel) != Some(tunnel) {
                    self.renew_contracts(plane, peer);
                }
            }
            None => {
                self.live.remove(&peer);
            }
        }
        self.settle(now, plane);
    }

    /// A worker has given up a queue.
    pub fn handle_dead(&mut self, now: Instant, plane: &Plane, key: NicKey) {
        let dead = |port: &&mut Port| port.key() == Some(key);
        if let Some(port) = self.ports.iter_mut().find(dead) {
            port.lose(now, &self.keeper, plane);
        }
    }

    /// Somebody on a NIC's LAN has one of its addresses.
    pub fn handle_claim(&mut self, now: Instant, plane: &Plane, key: NicKey, (ip, mac): (IpAddr, MacAddr)) {
        if let Some(port) = self.ports.iter_mut().find(|port| port.key() == Some(key)) {
            port.yield_to(now, plane, Holder { ip, who: Who::Lan(mac) });
        }
    }

    /// A NIC's first frame over its budget, or its own come back, was dropped.
    pub fn handle_storm(&mut self, now: Instant, key: NicKey) {
        if let Some(port) = self.ports.iter_mut().find(|port| port.key() == Some(key)) {
            port.storm.handle_first(now, &port.counters);
        }
    }

    /// What happens in the namespaces that NICs live in. Safe to drop and to call again.
    pub async fn next_events(&mut self) -> (NetnsName, Vec<Event>) {
        self.spaces.next().await
    }

    /// Something happened to interfaces, in the program's own namespace or in this one.
    pub fn handle_links(
        &mut self,
        now: Instant,
        plane: &mut Plane,
        netns: Option<&NetnsName>,
        events: &[Event],
    ) {
        for port in self.ports.iter_mut().filter(|port| port.netns() == netns) {
            let Some(index) = port.nic().map(Nic::index) else { continue };
            let gone = events.iter().any(|e| match e {
                Event::LinkGone { index: i, .. } => *i == index,
                Event::Overrun => true,
                _ => false,
            });
            if gone && !port.is_there() {
                port.lose(now, &self.keeper, plane);
            }
            let concerns = |e: &Event| match e {
                Event::LinkNew(link) => link.index == index,
                Event::AddressChanged { index: i } => *i == index,
                Event::RouteChanged { index: i, gone } => *gone && *i == Some(index),
                Event::RuleChanged { gone } => *gone,
                Event::Overrun => true,
                Event::LinkGone { .. } => false,
            };
            if events.iter().any(concerns) {
                port.look.get_or_insert(now);
            }
        }
        self.mend(now);
        let back = |e: &Event| matches!(e, Event::LinkNew(_) | Event::Overrun);
        if events.iter().any(back) && self.ports.iter().any(|p| matches!(p.state, State::Gone { .. })) {
            self.reopen(now, plane, |_| true);
        }
    }

    /// When something is to be tried again, looked at or asked.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let gone = |port: &Port| match port.state {
            State::Gone { next } => Some(next),
            _ => None,
        };
        let due = |port: &Port| {
            [gone(port), port.look, port.probe.poll_timeout(), port.storm.poll_timeout()]
                .into_iter()
                .flatten()
                .min()
        };
        self.ports.iter().filter_map(due).min()
    }

    /// Looks at the interfaces that something has happened to, each once in a while: whoever keeps changing one is not
    /// fought over it as fast as the machine can.
    fn mend(&mut self, now: Instant) {
        for port in &mut self.ports {
            if port.look.take_if(|at| now >= *at).is_some() && port.mend() {
                port.look = Some(now + RETRY);
            }
        }
    }

    /// Tries what is due.
    pub fn handle_timeout(&mut self, now: Instant, plane: &mut Plane) {
        self.mend(now);
        for port in &mut self.ports {
            port.go_on_asking(now, plane);
            port.tell_of_storm(now);
        }
        self.reopen(now, plane, |next| now >= next);
    }

    /// What each NIC has carried.
    pub fn reports(&self) -> Vec<NicReport> {
        let report = |port: &Port| {
            let c = &port.counters;
            let flow = |f: &Flow| (f.frames.load(Relaxed), f.bytes.load(Relaxed));
            Some(NicReport { nic: port.wanted.id?.0, uplink: flow(&c.uplink), downlink: flow(&c.downlink) })
        };
        self.ports.iter().filter_map(report).collect()
    }

    /// Each NIC as it stands. `name`: what a peer is called.
    pub fn snapshot(&self, now: Instant, name: impl Fn(PeerId) -> String) -> Vec<model::Nic> {
        self.ports.iter().map(|port| port.snapshot(now, name(port.wanted.peer))).collect()
    }

    /// Logs what was dropped on each NIC.
    pub fn log_drops(&self) {
        for port in &self.ports {
            for (reason, count) in port.counters.drops.seen() {
                info!(nic = %port.name(), reason = reason.label(), count, "frames dropped");
            }
        }
    }

    /// Takes every NIC's link down, or lets it follow its peer again. Whoever is told that one is ready may change it at
    /// once, so that its namespace is watched before.
    fn settle(&mut self, now: Instant, plane: &mut Plane) {
        let open = self.ports.iter().filter(|port| port.nic().is_some());
        let new = self.spaces.follow(&self.keeper, open.filter_map(Port::netns));
        for port in &mut self.ports {
            if port.netns().is_some_and(|netns| new.contains(netns)) {
                port.look.get_or_insert(now);
            }
            let tunnel = self.tunnels.get(&port.wanted.peer).copied();
            port.plug(plane, tunnel);
            port.set_up(now, plane, self.live.contains(&port.wanted.peer));
        }
    }

    fn close(&self, port: Port, plane: &Plane) {
        if let Some(key) = port.key() {
            plane.remove_nic(key);
        }
        info!(nic = %port.name(), "nic gone");
        let (index, netns) = (port.nic().map(Nic::index), port.netns().cloned());
        drop(port);
        index.into_iter().for_each(|index| self.keeper.release(index, netns.as_ref()));
    }

    fn renew_contracts(&self, plane: &Plane, peer: PeerId) {
        let tunnel = self.tunnels.get(&peer).copied();
        for port in self.ports.iter().filter(|p| p.wanted.peer == peer) {
            if let Some(key) = port.key() {
                plane.update_nic(key, &port.contract(tunnel), port.wanted.reply_arp);
            }
        }
    }

    fn reopen(&mut self, now: Instant, plane: &mut Plane, due: impl Fn(Instant) -> bool) {
        // A namespace goes with the last NIC in it, and may be made anew for the first.
        let open = self.ports.iter().filter(|port| port.nic().is_some());
        self.spaces.keep(open.filter_map(Port::netns));
        if !self.ports.iter().any(|p| matches!(p.state, State::Gone { next } if due(next))) {
            return;
        }
        for port in &mut self.ports {
            if matches!(port.state, State::Gone { next } if due(next)) {
                port.try_open(now, &self.keeper, plane.queues());
            }
        }
        self.settle(now, plane);
    }
}
