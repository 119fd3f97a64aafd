//! Interfaces: opening and making taps and macvtaps, giving them what the NIC has, and putting all back at the end.
//!
//! ```text
//!  open(request) ─► Nic    owned by the control plane: up and down, carrier, and at the end the undoing
//!                └► Queue… owned by workers: frames behind a vnet header
//! ```
//! A **server**'s NIC *is* the projected host's: it gets the MAC, the MTU, the addresses, and is up. A **client**'s
//! only stands in for it: it never has an address, for the client's own kernel would answer, and it is up only
//! while there is a session. A client's macvtap has the projected MAC, so that its parent takes the frames in; a
//! client's tap must *not*, or the bridge that it is in would take the MAC for one of its own and keep the frames.
//!
//! What was there before is left as it was found; what we made is removed. Both work on the interface's number, so
//! that an interface that somebody made anew under the same name is not touched.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod error;
pub mod events;
mod macvtap;
mod mend;
pub mod netlink;
pub mod netns;
mod queue;
mod routing;
mod setup;
pub mod sysctl;
mod tap;

use std::fs::File;
use std::io;
use std::net::IpAddr;

use tracing::warn;

pub use self::error::NicError;
pub use self::macvtap::maker;
use self::netlink::{Address, Link, Netlink};
pub use self::queue::Queue;
use self::routing::SourceRoutes;
pub use self::routing::sweep as sweep_rules;
use self::setup::Undo;
use self::sysctl::Sysctl;
use crate::sys::netlink::NetlinkSocket;
use crate::sys::process::is_like_us;
pub use crate::sys::tun::{Offloads, VNET_HEADER_LEN};
use crate::types::{MacAddr, NetnsName, NicAddr, NicMode, NicName, NicSpec, NicStack, OffloadMode};

/// Largest super-frame in bytes that our interfaces are handed, so that one of them, cut into datagrams with their
/// headers and tags, is one train of at most 65,507 bytes. A macvtap may still read larger ones, which others on
/// its parent made.
pub const GSO_MAX_SIZE: u32 = 62_000;

/// Which end of the tunnel a NIC is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// On the LAN, where it stands in for the host.
    Client,
    /// Where the host really is.
    Server,
}

/// What is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicRequest {
    /// Name, MAC, addresses, MTU.
    pub spec: NicSpec,
    /// Tap or macvtap.
    pub mode: NicMode,
    /// Where a macvtap that does not exist is to be made.
    pub parent: Option<NicName>,
    /// Which end this is.
    pub side: Side,
    /// Apply MAC, MTU, addresses and link state; otherwise the interface is used as it is.
    pub configure: bool,
    /// Whether super-frames may pass.
    pub offload: OffloadMode,
    /// A server's: its routes, and the namespace that it lives in.
    pub stack: NicStack,
}

/// An interface that is ours while this lives. Closing or dropping it puts everything back.
#[derive(Debug)]
pub struct Nic {
    name: NicName,
    index: u32,
    mode: NicMode,
    created: bool,
    mac: MacAddr,
    offloads: Offloads,
    /// Connected to the interface's own network namespace.
    netlink: Netlink,
    /// A tap's queue, to set its carrier with.
    tap: Option<File>,
    undo: Vec<Undo>,
    source_routes: SourceRoutes,
    /// Addresses that are not the NIC's, and that people have been told of.
    told: Vec<(IpAddr, u8)>,
}

/// Opens the character devices behind interfaces.
pub trait Devices {
    /// A new `/dev/net/tun`, nonblocking, whose interface will be in this network namespace.
    fn tun(&self, netns: Option<&NetnsName>) -> io::Result<File>;

    /// A socket for requests to a network namespace, which is made where there is none of that name.
    fn netlink(&self, netns: &NetnsName) -> io::Result<NetlinkSocket>;

    /// The file of a setting for an interface, or for `all`.
    fn sysctl(&self, netns: Option<&NetnsName>, key: Sysctl, interface: &str) -> io::Result<File>;

    /// The device of a macvtap, nonblocking.
    fn macvtap(&self, name: &NicName, index: u32) -> io::Result<File>;

    /// The process with this number runs, and is one of this program's.
    fn runs(&self, process: u32) -> bool;
}

/// Opens them in this very process, which wants to be root for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Here;

impl Devices for Here {
    fn tun(&self, netns: Option<&NetnsName>) -> io::Result<File> {
        self.inside(netns, tap::open_device)
    }

    fn netlink(&self, netns: &NetnsName) -> io::Result<NetlinkSocket> {
        self.inside(Some(netns), NetlinkSocket::open)
    }

    fn sysctl(&self, netns: Option<&NetnsName>, key: Sysctl, interface: &str) -> io::Result<File> {
        self.inside(netns, || key.open(interface))
    }

    fn macvtap(&self, name: &NicName, index: u32) -> io::Result<File> {
        macvtap::open_device(name, index)
    }

    fn runs(&self, process: u32) -> bool {
        is_like_us(process)
    }
}

