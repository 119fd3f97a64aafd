//! One worker: a thread that sleeps in `epoll_wait` and runs both lines when it wakes.

use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use tokio::sync::mpsc;

use super::capture::Fate;
use super::downlink::Downlink;
use super::lines::Lines;
use super::outside::Outside;
use super::seam::{Inbox, Orders, WorkerGone, orders};
use super::tables::{Hold, Nic, OwnedLane, Session, Tables};
use super::uplink::{Turn, Uplink};
use super::{Command, NicKey, Notice, PeerKey, VNET_NONE, capture, probe};
use crate::metrics::{Stamp, WorkerCounters};
use crate::nic::Side;
use crate::sys::clock;
use crate::sys::poll::{Epoll, Events, Interest, Ready};
use crate::sys::udp::{MAX_SLOTS, UdpSocket};
use crate::types::Path;

/// Commands that wait; more make the sender wait, for as long as the worker needs for one turn.
const COMMANDS: usize = 256;

/// Events that one wait brings.
const EVENTS: usize = 64;

/// What the first frame of a NIC is expected to be no longer than, in bytes.
const FIRST_LENGTH: usize = 2048;

/// Trains of a peer received in one turn, however long they are.
const TRAINS: usize = 8;

/// Trains received in one turn from a socket that strangers have for themselves: what they send is short, cheaply
/// refused, and should not keep a client that comes from being heard.
const STRANGERS: usize = MAX_SLOTS;

/// Turns that a line has which is about to be closed: more than its buffer holds.
const LAST_TURNS: usize = 64;

/// Epoll tokens; a NIC's is its key, and a line's is [`Lines`]' own.
const SOCKET: u64 = u64::MAX;
const COMMAND: u64 = u64::MAX - 1;

/// How a worker is made.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Which end this is: says which way through the contract is out.
    pub side: Side,
    /// The thread's name, at most 15 bytes of it shown.
    pub name: String,
    /// How many peers get a socket of their own to be received on. More than none asks for a socket that may have lines
    /// ([`UdpSocket::line`]), and for no other worker on its address.
    pub lines: usize,
    /// Bytes that the kernel may hold for each of them.
    pub line_buffer: usize,
}

impl WorkerConfig {
    /// A worker without lines.
    pub fn new(side: Side, name: impl Into<String>) -> Self {
        Self { side, name: name.into(), lines: 0, line_buffer: 0 }
    }
}

/// Control's end of a worker. Dropping it stops the worker and waits for its thread.
pub struct WorkerHandle {
    orders: Orders<Command>,
    counters: Arc<WorkerCounters>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    /// Has the worker do something, after everything sent before.
    pub fn send(&self, command: Command) -> Result<(), WorkerGone> {
        self.orders.send(command)
    }

