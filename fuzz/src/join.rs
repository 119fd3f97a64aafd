//! Joining datagrams into super-frames: cut again as the kernel cuts, they are the datagrams that went in.

use tap_rs::wire::join::{Joined, Joiner, MAX_JOINED};
use tap_rs::wire::record::Offload;
use tap_rs::wire::segment::Segments;

use super::input::Input;
use super::{frames, oracle};

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut joiner = Joiner::default();
    let mut inside: Vec<Vec<u8>> = Vec::new();
    let offload = Offload { needs_checksum: input.u8() & 1 != 0, gso: None };
    let mut last: Option<Vec<u8>> = None;
    while let Some(op) = input.next() {
        let frame = match (op & 3, &last) {
            (0, _) => input.take(usize::from(op)).to_vec(),
            (1 | 2, Some(last)) => next_of(last, &mut input),
            _ => frames::frame(&mut input, usize::from(op) + 40),
        };
        let frame = if op & 4 == 0 { with_checksum(frame, offload) } else { frame };
        if !inside.is_empty() && joiner.join(offload, &frame) {
            inside.push(frame.clone());
        } else {
            finish(&mut joiner, &mut inside);
            if joiner.begin(offload, &frame) {
                inside.push(frame.clone());
            }
        }
        last = Some(frame);
    }
    finish(&mut joiner, &mut inside);
}

/// The datagram that could stand behind `last`: another identification, another last byte.
fn next_of(last: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut frame = last.to_vec();
    let (at, byte, id) = (usize::from(input.u8()), input.u8(), input.u8());
    if let Some(b) = frame.get_mut(19) {
        *b = b.wrapping_add(id & 1);
    }
    if let Some(b) = frame.get_mut(at) {
        *b = byte;
    }
    frame
}

/// Completes or makes partial the UDP checksum, and makes the IPv4 header's right.
fn with_checksum(mut frame: Vec<u8>, offload: Offload) -> Vec<u8> {
    use tap_rs::wire::checksum::{add, complete_checksum, fold, sum};
    let Some(p) = oracle::place(&frame).filter(|p| !p.tcp) else { return frame };
    let l3 = if p.v6 { p.l4.saturating_sub(40) } else { p.l4.saturating_sub(20) };
    if !p.v6 && l3 >= 14 {
        frame[l3 + 10..l3 + 12].fill(0);
        let s = !sum(&frame[l3..p.l4]);
        frame[l3 + 10..l3 + 12].copy_from_slice(&s.to_be_bytes());
    }
    let addresses = if p.v6 { l3 + 8..l3 + 40 } else { l3 + 12..l3 + 20 };
    let pseudo = add(sum(&frame[addresses]), add(17, fold((p.end - p.l4) as u64)));
    frame[p.l4 + 6..p.l4 + 8].copy_from_slice(&pseudo.to_be_bytes());
    if !offload.needs_checksum {
        let end = p.end;
        let _ = complete_checksum(&mut frame[..end], p.l4, 6);
    }
    frame
}

fn finish(joiner: &mut Joiner, inside: &mut Vec<Vec<u8>>) {
    assert_eq!(joiner.is_empty(), inside.is_empty());
    let Some(Joined { frame, offload, frames: (count, bytes) }) = joiner.finish() else { return };
    assert_eq!((count, bytes), (inside.len(), inside.iter().map(Vec::len).sum()));
    assert!(count <= MAX_JOINED);
    if count == 1 {
        assert_eq!(frame, inside[0]);
    } else {
        let header = offload.to_vnet(frame, frame.len()).expect("what is joined can be written");
        oracle::check(&header.to_bytes(), frame, frame.len());
        let segments = Segments::new(frame, offload, frame.len()).expect("and cut");
        assert_eq!(segments.count(), count);
        for (i, was) in inside.iter().enumerate() {
            let mut is = vec![0; segments.header_len()];
            segments.write_headers(i, &mut is).expect("room");
            is.extend_from_slice(&frame[segments.payload(i).expect("a packet")]);
            assert_eq!(without_checksums(is), without_checksums(was.clone()), "datagram {i}");
        }
    }
    inside.clear();
}

/// Identification and checksums zeroed: with "don't fragment" the first means nothing, and the others are computed.
fn without_checksums(mut frame: Vec<u8>) -> Vec<u8> {
    let p = oracle::place(&frame).expect("UDP");
    if !p.v6 {
        let l3 = p.l4 - 20;
        if frame[l3 + 6] & 0x40 != 0 {
            frame[l3 + 4..l3 + 6].fill(0);
        }
        frame[l3 + 10..l3 + 12].fill(0);
    }
    frame[p.l4 + 6..p.l4 + 8].fill(0);
    frame
}
