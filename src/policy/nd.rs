//! IPv6 neighbour discovery: who may claim which address (RFC 4861).
//!
//! A message claims its source address, and an advertisement or redirect its target. Where the headers of an IPv6
//! packet cannot be followed to what it carries, it may be a claim, and is treated as a false one (RFC 7113 section 2
//! says the same of router advertisements).

use crate::metrics::DropReason;
use crate::wire::ether::Link;
use crate::wire::ip::{Fragment, Ip};
use crate::wire::neighbour::{Nd, NdKind, Unreadable};

use super::owner::Owner;

/// A frame from the LAN comes from another MAC than the NIC's: it may not claim the NIC's addresses. Asking for
/// them is no claim, duplicate address detection included.
#[cold]
pub(super) fn from_lan(owner: &Owner, head: &[u8], total: usize, link: &Link) -> Result<(), DropReason> {
    let Some((ip, nd)) = read(head, total, link)? else { return Ok(()) };
    let claims_target = matches!(nd.kind, NdKind::NeighbourAdvertisement | NdKind::Redirect);
    let target = nd.target.filter(|_| claims_target);
    if owner.has(ip.src) || target.is_some_and(|t| owner.v6.contains(&t)) {
        return Err(DropReason::SpoofedNd);
    }
    Ok(())
}

/// The host claims its own addresses, and its own MAC in every link-layer address option. It may speak from `::`
/// to ask for routers, or to test one of its own addresses for duplicates.
#[cold]
pub(super) fn from_host(owner: &Owner, head: &[u8], total: usize, link: &Link) -> Result<(), DropReason> {
    let Some((ip, nd)) = read(head, total, link)? else { return Ok(()) };
    let own_target = nd.target.is_some_and(|t| owner.v6.contains(&t));
    let right = match nd.kind {
        NdKind::RouterSolicitation => owner.has(ip.src) || ip.src.is_unspecified(),
        NdKind::NeighbourSolicitation => owner.has(ip.src) || (ip.src.is_unspecified() && own_target),
        NdKind::NeighbourAdvertisement => owner.has(ip.src) && own_target,
        NdKind::RouterAdvertisement | NdKind::Redirect => owner.has(ip.src),
    };
    let hidden = ip.extended || nd.link_addresses_are(|mac| mac == owner.mac) != Ok(true);
    if right && !hidden { Ok(()) } else { Err(DropReason::SpoofedNd) }
}

/// The message in a frame, `None` where it carries something else. A message in a fragment is refused: receivers
/// must ignore it (RFC 6980), and what follows cannot be seen.
fn read<'a>(head: &'a [u8], total: usize, link: &Link) -> Result<Option<(Ip, Nd<'a>)>, DropReason> {
    let spoofed = |_: Unreadable| DropReason::SpoofedNd;
    let ip = Ip::parse(head, total, link).ok_or(DropReason::SpoofedNd)?;
    let Some(kind) = NdKind::of(head, &ip).map_err(spoofed)? else { return Ok(None) };
    if ip.fragment != Fragment::No {
        return Err(DropReason::SpoofedNd);
    }
    Nd::parse(head, &ip, kind).map(|nd| Some((ip, nd))).map_err(spoofed)
}
