//! One NIC of this process: its interface, its queues, and what is known of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tracing::{info, warn};

use super::probe::{Holder, Probe};
use super::{RETRY, Wanted};
use crate::dataplane::NicKey;
use crate::metrics::{Flow, NicCounters};
use crate::nic::{self, Nic, NicError, NicRequest, Queue, Side};
use crate::policy::Contract;
use crate::runtime::keeper::Keeper;
use crate::runtime::plane::{NicSetup, Plane};
use crate::runtime::status::model;
use crate::types::{NetnsName, NicName};

/// A NIC that this process is to have, and how far that is.
pub(super) struct Port {
    pub(super) wanted: Wanted,
    pub(super) counters: Arc<NicCounters>,
    pub(super) state: State,
    pub(super) up: bool,
    pub(super) probe: Probe,
    /// Who has its address, as people were last told.
    pub(super) told: Option<Holder>,
    /// When its interface is to be looked at: somebody may have changed it.
    pub(super) look: Option<Instant>,
}

/// Whether the interface is there.
pub(super) enum State {
    /// Open. The queues are here until the NIC has its number, then a worker has them, under the key.
    Here { nic: Nic, queues: Vec<Queue>, key: Option<NicKey> },
    /// Its interface is gone.
    Gone { next: Instant },
}

impl Port {
    pub(super) fn new(
        now: Instant,
        wanted: Wanted,
        keeper: &Keeper,
        queues: usize,
    ) -> (Self, Result<(), NicError>) {
        let (state, opened) = match open(&wanted.request, keeper, queues) {
            Ok((nic, queues)) => (State::Here { nic, queues, key: None }, Ok(())),
            Err(e) => (State::Gone { next: now + RETRY }, Err(e)),
        };
        let (counters, probe) = (Arc::default(), Probe::Idle);
        (Self { wanted, counters, state, up: false, probe, told: None, look: None }, opened)
    }

    pub(super) fn name(&self) -> &NicName {
        &self.wanted.request.spec.name
    }

    pub(super) fn netns(&self) -> Option<&NetnsName> {
        self.wanted.request.stack.netns.as_ref()
    }

    pub(super) fn nic(&self) -> Option<&Nic> {
        match &self.state {
            State::Here { nic, .. } => Some(nic),
            State::Gone { .. } => None,
        }
    }

    pub(super) fn key(&self) -> Option<NicKey> {
        match &self.state {
            State::Here { key, .. } => *key,
            State::Gone { .. } => None,
        }
    }

    pub(super) fn snapshot(&self, now: Instant, peer: String) -> model::Nic {
        let (spec, c) = (&self.wanted.request.spec, &self.counters);
        let flow = |f: &Flow| model::Flow {
            frames: f.frames.load(Relaxed),
            bytes: f.bytes.load(Relaxed),
            last_s: f.idle(now).map(|idle| idle.as_secs()),
        };
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
            probes: c.probes.load(Relaxed),
        }
    }

    pub(super) fn is_there(&mut self) -> bool {
        match &mut self.state {
            State::Here { nic, .. } => matches!(nic.link(), Ok(Some(_))),
            State::Gone { .. } => false,
        }
    }

    /// The same interface for the same peer: at the most rules or a number still to be learnt differ.
    pub(super) fn serves(&self, w: &Wanted) -> bool {
        let number = self.wanted.id.is_none() || self.wanted.id == w.id;
        self.wanted.peer == w.peer && number && self.wanted.request == w.request
    }

    pub(super) fn rewant(&mut self, wanted: Wanted, plane: &Plane, tunnel: Option<(SocketAddr, SocketAddr)>) {
        let changed = self.wanted != wanted;
        self.wanted = wanted;
        if let (true, Some(key)) = (changed, self.key()) {
            plane.update_nic(key, &self.contract(tunnel), self.wanted.reply_arp);
        }
    }

    pub(super) fn contract(&self, tunnel: Option<(SocketAddr, SocketAddr)>) -> Contract {
        let mut contract = Contract::new(&self.wanted.request.spec, self.wanted.rules);
        contract.set_tunnel(tunnel);
        contract
    }

    /// Hands the queues over as soon as the NIC has a number.
    pub(super) fn plug(&mut self, plane: &mut Plane, tunnel: Option<(SocketAddr, SocketAddr)>) {
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

    /// True where something had to be put right, or could not be.
    pub(super) fn mend(&mut self) -> bool {
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

    pub(super) fn lose(&mut self, now: Instant, keeper: &Keeper, plane: &Plane) {
        let State::Here { nic, key, .. } = &self.state else { return };
        keeper.release(nic.index(), self.netns());
        warn!(nic = %nic.name(), "the interface is gone; it is opened again as soon as that is possible");
        if let Some(key) = key {
            plane.remove_nic(*key);
        }
        (self.up, self.probe) = (false, Probe::Idle);
        self.state = State::Gone { next: now + RETRY };
    }

    pub(super) fn try_open(&mut self, now: Instant, keeper: &Keeper, queues: usize) {
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
