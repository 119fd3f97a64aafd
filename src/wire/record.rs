//! Records: what the plaintext of a DATA datagram is made of.
//!
//! ```text
//!  0       1               4       6       8      10      12
//! +-------+---------------+-------+-------+-------+-------+----------------+
//! | type  | at (u24)      | nic   | length| frame | gso   | body (length)  |   × n, to the end of the plaintext
//! +-------+---------------+-------+-------+-------+-------+----------------+
//! ```
//!
//! All integers are little-endian. Every record has the same 12-byte header, so that a sender can reserve it
//! before it knows how long the frame will be and have the kernel scatter the frame behind it.
//! A padding record is its type byte alone: whatever follows it in the plaintext is ignored.

use crate::metrics::DropReason;
use crate::types::NicId;

/// Bytes of a record header.
pub const HEADER_LEN: usize = 12;

/// The first part of a split frame carries at least this many bytes of it, or the whole frame: enough for
/// every header that a receiver must rewrite (Ethernet, two tags, IPv6 with options, TCP with options).
pub const MIN_FIRST_PART: usize = 192;

/// Longest frame that may cross, in bytes: a super-frame of 64 KiB of IP behind an Ethernet header and two tags.
pub const MAX_FRAME: usize = 65_535 + 14 + 8;

/// Low four bits of the type byte.
mod kind {
    pub(super) const PADDING: u8 = 0;
    pub(super) const WHOLE: u8 = 1;
    pub(super) const FIRST: u8 = 2;
    pub(super) const NEXT: u8 = 3;
    pub(super) const CONTROL: u8 = 4;
}

/// Type byte, bit 4: the frame's transport checksum is only the pseudo-header's sum yet.
const NEEDS_CHECKSUM: u8 = 0x10;
/// Type byte, bit 5: `gso` is the payload size of a TCP segment.
const GSO_TCP: u8 = 0x20;
/// Type byte, bit 6: `gso` is the payload size of a UDP datagram.
const GSO_UDP: u8 = 0x40;

/// How a super-frame is to be cut into packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// TCP segments of this many payload bytes.
    Tcp(u16),
    /// UDP datagrams of this many payload bytes.
    Udp(u16),
}

impl Gso {
    /// Payload bytes of each packet.
    pub const fn size(self) -> u16 {
        match self {
            Self::Tcp(size) | Self::Udp(size) => size,
        }
    }
}

/// What a frame still needs done to it: all of a vnet header that crosses the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum must be completed.
    pub needs_checksum: bool,
    /// The frame is a super-frame.
    pub gso: Option<Gso>,
}

/// A record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A whole frame.
    Whole {
        /// Whose frame.
        nic: NicId,
        /// What is still to be done to it.
        offload: Offload,
    },
    /// The first bytes of a frame that goes on in later records of the same lane.
    First {
        /// Whose frame.
        nic: NicId,
        /// Names the frame among those of its lane that are under way.
        frame: u16,
        /// Bytes of the whole frame.
        total: u32,
        /// What is still to be done to it.
        offload: Offload,
    },
    /// More bytes of such a frame.
    Next {
        /// Whose frame.
        nic: NicId,
        /// Which frame.
        frame: u16,
        /// Where in the frame these bytes belong.
        offset: u32,
    },
    /// A control message.
    Control,
}

/// A record, its body, and the plaintext behind it.
pub type Taken<'a> = (Record, &'a [u8], &'a [u8]);

impl Record {
    /// The header of this record for a body of `length` bytes.
    pub fn encode(self, length: u16) -> [u8; HEADER_LEN] {
        let (kind, offload, at, nic, frame) = match self {
            Self::Whole { nic, offload } => (kind::WHOLE, offload, 0, nic.0, 0),
            Self::First { nic, frame, total, offload } => (kind::FIRST, offload, total, nic.0, frame),
            Self::Next { nic, frame, offset } => (kind::NEXT, Offload::default(), offset, nic.0, frame),
            Self::Control => (kind::CONTROL, Offload::default(), 0, 0, 0),
        };
        let checksum = if offload.needs_checksum { NEEDS_CHECKSUM } else { 0 };
        let (bits, gso) = match offload.gso {
            None => (0, 0),
            Some(Gso::Tcp(size)) => (GSO_TCP, size),
            Some(Gso::Udp(size)) => (GSO_UDP, size),
        };
        let [a0, a1, a2, _] = at.to_le_bytes();
        let [n0, n1] = nic.to_le_bytes();
        let [l0, l1] = length.to_le_bytes();
        let [f0, f1] = frame.to_le_bytes();
        let [g0, g1] = gso.to_le_bytes();
        [kind | checksum | bits, a0, a1, a2, n0, n1, l0, l1, f0, f1, g0, g1]
    }

    /// Takes the next record off the front of `plaintext`: `Ok(None)` at its end or at padding.
    /// On an error the rest of the plaintext means nothing.
    pub fn decode(plaintext: &[u8]) -> Result<Option<Taken<'_>>, DropReason> {
        let Some(&first) = plaintext.first() else { return Ok(None) };
        if first == kind::PADDING {
            return Ok(None);
        }
        let Some((header, rest)) = plaintext.split_first_chunk::<HEADER_LEN>() else {
            return Err(DropReason::BadRecord);
        };
        let &[_, a0, a1, a2, n0, n1, l0, l1, f0, f1, g0, g1] = header;
        let at = u32::from_le_bytes([a0, a1, a2, 0]);
        let nic = NicId(u16::from_le_bytes([n0, n1]));
        let frame = u16::from_le_bytes([f0, f1]);
        let gso = u16::from_le_bytes([g0, g1]);
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        let Some((body, rest)) = rest.split_at_checked(length) else { return Err(DropReason::BadRecord) };

