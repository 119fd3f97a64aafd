//! A worker's way out: its socket, and its line to the control plane.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::tables::Route;
use super::{Notice, PeerKey, seam};
use crate::metrics::{DropReason, Stamp, WorkerCounters};
use crate::nic::Side;
use crate::sys::poll::await_room;
use crate::sys::udp::UdpSocket;
use crate::types::Path;

/// How long a full socket is waited for before the train is dropped.
const SOCKET_PATIENCE: Duration = Duration::from_millis(2);

/// What both lines of a worker need of it.
pub struct Outside {
    /// Which end this is.
    pub side: Side,
    /// Datagrams, both ways.
    pub socket: UdpSocket,
    /// What the worker has done.
    pub counters: Arc<WorkerCounters>,
    /// When the worker's turn began: what its frames are stamped with.
    pub turn: Cell<Stamp>,
    notices: mpsc::Sender<Notice>,
}

impl Outside {
    /// The way out by `socket` and `notices`.
    pub fn new(side: Side, socket: UdpSocket, notices: mpsc::Sender<Notice>) -> Self {
        Self { side, socket, counters: Arc::default(), turn: Cell::default(), notices }
    }

    /// Tells control, if it can take it now. False: it could not, and the loss is counted.
    pub fn tell(&self, notice: Notice) -> bool {
        self.count(seam::tell(&self.notices, notice))
    }

    /// The same for what somebody has sent who need not be anybody's peer ([`seam::tell_of_stranger`]).
    pub fn tell_of_stranger(&self, notice: Notice) -> bool {
        self.count(seam::tell_of_stranger(&self.notices, notice))
    }

    fn count(&self, told: bool) -> bool {
        if !told {
            self.counters.drops.count(DropReason::QueueFull);
        }
        told
    }

    /// Sends a train of sealed datagrams; what cannot be sent is counted. True where all of it went out.
    pub fn send(&self, peer: PeerKey, route: Route<'_>, train: &[u8], segment: usize) -> bool {
        let reason = match self.try_send(route, train, segment) {
            Ok(()) => return true,
            Err(e) => match e.raw_os_error() {
                Some(libc::EMSGSIZE) => {
                    self.tell(Notice::DatagramTooBig { peer });
                    DropReason::DatagramTooBig
                }
                Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::SocketBusy,
                _ => DropReason::SocketRefused,
            },
        };
        self.counters.drops.add(reason, train.len().div_ceil(segment.max(1)) as u64);
        false
    }

    /// By the line, for which the kernel has looked the way up already. Where that fails the open socket has the word: to
    /// a connected one the kernel also tells what a router, or anybody, has said of an earlier datagram (ICMP).
    fn try_send(&self, Route { path, line }: Route<'_>, train: &[u8], segment: usize) -> io::Result<()> {
        match line.map(|line| send_patiently(line, &path, train, segment)) {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) if e.kind() == ErrorKind::WouldBlock => Err(e),
            Some(Err(_)) | None => self.send_openly(&path, train, segment),
        }
    }

    fn send_openly(&self, path: &Path, train: &[u8], segment: usize) -> io::Result<()> {
        let send = |train| send_patiently(&self.socket, path, train, segment);
        match send(train) {
            // Too large for the path, or a train where none can be: one datagram alone tells which.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && train.len() > segment => {
                train.chunks(segment.max(1)).try_for_each(send)
            }
            result => result,
        }
    }
}

fn send_patiently(socket: &UdpSocket, path: &Path, train: &[u8], segment: usize) -> io::Result<()> {
    match socket.send_segments(path, train, segment) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => {
            await_room(socket, SOCKET_PATIENCE)?;
            socket.send_segments(path, train, segment)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::udp::Sharing;

    #[test]
    fn what_was_said_of_an_earlier_datagram_costs_the_next_nothing() {
        let sharing = Sharing { kind: 5, offset: 15, apart: false };
        let open = UdpSocket::bind_group("127.0.0.1:0".parse().unwrap(), 1, sharing).unwrap().remove(0);
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (addr, here) = (peer.local_addr().unwrap(), open.local_addr().unwrap());
        let path = Path::new(addr, Some(here.ip()));
        let line = open.line(&path).unwrap();
        let out = Outside::new(Side::Server, open, mpsc::channel(1).0);
        // Nobody is there: the kernel says so, to the line.
        drop(peer);
        line.send_segments(&path, b"lost", 4).unwrap();
        let peer = std::net::UdpSocket::bind(addr).unwrap();
        assert!(out.send(PeerKey(0), Route { path, line: Some(&line) }, b"heard", 5));
        let mut room = [0; 10];
        assert_eq!(peer.recv_from(&mut room).unwrap(), (5, here));
        assert_eq!((&room[..5], out.counters.drops.seen().count()), (&b"heard"[..], 0));
    }
}
