//! A client and a server in virtual time, over a link that loses, repeats, reorders and corrupts.
//!
//! Each box has what a data-plane worker has: openers by index, a lane a session, the path in use. Everything is a
//! function of the seed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tap_rs::keys::{PresharedKey, PrivateKey};
use tap_rs::metrics::DropReason;
use tap_rs::proto::client::{Client, ClientParams, SERVER};
use tap_rs::proto::output::{Event, Output, PeerId};
use tap_rs::proto::server::{ClientSpec, Server, ServerParams};
use tap_rs::proto::session::{DATA_OVERHEAD, Lane, Opener};
use tap_rs::types::{NicId, Path, Suite};
use tap_rs::wire::datagram::{DATA_HEADER_LEN, DataHeader, Header, Type};
use tap_rs::wire::record::{Offload, Record};

pub const SERVER_ADDR: ([u8; 4], u16) = ([192, 0, 2, 2], 7077);
pub const CLIENT_ADDR: ([u8; 4], u16) = ([192, 0, 2, 1], 5000);

/// What the link does to each datagram.
#[derive(Clone, Copy, Default)]
pub struct Link {
    pub loss: f64,
    pub repeat: f64,
    pub reorder: f64,
    pub corrupt: f64,
    /// Longest datagram that passes; 0: any.
    pub limit: usize,
    pub down: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// A box's data plane.
#[derive(Default)]
pub struct Plane {
    pub openers: HashMap<u32, (PeerId, Arc<Opener>)>,
    lanes: HashMap<u32, Lane>,
    pub using: HashMap<PeerId, (u32, Path, u16)>,
    seen: HashSet<u32>,
    pub frames: Vec<Vec<u8>>,
    pub drops: HashMap<DropReason, u64>,
    pub unsent: u64,
}

enum Opened {
    Nothing,
    FirstUse(u32),
    Control(u32, Vec<u8>),
    Moved(u32),
}

impl Plane {
    fn drop(&mut self, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
    }

    fn apply(&mut self, output: Output) -> Option<Output> {
        match output {
            Output::Install { peer, opener, mut lanes } => {
                let index = opener.index();
                self.lanes.insert(index, lanes.take().unwrap());
                self.openers.insert(index, (peer, opener));
            }
            Output::Use { peer, index, path, datagram } => {
                assert!(self.lanes.contains_key(&index), "uses a session that was never installed");
                self.using.insert(peer, (index, path, datagram));
            }
            Output::Path { peer, path } => self.using.get_mut(&peer).unwrap().1 = path,
            Output::Datagram { peer, size } => self.using.get_mut(&peer).unwrap().2 = size,
            Output::Retire { index } => {
                self.lanes.remove(&index);
                self.openers.remove(&index);
                self.using.retain(|_, (used, _, _)| *used != index);
            }
            other => return Some(other),
        }
        None
    }

    fn seal(&mut self, now: Instant, peer: PeerId, frame: &[u8]) -> Option<(Path, Vec<u8>)> {
        let (index, path, _) = self.using.get(&peer)?;
        let lane = self.lanes.get_mut(index)?;
        let mut d = vec![0; DATA_HEADER_LEN];
        let whole = Record::Whole { nic: NicId(0), offload: Offload::default() };
        d.extend(whole.encode(frame.len() as u16));
        d.extend(frame);
        d.resize(d.len() + DATA_OVERHEAD - DATA_HEADER_LEN, 0);
        lane.seal(&mut d).ok()?;
        lane.volume().count_sent(1, d.len() as u64);
        lane.activity().note_sent(now, true);
        Some((*path, d))
    }

