//! The client: starts every handshake, keeps the tunnel alive, pulls what the server offers.
//!
//! ```text
//!              retry                    retry × INIT_TRIES
//!             ┌──────┐                  ┌──────┐
//!   Resting ──▶ Hello ──COOKIE──▶ Init ──┘  RESP ──▶ Resting, with a new current session
//!      ▲          ▲                 │
//!      │          └─────────────────┘
//!   a handshake starts: at once, when a session is old or worn, when nothing answers
//! ```
//!
//! While a handshake runs the old session keeps working. A handshake never ends in failure: it goes on, ever slower,
//! until the server answers. Only the clock given to it exists; all randomness comes from the generator given to it.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::metrics::DropReason;
use crate::proto::cookie::{ServerName, equal, mac};
use crate::proto::flaps::Flaps;
use crate::proto::invite;
use crate::proto::noise::{Initiator, Offerer, Seed};
use crate::proto::output::{Event, Output, Outputs, PeerId, SessionInfo};
use crate::proto::peer::{Peer, Ponged, free_index};
use crate::proto::pull::Pull;
use crate::proto::slot::Slot;
use crate::proto::timers::{BUSY_PING, DEAD_AFTER, HANDSHAKE_GAPS, IDLE_PING, INIT_TRIES, REKEY_AFTER};
use crate::types::{Path, Suite};
use crate::wire::control::{Control, PushState, Report};
use crate::wire::datagram::{
    COOKIE_LEN, Cookie, HELLO_LEN, HandshakePayload, Header, Hello, INIT_LEN, Resp, Type,
};

/// The one peer of a client.
pub const SERVER: PeerId = PeerId(0);

/// A STATUS or an ENROL that is not answered is sent again after this time.
const STATUS_GAP: Duration = Duration::from_secs(1);

/// After this many unanswered handshake datagrams in a row the server's name is resolved again, and each time anew.
const RESOLVE_EVERY: u32 = 3;

/// Who the client is, and whom it talks to.
pub struct ClientParams {
    /// Its own key.
    pub identity: PrivateKey,
    /// The server's public key.
    pub server: PublicKey,
    /// The pre-shared key, where there is one; the suite must agree.
    pub psk: Option<PresharedKey>,
    /// Which suite.
    pub suite: Suite,
    /// A random number for this run of the program.
    pub instance: u64,
    /// Time of unanswered sending after which a handshake starts.
    pub dead_after: Duration,
    /// Longest time between PINGs when idle.
    pub idle_ping: Duration,
}

impl ClientParams {
    /// The protocol's own times.
    pub fn new(identity: PrivateKey, server: PublicKey, suite: Suite, instance: u64) -> Self {
        Self { identity, server, psk: None, suite, instance, dead_after: DEAD_AFTER, idle_ping: IDLE_PING }
    }
}

enum Handshake {
    Resting,
    Hello { index: u32, hello: [u8; HELLO_LEN] },
    Init { initiator: Box<Initiator>, index: u32, cookie: [u8; COOKIE_LEN], init: [u8; INIT_LEN], tries: u32 },
}

struct Status {
    revision: u64,
    state: PushState,
    code: u8,
    next: Instant,
}

/// The wish to be known by a new key.
struct Wish {
    key: [u8; 32],
    proof: [u8; 16],
    next: Instant,
}

/// The client's state machine. Give it what comes in, ask it for outputs, and call it when its time has come.
pub struct Client {
    params: ClientParams,
    name: ServerName,
    rng: StdRng,
    peer: Peer,
    server: Option<Path>,
    handshake: Handshake,
    /// Handshake datagrams in a row that nothing answered.
    silence: u32,
    retry: Instant,
    pull: Pull,
    status: Option<Status>,
    wish: Option<Wish>,
    last_ping: Instant,
    silent: bool,
    forced: bool,
    /// Which run of the server's program it has a session with.
    flaps: Flaps,
    out: Outputs,
}

