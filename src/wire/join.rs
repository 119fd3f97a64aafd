//! Joining UDP datagrams of one flow into a super-frame, which the kernel cuts into the very same datagrams again.
//!
//! ```text
//! frames       |hdr| 64 |   |hdr| 64 |   |hdr| 64 |   |hdr| 20 |
//! super-frame  |hdr| 64 | 64 | 64 | 20 |                            one write instead of four
//! ```
//!
//! The reverse of [`segment`](super::segment). Joined is only what is sure to come out as it was: headers equal but
//! for lengths, checksums and the IPv4 identification, which counts up or, with "don't fragment", means nothing
//! (RFC 6864); payloads of one size, but for a shorter last one; checksums that are left to the kernel, or that are
//! right. A datagram that is joined by none stays as it came, byte for byte.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use crate::wire::checksum::{self, fold, pseudo_header_sum};
use crate::wire::ip::Transport;
use crate::wire::record::{Gso, Offload};

/// Most datagrams in one super-frame: kernels before 6.10 take no more (`UDP_MAX_SEGMENTS` in linux/udp.h).
pub const MAX_JOINED: usize = 64;

/// Most bytes of IP packet that come of joining.
const MAX_PACKET: usize = 65_000;

/// Where fields stand: in an IPv4 header, an IPv6 header, a UDP header; after the fields that tell flows apart.
const V4_LENGTH: usize = 2;
const V4_ID: usize = 4;
const V4_FLAGS: usize = 6;
const V4_CHECKSUM: usize = 10;
const V6_LENGTH: usize = 4;
const UDP_LENGTH: usize = 4;
const DONT_FRAGMENT: u8 = 0x40;

/// One super-frame in the making. Its memory is used again for the next.
#[derive(Debug, Default)]
pub struct Joiner {
    bytes: Vec<u8>,
    flow: Option<Flow>,
}

/// What is known of the datagrams that have been joined.
#[derive(Clone, Copy, Debug)]
struct Flow {
    v6: bool,
    /// Where the IP header, the UDP header and the payload begin.
    l3: usize,
    l4: usize,
    payload: usize,
    /// Bytes of payload of each but the last.
    size: usize,
    /// How many there are.
    count: usize,
    /// What is left to do to each.
    offload: Offload,
    /// The pseudo-header's sum without the length.
    addresses: u16,
    /// The last one was shorter than the others: nothing goes behind it.
    closed: bool,
}

/// What has come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined<'a> {
    /// The frame.
    pub frame: &'a [u8],
    /// What is left to do to it.
    pub offload: Offload,
    /// How many frames it is made of, and the bytes of these.
    pub frames: (usize, usize),
}

impl Joiner {
    /// Begins with `frame`, whose checksum is right or left to be completed. False: it is none that others join.
    /// To be called when nothing is under way.
    pub fn begin(&mut self, offload: Offload, frame: &[u8]) -> bool {
        self.flow = Flow::of(offload, frame);
        if self.flow.is_some() {
            self.bytes.clear();
            self.bytes.extend_from_slice(frame);
        }
        self.flow.is_some()
    }

    /// Takes a frame behind those that are here. False: it cannot stand there, and nothing has changed.
    pub fn join(&mut self, offload: Offload, frame: &[u8]) -> bool {
        self.try_join(offload, frame).is_some()
    }

    fn try_join(&mut self, offload: Offload, frame: &[u8]) -> Option<()> {
        let flow = self.flow.as_mut().filter(|f| f.offload == offload && f.may_grow(frame.len()))?;
        let payload = frame.get(flow.payload..)?;
        if payload.is_empty() || payload.len() > flow.size || !flow.continues(&self.bytes, frame) {
            return None;
        }
        // A lone datagram need not have been looked at that closely.
        if !flow.is_right(frame) || flow.count == 1 && !flow.is_right(&self.bytes) {
            return None;
        }
        self.bytes.extend_from_slice(payload);
        flow.count = flow.count.saturating_add(1);
        flow.closed = payload.len() < flow.size;
        Some(())
    }

    /// True where nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.flow.is_none()
    }

    /// Ends the super-frame and gives it out; `None` where nothing is under way.
    pub fn finish(&mut self) -> Option<Joined<'_>> {
        let flow = self.flow.take()?;
        let headers = flow.payload.saturating_mul(flow.count.saturating_sub(1));
        let frames = (flow.count, self.bytes.len().saturating_add(headers));
        let offload = if flow.count > 1 { flow.finish(&mut self.bytes)? } else { flow.offload };
        Some(Joined { frame: &self.bytes, offload, frames })
    }
}

