//! The workers, as the control loop sees them.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::status::model;
use crate::dataplane::capture::Capture;
use crate::dataplane::probe::{Expected, Role};
use crate::dataplane::{Command, NicKey, Notice, PeerKey, WorkerConfig, WorkerHandle, spawn};
use crate::metrics::{DropReason, Drops, NicCounters, Traffic};
use crate::nic::{Queue, Side};
use crate::policy::Contract;
use crate::proto::output::{Event, Output, PeerId};
use crate::sys::udp::{Sharing, UdpSocket, most_lines};
use crate::types::NicId;
use crate::wire::datagram::{LANE_OFFSET, Type};

/// Notices that may wait for the control loop. More are dropped, and counted.
const NOTICES: usize = 1024;

/// Bytes that the kernel may hold for each socket each way: at 10 Gbit/s, some milliseconds.
const SOCKET_BUFFER: usize = 4 << 20;

/// The data plane of this process.
pub struct Plane {
    workers: Vec<WorkerHandle>,
    /// For the control loop's own datagrams.
    socket: UdpSocket,
    next_key: u32,
    /// What control refused of what the workers handed on.
    refused: Drops,
    /// What control itself has received.
    received: Traffic,
    /// Where strangers come in.
    watched: Vec<Watched>,
}

/// A socket at which the kernel counts what it drops.
struct Watched {
    socket: UdpSocket,
    /// The count when it was last read, of which the kernel keeps 32 bits, and all of it.
    seen: Cell<(u32, u64)>,
}

/// One socket for each worker, on one address. Each session's lanes are shared out over them: a worker at one end gets
/// what one worker at the other has sealed. Control records are the first's, and so are handshakes, unless they are to be
/// `apart`: then there is one more socket for them, the last, where the kernel can tell them from the rest.
pub fn bind(addr: SocketAddr, workers: NonZeroU8, apart: bool) -> io::Result<Vec<UdpSocket>> {
    let sharing = Sharing { kind: Type::Data as u8, offset: LANE_OFFSET, apart };
    UdpSocket::bind_group(addr, workers.get().into(), sharing)
}

/// The address that they share.
pub fn local_addr(sockets: &[UdpSocket]) -> io::Result<SocketAddr> {
    sockets.first().ok_or(io::ErrorKind::InvalidInput)?.local_addr()
}

/// What a worker needs to know of a NIC besides its queue.
#[derive(Clone)]
pub struct NicSetup {
    /// Whose it is.
    pub peer: PeerId,
    /// Its number in that peer's sessions.
    pub id: NicId,
    /// What may pass.
    pub contract: Contract,
    /// Where to count.
    pub counters: Arc<NicCounters>,
    /// Answer ARP requests for it here.
    pub reply_arp: bool,
}

impl Plane {
    /// Starts a worker on each of these sockets, which share one address ([`bind`]).
    pub fn start(sockets: Vec<UdpSocket>, side: Side) -> io::Result<(Self, mpsc::Receiver<Notice>)> {
        let socket = sockets.first().ok_or(io::ErrorKind::InvalidInput)?.try_clone()?;
        let (tell, notices) = mpsc::channel(NOTICES);
        let mut workers = Vec::with_capacity(sockets.len());
        let lines = match side {
            // They would take datagrams from the filter that shares them out.
            _ if sockets.len() > 1 => 0,
            Side::Server => most_lines(),
            Side::Client => 1,
        };
        for (i, socket) in sockets.into_iter().enumerate() {
            let (receive, send) = socket.set_buffers(SOCKET_BUFFER, SOCKET_BUFFER)?;
            if i == 0 && receive.min(send) < SOCKET_BUFFER {
                warn!(receive, send, "socket buffers are small; raise net.core.rmem_max and wmem_max");
            }
            let config = WorkerConfig {
                lines,
                line_buffer: SOCKET_BUFFER,
                ..WorkerConfig::new(side, format!("tap-rs-plane{i}"))
            };
            workers.push(spawn(socket, &config, tell.clone())?);
        }
        let (refused, received, watched) = (Drops::new(), Traffic::default(), Vec::new());
        Ok((Self { workers, socket, next_key: 0, refused, received, watched }, notices))
    }

