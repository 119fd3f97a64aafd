//! What the kernel makes of a vnet header and the frame behind it, written down a second time: from
//! `virtio_net_hdr_to_skb` (linux/virtio_net.h), the GSO receive checks of TCP and UDP, and nothing of tap-rs's own
//! parsers. A header that passes here means the same to the kernel as the frame's own bytes do.

/// The vnet header's fields.
#[derive(Clone, Copy, Debug)]
pub struct Vnet {
    flags: u8,
    gso_type: u8,
    hdr_len: usize,
    gso_size: usize,
    csum_start: usize,
    csum_offset: usize,
}

impl Vnet {
    /// As the kernel reads them.
    pub fn of(bytes: &[u8; 10]) -> Self {
        let word = |at: usize| usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
        let (flags, gso_type) = (bytes[0], bytes[1]);
        Self {
            flags,
            gso_type,
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }
}

/// Where the transport header of a frame stands, by a reading of its bytes from front to back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// IPv6, or else IPv4.
    pub v6: bool,
    /// TCP, or else UDP.
    pub tcp: bool,
    /// Where the TCP or UDP header begins.
    pub l4: usize,
    /// Where its payload begins.
    pub payload: usize,
    /// Where the packet ends.
    pub end: usize,
}

/// The place of TCP or UDP in an unfragmented packet, any number of tags and extension headers before it. `None`
/// where a length runs out of what holds it.
pub fn place(frame: &[u8]) -> Option<Place> {
    let be = |at: usize| Some(usize::from(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?])));
    let mut at = 12;
    while matches!(be(at)?, 0x8100 | 0x88a8) {
        at += 4;
    }
    let l3 = at + 2;
    let first = usize::from(*frame.get(l3)?);
    let (v6, protocol, l4, end) = match (be(at)?, first >> 4) {
        (0x0800, 4) => {
            let (header, length) = ((first & 15) * 4, be(l3 + 2)?);
            if header < 20 || length < header || be(l3 + 6)? & 0x3fff != 0 {
                return None;
            }
            (false, *frame.get(l3 + 9)?, l3 + header, l3 + length)
        }
        (0x86dd, 6) => {
            let end = l3 + 40 + be(l3 + 4)?;
            let (mut next, mut at) = (*frame.get(l3 + 6)?, l3 + 40);
            loop {
                let len = usize::from(frame.get(at + 1).copied().unwrap_or(0));
                let long = match next {
                    0 | 43 | 60 | 139 | 140 => (len + 1) * 8,
                    51 => (len + 2) * 4,
                    44 => return None,
                    _ => break,
                };
                next = *frame.get(at)?;
                at += long;
            }
            (true, next, at, end)
        }
        _ => return None,
    };
    let header = match protocol {
        6 => usize::from(*frame.get(l4 + 12)? >> 4) * 4,
        17 if be(l4 + 4)? == end.checked_sub(l4)? => 8,
        _ => return None,
    };
    let least = if protocol == 6 { 20 } else { 8 };
    let payload = l4 + header;
    (header >= least && payload <= end && end <= frame.len()).then_some(Place {
        v6,
        tcp: protocol == 6,
        l4,
        payload,
        end,
    })
}

/// Panics where the kernel would misread a frame with this header before it, of which the first `linear` bytes
/// were looked at.
pub fn check(header: &[u8; 10], frame: &[u8], linear: usize) {
    let h = Vnet::of(header);
    if h.flags == 0 {
        assert_eq!(*header, [0; 10], "a header that says nothing is all zero");
        return;
    }
    assert_eq!(h.flags, 1, "no flag but NEEDS_CSUM: {h:?}");
    let p = place(frame).unwrap_or_else(|| panic!("no TCP or UDP to complete: {h:?} before {frame:02x?}"));
    let checksum = if p.tcp { 16 } else { 6 };
    assert_eq!((h.csum_start, h.csum_offset), (p.l4, checksum), "{h:?} {p:?}");
    assert!(h.csum_start + h.csum_offset + 2 <= p.end && p.payload <= linear, "{h:?} {p:?}");
    if h.gso_type == 0 {
        assert_eq!((h.hdr_len, h.gso_size), (0, 0), "{h:?}");
        return;
    }
    let kind = match (p.tcp, p.v6) {
        (true, false) => 1,
        (true, true) => 4,
        (false, _) => 5,
    };
    assert_eq!(h.gso_type, kind, "{h:?} {p:?}");
    assert_eq!(h.hdr_len, p.payload, "{h:?} {p:?}");
    assert_eq!(
        p.end,
        frame.len(),
        "bytes behind a super-frame's packet would be cut as payload: {h:?} {p:?}"
    );
    let payload = p.end - p.payload;
    assert!(h.gso_size > 0 && payload > h.gso_size, "a super-frame is more than one packet: {h:?} {p:?}");
    let packets = payload.div_ceil(h.gso_size);
    assert!(if p.tcp { h.gso_size >= 8 } else { packets <= 128 }, "{packets} packets: {h:?} {p:?}");
}
