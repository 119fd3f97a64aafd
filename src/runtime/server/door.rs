//! Where strangers come in: a socket of the control loop's own for handshakes, and what the kernel lets pass to any of the
//! server's sockets that are open to all.
//!
//! ```text
//!   a datagram ─▶ admitted? ─▶ DATA ─▶ a worker's socket
//!                    │           other ─▶ the door: read in batches by the control loop, and no more often than that can bear
//!                    └ no: dropped by the kernel, and counted there
//! ```
//!
//! So a flood of handshakes wakes no worker, and fills nobody's queue but the door's; garbage wakes nobody. Clients that have
//! lines come by these, whatever they send. Where a kernel cannot do either, the workers' sockets serve as well.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::Hub;
use crate::metrics::DropReason;
use crate::proto::index::Tag;
use crate::runtime::control::until;
use crate::runtime::plane;
use crate::sys::poll::await_readable;
use crate::sys::udp::{Admission, Bits, Kind, Length, Received, RecvBatch, UdpSocket};
use crate::sys::{clock, wipe};
use crate::types::{Path, Suite};
use crate::wire::datagram::{
    DATA_LEN_MIN, HELLO_LEN, HELLO_ZERO, Header, INDEX_OFFSET, INIT_LEN, Type, VERSION,
};

/// Datagrams read at once.
const BATCH: usize = 32;

/// So many come in the time of the shorter pause while nobody floods.
const FEW: usize = 4;

/// Batches that are read one after another where more than one has come.
const BATCHES: u8 = 8;

/// How long strangers wait after a few have been heard, and after more: in that time the workers have the processor.
const SHORT_PAUSE: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_millis(5);

/// Bytes that the kernel may hold: the handshakes of a thousand clients at once.
const BUFFER: usize = 1 << 20;

/// The door.
pub struct Door {
    socket: UdpSocket,
    batch: RecvBatch,
    /// What tells that somebody is there. None after somebody was: then it is looked after the pause, and every datagram
    /// that comes meanwhile wakes nobody.
    bell: Option<AsyncFd<OwnedFd>>,
    /// When it is opened again.
    at: Instant,
    batches: u8,
}

/// The workers' sockets, and one for handshakes where the kernel can tell them from DATA. `tag`: what DATA that is
/// meant for this server has.
pub fn bind(
    addr: SocketAddr,
    workers: NonZeroU8,
    tag: Tag,
) -> io::Result<(Vec<UdpSocket>, Option<UdpSocket>)> {
    let mut sockets = plane::bind(addr, workers, true)?;
    let admitted = sockets.iter().try_for_each(|socket| admit(socket, tag));
    if let Err(e) = admitted {
        warn!("this kernel filters no datagrams ({e}): floods cost more");
    }
    let door = sockets.len().checked_sub(1).filter(|n| *n >= usize::from(workers.get()));
    if door.is_none() {
        warn!("this kernel cannot tell handshakes from other datagrams: floods of them cost more");
    }
    let door = door.and_then(|_| sockets.pop());
    Ok((sockets, door))
}

/// Only what a client may send comes in; a server sends the other kinds.
fn admit(socket: &UdpSocket, tag: Tag) -> io::Result<()> {
    let version = u32::from_be_bytes([0, VERSION, 0, 0]);
    let zero = |at| Bits { at, mask: u32::MAX, value: 0 };
    let index = Bits { at: INDEX_OFFSET, mask: tag.mask.swap_bytes(), value: tag.value.swap_bytes() };
    socket.admit(&Admission {
        begins: Bits { at: 0, mask: u32::from_be_bytes([0, u8::MAX, 0, u8::MAX]), value: version },
        thirds: &Suite::ALL.map(|suite| suite as u8),
        kinds: &[
            Kind { first: Type::Data as u8, length: Length::AtLeast(DATA_LEN_MIN), has: &[index] },
            Kind {
                first: Type::Hello as u8,
                length: Length::Exactly(HELLO_LEN as u16),
                has: &HELLO_ZERO.map(zero),
            },
            Kind { first: Type::Init as u8, length: Length::Exactly(INIT_LEN as u16), has: &[] },
        ],
    })
}

