//! Socket addresses and control messages as the kernel lays them out, built and read in safe code
//! (`struct sockaddr_in`, `sockaddr_in6`: linux/in.h, in6.h; `struct cmsghdr`: cmsg(3)).

use std::ffi::c_void;
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use libc::{c_int, sockaddr, socklen_t};

/// Room for an IPv4 or IPv6 socket address.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct SockAddr([u8; Self::ROOM]);

const LEN_V4: usize = size_of::<libc::sockaddr_in>();
const LEN_V6: usize = size_of::<libc::sockaddr_in6>();
const _: () = assert!(LEN_V4 == 16 && LEN_V6 == 28 && LEN_V6 <= SockAddr::ROOM);

impl SockAddr {
    /// Bytes of room.
    pub(super) const ROOM: usize = 32;

    pub(super) const fn empty() -> Self {
        Self([0; Self::ROOM])
    }

    /// `addr` for a socket of the family told by `v6`, and its length in bytes.
    pub(super) fn encode(addr: SocketAddr, v6: bool) -> io::Result<(Self, socklen_t)> {
        let [p0, p1] = addr.port().to_be_bytes();
        let mut out = Self::empty();
        match (addr, v6) {
            (SocketAddr::V4(v4), false) => {
                let [f0, f1] = (libc::AF_INET as u16).to_ne_bytes();
                let [a, b, c, d] = v4.ip().octets();
                let bytes = [f0, f1, p0, p1, a, b, c, d];
                out.put(0, &bytes);
                Ok((out, LEN_V4 as socklen_t))
            }
            (SocketAddr::V6(_), false) => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
            (addr, true) => {
                let (ip, scope) = match addr {
                    SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
                    SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
                };
                let [f0, f1] = (libc::AF_INET6 as u16).to_ne_bytes();
                out.put(0, &[f0, f1, p0, p1]);
                out.put(8, &ip.octets());
                out.put(24, &scope.to_ne_bytes());
                Ok((out, LEN_V6 as socklen_t))
            }
        }
    }

    /// The address that is here, if it is IPv4 or IPv6.
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        let (family, rest) = self.0.split_first_chunk::<2>()?;
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let port = u16::from_be_bytes(*port);
        match c_int::from(u16::from_ne_bytes(*family)) {
            libc::AF_INET => {
                let ip = rest.first_chunk::<4>()?;
                Some((Ipv4Addr::from(*ip), port).into())
            }
            libc::AF_INET6 => {
                let (_flow, rest) = rest.split_first_chunk::<4>()?;
                let (ip, rest) = rest.split_first_chunk::<16>()?;
                let scope = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
                Some(SocketAddrV6::new(Ipv6Addr::from(*ip), port, 0, scope).into())
            }
            _ => None,
        }
    }

    pub(super) fn as_ptr(&self) -> *const sockaddr {
        self.0.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut sockaddr {
        self.0.as_mut_ptr().cast()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }
}

/// Room for the control messages of one datagram or train.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; Self::ROOM],
    len: usize,
}

/// `struct cmsghdr`: a length as `size_t` that counts the header too, level, type.
const HEADER: usize = size_of::<libc::cmsghdr>();
const WORD: usize = size_of::<usize>();
const _: () = assert!(HEADER == WORD + 8);

impl Control {
    /// Bytes of room: an IPv4 and an IPv6 PKTINFO and a segment size need 96.
    pub(super) const ROOM: usize = 128;

