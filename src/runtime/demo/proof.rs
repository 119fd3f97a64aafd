//! What shows that the projection works: asked and measured from the LAN, and from the wire between the boxes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::screen::span;
use super::stage::{Place, Stage};
use super::{DemoError, NICS, Nic, OrFail, PATIENCE, PINGS, PORT, Result, Stop};
use crate::runtime::ping::Pinger;
use crate::sys::packet::PacketSocket;

/// The LAN to ask from, and a web server behind each NIC to ask.
pub(super) struct Site<'a> {
    stage: &'a Stage,
    marker: String,
    _pages: Vec<Page>,
}

/// What a fetch gave.
pub(super) struct Fetched {
    pub(super) status: String,
    pub(super) first_line: String,
    pub(super) bytes: usize,
    pub(super) time: Duration,
}

impl<'a> Site<'a> {
    pub(super) fn new(stage: &'a Stage) -> Result<Self> {
        let marker = format!("secret-{:032x}", rand::random::<u128>());
        let pages = NICS.iter().map(|nic| Page::serve(&stage.server, nic, &marker)).collect::<Result<_>>()?;
        Ok(Self { stage, marker, _pages: pages })
    }

    /// Words that occur in every page, and nowhere else in the world.
    pub(super) fn marker(&self) -> &[u8] {
        self.marker.as_bytes()
    }

