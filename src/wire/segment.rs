//! Cutting a super-frame into the packets that it stands for, as the kernel's segmentation would.
//!
//! Where some parts of a super-frame are lost for good, the packets that are wholly there need not be: each is
//! its [`payload`](Segments::payload) range of the frame behind headers of its own. Transport checksums stay
//! partial, so that the kernel, which must touch the payload anyhow, completes them.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::ops::Range;

use crate::metrics::DropReason;
use crate::wire::checksum;
use crate::wire::ip::Transport;
use crate::wire::record::{Gso, Offload};
use crate::wire::shape::Shape;

/// TCP flags (RFC 9293 section 3.1, RFC 3168) that belong to one end of a super-frame only.
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// The packets of one super-frame, numbered from 0. A frame that fits one packet has one.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    headers: &'a [u8],
    transport: Transport,
    size: usize,
    count: usize,
    gso: Option<Gso>,
}

impl<'a> Segments<'a> {
    /// `head` is the front of a frame of `total` bytes, at least all its headers. `Err(BadOffload)` where
    /// [`Shape::of`] says so.
    pub fn new(head: &'a [u8], offload: Offload, total: usize) -> Result<Self, DropReason> {
        let shape = Shape::of(offload, head, total)?;
        let transport = shape.transport;
        let headers = head.get(..transport.payload).ok_or(DropReason::BadOffload)?;
        let size = shape.size.map_or(transport.payload_len(), usize::from);
        let gso = offload.gso.filter(|_| shape.size.is_some());
        Ok(Self { headers, transport, size, count: shape.packets(), gso })
    }

    /// How many packets there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Bytes of headers before each packet's payload, Ethernet's included.
    pub const fn header_len(&self) -> usize {
        self.headers.len()
    }

    /// Which bytes of the super-frame are the payload of packet `i`.
    pub fn payload(&self, i: usize) -> Option<Range<usize>> {
        let start = i.checked_mul(self.size)?.checked_add(self.transport.payload)?;
        let end = start.checked_add(self.size)?.min(self.transport.ip.end);
        (i < self.count).then_some(start..end)
    }

    /// Which bytes of the super-frame are the payload of the packets `run`. `None` where there are no such packets.
    pub fn run_payload(&self, run: &Range<usize>) -> Option<Range<usize>> {
        let last = self.payload(run.end.checked_sub(1)?)?;
        let first = self.payload(run.start)?;
        (first.start <= last.start).then_some(first.start..last.end)
    }

    /// Writes the headers of packet `i` to the front of `out` and returns what is left to do to it: its checksum.
    /// `None` where there is no such packet or `out` is shorter than [`header_len`](Self::header_len).
    pub fn write_headers(&self, i: usize, out: &mut [u8]) -> Option<Offload> {
        self.write_run(i..i.checked_add(1)?, out)
    }

    /// As [`write_headers`](Self::write_headers), for the packets `run` as one smaller super-frame.
    pub fn write_run(&self, run: Range<usize>, out: &mut [u8]) -> Option<Offload> {
        let payload = self.run_payload(&run)?.len();
        let out = out.get_mut(..self.headers.len())?;
        out.copy_from_slice(self.headers);
        let (ip, l4) = out.split_at_mut_checked(self.transport.ip.l4)?;
        self.number_ip(run.start, payload, l4.len(), ip)?;
        self.number_transport(&run, payload, l4)?;
        Some(Offload { needs_checksum: true, gso: self.gso.filter(|_| run.len() > 1) })
    }

    fn number_ip(&self, i: usize, payload: usize, l4: usize, headers: &mut [u8]) -> Option<()> {
        let ip = headers.get_mut(self.transport.ip.l3..)?;
        let length = ip.len().checked_add(l4)?.checked_add(payload)?;
        if self.transport.ip.src.is_ipv6() {
            let length = u16::try_from(length.checked_sub(40)?).ok()?;
            return put(ip, 4, length);
        }
        put(ip, 2, u16::try_from(length).ok()?)?;
        let id = take(ip, 4)?;
        put(ip, 4, id.wrapping_add(i as u16))?;
        put(ip, 10, 0)?;
        let sum = checksum::sum(ip);
        put(ip, 10, !sum)
    }

