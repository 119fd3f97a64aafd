//! The sockets that a worker receives on: one that is open to all, and a line for each peer.
//!
//! A line is a queue of the peer's own in the kernel ([`UdpSocket::line`]). What one peer sends too much is lost there and
//! displaces nobody else's, and so is a flood from strangers, for which the open socket is left. It also sends to the
//! peer, for less: the kernel looks a connected socket's route up once, not for each train. Which socket a datagram came
//! by means nothing: it is checked like any other. Where a line cannot be had, the open socket serves as well.

use std::sync::Arc;

use super::PeerKey;
use super::tables::Map;
use crate::sys::poll::{Epoll, Interest};
use crate::sys::udp::UdpSocket;
use crate::types::Path;

/// Set in the epoll token of a line; below it is the peer's key.
const LINE: u64 = 1 << 32;

/// The lines of a worker.
pub struct Lines {
    most: usize,
    buffer: usize,
    by_peer: Map<PeerKey, Line>,
}

struct Line {
    path: Path,
    /// None: it could not be had for this path, which is not tried again.
    socket: Option<Arc<UdpSocket>>,
}

impl Lines {
    /// Up to `most` of them, with `buffer` bytes each for what waits.
    pub fn new(most: usize, buffer: usize) -> Self {
        Self { most, buffer, by_peer: Map::default() }
    }

    /// Has `peer` reached by `path` from now on: opens a line for it. The one that it had is given back, with what has
    /// come by it and has not been received.
    pub fn follow(
        &mut self,
        peer: PeerKey,
        path: Path,
        open: &UdpSocket,
        epoll: &Epoll,
    ) -> Option<Arc<UdpSocket>> {
        if self.by_peer.get(&peer).is_some_and(|line| line.path == path) {
            return None;
        }
        let old = self.remove(peer, epoll);
        if self.by_peer.len() < self.most {
            let token = LINE | u64::from(peer.0);
            let socket = open.line(&path).ok().filter(|line| {
                // A smaller buffer than wanted is one all the same.
                let _ = line.set_buffers(self.buffer, self.buffer);
                epoll.add(line, token, Interest::READ).is_ok()
            });
            self.by_peer.insert(peer, Line { path, socket: socket.map(Arc::new) });
        }
        old
    }

    /// Takes the line of `peer` away.
    pub fn remove(&mut self, peer: PeerKey, epoll: &Epoll) -> Option<Arc<UdpSocket>> {
        let socket = self.by_peer.remove(&peer)?.socket?;
        let _ = epoll.delete(&socket);
        Some(socket)
    }

    /// The line that an epoll token stands for.
    pub fn named(&self, token: u64) -> Option<&UdpSocket> {
        let peer = PeerKey(u32::try_from(token ^ LINE).ok()?);
        self.by_peer.get(&peer)?.socket.as_deref()
    }

    /// The line of `peer`.
    pub fn of(&self, peer: PeerKey) -> Option<Arc<UdpSocket>> {
        self.by_peer.get(&peer)?.socket.clone()
    }
}
