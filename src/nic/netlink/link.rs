//! Links: what interfaces there are, making and changing them (`struct ifinfomsg` and `IFLA_*`, linux/if_link.h).

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{Message, attributes};
use super::{Netlink, Result};
use crate::types::{MacAddr, NicName};

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_MAX_MTU: u16 = 51;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_TUN_PERSIST: u16 = 6;

/// Which frames of its parent a macvtap gets (`enum macvlan_mode`, linux/if_link.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MacvlanMode {
    /// Those for its own MAC; several share a parent.
    Bridge = 4,
    /// All of them; the parent is its alone.
    Passthru = 8,
}

/// How an interface is named to the kernel.
#[derive(Clone, Copy, Debug)]
pub enum LinkRef<'a> {
    /// By number, from 1.
    Index(u32),
    /// By name.
    Name(&'a str),
    /// By number, and by name in what is said to people.
    Known(u32, &'a str),
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, from 1; stays the same as long as it lives.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// A note on it.
    pub alias: Option<String>,
    /// Its MAC, if it is an Ethernet interface.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The largest MTU that its driver takes; 0: unknown.
    pub max_mtu: u32,
    /// `IFF_*` flags (linux/if.h).
    pub flags: u32,
    /// The driver for virtual interfaces: `macvtap`, `tun` (taps too), `veth`, `bridge` …
    pub kind: Option<String>,
    /// The interface that it stands on, or for a veth the other end, by number; see `parent_elsewhere`.
    pub parent: Option<u32>,
    /// That interface is in another network namespace, and its number is one there.
    pub parent_elsewhere: bool,
    /// The bridge that it is a port of, by number.
    pub master: Option<u32>,
    /// Largest super-frame in bytes that the kernel hands to it.
    pub gso_max_size: u32,
    /// A tap or tun that stays when its queues are closed.
    pub persistent: bool,
}

impl Link {
    /// It is set up.
    pub const fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// It is up and its cable is in (`IFF_LOWER_UP`).
    pub const fn has_carrier(&self) -> bool {
        self.flags & libc::IFF_LOWER_UP as u32 != 0
    }

    /// It takes every multicast frame.
    pub const fn is_all_multicast(&self) -> bool {
        self.flags & libc::IFF_ALLMULTI as u32 != 0
    }

    /// What it is, for people: `veth`, or `a hardware` interface.
    pub fn kind_name(&self) -> &str {
        self.kind.as_deref().unwrap_or("hardware")
    }

    /// Reads `RTM_NEWLINK` and `RTM_DELLINK`; `None` for what they say about bridge ports and the like, which
    /// is not about the link itself.
    pub(in crate::nic) fn parse(body: &[u8]) -> Option<Self> {
        let (head, rest) = body.split_first_chunk::<16>()?;
        let [family, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *head;
        if libc::c_int::from(family) != libc::AF_UNSPEC {
            return None;
        }
        let mut link = Self {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            name: String::new(),
            alias: None,
            mac: None,
            mtu: 0,
            max_mtu: 0,
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            kind: None,
            parent: None,
            parent_elsewhere: false,
            master: None,
            gso_max_size: 0,
            persistent: false,
        };
        for a in attributes(rest) {
            match a.kind {
                IFLA_ADDRESS => link.mac = a.value.try_into().ok().map(MacAddr),
                IFLA_IFNAME => link.name = a.text(),
                IFLA_IFALIAS => link.alias = Some(a.text()),
                IFLA_MTU => link.mtu = a.number()?,
                IFLA_MAX_MTU => link.max_mtu = a.number()?,
                IFLA_LINK => link.parent = a.number().filter(|i| *i != 0),
                IFLA_LINK_NETNSID => link.parent_elsewhere = true,
                IFLA_MASTER => link.master = a.number(),
                IFLA_GSO_MAX_SIZE => link.gso_max_size = a.number()?,
                IFLA_LINKINFO => link.parse_info(a.value),
                _ => {}
            }
        }
        Some(link)
    }

    fn parse_info(&mut self, info: &[u8]) {
        for a in attributes(info) {
            match a.kind {
                IFLA_INFO_KIND => self.kind = Some(a.text()),
                // The kind comes first.
                IFLA_INFO_DATA if self.kind.as_deref() == Some("tun") => {
                    self.persistent =
                        attributes(a.value).any(|a| a.kind == IFLA_TUN_PERSIST && a.value == [1]);
                }
                _ => {}
            }
        }
    }
}

impl Netlink {
    /// The interface, or `None` where there is no such.
    pub fn link<'a>(&mut self, link: impl Into<LinkRef<'a>>) -> Result<Option<Link>> {
        let link = link.into();
        let message = link.message(libc::RTM_GETLINK, 0, 0, 0);
        match self.query(("look up", link), message, libc::RTM_NEWLINK, Link::parse) {
            Ok(found) => Ok(found.into_iter().next()),
            Err(e) if e.is_missing() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &head(0, 0, 0));
        self.query(("list", "the interfaces"), message, libc::RTM_NEWLINK, Link::parse)
    }

    /// Makes a macvtap on the interface `parent`, down.
    pub fn create_macvtap(
        &mut self,
        name: &NicName,
        parent: u32,
        mode: MacvlanMode,
        mac: Option<MacAddr>,
    ) -> Result<()> {
        let message = create(name).number(IFLA_LINK, parent).maybe(IFLA_ADDRESS, mac.map(|m| m.0)).nested(
            IFLA_LINKINFO,
            |m| {
                m.text(IFLA_INFO_KIND, "macvtap")
                    .nested(IFLA_INFO_DATA, |m| m.number(IFLA_MACVLAN_MODE, mode as u32))
            },
        );
        self.change("create the macvtap", name, message)
    }

    /// Makes a pair of joined interfaces, down, the second in the network namespace `peer_netns` if one is given.
    pub fn create_veth(
        &mut self,
        name: &NicName,
        peer: &NicName,
        peer_netns: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let message = create(name).nested(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |m| {
                m.nested(VETH_INFO_PEER, |m| {
                    m.raw(&head(0, 0, 0))
                        .text(IFLA_IFNAME, peer.as_str())
                        .maybe(IFLA_NET_NS_FD, peer_netns.map(|fd| fd.as_raw_fd().to_ne_bytes()))
                })
            })
        });
        self.change("create the veth", name, message)
    }

    /// Makes a bridge, down.
    pub fn create_bridge(&mut self, name: &NicName) -> Result<()> {
        let message = create(name).nested(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
        self.change("create the bridge", name, message)
    }

    /// Makes `link` a port of the bridge with the number `bridge`; 0 takes it out of its bridge.
    pub fn set_master<'a>(&mut self, link: impl Into<LinkRef<'a>>, bridge: u32) -> Result<()> {
        self.set(link.into(), "set the bridge of", |m| m.number(IFLA_MASTER, bridge))
    }

    /// Removes the interface.
    pub fn delete_link<'a>(&mut self, link: impl Into<LinkRef<'a>>) -> Result<()> {
        let link = link.into();
        self.change("remove", link, link.message(libc::RTM_DELLINK, 0, 0, 0))
    }

    /// Sets it up or down.
    pub fn set_up<'a>(&mut self, link: impl Into<LinkRef<'a>>, up: bool) -> Result<()> {
        let what = if up { "set up" } else { "set down" };
        self.set_flag(link.into(), what, libc::IFF_UP, up)
    }

    /// Has it take every multicast frame, or only those that somebody asked for.
    pub fn set_all_multicast<'a>(&mut self, link: impl Into<LinkRef<'a>>, on: bool) -> Result<()> {
        self.set_flag(link.into(), "set allmulticast of", libc::IFF_ALLMULTI, on)
    }

    /// Sets its MAC. Some drivers want it down.
    pub fn set_mac<'a>(&mut self, link: impl Into<LinkRef<'a>>, mac: MacAddr) -> Result<()> {
        self.set(link.into(), "set the MAC of", |m| m.attr(IFLA_ADDRESS, &mac.0))
    }

    /// Sets its MTU in bytes.
    pub fn set_mtu<'a>(&mut self, link: impl Into<LinkRef<'a>>, mtu: u32) -> Result<()> {
        self.set(link.into(), "set the MTU of", |m| m.number(IFLA_MTU, mtu))
    }

    /// Sets the largest super-frame in bytes that the kernel hands to it, for IPv4 and IPv6 (Linux 4.16).
    pub fn set_gso_max_size<'a>(&mut self, link: impl Into<LinkRef<'a>>, bytes: u32) -> Result<()> {
        self.set(link.into(), "set gso_max_size of", |m| m.number(IFLA_GSO_MAX_SIZE, bytes))
    }

    /// Sets how many frames wait for it at most.
    pub fn set_tx_queue_len<'a>(&mut self, link: impl Into<LinkRef<'a>>, frames: u32) -> Result<()> {
        self.set(link.into(), "set the queue length of", |m| m.number(IFLA_TXQLEN, frames))
    }

    /// Puts a note on it.
    pub fn set_alias<'a>(&mut self, link: impl Into<LinkRef<'a>>, alias: &str) -> Result<()> {
        self.set(link.into(), "set the alias of", |m| m.attr(IFLA_IFALIAS, alias.as_bytes()))
    }

    /// Has it make itself no IPv6 link-local address when it comes up.
    pub fn set_no_link_local<'a>(&mut self, link: impl Into<LinkRef<'a>>) -> Result<()> {
        const NONE: u8 = 1;
        self.set(link.into(), "keep IPv6 addresses off", |m| {
            m.nested(IFLA_AF_SPEC, |m| {
                m.nested(libc::AF_INET6 as u16, |m| m.attr(IFLA_INET6_ADDR_GEN_MODE, &[NONE]))
            })
        })
    }

    /// Moves it to another network namespace. It loses its addresses and is down there.
    pub fn move_to_netns<'a>(&mut self, link: impl Into<LinkRef<'a>>, netns: BorrowedFd<'_>) -> Result<()> {
        let fd = netns.as_raw_fd().to_ne_bytes();
        self.set(link.into(), "move to another namespace", |m| m.attr(IFLA_NET_NS_FD, &fd))
    }

    fn set(
        &mut self,
        link: LinkRef<'_>,
        what: &'static str,
        add: impl FnOnce(Message) -> Message,
    ) -> Result<()> {
        self.change(what, link, add(link.message(libc::RTM_SETLINK, 0, 0, 0)))
    }

    fn set_flag(&mut self, link: LinkRef<'_>, what: &'static str, flag: libc::c_int, on: bool) -> Result<()> {
        let flag = flag as u32;
        let message = link.message(libc::RTM_SETLINK, 0, if on { flag } else { 0 }, flag);
        self.change(what, link, message)
    }
}