    fn number_transport(&self, run: &Range<usize>, payload: usize, l4: &mut [u8]) -> Option<()> {
        let length = l4.len().checked_add(payload)?;
        if self.transport.is_tcp {
            let seq = l4.get_mut(4..)?.first_chunk_mut::<4>()?;
            let ahead = u32::try_from(run.start.checked_mul(self.size)?).ok()?;
            *seq = u32::from_be_bytes(*seq).wrapping_add(ahead).to_be_bytes();
            let flags = l4.get_mut(13)?;
            if run.start != 0 {
                *flags &= !CWR;
            }
            if run.end != self.count {
                *flags &= !FIN_PSH;
            }
        } else {
            put(l4, 4, u16::try_from(length).ok()?)?;
        }
        // The pseudo-header differs in the length alone; its addresses need not be those of the IP header (routing
        // headers), so it is corrected, not computed anew.
        let at = usize::from(self.transport.checksum_offset());
        let whole = checksum::fold(self.transport.ip.l4_len() as u64);
        let partial = checksum::sub(take(l4, at)?, whole);
        put(l4, at, checksum::add(partial, checksum::fold(length as u64)))
    }
}

fn take(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::Gso;
    use crate::wire::sample::*;
    use proptest::prelude::*;

    const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

    /// RFC 1071 over 16-bit words, complemented.
    fn plain_checksum(parts: &[&[u8]]) -> [u8; 2] {
        let bytes = parts.concat();
        let mut sum: u32 =
            bytes.chunks(2).map(|p| u32::from(p[0]) << 8 | p.get(1).map_or(0, |&b| b.into())).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        match !(sum as u16) {
            0 => [0xff, 0xff],
            n => n.to_be_bytes(),
        }
    }

    /// A finished packet of `body` (whose checksum field at `at` is zero), IPv4 id `id`.
    fn packet(v6: bool, tags: &[(u16, u16)], id: u16, proto: u8, at: usize, mut body: Vec<u8>) -> Vec<u8> {
        let len = (body.len() as u32).to_be_bytes();
        let check = match v6 {
            false => plain_checksum(&[&HOST4.octets(), &NIC4.octets(), &[0, proto], &len[2..], &body]),
            true => plain_checksum(&[&HOST6.octets(), &NIC6.octets(), &len, &[0, 0, 0, proto], &body]),
        };
        body[at..at + 2].copy_from_slice(&check);
        if v6 {
            return ether(NIC, HOST, tags, 0x86dd, &ipv6(HOST6, NIC6, proto, &body));
        }
        let mut ip = ipv4(HOST4, NIC4, proto, &[], 0x4000, &body);
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[10..12].fill(0);
        let check = plain_checksum(&[&ip[..20]]);
        ip[10..12].copy_from_slice(&check);
        ether(NIC, HOST, tags, 0x0800, &ip)
    }

    /// The super-frame as a kernel hands it over, and the packets that a plain segmenter makes of it.
    fn both(
        v6: bool,
        is_tcp: bool,
        tags: &[(u16, u16)],
        size: usize,
        data: &[u8],
    ) -> (Vec<u8>, Vec<Vec<u8>>) {
        let flags = 0x80 | 0x40 | 0x10 | 0x08 | 0x01;
        let seq = u32::MAX - 1000;
        let kind = if v6 { 0x86dd } else { 0x0800 };
        let (proto, at, body) = match is_tcp {
            true => (6, 16, tcp(seq, flags, &OPTIONS, data)),
            false => (17, 6, udp(4000, 5000, data)),
        };
        let ip = match v6 {
            true => ipv6(HOST6, NIC6, proto, &body),
            false => ipv4(HOST4, NIC4, proto, &[], 0x4000, &body),
        };
        let whole = with_partial_checksum(ether(NIC, HOST, tags, kind, &ip));
        let chunks: Vec<_> = data.chunks(size).collect();
        let cut = chunks.iter().enumerate().map(|(i, chunk)| {
            let mut flags = flags;
            if i > 0 {
                flags &= 0x7f;
            }
            if i + 1 < chunks.len() {
                flags &= 0xf6;
            }
            let body = match is_tcp {
                true => tcp(seq.wrapping_add((i * size) as u32), flags, &OPTIONS, chunk),
                false => udp(4000, 5000, chunk),
            };
            packet(v6, tags, 0xfffeu16.wrapping_add(i as u16), proto, at, body)
        });
        (whole, cut.collect())
    }

    proptest! {
        #[test]
        fn segments_are_those_of_a_plain_segmenter(
            v6 in any::<bool>(), is_tcp in any::<bool>(), tagged in any::<bool>(), size in 40usize..1500,
            data in prop::collection::vec(any::<u8>(), 1..5000),
        ) {
            let tags = if tagged { &[(0x8100, 0x2007)][..] } else { &[] };
            let (whole, want) = both(v6, is_tcp, tags, size, &data);
            let gso = if is_tcp { Gso::Tcp(size as u16) } else { Gso::Udp(size as u16) };
            let offload = Offload { needs_checksum: true, gso: Some(gso) };
            let segments = Segments::new(&whole[..whole.len().min(192)], offload, whole.len()).unwrap();
            prop_assert_eq!(segments.count(), want.len());
            for (i, want) in want.iter().enumerate() {
                let mut got = vec![0; segments.header_len()];
                let left = segments.write_headers(i, &mut got).unwrap();
                got.extend(&whole[segments.payload(i).unwrap()]);
                let h = left.to_vnet(&got, got.len()).unwrap();
                checksum::complete_checksum(&mut got, h.csum_start.into(), h.csum_offset.into()).unwrap();
                prop_assert_eq!(&got, want, "packet {}", i);
            }
            prop_assert_eq!(segments.payload(want.len()), None);
            prop_assert_eq!(segments.write_headers(want.len(), &mut [0; 200]), None);
        }
    }

    proptest! {
        #[test]
        fn a_run_stands_for_the_packets_it_names(
            v6 in any::<bool>(), is_tcp in any::<bool>(), size in 40usize..700,
            data in prop::collection::vec(any::<u8>(), 1..5000), a: prop::sample::Index, b: prop::sample::Index,
        ) {
            let (whole, want) = both(v6, is_tcp, &[], size, &data);
            let gso = if is_tcp { Gso::Tcp(size as u16) } else { Gso::Udp(size as u16) };
            let offload = Offload { needs_checksum: true, gso: Some(gso) };
            let segments = Segments::new(&whole, offload, whole.len()).unwrap();
            let (a, b) = (a.index(want.len()), b.index(want.len()));
            let run = a.min(b)..a.max(b) + 1;
            let mut part = vec![0; segments.header_len()];
            let left = segments.write_run(run.clone(), &mut part).unwrap();
            part.extend(&whole[segments.run_payload(&run).unwrap()]);
            let again = Segments::new(&part, left, part.len()).unwrap();
            prop_assert_eq!(again.count(), run.len());
            for (i, want) in want[run].iter().enumerate() {
                let mut got = vec![0; again.header_len()];
                let left = again.write_headers(i, &mut got).unwrap();
                got.extend(&part[again.payload(i).unwrap()]);
                let h = left.to_vnet(&got, got.len()).unwrap();
                checksum::complete_checksum(&mut got, h.csum_start.into(), h.csum_offset.into()).unwrap();
                prop_assert_eq!(&got, want, "packet {}", i);
            }
        }
    }

    #[test]
    fn one_packet_alone_is_no_super_frame() {
        for (frame, gso) in
            [(tcp_frame(false, 4000), Gso::Tcp(1448)), (udp_frame(true, 4000), Gso::Udp(1448))]
        {
            let segments =
                Segments::new(&frame, Offload { needs_checksum: true, gso: Some(gso) }, frame.len()).unwrap();
            for (run, gso) in [(0..1, None), (1..2, None), (1..3, Some(gso))] {
                let want = Offload { needs_checksum: true, gso };
                assert_eq!(segments.write_run(run.clone(), &mut [0; 200]), Some(want), "{run:?}");
            }
        }
    }

    #[test]
    fn a_run_of_no_packets_is_none() {
        let frame = tcp_frame(false, 4000);
        let offload = Offload { needs_checksum: true, gso: Some(Gso::Tcp(1448)) };
        let segments = Segments::new(&frame, offload, frame.len()).unwrap();
        for (from, to) in [(0, 0), (2, 1), (1, 4), (3, 4), (0, usize::MAX)] {
            assert_eq!(segments.write_run(from..to, &mut [0; 200]), None);
        }
    }

    #[test]
    fn a_buffer_too_short_for_the_headers_takes_none() {
        let frame = tcp_frame(false, 4000);
        let offload = Offload { needs_checksum: true, gso: Some(Gso::Tcp(1448)) };
        let segments = Segments::new(&frame, offload, frame.len()).unwrap();
        assert_eq!(segments.write_headers(0, &mut vec![0; segments.header_len() - 1]), None);
        assert_eq!(segments.payload(usize::MAX), None);
    }
}
