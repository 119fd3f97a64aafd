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

mod probe;
mod spaces;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use self::probe::{Holder, Probe, Step, Who};
use self::spaces::Spaces;
use super::keeper::Keeper;
use super::plane::{NicSetup, Plane};
use super::status::model;
use crate::dataplane::NicKey;
use crate::metrics::{Flow, NicCounters};
use crate::nic::events::Event;
use crate::nic::{self, Nic, NicError, NicRequest, Queue, Side};
use crate::policy::Contract;
use crate::proto::output::PeerId;
use crate::types::{MacAddr, NetnsName, NicId, NicName, NicRules};
use crate::wire::announce::{announcement, question};
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

enum State {
    /// Open. The queues are here until the NIC has its number, then a worker has them, under the key.
    Here { nic: Nic, queues: Vec<Queue>, key: Option<NicKey> },
    /// Its interface is gone.
    Gone { next: Instant },
}

struct Port {
    wanted: Wanted,
    counters: Arc<NicCounters>,
    state: State,
    up: bool,
    probe: Probe,
    /// Who has its address, as people were last told.
    told: Option<Holder>,
    /// When its interface is to be looked at: somebody may have changed it.
    look: Option<Instant>,
}

/// All NICs.
pub struct Ports {
    keeper: Rc<Keeper>,
    ports: Vec<Port>,
    spaces: Spaces,
    live: HashSet<PeerId>,
    tunnels: HashMap<PeerId, (SocketAddr, SocketAddr)>,
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
                Event::RouteChanged { index: i } => *i == Some(index),
                Event::RuleChanged | Event::Overrun => true,
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
        self.ports.iter().flat_map(|port| [gone(port), port.look, port.probe.poll_timeout()]).flatten().min()
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
        self.ports.iter_mut().for_each(|port| port.go_on_asking(now, plane));
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
    pub fn snapshot(&self, name: impl Fn(PeerId) -> String) -> Vec<model::Nic> {
        self.ports.iter().map(|port| port.snapshot(name(port.wanted.peer))).collect()
    }

    /// Logs what was dropped on each NIC.
    pub fn log_drops(&self) {
        for port in &self.ports {
            for (reason, count) in port.counters.drops.seen() {
                info!(nic = %port.name(), reason = reason.label(), count, "frames dropped");
            }
        }
    }

