//! What happens to the interfaces, addresses and routes of a network namespace, as it happens.
//!
//! A macvtap whose interface is gone reads as empty and swallows what is written to it: this is the only way to
//! learn of it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::netlink::{Address, Link, ROOM, Route, messages};
use crate::sys::netlink::NetlinkSocket;

/// Something has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The interface is there, new or changed: up, down, carrier, MAC, MTU, name.
    LinkNew(Link),
    /// The interface is gone, or has moved to another network namespace.
    LinkGone {
        /// Its number.
        index: u32,
        /// Its name.
        name: String,
    },
    /// An address has come or gone.
    AddressChanged {
        /// The number of the interface that it is on.
        index: u32,
    },
    /// A route has come or gone.
    RouteChanged {
        /// The number of the one interface that it leads to.
        index: Option<u32>,
        /// It is no more.
        gone: bool,
    },
    /// A rule that chooses routing tables has come or gone.
    RuleChanged {
        /// It is no more.
        gone: bool,
    },
    /// Events have been lost: look at everything again ([`super::netlink::Netlink::links`]).
    Overrun,
}

/// A subscription to the events of one network namespace. Nonblocking: wait until it is readable.
pub struct Events {
    socket: NetlinkSocket,
    room: Box<[u8]>,
    waiting: VecDeque<Event>,
}

// linux/rtnetlink.h; the libc crate has them on some targets only.
const RTNLGRP_IPV4_RULE: libc::c_uint = 8;
const RTNLGRP_IPV6_RULE: libc::c_uint = 19;

const GROUPS: [libc::c_uint; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_RULE,
];

impl Events {
    /// Subscribes, in the network namespace that the calling thread is in.
    pub fn open() -> io::Result<Self> {
        Ok(listener()?.into())
    }

    /// The next event; `None`: nothing more has happened.
    pub fn poll(&mut self) -> io::Result<Option<Event>> {
        while self.waiting.is_empty() {
            match self.socket.recv(&mut self.room) {
                Ok(bytes) => self.waiting.extend(read(bytes)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Some(Event::Overrun)),
                Err(e) => return Err(e),
            }
        }
        Ok(self.waiting.pop_front())
    }
}

/// The events in what the kernel said at once.
pub fn read(bytes: &[u8]) -> impl Iterator<Item = Event> {
    messages(bytes).filter_map(|m| to_event(m.kind, m.body))
}

/// A socket that hears of events in the network namespace that the calling thread is in.
pub fn listener() -> io::Result<NetlinkSocket> {
    NetlinkSocket::listen(&GROUPS)
}

impl From<NetlinkSocket> for Events {
    /// Of the network namespace that the socket was opened in; see [`listener`].
    fn from(socket: NetlinkSocket) -> Self {
        Self { socket, room: vec![0; ROOM].into(), waiting: VecDeque::new() }
    }
}

fn to_event(kind: u16, body: &[u8]) -> Option<Event> {
    match kind {
        libc::RTM_NEWLINK => Link::parse(body).map(Event::LinkNew),
        libc::RTM_DELLINK => {
            Link::parse(body).map(|Link { index, name, .. }| Event::LinkGone { index, name })
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            Address::parse(body).map(|a| Event::AddressChanged { index: a.index })
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let index = Route::parse(body).and_then(|route| route.interface);
            Some(Event::RouteChanged { index, gone: kind == libc::RTM_DELROUTE })
        }
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Event::RuleChanged { gone: kind == libc::RTM_DELRULE }),
        _ => None,
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