    /// What it has done so far.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        let _ = self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts a worker on `socket`. Notices go to `notices`; while that is full they are dropped.
pub fn spawn(
    socket: UdpSocket,
    config: &WorkerConfig,
    notices: mpsc::Sender<Notice>,
) -> io::Result<WorkerHandle> {
    let (orders, inbox) = orders(COMMANDS)?;
    let mut worker = Worker {
        epoll: Epoll::new()?,
        out: Outside::new(config.side, socket, notices),
        tables: Tables::default(),
        uplink: Uplink::default(),
        downlink: Downlink::default(),
        trains: if config.lines > 0 { STRANGERS } else { TRAINS },
        lines: Lines::new(config.lines, config.line_buffer),
    };
    worker.epoll.add(inbox.bell(), COMMAND, Interest::READ)?;
    worker.epoll.add(&worker.out.socket, SOCKET, Interest::READ)?;
    let counters = Arc::clone(&worker.out.counters);
    let thread = Builder::new().name(config.name.clone()).spawn(move || worker.run(&inbox))?;
    Ok(WorkerHandle { orders, counters, thread: Some(thread) })
}

struct Worker {
    epoll: Epoll,
    out: Outside,
    tables: Tables,
    uplink: Uplink,
    downlink: Downlink,
    /// Received in one turn from the socket that is open to all.
    trains: usize,
    lines: Lines,
}

impl Worker {
    fn run(&mut self, inbox: &Inbox<Command>) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.turn(inbox, &mut events) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return,
                Err(error) => {
                    self.out.tell(Notice::WorkerDead { error });
                    return;
                }
            }
        }
    }

    /// Sleeps, then gives everything that is ready one turn: the sockets first, for they also say what is late.
    fn turn(&mut self, inbox: &Inbox<Command>, events: &mut Events) -> io::Result<ControlFlow<()>> {
        let timeout = self.downlink.deadline().map(|at| at.saturating_duration_since(clock::now()));
        self.epoll.wait(events, timeout)?;
        // Once a turn.
        let now = clock::now();
        self.out.turn.set(Stamp::of(now));
        self.out.counters.wakeups.fetch_add(1, Relaxed);
        let told = events.iter().any(|e| e.token == COMMAND);
        if told && inbox.take_all(|command| self.obey(command))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if events.iter().any(|e| e.token == SOCKET) {
            let open = (&self.out.socket, self.trains);
            self.downlink.turn(open, &mut self.tables, &self.out, now)?;
        }
        for event in events.iter() {
            if let Some(line) = self.lines.named(event.token) {
                self.downlink.turn((line, TRAINS), &mut self.tables, &self.out, now)?;
            }
        }
        self.downlink.expire(&mut self.tables, &self.out, now);
        if !self.tables.marked.is_empty() {
            probe::settle(&mut self.uplink, &mut self.tables, &self.out);
        }
        for event in events.iter() {
            self.event(event, now);
        }
        // The kernel answers ARP, ICMP and TCP within the write, and what it says then need not wait for another wake-up.
        if let Some(key) = self.tables.written.take()
            && self.tables.nics.get(&key).is_some_and(|nic| nic.reads)
        {
            self.nic(key, false, now);
        }
        self.uplink.finish(&mut self.tables, &self.out, now);
        self.bury();
        Ok(ControlFlow::Continue(()))
    }

    fn event(&mut self, event: Ready, now: Instant) {
        if let Ok(key) = u32::try_from(event.token).map(NicKey) {
            self.nic(key, event.error() || event.hang_up(), now);
        }
    }

    fn nic(&mut self, key: NicKey, broken: bool, now: Instant) {
        match self.uplink.turn(key, &mut self.tables, &self.out, now) {
            Turn::Empty(0) if broken => {
                self.tables.dead.push((key, io::Error::from_raw_os_error(libc::ENODEV)));
            }
            Turn::Dead(error) => self.tables.dead.push((key, error)),
            Turn::Empty(_) | Turn::More => {}
        }
    }

    /// Closes the queues that have died, and reports each once.
    fn bury(&mut self) {
        while let Some((key, error)) = self.tables.dead.pop() {
            if let Some(nic) = self.tables.remove_nic(key) {
                self.close(nic);
                self.out.tell(Notice::NicDead { key, error });
            }
        }
    }

    /// Breaks off at [`Command::Stop`].
    fn obey(&mut self, command: Command) -> ControlFlow<()> {
        if matches!(command, Command::Stop) {
            return ControlFlow::Break(());
        }
        self.apply(command);
        ControlFlow::Continue(())
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::AddPeer(key) => {
                self.tables.peers.entry(key).or_default();
            }
            Command::RemovePeer(key) => {
                self.lines.remove(key, &self.epoll);
                let (nics, sessions) = self.tables.remove_peer(key);
                nics.into_iter().for_each(|nic| self.close(nic));
                sessions.into_iter().for_each(|index| self.downlink.forget(index));
            }
            Command::AddNic { key, peer, id, queue, reads, contract, counters, reply_arp } => {
                let nic = Nic {
                    peer,
                    id,
                    queue,
                    reads,
                    contract: *contract,
                    counters,
                    reply_arp,
                    hold: None,
                    length: FIRST_LENGTH,
                    captures: Vec::new(),
                    expected: Vec::new(),
                };
                self.add_nic(key, nic);
            }
            Command::UpdateNic { key, contract, reply_arp } => {
                if let Some(nic) = self.tables.nics.get_mut(&key) {
                    (nic.contract, nic.reply_arp) = (*contract, reply_arp);
                }
            }
            Command::Hold { key, on } => {
                if let Some(nic) = self.tables.nics.get_mut(&key) {
                    nic.hold = on.then_some(Hold { key, told: false });
                }
            }
            Command::Announce { key, frames } => {
                if let Some(nic) = self.tables.nics.get(&key) {
                    for frame in frames {
                        // One that is lost is no worse than one that nobody hears.
                        let _ = nic.queue.write_vectored(&[&VNET_NONE, &frame[..]].map(IoSlice::new));
                        nic.show(&frame, self.out.side, true, Fate::Passed);
                    }
                }
            }
            Command::Capture { key, capture } => {
                if let Some(nic) = self.tables.nics.get_mut(&key) {
                    nic.captures.retain(|c| !c.is_over());
                    if nic.captures.len() < capture::MOST {
                        nic.captures.push(capture);
                    }
                }
            }
            Command::Expect { key, expected } => {
                if let Some(nic) = self.tables.nics.get_mut(&key) {
                    nic.expect(expected, clock::now());
                }
            }
            Command::Probe { key, token, len, until } => {
                let order = (key, token, len, until);
                probe::start(&mut self.uplink, &mut self.tables, &self.out, order);
            }
            Command::RemoveNic(key) => {
                if let Some(nic) = self.tables.remove_nic(key) {
                    self.close(nic);
                }
            }
            Command::Install { peer, opener, lane } => self.install(peer, opener, lane),
            Command::Use { peer: key, index, path, datagram } => {
                if let Some(peer) = self.tables.peers.get_mut(&key) {
                    (peer.active, peer.path, peer.datagram) = (Some(index), Some(path), datagram.into());
                    self.follow(key, path);
                }
            }
            Command::Retire { index } => {
                self.tables.retire(index);
                self.downlink.forget(index);
            }
            Command::SetPath { peer: key, path } => {
                if let Some(peer) = self.tables.peers.get_mut(&key) {
                    peer.path = Some(path);
                    self.follow(key, path);
                }
            }
            Command::SetDatagram { peer, datagram } => {
                if let Some(peer) = self.tables.peers.get_mut(&peer) {
                    peer.datagram = datagram.into();
                }
            }
            Command::Stop => {}
        }
    }

    /// Gives a peer a line for its path, and works off what the last one holds.
    fn follow(&mut self, peer: PeerKey, path: Path) {
        let old = self.lines.follow(peer, path, &self.out.socket, &self.epoll);
        if let Some(entry) = self.tables.peers.get_mut(&peer) {
            entry.line = self.lines.of(peer);
        }
        let Some(old) = old else { return };
        let now = clock::now();
        for _ in 0..LAST_TURNS {
            let trains = self.downlink.turn((&old, usize::MAX), &mut self.tables, &self.out, now);
            if !trains.is_ok_and(|n| n > 0) {
                break;
            }
        }
    }

    fn add_nic(&mut self, key: NicKey, nic: Nic) {
        if !self.tables.peers.contains_key(&nic.peer) {
            return;
        }
        if nic.reads
            && let Err(error) = self.epoll.add(&nic.queue, key.0.into(), Interest::READ)
        {
            self.out.tell(Notice::NicDead { key, error });
            return;
        }
        if let Some(old) = self.tables.add_nic(key, nic) {
            self.close(old);
        }
    }

    fn install(
        &mut self,
        peer: PeerKey,
        opener: Arc<crate::proto::session::Opener>,
        lane: crate::proto::session::Lane,
    ) {
        let Some(owner) = self.tables.peers.get_mut(&peer) else { return };
        let index = opener.index();
        owner.lanes.retain(|l| l.index != index);
        owner.lanes.push(OwnedLane { index, lane, rekey_told: false });
        self.tables.sessions.insert(index, Session { peer, opener, use_told: false, rekey_told: false });
    }

    fn close(&self, nic: Nic) {
        // It may be open elsewhere, and would then stay in the set.
        let _ = self.epoll.delete(&nic.queue);
    }
}