    pub(super) const fn empty() -> Self {
        Self { bytes: [0; Self::ROOM], len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Says how many bytes the kernel has written.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len.min(Self::ROOM);
    }

    pub(super) fn as_ptr(&self) -> *const c_void {
        self.bytes.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut c_void {
        self.bytes.as_mut_ptr().cast()
    }

    /// Adds a message. The few that we send fit; one that did not would be left out.
    pub(super) fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let used = HEADER.saturating_add(data.len());
        let end = self.len.saturating_add(aligned(used));
        let Some(room) = self.bytes.get_mut(self.len..end) else { return };
        let header = [&used.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data];
        for (to, from) in room.iter_mut().zip(header.into_iter().flatten()) {
            *to = *from;
        }
        self.len = end;
    }

    /// Has the kernel send from `local`. A link-local source is on the interface that `remote` is on.
    pub(super) fn push_source(&mut self, local: IpAddr, remote: SocketAddr) {
        match local {
            // struct in_pktinfo: interface, source, (unused)
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &[0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0]);
            }
            // struct in6_pktinfo: source, interface
            IpAddr::V6(ip) => {
                let scope = if let SocketAddr::V6(v6) = remote { v6.scope_id() } else { 0 };
                let mut info = [0u8; 20];
                for (to, from) in info.iter_mut().zip(ip.octets().iter().chain(&scope.to_ne_bytes())) {
                    *to = *from;
                }
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// The address that the datagram was sent to.
    pub(super) fn destination(&self) -> Option<IpAddr> {
        self.messages().find_map(|m| match (m.level, m.kind) {
            // The second field is the local address: the same as the third but for broadcasts.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let (_interface, rest) = m.data.split_first_chunk::<4>()?;
                Some(Ipv4Addr::from(*rest.first_chunk::<4>()?).into())
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                Some(Ipv6Addr::from(*m.data.first_chunk::<16>()?).to_canonical())
            }
            _ => None,
        })
    }

    /// The size that the kernel joined datagrams at, where it joined some.
    pub(super) fn segment(&self) -> Option<usize> {
        let message = self.messages().find(|m| (m.level, m.kind) == (libc::SOL_UDP, libc::UDP_GRO))?;
        usize::try_from(c_int::from_ne_bytes(*message.data.first_chunk()?)).ok()
    }

    fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let mut rest = self.bytes.get(..self.len).unwrap_or_default();
        std::iter::from_fn(move || {
            let (message, after) = Message::split(rest)?;
            rest = after;
            Some(message)
        })
    }
}

struct Message<'a> {
    level: c_int,
    kind: c_int,
    data: &'a [u8],
}

impl<'a> Message<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (len, rest) = bytes.split_first_chunk::<WORD>()?;
        let (level, rest) = rest.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let len = usize::from_ne_bytes(*len);
        let data = rest.get(..len.checked_sub(HEADER)?)?;
        let after = bytes.get(aligned(len)..).unwrap_or_default();
        Some((Self { level: c_int::from_ne_bytes(*level), kind: c_int::from_ne_bytes(*kind), data }, after))
    }
}

/// `CMSG_ALIGN`.
const fn aligned(len: usize) -> usize {
    len.saturating_add(WORD - 1) & !(WORD - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_were_written() {
        for (text, v6, back) in [
            ("192.0.2.1:513", false, "192.0.2.1:513"),
            ("192.0.2.1:513", true, "[::ffff:192.0.2.1]:513"),
            ("[2001:db8::1]:80", true, "[2001:db8::1]:80"),
            ("[fe80::1%7]:80", true, "[fe80::1%7]:80"),
        ] {
            let (name, _) = SockAddr::encode(text.parse().unwrap(), v6).unwrap();
            assert_eq!(name.decode().unwrap(), back.parse().unwrap());
        }
        assert!(SockAddr::encode("[::1]:80".parse().unwrap(), false).is_err());
        assert!(SockAddr::empty().decode().is_none());
    }

    #[test]
    fn control_messages_read_back_as_they_were_written() {
        let mut control = Control::empty();
        control.push(libc::SOL_SOCKET, 77, &[1, 2, 3]);
        control.push_source("2001:db8::5".parse().unwrap(), "[2001:db8::6]:1".parse().unwrap());
        control.push(libc::SOL_UDP, libc::UDP_GRO, &1400i32.to_ne_bytes());
        assert_eq!(control.messages().count(), 3);
        assert_eq!(control.destination(), Some("2001:db8::5".parse().unwrap()));
        assert_eq!(control.segment(), Some(1400));
    }

    #[test]
    fn broken_control_messages_end_the_list() {
        for len in [0usize, 1, HEADER - 1, Control::ROOM + 1, usize::MAX] {
            let mut control = Control::empty();
            control.bytes[..WORD].copy_from_slice(&len.to_ne_bytes());
            control.set_len(Control::ROOM);
            assert_eq!(control.messages().count(), 0, "{len}");
        }
    }
}
