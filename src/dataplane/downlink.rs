//! The way from a peer to its NIC: recv → open → check → unpack → write.
//!
//! A receive batch is a few trains, or more where they are short; each is opened in place as a whole, then taken apart
//! ([`unpack`](super::unpack)) and its frames delivered ([`delivery`](super::delivery)).

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::Notice;
use super::delivery::{Delivery, Waiting};
use super::outside::Outside;
use super::parts::Buffers;
use super::reassembly::Reassembly;
use super::rest::Rest;
use super::tables::{Session, Tables};
use super::unpack::{self, Origin, unpack};
use crate::metrics::DropReason;
use crate::proto::session::REKEY_AFTER_DATAGRAMS;
use crate::sys::udp::{MAX_SLOTS, RecvBatch, SLOT_LEN, UdpSocket};
use crate::types::Path;
use crate::wire::datagram::{DATA_HEADER_LEN, DataHeader, Header, INIT_LEN, Type};

/// Bytes that a turn is to bring, as far as the trains before foretell it: short ones come in larger batches, because each
/// batch costs two system calls.
const BYTES: usize = 8 * SLOT_LEN;

/// The incoming half of a worker.
pub struct Downlink {
    recv: RecvBatch,
    rest: Rest,
    /// Bytes that a train is expected to have.
    length: usize,
    reassembly: Reassembly,
    opened: Vec<OpenedDatagram>,
    waiting: Waiting,
}

/// A datagram of the train at hand, verified and decrypted in place.
struct OpenedDatagram {
    session: u32,
    lane: u8,
    seq: u64,
    newest: bool,
    /// Where in the train its plaintext is.
    start: usize,
    len: usize,
}

/// Datagrams and bytes of one session, not yet counted.
struct Run {
    session: u32,
    datagrams: u64,
    bytes: u64,
    /// Any of them carried something.
    asks: bool,
    /// Any of them was the newest of its lane.
    newest: bool,
}

impl Default for Downlink {
    fn default() -> Self {
        Self {
            recv: RecvBatch::new(MAX_SLOTS),
            rest: Rest::default(),
            length: SLOT_LEN,
            reassembly: Reassembly::default(),
            opened: Vec::new(),
            waiting: Waiting::default(),
        }
    }
}

impl Downlink {
    /// Works off what a socket holds, up to `most` trains, or more where they are short, or one after a rest, and tells how
    /// many it were. `Err`: the socket is dead.
    pub fn turn(
        &mut self,
        (socket, most): (&UdpSocket, usize),
        tables: &mut Tables,
        out: &Outside,
        now: Instant,
    ) -> io::Result<usize> {
        let short = BYTES.checked_div(self.length).unwrap_or(BYTES);
        let rested = self.rest.ends(now);
        let most = if rested { 1 } else { most.max(short) };
        let trains = match self.recv.recv(socket, most) {
            Ok(n) => n,
            Err(e) if is_fatal(&e) => return Err(e),
            Err(_) => {
                out.counters.drops.count(DropReason::SocketRefused);
                return Ok(0);
            }
        };
        let longest = (0..trains).map(|i| self.recv.bytes(i).len()).max();
        self.length = longest.unwrap_or(0).max(self.length.saturating_sub(self.length / 8));
        let mut last = None;
        for i in 0..trains {
            if let Some(path) = self.open(i, tables, out, now) {
                self.unpack(i, path, &mut last, tables, out, now);
            }
        }
        let mut delivery = Delivery { waiting: &mut self.waiting, tables, out, now, came: None };
        if let Some(last) = last {
            unpack::hurry(&mut self.reassembly, last, &self.recv, &mut delivery);
        }
        delivery.flush();
        tables.written = tables.written.filter(|_| rested);
        let kept = self.reassembly.keep(&self.recv);
        out.counters.kept.fetch_add(kept, Relaxed);
        Ok(trains)
    }

