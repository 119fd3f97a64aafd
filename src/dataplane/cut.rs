//! Super-frames and unfinished checksums for a NIC that takes neither: cut and finished here, packet by packet.
//!
//! The slow way, for NICs whose offloads were switched off or that lack them.

use crate::metrics::DropReason;
use crate::nic::Offloads;
use crate::wire::checksum::complete_checksum;
use crate::wire::record::{Gso, Offload};
use crate::wire::segment::Segments;
use crate::wire::vnet::VnetHeader;

/// May a frame with this left to do be written to a queue with these offloads?
#[inline]
pub fn takes(offloads: Offloads, offload: Offload) -> bool {
    match offload.gso {
        None => !offload.needs_checksum || offloads.checksum(),
        Some(Gso::Tcp(_)) => offloads.tcp(),
        Some(Gso::Udp(_)) => offloads.udp(),
    }
}

/// Gives every finished packet of a frame, behind its vnet header, to `write`, until one fails. The outer error: the
/// frame is none that could be cut.
pub fn each<'a, E>(
    offload: Offload,
    pieces: impl Iterator<Item = &'a [u8]>,
    total: usize,
    mut write: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<Result<(), E>, DropReason> {
    let mut frame = Vec::with_capacity(total);
    pieces.for_each(|piece| frame.extend_from_slice(piece));
    let segments = Segments::new(&frame, offload, frame.len())?;
    let vnet = VnetHeader::default().to_bytes();
    let mut packet = Vec::new();
    for i in 0..segments.count() {
        packet.clear();
        packet.resize(segments.header_len(), 0);
        let left = segments.write_headers(i, &mut packet).ok_or(DropReason::BadOffload)?;
        let payload = segments.payload(i).and_then(|p| frame.get(p)).ok_or(DropReason::BadOffload)?;
        packet.extend_from_slice(payload);
        let VnetHeader { csum_start, csum_offset, .. } = left.to_vnet(&packet, packet.len())?;
        complete_checksum(&mut packet, csum_start.into(), csum_offset.into())
            .ok_or(DropReason::BadOffload)?;
        if let Err(e) = write(&vnet, &packet) {
            return Ok(Err(e));
        }
    }
    Ok(Ok(()))
}