impl Client {
    /// A client that starts its first handshake as soon as it knows an address. `None` only if the AEAD refuses its key.
    pub fn new(now: Instant, params: ClientParams, rng: StdRng) -> Option<Self> {
        let name = ServerName::new(&params.server)?;
        Some(Self {
            params,
            name,
            rng,
            peer: Peer::new(SERVER, now),
            server: None,
            handshake: Handshake::Resting,
            silence: 0,
            retry: now,
            pull: Pull::new(now),
            status: None,
            wish: None,
            last_ping: now,
            silent: false,
            forced: false,
            flaps: Flaps::default(),
            out: Outputs::default(),
        })
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// The server's address, and the longest datagram that the first link towards it carries, in bytes of UDP payload.
    pub fn handle_address(&mut self, now: Instant, server: Path, ceiling: u16) {
        self.peer.set_ceiling(now, ceiling, &mut self.out);
        if self.server == Some(server) {
            return;
        }
        self.server = Some(server);
        self.retry = now;
        if self.peer.current.is_some() {
            self.peer.moved(now, server, &mut self.out);
            self.peer.ping(now, &mut self.rng, &mut self.out);
        }
    }

    /// This box's own address or route changed: shows the server where we are now.
    pub fn handle_network_change(&mut self, now: Instant) {
        if self.peer.current.is_some() {
            self.peer.ping(now, &mut self.rng, &mut self.out);
            self.last_ping = now;
        }
        if !matches!(self.handshake, Handshake::Resting) {
            self.silence = 0;
            self.retry = now;
        }
    }

    /// A handshake datagram.
    pub fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DropReason> {
        match Header::decode(bytes)?.kind {
            Type::Cookie => self.handle_cookie(now, bytes),
            Type::Resp => self.handle_resp(now, bytes),
            Type::Hello | Type::Init | Type::Data => Err(DropReason::Unexpected),
        }
    }

    /// The first datagram has opened on a session: the server uses it.
    pub fn handle_first_use(&mut self, index: u32) {
        if let Some(slot) = self.peer.slot(index) {
            slot.used = true;
        }
    }

    /// An opened control record.
    pub fn handle_control(
        &mut self,
        now: Instant,
        index: u32,
        from: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let Some(slot) = self.peer.slot(index) else { return Err(DropReason::UnknownIndex) };
        slot.used = true;
        match Control::decode(body)? {
            Control::Ping { token, tally } => {
                self.peer.handle_tally(index, tally);
                self.peer.handle_ping(now, token, 0, tally.is_some(), from, &mut self.out);
            }
            Control::Pong { token, revision, tally } => {
                self.peer.handle_tally(index, tally);
                self.pull.handle_revision(now, revision);
                // A client challenges nobody: it knows the server by its address.
                let (Ponged::Nothing | Ponged::Proven(_)) =
                    self.peer.handle_pong(now, token, from, &mut self.out);
            }
            Control::Offer { revision, length, hash } => {
                self.pull.handle_offer(now, revision, length, &hash)?;
            }
            Control::Chunk { revision, offset, bytes } => {
                if let Some((revision, blob)) = self.pull.handle_chunk(now, revision, offset, bytes)? {
                    self.out.event(SERVER, Event::Push { revision, blob });
                }
            }
            Control::Status { revision, state, code } => {
                self.status.take_if(|s| (s.revision, s.state, s.code) == (revision, state, code));
            }
            Control::Bye => self.handle_bye(now),
            Control::Probe { token, nic } => self.out.event(SERVER, Event::Probe { token, nic }),
            Control::Probed(probed) => self.out.event(SERVER, Event::Probed(probed)),
            Control::Enrolled { state } => {
                if self.wish.take().is_some() {
                    self.out.event(SERVER, Event::Enrolled(state));
                }
            }
            Control::Get { .. } | Control::Report(_) | Control::Enrol { .. } => {
                return Err(DropReason::Unexpected);
            }
        }
        Ok(())
    }

    /// The kernel refused a datagram as too long for the path.
    pub fn handle_too_big(&mut self, now: Instant) {
        self.peer.handle_too_big(now, &mut self.out);
    }

    /// Replaces the session now, whatever its age.
    pub fn rekey(&mut self) {
        self.forced = true;
    }

    /// Tells the server what became of a push, until it has heard it.
    pub fn report_status(&mut self, now: Instant, revision: u64, state: PushState, code: u8) {
        self.status = Some(Status { revision, state, code, next: now });
    }

    /// With the key of an invite: wants to be known by this new key, until the server has answered.
    pub fn enrol(&mut self, now: Instant, new: &PrivateKey) {
        let (invite, key) = (self.params.identity.public(), *new.public().as_bytes());
        let proof = invite::proof(new.as_bytes(), self.params.server.as_bytes(), &invite, &key);
        self.wish = proof.map(|proof| Wish { key, proof, next: now });
    }

    /// Other times than those it was made with.
    pub fn set_times(&mut self, dead_after: Duration, idle_ping: Duration) {
        (self.params.dead_after, self.params.idle_ping) = (dead_after, idle_ping);
    }

    /// Tells the server how this box is doing.
    pub fn report(&mut self, now: Instant, report: Report) {
        self.peer.send(now, &Control::Report(report), &mut self.out);
    }

    /// Sends a message as it is.
    pub fn tell(&mut self, now: Instant, message: &Control<'_>) {
        self.peer.send(now, message, &mut self.out);
    }

    /// Says good-bye. Nothing is started any more.
    pub fn shut_down(&mut self, now: Instant) {
        self.peer.send(now, &Control::Bye, &mut self.out);
        self.peer.clear(&mut self.out);
        self.handshake = Handshake::Resting;
        self.server = None;
    }

    /// The smoothed round-trip time to the server.
    pub fn rtt(&self) -> Option<Duration> {
        self.peer.rtt
    }

    /// The session in use, if there is one.
    pub fn session(&self) -> Option<SessionInfo> {
        self.peer.info()
    }

    /// The server does not answer at present.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// True while there is a session.
    pub fn is_established(&self) -> bool {
        self.peer.current.is_some()
    }

    /// When [`Self::handle_timeout`] is to be called; the data path is asked to say so if it changes that.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.server?;
        let handshake = match self.handshake {
            Handshake::Resting => self.handshake_due(),
            Handshake::Hello { .. } | Handshake::Init { .. } => Some(self.retry),
        };
        let established = || {
            let pull = self.pull.poll_timeout(self.peer.rtt);
            let status = self.status.as_ref().map(|s| s.next);
            let wish = self.wish.as_ref().map(|w| w.next);
            [Some(self.ping_due()), pull, status, wish].into_iter().flatten().min()
        };
        let established = self.peer.current.as_ref().and_then(|_| established());
        [handshake, self.peer.poll_timeout(), self.peer.watch(), established].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.peer.expire(now, &mut self.out) {
            self.out.event(SERVER, Event::Lost);
        }
        self.notice_answers();
        if self.server.is_some() && self.due(now) {
            self.advance_handshake(now);
        }
        if self.peer.current.is_none() {
            return;
        }
        self.peer.handle_timeout(now, &mut self.rng, &mut self.out);
        if now >= self.ping_due() {
            self.last_ping = now;
            self.peer.ping(now, &mut self.rng, &mut self.out);
        }
        for get in self.pull.handle_timeout(now, self.peer.rtt) {
            self.peer.send(now, &get, &mut self.out);
        }
        if let Some(s) = self.status.as_mut().filter(|s| now >= s.next) {
            s.next = now + STATUS_GAP;
            let message = Control::Status { revision: s.revision, state: s.state, code: s.code };
            self.peer.send(now, &message, &mut self.out);
        }
        if let Some(wish) = self.wish.as_mut().filter(|w| now >= w.next) {
            wish.next = now + STATUS_GAP;
            let message = Control::Enrol { key: wish.key, proof: wish.proof };
            self.peer.send(now, &message, &mut self.out);
        }
    }