    /// Something once every NIC has answered a ping.
    pub(super) fn first_answer(&self) -> Result<Option<()>> {
        for nic in &NICS {
            if self.pinger(nic)?.once(Duration::from_millis(100)).or_fail("ping")?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// The round trips of those pings that were answered.
    pub(super) fn ping(&self, stop: &Stop, nic: &Nic) -> Result<Vec<Duration>> {
        let mut pinger = self.pinger(nic)?;
        let mut trips = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            stop.check()?;
            trips.extend(pinger.once(Duration::from_secs(1)).or_fail("ping")?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(trips)
    }

    fn pinger(&self, nic: &Nic) -> Result<Pinger> {
        let target = IpAddr::V4(nic.ip);
        self.stage.lan.inside(move || Pinger::new(target))?.or_fail("ping")
    }

    /// Fetches a NIC's page from the LAN, and makes sure that it arrived whole.
    pub(super) fn fetch(&self, nic: &Nic) -> Result<Fetched> {
        let what = format!("fetch http://{}/", nic.ip);
        let start = Instant::now();
        let answer = (|| {
            let mut stream = self.connect(SocketAddr::from((nic.ip, 80)))?;
            stream.write_all(
                format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", nic.ip).as_bytes(),
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, io::Error>(answer)
        })();
        let (time, answer) = (start.elapsed(), answer.or_fail(&what)?);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        if body != page(nic, &self.marker) {
            return Err(DemoError::Failed(format!("cannot {what}: the page did not arrive as it was sent")));
        }
        let status = head.lines().next().and_then(|line| line.split_once(' ')).unwrap_or_default().1;
        let first_line = body.lines().next().unwrap_or_default().to_owned();
        Ok(Fetched { status: status.to_owned(), first_line, bytes: answer.len(), time })
    }

    fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let connect = move || TcpStream::connect_timeout(&to, PATIENCE);
        let stream = self.stage.lan.inside(connect).map_err(io::Error::other)??;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Bits a second of one TCP connection between the LAN and the first NIC, and on the way to `live`.
    pub(super) fn transfer(&self, stop: &Stop, up: bool, time: Duration, live: impl Fn(f64)) -> Result<f64> {
        let [nic, ..] = NICS;
        let listener = self.stage.server.inside(move || TcpListener::bind((nic.ip, 0)))?;
        let listener = listener.or_fail("transfer")?;
        let here = self.connect(listener.local_addr().or_fail("transfer")?).or_fail("transfer")?;
        let (there, _) = listener.accept().or_fail("transfer")?;
        let (from, to) = if up { (here, there) } else { (there, here) };
        let flow = Flow::start(from, to)?;
        let start = Instant::now();
        while start.elapsed() < time {
            stop.check()?;
            std::thread::sleep(Duration::from_millis(200));
            live(flow.bits_per_second(start));
        }
        Ok(flow.bits_per_second(start))
    }
}

/// The least, the median and the largest, as text.
pub(super) fn spread(times: &[Duration]) -> [String; 3] {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |n: usize| sorted.get(n).map_or_else(|| "-".to_owned(), |t| span(*t));
    [at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1))]
}

/// Bytes on their way as fast as they go. Ends with its guard.
struct Flow {
    ends: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
    arrived: Arc<AtomicU64>,
}

impl Flow {
    fn start(from: TcpStream, to: TcpStream) -> Result<Self> {
        let again = |stream: &TcpStream| stream.try_clone().or_fail("transfer");
        let (mut source, mut sink, arrived) = (again(&from)?, again(&to)?, Arc::<AtomicU64>::default());
        let counter = arrived.clone();
        let send = move || {
            let block = vec![0x5a; 256 << 10];
            while source.write_all(&block).is_ok() {}
        };
        let receive = move || {
            let mut block = vec![0; 256 << 10];
            while let Ok(len @ 1..) = read(&mut sink, &mut block) {
                counter.fetch_add(u64::try_from(len).unwrap_or_default(), Relaxed);
            }
        };
        let mut flow = Self { ends: [from, to], threads: Vec::new(), arrived };
        flow.threads.push(std::thread::Builder::new().spawn(send).or_fail("start a thread")?);
        flow.threads.push(std::thread::Builder::new().spawn(receive).or_fail("start a thread")?);
        Ok(flow)
    }

    fn bits_per_second(&self, since: Instant) -> f64 {
        let bits = self.arrived.load(Relaxed).saturating_mul(8);
        // Exact up to 2^53 bits.
        bits as f64 / since.elapsed().as_secs_f64().max(0.001)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// A read that a signal does not end.
fn read(from: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(into) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// What the web server behind a NIC shows.
fn page(nic: &Nic, marker: &str) -> String {
    let mut page = format!("This is {} on the server, for {}\n", nic.on_server, nic.ip);
    for _ in 0..400 {
        page.push_str(&format!("{marker} {marker} {marker}\n"));
    }
    page
}

/// A web server of one page. Ends with its guard.
struct Page {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Page {
    fn serve(place: &Place, nic: &Nic, marker: &str) -> Result<Self> {
        let there = (nic.ip, 80);
        let listener = place.inside(move || TcpListener::bind(there))?.or_fail("serve a page")?;
        let (inbox, page) = (listener.try_clone().or_fail("serve a page")?, page(nic, marker));
        let serve = move || {
            while let Ok((stream, _)) = inbox.accept() {
                // The reader notices what went wrong.
                let _ = answer(stream, &page);
            }
        };
        let thread = std::thread::Builder::new().spawn(serve).or_fail("start a thread")?;
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Shutting the listening socket down is what wakes accept(2).
        if let Ok(copy) = self.listener.try_clone() {
            let _ = TcpStream::from(OwnedFd::from(copy)).shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, page: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (mut request, mut piece) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 16 << 10 {
        match read(&mut stream, &mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            len => request.extend_from_slice(piece.get(..len).unwrap_or_default()),
        }
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length:";
    stream.write_all(format!("{head} {}\r\n\r\n{page}", page.len()).as_bytes())
}

/// Everything that passes an interface, kept.
pub(super) struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Kept>>>,
}

/// Packets, and how many are missing.
type Kept = (Vec<Vec<u8>>, u32);

/// What a capture saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// Packets of UDP to or from the tunnel's port. The kernel shows several datagrams sent in one go as one.
    pub(super) datagrams: usize,
    /// Bytes of all packets.
    pub(super) bytes: usize,
    /// Places with the marker, in any packet.
    pub(super) hits: usize,
    /// Packets that the kernel could not keep for us.
    pub(super) missed: u32,
}

impl Capture {
    pub(super) fn start(place: &Place, interface: &'static str) -> Result<Self> {
        let mut socket = place.inside(move || PacketSocket::open(interface))?.or_fail("capture")?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let collect = move || {
            let mut packets = Vec::new();
            loop {
                match socket.recv(Duration::from_millis(50))? {
                    Some(packet) => packets.push(packet.bytes),
                    // Nothing was on its way any more when the end was asked for.
                    None if stopped.load(Relaxed) => return Ok((packets, socket.missed()?)),
                    None => {}
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(collect).or_fail("start a thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }

    pub(super) fn finish(mut self, marker: &[u8]) -> Result<Seen> {
        self.stop.store(true, Relaxed);
        let ended = self.thread.take().and_then(|thread| thread.join().ok());
        let (packets, missed) =
            ended.unwrap_or_else(|| Err(io::Error::other("it broke off"))).or_fail("capture")?;
        let hits = |p: &Vec<u8>| p.windows(marker.len().max(1)).filter(|w| *w == marker).count();
        Ok(Seen {
            datagrams: packets.iter().filter(|p| is_tunnel(p)).count(),
            bytes: packets.iter().map(Vec::len).sum(),
            hits: packets.iter().map(hits).sum(),
            missed,
        })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// IPv4 without options, UDP, and one of its ports the tunnel's.
fn is_tunnel(packet: &[u8]) -> bool {
    let port = |at: usize| packet.get(at..).and_then(|p| p.first_chunk()).map(|p| u16::from_be_bytes(*p));
    packet.get(12..15) == Some(&[8, 0, 0x45])
        && packet.get(23) == Some(&17)
        && (port(34) == Some(PORT) || port(36) == Some(PORT))
}
