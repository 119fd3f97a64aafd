//! Which client has which number, and which of its NICs has which: kept over reloads, so that what stays is not disturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::commands::Failure;
use crate::config::{ClientEntry, ServerConfig, ServerNic};
use crate::keys::{PresharedKey, PublicKey};
use crate::nic::{NicRequest, Side};
use crate::proto::output::PeerId;
use crate::runtime::ports::Wanted;
use crate::types::{MacAddr, NicId, NicSpec};
use crate::wire::push::{Push, PushedNic};

/// The clients as they are configured now.
#[derive(Default)]
pub struct Roster {
    clients: BTreeMap<PeerId, Known>,
    next: u32,
}

struct Known {
    name: String,
    key: PublicKey,
    psk: Option<[u8; 32]>,
    ids: BTreeMap<MacAddr, NicId>,
}

/// What a new config changes.
pub struct Change {
    /// Clients that are no more, or have other keys.
    pub removed: Vec<PeerId>,
    /// Clients that are new, or have other keys.
    pub added: Vec<(PeerId, PublicKey, Option<PresharedKey>)>,
    /// Every NIC there is to be.
    pub nics: Vec<Wanted>,
    /// What each client is to be and run.
    pub pushes: Vec<(PeerId, Arc<[u8]>)>,
}

impl Roster {
    /// A client's name.
    pub fn name(&self, peer: PeerId) -> &str {
        self.clients.get(&peer).map_or("a removed client", |k| &k.name)
    }

    /// Every client, with its name.
    pub fn names(&self) -> impl Iterator<Item = (PeerId, &str)> {
        self.clients.iter().map(|(id, known)| (*id, known.name.as_str()))
    }

    /// Takes a config over. `psks`: those of its clients, in order. After an error nothing has changed.
    pub fn change(
        &mut self,
        config: &ServerConfig,
        psks: Vec<Option<PresharedKey>>,
    ) -> Result<Change, Failure> {
        let mut next = self.next;
        let (mut clients, mut added) = (BTreeMap::new(), Vec::new());
        let (mut nics, mut pushes) = (Vec::new(), Vec::new());
        for (entry, psk) in config.clients.iter().zip(psks) {
            let digest = psk.as_ref().map(fingerprint);
            let same = |known: &&Known| known.key == entry.key && known.psk == digest;
            let old = self.clients.iter().find(|(_, known)| same(known));
            let (id, ids) = match old {
                Some((id, known)) => (*id, number(&known.ids, entry)),
                None => {
                    let id = PeerId(next);
                    next = next.wrapping_add(1);
                    added.push((id, entry.key, psk));
                    (id, number(&BTreeMap::new(), entry))
                }
            };
            pushes.push((id, blob(entry, &ids)?));
            nics.extend(
                entry.nics.iter().map(|nic| wanted(config, id, ids.get(&nic.spec.mac).copied(), nic)),
            );
            clients.insert(id, Known { name: entry.name.clone(), key: entry.key, psk: digest, ids });
        }
        let removed = self.clients.keys().filter(|id| !clients.contains_key(id)).copied().collect();
        (self.clients, self.next) = (clients, next);
        Ok(Change { removed, added, nics, pushes })
    }
}

/// Tells whether a pre-shared key is still the same without keeping it.
fn fingerprint(psk: &PresharedKey) -> [u8; 32] {
    crate::proto::pull::hash_of(psk.as_bytes())
}

/// A number for each NIC: the one it had, or the lowest that none has.
fn number(old: &BTreeMap<MacAddr, NicId>, entry: &ClientEntry) -> BTreeMap<MacAddr, NicId> {
    let macs: BTreeSet<MacAddr> = entry.nics.iter().map(|n| n.spec.mac).collect();
    let mut ids: BTreeMap<_, _> =
        old.iter().filter(|(mac, _)| macs.contains(mac)).map(|(m, i)| (*m, *i)).collect();
    let mut free = (0..=u16::MAX).map(NicId);
    for nic in &entry.nics {
        if !ids.contains_key(&nic.spec.mac)
            && let Some(id) = free.find(|id| !ids.values().any(|taken| taken == id))
        {
            ids.insert(nic.spec.mac, id);
        }
    }
    ids
}

fn wanted(config: &ServerConfig, peer: PeerId, id: Option<NicId>, nic: &ServerNic) -> Wanted {
    Wanted {
        peer,
        id,
        request: NicRequest {
            spec: nic.spec.clone(),
            mode: config.mode,
            parent: nic.parent.clone(),
            side: Side::Server,
            configure: nic.configure,
            offload: config.common.offload,
            stack: nic.stack.clone(),
        },
        rules: nic.rules,
        reply_arp: false,
        probe: false,
    }
}

fn blob(entry: &ClientEntry, ids: &BTreeMap<MacAddr, NicId>) -> Result<Arc<[u8]>, Failure> {
    let pushed = |nic: &ServerNic| {
        let spec = NicSpec { name: nic.client_name.clone(), ..nic.spec.clone() };
        Some(PushedNic { id: *ids.get(&spec.mac)?, spec, parent: nic.client_parent.clone() })
    };
    let push = Push {
        mode: entry.client_mode,
        nics: entry.nics.iter().filter_map(pushed).collect(),
        script: entry.script.as_deref().unwrap_or_default().to_vec(),
    };
    push.encode()
        .map(Arc::from)
        .map_err(|e| Failure::Refused(format!("the config of client {} cannot be pushed: {e}", entry.name)))
}
