//! A thousand clients, the program's own state machines over sockets of their own, and one real server.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tap_rs::keys::{PrivateKey, PublicKey};
use tap_rs::proto::client::{Client, ClientParams};
use tap_rs::proto::output::{Event, Output};
use tap_rs::proto::session::Opener;
use tap_rs::sys::limits::raise_descriptors;
use tap_rs::sys::poll::{Epoll, Events, Interest};
use tap_rs::types::{Path, Suite};
use tap_rs::wire::datagram::{DataHeader, Type};
use tap_rs::wire::record::Record;

use crate::common::lab::{Edit, Lab, PORT, SOON};
use crate::common::program::Program;
use crate::common::watch::Watch;
use crate::needs_root;
use crate::status::status;

const CLIENTS: usize = 1000;

/// Of the server's own time. It is 10 s on a machine that has nothing else to do; `proto::budget` holds that in virtual
/// time.
const BACK: Duration = Duration::from_secs(if cfg!(debug_assertions) { 40 } else { 20 });

struct Box {
    client: Client,
    socket: UdpSocket,
    openers: HashMap<u32, Arc<Opener>>,
    up: bool,
    silent: bool,
    /// How long it took to get a session this time.
    took: Duration,
}

struct Crowd {
    boxes: Vec<Box>,
    epoll: Epoll,
    events: Events,
    since: Instant,
}

impl Crowd {
    /// `from`: where each is.
    fn new(lab: &Lab, keys: Vec<PrivateKey>, from: impl Fn(usize) -> IpAddr + Send + Sync) -> Self {
        let (now, server) = (Instant::now(), lab.public_key("server").parse::<PublicKey>().unwrap());
        let there = Path::new(lab.sites[0].server_addr, None);
        let bind = |n| UdpSocket::bind((from(n), 0)).unwrap();
        let sockets: Vec<_> = lab.sites[0].client.inside(|| (0..keys.len()).map(bind).collect());
        let epoll = Epoll::new().unwrap();
        let make = |(n, (key, socket)): (usize, (PrivateKey, UdpSocket))| {
            socket.set_nonblocking(true).unwrap();
            epoll.add(&socket, n as u64, Interest::READ).unwrap();
            let mut params = ClientParams::new(key, server, Suite::ChaCha, n as u64 + 1);
            params.idle_ping = Duration::from_secs(1);
            let mut client = Client::new(now, params, StdRng::seed_from_u64(n as u64)).unwrap();
            client.handle_address(now, there, 1472);
            Box { client, socket, openers: HashMap::new(), up: false, silent: false, took: Duration::ZERO }
        };
        let boxes = keys.into_iter().zip(sockets).enumerate().map(make).collect();
        Self { boxes, epoll, events: Events::with_capacity(256), since: now }
    }

    /// Until it holds of all, or time is up.
    fn run(&mut self, patience: Duration, holds: impl Fn(&Box) -> bool) -> bool {
        self.since = Instant::now();
        while self.since.elapsed() < patience {
            self.epoll.wait(&mut self.events, Some(Duration::from_millis(3))).unwrap();
            let since = self.since;
            for event in self.events.iter() {
                self.boxes[usize::try_from(event.token).unwrap()].receive(since);
            }
            let now = Instant::now();
            for b in &mut self.boxes {
                if b.client.poll_timeout().is_some_and(|t| t <= now) {
                    b.client.handle_timeout(now);
                    b.drain(since);
                }
            }
            if self.boxes.iter().all(&holds) {
                return true;
            }
        }
        false
    }

    /// How long the median and the last took.
    fn times(&self) -> (Duration, Duration) {
        let mut times: Vec<_> = self.boxes.iter().map(|b| b.took).collect();
        times.sort();
        (times[times.len() / 2], times[times.len() - 1])
    }
}