/// `struct ifinfomsg`: family, pad, type; index; flags; which of the flags are to change.
fn head(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut head = [0; 16];
    let numbers = [0u32, index, flags, change];
    for (to, from) in head.iter_mut().zip(numbers.iter().flat_map(|n| n.to_ne_bytes())) {
        *to = from;
    }
    head
}

fn create(name: &NicName) -> Message {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    Message::new(libc::RTM_NEWLINK, flags, &head(0, 0, 0)).text(IFLA_IFNAME, name.as_str())
}

impl LinkRef<'_> {
    fn message(self, kind: u16, flags: i32, iff: u32, change: u32) -> Message {
        match self {
            Self::Index(index) | Self::Known(index, _) => {
                Message::new(kind, flags, &head(index, iff, change))
            }
            Self::Name(name) => Message::new(kind, flags, &head(0, iff, change)).text(IFLA_IFNAME, name),
        }
    }
}

impl fmt::Display for LinkRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "interface number {index}"),
            Self::Name(name) | Self::Known(_, name) => f.write_str(name),
        }
    }
}

impl From<u32> for LinkRef<'_> {
    fn from(index: u32) -> Self {
        Self::Index(index)
    }
}

impl<'a> From<&'a str> for LinkRef<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a NicName> for LinkRef<'a> {
    fn from(name: &'a NicName) -> Self {
        Self::Name(name.as_str())
    }
}

impl<'a> From<&'a Link> for LinkRef<'a> {
    fn from(link: &'a Link) -> Self {
        Self::Known(link.index, &link.name)
    }
}

impl<'a> From<(u32, &'a NicName)> for LinkRef<'a> {
    fn from((index, name): (u32, &'a NicName)) -> Self {
        Self::Known(index, name.as_str())
    }
}