    /// Takes every NIC's link down, or lets it follow its peer again.
    fn settle(&mut self, now: Instant, plane: &mut Plane) {
        for port in &mut self.ports {
            let tunnel = self.tunnels.get(&port.wanted.peer).copied();
            port.plug(plane, tunnel);
            port.set_up(now, plane, self.live.contains(&port.wanted.peer));
        }
        let open = self.ports.iter().filter(|port| port.nic().is_some());
        self.spaces.follow(&self.keeper, open.filter_map(Port::netns));
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

impl Port {
    fn new(now: Instant, wanted: Wanted, keeper: &Keeper, queues: usize) -> (Self, Result<(), NicError>) {
        let (state, opened) = match open(&wanted.request, keeper, queues) {
            Ok((nic, queues)) => (State::Here { nic, queues, key: None }, Ok(())),
            Err(e) => (State::Gone { next: now + RETRY }, Err(e)),
        };
        let (counters, probe) = (Arc::default(), Probe::Idle);
        (Self { wanted, counters, state, up: false, probe, told: None, look: None }, opened)
    }

    fn name(&self) -> &NicName {
        &self.wanted.request.spec.name
    }

    fn netns(&self) -> Option<&NetnsName> {
        self.wanted.request.stack.netns.as_ref()
    }

    fn nic(&self) -> Option<&Nic> {
        match &self.state {
            State::Here { nic, .. } => Some(nic),
            State::Gone { .. } => None,
        }
    }

    fn key(&self) -> Option<NicKey> {
        match &self.state {
            State::Here { key, .. } => *key,
            State::Gone { .. } => None,
        }
    }

    fn snapshot(&self, peer: String) -> model::Nic {
        let (spec, c) = (&self.wanted.request.spec, &self.counters);
        let flow = |f: &Flow| model::Flow { frames: f.frames.load(Relaxed), bytes: f.bytes.load(Relaxed) };
        let server = self.wanted.request.side == Side::Server;
        let state = match self.nic() {
            None => "gone",
            Some(_) if self.up || server => "up",
            Some(_) => match &self.probe {
                Probe::Idle => "down",
                Probe::Asking { .. } => "probing",
                Probe::Taken { .. } => "conflict",
            },
        };
        let conflict = match &self.probe {
            Probe::Taken { by, .. } => Some(by.to_string()),
            _ => None,
        };
        model::Nic {
            name: spec.name.to_string(),
            peer,
            mode: self.wanted.request.mode.to_string(),
            state: state.to_owned(),
            conflict,
            netns: self.netns().map(ToString::to_string),
            table: self.nic().and_then(Nic::table),
            mac: spec.mac.to_string(),
            addrs: spec.addrs.iter().map(ToString::to_string).collect(),
            mtu: spec.mtu.bytes(),
            offload: self.nic().map_or_else(String::new, |nic| nic.offloads().to_string()),
            uplink: flow(&c.uplink),
            downlink: flow(&c.downlink),
            drops: c.drops.seen().map(|(r, n)| (r.label().to_owned(), n)).collect(),
        }
    }

    fn is_there(&mut self) -> bool {
        match &mut self.state {
            State::Here { nic, .. } => matches!(nic.link(), Ok(Some(_))),
            State::Gone { .. } => false,
        }
    }

    /// The same interface for the same peer: at the most rules or a number still to be learnt differ.
    fn serves(&self, w: &Wanted) -> bool {
        let number = self.wanted.id.is_none() || self.wanted.id == w.id;
        self.wanted.peer == w.peer && number && self.wanted.request == w.request
    }

    fn rewant(&mut self, wanted: Wanted, plane: &Plane, tunnel: Option<(SocketAddr, SocketAddr)>) {
        let changed = self.wanted != wanted;
        self.wanted = wanted;
        if let (true, Some(key)) = (changed, self.key()) {
            plane.update_nic(key, &self.contract(tunnel), self.wanted.reply_arp);
        }
    }

    fn contract(&self, tunnel: Option<(SocketAddr, SocketAddr)>) -> Contract {
        let mut contract = Contract::new(&self.wanted.request.spec, self.wanted.rules);
        contract.set_tunnel(tunnel);
        contract
    }

    /// Hands the queues over as soon as the NIC has a number.
    fn plug(&mut self, plane: &mut Plane, tunnel: Option<(SocketAddr, SocketAddr)>) {
        let contract = self.contract(tunnel);
        let asks = self.asks();
        let (Some(id), State::Here { nic, queues, key: key @ None }) = (self.wanted.id, &mut self.state)
        else {
            return;
        };
        let setup = NicSetup {
            peer: self.wanted.peer,
            id,
            contract,
            counters: Arc::clone(&self.counters),
            reply_arp: self.wanted.reply_arp,
        };
        let added = plane.add_nic(std::mem::take(queues), &setup);
        *key = Some(added);
        if asks {
            plane.hold(added, true);
        }
        if self.wanted.request.side == Side::Server {
            // Until there is a session the cable is out.
            self.up = true;
            info!(nic = %nic.name(), mac = %self.wanted.request.spec.mac, mode = %nic.mode(), "nic ready");
        }
    }

    /// A client's link follows the session. A server's carrier does.
    fn set_up(&mut self, now: Instant, plane: &Plane, up: bool) {
        let State::Here { nic, key: Some(_), .. } = &mut self.state else { return };
        match self.wanted.request.side {
            Side::Server => {
                if std::mem::replace(&mut self.up, up) != up
                    && self.wanted.request.configure
                    && let Err(e) = nic.set_carrier(up)
                {
                    self.up = !up;
                    warn!(nic = %nic.name(), "{e}");
                }
            }
            Side::Client if !up => self.go_down(plane),
            Side::Client if self.up || self.probe != Probe::Idle => {}
            Side::Client if self.asks() => self.begin_to_ask(now, plane),
            Side::Client => self.go_up(plane),
        }
    }

    /// Its LAN is asked about its addresses first.
    fn asks(&self) -> bool {
        let Wanted { request, rules, probe, .. } = &self.wanted;
        // A bridge stands for a whole segment, where others may have any address.
        *probe && request.side == Side::Client && !rules.bridge && !request.spec.addrs.is_empty()
    }

    fn set_link(&mut self, up: bool) -> bool {
        let State::Here { nic, .. } = &mut self.state else { return false };
        nic.set_up(up).map_err(|e| warn!(nic = %nic.name(), "{e}")).is_ok()
    }

    fn go_up(&mut self, plane: &Plane) {
        if self.set_link(true) {
            self.go_live(plane);
        }
    }

    /// Its link is up, and from now on it is the host.
    fn go_live(&mut self, plane: &Plane) {
        let State::Here { nic, key: Some(key), .. } = &self.state else { return };
        let spec = &self.wanted.request.spec;
        plane.hold(*key, false);
        // Whoever had another MAC for these addresses is to know at once, and switches the new place.
        plane.announce(*key, spec.addrs.iter().map(|a| announcement(spec.mac, a.ip)).collect());
        info!(nic = %nic.name(), mac = %spec.mac, mode = %nic.mode(), "nic ready");
        (self.up, self.told) = (true, None);
    }

    fn go_down(&mut self, plane: &Plane) {
        let was_up = self.up;
        if (was_up || self.probe.is_asking()) && self.set_link(false) {
            self.up = false;
            self.hold_back(plane);
            if was_up {
                info!(nic = %self.name(), "nic down until there is a session");
            }
        }
        self.probe = Probe::Idle;
    }

    fn hold_back(&self, plane: &Plane) {
        if let (true, Some(key)) = (self.asks(), self.key()) {
            plane.hold(key, true);
        }
    }

    fn begin_to_ask(&mut self, now: Instant, plane: &Plane) {
        let spec = &self.wanted.request.spec;
        let State::Here { nic, .. } = &mut self.state else { return };
        if let Ok(Some((ip, interface))) = nic.address_elsewhere(&spec.addrs) {
            return self.yield_to(now, plane, Holder { ip, who: Who::Here(interface) });
        }
        self.hold_back(plane);
        if self.set_link(true) {
            self.ask(plane);
            self.probe = Probe::begun(now);
        } else {
            self.probe = Probe::Idle;
        }
    }

    fn ask(&self, plane: &Plane) {
        let spec = &self.wanted.request.spec;
        if let Some(key) = self.key() {
            plane.announce(key, spec.addrs.iter().map(|a| question(spec.mac, a.ip)).collect());
        }
    }

    fn go_on_asking(&mut self, now: Instant, plane: &Plane) {
        match self.probe.handle_timeout(now) {
            Some(Step::Begin) => self.begin_to_ask(now, plane),
            Some(Step::Ask) => self.ask(plane),
            Some(Step::Up) => self.go_live(plane),
            None => {}
        }
    }

    /// Somebody else has one of its addresses.
    fn yield_to(&mut self, now: Instant, plane: &Plane, by: Holder) {
        if self.up {
            return;
        }
        if self.probe.is_asking() {
            self.set_link(false);
            self.hold_back(plane);
        }
        if self.told.replace(by.clone()) != Some(by.clone()) {
            let mend = match &by.who {
                Who::Lan(_) => "give that host or this NIC another address".to_owned(),
                Who::Here(interface) => format!("run `ip addr flush dev {interface} to {}`", by.ip),
            };
            error!(
                nic = %self.name(),
                "{by}, and this NIC is to have it: the NIC stays down and asks again every 5 s; {mend} (or write \
                 probe = false, and nobody is asked)"
            );
        }
        self.probe = Probe::taken(now, by);
    }

    /// True where something had to be put right, or could not be.
    fn mend(&mut self) -> bool {
        let State::Here { nic, key: Some(_), .. } = &mut self.state else { return false };
        match nic.mend(&self.wanted.request, self.up || self.probe.is_asking()) {
            Ok(mended) => {
                let what = mended.join(", ");
                if !mended.is_empty() {
                    warn!(nic = %nic.name(), "somebody has changed this interface; put right: {what}");
                }
                !mended.is_empty()
            }
            Err(e) => {
                warn!(nic = %nic.name(), "somebody has changed this interface: {e}");
                false
            }
        }
    }

    fn lose(&mut self, now: Instant, keeper: &Keeper, plane: &Plane) {
        let State::Here { nic, key, .. } = &self.state else { return };
        keeper.release(nic.index(), self.netns());
        warn!(nic = %nic.name(), "the interface is gone; it is opened again as soon as that is possible");
        if let Some(key) = key {
            plane.remove_nic(*key);
        }
        (self.up, self.probe) = (false, Probe::Idle);
        self.state = State::Gone { next: now + RETRY };
    }

    fn try_open(&mut self, now: Instant, keeper: &Keeper, queues: usize) {
        match open(&self.wanted.request, keeper, queues) {
            Ok((nic, queues)) => {
                info!(nic = %self.name(), "the interface is back");
                self.state = State::Here { nic, queues, key: None };
            }
            Err(e) => {
                tracing::debug!(nic = %self.name(), "{e}");
                self.state = State::Gone { next: now + RETRY };
            }
        }
    }
}

fn open(request: &NicRequest, keeper: &Keeper, queues: usize) -> Result<(Nic, Vec<Queue>), NicError> {
    let (nic, queues) = nic::open_with(keeper, request, queues)?;
    if let Err(e) = keeper.guard(&nic, request.stack.netns.as_ref(), request.side) {
        warn!(nic = %nic.name(), "nobody will take this interface down if tap-rs is killed: {e}");
    }
    Ok((nic, queues))
}
