//! A bad underlay: passes datagrams between a client and the server, and loses, repeats, holds back and spoils some.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

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

pub struct Relay {
    stop: Arc<AtomicBool>,
    faults: Arc<Mutex<Faults>>,
    passed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Listens at `front` in `ns` and passes on to `server`.
    pub fn start(ns: &Ns, front: SocketAddr, server: SocketAddr, faults: Faults) -> Self {
        let front = Arc::new(ns.inside(|| UdpSocket::bind(front).unwrap()));
        let back = Arc::new(ns.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap()));
        back.connect(server).unwrap();
        for socket in [&front, &back] {
            socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        }
        let client = Arc::new(Mutex::new(None));
        let mut relay = Self {
            stop: Arc::default(),
            faults: Arc::new(Mutex::new(faults)),
            passed: Arc::default(),
            threads: Vec::new(),
        };
        let (from, to, known) = (front.clone(), back.clone(), client.clone());
        relay.pass(
            1,
            move |buffer| {
                let (len, addr) = from.recv_from(buffer).ok()?;
                *known.lock().unwrap() = Some(addr);
                Some(len)
            },
            move |bytes| drop(to.send(bytes)),
        );
        relay.pass(
            2,
            move |buffer| back.recv(buffer).ok(),
            move |bytes| {
                if let Some(client) = *client.lock().unwrap() {
                    let _ = front.send_to(bytes, client);
                }
            },
        );
        relay
    }

    /// From now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    /// Datagrams that came in, both directions.
    pub fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }

    fn pass(
        &mut self,
        seed: u64,
        mut recv: impl FnMut(&mut [u8]) -> Option<usize> + Send + 'static,
        send: impl Fn(&[u8]) + Send + 'static,
    ) {
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
