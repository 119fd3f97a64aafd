//! Several sockets on one address, one for each worker (`SO_REUSEPORT`, socket(7)).
//!
//! A small filter of the kernel's own (classic BPF, linux/filter.h) picks the socket by what stands in the datagram, so
//! that one sender's datagrams, all from the same address, can still be shared out.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, sock_filter, socklen_t};

use super::UdpSocket;
use crate::sys::{check, set_option};

/// Hop limit of the first socket; each of the others has one less. The kernel joins datagrams into trains (GRO) only
/// where these are equal, and a train goes to one socket as a whole.
const HOPS: c_int = 64;

/// How datagrams are shared out over the sockets of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// The first byte of those that are shared out. All others go to the first socket.
    pub kind: u8,
    /// The place of their byte that says whose they are: 0 and 1 the first socket's, 2 the second's, and so on,
    /// beginning again after the last.
    pub offset: u8,
}

impl UdpSocket {
    /// Opens `count` sockets on one address, at least one. More may join them later ([`Self::line`]).
    ///
    /// # Errors
    /// `AddrInUse` where anybody else has the address, a group of ours in another process included.
    pub fn bind_group(addr: SocketAddr, count: usize, sharing: Sharing) -> io::Result<Vec<Self>> {
        // Alone at first: who shares gets in beside others who share.
        let first = Self::bind(addr, false)?;
        set_option(first.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        let addr = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(Self::bind(addr, true)?);
        }
        for (socket, hops) in sockets.iter().zip((1..=HOPS).rev()) {
            socket.set_hops(hops)?;
        }
        if let Some(first) = sockets.first().filter(|_| count > 1) {
            first.share(sharing, count)?;
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
        let mut filter = filter(sharing, count);
        let len = u16::try_from(filter.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
        let size = size_of::<libc::sock_fprog>() as socklen_t;
        // SAFETY: the kernel reads one `sock_fprog` and the instructions that it points to; both outlive the call.
        check(unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_CBPF,
                (&raw const program).cast(),
                size,
            )
        })
        .map(drop)
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
        op(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, 0),
        op(BPF_ALU | BPF_SUB | BPF_K, 1, 0, 0),
        op(BPF_ALU | BPF_MOD | BPF_K, count, 0, 0),
        op(BPF_RET | BPF_A, 0, 0, 0),
        op(BPF_RET | BPF_K, 0, 0, 0),
    ]
}

fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // The codes of classic BPF have 8 bits.
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::udp::RecvBatch;

    const SHARING: Sharing = Sharing { kind: 5, offset: 15 };

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
