//! Several sockets on one address, one for each worker (`SO_REUSEPORT`, socket(7)).
//!
//! A small filter of the kernel's own picks the socket by what stands in the datagram, so that one sender's datagrams, all
//! from the same address, can still be shared out, and what comes from anybody has a queue of its own.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use libc::{c_int, sock_filter};

use super::UdpSocket;
use super::bpf::op;
use crate::sys::set_option;

/// Hop limit of the first socket; each of the others has one less. The kernel joins datagrams into trains (GRO) only
/// where these are equal, and a train goes to one socket as a whole.
const HOPS: c_int = 64;

/// How datagrams are shared out over the sockets of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// The first byte of those that are shared out.
    pub kind: u8,
    /// The place of their byte that says whose they are: 0 and 1 the first socket's, 2 the second's, and so on,
    /// beginning again after the last.
    pub offset: u8,
    /// All others go to a socket of their own; else to the first.
    pub apart: bool,
}

impl UdpSocket {
    /// Opens `count` sockets on one address, at least one, and where others are to be apart one more for them, the last;
    /// that one is left out where a kernel does not pick sockets and `count` is 1. More may join them later ([`Self::line`]).
    ///
    /// # Errors
    /// `AddrInUse` where anybody else has the address, a group of ours in another process included.
    pub fn bind_group(addr: SocketAddr, count: usize, sharing: Sharing) -> io::Result<Vec<Self>> {
        // Alone at first: who shares gets in beside others who share.
        let first = Self::bind(addr, false)?;
        set_option(first.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        let addr = first.local_addr()?;
        let mut sockets = vec![first];
        let all = count.max(1).saturating_add(sharing.apart.into());
        for _ in 1..all {
            sockets.push(Self::bind(addr, true)?);
        }
        for (socket, hops) in sockets.iter().zip((1..=HOPS).rev()) {
            socket.set_hops(hops)?;
        }
        if let Some(first) = sockets.first().filter(|_| all > 1) {
            match first.share(sharing, count) {
                Err(_) if count <= 1 => sockets.truncate(1),
                shared => shared?,
            }
        }
        Ok(sockets)
    }

    fn set_hops(&self, hops: c_int) -> io::Result<()> {
        if self.v6 {
            set_option(self.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, hops)?;
        }
        set_option(self.as_fd(), libc::IPPROTO_IP, libc::IP_TTL, hops)
    }

    /// Gives the whole group its filter.
    fn share(&self, sharing: Sharing, count: usize) -> io::Result<()> {
        let count = u32::try_from(count).map_err(|_| ErrorKind::InvalidInput)?;
        self.attach(libc::SO_ATTACH_REUSEPORT_CBPF, &mut filter(sharing, count.max(1)))
    }
}

/// The filter; what it returns is the number of a socket in the order in which they were bound. One that loads past
/// the end of a datagram returns 0.
fn filter(sharing: Sharing, count: u32) -> [sock_filter; 8] {
    use libc::{BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET, BPF_SUB};
    let load = |offset: u8| op(BPF_LD | BPF_B | BPF_ABS, offset.into(), 0, 0);
    [
        load(0),
        op(BPF_JMP | BPF_JEQ | BPF_K, sharing.kind.into(), 0, 5),
        load(sharing.offset),
        op(BPF_JMP | BPF_JEQ | BPF_K, 0, 2, 0),
        op(BPF_ALU | BPF_SUB | BPF_K, 1, 0, 0),
        op(BPF_ALU | BPF_MOD | BPF_K, count, 0, 0),
        op(BPF_RET | BPF_A, 0, 0, 0),
        op(BPF_RET | BPF_K, if sharing.apart { count } else { 0 }, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::udp::RecvBatch;

    const SHARING: Sharing = Sharing { kind: 5, offset: 15, apart: false };

    fn datagram(kind: u8, whose: u8) -> [u8; 20] {
        let mut bytes = [0xee; 20];
        (bytes[0], bytes[15]) = (kind, whose);
        bytes
    }

    /// The sockets that have got something since the last time, once one has: a busy kernel delivers later.
    fn got(sockets: &[UdpSocket]) -> Vec<usize> {
        let got = |socket: &UdpSocket| RecvBatch::new(8).recv(socket, 8).is_ok_and(|n| n > 0);
        for _ in 0..10_000 {
            let which: Vec<_> = sockets.iter().enumerate().filter(|(_, s)| got(s)).map(|(i, _)| i).collect();
            if !which.is_empty() {
                return which;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Vec::new()
    }

    #[test]
    fn each_datagram_goes_to_the_socket_that_it_names() {
        for addr in ["127.0.0.1:0", "[::]:0"] {
            let sockets = UdpSocket::bind_group(addr.parse().unwrap(), 3, SHARING).unwrap();
            let to = (std::net::Ipv4Addr::LOCALHOST, sockets[0].local_addr().unwrap().port());
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for (bytes, socket) in [
                (&datagram(5, 0)[..], 0),
                (&datagram(5, 1), 0),
                (&datagram(5, 2), 1),
                (&datagram(5, 3), 2),
                (&datagram(5, 4), 0),
                (&datagram(5, 15), 2),
                (&datagram(1, 3), 0),
                (&datagram(4, 2), 0),
                (&datagram(5, 3)[..15], 0),
                (b"", 0),
            ] {
                sender.send_to(bytes, to).unwrap();
                assert_eq!(got(&sockets), [socket], "{addr} {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_not_shared_out_has_a_socket_of_its_own_beside_one_or_several() {
        let apart = Sharing { apart: true, ..SHARING };
        for (count, third) in [(1, 0), (3, 2)] {
            let sockets = UdpSocket::bind_group("127.0.0.1:0".parse().unwrap(), count, apart).unwrap();
            assert_eq!(sockets.len(), count + 1);
            let to = sockets[0].local_addr().unwrap();
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for (bytes, socket) in [
                (&datagram(5, 0)[..], 0),
                (&datagram(5, 3), third),
                (&datagram(1, 3), count),
                (&datagram(3, 0), count),
            ] {
                sender.send_to(bytes, to).unwrap();
                assert_eq!(got(&sockets), [socket], "{count} {bytes:?}");
            }
            // A line beside them changes nothing for the rest.
            let line = sockets[0].line(&crate::types::Path::new(sender.local_addr().unwrap(), Some(to.ip())));
            sender.send_to(&datagram(1, 0), to).unwrap();
            assert!(got(&sockets).is_empty());
            assert_eq!(got(&[line.unwrap()]), [0]);
            let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            other.send_to(&datagram(1, 0), to).unwrap();
            assert_eq!(got(&sockets), [count]);
        }
    }

    #[test]
    fn an_address_that_somebody_has_is_refused_to_a_group_too() {
        let first = UdpSocket::bind_group("127.0.0.1:0".parse().unwrap(), 2, SHARING).unwrap();
        let addr = first[0].local_addr().unwrap();
        let again = UdpSocket::bind_group(addr, 2, SHARING);
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn one_socket_has_its_address_for_itself() {
        let one = UdpSocket::bind_group("127.0.0.1:0".parse().unwrap(), 1, SHARING).unwrap();
        assert_eq!(one.len(), 1);
        assert!(UdpSocket::bind_group(one[0].local_addr().unwrap(), 1, SHARING).is_err());
    }
}