impl Flow {
    /// What `frame` begins. `None`: it is not plain UDP.
    fn of(offload: Offload, frame: &[u8]) -> Option<Self> {
        let Transport { ip, is_tcp, payload } = Transport::parse(frame, frame.len())?;
        let (v6, header) = (ip.src.is_ipv6(), if ip.src.is_ipv6() { 40 } else { 20 });
        let plain = !is_tcp && offload.gso.is_none() && ip.l4.checked_sub(ip.l3)? == header;
        let size = frame.len().checked_sub(payload).filter(|&n| n > 0 && plain && ip.end == frame.len())?;
        let addresses = pseudo_header_sum(ip.src, ip.dst, ip.protocol, 0);
        Some(Self { v6, l3: ip.l3, l4: ip.l4, payload, size, count: 1, offload, addresses, closed: false })
    }

    fn may_grow(&self, by: usize) -> bool {
        let len = self.size.saturating_mul(self.count).saturating_add(by);
        !self.closed && self.count < MAX_JOINED && len <= MAX_PACKET
    }

    /// True where the headers of `frame` are those of `first`, and say how long it is.
    fn continues(&self, first: &[u8], frame: &[u8]) -> bool {
        let l4_len = frame.len().saturating_sub(self.l4);
        let udp_length = self.l4.saturating_add(UDP_LENGTH);
        if number(frame, udp_length).map(usize::from) != Some(l4_len) {
            return false;
        }
        let same = |from: usize, to: usize| {
            let part = self.l3.saturating_add(from)..self.l3.saturating_add(to);
            matches!((first.get(part.clone()), frame.get(part)), (Some(a), Some(b)) if a == b)
        };
        if first.get(..self.l3) != frame.get(..self.l3) {
            return false;
        }
        let number = |at| number(frame, self.l3.saturating_add(at)).map(usize::from);
        if self.v6 {
            return same(0, V6_LENGTH)
                && same(V6_LENGTH + 2, 40 + UDP_LENGTH)
                && number(V6_LENGTH) == Some(l4_len);
        }
        same(0, V4_LENGTH)
            && same(V4_FLAGS, V4_CHECKSUM)
            && same(V4_CHECKSUM + 2, 20 + UDP_LENGTH)
            && number(V4_LENGTH) == Some(l4_len.saturating_add(20))
            && self.counts_up(first, frame)
    }

    fn counts_up(&self, first: &[u8], frame: &[u8]) -> bool {
        let at = self.l3.saturating_add(V4_ID);
        let atomic = frame.get(self.l3.saturating_add(V4_FLAGS)).is_some_and(|f| f & DONT_FRAGMENT != 0);
        let next = number(first, at).map(|id| id.wrapping_add(self.count as u16));
        atomic || number(frame, at) == next
    }

    /// True where the checksums of `frame` are right, or that of its UDP the pseudo-header's sum where it may be.
    fn is_right(&self, frame: &[u8]) -> bool {
        let (Some(ip), Some(udp)) = (frame.get(self.l3..self.l4), frame.get(self.l4..)) else { return false };
        if !self.v6 && checksum::sum(ip) != 0xffff {
            return false;
        }
        let expected = checksum::add(self.addresses, fold(udp.len() as u64));
        let field = number(udp, Transport::UDP_CHECKSUM.into()).unwrap_or(0);
        if self.offload.needs_checksum {
            return checksum::sub(field, expected).is_multiple_of(0xffff);
        }
        // Zero: the sender did not compute one.
        field != 0 && checksum::add(checksum::sum(udp), expected) == 0xffff
    }

