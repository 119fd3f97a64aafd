//! IPv4 and IPv6 headers, and the TCP or UDP header behind them.
//!
//! Every length that a header claims is held against the frame's: a value of [`Ip`] describes a packet that
//! lies wholly inside its frame. Header checksums are not looked at.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::net::IpAddr;

use super::ether::{Link, ethertype};

/// IP protocol numbers (IANA).
pub mod protocol {
    /// IPv6 hop-by-hop options (RFC 8200).
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header (RFC 8200).
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header (RFC 8200).
    pub const FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options (RFC 8200).
    pub const DESTINATION: u8 = 60;
    /// Host identity protocol, laid out as an extension header (RFC 7401).
    pub const HIP: u8 = 139;
    /// Shim6, laid out as an extension header (RFC 5533).
    pub const SHIM6: u8 = 140;
}

/// Extension headers that are walked before a packet counts as unreadable. Linux sets the same limit on
/// options of one kind (`max_dst_opts_number`); nobody sends half as many headers.
const MAX_EXTENSIONS: usize = 8;

/// Whether a packet is a piece of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    No,
    /// The piece with the transport header; an IPv6 packet with a needless fragment header as well.
    First,
    /// A piece without a transport header.
    Later,
}

/// An IP packet inside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// The address that the packet claims to be from.
    pub src: IpAddr,
    /// The address that it is for; a routing header may name a further one.
    pub dst: IpAddr,
    /// What it carries, behind all extension headers.
    pub protocol: u8,
    /// Where in the frame the IP header begins.
    pub l3: usize,
    /// Where in the frame the transport header begins, or the data of a later fragment.
    pub l4: usize,
    /// Where in the frame the packet ends by its own length field: at most the frame's length.
    pub end: usize,
    /// Whether it is a piece.
    pub fragment: Fragment,
    /// True where IPv6 extension headers stand before the transport header.
    pub extended: bool,
}

impl Ip {
    /// Reads the IP header behind `link`. `head` is the front of a frame of `total` bytes.
    ///
    /// `None`: no IP, a malformed header, a packet longer than its frame, an IPv6 jumbogram, or extension
    /// headers that do not end inside `head`.
    #[inline]
    pub fn parse(head: &[u8], total: usize, link: &Link) -> Option<Self> {
        match link.ethertype {
            ethertype::IPV4 => Self::v4(head, total, link.l3),
            ethertype::IPV6 => Self::v6(head, total, link.l3),
            _ => None,
        }
    }

