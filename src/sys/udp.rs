//! UDP sockets for the data path: one `sendmsg` for a train of datagrams (UDP GSO), one `recvmmsg` for trains
//! of them (UDP GRO), and on each the local address (PKTINFO). Nothing is allocated per call.
//!
//! Datagrams carry "don't fragment" and are never fragmented: one that is larger than the interface's MTU is
//! refused with `EMSGSIZE` (or `EINVAL`, for a train whose segments are too large).

mod admission;
mod ancillary;
mod batch;
mod bpf;
mod group;
mod line;

use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use libc::{c_int, socklen_t};

pub use self::admission::{Admission, Bits, Kind, Length};
use self::ancillary::{Control, SockAddr};
pub use self::batch::{MAX_SLOTS, Received, RecvBatch, SLOT_LEN};
pub use self::group::Sharing;
pub use self::line::most_lines;
use super::{check, option, set_option};
use crate::types::Path;

/// Most datagrams in one train (`UDP_MAX_SEGMENTS` in linux/udp.h; newer kernels take 128).
pub const MAX_SEGMENTS: usize = 64;

/// Most bytes in one train: what the length field of an IPv4 datagram can say, less its headers.
pub const MAX_TRAIN: usize = 65_507;

/// A bound UDP socket, nonblocking. Any thread may send and receive on it.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    v6: bool,
    /// It has one peer, and an address of ours ([`Self::line`]): no datagram needs to name them.
    connected: bool,
    /// The route's device cannot do what UDP GSO needs (`EIO`): datagrams are sent one by one.
    one_by_one: AtomicBool,
}

