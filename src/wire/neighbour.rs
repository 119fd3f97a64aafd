//! ARP and IPv6 neighbour discovery: who says that which address is at which MAC.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::net::{Ipv4Addr, Ipv6Addr};

use super::ip::{Fragment, Ip, protocol};
use crate::types::MacAddr;

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// [`REQUEST`](Self::REQUEST), [`REPLY`](Self::REPLY), or something rarer.
    pub op: u16,
    /// The MAC that the sender claims for `sender_ip`.
    pub sender_mac: MacAddr,
    /// The sender's address; `0.0.0.0` in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Unset in a request.
    pub target_mac: MacAddr,
    /// The address asked for.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Bytes of the packet.
    pub const LEN: usize = 28;
    /// Who has `target_ip`?
    pub const REQUEST: u16 = 1;
    /// `sender_ip` is at `sender_mac`.
    pub const REPLY: u16 = 2;
    /// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
    const PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];

    /// Reads the packet at `l3`; `None` where it is cut off, or of other types or address lengths.
    #[inline]
    pub fn parse(head: &[u8], l3: usize) -> Option<Self> {
        let (&prefix, rest) = head.get(l3..)?.split_first_chunk::<6>()?;
        let (&op, rest) = rest.split_first_chunk::<2>()?;
        let (&sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (&sender_ip, rest) = rest.split_first_chunk::<4>()?;
        let (&target_mac, rest) = rest.split_first_chunk::<6>()?;
        let &target_ip = rest.first_chunk::<4>()?;
        (prefix == Self::PREFIX).then_some(Self {
            op: u16::from_be_bytes(op),
            sender_mac: MacAddr(sender_mac),
            sender_ip: sender_ip.into(),
            target_mac: MacAddr(target_mac),
            target_ip: target_ip.into(),
        })
    }

    /// The packet's bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let [p0, p1, p2, p3, p4, p5] = Self::PREFIX;
        let [o0, o1] = self.op.to_be_bytes();
        let [a, b, c, d, e, f] = self.sender_mac.0;
        let [i0, i1, i2, i3] = self.sender_ip.octets();
        let [g, h, i, j, k, l] = self.target_mac.0;
        let [j0, j1, j2, j3] = self.target_ip.octets();
        [p0, p1, p2, p3, p4, p5, o0, o1, a, b, c, d, e, f, i0, i1, i2, i3, g, h, i, j, k, l, j0, j1, j2, j3]
    }
}

/// The five messages of neighbour discovery (RFC 4861 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdKind {
    /// Type 133.
    RouterSolicitation,
    /// Type 134.
    RouterAdvertisement,
    /// Type 135.
    NeighbourSolicitation,
    /// Type 136.
    NeighbourAdvertisement,
    /// Type 137.
    Redirect,
}

impl NdKind {
    /// Which message an ICMPv6 packet is: `Ok(None)` where it is another one, `Err` where `head` does not show
    /// its type.
    #[inline]
    pub fn of(head: &[u8], ip: &Ip) -> Result<Option<Self>, Unreadable> {
        if ip.protocol != protocol::ICMPV6 || ip.fragment == Fragment::Later {
            return Ok(None);
        }
        if ip.l4 >= ip.end {
            return Err(Unreadable);
        }
        Ok(match head.get(ip.l4).ok_or(Unreadable)? {
            133 => Some(Self::RouterSolicitation),
            134 => Some(Self::RouterAdvertisement),
            135 => Some(Self::NeighbourSolicitation),
            136 => Some(Self::NeighbourAdvertisement),
            137 => Some(Self::Redirect),
            _ => None,
        })
    }

    /// Bytes before the options.
    const fn fixed_len(self) -> usize {
        match self {
            Self::RouterSolicitation => 8,
            Self::RouterAdvertisement => 16,
            Self::NeighbourSolicitation | Self::NeighbourAdvertisement => 24,
            Self::Redirect => 40,
        }
    }
}

/// A message that ends before it should, or runs out of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// A neighbour discovery message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nd<'a> {
    /// Which one.
    pub kind: NdKind,
    /// Whose link-layer address is asked for, advertised or redirected to: the target of solicitations,
    /// advertisements and redirects.
    pub target: Option<Ipv6Addr>,
    options: &'a [u8],
    /// The head shows all of the options.
    whole: bool,
}

impl<'a> Nd<'a> {
    /// Reads the part of a message of this kind that stands before its options; `Err` where that is cut off.
    pub fn parse(head: &'a [u8], ip: &Ip, kind: NdKind) -> Result<Self, Unreadable> {
        let message = head.get(ip.l4..ip.end.min(head.len())).ok_or(Unreadable)?;
        let (fixed, options) = message.split_at_checked(kind.fixed_len()).ok_or(Unreadable)?;
        // Solicitations and advertisements of routers have no target, and no room for one.
        let target = fixed.get(8..).and_then(|f| f.first_chunk::<16>()).map(|&a| Ipv6Addr::from(a));
        Ok(Self { kind, target, options, whole: ip.end <= head.len() })
    }

