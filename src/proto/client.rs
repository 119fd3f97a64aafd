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

mod handshake;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use self::handshake::Handshake;
use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::metrics::DropReason;
use crate::proto::cookie::ServerName;
use crate::proto::flaps::Flaps;
use crate::proto::invite;
use crate::proto::output::{Event, Output, Outputs, PeerId, SessionInfo};
use crate::proto::peer::{Peer, Ponged};
use crate::proto::pull::Pull;
use crate::proto::slot::Slot;
use crate::proto::timers::{BUSY_PING, DEAD_AFTER, IDLE_PING};
use crate::types::{Path, Suite};
use crate::wire::control::{Control, PushState, Report};
use crate::wire::datagram::{Header, Type};

/// The one peer of a client.
pub const SERVER: PeerId = PeerId(0);

/// A STATUS or an ENROL that is not answered is sent again after this time.
const STATUS_GAP: Duration = Duration::from_secs(1);

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
