//! The virtio-net header that stands before every frame on a tap or macvtap queue (linux/virtio_net.h), and
//! how it is made from what crosses the wire.
//!
//! Nothing of a peer's header is passed through: [`Offload`] says only *that* a checksum is missing and how
//! a super-frame is to be cut; offsets and lengths are computed here, from the frame's own headers.

use crate::metrics::DropReason;
use crate::wire::record::Offload;

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