impl Box {
    fn receive(&mut self, since: Instant) {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            let (now, bytes) = (Instant::now(), &mut buffer[..len]);
            if bytes[0] == Type::Data as u8 {
                self.open(now, from, bytes);
            } else {
                let _ = self.client.handle_datagram(now, bytes);
            }
            self.drain(since);
        }
    }

    fn open(&mut self, now: Instant, from: SocketAddr, bytes: &mut [u8]) {
        let Ok(index) = DataHeader::receiver_index(bytes) else { return };
        let Some(opener) = self.openers.get(&index).cloned() else { return };
        let Ok(opened) = opener.open(bytes) else { return };
        opener.activity().note_received(now, false);
        self.client.handle_first_use(index);
        let mut rest = &*opened.plaintext;
        while let Ok(Some((record, body, tail))) = Record::decode(rest) {
            if matches!(record, Record::Control) {
                let _ = self.client.handle_control(now, index, Path::new(from, None), body);
            }
            rest = tail;
        }
    }

    fn drain(&mut self, since: Instant) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Send { path, bytes } => drop(self.socket.send_to(&bytes, path.remote)),
                Output::Install { opener, .. } => drop(self.openers.insert(opener.index(), opener)),
                Output::Retire { index } => drop(self.openers.remove(&index)),
                Output::Event { event: Event::Established { .. }, .. } => {
                    (self.up, self.silent, self.took) = (true, false, since.elapsed());
                }
                Output::Event { event: Event::Silent, .. } => (self.up, self.silent) = (false, true),
                Output::Event { event: Event::Answers, .. } => (self.up, self.silent) = (true, false),
                _ => {}
            }
        }
    }
}

/// Everybody gets in when the server starts, and in again when it was killed and comes back.
fn everybody_is_back(what: &str, rounds: &[&str], from: impl Fn(usize) -> IpAddr + Send + Sync) {
    let lab = Lab::new();
    raise_descriptors().unwrap();
    let site = &lab.sites[0];
    // Every address of it is the client's own.
    site.client.ip("route add local 10.200.0.0/16 dev lo");
    lab.server.ip("route add 10.200.0.0/16 via 172.31.0.2");
    let mut rng = StdRng::seed_from_u64(1);
    let keys: Vec<_> = (0..CLIENTS).map(|_| PrivateKey::generate(&mut rng)).collect();
    let top = lab.server_toml(&Edit { nics: Some(vec![vec![]]), ..Edit::default() });
    let top = top.split("[[clients]]").next().unwrap();
    let each = |(n, key): (usize, &PrivateKey)| {
        format!("[[clients]]\nname = \"c{n}\"\npublic_key = \"{}\"\n", key.public())
    };
    let clients: String = keys.iter().enumerate().map(each).collect();
    lab.write("server.toml", format!("{top}{clients}"));
    let start = || {
        let server = lab.run_server();
        server.wait_for_log(&["server started"], SOON);
        server
    };
    let established = |server: &Program| {
        let told = status(&lab, server, |_| true);
        told["peers"].as_array().unwrap().iter().filter(|p| p["state"] == "established").count()
    };
    let mut server = start();
    let before = server.own_kb();
    let mut crowd = Crowd::new(&lab, keys, from);
    for round in rounds {
        let watch = Watch::start(&[&server]);
        assert!(crowd.run(BACK * 3, |b| b.up), "{what}, {round}: {} of {CLIENTS} are in", in_of(&crowd));
        watch.assert_within(BACK, &format!("{what}, {round}: all"), &[&server]);
        let (median, last) = crowd.times();
        let each = server.own_kb().saturating_sub(before) * 1024 / CLIENTS as u64;
        println!("{what}, {round}: half within {median:?}, all within {last:?}; {each} bytes of memory each");
        assert!(each < 32 << 10, "{each} bytes for each client");
        // A session is the server's, too, when something has come in it; what was lost is said again.
        let end = Instant::now() + SOON;
        while established(&server) < CLIENTS {
            assert!(Instant::now() < end, "{what}, {round}: {} for the server", established(&server));
            crowd.run(Duration::from_millis(500), |_| false);
        }
        if rounds.last() != Some(round) {
            server.kill9();
            assert!(crowd.run(SOON * 2, |b| b.silent), "everybody notices");
            server = start();
        }
    }
    assert_eq!(lab.sites[0].server_addr.port(), PORT);
}

fn in_of(crowd: &Crowd) -> usize {
    crowd.boxes.iter().filter(|b| b.up).count()
}

#[test]
fn a_thousand_clients_are_back_after_a_restart_behind_one_address_or_many() {
    needs_root!();
    // One after the other: two thousand at a time would measure each other.
    everybody_is_back("one address", &["at first", "after a kill"], |_| [172, 31, 0, 2].into());
    everybody_is_back("a thousand addresses", &["at first"], |n| {
        [10, 200, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap() + 1].into()
    });
}
