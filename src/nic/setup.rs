//! Giving an interface what its NIC has, and remembering how to put it back.

use std::fs::File;

use tracing::{debug, info, warn};

use super::macvtap::{hold, holder, mtu_too_large};
use super::netlink::{Link, NetlinkError};
use super::sysctl::{self, Sysctl};
use super::{Devices, GSO_MAX_SIZE, Nic, NicError, NicRequest, Side};
use crate::types::{MacAddr, NicAddr, NicMode};

/// One thing to put back.
#[derive(Debug)]
pub(super) enum Undo {
    /// Remove the interface.
    Link,
    /// Take our alias off.
    Alias,
    /// Take this address off.
    Address(NicAddr, u8),
    /// Set it down.
    Down,
    Mac(MacAddr),
    Mtu(u32),
    NoAllMulticast,
    GsoMaxSize(u32),
    /// Give a setting of the kernel's its value back.
    Sysctl {
        key: Sysctl,
        file: File,
        before: u8,
    },
}

impl Undo {
    pub(super) fn apply(self, nic: &mut Nic) -> Result<(), NetlinkError> {
        let (netlink, index, link) = (&mut nic.netlink, nic.index, (nic.index, &nic.name));
        match self {
            Self::Link => netlink.delete_link(link),
            Self::Alias => netlink.set_alias(link, ""),
            Self::Address(addr, prefix) => netlink.delete_address(index, addr.ip, prefix),
            Self::Down => netlink.set_up(link, false),
            Self::Mac(mac) => netlink.set_mac(link, mac),
            Self::Mtu(mtu) => netlink.set_mtu(link, mtu),
            Self::NoAllMulticast => netlink.set_all_multicast(link, false),
            Self::GsoMaxSize(bytes) => netlink.set_gso_max_size(link, bytes),
            Self::Sysctl { file, before, .. } => {
                let _ = sysctl::write(&file, before);
                Ok(())
            }
        }
    }
}

impl Nic {
    pub(super) fn configure(
        &mut self,
        devices: &dyn Devices,
        request: &NicRequest,
        link: &Link,
    ) -> Result<(), NicError> {
        self.limit_super_frames(link);
        if request.side == Side::Client && !self.created {
            self.hold(link)?;
        }
        if !request.configure {
            info!(nic = %self.name, "used as it is: configure = false");
            return match request.side {
                Side::Client => self.warn_of_addresses(),
                Side::Server => Ok(()),
            };
        }
        match request.side {
            Side::Client => self.configure_client(request, link),
            Side::Server => self.configure_server(devices, request, link),
        }
    }

    /// Says on an interface that outlives us whose it is, so that it can be set down when nobody of us is left. Somebody
    /// else's words on it stay.
    fn hold(&mut self, link: &Link) -> Result<(), NicError> {
        if link.alias.is_some() && holder(link).is_none() {
            return Ok(());
        }
        self.netlink.set_alias((self.index, &self.name), &hold())?;
        self.undo.push(Undo::Alias);
        Ok(())
    }

    fn configure_client(&mut self, request: &NicRequest, link: &Link) -> Result<(), NicError> {
        // And it stays down at the end: a client's interface that is up without a session speaks for the host.
        if link.is_up() {
            self.netlink.set_up((self.index, &self.name), false)?;
        }
        match self.mode {
            NicMode::Macvtap => {
                self.apply_mac(request.spec.mac, link)?;
                self.take_all_multicast(link)?;
            }
            NicMode::Tap => self.disown_mac(request.spec.mac, link)?,
        }
        self.apply_mtu(request, link)?;
        // After the MTU: one under 1280 takes IPv6 away, and a larger one brings it back.
        self.keep_ipv6_off()?;
        self.warn_of_addresses()
    }

    fn configure_server(
        &mut self,
        devices: &dyn Devices,
        request: &NicRequest,
        link: &Link,
    ) -> Result<(), NicError> {
        match self.mode {
            NicMode::Tap => {
                self.apply_mac(request.spec.mac, link)?;
                self.apply_mtu(request, link)?;
                for addr in &request.spec.addrs {
                    self.apply_address(*addr, request)?;
                }
            }
            // MAC and addresses are those of the machine on its parent.
            NicMode::Macvtap => {
                self.apply_mtu(request, link)?;
                self.take_all_multicast(link)?;
                self.keep_ipv6_off()?;
            }
        }
        if !link.is_up() {
            self.set_up(true)?;
            self.remember(Undo::Down);
        }
        if let (NicMode::Tap, Err(e)) = (self.mode, self.set_routes(devices, request)) {
            // The NIC is of use without.
            warn!(
                nic = %self.name,
                "its own routing table could not be set up, and another NIC may answer in its place: {e}; write routing = \
                 \"none\" to do without"
            );
        }
        Ok(())
    }

    /// An interface that we made goes as a whole.
    pub(super) fn remember(&mut self, undo: Undo) {
        if !self.created {
            self.undo.push(undo);
        }
    }