impl Door {
    /// Nobody is there yet. Called where tokio's reactor runs.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_buffers(BUFFER, 0)?;
        let bell = Some(bell(&socket)?);
        Ok(Self { socket, batch: RecvBatch::new(BATCH), bell, at: clock::now(), batches: 0 })
    }

    /// Waits until somebody is there and may be heard; [`Self::callers`] are who it is. Safe to drop and to call again.
    pub async fn next(&mut self) {
        loop {
            // A timer takes its time even where it is late already.
            if self.at > clock::now() {
                until(Some(self.at)).await;
            }
            if let Some(bell) = &self.bell {
                let Ok(mut ready) = bell.readable().await else {
                    // The reactor is gone, and with it whoever waits.
                    return std::future::pending().await;
                };
                ready.clear_ready();
            }
            // An error is one of an answer that could not be delivered.
            let came = self.batch.recv(&self.socket, BATCH).unwrap_or(0);
            self.rest(came);
            if came > 0 {
                return;
            }
        }
    }

    /// Says when the next batch may be read, after one of so many.
    fn rest(&mut self, came: usize) {
        self.bell = match self.bell.take() {
            _ if came > 0 => None,
            None => bell(&self.socket).ok(),
            there => there,
        };
        self.batches = if came == BATCH { self.batches.saturating_add(1) } else { 0 };
        let pause = match came {
            0 if self.bell.is_some() => Duration::ZERO,
            BATCH if self.batches < BATCHES => Duration::ZERO,
            _ if came < FEW => SHORT_PAUSE,
            _ => PAUSE,
        };
        if self.batches >= BATCHES {
            self.batches = 0;
        }
        self.at = clock::now() + pause;
    }

    /// What the last [`Self::next`] has brought.
    pub fn callers(&mut self) -> impl Iterator<Item = Received<'_>> {
        self.batch.received()
    }
}

/// Waits for somebody at the door, for ever where there is none.
pub async fn knock(door: &mut Option<Door>) {
    match door {
        Some(door) => door.next().await,
        None => std::future::pending().await,
    }
}

impl Hub {
    /// Whoever stands at the door.
    pub(super) fn handle_callers(&mut self, now: Instant) {
        let Some(mut door) = self.door.take() else { return };
        let mut computed = false;
        for train in door.callers() {
            let datagrams = train.bytes.chunks(train.segment);
            self.host.plane.count_received(datagrams.len(), train.bytes.len());
            for datagram in datagrams {
                computed |= self.handle_datagram(now, train.path, datagram);
            }
        }
        if computed {
            wipe::stack();
        }
        self.door = Some(door);
    }

    /// A datagram of a handshake. True: Noise may have had the private key, and what it has left on the stack is to be wiped.
    pub(super) fn handle_datagram(&mut self, now: Instant, path: Path, bytes: &[u8]) -> bool {
        let taken = self.server.handle_datagram(now, path, bytes);
        let is = |kind| Header::decode(bytes).is_ok_and(|header| header.kind == kind);
        self.advise(now, path, is(Type::Hello) && taken.is_ok());
        if let Err(reason) = taken {
            self.host.plane.refuse(reason);
        }
        is(Type::Init) && taken != Err(DropReason::BadMac)
    }

    /// Tells of who cannot get in, and why that may be.
    fn advise(&mut self, now: Instant, path: Path, hello: bool) {
        if let Some(key) = self.server.take_stranger() {
            self.advice.stranger(now, path, key);
        }
        if hello {
            let known = || self.paths.values().any(|known| *known == path.remote);
            let nics = self.config.clients.iter().flat_map(|client| &client.nics);
            self.advice.greeted(now, path, known, nics.map(|nic| &nic.spec));
        }
    }
}

fn bell(socket: &UdpSocket) -> io::Result<AsyncFd<OwnedFd>> {
    await_readable(socket.as_fd().try_clone_to_owned()?)
}