impl Here {
    fn inside<T>(&self, netns: Option<&NetnsName>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(netns) = netns else { return work() };
        let netns = netns::open_or_make(netns, true, std::process::id(), is_like_us)?;
        netns::within(&netns, work)
    }
}

/// Opens the interface with this many queues (1 to 256), and makes it first where it does not exist. A tap that was
/// made with a single queue gives that one.
///
/// On a server it is configured and up afterwards; on a client configured, without addresses, and down. All in the
/// network namespace that the calling thread is in. After an error nothing has changed.
pub fn open(request: &NicRequest, queues: usize) -> Result<(Nic, Vec<Queue>), NicError> {
    open_with(&Here, request, queues)
}

/// The same, with devices that somebody else opens: this process then needs `CAP_NET_ADMIN` and no more.
pub fn open_with(
    devices: &dyn Devices,
    request: &NicRequest,
    queues: usize,
) -> Result<(Nic, Vec<Queue>), NicError> {
    let mut tries = 0..TRIES;
    loop {
        let netlink =
            match &request.stack.netns {
                Some(netns) => devices.netlink(netns).map(Netlink::from).map_err(|error| {
                    NicError::Netns { name: request.spec.name.clone(), netns: netns.clone(), error }
                })?,
                None => Netlink::open().map_err(NicError::Netlink)?,
            };
        let (mut nic, files, link) = match request.mode {
            NicMode::Tap => tap::open(netlink, devices, request, queues.clamp(1, 256))?,
            NicMode::Macvtap => macvtap::open(netlink, devices, request, queues.clamp(1, 256))?,
        };
        match nic.prepare(devices, request, files, &link) {
            Ok(queues) => return Ok((nic, queues)),
            // A killed process had left it, and that one's keeper was late to remove it.
            Err(_) if tries.next().is_some() && nic.is_gone() => {}
            Err(e) => return Err(e),
        }
    }
}

/// How often an interface may be gone again before it is ours.
const TRIES: u8 = 5;

/// What is to be undone where a process ends without putting an interface back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// The interface's number.
    pub index: u32,
    /// It is a client's.
    pub client: bool,
    /// Its routing table.
    pub table: Option<u32>,
    /// Settings, and what they were before.
    pub sysctls: Vec<(Sysctl, u8)>,
}

/// Deals with an interface whose process has ended without putting it back: removes it where that process (its
/// number) made it, and sets it down where it is a client's, which must not speak for anybody without a session. Its
/// routes, rules and settings are undone. In the network namespace that the calling thread is in.
/// Gives a sentence about what it did, `None` where there was nothing to do: it is gone, down, or another's by now.
pub fn abandon(traces: &Traces, process: u32) -> Result<Option<String>, NicError> {
    let mut netlink = Netlink::open().map_err(NicError::Netlink)?;
    if let Some(table) = traces.table {
        routing::abandon(&mut netlink, table)?;
    }
    let (index, client) = (traces.index, traces.client);
    let Some(link) = netlink.link(index)? else { return Ok(None) };
    let [maker, holder] = [macvtap::maker(&link), macvtap::holder(&link)];
    if maker.or(holder).is_some_and(|other| other != process) {
        return Ok(None);
    }
    for (key, before) in &traces.sysctls {
        // An interface without IPv6 has not the settings of it either.
        let _ = key.open(&link.name).and_then(|file| sysctl::write(&file, *before));
    }
    if maker.is_some() {
        netlink.delete_link(&link)?;
        return Ok(Some(format!("{} is removed", link.name)));
    }
    if holder.is_some() {
        netlink.set_alias(&link, "")?;
    }
    if !client || !link.is_up() {
        return Ok(None);
    }
    netlink.set_up(&link, false)?;
    Ok(Some(format!("{} is set down", link.name)))
}

/// Removes every macvtap here whose maker is gone, and sets down what it held: it was killed, and so was whoever should have
/// cleaned up. Gives a sentence about each.
pub fn sweep() -> Result<Vec<String>, NicError> {
    let mut netlink = Netlink::open().map_err(NicError::Netlink)?;
    let mut done = Vec::new();
    for link in netlink.links()? {
        if macvtap::maker(&link).is_some_and(|process| !is_like_us(process)) {
            netlink.delete_link(&link)?;
            done.push(format!("{} is removed", link.name));
        }
    }
    for link in netlink.links()? {
        if macvtap::holder(&link).is_some_and(|process| !is_like_us(process)) {
            if link.is_up() {
                netlink.set_up(&link, false)?;
                done.push(format!("{} is set down", link.name));
            }
            netlink.set_alias(&link, "")?;
        }
    }
    Ok(done)
}

/// Sets an interface down that no running process of ours has made: `None` where it is down or not there.
pub fn set_down(name: &NicName) -> Result<Option<String>, NicError> {
    let mut netlink = Netlink::open().map_err(NicError::Netlink)?;
    let link = netlink.link(name)?.filter(|link| link.is_up() && macvtap::maker(link).is_none());
    let Some(link) = link else { return Ok(None) };
    netlink.set_up(&link, false)?;
    Ok(Some(format!("{name} is set down")))
}

