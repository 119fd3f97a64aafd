//! Whether a frame can bear what is said to be left to do to it, and where the work begins.
//!
//! The one judgement of [`Offload`] metadata: what is told to the kernel, what is cut by hand, and how large the
//! packets of a super-frame count all start from a [`Shape`].

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use crate::metrics::DropReason;
use crate::wire::ip::Transport;
use crate::wire::record::{Gso, Offload};

/// A frame that still needs something done to it, measured by its own headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The packet, down to its payload.
    pub transport: Transport,
    /// Payload bytes of each packet of a super-frame; `None` where the payload fits one packet.
    pub size: Option<u16>,
}

impl Shape {
    /// Least payload of a TCP segment: `TCP_MIN_GSO_SIZE` (net/tcp.h), which is `TCP_MIN_SND_MSS` less the most
    /// that options can take. With it a super-frame is never more than 8,192 segments.
    pub const MIN_TCP_SEGMENT: u16 = 8;
    /// Most datagrams in a UDP super-frame: `UDP_MAX_SEGMENTS` (linux/udp.h).
    pub const MAX_UDP_SEGMENTS: usize = 128;

    /// Holds `offload` against the headers in `head`, the front of a frame of `total` bytes. `Err(BadOffload)`:
    ///
    /// - segmentation without a partial checksum, which Linux demands of UDP and makes itself for TCP;
    /// - anything but unfragmented, well-formed TCP or UDP over IP, headers whole in `head`;
    /// - a super-frame of another protocol than its headers say, with bytes behind its packet, with a size of
    ///   zero, or cut into more pieces than a kernel would.
    #[inline]
    pub fn of(offload: Offload, head: &[u8], total: usize) -> Result<Self, DropReason> {
        let transport = Transport::parse(head, total)
            .filter(|_| offload.needs_checksum && head.len() <= total)
            .ok_or(DropReason::BadOffload)?;
        let (size, right_kind) = match offload.gso {
            None => return Ok(Self { transport, size: None }),
            Some(Gso::Tcp(n)) => (n, transport.is_tcp && n >= Self::MIN_TCP_SEGMENT),
            Some(Gso::Udp(n)) => (n, !transport.is_tcp && n > 0),
        };
        let packets = transport.payload_len().div_ceil(usize::from(size).max(1));
        if !right_kind || (!transport.is_tcp && packets > Self::MAX_UDP_SEGMENTS) {
            return Err(DropReason::BadOffload);
        }
        if packets <= 1 {
            return Ok(Self { transport, size: None });
        }
        if transport.ip.end != total {
            return Err(DropReason::BadOffload);
        }
        Ok(Self { transport, size: Some(size) })
    }

    /// How many packets the frame stands for: 1 or more.
    #[inline]
    pub fn packets(&self) -> usize {
        match self.size {
            None => 1,
            Some(n) => self.transport.payload_len().div_ceil(usize::from(n).max(1)),
        }
    }

    /// Bytes of the largest frame that it is cut into.
    #[inline]
    pub fn largest(&self, total: usize) -> usize {
        self.size.map_or(total, |n| self.transport.payload.saturating_add(n.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sample::*;

    fn of(frame: &[u8], gso: Gso) -> Result<Shape, DropReason> {
        Shape::of(Offload { needs_checksum: true, gso: Some(gso) }, frame, frame.len())
    }

    #[test]
    fn a_udp_super_frame_is_at_most_what_a_kernel_cuts_and_never_cut_into_nothing() {
        let most = Shape::MAX_UDP_SEGMENTS;
        assert_eq!(of(&udp_frame(false, most * 10), Gso::Udp(10)).unwrap().packets(), most);
        assert_eq!(of(&udp_frame(false, most * 10 + 1), Gso::Udp(10)), Err(DropReason::BadOffload));
        assert_eq!(of(&udp_frame(false, 100), Gso::Udp(0)), Err(DropReason::BadOffload));
    }

    #[test]
    fn the_largest_frame_of_a_super_frame_has_its_headers_and_one_size() {
        for (v6, l3) in [(false, 20), (true, 40)] {
            let frame = tcp_frame(v6, 4000);
            assert_eq!(of(&frame, Gso::Tcp(1448)).unwrap().largest(frame.len()), 14 + l3 + 32 + 1448);
            assert_eq!(of(&frame, Gso::Tcp(4000)).unwrap().largest(frame.len()), frame.len(), "one packet");
        }
    }
}
