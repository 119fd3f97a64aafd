//! The link header of a frame: addresses, VLAN tags, and what the frame carries.
//!
//! ```text
//! dst 6 | src 6 | [ TPID 2 | TCI 2 ] × 0–2 | ethertype 2 | l3 …
//! ```
//!
//! Parsers of headers ([`Link`], [`Ip`](super::ip::Ip)) look at the front of a frame only: the *head*, which is
//! the whole frame or at least [`MIN_FIRST_PART`](super::record::MIN_FIRST_PART) bytes of it, and at the
//! frame's length where a header speaks of one. They copy a few bytes, allocate nothing and never panic.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use crate::types::MacAddr;

/// Bytes of an Ethernet header without tags.
pub const HEADER_LEN: usize = 14;
/// Bytes of one VLAN tag.
pub const TAG_LEN: usize = 4;

/// Ethertypes (IEEE 802 numbers, IANA).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// The customer tag of 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// The service tag of 802.1ad.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// Left to local experiments (IEEE 802, 9.2.4): here, marked frames ([`probe`](super::super::probe)).
    pub const LOCAL: u16 = 0x88b5;
    /// Below this, the field is the length of an LLC frame (IEEE 802.3, 3.2.6).
    pub const MIN: u16 = 0x0600;
}

/// The front of an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whom the frame is for.
    pub dst: MacAddr,
    /// Who sent it.
    pub src: MacAddr,
    /// 802.1Q and 802.1ad tags before `ethertype`, a priority tag (VLAN 0) included: 0 to 2.
    pub tags: u8,
    /// What follows the tags. A third tag's type stands here as it is, and so does an LLC length.
    pub ethertype: u16,
    /// Where the network header begins, and so the length of this one: 14, 18 or 22.
    pub l3: usize,
}

impl Link {
    /// Reads the link header; `None` where the frame ends inside it or inside a tag.
    #[inline]
    pub fn parse(head: &[u8]) -> Option<Self> {
        let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = head.first_chunk::<HEADER_LEN>()?;
        let link = Self {
            dst: MacAddr([d0, d1, d2, d3, d4, d5]),
            src: MacAddr([s0, s1, s2, s3, s4, s5]),
            tags: 0,
            ethertype: u16::from_be_bytes([t0, t1]),
            l3: HEADER_LEN,
        };
        if is_tag(link.ethertype) { link.behind_tags(head) } else { Some(link) }
    }

    #[cold]
    fn behind_tags(mut self, head: &[u8]) -> Option<Self> {
        while is_tag(self.ethertype) && self.tags < 2 {
            let &[_, _, t0, t1] = head.get(self.l3..)?.first_chunk::<TAG_LEN>()?;
            self.tags = self.tags.saturating_add(1);
            self.l3 = self.l3.saturating_add(TAG_LEN);
            self.ethertype = u16::from_be_bytes([t0, t1]);
        }
        Some(self)
    }
}

/// An untagged header.
pub const fn header(dst: MacAddr, src: MacAddr, ethertype: u16) -> [u8; HEADER_LEN] {
    let [d0, d1, d2, d3, d4, d5] = dst.0;
    let [s0, s1, s2, s3, s4, s5] = src.0;
    let [t0, t1] = ethertype.to_be_bytes();
    [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]
}

/// True for the tags that Linux reads as VLAN tags (`eth_type_vlan` in linux/if_vlan.h).
#[inline]
pub const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(types: &[u16]) -> Vec<u8> {
        let mut f = vec![1, 2, 3, 4, 5, 6, 0x0a, 0xb, 0xc, 0xd, 0xe, 0xf];
        for (i, t) in types.iter().enumerate() {
            f.extend(t.to_be_bytes());
            if i + 1 < types.len() {
                f.extend([0x20, 7]);
            }
        }
        f
    }

    #[test]
    fn up_to_two_tags_are_walked() {
        for (types, tags, ethertype, l3) in [
            (&[0x0800][..], 0, 0x0800, 14),
            (&[0x8100, 0x86dd], 1, 0x86dd, 18),
            (&[0x88a8, 0x8100, 0x0806], 2, 0x0806, 22),
            (&[0x8100, 0x8100, 0x8100, 0x0800], 2, 0x8100, 22),
            (&[0x0026], 0, 0x0026, 14),
        ] {
            let link = Link::parse(&frame(types)).unwrap();
            assert_eq!((link.tags, link.ethertype, link.l3), (tags, ethertype, l3), "{types:x?}");
            assert_eq!(link.dst, MacAddr([1, 2, 3, 4, 5, 6]));
            assert_eq!(link.src, MacAddr([10, 11, 12, 13, 14, 15]));
        }
    }

    #[test]
    fn a_frame_that_ends_in_its_link_header_is_none() {
        let whole = frame(&[0x88a8, 0x8100, 0x0800]);
        for n in 0..whole.len() {
            assert_eq!(Link::parse(&whole[..n]), None, "{n} bytes");
        }
    }
}
