//! The server's side of a handshake: nothing is kept of a HELLO, and of an INIT only what passes every check.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rand::RngExt;

use super::Server;
use super::client::Verdict;
use crate::metrics::DropReason;
use crate::proto::cookie::{equal, mac};
use crate::proto::index::free_index;
use crate::proto::noise::{Answerer, Known, Seed, respond};
use crate::proto::output::{Event, Output, PeerId};
use crate::proto::slot::Handshaken;
use crate::types::Path;
use crate::wire::datagram::{Cookie, HandshakePayload, Hello, INIT_LEN, Init, MAC_LEN, Resp};

impl Server {
    pub(super) fn handle_hello(&mut self, from: Path, bytes: &[u8]) -> Result<(), DropReason> {
        let bytes = bytes.try_into().map_err(|_| DropReason::BadLength)?;
        let (hello, signed, sent_mac) = Hello::decode(bytes)?;
        if !equal(&self.name.hello_mac(signed), sent_mac) {
            return Err(DropReason::BadMac);
        }
        let (nonce, cookie) = (self.rng.random(), self.jar.bake(from.remote));
        let sealed = self.name.seal(bytes, nonce, &cookie).ok_or(DropReason::BadCookie)?;
        let answer = Cookie { suite: hello.suite, receiver_index: hello.sender_index, nonce, sealed };
        self.out.push(Output::Send { path: from, bytes: answer.encode().to_vec() });
        Ok(())
    }

    pub(super) fn handle_init(&mut self, now: Instant, from: Path, bytes: &[u8]) -> Result<(), DropReason> {
        let bytes: &[u8; INIT_LEN] = bytes.try_into().map_err(|_| DropReason::BadLength)?;
        let (init, signed, sent_mac) = Init::decode(bytes)?;
        let cookie = self.jar.find(from.remote, sent_mac, signed).ok_or(DropReason::BadMac)?;
        // The same INIT again costs nothing: a server that is behind gets each several times.
        if let Some(resp) = self.answered(sent_mac) {
            self.out.push(Output::Send { path: from, bytes: resp });
            return Ok(());
        }
        self.budgets.take(now, from.remote)?;
        let local_index = self.free_index();
        let unknown = Arc::new(OnceLock::new());
        let known = known(&self.by_key, &unknown);
        let answerer = Answerer { identity: &self.params.identity, known, cookie: &cookie, local_index };
        let payload = HandshakePayload { instance: self.params.instance, bound: local_index.into() }.encode();
        let seed = Seed::new(self.rng.random());
        let (by_key, clients) = (&self.by_key, &self.clients);
        let (asks_first, mut unverified) = (self.asks_first, None);
        let answered = respond(&answerer, &init, &payload, &seed, |key, theirs| {
            let id = *by_key.get(key).ok_or(DropReason::UnknownKey)?;
            let client = clients.get(&id).ok_or(DropReason::UnknownKey)?;
            client.admits(now, HandshakePayload::decode(theirs).instance)?;
            if asks_first && !client.is_verified(now, from.remote.ip()) {
                unverified = Some(id);
                return Err(DropReason::Unverified);
            }
            Ok(((id, *key), client.spec.psk.as_ref()))
        });
        if let Some(client) = unverified.and_then(|id| self.clients.get_mut(&id))
            && client.verdict != Verdict::Asked
        {
            client.verdict = Verdict::Asked;
            self.out.event(client.peer.id, Event::Verify(from));
        }
        if let Some(key) = unknown.get() {
            self.stranger = Some(*key);
            return Err(DropReason::UnknownKey);
        }
        let ((id, key), answer) = answered?;
        let client = self.clients.get_mut(&id).ok_or(DropReason::UnknownKey)?;
        if client.peer.has_answered(sent_mac) {
            return Err(DropReason::Replayed);
        }
        let instance = HandshakePayload::decode(&answer.payload).instance;
        let resp = Resp {
            suite: init.suite,
            sender_index: local_index,
            receiver_index: init.sender_index,
            noise: answer.noise,
        };
        let resp = resp.encode(|signed| mac(&cookie, signed));
        let mut slot = client
            .peer
            .install(now, &answer.keys, instance, &mut self.out)
            .ok_or(DropReason::BadHandshake)?;
        slot.key = key;
        self.by_index.insert(local_index, id);
        let shaken = Handshaken { init_mac: *sent_mac, resp, path: from };
        self.by_init.insert(*sent_mac, id);
        if let Some((old, _)) = client.peer.next.replace((slot, shaken)) {
            self.out.push(Output::Retire { index: old.index() });
        }
        self.out.push(Output::Send { path: from, bytes: resp.to_vec() });
        self.forget_inits();
        self.reschedule(id);
        Ok(())
    }

    /// What this INIT was answered with, if its session is still to be used for the first time.
    fn answered(&self, init_mac: &[u8; MAC_LEN]) -> Option<Vec<u8>> {
        let client = self.clients.get(self.by_init.get(init_mac)?)?;
        let (_, shaken) = client.peer.next.as_ref().filter(|(_, s)| s.init_mac == *init_mac)?;
        Some(shaken.resp.to_vec())
    }

    /// Keeps no more of them than there are clients, and as many again.
    fn forget_inits(&mut self) {
        if self.by_init.len() > self.clients.len().saturating_mul(2) {
            let clients = &self.clients;
            let next = |id: &PeerId| clients.get(id).and_then(|client| client.peer.next.as_ref());
            self.by_init.retain(|mac, id| next(id).is_some_and(|(_, s)| s.init_mac == *mac));
        }
    }

    /// A random index that no session has.
    fn free_index(&mut self) -> u32 {
        free_index(&mut self.rng, self.tag, |index| self.by_index.contains_key(&index))
    }
}

/// Whether any client has a key; one that none has is kept.
fn known(by_key: &Arc<HashMap<[u8; 32], PeerId>>, unknown: &Arc<OnceLock<[u8; 32]>>) -> Known {
    let (by_key, unknown) = (Arc::clone(by_key), Arc::clone(unknown));
    Arc::new(move |key| {
        let known = by_key.contains_key(key);
        if !known {
            let _ = unknown.set(*key);
        }
        known
    })
}
