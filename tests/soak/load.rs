//! TCP and UDP both ways at a bounded rate, for as long as faults fall.
//!
//! A datagram carries its number, its length and a slice of the noise; a connection is a slice of the noise. What does
//! not arrive is the fault's; what arrives is as it was sent, and no datagram arrives twice. A connection may end
//! early only while, or soon after, something was broken.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tap_rs::sys::udp::set_buffers;

use crate::common::ns::Ns;
use crate::common::traces::until;
use crate::common::traffic::uninterrupted;
use crate::noise::{Dice, NOISE, compare, noise};

/// A connection on which nothing moves for longer is given up.
const STALLED: Duration = Duration::from_secs(3);
/// How long after a fault connections may still end by it: until they have stalled, and their sender has waited.
pub const AFTERMATH: Duration = Duration::from_secs(10);
/// Between two portions of a flow.
const PORTION: Duration = Duration::from_millis(5);
/// How many datagrams back is looked whether one has come already.
const REMEMBERED: u64 = 1 << 16;

/// What all flows share.
pub struct Load {
    stop: AtomicBool,
    /// When the last fault was over; none while one is on.
    calm_since: Mutex<Option<Instant>>,
    datagrams: AtomicU64,
    lost: AtomicU64,
    bytes: AtomicU64,
    connections: AtomicU64,
    cut: AtomicU64,
}

impl Load {
    pub fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            calm_since: Mutex::new(Some(Instant::now())),
            datagrams: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        }
    }

    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Something is broken from now on.
    pub fn broken(&self) {
        *self.calm_since.lock().unwrap() = None;
    }

    /// Nothing is from now on.
    pub fn whole(&self) {
        *self.calm_since.lock().unwrap() = Some(Instant::now());
    }

    /// Waits, with nothing broken, until a connection has come to its own end, or a flow has failed.
    pub fn await_connection(&self) {
        until("a connection ends well", Duration::from_secs(60), || {
            self.connections.load(Relaxed) > 0 || self.stopped()
        });
    }

    /// What has come of it. Panics where nothing has.
    pub fn print(&self) {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let (connections, cut) = (of(&self.connections), of(&self.cut));
        let (datagrams, lost) = (of(&self.datagrams), of(&self.lost));
        println!(
            "soak: {:.2} GB, every byte compared: {datagrams} datagrams, {lost} more lost; {connections} connections, \
             {cut} more cut short by faults",
            of(&self.bytes) as f64 * 1e-9
        );
        assert!(connections > 0 && datagrams > lost, "hardly anything crossed");
    }

    fn is_excused(&self) -> bool {
        self.calm_since.lock().unwrap().is_none_or(|since| since.elapsed() < AFTERMATH)
    }

    /// Datagrams at so many bytes a second, until stopped.
    pub fn udp(&self, from: &Ns, to: &Ns, ip: IpAddr, rate: f64, mut dice: Dice) {
        let any: SocketAddr = if ip.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let there = to.inside(|| UdpSocket::bind(any).unwrap());
        let here = from.inside(|| UdpSocket::bind(any).unwrap());
        let target = SocketAddr::new(ip, there.local_addr().unwrap().port());
        there.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // What waits for a reader that has no processor is not lost by that.
        set_buffers(&there, 32 << 20, 1 << 20).unwrap();
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(&there));
            let (mut pace, mut sent) = (Pace::new(rate), 0u64);
            while !self.stopped() && !receiver.is_finished() {
                let mut due = pace.wait();
                while due > 0 {
                    // One in twenty has up to six fragments.
                    let body = if dice.below(20) == 0 { dice.below(8_000) } else { dice.below(1_448) };
                    let datagram = datagram(sent, dice.below(NOISE.len() - 8_000), body);
                    sent += u64::from(here.send_to(&datagram, target).is_ok());
                    due = due.saturating_sub(datagram.len());
                }
            }
            let arrived = receiver.join().unwrap();
            self.datagrams.fetch_add(arrived, Relaxed);
            self.lost.fetch_add(sent.saturating_sub(arrived), Relaxed);
        });
    }

    /// How many came.
    fn receive(&self, socket: &UdpSocket) -> u64 {
        let (mut arrived, mut highest, mut room) = (0, 0, vec![0; 65_536]);
        let mut seen = vec![u64::MAX; REMEMBERED as usize];
        let mut silent = false;
        while !(self.stopped() && silent) {
            let got = uninterrupted(|| socket.recv(&mut room));
            silent = got.is_err();
            let Ok(len) = got else { continue };
            let number = read(&room[..len]);
            arrived += 1;
            highest = highest.max(number);
            if number + REMEMBERED > highest {
                let place = &mut seen[(number % REMEMBERED) as usize];
                assert!(*place != number, "datagram {number} has arrived twice");
                *place = number;
            }
            self.bytes.fetch_add(len as u64, Relaxed);
        }
        arrived
    }

    /// One connection after the other at so many bytes a second, until stopped.
    pub fn tcp(&self, from: &Ns, to: &Ns, ips: [IpAddr; 2], rate: f64, mut dice: Dice) {
        while !self.stopped() {
            let (ip, seconds) = (ips[dice.below(2)], 1 + dice.below(10));
            let began = Instant::now();
            match self.connection(from, to, ip, (rate, seconds), &mut dice) {
                Ok(()) => self.connections.fetch_add(1, Relaxed),
                Err(why) => {
                    assert!(self.is_excused(), "a connection of {:?} ended early: {why}", began.elapsed());
                    self.cut.fetch_add(1, Relaxed)
                }
            };
        }
    }

    fn connection(
        &self,
        from: &Ns,
        to: &Ns,
        ip: IpAddr,
        (rate, seconds): (f64, usize),
        dice: &mut Dice,
    ) -> std::io::Result<()> {
        let any: SocketAddr = ([0u16; 8], 0).into();
        let listener = to.inside(|| TcpListener::bind(any).unwrap());
        let there = SocketAddr::new(ip, listener.local_addr().unwrap().port());
        let mut here = match from.inside(|| TcpStream::connect_timeout(&there, STALLED)) {
            Ok(stream) => stream,
            Err(e) => {
                // The way may be missing altogether, which is told at once.
                std::thread::sleep(Duration::from_millis(50));
                return Err(e);
            }
        };
        here.set_write_timeout(Some(STALLED))?;
        here.set_nodelay(dice.below(2) == 0)?;
        let mut accepted = accept(&listener)?;
        accepted.set_read_timeout(Some(STALLED))?;
        let offset = dice.below(NOISE.len());
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || -> std::io::Result<usize> {
                let (mut pace, mut sent, end) = (Pace::new(rate), 0, seconds * rate as usize);
                while sent < end && !self.stopped() {
                    let due = pace.wait();
                    let part = noise(offset + sent);
                    let len = part.len().min(due.min(128 << 10));
                    here.write_all(&part[..len])?;
                    sent += len;
                }
                here.shutdown(std::net::Shutdown::Write)?;
                Ok(sent)
            });
            let got = self.compare(&mut accepted, offset);
            drop(accepted);
            let sent = sender.join().unwrap()?;
            let got = got?;
            assert_eq!(got, sent, "a connection ended well, and early");
            Ok(())
        })
    }

    /// Reads to the end; how many bytes there were.
    fn compare(&self, stream: &mut TcpStream, offset: usize) -> std::io::Result<usize> {
        let (mut got, mut room) = (0, vec![0; 128 << 10]);
        loop {
            let len = uninterrupted(|| stream.read(&mut room))?;
            if len == 0 {
                return Ok(got);
            }
            compare(offset + got, &room[..len]);
            got += len;
            self.bytes.fetch_add(len as u64, Relaxed);
        }
    }
}

