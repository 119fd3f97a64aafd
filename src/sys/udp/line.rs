//! A socket for what one peer sends: a queue of its own, so that what others send neither fills it nor waits in front.
//!
//! The kernel looks for a connected socket first (`udp4_lib_lookup2`, net/ipv4/udp.c); what no line is for comes to the
//! socket that is open to all. Since Linux 6.13 it finds one of many by its hash; before, it walks along all of them.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use super::UdpSocket;
use super::ancillary::SockAddr;
use crate::sys::check;
use crate::types::Path;

/// Lines that an older kernel finds its way through at little cost to each datagram.
const MOST_WALKED: usize = 32;

/// Lines that a newer kernel is asked for.
const MOST_HASHED: usize = 4096;

impl UdpSocket {
    /// Opens a socket that gets what `path.remote` sends to `path.local` and this socket's port, from now on, and sends
    /// there only. What came before stays where it is. This socket must be one of [`Self::bind_group`].
    ///
    /// # Errors
    /// `InvalidInput` where the path does not say to which of our addresses. `EACCES` for a port below 1024 that a
    /// process which may no longer bind it has (`CAP_NET_BIND_SERVICE`).
    pub fn line(&self, path: &Path) -> io::Result<Self> {
        let local = path.local.ok_or(ErrorKind::InvalidInput)?;
        let port = self.local_addr()?.port();
        let local = match (local, path.remote) {
            // A link-local address is one only together with its link.
            (IpAddr::V6(ip), SocketAddr::V6(remote)) => {
                SocketAddrV6::new(ip, port, 0, remote.scope_id()).into()
            }
            (ip, _) => SocketAddr::new(ip, port),
        };
        let mut line = Self::bind(local, true)?;
        let (name, len) = SockAddr::encode(path.remote, line.v6)?;
        // SAFETY: `name` holds a socket address of `len` bytes and outlives the call.
        check(unsafe { libc::connect(line.fd.as_raw_fd(), name.as_ptr(), len) })?;
        line.connected = true;
        Ok(line)
    }
}

/// How many lines one port should have at the most with this kernel.
pub fn most_lines() -> usize {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) if hashes(&release) => MOST_HASHED,
        _ => MOST_WALKED,
    }
}

fn hashes(release: &str) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(6), Some(13))
}

#[cfg(test)]
mod tests {
    use super::super::{RecvBatch, Sharing};
    use super::*;

    const SHARING: Sharing = Sharing { kind: 5, offset: 15, apart: false };

    /// What has come, once it is so many: a busy kernel delivers later.
    fn got(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let (mut batch, mut all) = (RecvBatch::new(8), Vec::new());
        for _ in 0..10_000 {
            batch.recv(socket, 8).unwrap();
            all.extend(batch.received().map(|train| train.bytes.to_vec()));
            if all.len() >= count {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        all
    }

    #[test]
    fn each_gets_what_its_peer_sends_and_others_go_to_the_socket_that_is_open_to_all() {
        for (any, ip) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "127.0.0.7"), ("[::]:0", "::1")] {
            let open = UdpSocket::bind_group(any.parse().unwrap(), 1, SHARING).unwrap().remove(0);
            let ip: IpAddr = ip.parse().unwrap();
            let there = SocketAddr::new(ip, open.local_addr().unwrap().port());
            let loopback: SocketAddr = if ip.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
            let peers = [0; 3].map(|_| std::net::UdpSocket::bind(loopback).unwrap());
            peers[0].send_to(b"before", there).unwrap();
            let [a, b] = [0, 1]
                .map(|i: usize| open.line(&Path::new(peers[i].local_addr().unwrap(), Some(ip))).unwrap());
            for (i, peer) in peers.iter().enumerate() {
                peer.send_to(&[i as u8], there).unwrap();
            }
            assert_eq!(got(&a, 1), [[0]], "{any} {ip}");
            assert_eq!(got(&b, 1), [[1]]);
            assert_eq!(got(&open, 2), [&b"before"[..], &[2]]);
            drop(a);
            peers[0].send_to(b"after", there).unwrap();
            assert_eq!(got(&open, 1), [b"after"]);
        }
    }

    #[test]
    fn it_sends_to_its_peer_alone_and_from_the_shared_address() {
        for (any, ip) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "127.0.0.7"), ("[::]:0", "::1")] {
            let open = UdpSocket::bind_group(any.parse().unwrap(), 1, SHARING).unwrap().remove(0);
            let ip: IpAddr = ip.parse().unwrap();
            let loopback: SocketAddr = if ip.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
            let [peer, other] = [0; 2].map(|_| std::net::UdpSocket::bind(loopback).unwrap());
            let line = open.line(&Path::new(peer.local_addr().unwrap(), Some(ip))).unwrap();
            let elsewhere = Path::new(other.local_addr().unwrap(), None);
            line.send_segments(&elsewhere, &[7; 30], 10).unwrap();
            for _ in 0..3 {
                let (n, from) = peer.recv_from(&mut [0; 100]).unwrap();
                assert_eq!((n, from), (10, SocketAddr::new(ip, open.local_addr().unwrap().port())));
            }
        }
    }

    #[test]
    fn a_full_queue_of_one_peer_leaves_the_others_theirs() {
        let open = UdpSocket::bind_group("127.0.0.1:0".parse().unwrap(), 1, SHARING).unwrap().remove(0);
        let there = open.local_addr().unwrap();
        let [loud, quiet] = [0; 2].map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let path = |peer: &std::net::UdpSocket| Path::new(peer.local_addr().unwrap(), Some(there.ip()));
        let (_loud_line, quiet_line) = (open.line(&path(&loud)).unwrap(), open.line(&path(&quiet)).unwrap());
        for _ in 0..2000 {
            loud.send_to(&[0; 1400], there).unwrap();
        }
        quiet.send_to(b"heard", there).unwrap();
        assert_eq!(got(&quiet_line, 1), [b"heard"]);
    }

    #[test]
    fn without_our_own_address_there_is_none() {
        let open = UdpSocket::bind_group("127.0.0.1:0".parse().unwrap(), 1, SHARING).unwrap().remove(0);
        let path = Path::new("127.0.0.1:9".parse().unwrap(), None);
        assert_eq!(open.line(&path).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn kernels_are_told_apart_by_their_version() {
        for release in ["6.18.44-fc", "6.13.0", "7.0", "10"] {
            assert!(hashes(release), "{release}");
        }
        for release in ["6.12.48+deb13-amd64", "5.15.0", "", "six"] {
            assert!(!hashes(release), "{release}");
        }
    }
}
