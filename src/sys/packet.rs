//! Sockets below UDP: whole Ethernet frames (packet(7)), and ICMP (raw(7)).

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::{check, set_option};

/// Room for the largest frame that an offload can make, in bytes.
const FRAME: usize = 128 * 1024;
/// A capture should miss nothing: bytes asked for as its receive buffer.
const BUFFER: libc::c_int = 32 << 20;

/// Every frame that an interface receives and sends, and a way to send any.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

/// One frame as it was on the wire, its 802.1Q tag put back where the kernel had taken it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From the destination MAC on, without the check sequence.
    pub bytes: Vec<u8>,
    /// True if this host sent it.
    pub outgoing: bool,
}

impl PacketSocket {
    /// Listens on one interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// No such interface; `EPERM` without CAP_NET_RAW.
    pub fn open(interface: &str) -> io::Result<Self> {
        let fd = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        set_option(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
        // SAFETY: sockaddr_ll is plain integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index(interface)?;
        // SAFETY: the address is a valid sockaddr_ll of the length given, and outlives the call.
        check(unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        })?;
        Ok(Self { fd, buffer: vec![0; FRAME] })
    }

    /// Sends one frame, from the destination MAC on.
    ///
    /// # Errors
    /// `EMSGSIZE` if it is longer than the interface's MTU allows, `ENETDOWN` if the link is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length are those of one slice.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame, or `None` if none comes within `patience` or before a signal does.
    ///
    /// # Errors
    /// `ENETDOWN` once, when the link goes down.
    pub fn recv(&mut self, patience: Duration) -> io::Result<Option<Packet>> {
        let mut wanted = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one valid pollfd.
        match check(unsafe { libc::poll(&mut wanted, 1, millis) }) {
            Ok(1..) => self.take().map(Some),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// How many frames the kernel could not keep for this socket since the last time this was asked.
    ///
    /// # Errors
    /// None that are known.
    pub fn missed(&self) -> io::Result<u32> {
        // SAFETY: tpacket_stats is plain integers, for which zero is a value.
        let mut stats: libc::tpacket_stats = unsafe { zeroed() };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the value and its length are valid for writing and outlive the call.
        check(unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &mut len,
            )
        })?;
        Ok(stats.tp_drops)
    }

    fn take(&mut self) -> io::Result<Packet> {
        // SAFETY: sockaddr_ll and msghdr are integers and pointers, for which zero is a value.
        let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
        let mut part = libc::iovec { iov_base: self.buffer.as_mut_ptr().cast(), iov_len: self.buffer.len() };
        let mut control = [0u64; 16];
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: every pointer of the message is to a local or to the buffer, with its true length.
        let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
        let Ok(len) = usize::try_from(got) else { return Err(io::Error::last_os_error()) };
        let mut bytes = self.buffer.get(..len).unwrap_or_default().to_vec();
        if let Some(tag) = stripped_tag(&message)
            && bytes.len() >= 12
        {
            bytes.splice(12..12, tag);
        }
        Ok(Packet { bytes, outgoing: from.sll_pkttype == libc::PACKET_OUTGOING })
    }
}

/// The 802.1Q tag that the kernel took out of the frame (`struct tpacket_auxdata`, linux/if_packet.h).
fn stripped_tag(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: the kernel has just filled this message, and its control buffer is still there and aligned.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: a message of this level and type carries a tpacket_auxdata, at any alignment.
    let aux = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
    if aux.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let ([a, b], [c, d]) = (aux.tp_vlan_tpid.to_be_bytes(), aux.tp_vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}

/// A socket for ICMP (`ipv6`: ICMPv6) messages, in the calling thread's network namespace. What it receives begins
/// with the IP header for ICMP, and without for ICMPv6, whose checksum the kernel fills in; ports are ignored.
///
/// # Errors
/// `EPERM` without CAP_NET_RAW.
pub fn icmp(ipv6: bool) -> io::Result<UdpSocket> {
    let fd = match ipv6 {
        true => socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)?,
        false => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?,
    };
    Ok(UdpSocket::from(fd))
}

fn index(interface: &str) -> io::Result<libc::c_int> {
    let name = CString::new(interface)?;
    // SAFETY: a text that ends in a zero byte.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        n => Ok(libc::c_int::try_from(n).unwrap_or_default()),
    }
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket takes three integers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