    /// Gives up the frames that have waited long enough.
    pub fn expire(&mut self, tables: &mut Tables, out: &Outside, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            let mut delivery = Delivery { waiting: &mut self.waiting, tables, out, now, came: None };
            unpack::expire(&mut self.reassembly, now, &mut delivery);
            delivery.flush();
        }
    }

    /// When [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.reassembly.deadline()
    }

    /// Forgets what is left of a session.
    pub fn forget(&mut self, session: u32) {
        self.reassembly.forget(session);
    }

    /// open: every datagram of train `i`, in place. Gives the path that it came by.
    fn open(&mut self, i: usize, tables: &mut Tables, out: &Outside, now: Instant) -> Option<Path> {
        self.opened.clear();
        let train = self.recv.slot(i)?;
        let path = train.path;
        out.counters
            .received
            .count(train.bytes.len().div_ceil(train.segment) as u64, train.bytes.len() as u64);
        let mut run: Option<Run> = None;
        let mut base = 0usize;
        for datagram in train.bytes.chunks_mut(train.segment) {
            let (start, len) = (base.saturating_add(DATA_HEADER_LEN), datagram.len());
            base = base.saturating_add(len);
            if datagram.first() != Some(&(Type::Data as u8)) {
                hand_over(datagram, path, out);
                continue;
            }
            let opened = DataHeader::receiver_index(datagram).and_then(|session| {
                let known = tables.sessions.get(&session).ok_or(DropReason::UnknownIndex)?;
                let opened = known.opener.open(datagram)?;
                let (lane, seq, newest, len) =
                    (opened.lane, opened.seq, opened.newest, opened.plaintext.len());
                Ok(OpenedDatagram { session, lane, seq, newest, start, len })
            });
            match opened {
                Ok(opened) => {
                    run = Some(Run::extend(run, &opened, len, |run| settle(run, path, tables, out, now)));
                    self.opened.push(opened);
                }
                Err(reason) => out.counters.drops.count(reason),
            }
        }
        if let Some(run) = run {
            settle(run, path, tables, out, now);
        }
        Some(path)
    }

    /// unpack: the records of every datagram of train `i`. `last` is the last datagram of the batch so far.
    fn unpack(
        &mut self,
        i: usize,
        path: Path,
        last: &mut Option<Origin>,
        tables: &mut Tables,
        out: &Outside,
        now: Instant,
    ) {
        let bytes = self.recv.bytes(i);
        let mut delivery = Delivery { waiting: &mut self.waiting, tables, out, now, came: None };
        for d in &self.opened {
            let Some(plaintext) = bytes.get(d.start..d.start.saturating_add(d.len)) else { continue };
            delivery.came = Some((path, d.newest));
            let origin = Origin {
                session: d.session,
                lane: d.lane,
                seq: d.seq,
                buffer: u16::try_from(i).unwrap_or(u16::MAX),
                start: d.start,
                now,
            };
            let of_another = |last: &Origin| (last.session, last.lane) != (d.session, d.lane);
            if let Some(last) = last.replace(origin).filter(of_another) {
                unpack::hurry(&mut self.reassembly, last, &self.recv, &mut delivery);
            }
            unpack(&mut self.reassembly, origin, plaintext, &self.recv, &mut delivery);
        }
    }
}

impl Buffers for RecvBatch {
    fn buffer(&self, i: usize) -> &[u8] {
        self.bytes(i)
    }
}

impl Run {
    /// The run with one more datagram; `done` gets what belongs to another session.
    fn extend(run: Option<Self>, d: &OpenedDatagram, len: usize, done: impl FnOnce(Self)) -> Self {
        let mut run = match run {
            Some(run) if run.session == d.session => run,
            other => {
                other.map(done);
                Self { session: d.session, datagrams: 0, bytes: 0, asks: false, newest: false }
            }
        };
        run.datagrams = run.datagrams.saturating_add(1);
        run.bytes = run.bytes.saturating_add(len as u64);
        run.asks |= d.len > 0;
        run.newest |= d.newest;
        run
    }
}

/// Hands a handshake's datagram to control.
fn hand_over(datagram: &[u8], path: Path, out: &Outside) {
    match Header::decode(datagram) {
        Ok(_) if datagram.len() <= INIT_LEN => {
            out.tell_of_stranger(Notice::Datagram { path, bytes: datagram.into() });
        }
        Ok(_) => out.counters.drops.count(DropReason::BadLength),
        Err(reason) => out.counters.drops.count(reason),
    }
}

/// Notes what came in for one session, and tells control what it must know of it.
fn settle(run: Run, path: Path, tables: &mut Tables, out: &Outside, now: Instant) {
    let Some(session) = tables.sessions.get_mut(&run.session) else { return };
    let Session { peer, opener, use_told, rekey_told } = session;
    let (index, peer) = (run.session, *peer);
    let (volume, activity) = (opener.volume(), opener.activity());
    volume.count_received(run.datagrams, run.bytes);
    if activity.note_received(now, run.asks) {
        out.tell(Notice::Wake { peer });
    }
    if !*use_told {
        *use_told = out.tell(Notice::FirstUse { index, path });
    }
    if !*rekey_told && volume.received.load(Relaxed) >= REKEY_AFTER_DATAGRAMS {
        *rekey_told = out.tell(Notice::RekeyWanted { index });
    }
    if run.newest && tables.peers.get_mut(&peer).is_some_and(|p| p.has_moved(path, now)) {
        out.tell(Notice::Moved { index, path });
    }
}

/// True for errors of the descriptor itself; all others are a datagram's or the network's.
fn is_fatal(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL | libc::EFAULT))
}