        let flags = first & 0xf0;
        let offload = || {
            let gso = match (flags & (GSO_TCP | GSO_UDP), gso) {
                (0, 0) => None,
                (GSO_TCP, 1..) => Some(Gso::Tcp(gso)),
                (GSO_UDP, 1..) => Some(Gso::Udp(gso)),
                _ => return Err(DropReason::BadOffload),
            };
            match flags & 0x80 {
                0 => Ok(Offload { needs_checksum: flags & NEEDS_CHECKSUM != 0, gso }),
                _ => Err(DropReason::BadRecord),
            }
        };
        let record = match first & 0x0f {
            kind::WHOLE if at == 0 && frame == 0 => Self::Whole { nic, offload: offload()? },
            kind::FIRST => Self::First { nic, frame, total: at, offload: offload()? },
            kind::NEXT if flags == 0 && gso == 0 => Self::Next { nic, frame, offset: at },
            kind::CONTROL if flags == 0 && at == 0 && nic.0 == 0 && frame == 0 && gso == 0 => Self::Control,
            _ => return Err(DropReason::BadRecord),
        };
        Ok(Some((record, body, rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offload() -> impl Strategy<Value = Offload> {
        let gso = prop_oneof![
            Just(None),
            (1u16..).prop_map(|n| Some(Gso::Tcp(n))),
            (1u16..).prop_map(|n| Some(Gso::Udp(n)))
        ];
        (any::<bool>(), gso).prop_map(|(needs_checksum, gso)| Offload { needs_checksum, gso })
    }

    fn record() -> impl Strategy<Value = Record> {
        let nic = any::<u16>().prop_map(NicId);
        let at = 0u32..1 << 24;
        prop_oneof![
            (nic.clone(), offload()).prop_map(|(nic, offload)| Record::Whole { nic, offload }),
            (nic.clone(), any::<u16>(), at.clone(), offload())
                .prop_map(|(nic, frame, total, offload)| Record::First { nic, frame, total, offload }),
            (nic, any::<u16>(), at).prop_map(|(nic, frame, offset)| Record::Next { nic, frame, offset }),
            Just(Record::Control),
        ]
    }

    #[test]
    fn sizes_are_what_they_are_said_to_be() {
        assert_eq!(MAX_FRAME, 65_557);
        assert_eq!([Gso::Tcp(9).size(), Gso::Udp(1400).size()], [9, 1400]);
    }

    /// Offsets in the header: `at` 1, `nic` 4, `frame` 8, `gso` 10; flags are in byte 0.
    #[test]
    fn fields_that_a_kind_does_not_have_are_zero() {
        let (nic, plain) = (NicId(0), Offload::default());
        let whole = Record::Whole { nic, offload: plain };
        let next = Record::Next { nic, frame: 0, offset: 0 };
        for (record, forbidden) in
            [(whole, &[1, 3, 8, 9][..]), (next, &[10, 11]), (Record::Control, &[1, 2, 3, 4, 5, 8, 9, 10, 11])]
        {
            let good = record.encode(0);
            assert_eq!(Record::decode(&good), Ok(Some((record, &[][..], &[][..]))));
            for &at in forbidden {
                let mut bad = good;
                bad[at] = 1;
                assert_eq!(Record::decode(&bad), Err(DropReason::BadRecord), "{record:?}, byte {at}");
            }
        }
        for flag in [NEEDS_CHECKSUM, GSO_TCP, GSO_UDP, 0x80] {
            for record in [next, Record::Control] {
                let mut bad = record.encode(0);
                bad[0] |= flag;
                assert_eq!(Record::decode(&bad), Err(DropReason::BadRecord), "{record:?}, flag {flag:#x}");
            }
        }
    }

    proptest! {
        #[test]
        fn records_survive_the_wire(records in prop::collection::vec((record(), prop::collection::vec(any::<u8>(), 0..40)), 0..6), pad in any::<bool>()) {
            let mut plaintext = Vec::new();
            for (r, body) in &records {
                plaintext.extend(r.encode(body.len() as u16));
                plaintext.extend(body);
            }
            if pad { plaintext.extend([0, 1, 2, 3]); }
            let mut rest = &plaintext[..];
            for (r, body) in &records {
                let (got, got_body, tail) = Record::decode(rest).unwrap().unwrap();
                prop_assert_eq!((got, got_body), (*r, &body[..]));
                rest = tail;
            }
            prop_assert_eq!(Record::decode(rest), Ok(None));
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut rest = &bytes[..];
            while let Ok(Some((_, _, tail))) = Record::decode(rest) {
                prop_assert!(tail.len() < rest.len());
                rest = tail;
            }
        }
    }

    #[test]
    fn a_record_past_its_datagram_is_refused() {
        let mut bytes = Record::Control.encode(5).to_vec();
        bytes.extend([0; 4]);
        assert_eq!(Record::decode(&bytes), Err(DropReason::BadRecord));
        assert_eq!(Record::decode(&bytes[..11]), Err(DropReason::BadRecord));
    }
}
