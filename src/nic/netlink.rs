//! A small client of the kernel's `NETLINK_ROUTE` (rtnetlink(7)): links, addresses, routes and rules, in
//! process, so that nothing shells out. One request, one answer, synchronously; the kernel answers at once.
//!
//! Messages are built and read in [`message`]; each noun has its file. A refusal carries the kernel's own words
//! where it has any.

mod address;
mod link;
mod message;
mod route;
mod rule;
mod way;

use std::fmt;
use std::io::{self, ErrorKind};

pub use self::address::Address;
pub use self::link::{Link, LinkRef, MacvlanMode};
pub(super) use self::message::messages;
use self::message::{Message, Parsed};
pub use self::route::{OURS, Prefix, Route};
pub use self::rule::Rule;
use crate::sys::netlink::NetlinkSocket;

/// A connection to the routing tables of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: NetlinkSocket,
    sequence: u32,
}

/// The kernel refused something. Displays as one sentence.
#[derive(Debug)]
pub struct NetlinkError {
    /// What was to be done, after "cannot": `set the MTU of`.
    pub what: &'static str,
    /// To what: an interface, an address, a route.
    pub whom: String,
    /// The kernel's reason in words, where it gives one.
    pub kernel: Option<String>,
    /// The error number.
    pub error: io::Error,
}

/// What a netlink operation gives.
pub type Result<T> = std::result::Result<T, NetlinkError>;

/// Bytes for one answer: the kernel fills dumps up to this (`NLMSG_GOODSIZE` and 32 KiB in af_netlink.c).
pub(super) const ROOM: usize = 32 * 1024;

impl Netlink {
    /// Connects to the network namespace that the calling thread is in, for good: the thread may move on.
    pub fn open() -> io::Result<Self> {
        Ok(NetlinkSocket::open()?.into())
    }

    /// Asks for a change and waits until it is made.
    fn change(&mut self, what: &'static str, whom: impl fmt::Display, message: Message) -> Result<()> {
        self.ask(message, libc::NLM_F_ACK as u16, &mut |_| {}).map_err(|e| e.about(what, whom))
    }

    /// Asks for one thing or, with `NLM_F_DUMP`, for a list, and hands each answer of type `kind` to `each`.
    fn query<T>(
        &mut self,
        (what, whom): (&'static str, impl fmt::Display),
        message: Message,
        kind: u16,
        mut each: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut take = |m: &Parsed<'_>| {
            if m.kind == kind {
                found.extend(each(m.body));
            }
        };
        // An acknowledgement ends a single answer as `NLMSG_DONE` ends a list.
        self.ask(message, libc::NLM_F_ACK as u16, &mut take).map_err(|e| e.about(what, whom))?;
        Ok(found)
    }

    fn ask(
        &mut self,
        message: Message,
        flags: u16,
        each: &mut dyn FnMut(&Parsed<'_>),
    ) -> std::result::Result<(), Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message.finish(flags | libc::NLM_F_REQUEST as u16, self.sequence);
        self.socket.send(&request)?;
        // Not kept: each NIC has a socket of its own, and asks it little.
        let mut room = vec![0; ROOM];
        loop {
            let received = self.socket.recv(&mut room)?;
            for m in messages(received).filter(|m| m.sequence == self.sequence) {
                match c_kind(m.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => return m.outcome().map_err(Refusal::from),
                    _ => each(&m),
                }
            }
        }
    }
}

impl From<NetlinkSocket> for Netlink {
    /// Connected to the network namespace that the socket was opened in.
    fn from(socket: NetlinkSocket) -> Self {
        Self { socket, sequence: 0 }
    }
}

fn c_kind(kind: u16) -> libc::c_int {
    libc::c_int::from(kind)
}

/// An error before it is known what it is about.
struct Refusal {
    error: io::Error,
    kernel: Option<String>,
}

impl Refusal {
    fn about(self, what: &'static str, whom: impl fmt::Display) -> NetlinkError {
        NetlinkError { what, whom: whom.to_string(), kernel: self.kernel, error: self.error }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { error, kernel: None }
    }
}

impl From<(i32, Option<String>)> for Refusal {
    fn from((errno, kernel): (i32, Option<String>)) -> Self {
        Self { error: io::Error::from_raw_os_error(errno), kernel }
    }
}

impl NetlinkError {
    /// The error number (errno(3)).
    pub fn errno(&self) -> Option<i32> {
        self.error.raw_os_error()
    }

    /// There is no such interface, address or route.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
        )
    }
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.what, self.whom, self.error)?;
        if let Some(kernel) = &self.kernel {
            write!(f, " (the kernel says: {kernel})")?;
        }
        if self.error.kind() == ErrorKind::PermissionDenied {
            f.write_str("; run as root or with CAP_NET_ADMIN")?;
        }
        Ok(())
    }
}

impl std::error::Error for NetlinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
