//! A server and two clients of its, on a link that takes no time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tap_rs::metrics::DropReason;
use tap_rs::proto::client::{Client, ClientParams};
use tap_rs::proto::output::{Event, Output, PeerId};
use tap_rs::proto::server::{ClientSpec, Server, ServerParams};
use tap_rs::proto::session::Opener;
use tap_rs::types::{Path, Suite};
use tap_rs::wire::control::Report;
use tap_rs::wire::datagram::{DataHeader, Header, Type};
use tap_rs::wire::record::Record;

use super::sim::{SERVER_ADDR, key};
use super::{ms, secs};

pub const SERVER_KEY: u8 = 102;
pub const HOSTILE: usize = 0;
pub const GOOD: usize = 1;

/// All of it.
pub struct World {
    pub now: Instant,
    pub rng: StdRng,
    pub server: Server,
    pub clients: [Client; 2],
    /// By the index that their owner receives on; the clients' and the server's.
    openers: HashMap<u32, (PeerId, Arc<Opener>)>,
    /// The index that the server receives on, by client.
    pub up: [u32; 2],
    /// The index that each client receives on.
    pub down: [u32; 2],
    heard: Vec<(PeerId, Event)>,
    pub told: [Vec<Event>; 2],
    /// What the first client has sent to shake hands.
    pub handshakes: Vec<Vec<u8>>,
}

pub fn addr(n: usize) -> SocketAddr {
    ([192, 0, 2, 10 + n as u8], 5000).into()
}

fn peer(n: usize) -> PeerId {
    PeerId(n as u32)
}

pub fn to_server() -> Path {
    Path::new(SERVER_ADDR.into(), None)
}

impl World {
    pub fn new() -> Self {
        let (now, mut rng) = (Instant::now(), StdRng::from_seed([3; 32]));
        let params =
            ServerParams { identity: key(SERVER_KEY), suites: Suite::ALL.to_vec(), instance: rng.random() };
        let mut server = Server::new(now, params, StdRng::from_rng(&mut rng)).unwrap();
        let clients = [0, 1].map(|n| {
            let keys = vec![key(50 + n as u8).public()];
            server.add_client(now, peer(n), ClientSpec { keys, psk: None, invite: false });
            server.set_push(now, peer(n), vec![n as u8; 3000].into());
            let params =
                ClientParams::new(key(50 + n as u8), key(SERVER_KEY).public(), Suite::Aes, rng.random());
            let mut client = Client::new(now, params, StdRng::from_rng(&mut rng)).unwrap();
            client.handle_address(now, to_server(), 1472);
            client
        });
        let (openers, told) = (HashMap::new(), [Vec::new(), Vec::new()]);
        let (up, down, heard, handshakes) = ([0; 2], [0; 2], Vec::new(), Vec::new());
        let mut world = Self { now, rng, server, clients, openers, up, down, heard, told, handshakes };
        world.run(secs(2));
        for n in [HOSTILE, GOOD] {
            let blob = vec![n as u8; 3000];
            let is_it = |e: &Event| matches!(e, Event::Push { blob: b, .. } if *b == blob);
            assert!(world.told[n].iter().any(is_it), "the honest way works");
        }
        world.heard.clear();
        world
    }

    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.clients.iter_mut().for_each(|c| c.handle_timeout(self.now));
            self.server.handle_timeout(self.now);
            self.settle();
            self.now += ms(5);
        }
    }

    /// Delivers what is to be delivered, and what comes of that.
    pub fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            while let Some(output) = self.server.poll_output() {
                busy = true;
                self.carry_down(output);
            }
            for n in [HOSTILE, GOOD] {
                while let Some(output) = self.clients[n].poll_output() {
                    busy = true;
                    self.carry_up(n, output);
                }
            }
        }
    }

    fn carry_down(&mut self, output: Output) {
        match output {
            Output::Install { peer, opener, .. } => drop(self.openers.insert(opener.index(), (peer, opener))),
            Output::Use { peer, index, .. } => self.up[peer.0 as usize] = index,
            Output::Event { peer, event } => self.heard.push((peer, event)),
            Output::Send { path, bytes } => {
                let n = usize::from(path.remote == addr(GOOD));
                match self.open(bytes) {
                    Err(handshake) => {
                        let _ = self.clients[n].handle_datagram(self.now, &handshake);
                    }
                    Ok((index, messages)) => {
                        self.clients[n].handle_first_use(index);
                        for m in messages {
                            self.clients[n].handle_control(self.now, index, to_server(), &m).unwrap();
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn carry_up(&mut self, n: usize, output: Output) {
        let path = Path::new(addr(n), None);
        match output {
            Output::Install { opener, .. } => drop(self.openers.insert(opener.index(), (peer(n), opener))),
            Output::Use { index, .. } => self.down[n] = index,
            Output::Event { event, .. } => self.told[n].push(event),
            Output::Send { bytes, .. } => match self.open(bytes) {
                Err(handshake) => {
                    if n == HOSTILE {
                        self.handshakes.push(handshake.clone());
                    }
                    let _ = self.server.handle_datagram(self.now, path, &handshake);
                }
                Ok((index, messages)) => {
                    self.server.handle_first_use(self.now, index);
                    for m in messages {
                        self.server.handle_control(self.now, index, path, &m).unwrap();
                    }
                }
            },
            _ => {}
        }
    }

    /// The control messages of a DATA datagram; a handshake's datagram as it is.
    fn open(&self, mut bytes: Vec<u8>) -> Result<(u32, Vec<Vec<u8>>), Vec<u8>> {
        if Header::decode(&bytes).unwrap().kind != Type::Data {
            return Err(bytes);
        }
        let index = DataHeader::receiver_index(&bytes).unwrap();
        let opener = Arc::clone(&self.openers[&index].1);
        let opened = opener.open(&mut bytes).unwrap();
        opener.activity().note_received(self.now, false);
        let (mut rest, mut messages) = (&*opened.plaintext, Vec::new());
        while let Some((record, body, tail)) = Record::decode(rest).unwrap() {
            assert_eq!(record, Record::Control);
            messages.push(body.to_vec());
            rest = tail;
        }
        Ok((index, messages))
    }

    /// The hostile client says this in its session.
    pub fn client_says(&mut self, message: &[u8]) -> Result<(), DropReason> {
        let path = Path::new(addr(HOSTILE), None);
        self.server.handle_control(self.now, self.up[HOSTILE], path, message)
    }

    /// The server, hostile now, says this in the first client's session.
    pub fn server_says(&mut self, message: &[u8]) -> Result<(), DropReason> {
        self.clients[HOSTILE].handle_control(self.now, self.down[HOSTILE], to_server(), message)
    }

    /// The other client's session is the same, and carries what it says at once; nothing else is heard of it.
    pub fn neighbour_is_well(&mut self, what: &str) {
        let before = (self.up, self.down);
        self.heard.clear();
        self.clients[GOOD].report(self.now, Report { load: 7, ..Report::default() });
        self.settle();
        let said: Vec<_> = self.heard.iter().filter(|(p, _)| *p == peer(GOOD)).map(|(_, e)| e).collect();
        assert!(matches!(said[..], [Event::Report(Report { load: 7, .. })]), "{what}: {said:?}");
        assert_eq!((self.up, self.down), before, "{what}");
        // It reports once in a while only, too.
        self.now += secs(1);
    }
}
