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
pub mod netlink;
mod queue;
mod setup;
mod tap;

use std::fs::File;
use std::io;

use tracing::warn;

pub use self::error::NicError;
pub use self::macvtap::maker;
use self::netlink::{Link, Netlink};
pub use self::queue::Queue;
use self::setup::Undo;
use crate::sys::process::is_like_us;
pub use crate::sys::tun::{Offloads, VNET_HEADER_LEN};
use crate::types::{MacAddr, NicMode, NicName, NicSpec, OffloadMode};

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
}

/// Opens the character devices behind interfaces.
pub trait Devices {
    /// A new `/dev/net/tun`, nonblocking.
    fn tun(&self) -> io::Result<File>;

    /// The device of a macvtap, nonblocking.
    fn macvtap(&self, name: &NicName, index: u32) -> io::Result<File>;

    /// The process with this number runs, and is one of this program's.
    fn runs(&self, process: u32) -> bool;
}

/// Opens them in this very process, which wants to be root for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Here;

impl Devices for Here {
    fn tun(&self) -> io::Result<File> {
        tap::open_device()
    }

    fn macvtap(&self, name: &NicName, index: u32) -> io::Result<File> {
        macvtap::open_device(name, index)
    }

    fn runs(&self, process: u32) -> bool {
        is_like_us(process)
    }
}

/// Opens the interface with this many queues (1 to 256), and makes it first where it does not exist.
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
    let netlink = Netlink::open().map_err(NicError::Netlink)?;
    let (mut nic, files, link) = match request.mode {
        NicMode::Tap => tap::open(netlink, devices, request, queues.clamp(1, 256))?,
        NicMode::Macvtap => macvtap::open(netlink, devices, request, queues.clamp(1, 256))?,
    };
    let wanted = match request.offload {
        OffloadMode::Auto => Offloads::TCP_UDP,
        OffloadMode::Off => Offloads::NONE,
    };
    let queues: Vec<Queue> = files
        .into_iter()
        .map(|file| Queue::prepare(file, wanted))
        .collect::<io::Result<_>>()
        .map_err(|error| NicError::queue(&request.spec.name, "prepare a queue of", error))?;
    nic.offloads = queues.first().map_or(Offloads::NONE, Queue::offloads);
    nic.configure(request, &link)?;
    Ok((nic, queues))
}

/// Deals with an interface whose process has ended without putting it back: removes it where that process (its
/// number) made it, and sets it down where it is a client's, which must not speak for anybody without a session.
/// Gives a sentence about what it did, `None` where there was nothing to do: it is gone, down, or another's by now.
pub fn abandon(index: u32, client: bool, process: u32) -> Result<Option<String>, NicError> {
    let mut netlink = Netlink::open().map_err(NicError::Netlink)?;
    let Some(link) = netlink.link(index)? else { return Ok(None) };
    if link.alias.as_deref() == Some(macvtap::mark(process).as_str()) {
        netlink.delete_link(&link)?;
        return Ok(Some(format!("{} is removed", link.name)));
    }
    if !client || !link.is_up() || macvtap::maker(&link).is_some() {
        return Ok(None);
    }
    netlink.set_up(&link, false)?;
    Ok(Some(format!("{} is set down", link.name)))
}

impl Nic {
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
        while let Some(undo) = self.undo.pop() {
            match undo.apply(self) {
                Err(e) if !e.is_missing() => warn!(nic = %self.name, "{e}"),
                _ => {}
            }
        }
    }
}
