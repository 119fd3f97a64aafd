//! The internet checksum (RFC 1071): sums, pseudo-headers, and finishing a checksum in place.
//!
//! Sums here are 16-bit ones' complement sums of big-endian words, not yet complemented; 0 and 0xffff are
//! the same number. A *partial* checksum, as `CHECKSUM_PARTIAL` frames carry it, is the sum of the
//! pseudo-header alone.

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

/// The sum of `bytes`, an odd last byte padded with zero. Exact up to 16 GiB.
pub fn sum(bytes: &[u8]) -> u16 {
    // Native order: byte order commutes with this sum (RFC 1071, 2(B)), and is put right at the end.
    let (words, rest) = bytes.as_chunks::<8>();
    let mut acc = 0u64;
    for &word in words {
        let word = u64::from_ne_bytes(word);
        acc = acc.wrapping_add(word & 0xffff_ffff).wrapping_add(word >> 32);
    }
    let mut last = [0u8; 8];
    for (to, &from) in last.iter_mut().zip(rest) {
        *to = from;
    }
    let last = u64::from_ne_bytes(last);
    acc = acc.wrapping_add(last & 0xffff_ffff).wrapping_add(last >> 32);
    u16::from_be(fold(acc))
}

/// A wide sum brought to 16 bits by adding the carries back in.
#[inline]
pub const fn fold(mut acc: u64) -> u16 {
    acc = (acc & 0xffff_ffff).wrapping_add(acc >> 32);
    // Two numbers of 32 bits are 0x1_ffff_fffe at the most, and that becomes 0x1_fffe.
    acc = (acc & 0xffff).wrapping_add((acc >> 16) & 0xffff).wrapping_add(acc >> 32);
    acc = (acc & 0xffff).wrapping_add(acc >> 16);
    (acc & 0xffff) as u16
}

/// `a + b`.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (n, carry) = a.overflowing_add(b);
    n.wrapping_add(carry as u16)
}

/// `a - b`.
#[inline]
pub const fn sub(a: u16, b: u16) -> u16 {
    add(a, !b)
}

/// The sum of the pseudo-header of an upper layer of `length` bytes (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub fn pseudo_header_sum(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> u16 {
    let address = |ip| match ip {
        IpAddr::V4(ip) => sum(&ip.octets()),
        IpAddr::V6(ip) => sum(&ip.octets()),
    };
    add(add(address(src), address(dst)), add(u16::from(protocol), fold(length as u64)))
}

/// Finishes a partial checksum as the kernel does (`skb_checksum_help`): sums `frame` from `start` to its end,
/// the partial checksum included, and writes the complement at `start + offset`. A result of zero is written as
/// 0xffff, since in UDP zero means that there is no checksum.
///
/// `None` where the field does not lie inside the frame; the frame is then unchanged.
pub fn complete_checksum(frame: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let part = frame.get_mut(start..)?;
    let done = match !sum(part) {
        0 => 0xffff,
        n => n,
    };
    *part.get_mut(offset..)?.first_chunk_mut::<2>()? = done.to_be_bytes();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, section 4.1, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&b| u32::from(b));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn the_wide_sum_is_the_plain_one(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(sum(&bytes), plain(&bytes));
        }

        #[test]
        fn a_completed_checksum_verifies(mut bytes in prop::collection::vec(any::<u8>(), 12..200), at in 0usize..4) {
            let field = |b: &[u8]| u16::from_be_bytes([b[2 + at * 2], b[3 + at * 2]]);
            let partial = field(&bytes);
            complete_checksum(&mut bytes, 2, at * 2).unwrap();
            prop_assert_eq!(add(sum(&bytes[2..]), partial), 0xffff);
            prop_assert_ne!(field(&bytes), 0);
        }

        #[test]
        fn subtraction_undoes_addition(a in any::<u16>(), b in any::<u16>()) {
            prop_assert_eq!(sub(add(a, b), b) % 0xffff, a % 0xffff);
        }
    }

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0xff; 65536]), 0xffff);
        assert_eq!(fold(u64::MAX), 0xffff);
    }

    #[test]
    fn a_udp_packet_of_the_kernels_is_reproduced() {
        // 127.0.0.1:1000 → 127.0.0.1:2000, "hi": the pseudo-header in the field, then completed.
        let lo = IpAddr::from([127, 0, 0, 1]);
        let partial = pseudo_header_sum(lo, lo, 17, 10);
        let [c0, c1] = partial.to_be_bytes();
        let mut udp = [0x03, 0xe8, 0x07, 0xd0, 0, 10, c0, c1, b'h', b'i'];
        complete_checksum(&mut udp, 0, 6).unwrap();
        assert_eq!(add(sum(&udp), partial), 0xffff, "a receiver's sum over pseudo-header and datagram");
    }

    #[test]
    fn a_field_outside_the_frame_is_left_alone() {
        let mut bytes = [7u8; 10];
        for (start, offset) in [(0, 9), (10, 0), (11, 0), (4, 5), (usize::MAX, 0), (0, usize::MAX)] {
            assert_eq!(complete_checksum(&mut bytes, start, offset), None);
        }
        assert_eq!(bytes, [7; 10]);
    }
}
