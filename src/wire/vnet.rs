//! The virtio-net header that stands before every frame on a tap or macvtap queue (linux/virtio_net.h), and
//! how it is made from what crosses the wire.
//!
//! ```text
//! uplink    VnetHeader ── Offload::from_kernel ──► Offload ──► record
//! downlink  record ──► Offload ── Offload::to_vnet ──► VnetHeader
//! ```
//!
//! Nothing of a peer's header is passed through: [`Offload`] says only *that* a checksum is missing and how
//! a super-frame is to be cut; offsets and lengths are computed here, from the frame's own headers. What the
//! far end could not compute again, the near end finishes before it sends.

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
use crate::wire::checksum;
use crate::wire::ip::Transport;
use crate::wire::record::{Gso, Offload};
use crate::wire::shape::Shape;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the transport checksum is partial.
pub const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the checksum was verified on the way in.
pub const DATA_VALID: u8 = 2;

/// `VIRTIO_NET_HDR_GSO_*`
mod gso_type {
    pub(super) const NONE: u8 = 0;
    pub(super) const TCPV4: u8 = 1;
    pub(super) const TCPV6: u8 = 4;
    pub(super) const UDP_L4: u8 = 5;
    /// A bit beside the others: a TCP super-frame with CWR set.
    pub(super) const ECN: u8 = 0x80;
}