    /// True where every source and target link-layer address option (RFC 4861 section 4.6.1) satisfies `test`.
    /// `Err` where an option has no length, runs past the message or out of the head, or gives no MAC.
    pub fn link_addresses_are(&self, test: impl Fn(MacAddr) -> bool) -> Result<bool, Unreadable> {
        let mut rest = self.options;
        let mut all = true;
        while let [kind, len, ..] = *rest {
            let len = usize::from(len).saturating_mul(8);
            let (option, tail) = rest.split_at_checked(len).filter(|_| len > 0).ok_or(Unreadable)?;
            if let 1 | 2 = kind {
                let &[_, _, a, b, c, d, e, f] = option else { return Err(Unreadable) };
                all &= test(MacAddr([a, b, c, d, e, f]));
            }
            rest = tail;
        }
        if rest.is_empty() && self.whole { Ok(all) } else { Err(Unreadable) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ether::Link;
    use crate::wire::sample::*;
    use proptest::prelude::*;

    #[test]
    fn arp_reads_back_as_it_was_written() {
        let arp =
            Arp { op: 1, sender_mac: HOST, sender_ip: HOST4, target_mac: MacAddr([0; 6]), target_ip: NIC4 };
        let bytes = arp.to_bytes();
        assert_eq!(Arp::parse(&bytes, 0), Some(arp));
        for n in 0..Arp::LEN {
            assert_eq!(Arp::parse(&bytes[..n], 0), None);
        }
        for at in 0..6 {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(Arp::parse(&bad, 0), None, "byte {at}");
        }
    }

    fn read(message: &[u8]) -> Result<(), Unreadable> {
        read_then(message, |_| ())
    }

    fn read_then<R>(message: &[u8], then: impl FnOnce(Nd<'_>) -> R) -> Result<R, Unreadable> {
        let frame = to_nic(true, 58, message);
        let ip = Ip::parse(&frame, frame.len(), &Link::parse(&frame).unwrap()).unwrap();
        let kind = NdKind::of(&frame, &ip)?.expect("neighbour discovery");
        let nd = Nd::parse(&frame, &ip, kind)?;
        nd.link_addresses_are(|_| true)?;
        Ok(then(nd))
    }

    #[test]
    fn options_are_walked_to_their_end() {
        let mac = |k| [k, 1, 2, 0, 0, 0, 0, 0x99];
        let other = [[5, 2].as_slice(), &[0; 14]].concat();
        let seen = read_then(&nd(135, NIC6, &[&mac(1), &other, &mac(2)]), |nd| {
            assert_eq!((nd.kind, nd.target), (NdKind::NeighbourSolicitation, Some(NIC6)));
            assert_eq!(nd.link_addresses_are(|m| m == HOST), Ok(true));
            assert_eq!(nd.link_addresses_are(|m| m == NIC), Ok(false));
        });
        assert_eq!(seen, Ok(()));
    }

    #[test]
    fn malformed_messages_are_unreadable() {
        for options in [
            &[1u8, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 2, 0, 0, 0, 0, 0, 0],
            &[1],
            &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(read(&nd(136, NIC6, &[options])), Err(Unreadable), "{options:?}");
        }
        for (kind, len) in [(133u8, 8), (134, 16), (135, 24), (136, 24), (137, 40)] {
            let mut message = vec![kind; len];
            assert!(read(&message).is_ok());
            message.pop();
            assert_eq!(read(&message), Err(Unreadable), "type {kind}");
        }
    }

    #[test]
    fn messages_of_routers_have_no_target() {
        for (kind, len, target) in [(133u8, 8, false), (134, 16, false), (135, 24, true), (137, 40, true)] {
            assert_eq!(read_then(&vec![kind; len], |nd| nd.target.is_some()), Ok(target), "type {kind}");
        }
    }

    #[test]
    fn other_protocols_and_later_fragments_are_no_neighbour_discovery() {
        let kind = |frame: &[u8]| {
            let ip = Ip::parse(frame, frame.len(), &Link::parse(frame).unwrap()).unwrap();
            NdKind::of(frame, &ip)
        };
        let message = nd(135, NIC6, &[]);
        assert_eq!(kind(&to_nic(true, 58, &message)), Ok(Some(NdKind::NeighbourSolicitation)));
        assert_eq!(kind(&to_nic(true, 17, &message)), Ok(None), "a UDP port");
        let later = [&[58, 0, 0, 8, 0, 0, 0, 9], &message[..]].concat();
        assert_eq!(kind(&to_nic(true, 44, &later)), Ok(None), "data in the middle of a packet");
        assert_eq!(kind(&to_nic(true, 58, &[128, 0, 0, 0])), Ok(None), "an echo request");
        assert_eq!(kind(&to_nic(true, 58, &[])), Err(Unreadable), "no type at all");
    }

    proptest! {
        #[test]
        fn any_message_reads_or_is_refused(kind in 133u8..138, rest in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = read(&[&[kind][..], &rest].concat());
        }
    }
}