    /// How many queues each NIC should have.
    pub fn queues(&self) -> usize {
        self.workers.len()
    }

    /// Does what a state machine wants; an event is handed back.
    pub fn apply(&self, output: Output) -> Option<(PeerId, Event)> {
        match output {
            Output::Send { path, bytes } => {
                if let Err(e) = self.socket.send_segments(&path, &bytes, bytes.len()) {
                    // Whatever it was will be said again; a network that is gone is told by what does not come back.
                    debug!(%path, "a datagram could not be sent: {e}");
                }
            }
            Output::Install { peer, opener, mut lanes } => {
                for worker in &self.workers {
                    let Some(lane) = lanes.take() else { break };
                    let (peer, opener) = (key(peer), Arc::clone(&opener));
                    tell(worker, Command::Install { peer, opener, lane });
                }
            }
            Output::Use { peer, index, path, datagram } => {
                self.all(|| Command::Use { peer: key(peer), index, path, datagram });
            }
            Output::Path { peer, path } => self.all(|| Command::SetPath { peer: key(peer), path }),
            Output::Datagram { peer, size } => {
                self.all(|| Command::SetDatagram { peer: key(peer), datagram: size });
            }
            Output::Retire { index } => self.all(|| Command::Retire { index }),
            Output::Event { peer, event } => return Some((peer, event)),
        }
        None
    }

    /// There is a peer of this number from now on.
    pub fn add_peer(&self, peer: PeerId) {
        self.all(|| Command::AddPeer(key(peer)));
    }

    /// There is none any more; its NICs go with it.
    pub fn remove_peer(&self, peer: PeerId) {
        self.all(|| Command::RemovePeer(key(peer)));
    }

    /// Hands a NIC's queues to the workers, one to each. Where there are fewer, some workers only write, and who reads
    /// changes from NIC to NIC.
    pub fn add_nic(&mut self, mut queues: Vec<Queue>, setup: &NicSetup) -> NicKey {
        let nic = NicKey(self.next_key);
        self.next_key = self.next_key.wrapping_add(1);
        let writers = self.workers.len().saturating_sub(queues.len());
        let more: io::Result<Vec<_>> =
            queues.first().into_iter().cycle().take(writers).map(Queue::try_clone).collect();
        let readers = queues.len();
        queues.extend(
            more.inspect_err(|e| warn!("some workers cannot write to a NIC: {e}")).unwrap_or_default(),
        );
        let start = usize::try_from(nic.0).unwrap_or(0).checked_rem(self.workers.len()).unwrap_or(0);
        let workers = self.workers.iter().cycle().skip(start);
        for ((i, queue), worker) in queues.into_iter().enumerate().zip(workers) {
            let setup = setup.clone();
            tell(
                worker,
                Command::AddNic {
                    key: nic,
                    peer: key(setup.peer),
                    id: setup.id,
                    queue,
                    reads: i < readers,
                    contract: Box::new(setup.contract),
                    counters: setup.counters,
                    reply_arp: setup.reply_arp,
                },
            );
        }
        nic
    }

    /// Another contract for a NIC.
    pub fn update_nic(&self, nic: NicKey, contract: &Contract, reply_arp: bool) {
        self.all(|| Command::UpdateNic { key: nic, contract: Box::new(contract.clone()), reply_arp });
    }

    /// Lets nothing pass a NIC, or all that may.
    pub fn hold(&self, nic: NicKey, on: bool) {
        self.all(|| Command::Hold { key: nic, on });
    }

    /// Sends frames out of a NIC; any worker can.
    pub fn announce(&self, nic: NicKey, frames: Vec<Vec<u8>>) {
        if let Some(worker) = self.workers.first() {
            tell(worker, Command::Announce { key: nic, frames });
        }
    }

    /// Copies a NIC's frames.
    pub fn capture(&self, nic: NicKey, capture: &Capture) {
        self.all(|| Command::Capture { key: nic, capture: capture.clone() });
    }

    /// Waits for a marked frame of the other end's, which may come to any worker.
    pub fn expect(&self, nic: NicKey, expected: Expected) {
        self.all(|| Command::Expect { key: nic, expected });
    }

