//! Why an interface could not be had, and what to do about it.

use std::io;

use super::netlink::NetlinkError;
use crate::types::{Mtu, NetnsName, NicMode, NicName};

/// An interface could not be had. Displays as one sentence that says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// There is no connection to the kernel's routing tables.
    #[error("cannot open a netlink socket: {0}")]
    Netlink(#[source] io::Error),
    /// The namespace that it is to live in cannot be had.
    #[error("cannot put {name} into the network namespace {netns}: {error}")]
    Netns {
        /// The NIC.
        name: NicName,
        /// Its namespace.
        netns: NetnsName,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// The kernel refused a change.
    #[error(transparent)]
    Refused(#[from] NetlinkError),
    /// The kernel has no taps.
    #[error("there is no /dev/net/tun; load the driver with `modprobe tun`")]
    NoTunDevice,
    /// A tap's queue is taken.
    #[error("{0} is in use by another process; stop that, or choose another name")]
    Busy(NicName),
    /// There is an interface of that name, but another kind.
    #[error(
        "{name} is a {kind} interface, not a {wanted}; choose another name or remove it with `ip link del {name}`"
    )]
    WrongKind {
        /// Its name.
        name: NicName,
        /// What it is.
        kind: String,
        /// What was asked for.
        wanted: NicMode,
    },
    /// A macvtap does not exist, and there is no parent to make it on.
    #[error(
        "{0} does not exist; give the NIC a parent (parent = \"eth0\"), or run `ip link add link eth0 name {0} type macvtap mode bridge`"
    )]
    NoParent(NicName),
    /// The parent does not exist.
    #[error("{parent}, on which {name} is to be made, does not exist; there are: {known}")]
    ParentMissing {
        /// The NIC.
        name: NicName,
        /// Its parent.
        parent: NicName,
        /// The interfaces that exist.
        known: String,
    },
    /// The parent is a port of a bridge, which takes all its frames.
    #[error(
        "{parent} is a port of the bridge {bridge}, which takes all its frames; use parent = \"{bridge}\" for {name}"
    )]
    ParentInBridge {
        /// The NIC.
        name: NicName,
        /// Its parent.
        parent: NicName,
        /// The bridge.
        bridge: String,
    },
    /// A macvtap's MTU cannot exceed its parent's.
    #[error(
        "{name} cannot have MTU {mtu}: {parent}, which it stands on, has {parent_mtu}; run `ip link set {parent} mtu {mtu}`, or set mtu = {parent_mtu} for the NIC"
    )]
    MtuTooLarge {
        /// The NIC.
        name: NicName,
        /// What it should have.
        mtu: Mtu,
        /// Its parent.
        parent: String,
        /// What that has.
        parent_mtu: u32,
    },
    /// Two interfaces on one parent have the same MAC.
    #[error(
        "{0} cannot be up: another interface on the same parent has its MAC; look for it with `ip -d link`, and remove it"
    )]
    MacTaken(NicName),
    /// A queue or its device does not do as it should.
    #[error("cannot {what} {name}: {error}{hint}")]
    Queue {
        /// What was to be done.
        what: &'static str,
        /// To which interface.
        name: NicName,
        /// What went wrong.
        #[source]
        error: io::Error,
        /// What to do, where that is known.
        hint: &'static str,
    },
}

impl NicError {
    pub(super) fn queue(name: &NicName, what: &'static str, error: io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "; run as root or with CAP_NET_ADMIN (and CAP_MKNOD for a macvtap)"
            }
            _ => "",
        };
        Self::Queue { what, name: name.clone(), error, hint }
    }
}
