//! The NICs of this process: opened, handed to the workers, followed when they die, put back in the end.
//!
//! ```text
//!   wanted ──open──▶ open ──number known──▶ in the plane ──peer live──▶ up: "nic ready"
//!     ▲                │ its interface or its descriptor died: once a second until it is back
//!     └────────────────┘
//! ```
//!
//! [`Ports::set`] takes the whole list each time. What stays as it was is not touched.

mod place;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tracing::{info, warn};

pub use self::place::Place;
use super::keeper::Keeper;
use super::plane::{NicSetup, Plane};
use super::status::model;
use crate::dataplane::NicKey;
use crate::metrics::{Flow, NicCounters};
use crate::nic::events::Event;
use crate::nic::{self, Nic, NicError, NicRequest, Queue, Side};
use crate::policy::Contract;
use crate::proto::output::PeerId;
use crate::types::{NicId, NicName, NicRules};
use crate::wire::announce::announcement;
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
    /// When its interface is to be looked at: somebody may have changed it.
    look: Option<Instant>,
}

/// All NICs.
pub struct Ports {
    keeper: Rc<Keeper>,
    ports: Vec<Port>,
    live: HashSet<PeerId>,
    tunnels: HashMap<PeerId, (SocketAddr, SocketAddr)>,
}

impl Ports {
    /// None so far. Their devices are opened by the keeper, which also sees that none stays up when we are gone.
    pub fn new(keeper: Rc<Keeper>) -> Self {
        Self { keeper, ports: Vec::new(), live: HashSet::new(), tunnels: HashMap::new() }
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
        self.settle(plane);
        first
    }

    /// A peer has a session now, or has none any more. `tunnel`: where its datagrams go from and to.
    pub fn set_live(&mut self, plane: &mut Plane, peer: PeerId, tunnel: Option<(SocketAddr, SocketAddr)>) {
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
        self.settle(plane);
    }

    /// A worker has given up a queue.
    pub fn handle_dead(&mut self, now: Instant, plane: &Plane, key: NicKey) {
        let dead = |port: &&mut Port| port.key() == Some(key);
        if let Some(port) = self.ports.iter_mut().find(dead) {
            port.lose(now, &self.keeper, plane);
        }
    }

    /// Something happened to interfaces.
    pub fn handle_links(&mut self, now: Instant, plane: &mut Plane, events: &[Event]) {
        for port in &mut self.ports {
            let Some(index) = port.nic().map(Nic::index) else { continue };
            let gone = events.iter().any(|e| match e {
                Event::LinkGone { index: i, .. } => *i == index,
                Event::Overrun => true,
                _ => false,
            });
            if gone && !port.is_there() {
                port.lose(now, &self.keeper, plane);
            }
            if events.iter().any(|e| matches!(e, Event::LinkNew(link) if link.index == index)) {
                port.look.get_or_insert(now);
            }
        }
        self.mend(now);
        let back = |e: &Event| matches!(e, Event::LinkNew(_) | Event::Overrun);
        if events.iter().any(back) && self.ports.iter().any(|p| matches!(p.state, State::Gone { .. })) {
            self.reopen(now, plane, |_| true);
        }
    }

    /// When a NIC that is gone is to be tried again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = |port: &Port| match port.state {
            State::Gone { next } => Some(next),
            _ => None,
        };
        self.ports.iter().filter_map(next).chain(self.ports.iter().filter_map(|p| p.look)).min()
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
    fn settle(&mut self, plane: &mut Plane) {
        for port in &mut self.ports {
            let tunnel = self.tunnels.get(&port.wanted.peer).copied();
            port.plug(plane, tunnel);
            port.set_up(plane, self.live.contains(&port.wanted.peer));
        }
    }

    fn close(&self, port: Port, plane: &Plane) {
        if let Some(key) = port.key() {
            plane.remove_nic(key);
        }
        info!(nic = %port.name(), "nic gone");
        let index = port.nic().map(Nic::index);
        drop(port);
        index.into_iter().for_each(|index| self.keeper.release(index));
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
        for port in &mut self.ports {
            if matches!(port.state, State::Gone { next } if due(next)) {
                port.try_open(now, &self.keeper, plane.queues());
            }
        }
        self.settle(plane);
    }
}

impl Port {
    fn new(now: Instant, wanted: Wanted, keeper: &Keeper, queues: usize) -> (Self, Result<(), NicError>) {
        let (state, opened) = match open(&wanted.request, keeper, queues) {
            Ok((nic, queues)) => (State::Here { nic, queues, key: None }, Ok(())),
            Err(e) => (State::Gone { next: now + RETRY }, Err(e)),
        };
        (Self { wanted, counters: Arc::default(), state, up: false, look: None }, opened)
    }

    fn name(&self) -> &NicName {
        &self.wanted.request.spec.name
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
            Some(_) => "down",
        };
        model::Nic {
            name: spec.name.to_string(),
            peer,
            mode: self.wanted.request.mode.to_string(),
            state: state.to_owned(),
            mac: spec.mac.to_string(),
            addrs: spec.addrs.iter().map(ToString::to_string).collect(),
            mtu: spec.mtu.bytes(),
            offload: self.nic().map_or_else(String::new, |nic| nic.offloads().to_string()),
            uplink: flow(&c.uplink),
            downlink: flow(&c.downlink),
            drops: c.drops.seen().map(|(r, n)| (r.label().to_owned(), n)).collect(),
            probes: c.probes.load(Relaxed),
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
        *key = Some(plane.add_nic(std::mem::take(queues), &setup));
        if self.wanted.request.side == Side::Server {
            // Until there is a session the cable is out.
            self.up = true;
            info!(nic = %nic.name(), mac = %self.wanted.request.spec.mac, mode = %nic.mode(), "nic ready");
        }
    }

    /// A client's link follows the session. A server's carrier does.
    fn set_up(&mut self, plane: &Plane, up: bool) {
        let State::Here { nic, key: Some(key), .. } = &mut self.state else { return };
        if std::mem::replace(&mut self.up, up) == up {
            return;
        }
        let (name, request) = (nic.name().clone(), &self.wanted.request);
        let done = match request.side {
            Side::Client => nic.set_up(up),
            Side::Server if request.configure => nic.set_carrier(up),
            Side::Server => Ok(()),
        };
        match (done, request.side, up) {
            (Err(e), ..) => {
                self.up = !up;
                warn!(nic = %name, "{e}");
            }
            (Ok(()), Side::Client, true) => {
                // Whoever had another MAC for these addresses is to know at once, and switches the new place.
                let spec = &request.spec;
                plane.announce(*key, spec.addrs.iter().map(|a| announcement(spec.mac, a.ip)).collect());
                info!(nic = %name, mac = %request.spec.mac, mode = %nic.mode(), "nic ready");
            }
            (Ok(()), Side::Client, false) => info!(nic = %name, "nic down until there is a session"),
            (Ok(()), Side::Server, _) => {}
        }
    }

    /// True where something had to be put right, or could not be.
    fn mend(&mut self) -> bool {
        let State::Here { nic, key: Some(_), .. } = &mut self.state else { return false };
        match nic.mend(&self.wanted.request, self.up) {
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
        keeper.release(nic.index());
        warn!(nic = %nic.name(), "the interface is gone; it is opened again as soon as that is possible");
        if let Some(key) = key {
            plane.remove_nic(*key);
        }
        self.up = false;
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
    if let Err(e) = keeper.guard(&nic, request.side) {
        warn!(nic = %nic.name(), "nobody will take this interface down if tap-rs is killed: {e}");
    }
    Ok((nic, queues))
}