    fn open(&mut self, now: Instant, from: SocketAddr, mut d: Vec<u8>) -> Result<Vec<Opened>, DropReason> {
        let index = DataHeader::receiver_index(&d)?;
        let (peer, opener) = self.openers.get(&index).ok_or(DropReason::UnknownIndex)?;
        let (peer, length) = (*peer, d.len() as u64);
        let opened = opener.open(&mut d)?;
        let (newest, mut rest) = (opened.newest, &*opened.plaintext);
        let mut events =
            vec![if self.seen.insert(index) { Opened::FirstUse(index) } else { Opened::Nothing }];
        if newest && self.using.get(&peer).is_some_and(|(_, path, _)| path.remote != from) {
            events.push(Opened::Moved(index));
        }
        let mut frames = false;
        while let Some((record, body, tail)) = Record::decode(rest)? {
            match record {
                Record::Control => events.push(Opened::Control(index, body.to_vec())),
                _ => {
                    frames = true;
                    self.frames.push(body.to_vec());
                }
            }
            rest = tail;
        }
        opener.volume().count_received(1, length);
        opener.activity().note_received(now, frames);
        Ok(events)
    }
}

/// The whole world.
pub struct Sim {
    pub start: Instant,
    pub now: Instant,
    pub rng: StdRng,
    pub link: Link,
    pub latency: Duration,
    pub client: Client,
    pub client_addr: SocketAddr,
    pub client_plane: Plane,
    pub client_events: Vec<(Duration, Event)>,
    pub server: Option<Server>,
    pub server_plane: Plane,
    pub server_events: Vec<(Duration, Event)>,
    pub spec: Spec,
    pub wakes: u64,
    /// The client's box sleeps: nothing reaches it, and its timers do not run.
    pub asleep: bool,
    /// Every datagram that was ever sent.
    pub record: Vec<Datagram>,
    flying: BTreeMap<(Instant, u64), Datagram>,
    sequence: u64,
}

/// What the two sides are configured with.
#[derive(Clone, Copy)]
pub struct Spec {
    pub seed: u8,
    pub suite: Suite,
    pub client_psk: Option<u8>,
    pub server_psk: Option<u8>,
    pub known: bool,
    pub suites: &'static [Suite],
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            seed: 1,
            suite: Suite::Aes,
            client_psk: None,
            server_psk: None,
            known: true,
            suites: &Suite::ALL,
        }
    }
}

pub fn key(seed: u8) -> PrivateKey {
    PrivateKey::generate(&mut StdRng::from_seed([seed; 32]))
}

pub fn psk(seed: u8) -> PresharedKey {
    PresharedKey::generate(&mut StdRng::from_seed([seed; 32]))
}

pub const CLIENT: PeerId = PeerId(4);
pub const CLIENT_KEY: u8 = 101;
const SERVER_KEY: u8 = 102;

fn client(now: Instant, spec: &Spec, rng: &mut StdRng) -> Client {
    let mut params = ClientParams::new(key(CLIENT_KEY), key(SERVER_KEY).public(), spec.suite, rng.random());
    params.psk = spec.client_psk.map(psk);
    let mut client = Client::new(now, params, StdRng::from_rng(rng)).unwrap();
    client.handle_address(now, Path { remote: SERVER_ADDR.into(), local: None }, 1472);
    client
}

impl Sim {
    pub fn new(spec: Spec) -> Self {
        let start = Instant::now();
        let mut rng = StdRng::from_seed([spec.seed; 32]);
        let client = client(start, &spec, &mut rng);
        let mut sim = Self {
            start,
            now: start,
            rng,
            link: Link::default(),
            latency: Duration::from_millis(10),
            client,
            client_addr: CLIENT_ADDR.into(),
            client_plane: Plane::default(),
            client_events: Vec::new(),
            server: None,
            server_plane: Plane::default(),
            server_events: Vec::new(),
            spec,
            wakes: 0,
            asleep: false,
            record: Vec::new(),
            flying: BTreeMap::new(),
            sequence: 0,
        };
        sim.start_server();
        sim
    }

    /// A client that knows nothing of any earlier one, by a port of its own.
    pub fn start_client(&mut self) {
        self.client = client(self.now, &self.spec, &mut self.rng);
        self.client_addr.set_port(self.client_addr.port() + 1);
        self.client_plane = Plane::default();
    }

    /// A server that knows nothing of any earlier one.
    pub fn start_server(&mut self) {
        let params = ServerParams {
            identity: key(SERVER_KEY),
            suites: self.spec.suites.to_vec(),
            instance: self.rng.random(),
        };
        let mut server = Server::new(self.now, params, StdRng::from_rng(&mut self.rng)).unwrap();
        let known = if self.spec.known { CLIENT_KEY } else { 99 };
        let spec =
            ClientSpec { keys: vec![key(known).public()], psk: self.spec.server_psk.map(psk), invite: false };
        server.add_client(self.now, CLIENT, spec);
        self.server = Some(server);
        self.server_plane = Plane::default();
    }