    #[inline]
    fn v4(head: &[u8], total: usize, l3: usize) -> Option<Self> {
        let &[first, _, n0, n1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            head.get(l3..)?.first_chunk::<20>()?;
        let header = usize::from(first & 0x0f).checked_mul(4)?;
        let length = usize::from(u16::from_be_bytes([n0, n1]));
        let (l4, end) = (l3.checked_add(header)?, l3.checked_add(length)?);
        if first >> 4 != 4 || header < 20 || header > length || l4 > head.len() || end > total {
            return None;
        }
        let fragment = match u16::from_be_bytes([f0, f1]) & 0x3fff {
            0 => Fragment::No,
            0x2000 => Fragment::First,
            _ => Fragment::Later,
        };
        Some(Self {
            src: [s0, s1, s2, s3].into(),
            dst: [d0, d1, d2, d3].into(),
            protocol,
            l3,
            l4,
            end,
            fragment,
            extended: false,
        })
    }

    #[inline]
    fn v6(head: &[u8], total: usize, l3: usize) -> Option<Self> {
        let header = head.get(l3..)?.first_chunk::<40>()?;
        let (&[first, _, _, _, n0, n1, protocol, _], addresses) = header.split_first_chunk::<8>()?;
        let (&src, dst) = addresses.split_first_chunk::<16>()?;
        let &dst = dst.first_chunk::<16>()?;
        let l4 = l3.checked_add(40)?;
        let end = l4.checked_add(usize::from(u16::from_be_bytes([n0, n1])))?;
        if first >> 4 != 6 || end > total {
            return None;
        }
        let (src, dst) = (src.into(), dst.into());
        let ip = Self { src, dst, protocol, l3, l4, end, fragment: Fragment::No, extended: false };
        if is_extension(protocol) { ip.behind_extensions(head) } else { Some(ip) }
    }

    #[cold]
    fn behind_extensions(mut self, head: &[u8]) -> Option<Self> {
        self.extended = true;
        for _ in 0..MAX_EXTENSIONS {
            let &[next, len, o0, o1] = head.get(self.l4..)?.first_chunk::<4>()?;
            let len = match self.protocol {
                protocol::FRAGMENT => 8,
                protocol::AUTHENTICATION => usize::from(len).checked_add(2)?.checked_mul(4)?,
                _ => usize::from(len).checked_add(1)?.checked_mul(8)?,
            };
            if self.protocol == protocol::FRAGMENT {
                let first = u16::from_be_bytes([o0, o1]) & 0xfff8 == 0;
                self.fragment = if first { Fragment::First } else { Fragment::Later };
            }
            self.protocol = next;
            self.l4 = self.l4.checked_add(len)?;
            if self.l4 > self.end || self.l4 > head.len() {
                return None;
            }
            if self.fragment == Fragment::Later || !is_extension(next) {
                return Some(self);
            }
        }
        None
    }

    /// Bytes behind the IP headers: transport header and payload.
    #[inline]
    pub const fn l4_len(&self) -> usize {
        self.end.saturating_sub(self.l4)
    }

    /// Source and destination port, where the packet is UDP, has them, and `head` shows them.
    #[inline]
    pub fn udp_ports(&self, head: &[u8]) -> Option<(u16, u16)> {
        if self.protocol != protocol::UDP || self.fragment == Fragment::Later || self.l4_len() < 4 {
            return None;
        }
        let &[s0, s1, d0, d1] = head.get(self.l4..)?.first_chunk::<4>()?;
        Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
    }
}

#[inline]
const fn is_extension(number: u8) -> bool {
    use protocol::*;
    matches!(number, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | HIP | SHIM6)
}

/// An unfragmented TCP segment or UDP datagram inside a frame, its header whole in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The packet that carries it.
    pub ip: Ip,
    /// TCP, or else UDP.
    pub is_tcp: bool,
    /// Where in the frame its payload begins; it ends at `ip.end`.
    pub payload: usize,
}

impl Transport {
    /// Bytes of a UDP header.
    pub const UDP_HEADER: usize = 8;
    /// Where in a TCP header the checksum stands.
    pub const TCP_CHECKSUM: u16 = 16;
    /// Where in a UDP header the checksum stands.
    pub const UDP_CHECKSUM: u16 = 6;

    /// Reads down to the transport header. `None` for anything but unfragmented, well-formed TCP or UDP; a UDP
    /// length must be that of the packet.
    #[inline]
    pub fn parse(head: &[u8], total: usize) -> Option<Self> {
        let ip = Ip::parse(head, total, &Link::parse(head)?)?;
        if ip.fragment != Fragment::No {
            return None;
        }
        let header = head.get(ip.l4..)?;
        let (is_tcp, len) = match ip.protocol {
            protocol::TCP => {
                let &offset = header.first_chunk::<20>()?.get(12)?;
                (true, usize::from(offset >> 4).checked_mul(4).filter(|&n| n >= 20)?)
            }
            protocol::UDP => {
                let &[_, _, _, _, n0, n1, _, _] = header.first_chunk::<{ Self::UDP_HEADER }>()?;
                if usize::from(u16::from_be_bytes([n0, n1])) != ip.l4_len() {
                    return None;
                }
                (false, Self::UDP_HEADER)
            }
            _ => return None,
        };
        let payload = ip.l4.checked_add(len)?;
        (payload <= ip.end && payload <= head.len()).then_some(Self { ip, is_tcp, payload })
    }

    /// Bytes of payload.
    #[inline]
    pub const fn payload_len(&self) -> usize {
        self.ip.end.saturating_sub(self.payload)
    }

