//! Giving an interface back what somebody else has changed since it was opened.

use std::net::IpAddr;

use tracing::warn;

use super::netlink::{Address, Link, NetlinkError};
use super::{Nic, NicError, NicRequest, Side};
use crate::types::NicMode;

impl Nic {
    /// Gives the interface back what somebody else has changed since, and says what that was. `up`: how a client's link is
    /// to be; a server's is always up.
    pub fn mend(&mut self, request: &NicRequest, up: bool) -> Result<Vec<String>, NicError> {
        let Some(link) = self.netlink.link(self.index)? else { return Ok(Vec::new()) };
        if !request.configure {
            return Ok(Vec::new());
        }
        let mut mended = self.mend_link(request, &link, up || request.side == Side::Server)?;
        match (request.side, self.mode) {
            // IPv6 addresses go with the link, and routes with either.
            (Side::Server, NicMode::Tap) => {
                self.mend_addresses(request, &mut mended)?;
                if self.add_missing_routes()? {
                    mended.push("its routes and rules".to_owned());
                }
            }
            (Side::Client, _) => self.take_addresses_off(request, &mut mended)?,
            (Side::Server, NicMode::Macvtap) => {}
        }
        Ok(mended)
    }

    fn mend_link(
        &mut self,
        request: &NicRequest,
        link: &Link,
        up: bool,
    ) -> Result<Vec<String>, NetlinkError> {
        let (mut mended, who) = (Vec::new(), (self.index, &self.name));
        // First down, then the rest, and up last: nothing is to be heard of it half-way.
        if link.is_up() && !up {
            self.netlink.set_up(who, false)?;
            mended.push("its link, which was set up without a session".to_owned());
        }
        if link.mac.is_some_and(|mac| mac != self.mac) {
            self.netlink.set_mac(who, self.mac)?;
            mended.push("its MAC".to_owned());
        }
        let mtu = u32::from(request.spec.mtu.bytes());
        if link.mtu != mtu {
            self.netlink.set_mtu(who, mtu)?;
            mended.push("its MTU".to_owned());
        }
        if !link.is_up() && up {
            self.netlink.set_up(who, true)?;
            mended.push("its link, which was set down".to_owned());
        }
        Ok(mended)
    }

    /// The NIC's own addresses are put back. What it should not have is somebody's wish, and told once.
    fn mend_addresses(&mut self, request: &NicRequest, mended: &mut Vec<String>) -> Result<(), NicError> {
        for addr in request.spec.addrs.iter().filter(|a| a.prefix.is_some()) {
            if self.apply_address(*addr, request)? {
                mended.push(format!("its address {addr}"));
            }
        }
        let own = |a: &Address| request.spec.addrs.iter().any(|own| own.ip == a.ip);
        let extra = self.netlink.addresses(self.index)?.into_iter().filter(|a| !a.link_scope && !own(a));
        let extra: Vec<_> = extra.map(|a| (a.ip, a.prefix)).collect();
        for (ip, prefix) in extra.iter().filter(|a| !self.told.contains(a)) {
            warn!(
                nic = %self.name,
                "somebody has given {} the address {ip}/{prefix}, which this NIC does not have: nobody on the LAN can \
                 find it there; add it to `ip` on both sides, or run `{} addr del {ip}/{prefix} dev {}`",
                self.name, request.stack.ip(), self.name
            );
        }
        self.told = extra;
        Ok(())
    }

    /// A client's interface has no address: this box's own kernel would answer for it.
    fn take_addresses_off(&mut self, request: &NicRequest, mended: &mut Vec<String>) -> Result<(), NicError> {
        let theirs = |ip: IpAddr| request.spec.addrs.iter().any(|own| own.ip == ip);
        let mut left = Vec::new();
        for a in self.netlink.addresses(self.index)? {
            let known = self.told.contains(&(a.ip, a.prefix));
            // One that was there before an interface that we did not make became ours is its owner's.
            if known && !theirs(a.ip) {
                left.push((a.ip, a.prefix));
                continue;
            }
            self.netlink.delete_address(self.index, a.ip, a.prefix)?;
            mended.push(format!("the address {}/{} that it was given", a.ip, a.prefix));
        }
        self.told = left;
        Ok(())
    }
}