    fn limit_super_frames(&mut self, link: &Link) {
        if link.gso_max_size <= GSO_MAX_SIZE {
            return;
        }
        match self.netlink.set_gso_max_size((self.index, &self.name), GSO_MAX_SIZE) {
            Ok(()) => self.remember(Undo::GsoMaxSize(link.gso_max_size)),
            Err(e) => debug!(nic = %self.name, "{e}"),
        }
    }

    fn apply_mac(&mut self, mac: MacAddr, link: &Link) -> Result<(), NicError> {
        let Some(before) = link.mac.filter(|before| *before != mac) else { return Ok(()) };
        self.netlink.set_mac((self.index, &self.name), mac)?;
        self.remember(Undo::Mac(before));
        self.mac = mac;
        Ok(())
    }

    /// A client's tap with the projected MAC would make its bridge keep the host's frames to itself.
    fn disown_mac(&mut self, projected: MacAddr, link: &Link) -> Result<(), NicError> {
        if link.mac != Some(projected) {
            return Ok(());
        }
        let mac = unused_mac();
        warn!(nic = %self.name, %projected, %mac, "a client's tap must not have the projected MAC itself: changed");
        self.apply_mac(mac, link)
    }

    fn apply_mtu(&mut self, request: &NicRequest, link: &Link) -> Result<(), NicError> {
        let mtu = u32::from(request.spec.mtu.bytes());
        if link.mtu == mtu {
            return Ok(());
        }
        if let Some(parent) = self.parent(link)?.filter(|parent| mtu > parent.mtu) {
            return Err(mtu_too_large(request, &parent));
        }
        self.netlink.set_mtu((self.index, &self.name), mtu)?;
        self.remember(Undo::Mtu(link.mtu));
        Ok(())
    }

    /// Without it neighbour solicitations, mDNS and LLDP do not reach a macvtap's queues.
    fn take_all_multicast(&mut self, link: &Link) -> Result<(), NicError> {
        if link.is_all_multicast() {
            return Ok(());
        }
        self.netlink.set_all_multicast((self.index, &self.name), true)?;
        self.remember(Undo::NoAllMulticast);
        Ok(())
    }

    /// True where it did not have the address.
    pub(super) fn apply_address(&mut self, addr: NicAddr, request: &NicRequest) -> Result<bool, NicError> {
        let Some(prefix) = addr.prefix else {
            info!(
                nic = %self.name,
                "{addr} has no prefix length and is left to you: write one (ip = \"{addr}/24\"), or run `{} addr add {addr}/24 dev {}`",
                request.stack.ip(), self.name
            );
            return Ok(false);
        };
        let has = |a: &super::netlink::Address| (a.ip, a.prefix) == (addr.ip, prefix);
        if self.netlink.addresses(self.index)?.iter().any(has) {
            return Ok(false);
        }
        self.netlink.add_address(self.index, addr.ip, prefix)?;
        self.remember(Undo::Address(addr, prefix));
        Ok(true)
    }

    /// The client's kernel must claim no address, not even a link-local one.
    fn keep_ipv6_off(&mut self) -> Result<(), NicError> {
        // Fails where there is no IPv6, and where /proc/sys is read-only, as in many containers.
        let Ok(switch) = Sysctl::DisableIpv6.open(self.name.as_str()) else {
            return match self.netlink.set_no_link_local((self.index, &self.name)) {
                Err(e) if e.errno() == Some(libc::EAFNOSUPPORT) => Ok(()),
                other => Ok(other?),
            };
        };
        self.change_sysctl(Sysctl::DisableIpv6, switch, |now| (now == 0).then_some(1))
            .map_err(|e| NicError::queue(&self.name, "switch off IPv6 on", e))
    }

    fn warn_of_addresses(&mut self) -> Result<(), NicError> {
        for a in self.netlink.addresses(self.index)? {
            self.told.push((a.ip, a.prefix));
            warn!(
                nic = %self.name,
                "{} has the address {}/{}: this box's own kernel will answer for it, and nothing will reach the server; run `ip addr flush dev {}`",
                self.name, a.ip, a.prefix, self.name
            );
        }
        Ok(())
    }

    /// What a macvtap stands on, if that is in this namespace.
    fn parent(&mut self, link: &Link) -> Result<Option<Link>, NetlinkError> {
        match link.parent {
            Some(parent) if self.mode == NicMode::Macvtap && !link.parent_elsewhere => {
                self.netlink.link(parent)
            }
            _ => Ok(None),
        }
    }

    /// A macvtap goes up on a parent that is down, and hears nothing there.
    pub(super) fn warn_of_idle_parent(&mut self) -> Result<(), NicError> {
        let Some(link) = self.netlink.link(self.index)? else { return Ok(()) };
        if let Some(parent) = self.parent(&link)?.filter(|parent| !parent.is_up()) {
            let parent = parent.name;
            warn!(nic = %self.name, "{parent}, which {} stands on, is down; run `ip link set {parent} up`", self.name);
        }
        Ok(())
    }
}

/// A random local MAC that is larger than any real one: a bridge takes the smallest of its ports' for its own.
fn unused_mac() -> MacAddr {
    let [a, b, c, d, e] = rand::random();
    MacAddr([0xfe, a, b, c, d, e])
}