/// `struct virtio_net_hdr`, native-endian as tap devices have it without TUNSETVNETLE/BE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// `VIRTIO_NET_HDR_F_*`
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`
    pub gso_type: u8,
    /// Bytes of Ethernet, IP and transport headers.
    pub hdr_len: u16,
    /// Payload bytes of each packet that the super-frame is cut into.
    pub gso_size: u16,
    /// Where the checksummed part of the frame begins.
    pub csum_start: u16,
    /// Where in that part the checksum stands.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Bytes before each frame (TUNSETVNETHDRSZ).
    pub const LEN: usize = 10;

    /// Reads the header.
    #[inline]
    pub const fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let &[flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// The header as the kernel reads it.
    #[inline]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

impl Offload {
    /// What the kernel's header before a frame read from a NIC says, as it crosses the wire.
    ///
    /// Where the far end could not compute the same again (a checksum of SCTP, or inside an encapsulation) the
    /// checksum is completed in `frame`; where the kernel gives a super-frame with a finished checksum, that
    /// is made partial. `Err(BadOffload)`: a super-frame of a kind that does not cross.
    #[inline]
    pub fn from_kernel(h: &VnetHeader, frame: &mut [u8]) -> Result<Self, DropReason> {
        match Self::from_vnet(h, frame, frame.len()) {
            Ok(offload) => Ok(offload),
            Err(reason) => Self::settle(h, frame, reason),
        }
    }

    #[cold]
    fn settle(h: &VnetHeader, frame: &mut [u8], reason: DropReason) -> Result<Self, DropReason> {
        let partial = h.flags & NEEDS_CSUM != 0;
        if partial && h.gso_type == gso_type::NONE {
            return checksum::complete_checksum(frame, h.csum_start.into(), h.csum_offset.into())
                .map(|()| Self::default())
                .ok_or(DropReason::BadOffload);
        }
        if partial {
            return Err(reason);
        }
        let t = Transport::parse(frame, frame.len()).filter(|t| !t.ip.extended).ok_or(reason)?;
        let h = VnetHeader {
            flags: NEEDS_CSUM,
            csum_start: u16::try_from(t.ip.l4).map_err(|_| reason)?,
            csum_offset: t.checksum_offset(),
            ..*h
        };
        let offload = Self::from_vnet(&h, frame, frame.len())?;
        let sum = checksum::pseudo_header_sum(t.ip.src, t.ip.dst, t.ip.protocol, t.ip.l4_len());
        let field = t.ip.l4.checked_add(t.checksum_offset().into()).and_then(|at| frame.get_mut(at..));
        *field.and_then(|f| f.first_chunk_mut::<2>()).ok_or(reason)? = sum.to_be_bytes();
        Ok(offload)
    }

    /// What `h` says of a frame of `total` bytes whose front is `head`, in the terms of the wire.
    ///
    /// `Err(BadOffload)` where [`to_vnet`](Self::to_vnet) at the far end would refuse the frame or would find
    /// the checksum elsewhere than the kernel did. [`from_kernel`](Self::from_kernel) mends most of these.
    #[inline]
    pub fn from_vnet(h: &VnetHeader, head: &[u8], total: usize) -> Result<Self, DropReason> {
        if h.gso_type == gso_type::NONE && h.flags & NEEDS_CSUM == 0 {
            return Ok(Self::default());
        }
        let gso = match h.gso_type & !gso_type::ECN {
            gso_type::NONE => None,
            gso_type::TCPV4 | gso_type::TCPV6 => Some(Gso::Tcp(h.gso_size)),
            gso_type::UDP_L4 => Some(Gso::Udp(h.gso_size)),
            _ => return Err(DropReason::BadOffload),
        };
        let offload = Self { needs_checksum: h.flags & NEEDS_CSUM != 0, gso };
        let shape = Shape::of(offload, head, total)?;
        if usize::from(h.csum_start) != shape.transport.ip.l4
            || h.csum_offset != shape.transport.checksum_offset()
        {
            return Err(DropReason::BadOffload);
        }
        // Too small to be cut: not a super-frame to the kernel either.
        Ok(Self { gso: shape.size.and(gso), ..offload })
    }

    /// The header to write before a frame of `total` bytes whose front is `head`: every field computed from
    /// the frame's own headers. `Err(BadOffload)` where they do not bear the metadata out; see [`Shape::of`].
    #[inline]
    pub fn to_vnet(self, head: &[u8], total: usize) -> Result<VnetHeader, DropReason> {
        if self == Self::default() {
            return Ok(VnetHeader::default());
        }
        let Shape { transport: t, size } = Shape::of(self, head, total)?;
        let narrow = |n: usize| u16::try_from(n).map_err(|_| DropReason::BadOffload);
        let gso_type = match size {
            None => gso_type::NONE,
            Some(_) if !t.is_tcp => gso_type::UDP_L4,
            Some(_) if t.ip.src.is_ipv4() => gso_type::TCPV4,
            Some(_) => gso_type::TCPV6,
        };
        Ok(VnetHeader {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: if size.is_some() { narrow(t.payload)? } else { 0 },
            gso_size: size.unwrap_or(0),
            csum_start: narrow(t.ip.l4)?,
            csum_offset: t.checksum_offset(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sample::*;
    use proptest::prelude::*;

    const BAD: DropReason = DropReason::BadOffload;

    fn gso(gso: Gso) -> Offload {
        Offload { needs_checksum: true, gso: Some(gso) }
    }

    const CHECKSUM: Offload = Offload { needs_checksum: true, gso: None };

    #[test]
    fn a_frame_with_nothing_left_to_do_gets_a_header_of_zeros() {
        assert_eq!(Offload::default().to_vnet(b"anything", 8).unwrap().to_bytes(), [0; VnetHeader::LEN]);
        assert_eq!(
            Offload::from_vnet(&VnetHeader { flags: DATA_VALID, ..<_>::default() }, b"", 0),
            Ok(<_>::default())
        );
    }

    #[test]
    fn every_field_is_computed_from_the_frame() {
        for (v6, l3) in [(false, 20u16), (true, 40)] {
            let frame = tcp_frame(v6, 4000);
            let want = VnetHeader {
                flags: 1,
                gso_type: if v6 { 4 } else { 1 },
                hdr_len: 14 + l3 + 32,
                gso_size: 1448,
                csum_start: 14 + l3,
                csum_offset: 16,
            };
            assert_eq!(gso(Gso::Tcp(1448)).to_vnet(&frame[..192], frame.len()), Ok(want));
            assert_eq!(Offload::from_vnet(&want, &frame[..192], frame.len()), Ok(gso(Gso::Tcp(1448))));

            let frame = udp_frame(v6, 4000);
            let want =
                VnetHeader { gso_type: 5, hdr_len: 14 + l3 + 8, gso_size: 1000, csum_offset: 6, ..want };
            assert_eq!(gso(Gso::Udp(1000)).to_vnet(&frame[..192], frame.len()), Ok(want));
            assert_eq!(Offload::from_vnet(&want, &frame[..192], frame.len()), Ok(gso(Gso::Udp(1000))));

            let want = VnetHeader { gso_type: 0, hdr_len: 0, gso_size: 0, ..want };
            assert_eq!(CHECKSUM.to_vnet(&frame, frame.len()), Ok(want));
        }
    }

    #[test]
    fn the_congestion_bit_of_a_super_frame_is_stripped() {
        let frame = tcp_frame(false, 4000);
        let h = VnetHeader { gso_type: 0x81, ..gso(Gso::Tcp(1448)).to_vnet(&frame, frame.len()).unwrap() };
        assert_eq!(Offload::from_vnet(&h, &frame, frame.len()), Ok(gso(Gso::Tcp(1448))));
    }

    #[test]
    fn a_super_frame_that_fits_one_packet_is_none() {
        let frame = tcp_frame(false, 100);
        for size in [100, 1448] {
            let h = gso(Gso::Tcp(size)).to_vnet(&frame, frame.len()).unwrap();
            assert_eq!((h.gso_type, h.gso_size, h.flags), (0, 0, NEEDS_CSUM));
            let kernels = VnetHeader { gso_type: 1, gso_size: size, ..h };
            assert_eq!(Offload::from_vnet(&kernels, &frame, frame.len()), Ok(CHECKSUM));
        }
    }

    #[test]
    fn metadata_of_another_protocol_is_refused() {
        let (tcp, udp) = (tcp_frame(false, 4000), udp_frame(true, 4000));
        assert_eq!(gso(Gso::Udp(1000)).to_vnet(&tcp, tcp.len()), Err(BAD));
        assert_eq!(gso(Gso::Tcp(1000)).to_vnet(&udp, udp.len()), Err(BAD));
        for proto in [1, 132, 47] {
            let other = to_nic(false, proto, &[0; 400]);
            assert_eq!(CHECKSUM.to_vnet(&other, other.len()), Err(BAD), "protocol {proto}");
        }
        let arp = ether(NIC, HOST, &[], 0x0806, &[0; 400]);
        assert_eq!(CHECKSUM.to_vnet(&arp, arp.len()), Err(BAD));
    }

    #[test]
    fn sizes_that_no_kernel_sends_are_refused() {
        let (tcp, udp) = (tcp_frame(false, 4000), udp_frame(false, 4000));
        for size in [0, 1, Shape::MIN_TCP_SEGMENT - 1] {
            assert_eq!(gso(Gso::Tcp(size)).to_vnet(&tcp, tcp.len()), Err(BAD), "{size}");
        }
        assert!(gso(Gso::Tcp(Shape::MIN_TCP_SEGMENT)).to_vnet(&tcp, tcp.len()).is_ok());
        assert_eq!(gso(Gso::Udp(0)).to_vnet(&udp, udp.len()), Err(BAD));
        assert_eq!(gso(Gso::Udp(31)).to_vnet(&udp, udp.len()), Err(BAD), "130 datagrams");
        assert!(gso(Gso::Udp(32)).to_vnet(&udp, udp.len()).is_ok(), "125 datagrams");
    }

    #[test]
    fn segmentation_without_a_partial_checksum_is_refused() {
        let frame = tcp_frame(false, 4000);
        let offload = Offload { needs_checksum: false, gso: Some(Gso::Tcp(1448)) };
        assert_eq!(offload.to_vnet(&frame, frame.len()), Err(BAD));
    }

    #[test]
    fn a_fragment_has_no_checksum_to_complete() {
        let body = udp(1, 2, &[0; 64]);
        for field in [0x2000, 0x2008, 8] {
            let frame = ether(NIC, HOST, &[], 0x0800, &ipv4(HOST4, NIC4, 17, &[], field, &body));
            assert_eq!(CHECKSUM.to_vnet(&frame, frame.len()), Err(BAD), "{field:#x}");
        }
    }

    #[test]
    fn padding_is_legal_behind_a_small_frame_only() {
        let mut small = udp_frame(false, 2);
        small.resize(60, 0);
        assert!(CHECKSUM.to_vnet(&small, 60).is_ok());
        let mut large = tcp_frame(false, 4000);
        large.push(0);
        assert_eq!(gso(Gso::Tcp(1448)).to_vnet(&large, large.len()), Err(BAD));
    }

    #[test]
    fn headers_out_of_sight_are_refused() {
        let frame = tcp_frame(true, 4000);
        assert!(gso(Gso::Tcp(1448)).to_vnet(&frame[..86], frame.len()).is_ok());
        assert_eq!(gso(Gso::Tcp(1448)).to_vnet(&frame[..85], frame.len()), Err(BAD));
    }

    #[test]
    fn kinds_of_super_frames_that_do_not_cross_are_refused() {
        let frame = udp_frame(false, 4000);
        let h = gso(Gso::Udp(1000)).to_vnet(&frame, frame.len()).unwrap();
        for kind in [2, 3, 6, 0x7f, 0x83] {
            let h = VnetHeader { gso_type: kind, ..h };
            assert_eq!(Offload::from_kernel(&h, &mut frame.clone()), Err(BAD), "kind {kind:#x}");
        }
    }

    #[test]
    fn a_checksum_that_the_far_end_could_not_find_is_completed_here() {
        // TCP at an unusual place: inside IPv4 in IPv4, as a kernel without tunnel offload hands it over.
        let inner = ipv4(HOST4, NIC4, 6, &[], 0, &tcp(1, 0x10, &[], b"inner"));
        let mut frame = to_nic(false, 4, &inner);
        let l4 = 14 + 20 + 20;
        let partial = checksum::pseudo_header_sum(HOST4.into(), NIC4.into(), 6, 25);
        frame[l4 + 16..l4 + 18].copy_from_slice(&partial.to_be_bytes());
        let h = VnetHeader { flags: NEEDS_CSUM, csum_start: l4 as u16, csum_offset: 16, ..<_>::default() };
        assert_eq!(Offload::from_kernel(&h, &mut frame), Ok(Offload::default()));
        assert_eq!(checksum::add(checksum::sum(&frame[l4..]), partial), 0xffff);

        let outside = VnetHeader { csum_start: 5000, ..h };
        assert_eq!(Offload::from_kernel(&outside, &mut frame), Err(BAD));
    }

    #[test]
    fn a_super_frame_whose_partial_checksum_stands_elsewhere_is_refused_as_it_is() {
        let frame = tcp_frame(false, 4000);
        let h = gso(Gso::Tcp(1448)).to_vnet(&frame, frame.len()).unwrap();
        let start = VnetHeader { csum_start: h.csum_start + 2, ..h };
        let offset = VnetHeader { csum_offset: 6, ..h };
        for h in [start, offset] {
            let mut same = frame.clone();
            assert_eq!(Offload::from_kernel(&h, &mut same), Err(BAD));
            assert_eq!(same, frame);
        }
    }

    #[test]
    fn a_super_frame_with_a_finished_checksum_is_made_partial() {
        for v6 in [false, true] {
            let want = tcp_frame(v6, 4000);
            let mut frame = want.clone();
            let at = 14 + if v6 { 40 } else { 20 } + 16;
            frame[at..at + 2].copy_from_slice(&[0xde, 0xad]);
            let h = gso(Gso::Tcp(1448)).to_vnet(&want, want.len()).unwrap();
            let h = VnetHeader { flags: DATA_VALID, ..h };
            let unset = VnetHeader { csum_start: 0, csum_offset: 0, ..h };
            // Where a partial one would stand means nothing there.
            for h in [h, unset] {
                let mut frame = frame.clone();
                assert_eq!(Offload::from_kernel(&h, &mut frame), Ok(gso(Gso::Tcp(1448))));
                assert_eq!(frame, want);
            }
        }
    }

    proptest! {
        #[test]
        fn headers_survive_their_bytes(bytes in any::<[u8; 10]>()) {
            prop_assert_eq!(VnetHeader::from_bytes(&bytes).to_bytes(), bytes);
        }

        #[test]
        fn what_the_kernel_is_told_lies_inside_the_frame(
            v6 in any::<bool>(), tcp in any::<bool>(), payload in 0usize..5000, size in any::<u16>(),
            at in 12usize..90, byte in any::<u8>(), cut in 0usize..300, udp_gso in any::<bool>(),
        ) {
            let mut frame = if tcp { tcp_frame(v6, payload) } else { udp_frame(v6, payload) };
            if let Some(b) = frame.get_mut(at) { *b = byte; }
            let total = frame.len();
            let head = &frame[..total.min(cut)];
            let offload = gso(if udp_gso { Gso::Udp(size) } else { Gso::Tcp(size) });
            if let Ok(h) = offload.to_vnet(head, total) {
                prop_assert!(usize::from(h.csum_start) + usize::from(h.csum_offset) + 2 <= head.len());
                prop_assert!(usize::from(h.hdr_len) <= head.len());
                if h.gso_type != 0 {
                    prop_assert!(h.gso_size > 0 && usize::from(h.hdr_len) + usize::from(h.gso_size) < total);
                }
                prop_assert_eq!(Offload::from_vnet(&h, head, total).unwrap().to_vnet(head, total), Ok(h));
            }
        }
    }
}
