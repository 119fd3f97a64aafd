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