    /// Where in the transport header the checksum stands.
    #[inline]
    pub const fn checksum_offset(&self) -> u16 {
        if self.is_tcp { Self::TCP_CHECKSUM } else { Self::UDP_CHECKSUM }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sample::*;
    use proptest::prelude::*;

    fn ip(frame: &[u8]) -> Option<Ip> {
        Ip::parse(frame, frame.len(), &Link::parse(frame)?)
    }

    #[test]
    fn ipv4_options_and_padding_are_measured() {
        let mut frame =
            ether(NIC, HOST, &[(0x8100, 7)], 0x0800, &ipv4(HOST4, NIC4, 17, &[1; 8], 0, &udp(1, 2, b"x")));
        frame.extend([0; 9]);
        let got = ip(&frame).unwrap();
        assert_eq!((got.l3, got.l4, got.end), (18, 18 + 28, frame.len() - 9));
        assert_eq!((got.src, got.dst), (HOST4.into(), NIC4.into()));
        assert_eq!(got.udp_ports(&frame), Some((1, 2)));
    }

    #[test]
    fn an_ipv4_packet_that_lies_about_its_lengths_is_none() {
        let good = to_nic(false, 17, &udp(1, 2, b"payload"));
        assert!(ip(&good).is_some());
        for (at, value) in [(14, 0x44), (14, 0x65), (14, 0x4f), (16, 0xff), (17, 19)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(ip(&bad), None, "byte {at} = {value:#x}");
        }
        assert_eq!(ip(&good[..good.len() - 1]), None, "longer than its frame");
        assert_eq!(ip(&good[..33]), None);
    }

    #[test]
    fn fragments_are_told_apart() {
        for (field, fragment) in [
            (0x4000, Fragment::No),
            (0x2000, Fragment::First),
            (0x2010, Fragment::Later),
            (0x0010, Fragment::Later),
        ] {
            let frame = ether(NIC, HOST, &[], 0x0800, &ipv4(HOST4, NIC4, 17, &[], field, &udp(67, 68, b"")));
            let got = ip(&frame).unwrap();
            assert_eq!(got.fragment, fragment, "{field:#x}");
            assert_eq!(got.udp_ports(&frame).is_some(), fragment != Fragment::Later);
            assert_eq!(Transport::parse(&frame, frame.len()).is_some(), fragment == Fragment::No);
        }
    }

    #[test]
    fn ipv6_extension_headers_are_walked_to_the_transport() {
        let body = udp(5, 6, b"hi");
        let chain = |headers: &[(u8, &[u8])]| {
            let mut packet = body.clone();
            let mut next = 17;
            for &(kind, rest) in headers.iter().rev() {
                packet = [&[next][..], rest, &packet].concat();
                next = kind;
            }
            ether(NIC, HOST, &[], 0x86dd, &ipv6(HOST6, NIC6, next, &packet))
        };
        let hop: (u8, &[u8]) = (0, &[0, 1, 4, 0, 0, 0, 0]);
        let dest: (u8, &[u8]) = (60, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let auth: (u8, &[u8]) = (51, &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        let piece: (u8, &[u8]) = (44, &[0, 0, 1, 0, 0, 0, 9]);
        let later: (u8, &[u8]) = (44, &[0, 1, 1, 0, 0, 0, 9]);
        // Where other headers have their length, this one has a reserved byte that is not looked at.
        let reserved: (u8, &[u8]) = (44, &[3, 0, 1, 0, 0, 0, 9]);

        for (headers, l4, fragment) in [
            (&[hop, dest][..], 54 + 8 + 16, Fragment::No),
            (&[auth], 54 + 12, Fragment::No),
            (&[hop, piece], 54 + 16, Fragment::First),
            (&[reserved], 54 + 8, Fragment::First),
            (&[later, dest], 54 + 8, Fragment::Later),
        ] {
            let frame = chain(headers);
            let got = ip(&frame).unwrap();
            assert!(got.extended);
            assert_eq!((got.l4, got.fragment), (l4, fragment));
            assert_eq!(got.protocol, if fragment == Fragment::Later { 60 } else { 17 });
        }
        assert_eq!(ip(&chain(&[hop; 9])), None, "a chain without end");
        let frame = chain(&[hop, dest]);
        let link = Link::parse(&frame).unwrap();
        assert_eq!(Ip::parse(&frame[..60], frame.len(), &link), None, "a chain out of sight");
    }

    #[test]
    fn an_extension_header_past_its_packet_is_none() {
        let mut frame = ether(NIC, HOST, &[], 0x86dd, &ipv6(HOST6, NIC6, 60, &[17, 9, 0, 0, 0, 0, 0, 0]));
        assert_eq!(ip(&frame), None);
        frame.extend([0; 80]);
        assert_eq!(ip(&frame), None, "also where padding would hold it");
    }

    #[test]
    fn headers_may_end_where_their_packet_and_what_is_seen_of_it_do_and_no_later() {
        let v4 = ether(NIC, HOST, &[], 0x0800, &ipv4(HOST4, NIC4, 17, &[1; 8], 0, &[]));
        let v6 = ether(NIC, HOST, &[], 0x86dd, &ipv6(HOST6, NIC6, 60, &[17, 0, 1, 4, 0, 0, 0, 0]));
        for frame in [v4, v6] {
            let (end, link) = (frame.len(), Link::parse(&frame).unwrap());
            let whole = Ip::parse(&frame, end, &link).unwrap();
            assert_eq!((whole.l4, whole.end), (end, end));
            assert_eq!(Ip::parse(&frame[..end - 1], end, &link), None, "the last byte is out of sight");
        }
    }

    #[test]
    fn a_datagram_that_ends_before_its_ports_do_has_none() {
        for (len, ports) in [(3, None), (4, Some((1, 2)))] {
            let mut frame = to_nic(false, 17, &udp(1, 2, b"")[..len]);
            frame.extend([0; 20]);
            assert_eq!(ip(&frame).unwrap().udp_ports(&frame), ports, "{len} bytes, and padding");
        }
    }

    #[test]
    fn a_transport_header_must_hold_its_own_lengths() {
        for v6 in [false, true] {
            let frame = tcp_frame(v6, 10);
            let t = Transport::parse(&frame, frame.len()).unwrap();
            assert_eq!((t.is_tcp, t.payload_len(), t.payload + 10), (true, 10, frame.len()));
            for offset in [0x40, 0xf0] {
                let mut bad = frame.clone();
                bad[t.ip.l4 + 12] = offset;
                assert_eq!(Transport::parse(&bad, bad.len()), None, "data offset {offset:#x}");
            }
            let frame = udp_frame(v6, 10);
            let t = Transport::parse(&frame, frame.len()).unwrap();
            assert_eq!((t.is_tcp, t.payload_len()), (false, 10));
            for len in [0, 7, 17, 19] {
                let mut bad = frame.clone();
                bad[t.ip.l4 + 5] = len;
                assert_eq!(Transport::parse(&bad, bad.len()), None, "UDP length {len}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_parses_lies_inside_its_frame(
            mut frame in prop::collection::vec(any::<u8>(), 0..200),
            kind in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x8100)],
            version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
            next in prop_oneof![Just(0u8), Just(6), Just(17), Just(44), Just(60), any::<u8>()],
            more in 0usize..2000,
        ) {
            if let Some(f) = frame.get_mut(12..34) {
                f[..2].copy_from_slice(&kind.to_be_bytes());
                f[2] = version;
                f[4] &= 7;
                f[6] &= 7;
                f[8] = next;
                f[11] = next;
            }
            let total = frame.len() + more;
            if let Some(t) = Transport::parse(&frame, total) {
                prop_assert!(t.ip.l3 < t.ip.l4 && t.ip.l4 < t.payload);
                prop_assert!(t.payload <= t.ip.end && t.ip.end <= total);
                prop_assert!(t.payload <= frame.len());
            }
        }
    }
}