/// Stops the load when it goes, also in a panic, so that nobody waits for ever.
pub struct StopAtEnd<'a>(pub &'a Load);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + STALLED;
    loop {
        match listener.accept() {
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(PORTION);
            }
            Err(e) => return Err(e),
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
        }
    }
}

fn datagram(number: u64, offset: usize, body: usize) -> Vec<u8> {
    let words = [number, offset as u64, body as u64].map(u64::to_le_bytes);
    [words.as_flattened(), &NOISE[offset..offset + body]].concat()
}

/// Its number. Panics where a byte is not as it was sent.
fn read(datagram: &[u8]) -> u64 {
    let (head, body) = datagram.split_at(24);
    let word = |n: usize| u64::from_le_bytes(head[8 * n..8 * n + 8].try_into().unwrap());
    assert_eq!(word(2), body.len() as u64, "a datagram of another length than it was sent with");
    let offset = word(1) as usize;
    assert!(body == &NOISE[offset..offset + body.len()], "datagram {} arrived with wrong bytes", word(0));
    word(0)
}

/// So many bytes a second. What could not be sent in time is not made up for.
struct Pace {
    rate: f64,
    last: Instant,
}

impl Pace {
    fn new(rate: f64) -> Self {
        Self { rate, last: Instant::now() }
    }

    /// Waits, and says how many bytes are due; at least one.
    fn wait(&mut self) -> usize {
        std::thread::sleep(PORTION.saturating_sub(self.last.elapsed()));
        let spent = std::mem::replace(&mut self.last, Instant::now()).elapsed();
        1 + (spent.min(PORTION * 4).as_secs_f64() * self.rate) as usize
    }
}
