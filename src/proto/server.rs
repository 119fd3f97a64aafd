//! The server: answers handshakes, keeps a peer for each client, offers each its config.
//!
//! ```text
//!   HELLO ─▶ COOKIE                       nothing kept
//!   INIT  ─▶ MAC, budget, Noise, allow-list, verdict ─▶ RESP, a *next* session; the same INIT again: the same RESP
//!   first DATA on it ─▶ the session is current, the client is where its INIT came from
//!   DATA from elsewhere ─▶ a challenge there; its answer from there moves the client
//! ```
//!
//! An invite is a client that may do one thing: say by which key it wants to be known from now on.
//!
//! A datagram that does not pass its check is a [`DropReason`] and changes nothing.

mod client;
mod handshake;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

pub use self::client::ClientSpec;
use self::client::{ClientState, Offer, Verdict};
use crate::keys::{PrivateKey, PublicKey};
use crate::metrics::DropReason;
use crate::proto::budget::Budgets;
use crate::proto::cookie::{CookieJar, ServerName};
use crate::proto::index::Tag;
use crate::proto::output::{Event, Output, Outputs, PeerId, SessionInfo};
use crate::proto::peer::Ponged;
use crate::proto::pull::{chunk, hash_of, revision_of};
use crate::types::{Path, Sorted, Suite};
use crate::wire::control::{Control, Enrolment};
use crate::wire::datagram::{Header, MAC_LEN, Type};

/// How long a client has to come back for the session that it was granted.
const VERDICT_LIFE: Duration = Duration::from_secs(10);

/// Who the server is.
pub struct ServerParams {
    /// Its key.
    pub identity: PrivateKey,
    /// The suites that it accepts.
    pub suites: Vec<Suite>,
    /// A random number for this run of the program.
    pub instance: u64,
}

/// The server's state machine. Give it what comes in, ask it for outputs, and call it when its time has come.
pub struct Server {
    params: ServerParams,
    name: ServerName,
    /// What the indices of its sessions have.
    tag: Tag,
    rng: StdRng,
    jar: CookieJar,
    budgets: Budgets,
    clients: Sorted<PeerId, ClientState>,
    by_key: Arc<HashMap<[u8; 32], PeerId>>,
    by_index: HashMap<u32, PeerId>,
    /// INITs that were answered lately, by their MACs: whose next session each has made, where it still is that.
    by_init: HashMap<[u8; MAC_LEN], PeerId>,
    timers: Sorted<(Instant, PeerId), ()>,
    stranger: Option<[u8; 32]>,
    /// A session begins after a verdict only.
    asks_first: bool,
    out: Outputs,
}

impl Server {
    /// A server without clients. `None` only if the AEAD refuses its key.
    pub fn new(now: Instant, params: ServerParams, mut rng: StdRng) -> Option<Self> {
        let name = ServerName::new(&params.identity.public())?;
        let (jar, budgets) = (CookieJar::new(now, &mut rng), Budgets::new(now, &mut rng));
        let tag = Tag::new(&mut rng);
        let (clients, timers) = (Sorted::default(), Sorted::default());
        let (by_key, by_index, by_init) = (Arc::default(), HashMap::new(), HashMap::new());
        let (stranger, asks_first, out) = (None, false, Outputs::default());
        Some(Self {
            params,
            name,
            tag,
            rng,
            jar,
            budgets,
            clients,
            by_key,
            by_index,
            by_init,
            timers,
            stranger,
            asks_first,
            out,
        })
    }

    /// What the index of each of its sessions has, so that DATA with another is none of theirs.
    pub fn index_tag(&self) -> Tag {
        self.tag
    }

    /// From now on [`Event::Verify`] asks about a client before it gets a session, or one at another address.
    pub fn ask_first(&mut self, on: bool) {
        self.asks_first = on;
    }