    /// Makes the headers of the first those of all.
    fn finish(&self, bytes: &mut [u8]) -> Option<Offload> {
        let length = bytes.len().checked_sub(self.l4)?;
        let (headers, udp) = bytes.split_at_mut_checked(self.l4)?;
        let ip = headers.get_mut(self.l3..)?;
        if self.v6 {
            put(ip, V6_LENGTH, u16::try_from(length).ok()?)?;
        } else {
            put(ip, V4_LENGTH, u16::try_from(length.checked_add(ip.len())?).ok()?)?;
            put(ip, V4_CHECKSUM, 0)?;
            put(ip, V4_CHECKSUM, !checksum::sum(ip))?;
        }
        put(udp, UDP_LENGTH, u16::try_from(length).ok()?)?;
        put(udp, Transport::UDP_CHECKSUM.into(), checksum::add(self.addresses, fold(length as u64)))?;
        Some(Offload { needs_checksum: true, gso: Some(Gso::Udp(u16::try_from(self.size).ok()?)) })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::complete_checksum;
    use crate::wire::sample::*;
    use crate::wire::segment::Segments;
    use proptest::prelude::*;

    const PARTIAL: Offload = Offload { needs_checksum: true, gso: None };
    const WHOLE: Offload = Offload { needs_checksum: false, gso: None };

    /// A datagram of the flow, its identification `id`, its checksum partial.
    fn datagram(v6: bool, tags: &[(u16, u16)], frag: u16, id: u16, payload: &[u8]) -> Vec<u8> {
        let body = udp(4000, 5000, payload);
        with_partial_checksum(match v6 {
            true => ether(NIC, HOST, tags, 0x86dd, &ipv6(HOST6, NIC6, 17, &body)),
            false => {
                let mut packet = ipv4(HOST4, NIC4, 17, &[], frag, &body);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                packet[10..12].fill(0);
                let sum = !checksum::sum(&packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                ether(NIC, HOST, tags, 0x0800, &packet)
            }
        })
    }

    fn completed(mut frame: Vec<u8>) -> Vec<u8> {
        let t = Transport::parse(&frame, frame.len()).unwrap();
        complete_checksum(&mut frame, t.ip.l4, t.checksum_offset().into()).unwrap();
        frame
    }

    /// What the kernel makes of it.
    fn cut(joined: Joined<'_>) -> Vec<Vec<u8>> {
        let segments = Segments::new(joined.frame, joined.offload, joined.frame.len()).unwrap();
        let packet = |i| {
            let mut packet = vec![0; segments.header_len()];
            segments.write_headers(i, &mut packet).unwrap();
            packet.extend(&joined.frame[segments.payload(i).unwrap()]);
            completed(packet)
        };
        (0..segments.count()).map(packet).collect()
    }

    /// Frames as they go in, and as they come out of the joiner and the kernel's cutting, checksums complete.
    fn through(offload: Offload, frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, usize) {
        let (mut joiner, mut out, mut writes) = (Joiner::default(), Vec::new(), 0);
        let mut finish = |joiner: &mut Joiner| {
            if let Some(joined) = joiner.finish() {
                writes += 1;
                let ip = Transport::parse(joined.frame, joined.frame.len()).unwrap().ip;
                if ip.src.is_ipv4() && joined.frames.0 > 1 {
                    assert_eq!(
                        checksum::sum(&joined.frame[ip.l3..ip.l4]),
                        0xffff,
                        "the header of all is right"
                    );
                }
                match joined.offload.gso {
                    Some(_) => out.extend(cut(joined)),
                    None if joined.offload.needs_checksum => out.push(completed(joined.frame.to_vec())),
                    None => out.push(joined.frame.to_vec()),
                }
            }
        };
        for frame in frames {
            if !joiner.join(offload, frame) {
                finish(&mut joiner);
                assert!(joiner.begin(offload, frame));
            }
        }
        finish(&mut joiner);
        (out, writes)
    }

    #[test]
    fn a_run_of_datagrams_is_one_frame_and_comes_apart_as_it_was() {
        for v6 in [false, true] {
            let sizes = [64, 64, 64, 20, 64];
            let frames: Vec<_> =
                (7..).zip(sizes).map(|(id, n)| datagram(v6, &[], 0, id, &vec![n as u8; n])).collect();
            let complete: Vec<_> = frames.iter().cloned().map(completed).collect();
            assert_eq!(through(PARTIAL, &frames), (complete.clone(), 2));
            assert_eq!(through(WHOLE, &complete), (complete, 2));
        }
    }

    #[test]
    fn what_differs_in_its_headers_stays_apart() {
        for v6 in [false, true] {
            let first = datagram(v6, &[], 0, 1, &[1; 64]);
            let second = datagram(v6, &[], 0, 2, &[2; 64]);
            let joins = |offload, frame: &[u8]| {
                let mut joiner = Joiner::default();
                assert!(joiner.begin(PARTIAL, &first) && !joiner.is_empty());
                joiner.join(offload, frame)
            };
            assert!(joins(PARTIAL, &second));
            assert!(!joins(WHOLE, &second), "one complete, one not");
            // All but the UDP checksum, which is a word of its own.
            let (headers, source) = if v6 { (62, 22) } else { (42, 26) };
            for at in 0..headers - 2 {
                let mut other = second.clone();
                other[at] ^= 1;
                assert!(!joins(PARTIAL, &other), "byte {at}");
            }
            let mut other = second.clone();
            other[source..source + 4].rotate_left(2);
            assert!(!joins(PARTIAL, &other), "a source that has the same sum");
            assert!(!joins(PARTIAL, &datagram(v6, &[], 0, 2, &[2; 65])), "a longer one");
            assert!(!joins(PARTIAL, &datagram(v6, &[], 0, 2, &[])), "an empty one");
            assert!(!joins(PARTIAL, &[&second[..], &[0]].concat()), "padding");
            assert!(!joins(PARTIAL, &[]));
        }
    }

    #[test]
    fn ipv4_headers_are_to_be_right_and_to_count_up() {
        let [mut first, second, third] = [1, 2, 3].map(|id| datagram(false, &[], 0, id, &[1; 64]));
        let mut joiner = Joiner::default();
        assert!(
            joiner.begin(PARTIAL, &first) && !joiner.join(PARTIAL, &third),
            "a gap in the identification"
        );
        assert!(joiner.join(PARTIAL, &second) && joiner.join(PARTIAL, &third));
        first[24] ^= 1;
        assert!(joiner.begin(PARTIAL, &first) && !joiner.join(PARTIAL, &second), "a wrong header checksum");
    }

    #[test]
    fn only_plain_udp_begins() {
        let mut joiner = Joiner::default();
        let gso = Offload { gso: Some(Gso::Udp(64)), ..PARTIAL };
        let frame = datagram(false, &[], 0x4000, 1, &[1; 640]);
        assert!(!joiner.begin(gso, &frame), "a super-frame");
        assert!(!joiner.begin(PARTIAL, &tcp_frame(false, 64)));
        assert!(!joiner.begin(PARTIAL, &datagram(false, &[], 0, 1, &[])), "empty");
        let options = ipv4(HOST4, NIC4, 17, &[1; 4], 0, &udp(1, 2, b"x"));
        assert!(!joiner.begin(WHOLE, &ether(NIC, HOST, &[], 0x0800, &options)), "options");
        assert!(!joiner.begin(WHOLE, &ether(NIC, HOST, &[], 0x0806, &[0; 46])), "ARP");
        assert!(joiner.is_empty() && joiner.finish().is_none());
    }

    #[test]
    fn a_wrong_checksum_is_not_made_right() {
        let frames = [1, 2, 3].map(|id| completed(datagram(false, &[], 0, id, &[id as u8; 64])));
        for bad in 0..3 {
            let mut frames = frames.to_vec();
            frames[bad][60] ^= 4;
            let (out, writes) = through(WHOLE, &frames);
            assert_eq!((out, writes >= 2), (frames, true));
        }
        let unsummed: Vec<_> = (1..4)
            .map(|id| {
                let mut frame = datagram(false, &[], 0, id, &[9; 64]);
                frame[40..42].fill(0);
                frame
            })
            .collect();
        assert_eq!(through(WHOLE, &unsummed), (unsummed, 3));
    }

    #[test]
    fn a_super_frame_is_bounded() {
        let frames: Vec<_> = (0..200).map(|id| datagram(false, &[], 0, id, &[5; 1400])).collect();
        let (mut joiner, mut joined) = (Joiner::default(), 1);
        assert!(joiner.begin(PARTIAL, &frames[0]));
        joined += frames[1..].iter().take_while(|f| joiner.join(PARTIAL, f)).count();
        assert_eq!(joined, MAX_PACKET / 1400);
        assert_eq!(through(PARTIAL, &vec![datagram(true, &[], 0, 0, &[5; 10]); 130]).1, 3);
    }

    proptest! {
        #[test]
        fn whatever_goes_in_comes_out_in_order(
            v6 in any::<bool>(), tagged in any::<bool>(), atomic in any::<bool>(), partial in any::<bool>(),
            shapes in prop::collection::vec((prop_oneof![3 => Just(48usize), 1 => 1usize..80], any::<u8>(), 0u16..20), 1..40),
        ) {
            let tags: &[(u16, u16)] = if tagged { &[(0x8100, 5)] } else { &[] };
            let mut id = 65_530u16;
            let frames: Vec<_> = shapes.iter().map(|&(len, fill, gap)| {
                // With "don't fragment" the identification counts up here, so that it can be compared.
                id = id.wrapping_add(if !atomic && gap == 0 { 2 } else { 1 });
                datagram(v6, tags, if atomic { 0x4000 } else { 0 }, id, &vec![fill; len])
            }).collect();
            let complete: Vec<_> = frames.iter().cloned().map(completed).collect();
            let (out, writes) = if partial { through(PARTIAL, &frames) } else { through(WHOLE, &complete) };
            prop_assert!(writes <= frames.len());
            // Where a run was begun by a shorter one, identifications are as they were all the same.
            prop_assert_eq!(out, complete);
        }
    }
}