/// An interface of this number is there and goes with the last descriptor on it, as a tap does.
pub fn is_passing(index: u32) -> io::Result<bool> {
    let link = Netlink::open()?.link(index).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(link.is_some_and(|link| link.kind.as_deref() == Some("tun") && !link.persistent))
}

impl Nic {
    /// Its queues, once everything is as it should be.
    fn prepare(
        &mut self,
        devices: &dyn Devices,
        request: &NicRequest,
        files: Vec<File>,
        link: &Link,
    ) -> Result<Vec<Queue>, NicError> {
        let wanted = match request.offload {
            OffloadMode::Auto => Offloads::TCP_UDP,
            OffloadMode::Off => Offloads::NONE,
        };
        let queues: Vec<Queue> = files
            .into_iter()
            .map(|file| Queue::prepare(file, wanted))
            .collect::<io::Result<_>>()
            .map_err(|error| NicError::queue(&self.name, "prepare a queue of", error))?;
        self.offloads = queues.first().map_or(Offloads::NONE, Queue::offloads);
        self.configure(devices, request, link)?;
        Ok(queues)
    }

    fn is_gone(&mut self) -> bool {
        matches!(self.netlink.link(self.index), Ok(None))
    }

    fn new(netlink: Netlink, request: &NicRequest, link: &Link, created: bool) -> Self {
        Self {
            name: request.spec.name.clone(),
            index: link.index,
            mode: request.mode,
            created,
            mac: link.mac.unwrap_or(request.spec.mac),
            offloads: Offloads::NONE,
            netlink,
            tap: None,
            undo: if created { vec![Undo::Link] } else { Vec::new() },
            source_routes: SourceRoutes::default(),
            told: Vec::new(),
        }
    }

    /// Its name, as it was when it was opened.
    pub fn name(&self) -> &NicName {
        &self.name
    }

    /// Its number, by which events name it.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Tap or macvtap.
    pub fn mode(&self) -> NicMode {
        self.mode
    }

    /// What would be left of us on this box without [`Nic::close`].
    pub fn traces(&self, side: Side) -> Traces {
        let sysctl = |undo: &Undo| match undo {
            Undo::Sysctl { key, before, .. } => Some((*key, *before)),
            _ => None,
        };
        Traces {
            index: self.index,
            client: side == Side::Client,
            table: self.source_routes.table,
            sysctls: self.undo.iter().filter_map(sysctl).collect(),
        }
    }

    /// The routing table that it has to itself.
    pub fn table(&self) -> Option<u32> {
        self.source_routes.table
    }

    /// We made it, and shall remove it.
    pub fn is_created(&self) -> bool {
        self.created
    }

    /// The MAC that the interface itself has; on a client's tap not the projected one.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// What may be left to the reader, either way.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// The interface as the kernel sees it now; `None`: it is gone.
    pub fn link(&mut self) -> Result<Option<Link>, NicError> {
        Ok(self.netlink.link(self.index)?)
    }

    /// Sets it up or down. A client's is up only while there is a session: down, nobody answers for it.
    pub fn set_up(&mut self, up: bool) -> Result<(), NicError> {
        self.netlink.set_up((self.index, &self.name), up).map_err(|e| match (self.mode, e.errno()) {
            (NicMode::Macvtap, Some(libc::EADDRINUSE | libc::EBUSY)) => NicError::MacTaken(self.name.clone()),
            _ => e.into(),
        })?;
        if up { self.warn_of_idle_parent() } else { Ok(()) }
    }

    /// One of these addresses that this box itself has, on which other interface.
    pub fn address_elsewhere(&mut self, addrs: &[NicAddr]) -> Result<Option<(IpAddr, String)>, NicError> {
        let all = self.netlink.all_addresses()?;
        let other = |a: &&Address| a.index != self.index && addrs.iter().any(|own| own.ip == a.ip);
        let Some(found) = all.iter().find(other) else { return Ok(None) };
        Ok(self.netlink.link(found.index)?.map(|link| (found.ip, link.name)))
    }

    /// Puts a tap's cable in or out: a server's NIC without a session says so to its own programs. A macvtap has
    /// its parent's.
    pub fn set_carrier(&mut self, on: bool) -> Result<(), NicError> {
        let Some(tap) = &self.tap else { return Ok(()) };
        crate::sys::tun::set_carrier(tap, on)
            .map_err(|error| NicError::queue(&self.name, "set the carrier of", error))
    }

    /// Puts everything back; so does dropping it. To be done after the workers have given up the queues, which die
    /// with an interface that is removed.
    pub fn close(self) {}
}

impl Drop for Nic {
    fn drop(&mut self) {
        self.remove_routes();
        while let Some(undo) = self.undo.pop() {
            match undo.apply(self) {
                Err(e) if !e.is_missing() => warn!(nic = %self.name, "{e}"),
                _ => {}
            }
        }
    }
}