    pub fn kill_server(&mut self) {
        self.server = None;
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub fn send_up(&mut self, frame: &[u8]) {
        match self.client_plane.seal(self.now, SERVER, frame) {
            Some((path, bytes)) => self.launch(self.client_addr, path.remote, bytes),
            None => self.client_plane.unsent += 1,
        }
    }

    pub fn send_down(&mut self, frame: &[u8]) {
        match self.server_plane.seal(self.now, CLIENT, frame) {
            Some((path, bytes)) => self.launch(SERVER_ADDR.into(), path.remote, bytes),
            None => self.server_plane.unsent += 1,
        }
    }

    /// Lets a datagram loose on the link.
    pub fn launch(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.record.push(Datagram { from, to, bytes: bytes.clone() });
        let link = self.link;
        let mut copies = 1 + usize::from(self.rng.random_bool(link.repeat));
        if link.down || self.rng.random_bool(link.loss) || (link.limit > 0 && bytes.len() > link.limit) {
            copies = 0;
        }
        for _ in 0..copies {
            let mut bytes = bytes.clone();
            if self.rng.random_bool(link.corrupt) {
                let at = self.rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.rng.random_range(0..8);
            }
            let late = if self.rng.random_bool(link.reorder) {
                self.latency.mul_f64(self.rng.random())
            } else {
                Duration::ZERO
            };
            self.inject(self.latency + late, Datagram { from, to, bytes });
        }
    }

    /// Has a datagram arrive, whoever sent it.
    pub fn inject(&mut self, after: Duration, datagram: Datagram) {
        self.sequence += 1;
        self.flying.insert((self.now + after, self.sequence), datagram);
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until something is true; false if it never was.
    pub fn run_until(&mut self, end: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            self.drain();
            if done(self) {
                return true;
            }
            let link = self.flying.first_key_value().map(|((t, _), _)| *t);
            let client = self.client.poll_timeout().filter(|_| !self.asleep);
            let server = self.server.as_ref().and_then(Server::poll_timeout);
            let Some(next) = [link, client, server].into_iter().flatten().min().filter(|t| *t <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            if link == Some(next) {
                let ((_, _), datagram) = self.flying.pop_first().unwrap();
                self.arrive(datagram);
            } else if client == Some(next) {
                self.wakes += 1;
                self.client.handle_timeout(self.now);
            } else if let Some(server) = &mut self.server {
                server.handle_timeout(self.now);
            }
        }
    }

    pub fn run_until_event(&mut self, span: Duration, wanted: impl Fn(&Event) -> bool) -> bool {
        let (end, from) = (self.now + span, self.client_events.len());
        self.run_until(end, |sim| sim.client_events[from..].iter().any(|(_, e)| wanted(e)))
    }

    pub fn establish(&mut self) {
        assert!(self.run_until(self.now + Duration::from_secs(5), |sim| !sim.server_plane.using.is_empty()));
    }

    fn arrive(&mut self, d: Datagram) {
        let now = self.now;
        // As a socket says it: with the address that it came to.
        let from = Path { remote: d.from, local: Some(d.to.ip()) };
        if d.to == self.client_addr {
            if self.asleep {
                return;
            }
            if Header::decode(&d.bytes).is_ok_and(|h| h.kind != Type::Data) {
                if let Err(reason) = self.client.handle_datagram(now, &d.bytes) {
                    self.client_plane.drop(reason);
                }
                return;
            }
            match self.client_plane.open(now, d.from, d.bytes) {
                Err(reason) => self.client_plane.drop(reason),
                Ok(events) => {
                    for event in events {
                        match event {
                            Opened::Nothing | Opened::Moved(_) => {}
                            Opened::FirstUse(index) => self.client.handle_first_use(index),
                            Opened::Control(index, body) => {
                                if let Err(reason) = self.client.handle_control(now, index, from, &body) {
                                    self.client_plane.drop(reason);
                                }
                            }
                        }
                    }
                }
            }
        } else if d.to == SERVER_ADDR.into()
            && let Some(server) = &mut self.server
        {
            if Header::decode(&d.bytes).is_ok_and(|h| h.kind != Type::Data) {
                if let Err(reason) = server.handle_datagram(now, from, &d.bytes) {
                    self.server_plane.drop(reason);
                }
                return;
            }
            match self.server_plane.open(now, d.from, d.bytes) {
                Err(reason) => self.server_plane.drop(reason),
                Ok(events) => {
                    for event in events {
                        match event {
                            Opened::Nothing => {}
                            Opened::FirstUse(index) => server.handle_first_use(now, index),
                            Opened::Moved(index) => server.handle_moved(now, index, from),
                            Opened::Control(index, body) => {
                                if let Err(reason) = server.handle_control(now, index, from, &body) {
                                    self.server_plane.drop(reason);
                                }
                            }
                        }
                    }
                    server.handle_wake(CLIENT);
                }
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match self.client_plane.apply(output) {
                Some(Output::Send { path, bytes }) => self.launch(self.client_addr, path.remote, bytes),
                Some(Output::Event { event, .. }) => self.client_events.push((self.now - self.start, event)),
                _ => {}
            }
        }
        loop {
            let Some(output) = self.server.as_mut().and_then(Server::poll_output) else { return };
            match self.server_plane.apply(output) {
                Some(Output::Send { path, bytes }) => self.launch(SERVER_ADDR.into(), path.remote, bytes),
                Some(Output::Event { event, .. }) => {
                    if let Event::Established { .. } = event {
                        self.server.as_mut().unwrap().set_ceiling(self.now, CLIENT, 1472);
                    }
                    self.server_events.push((self.now - self.start, event));
                }
                _ => {}
            }
        }
    }
}