    /// Sends a marked frame of `len` bytes out, and waits for it until then.
    pub fn probe(&self, nic: NicKey, token: u64, len: usize, until: Instant) {
        if let Some((first, others)) = self.workers.split_first() {
            for worker in others {
                let expected = Expected { token, role: Role::Return, until };
                tell(worker, Command::Expect { key: nic, expected });
            }
            tell(first, Command::Probe { key: nic, token, len, until });
        }
    }

    /// Has the workers give a NIC's queues up.
    pub fn remove_nic(&self, nic: NicKey) {
        self.all(|| Command::RemoveNic(nic));
    }

    /// Counts what a worker handed on and control refused: a handshake, or a control message.
    pub fn refuse(&self, reason: DropReason) {
        debug!(reason = reason.label(), "dropped");
        self.refused.count(reason);
    }

    /// From now on what the kernel drops at these sockets is counted as [`DropReason::Unwanted`].
    pub fn watch(&mut self, sockets: Vec<UdpSocket>) {
        self.watched = sockets.into_iter().map(|socket| Watched { socket, seen: Cell::default() }).collect();
    }

    /// Counts a train that control has received itself.
    pub fn count_received(&self, datagrams: usize, bytes: usize) {
        self.received.count(datagrams as u64, bytes as u64);
    }

    /// Packets that were dropped, by reason, over all workers and control.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = || self.workers.iter().map(|w| &w.counters().drops).chain([&self.refused]);
        let of =
            |reason| all().map(|drops| drops.of(reason)).sum::<u64>().saturating_add(self.by_kernel(reason));
        DropReason::ALL.iter().map(|r| (*r, of(*r))).filter(|(_, n)| *n > 0).collect()
    }

    fn by_kernel(&self, reason: DropReason) -> u64 {
        if reason == DropReason::Unwanted { self.watched.iter().map(Watched::count).sum() } else { 0 }
    }

    /// Logs what was dropped before it was known to be a NIC's.
    pub fn log_drops(&self) {
        for (reason, count) in self.drops() {
            info!(reason = reason.label(), count, "packets dropped");
        }
    }

    /// What the workers have done.
    pub fn snapshot(&self) -> model::Plane {
        let mut sum = model::Plane { workers: self.workers.len(), ..model::Plane::default() };
        for c in self.workers.iter().map(WorkerHandle::counters) {
            let one = model::Worker {
                wakeups: c.wakeups.load(Relaxed),
                sent: trains(&c.sent),
                received: trains(&c.received),
            };
            sum.wakeups = sum.wakeups.saturating_add(one.wakeups);
            sum.salvaged = sum.salvaged.saturating_add(c.salvaged.load(Relaxed));
            add(&mut sum.sent, &one.sent);
            add(&mut sum.received, &one.received);
            sum.by_worker.push(one);
        }
        add(&mut sum.received, &trains(&self.received));
        sum.drops = self.drops().into_iter().map(|(r, n)| (r.label().to_owned(), n)).collect();
        sum
    }

    fn all(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            tell(worker, command());
        }
    }
}

impl Watched {
    /// Right if it is asked for at least once in 2^32 drops.
    fn count(&self) -> u64 {
        let (last, all) = self.seen.get();
        let now = self.socket.dropped().unwrap_or(last);
        let all = all.saturating_add(now.wrapping_sub(last).into());
        self.seen.set((now, all));
        all
    }
}

fn trains(traffic: &Traffic) -> model::Trains {
    model::Trains {
        trains: traffic.trains.load(Relaxed),
        datagrams: traffic.datagrams.load(Relaxed),
        bytes: traffic.bytes.load(Relaxed),
    }
}

fn add(sum: &mut model::Trains, part: &model::Trains) {
    sum.trains = sum.trains.saturating_add(part.trains);
    sum.datagrams = sum.datagrams.saturating_add(part.datagrams);
    sum.bytes = sum.bytes.saturating_add(part.bytes);
}

/// A worker that is gone has said so itself.
fn tell(worker: &WorkerHandle, command: Command) {
    if worker.send(command).is_err() {
        debug!("a command for a worker that has ended");
    }
}

const fn key(peer: PeerId) -> PeerKey {
    PeerKey(peer.0)
}
