//! Which client has which number, and which of its NICs has which: kept over reloads, so that what stays is not disturbed.

use std::sync::Arc;

use crate::commands::Failure;
use crate::config::{ClientEntry, ServerConfig, ServerNic};
use crate::keys::{PresharedKey, PublicKey};
use crate::nic::{NicRequest, Side};
use crate::proto::output::PeerId;
use crate::proto::server::ClientSpec;
use crate::runtime::ports::Wanted;
use crate::types::{MacAddr, NicId, NicSpec, Sorted};
use crate::wire::push::{Push, PushedNic};

/// The clients as they are configured now.
#[derive(Default)]
pub struct Roster {
    clients: Sorted<PeerId, Known>,
    next: u32,
}

#[derive(Clone)]
struct Known {
    name: String,
    keys: Vec<PublicKey>,
    psk: Option<[u8; 32]>,
    ids: Sorted<MacAddr, NicId>,
    /// It is the client's invite, and not the client.
    invite: bool,
}

/// What a new config changes.
pub struct Change {
    /// Clients that are no more.
    pub removed: Vec<PeerId>,
    /// Clients that are new.
    pub added: Vec<(PeerId, ClientSpec)>,
    /// Clients with other keys than before, and whether the pre-shared key at least is the same.
    pub rekeyed: Vec<(PeerId, ClientSpec, bool)>,
    /// Every NIC there is to be.
    pub nics: Vec<Wanted>,
    /// What each client is to be and run.
    pub pushes: Vec<(PeerId, Arc<[u8]>)>,
    /// The clients as they are then.
    pub roster: Roster,
}

impl Roster {
    /// A client's name.
    pub fn name(&self, peer: PeerId) -> &str {
        self.clients.get(&peer).map_or("a removed client", |k| &k.name)
    }

    /// Every client, with its name.
    pub fn names(&self) -> impl Iterator<Item = (PeerId, &str)> {
        self.clients.iter().filter(|(_, k)| !k.invite).map(|(id, known)| (*id, known.name.as_str()))
    }

    /// The client whose invite this is.
    pub fn invited(&self, peer: PeerId) -> Option<&str> {
        self.clients.get(&peer).filter(|k| k.invite).map(|k| k.name.as_str())
    }

    /// Whether the client of this name has another pre-shared key than this one.
    pub fn has_other_psk(&self, name: &str, psk: Option<&PresharedKey>) -> bool {
        let known = self.clients.values().find(|k| k.name == name && !k.invite);
        known.is_some_and(|k| k.psk != psk.map(fingerprint))
    }

    /// What a config changes. `psks`: those of its clients, in order.
    pub fn change(&self, config: &ServerConfig, psks: Vec<Option<PresharedKey>>) -> Result<Change, Failure> {
        let (mut next, mut clients) = (self.next, Sorted::default());
        let (mut added, mut rekeyed) = (Vec::new(), Vec::new());
        let (mut nics, mut pushes) = (Vec::new(), Vec::new());
        let mut admit = |keys: Vec<PublicKey>, name: &str, psk: Option<PresharedKey>, invite| {
            let (digest, old) = (psk.as_ref().map(fingerprint), self.find(&clients, name, &keys, invite));
            let (id, ids) = old.map_or_else(
                || {
                    next = next.wrapping_add(1);
                    (PeerId(next), Sorted::default())
                },
                |(id, known)| (id, known.ids.clone()),
            );
            let spec = ClientSpec { keys: keys.clone(), psk, invite };
            match old {
                None => added.push((id, spec)),
                Some((_, known)) if known.keys != keys || known.psk != digest => {
                    rekeyed.push((id, spec, known.psk == digest));
                }
                Some(_) => {}
            }
            clients.insert(
                id,
                Known { name: name.to_owned(), keys, psk: digest, ids: Sorted::default(), invite },
            );
            (id, ids)
        };
        let mut numbers = Sorted::default();
        for (entry, psk) in config.clients.iter().zip(psks) {
            let (id, ids) = admit(entry.keys.clone(), &entry.name, psk, false);
            let ids = number(&ids, entry);
            pushes.push((id, blob(entry, &ids)?));
            nics.extend(
                entry.nics.iter().map(|nic| wanted(config, id, ids.get(&nic.spec.mac).copied(), nic)),
            );
            numbers.insert(id, ids);
            // Kept when it has been used or is late, so that whoever tries it then can be told.
            if let Some(invite) = &entry.invite {
                admit(vec![invite.key], &entry.name, None, true);
            }
        }
        for (id, ids) in numbers {
            if let Some(known) = clients.get_mut(&id) {
                known.ids = ids;
            }
        }
        let removed = self.clients.keys().filter(|id| !clients.contains_key(id)).copied().collect();
        Ok(Change { removed, added, rekeyed, nics, pushes, roster: Self { clients, next } })
    }

    /// The client that is this one now, if it is not another one already: it has one of the keys, or else the name.
    fn find(
        &self,
        taken: &Sorted<PeerId, Known>,
        name: &str,
        keys: &[PublicKey],
        invite: bool,
    ) -> Option<(PeerId, &Known)> {
        let free = || self.clients.iter().filter(|(id, k)| k.invite == invite && !taken.contains_key(id));
        let key = |k: &Known| keys.iter().any(|key| k.keys.contains(key));
        let (id, known) =
            free().find(|(_, k)| key(k)).or_else(|| free().find(|(_, k)| !invite && k.name == name))?;
        Some((*id, known))
    }
}

/// Tells whether a pre-shared key is still the same without keeping it.
fn fingerprint(psk: &PresharedKey) -> [u8; 32] {
    crate::proto::pull::hash_of(psk.as_bytes())
}

/// A number for each NIC: the one it had, or the lowest that none has.
fn number(old: &Sorted<MacAddr, NicId>, entry: &ClientEntry) -> Sorted<MacAddr, NicId> {
    let mut ids = old.clone();
    ids.retain(|mac, _| entry.nics.iter().any(|n| n.spec.mac == *mac));
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

fn blob(entry: &ClientEntry, ids: &Sorted<MacAddr, NicId>) -> Result<Arc<[u8]>, Failure> {
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