impl UdpSocket {
    /// Opens a socket on `addr`. `[::]` serves IPv4 too. With `reuse_port`, other sockets of the same user may
    /// bind the same address, and the kernel spreads flows over them (`SO_REUSEPORT`).
    pub fn bind(addr: SocketAddr, reuse_port: bool) -> io::Result<Self> {
        let v6 = addr.is_ipv6();
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::socket(family, kind, 0))?) };
        let socket = Self { fd, v6, connected: false, one_by_one: AtomicBool::new(false) };
        socket.prepare(reuse_port)?;
        let (name, len) = SockAddr::encode(addr, v6)?;
        // SAFETY: `name` holds a socket address of `len` bytes and outlives the call.
        check(unsafe { libc::bind(socket.fd.as_raw_fd(), name.as_ptr(), len) })?;
        Ok(socket)
    }

    fn prepare(&self, reuse_port: bool) -> io::Result<()> {
        let set = |level, name, value| set_option(self.as_fd(), level, name, value);
        if reuse_port {
            set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        if self.v6 {
            set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
            set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
            set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
        // On an IPv6 socket these are for the IPv4 peers that it serves.
        set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        // Kernels before 5.0 have no UDP_GRO; everything works without it, slower.
        match set(libc::SOL_UDP, libc::UDP_GRO, 1) {
            Err(e) if e.raw_os_error() != Some(libc::ENOPROTOOPT) => Err(e),
            _ => Ok(()),
        }
    }

    /// As [`set_buffers`].
    pub fn set_buffers(&self, receive: usize, send: usize) -> io::Result<(usize, usize)> {
        set_buffers(self, receive, send)
    }

    /// Sends `datagrams` along `path`, which is a line's own whatever is said here, cut every `segment` bytes (the last may be shorter), in one system call. At most
    /// [`MAX_SEGMENTS`] of them and [`MAX_TRAIN`] bytes, else `InvalidInput`.
    ///
    /// `WouldBlock`: nothing was sent, the send buffer is full. Where the device cannot do UDP GSO the datagrams
    /// are sent one by one, and an error may then leave the first of them sent.
    pub fn send_segments(&self, path: &Path, datagrams: &[u8], segment: usize) -> io::Result<()> {
        self.send_segments_vectored(path, &[IoSlice::new(datagrams)], segment)
    }

    /// As [`Self::send_segments`], with the bytes in several places: cuts do not heed where a slice ends.
    pub fn send_segments_vectored(
        &self,
        path: &Path,
        datagrams: &[IoSlice<'_>],
        segment: usize,
    ) -> io::Result<()> {
        let len = datagrams.iter().fold(0usize, |n, s| n.saturating_add(s.len()));
        if len <= segment {
            return self.send(path, datagrams, None);
        }
        let most = segment.saturating_mul(MAX_SEGMENTS).min(MAX_TRAIN);
        let (true, Ok(size)) = (len <= most, u16::try_from(segment)) else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "too many datagrams for one send"));
        };
        if !self.one_by_one.load(Relaxed) {
            match self.send(path, datagrams, Some(size)) {
                Err(e) if e.raw_os_error() == Some(libc::EIO) => self.one_by_one.store(true, Relaxed),
                other => return other,
            }
        }
        self.send_one_by_one(path, datagrams, segment)
    }

    /// Apart, so that its large frame is no part of what every train goes through.
    #[cold]
    #[inline(never)]
    fn send_one_by_one(&self, path: &Path, datagrams: &[IoSlice<'_>], segment: usize) -> io::Result<()> {
        let mut gathered = [0u8; MAX_TRAIN];
        let mut len = 0usize;
        for slice in datagrams {
            let end = len.saturating_add(slice.len());
            let room = gathered.get_mut(len..end).ok_or(ErrorKind::InvalidInput)?;
            room.copy_from_slice(slice);
            len = end;
        }
        let gathered = gathered.get(..len).unwrap_or_default();
        gathered.chunks(segment.max(1)).try_for_each(|one| self.send(path, &[IoSlice::new(one)], None))
    }

    fn send(&self, path: &Path, bytes: &[IoSlice<'_>], segment: Option<u16>) -> io::Result<()> {
        let mut control = Control::empty();
        if let Some(local) = path.local.filter(|_| !self.connected) {
            control.push_source(local, path.remote);
        }
        if let Some(segment) = segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        // SAFETY: `msghdr` is plain data, for which all zero is a value (no name, no bytes, no control).
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        let (name, name_len) = SockAddr::encode(path.remote, self.v6)?;
        if !self.connected {
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name_len;
        }
        header.msg_iov = bytes.as_ptr().cast_mut().cast();
        header.msg_iovlen = bytes.len() as _;
        if control.len() > 0 {
            header.msg_control = control.as_ptr().cast_mut();
            header.msg_controllen = control.len() as _;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: name, control and bytes are only read by the kernel, have the lengths given and outlive the
        // call; std documents `IoSlice` to have the layout of `iovec`.
        let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &header, flags) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Another handle on the same socket.
    pub fn try_clone(&self) -> io::Result<Self> {
        let one_by_one = AtomicBool::new(self.one_by_one.load(Relaxed));
        Ok(Self { fd: self.fd.try_clone()?, v6: self.v6, connected: self.connected, one_by_one })
    }

    /// The address that the socket is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let mut name = SockAddr::empty();
        let mut len = SockAddr::ROOM as socklen_t;
        // SAFETY: the kernel writes at most `len` bytes into `name`; both outlive the call.
        check(unsafe { libc::getsockname(self.fd.as_raw_fd(), name.as_mut_ptr(), &mut len) })?;
        name.decode().ok_or_else(|| ErrorKind::InvalidData.into())
    }
}

/// Sets the sizes of a socket's buffers in the kernel in bytes, past the system's limits where we have the right to
/// (`CAP_NET_ADMIN`), else up to them. Returns the receive and send sizes that the kernel gave, which counts its own
/// overhead too and so reports twice what was asked (socket(7)).
pub fn set_buffers(socket: impl AsFd, receive: usize, send: usize) -> io::Result<(usize, usize)> {
    let fd = socket.as_fd();
    let ask = |force, plain, bytes: usize| {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        set_option(fd, libc::SOL_SOCKET, force, bytes)
            .or_else(|_| set_option(fd, libc::SOL_SOCKET, plain, bytes))?;
        let got = option(fd, libc::SOL_SOCKET, plain)?;
        io::Result::Ok(usize::try_from(got).unwrap_or(0))
    };
    Ok((
        ask(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, receive)?,
        ask(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, send)?,
    ))
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The MTU in bytes, IP header included, of the way to `path.remote`: its route's, the interface's, or what
/// path MTU discovery has taught the kernel about that host. `None`: there is no route.
pub fn path_mtu_hint(path: &Path) -> Option<u16> {
    let any: IpAddr =
        if path.remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((path.local.unwrap_or(any), 0)).ok()?;
    socket.connect(path.remote).ok()?;
    let (level, name) = match path.remote {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mtu = option(socket.as_fd(), level, name).ok()?;
    // The loopback device has 65536.
    u16::try_from(mtu.min(c_int::from(u16::MAX))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{Epoll, Events, Interest};
    use std::time::{Duration, Instant};

    fn bind(addr: &str) -> UdpSocket {
        UdpSocket::bind(addr.parse().unwrap(), false).unwrap()
    }

    fn to(socket: &UdpSocket, ip: &str) -> Path {
        Path::new(SocketAddr::new(ip.parse().unwrap(), socket.local_addr().unwrap().port()), None)
    }

    /// What arrives within some seconds: path, segment size and bytes of each train, until `len` bytes came.
    fn receive(socket: &UdpSocket, len: usize) -> Vec<(Path, usize, Vec<u8>)> {
        let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(1));
        epoll.add(socket, 0, Interest::READ).unwrap();
        let mut batch = RecvBatch::new(4);
        let (mut trains, mut total) = (Vec::new(), 0);
        let deadline = Instant::now() + Duration::from_secs(10);
        while total < len && Instant::now() < deadline {
            epoll.wait(&mut events, Some(Duration::from_millis(100))).unwrap();
            batch.recv(socket, 4).unwrap();
            for Received { path, segment, bytes } in batch.received() {
                total += bytes.len();
                trains.push((path, segment, bytes.to_vec()));
            }
        }
        trains
    }

    #[test]
    fn a_train_sent_in_one_call_arrives_in_one_piece() {
        let (a, b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
        let bytes: Vec<u8> = (0..60_000u32).map(|i| (i % 251) as u8).collect();
        let (head, tail) = bytes.split_at(777);
        let slices = [IoSlice::new(head), IoSlice::new(tail)];
        a.send_segments_vectored(&to(&b, "127.0.0.1"), &slices, 1400).unwrap();
        let trains = receive(&b, bytes.len());
        assert_eq!(trains.len(), 1, "GRO did not join the train");
        let (path, segment, got) = &trains[0];
        assert_eq!((*segment, got == &bytes), (1400, true));
        assert_eq!(path.remote, a.local_addr().unwrap());
    }

    #[test]
    fn a_train_goes_datagram_by_datagram_where_gso_is_missing() {
        let (a, b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
        a.one_by_one.store(true, Relaxed);
        let bytes = [7u8; 3500];
        a.send_segments(&to(&b, "127.0.0.1"), &bytes, 1400).unwrap();
        let sizes: Vec<_> = receive(&b, bytes.len()).iter().map(|t| (t.1, t.2.len())).collect();
        assert_eq!(sizes, [(1400, 1400), (1400, 1400), (700, 700)]);
    }

    #[test]
    fn a_train_past_its_bounds_is_refused() {
        let (a, b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
        for (len, segment) in [(65, 1), (MAX_TRAIN + 1, 1400), (5, 0)] {
            let e = a.send_segments(&to(&b, "127.0.0.1"), &vec![0; len], segment).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidInput, "{len} by {segment}");
        }
        a.send_segments(&to(&b, "127.0.0.1"), &[1; 64], 1).unwrap();
        assert_eq!(receive(&b, 64).iter().map(|t| t.2.len()).sum::<usize>(), 64);
    }

    #[test]
    fn the_address_spoken_to_answers() {
        for (any, ip) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "127.0.0.7"), ("[::]:0", "::1")] {
            let server = bind(any);
            let client = bind(if ip == "::1" { "[::1]:0" } else { "127.0.0.1:0" });
            client.send_segments(&to(&server, ip), b"question", 1000).unwrap();
            let (path, _, _) = receive(&server, 8).remove(0);
            assert_eq!(path, Path::new(client.local_addr().unwrap(), ip.parse().ok()), "{any}");
            server.send_segments(&path, b"answer", 1000).unwrap();
            let (back, _, bytes) = receive(&client, 6).remove(0);
            assert_eq!(back.remote, to(&server, ip).remote, "{any}");
            assert_eq!(bytes, b"answer");
        }
    }

    #[test]
    fn fragmenting_is_off_for_either_family() {
        let (a, b) = (bind("127.0.0.1:0"), bind("[::]:0"));
        for (socket, level, name) in [
            (&a, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            (&b, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            (&b, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
        ] {
            assert_eq!(option(socket.as_fd(), level, name).unwrap(), libc::IP_PMTUDISC_PROBE);
        }
    }

    #[test]
    fn sockets_may_share_a_port_where_both_say_so() {
        let a = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let addr = a.local_addr().unwrap();
        UdpSocket::bind(addr, true).unwrap();
        assert_eq!(UdpSocket::bind(addr, false).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(a.try_clone().unwrap().local_addr().unwrap(), addr);
    }

    #[test]
    fn buffers_are_as_large_as_the_system_allows() {
        let (receive, send) = bind("127.0.0.1:0").set_buffers(1 << 17, 1 << 16).unwrap();
        assert!(receive >= 1 << 17 && send >= 1 << 16, "{receive} {send}");
    }

    #[test]
    fn the_mtu_of_a_way_is_its_interfaces() {
        assert_eq!(path_mtu_hint(&Path::new("127.0.0.1:9".parse().unwrap(), None)), Some(u16::MAX));
        assert_eq!(path_mtu_hint(&Path::new("[::1]:9".parse().unwrap(), None)), Some(u16::MAX));
    }
}