    /// The answer to [`Event::Verify`]. A client that is let in has asked again by itself soon after.
    pub fn handle_verdict(&mut self, now: Instant, id: PeerId, from: IpAddr, good: bool) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.verdict = if good { Verdict::Good(from, now + VERDICT_LIFE) } else { Verdict::None };
        }
    }

    /// Lets a client in, under a number of the caller's that no other client has.
    pub fn add_client(&mut self, now: Instant, id: PeerId, spec: ClientSpec) {
        Arc::make_mut(&mut self.by_key).extend(spec.keys.iter().map(|key| (*key.as_bytes(), id)));
        self.clients.insert(id, ClientState::new(now, id, spec));
    }

    /// Shuts a client out, at once.
    pub fn remove_client(&mut self, now: Instant, id: PeerId) {
        let Some(mut client) = self.clients.remove(&id) else { return };
        client.peer.send(now, &Control::Bye, &mut self.out);
        client.peer.clear(&mut self.out);
        Arc::make_mut(&mut self.by_key).retain(|_, owner| *owner != id);
        self.by_index.retain(|_, owner| *owner != id);
        self.timers.retain(|(_, owner), ()| *owner != id);
    }

    /// The keys that a client may use from now on. A session that was made with another ends, at once; so does every
    /// session where the pre-shared key is not the `same_psk`.
    pub fn set_spec(&mut self, now: Instant, id: PeerId, spec: ClientSpec, same_psk: bool) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let kept = |key: &[u8; 32]| same_psk && spec.keys.iter().any(|k| k.as_bytes() == key);
        if client.peer.current.as_ref().is_some_and(|slot| !kept(&slot.key)) {
            client.peer.send(now, &Control::Bye, &mut self.out);
        }
        if client.peer.keep_keys(kept, &mut self.out) {
            self.out.event(id, Event::Lost);
        }
        Arc::make_mut(&mut self.by_key).retain(|_, owner| *owner != id);
        Arc::make_mut(&mut self.by_key).extend(spec.keys.iter().map(|key| (*key.as_bytes(), id)));
        client.spec = spec;
        self.reschedule(id);
    }

    /// The suites that are accepted from now on. Sessions that there are go on.
    pub fn set_suites(&mut self, suites: Vec<Suite>) {
        self.params.suites = suites;
    }

    /// Tells whoever has an invite what became of its wish.
    pub fn answer_enrolment(&mut self, now: Instant, id: PeerId, state: Enrolment) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.peer.send(now, &Control::Enrolled { state }, &mut self.out);
        }
    }

    /// What a client is to be and run. It is told, and pulls it.
    pub fn set_push(&mut self, now: Instant, id: PeerId, blob: Arc<[u8]>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let hash = hash_of(&blob);
        client.offer = Some(Offer { revision: revision_of(&hash), hash, blob });
        let offer = client.offer();
        client.peer.send(now, &offer, &mut self.out);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.out.pop()?;
        if let Output::Retire { index } = &output {
            self.by_index.remove(index);
        }
        Some(output)
    }

    /// A handshake datagram.
    pub fn handle_datagram(&mut self, now: Instant, from: Path, bytes: &[u8]) -> Result<(), DropReason> {
        self.jar.turn(now, &mut self.rng);
        let header = Header::decode(bytes)?;
        if !self.params.suites.contains(&header.suite) {
            return Err(DropReason::BadSuite);
        }
        match header.kind {
            Type::Hello => self.handle_hello(from, bytes),
            Type::Init => self.handle_init(now, from, bytes),
            Type::Cookie | Type::Resp | Type::Data => Err(DropReason::Unexpected),
        }
    }

    /// The first datagram has opened on a session: the client uses it, and so do we.
    pub fn handle_first_use(&mut self, now: Instant, index: u32) {
        let Some((id, client)) = client_of(&self.by_index, &mut self.clients, index) else { return };
        if let Some((mut slot, shaken)) = client.peer.next.take_if(|(slot, _)| slot.index() == index) {
            slot.used = true;
            slot.init_mac = Some(shaken.init_mac);
            let first = client.peer.is_new(slot.instance) || client.silent;
            let event = Event::Established { suite: slot.suite, path: shaken.path, first };
            if client.flaps.arrives(now, slot.instance) {
                self.out.event(id, Event::Flapping);
            }
            client.silent = false;
            client.peer.activity.forgive();
            client.peer.promote(now, slot, shaken.path, &mut self.out);
            self.out.event(id, event);
        }
        self.reschedule(id);
    }

    /// An opened control record.
    pub fn handle_control(
        &mut self,
        now: Instant,
        index: u32,
        from: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        self.handle_first_use(now, index);
        let Some((id, client)) = client_of(&self.by_index, &mut self.clients, index) else {
            return Err(DropReason::UnknownIndex);
        };
        let (out, message) = (&mut self.out, Control::decode(body)?);
        if client.spec.invite && matches!(message, Control::Status { .. } | Control::Report(_)) {
            return Err(DropReason::Unexpected);
        }
        match message {
            Control::Ping { token, tally } => {
                let revision = client.offer.as_ref().map_or(0, |o| o.revision);
                client.peer.handle_tally(index, tally);
                client.peer.handle_ping(now, token, revision, tally.is_some(), from, out);
            }
            Control::Pong { token, tally, .. } => {
                client.peer.handle_tally(index, tally);
                if let Ponged::Proven(path) = client.peer.handle_pong(now, token, from, out) {
                    client.peer.moved(now, path, out);
                    out.event(id, Event::Moved(path));
                }
            }
            Control::Get { revision: 0, .. } => {
                let offer = client.offer();
                client.peer.send(now, &offer, out);
            }
            Control::Get { revision, offset } => {
                let offer = client.offer.as_ref().filter(|o| o.revision == revision);
                let blob = offer.map(|o| Arc::clone(&o.blob)).ok_or(DropReason::BadControl)?;
                let piece = chunk(&blob, revision, offset).ok_or(DropReason::BadControl)?;
                client.peer.send(now, &piece, out);
            }
            Control::Status { revision, state, code } => {
                client.may_talk(now)?;
                client.peer.send(now, &Control::Status { revision, state, code }, out);
                out.event(id, Event::Status { revision, state, code });
            }
            Control::Report(report) => {
                client.may_talk(now)?;
                out.event(id, Event::Report(report));
            }
            Control::Bye => {
                client.peer.clear(out);
                out.event(id, Event::Bye);
                out.event(id, Event::Lost);
            }
            Control::Probe { token, nic } => out.event(id, Event::Probe { token, nic }),
            Control::Probed(probed) => out.event(id, Event::Probed(probed)),
            Control::Enrol { key, proof } if client.spec.invite => {
                let key = client.proven(now, &self.params.identity, &key, &proof)?;
                out.event(id, Event::Enrol(key));
            }
            Control::Offer { .. }
            | Control::Chunk { .. }
            | Control::Enrol { .. }
            | Control::Enrolled { .. } => return Err(DropReason::Unexpected),
        }
        self.reschedule(id);
        Ok(())
    }

    /// A client's newest datagram came from another address than the one in use.
    pub fn handle_moved(&mut self, now: Instant, index: u32, from: Path) {
        let Some((id, client)) = client_of(&self.by_index, &mut self.clients, index) else { return };
        if client.peer.current.as_ref().is_some_and(|slot| slot.index() == index) {
            client.peer.challenge(now, from, &mut self.rng, &mut self.out);
            self.reschedule(id);
        }
    }

    /// The kernel refused a datagram as too long for the path to this client.
    pub fn handle_too_big(&mut self, now: Instant, id: PeerId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.peer.handle_too_big(now, &mut self.out);
            self.reschedule(id);
        }
    }

    /// The longest datagram that the first link towards a client carries, in bytes of UDP payload.
    pub fn set_ceiling(&mut self, now: Instant, id: PeerId, ceiling: u16) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.peer.set_ceiling(now, ceiling, &mut self.out);
            self.reschedule(id);
        }
    }

    /// The data path has armed a timer of this client's.
    pub fn handle_wake(&mut self, id: PeerId) {
        self.reschedule(id);
    }

    /// The public key of the last one who was not let in because no client has it: one that it names, not one that it has
    /// proven to be its own. Once.
    pub fn take_stranger(&mut self) -> Option<PublicKey> {
        self.stranger.take().and_then(|key| key.try_into().ok())
    }

    /// A client's session in use, and whether the client is silent.
    pub fn session(&self, id: PeerId) -> Option<(SessionInfo, bool)> {
        let client = self.clients.get(&id)?;
        Some((client.peer.info()?, client.silent))
    }

    /// Sends a client a message as it is.
    pub fn tell(&mut self, now: Instant, id: PeerId, message: &Control<'_>) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.peer.send(now, message, &mut self.out);
            self.reschedule(id);
        }
    }

    /// Says good-bye to every client.
    pub fn shut_down(&mut self, now: Instant) {
        for client in self.clients.values_mut() {
            client.peer.send(now, &Control::Bye, &mut self.out);
            client.peer.clear(&mut self.out);
        }
        self.timers.clear();
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|((t, _), ())| *t)
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&((t, id), ())) = self.timers.first() {
            if t > now {
                return;
            }
            self.timers.remove(&(t, id));
            let Some(client) = self.clients.get_mut(&id) else { continue };
            client.due = None;
            if client.peer.expire(now, &mut self.out) {
                self.out.event(id, Event::Lost);
            }
            client.peer.handle_timeout(now, &mut self.rng, &mut self.out);
            if let Some(event) = client.notice_silence(now) {
                self.out.event(id, event);
            }
            // What is still due now would be due for ever: look again a little later.
            self.reschedule_after(id, now + GRAIN);
        }
    }

    fn reschedule(&mut self, id: PeerId) {
        self.schedule(id, None);
    }

    fn reschedule_after(&mut self, id: PeerId, earliest: Instant) {
        self.schedule(id, Some(earliest));
    }

    fn schedule(&mut self, id: PeerId, earliest: Option<Instant>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if let Some(old) = client.due.take() {
            self.timers.remove(&(old, id));
        }
        let Some(due) = client.poll_timeout() else { return };
        let due = earliest.map_or(due, |e| due.max(e));
        client.due = Some(due);
        self.timers.insert((due, id), ());
    }
}

/// Shortest time between two looks at one client.
const GRAIN: Duration = Duration::from_millis(1);

fn client_of<'a>(
    by_index: &HashMap<u32, PeerId>,
    clients: &'a mut Sorted<PeerId, ClientState>,
    index: u32,
) -> Option<(PeerId, &'a mut ClientState)> {
    let id = *by_index.get(&index)?;
    clients.get_mut(&id).map(|client| (id, client))
}
