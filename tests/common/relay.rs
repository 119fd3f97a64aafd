//! A bad underlay: passes datagrams between a client and the server, and loses, repeats, holds back and spoils some.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tap_rs::sys::udp::set_buffers;

use super::ns::Ns;

/// What happens to how many of a hundred datagrams, in each direction.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub lost: u32,
    pub repeated: u32,
    /// Held back behind the next few.
    pub reordered: u32,
    /// One bit flipped.
    pub spoiled: u32,
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// Sends a datagram on.
type Send = Arc<dyn Fn(&[u8]) + std::marker::Send + Sync>;

/// What has come in, in its order.
pub type Record = Vec<(Way, Vec<u8>)>;

/// More than this is not recorded.
const RECORDED: usize = 10_000;

/// How soon what is held back goes on where nothing else comes.
const POLL: Duration = Duration::from_millis(5);

/// Bytes that wait while the relay has no processor: what it loses is to be what it was told to.
const ROOM: usize = 4 << 20;

pub struct Relay {
    stop: Arc<AtomicBool>,
    faults: Arc<Mutex<Faults>>,
    passed: Arc<AtomicU64>,
    record: Arc<Mutex<Record>>,
    to_server: Send,
    to_client: Send,
    back: Arc<Mutex<Arc<UdpSocket>>>,
    server: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Listens at `front` in `ns` and passes on to `server`.
    pub fn start(ns: &Ns, front: SocketAddr, server: SocketAddr, faults: Faults) -> Self {
        let front = Arc::new(ns.inside(|| UdpSocket::bind(front).unwrap()));
        set_buffers(&*front, ROOM, ROOM).unwrap();
        front.set_read_timeout(Some(POLL)).unwrap();
        let back = Arc::new(Mutex::new(towards(ns, server)));
        let client = Arc::new(Mutex::new(None));
        let (to, known, out) = (back.clone(), client.clone(), front.clone());
        let to_client: Send = Arc::new(move |bytes| {
            if let Some(client) = *known.lock().unwrap() {
                let _ = out.send_to(bytes, client);
            }
        });
        let mut relay = Self {
            stop: Arc::default(),
            faults: Arc::new(Mutex::new(faults)),
            passed: Arc::default(),
            record: Arc::default(),
            to_server: Arc::new(move |bytes| drop(to.lock().unwrap().send(bytes))),
            to_client,
            back: back.clone(),
            server,
            threads: Vec::new(),
        };
        let (from, known): (_, Arc<Mutex<Option<SocketAddr>>>) = (front, client);
        relay.pass(
            (1, Way::ToServer),
            move |buffer| {
                let (len, addr) = from.recv_from(buffer).ok()?;
                *known.lock().unwrap() = Some(addr);
                Some(len)
            },
            relay.to_server.clone(),
        );
        let recv = move |buffer: &mut [u8]| {
            let socket = back.lock().unwrap().clone();
            socket.recv(buffer).ok()
        };
        relay.pass((2, Way::ToClient), recv, relay.to_client.clone());
        relay
    }

    /// From now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    /// Goes on from another port towards the server, as a NAT does that has forgotten; in `ns`, where it is.
    pub fn rebind(&self, ns: &Ns) {
        *self.back.lock().unwrap() = towards(ns, self.server);
    }

    /// What has come in so far, as it was.
    pub fn record(&self) -> Record {
        self.record.lock().unwrap().clone()
    }

    /// Sends a datagram that nobody has sent; to the client, once it has been heard.
    pub fn inject(&self, way: Way, bytes: &[u8]) {
        match way {
            Way::ToServer => (self.to_server)(bytes),
            Way::ToClient => (self.to_client)(bytes),
        }
    }

    /// Datagrams that came in, both directions.
    pub fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }

    fn pass(
        &mut self,
        (seed, way): (u64, Way),
        mut recv: impl FnMut(&mut [u8]) -> Option<usize> + std::marker::Send + 'static,
        send: Send,
    ) {
        let record = self.record.clone();
        let (stop, faults, passed) = (self.stop.clone(), self.faults.clone(), self.passed.clone());
        self.threads.push(std::thread::spawn(move || {
            let (mut dice, mut buffer) = (Dice(seed), vec![0; 65_536]);
            let mut held: Vec<(u32, Vec<u8>)> = Vec::new();
            while !stop.load(Relaxed) {
                let got = recv(&mut buffer);
                // Whatever is held back goes out behind enough others, or when nothing else comes.
                held.retain_mut(|(left, bytes)| {
                    *left = if got.is_some() { left.saturating_sub(1) } else { 0 };
                    if *left == 0 {
                        send(bytes);
                    }
                    *left > 0
                });
                let Some(len) = got else { continue };
                passed.fetch_add(1, Relaxed);
                {
                    let mut record = record.lock().unwrap();
                    if record.len() < RECORDED {
                        record.push((way, buffer[..len].to_vec()));
                    }
                }
                let faults = *faults.lock().unwrap();
                let bytes = &mut buffer[..len];
                if dice.hits(faults.lost) {
                    continue;
                }
                if dice.hits(faults.spoiled) {
                    let bit = dice.roll() % (8 * len as u64);
                    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                }
                if dice.hits(faults.repeated) {
                    send(bytes);
                }
                if dice.hits(faults.reordered) {
                    held.push((1 + (dice.roll() % 5) as u32, bytes.to_vec()));
                } else {
                    send(bytes);
                }
            }
        }));
    }
}

fn towards(ns: &Ns, server: SocketAddr) -> Arc<UdpSocket> {
    let socket = ns.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    set_buffers(&socket, ROOM, ROOM).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(POLL)).unwrap();
    Arc::new(socket)
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The same throws in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn hits(&mut self, percent: u32) -> bool {
        self.roll() % 100 < u64::from(percent)
    }
}