    fn due(&self, now: Instant) -> bool {
        match self.handshake {
            Handshake::Resting => self.handshake_due().is_some_and(|t| now >= t),
            Handshake::Hello { .. } | Handshake::Init { .. } => now >= self.retry,
        }
    }

    /// When the next handshake is to start. `None`: never; the session's age always gives a time.
    fn handshake_due(&self) -> Option<Instant> {
        let Some(current) = &self.peer.current else { return Some(self.retry) };
        let dead = self.peer.activity.unanswered().map(|t| t + self.params.dead_after);
        // A session that the server has not used yet cannot be replaced: its own old one would be forgotten here.
        let old = current.used.then(|| match self.forced || self.peer.worn() {
            true => current.since,
            false => current.since + REKEY_AFTER,
        });
        [dead, old].into_iter().flatten().min()
    }

    /// Idle PINGs come the more seldom the longer nothing has passed.
    fn ping_due(&self) -> Instant {
        let quiet = self
            .peer
            .activity
            .framed()
            .map_or(self.params.idle_ping, |framed| self.last_ping.saturating_duration_since(framed) / 2);
        let gap = quiet.clamp(BUSY_PING.min(self.params.idle_ping), self.params.idle_ping);
        self.last_ping + gap
    }

    fn notice_answers(&mut self) {
        if self.silent && self.peer.current.is_some() && self.peer.activity.unanswered().is_none() {
            self.silent = false;
            self.out.event(SERVER, Event::Answers);
        }
    }

    fn advance_handshake(&mut self, now: Instant) {
        if matches!(self.handshake, Handshake::Resting) {
            self.silence = 0;
            let unanswered = self.peer.activity.unanswered();
            if unanswered.is_some_and(|t| now >= t + self.params.dead_after) && !self.silent {
                self.silent = true;
                self.out.event(SERVER, Event::Silent);
            }
        } else {
            self.silence = self.silence.saturating_add(1);
            if self.silence.is_multiple_of(RESOLVE_EVERY) {
                let greeted = matches!(self.handshake, Handshake::Init { .. });
                self.out.event(SERVER, Event::Resolve { greeted });
            }
        }
        let Some(path) = self.server else { return };
        self.retry = now + self.gap();
        if let Handshake::Init { init, tries, .. } = &mut self.handshake
            && *tries < INIT_TRIES
        {
            *tries = tries.saturating_add(1);
            self.out.push(Output::Send { path, bytes: init.to_vec() });
            return;
        }
        let sender_index = free_index(&mut self.rng, |index| self.peer.has(index));
        let hello = Hello { suite: self.params.suite, sender_index, nonce: self.rng.random() };
        let bytes = hello.encode(|signed| self.name.hello_mac(signed));
        self.handshake = Handshake::Hello { index: hello.sender_index, hello: bytes };
        self.out.push(Output::Send { path, bytes: bytes.to_vec() });
    }

