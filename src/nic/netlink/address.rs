//! Addresses of interfaces (`struct ifaddrmsg` and `IFA_*`, linux/if_addr.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{Message, attributes};
use super::{Netlink, Result};

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;

/// An address that an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Bits of its subnet.
    pub prefix: u8,
    /// Reaches no further than the link (`fe80::/10`, 169.254.0.0/16 where it was made so).
    pub link_scope: bool,
}

impl Netlink {
    /// Gives an interface an address, or makes the one it has like this. An IPv6 address works at once, without
    /// duplicate address detection.
    pub fn add_address(&mut self, index: u32, ip: IpAddr, prefix: u8) -> Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let message = message(libc::RTM_NEWADDR, flags, index, ip, prefix);
        let message = match ip {
            IpAddr::V4(v4) => message.maybe(IFA_BROADCAST, broadcast(v4, prefix).map(|b| b.octets())),
            IpAddr::V6(_) => message.number(IFA_FLAGS, IFA_F_NODAD),
        };
        self.change("add the address", format_args!("{ip}/{prefix}"), message)
    }

    /// Takes an address off an interface.
    pub fn delete_address(&mut self, index: u32, ip: IpAddr, prefix: u8) -> Result<()> {
        let message = message(libc::RTM_DELADDR, 0, index, ip, prefix);
        self.change("remove the address", format_args!("{ip}/{prefix}"), message)
    }

    /// The addresses of the interface with this number.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>> {
        self.addresses_of(index, |a| a.index == index)
    }

    /// The addresses of all interfaces.
    pub fn all_addresses(&mut self) -> Result<Vec<Address>> {
        self.addresses_of(0, |_| true)
    }

    /// Kernels from 4.20 on look through one interface where its number is given; older ones give everything.
    fn addresses_of(&mut self, index: u32, wanted: impl Fn(&Address) -> bool) -> Result<Vec<Address>> {
        let message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &head(0, 0, index));
        let parse = |body: &[u8]| Address::parse(body).filter(&wanted);
        self.query(("list", "the addresses"), message, libc::RTM_NEWADDR, parse)
    }
}

impl Address {
    pub(in crate::nic) fn parse(body: &[u8]) -> Option<Self> {
        let (&[_family, prefix, _flags, scope, i0, i1, i2, i3], rest) = body.split_first_chunk::<8>()?;
        let find = |kind| attributes(rest).find(|a| a.kind == kind).and_then(|a| to_ip(a.value));
        Some(Self {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            // On point-to-point links the other one is the peer's.
            ip: find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?,
            prefix,
            link_scope: scope == libc::RT_SCOPE_LINK,
        })
    }
}

fn message(kind: u16, flags: i32, index: u32, ip: IpAddr, prefix: u8) -> Message {
    let bytes = octets(ip);
    Message::new(kind, flags, &head(family(ip), prefix, index))
        .attr(IFA_LOCAL, &bytes)
        .attr(IFA_ADDRESS, &bytes)
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope; index.
fn head(family: u8, prefix: u8, index: u32) -> [u8; 8] {
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    [family, prefix, 0, libc::RT_SCOPE_UNIVERSE, i0, i1, i2, i3]
}

/// The last address of a subnet, where it is one to all.
fn broadcast(ip: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    (prefix < 31).then(|| Ipv4Addr::from_bits(ip.to_bits() | hosts))
}

/// `AF_INET` or `AF_INET6`.
pub(super) const fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn to_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}
