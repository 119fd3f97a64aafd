//! Echo requests (RFC 792, RFC 4443), sent and timed by this process itself.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::sys::packet::icmp;

/// One target, asked again and again.
#[derive(Debug)]
pub struct Pinger {
    socket: UdpSocket,
    target: IpAddr,
    sequence: u16,
    /// Tells our answers from those to others on this host.
    id: [u8; 2],
}

impl Pinger {
    /// Opens the socket in the calling thread's network namespace; later calls may come from any thread.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW.
    pub fn new(target: IpAddr) -> io::Result<Self> {
        let socket = icmp(target.is_ipv6())?;
        let id = rand::random();
        Ok(Self { socket, target, sequence: 0, id })
    }

    /// Sends one request and waits for its answer. `None`: no answer came within `patience`, or the request
    /// could not be sent because there is no route, no neighbour or no link.
    ///
    /// # Errors
    /// The socket failed in some other way.
    pub fn once(&mut self, patience: Duration) -> io::Result<Option<Duration>> {
        let sent = Instant::now();
        let answered = self.send()? && self.wait((sent, patience), self.sequence)?.is_some();
        Ok(answered.then(|| sent.elapsed()))
    }

    /// Asks until an answer comes, to whichever request; its round trip, or `None` if none came within `patience`.
    ///
    /// # Errors
    /// As [`Pinger::once`].
    pub fn until_answered(&mut self, patience: Duration) -> io::Result<Option<Duration>> {
        let (start, first) = (Instant::now(), self.sequence.wrapping_add(1));
        let mut asked = Vec::new();
        loop {
            let (now, left) = (Instant::now(), patience.saturating_sub(start.elapsed()));
            if left.is_zero() {
                return Ok(None);
            }
            asked.push(now);
            // A path may be slower than requests follow each other.
            if self.send()?
                && let Some(sequence) = self.wait((now, left.min(PAUSE)), first)?
            {
                let sent = asked.get(usize::from(sequence.wrapping_sub(first)));
                return Ok(sent.map(Instant::elapsed));
            }
            std::thread::sleep(PAUSE.saturating_sub(now.elapsed()));
        }
    }

    /// Sends the next request; false where there is no way to the target.
    fn send(&mut self) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        match self.socket.send_to(&self.request(), SocketAddr::new(self.target, 0)) {
            Ok(_) => Ok(true),
            Err(e) if unreachable(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Waits until so long after then for an answer to a request since the one with the number `first`: its number.
    fn wait(&self, (since, patience): (Instant, Duration), first: u16) -> io::Result<Option<u16>> {
        let mut buffer = [0u8; 2048];
        loop {
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) if from.ip() == self.target => {
                    let answered = buffer.get(..len).and_then(|message| self.answers(message, first));
                    if answered.is_some() {
                        return Ok(answered);
                    }
                }
                Ok(_) => {}
                Err(e) if waiting(&e) || unreachable(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn request(&self) -> Vec<u8> {
        let kind = if self.target.is_ipv6() { 128 } else { 8 };
        let [s0, s1] = self.sequence.to_be_bytes();
        let [i0, i1] = self.id;
        let mut message = vec![kind, 0, 0, 0, i0, i1, s0, s1];
        message.extend_from_slice(b"tap-rs echo request, 40 bytes or so long");
        if !self.target.is_ipv6() {
            let [c0, c1] = checksum(&message);
            message.splice(2..4, [c0, c1]);
        }
        message
    }

    /// The number of the request that this answers, if it is one since `first`.
    fn answers(&self, message: &[u8], first: u16) -> Option<u16> {
        let (kind, message) = match self.target {
            IpAddr::V6(_) => (129, message),
            // The header's length in words is in the low half of its first byte (RFC 791).
            IpAddr::V4(_) => {
                let header = message.first().map_or(0, |b| usize::from(b & 15).saturating_mul(4));
                (0, message.get(header..).unwrap_or_default())
            }
        };
        let [k, 0, _, _, a, b, c, d, ..] = message else { return None };
        let sequence = u16::from_be_bytes([*c, *d]);
        let since = sequence.wrapping_sub(first) <= self.sequence.wrapping_sub(first);
        (*k == kind && [*a, *b] == self.id && since).then_some(sequence)
    }
}

/// From one request to the next.
const PAUSE: Duration = Duration::from_millis(100);

fn waiting(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn unreachable(e: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        e.kind(),
        NetworkUnreachable | HostUnreachable | NetworkDown | AddrNotAvailable | PermissionDenied
    ) || e.raw_os_error() == Some(libc::ENOBUFS)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let (pairs, last) = bytes.as_chunks::<2>();
    let words = pairs.iter().copied().chain(last.first().map(|b| [*b, 0]));
    let sum = words.fold(0u64, |sum, word| sum.wrapping_add(u64::from(u16::from_be_bytes(word))));
    // One's complement: adding 65,536 is adding 1.
    let folded = sum.checked_rem(0xffff).unwrap_or_default();
    let folded = if folded == 0 && sum != 0 { 0xffff } else { folded };
    (!u16::try_from(folded).unwrap_or_default()).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), [0x22, 0x0d]);
        assert_eq!(checksum(&[0xff, 0xff]), [0, 0]);
        assert_eq!(checksum(&[0]), [0xff, 0xff]);
    }

    #[test]
    fn only_the_answers_to_the_last_requests_count() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let v4 = Pinger { socket, target: [192, 0, 2, 1].into(), sequence: 7, id: [1, 2] };
        let mut packet = vec![0x45; 1];
        packet.resize(20, 0);
        packet.extend([0, 0, 9, 9, 1, 2, 0, 7, b'x']);
        assert_eq!(v4.answers(&packet, 7), Some(7));
        for (at, value) in [(20, 8), (24, 3), (27, 6), (27, 8), (0, 0x4f)] {
            let mut other = packet.clone();
            other[at] = value;
            assert_eq!(v4.answers(&other, 7), None, "byte {at}");
        }
        assert_eq!((v4.answers(&[], 7), v4.answers(&packet[..24], 7)), (None, None));
        let mut earlier = packet.clone();
        earlier[27] = 6;
        assert_eq!([5, 6, 7].map(|first| v4.answers(&earlier, first)), [Some(6), Some(6), None]);
    }
}
