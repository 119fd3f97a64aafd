//! A netlink socket to the kernel's routing tables (netlink(7)): bytes in, bytes out.

use std::io::{self, ErrorKind};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_uint, sockaddr_nl, socklen_t};

use super::{check, set_option};

const SOL_NETLINK: c_int = 270;
// linux/netlink.h; the libc crate has them on some targets only.
const NETLINK_ADD_MEMBERSHIP: c_int = 1;
const NETLINK_CAP_ACK: c_int = 10;
const NETLINK_EXT_ACK: c_int = 11;
const NETLINK_GET_STRICT_CHK: c_int = 12;

/// A `NETLINK_ROUTE` socket of the network namespace that the calling thread was in when it was opened.
#[derive(Debug)]
pub struct NetlinkSocket(OwnedFd);

impl NetlinkSocket {
    /// A socket for requests, whose answers are waited for.
    pub fn open() -> io::Result<Self> {
        let socket = Self::with_flags(0)?;
        // Refusals then say why in words, and do not echo the request. Older kernels know neither.
        for nicety in [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK] {
            let _ = set_option(socket.as_fd(), SOL_NETLINK, nicety, 1);
        }
        Ok(socket)
    }

    /// A nonblocking socket that hears what happens in `groups` (`RTNLGRP_*`, linux/rtnetlink.h).
    pub fn listen(groups: &[c_uint]) -> io::Result<Self> {
        let socket = Self::with_flags(libc::SOCK_NONBLOCK)?;
        socket.bind()?;
        for &group in groups {
            let group = c_int::try_from(group).map_err(|_| ErrorKind::InvalidInput)?;
            set_option(socket.as_fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)?;
        }
        Ok(socket)
    }

    /// Has the kernel choose a port for it: without one it hears nothing.
    fn bind(&self) -> io::Result<()> {
        // SAFETY: `sockaddr_nl` is plain data, for which all zero is a value.
        let mut name: sockaddr_nl = unsafe { std::mem::zeroed() };
        name.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let len = size_of::<sockaddr_nl>() as socklen_t;
        // SAFETY: the pointer and the length describe `name`, which outlives the call.
        check(unsafe { libc::bind(self.0.as_raw_fd(), (&raw const name).cast(), len) }).map(drop)
    }

    fn with_flags(flags: c_int) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags;
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        Ok(Self(unsafe {
            OwnedFd::from_raw_fd(check(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE))?)
        }))
    }

    /// Sends whole messages to the kernel.
    pub fn send(&self, messages: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads `messages.len()` bytes from there. An unconnected netlink socket sends to the
        // kernel.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), messages.as_ptr().cast(), messages.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives messages of the kernel's, whole ones, into `room`: at least 32 KiB, or long ones do not fit
    /// (`InvalidData`). `ENOBUFS`: some have been lost.
    pub fn recv<'a>(&self, room: &'a mut [u8]) -> io::Result<&'a [u8]> {
        loop {
            // SAFETY: `sockaddr_nl` is plain data, for which all zero is a value.
            let mut from: sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut from_len = size_of::<sockaddr_nl>() as socklen_t;
            // SAFETY: the kernel writes at most `room.len()` bytes there and `from_len` into `from`; all of them
            // outlive the call. With MSG_TRUNC it returns the full length, but writes no more for that.
            let n = unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    room.as_mut_ptr().cast(),
                    room.len(),
                    libc::MSG_TRUNC,
                    (&raw mut from).cast(),
                    &mut from_len,
                )
            };
            let Ok(n) = usize::try_from(n) else {
                match io::Error::last_os_error() {
                    e if e.kind() == ErrorKind::Interrupted => continue,
                    e => return Err(e),
                }
            };
            // Other processes can send to a netlink socket too; only the kernel's port is 0.
            if from.nl_pid == 0 {
                return room.get(..n).ok_or_else(|| ErrorKind::InvalidData.into());
            }
        }
    }
}

impl From<OwnedFd> for NetlinkSocket {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<NetlinkSocket> for OwnedFd {
    fn from(socket: NetlinkSocket) -> Self {
        socket.0
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
