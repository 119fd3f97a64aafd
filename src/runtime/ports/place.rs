//! One NIC, as it is named to the workers: for what looks at a single one.

use std::sync::Arc;

use super::Ports;
use super::port::{Port, State};
use crate::dataplane::NicKey;
use crate::metrics::NicCounters;
use crate::nic::Side;
use crate::proto::output::PeerId;
use crate::types::{MacAddr, NicId, NicMode};

/// A NIC, where it stands now.
pub struct Place {
    /// Its name here.
    pub name: String,
    /// Whose it is.
    pub peer: PeerId,
    /// Its number in that peer's sessions, where that is known.
    pub id: Option<NicId>,
    /// What workers know it by; `None`: its interface is gone, or no session has told its number yet.
    pub key: Option<NicKey>,
    /// Its interface is gone.
    pub gone: bool,
    /// Its peer has a session.
    pub live: bool,
    /// The projected MAC.
    pub mac: MacAddr,
    /// Largest frame payload in bytes.
    pub mtu: u16,
    /// Tap or macvtap.
    pub mode: NicMode,
    /// Which end this is.
    pub side: Side,
    /// What it has carried.
    pub counters: Arc<NicCounters>,
}

impl Ports {
    /// The NIC of this name.
    pub fn find(&self, name: &str) -> Option<Place> {
        self.ports.iter().find(|port| port.name().as_str() == name).map(|port| self.place(port))
    }

    /// The NIC that a peer means by a number.
    pub fn find_number(&self, peer: PeerId, id: NicId) -> Option<Place> {
        let is_it = |port: &&Port| port.wanted.peer == peer && port.wanted.id == Some(id);
        self.ports.iter().find(is_it).map(|port| self.place(port))
    }

    /// The names of all NICs, for people.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.ports.iter().map(|port| port.name().as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    fn place(&self, port: &Port) -> Place {
        let request = &port.wanted.request;
        Place {
            name: port.name().to_string(),
            peer: port.wanted.peer,
            id: port.wanted.id,
            key: port.key(),
            gone: matches!(port.state, State::Gone { .. }),
            live: self.live.contains(&port.wanted.peer),
            mac: request.spec.mac,
            mtu: request.spec.mtu.bytes(),
            mode: request.mode,
            side: request.side,
            counters: Arc::clone(&port.counters),
        }
    }
}