    fn gap(&mut self) -> Duration {
        let step = HANDSHAKE_GAPS.get(self.silence as usize).or(HANDSHAKE_GAPS.last());
        step.copied().unwrap_or(DEAD_AFTER).mul_f64(self.rng.random_range(0.75..=1.0))
    }

    fn handle_cookie(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DropReason> {
        let cookie = Cookie::decode(bytes.try_into().map_err(|_| DropReason::BadLength)?)?;
        let Handshake::Hello { index, hello } = &self.handshake else { return Err(DropReason::Unexpected) };
        if cookie.receiver_index != *index {
            return Err(DropReason::UnknownIndex);
        }
        if cookie.suite != self.params.suite {
            return Err(DropReason::BadSuite);
        }
        let index = *index;
        let cookie = self.name.open(hello, cookie.nonce, cookie.sealed).ok_or(DropReason::BadCookie)?;
        self.send_init(now, index, cookie)
    }

    fn send_init(&mut self, now: Instant, index: u32, cookie: [u8; COOKIE_LEN]) -> Result<(), DropReason> {
        let Some(path) = self.server else { return Err(DropReason::Unexpected) };
        let offer = Offerer {
            identity: &self.params.identity,
            server: &self.params.server,
            psk: self.params.psk.as_ref(),
            suite: self.params.suite,
            local_index: index,
            cookie: &cookie,
        };
        let payload = HandshakePayload { instance: self.params.instance, bound: 0 }.encode();
        let seed = Seed::new(self.rng.random());
        let (initiator, init) = Initiator::start(&offer, &payload, &seed).ok_or(DropReason::BadHandshake)?;
        let init = init.encode(|signed| mac(&cookie, signed));
        self.handshake = Handshake::Init { initiator: Box::new(initiator), index, cookie, init, tries: 1 };
        // The server is there: whatever is lost now is worth asking for again soon.
        self.silence = 0;
        self.retry = now + self.gap();
        self.out.push(Output::Send { path, bytes: init.to_vec() });
        Ok(())
    }

    fn handle_resp(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DropReason> {
        let (resp, signed, sent_mac) = Resp::decode(bytes.try_into().map_err(|_| DropReason::BadLength)?)?;
        let Handshake::Init { initiator, index, cookie, .. } = &mut self.handshake else {
            return Err(DropReason::Unexpected);
        };
        if resp.receiver_index != *index {
            return Err(DropReason::UnknownIndex);
        }
        if resp.suite != self.params.suite {
            return Err(DropReason::BadSuite);
        }
        if !equal(&mac(cookie, signed), sent_mac) {
            return Err(DropReason::BadMac);
        }
        let (keys, payload) = initiator.finish(&resp.noise, resp.sender_index)?;
        let HandshakePayload { instance, bound } = HandshakePayload::decode(&payload);
        if bound as u32 != resp.sender_index {
            // The keys are right, the index is not: the header was changed on the way. The session would lead nowhere.
            self.handshake = Handshake::Resting;
            self.retry = now + BUSY_PING;
            return Err(DropReason::BadHandshake);
        }
        let Some(path) = self.server else { return Err(DropReason::Unexpected) };
        let slot = self.peer.install(now, &keys, instance, &mut self.out).ok_or(DropReason::BadHandshake)?;
        self.establish(now, slot, path);
        Ok(())
    }

    fn establish(&mut self, now: Instant, slot: Slot, path: Path) {
        let first = self.peer.is_new(slot.instance) || self.silent;
        let (suite, instance) = (slot.suite, slot.instance);
        self.handshake = Handshake::Resting;
        (self.silence, self.silent, self.forced) = (0, false, false);
        self.peer.activity.forgive();
        self.peer.promote(now, slot, path, &mut self.out);
        self.out.event(SERVER, Event::Established { suite, path, first });
        if self.flaps.arrives(now, instance) {
            self.out.event(SERVER, Event::Flapping);
        }
        // The server promotes the session when it is used: now.
        self.last_ping = now;
        self.peer.ping(now, &mut self.rng, &mut self.out);
        self.pull.restart(now);
    }

    fn handle_bye(&mut self, now: Instant) {
        self.peer.clear(&mut self.out);
        self.out.event(SERVER, Event::Bye);
        self.out.event(SERVER, Event::Lost);
        self.handshake = Handshake::Resting;
        self.retry = now + BUSY_PING;
    }
}
