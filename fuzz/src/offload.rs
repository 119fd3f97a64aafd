//! Headers that the kernel writes before frames, to the far end and back into a kernel.
//!
//! What crosses means the same on the other side; what is cut by hand is what the kernel would cut.

use tap_rs::wire::checksum;
use tap_rs::wire::record::{Offload, Record};
use tap_rs::wire::segment::Segments;
use tap_rs::wire::vnet::VnetHeader;

use super::input::Input;
use super::{frames, oracle};

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let op = input.u8();
    let mut header = [0; 10];
    header.iter_mut().for_each(|b| *b = input.u8());
    let mut frame = match op & 3 {
        0 => input.0.to_vec(),
        _ => {
            let total = frames::length(&mut input);
            frames::frame(&mut input, total)
        }
    };
    let before = frame.clone();
    let Ok(offload) = Offload::from_kernel(&VnetHeader::from_bytes(&header), &mut frame) else { return };
    assert_eq!(before.len(), frame.len());

    let record = Record::Whole { nic: tap_rs::types::NicId(1), offload };
    let bytes = [&record.encode(0)[..], b""].concat();
    let crossed = match Record::decode(&bytes) {
        Ok(Some((Record::Whole { offload, .. }, b"", b""))) => offload,
        other => panic!("{other:?}"),
    };
    assert_eq!(crossed, offload);
    let shown = frame.len().min(192 + usize::from(op));
    for head in [&frame[..], &frame[..shown]] {
        match offload.to_vnet(head, frame.len()) {
            Ok(h) => oracle::check(&h.to_bytes(), &frame, head.len()),
            Err(reason) => {
                assert!(head.len() < frame.len(), "what one end makes the other takes: {reason:?}")
            }
        }
    }
    if frame == before && header[0] & 1 != 0 && offload.needs_checksum {
        let h = offload.to_vnet(&frame, frame.len()).expect("seen above").to_bytes();
        assert_eq!(h[6..], header[6..], "the checksum is completed where the kernel said");
    }
    cut(offload, &frame);
}

/// Cuts a frame by hand; the packets hold its payload, and each is right. How many there are.
pub fn cut(offload: Offload, frame: &[u8]) -> Option<usize> {
    let segments = Segments::new(frame, offload, frame.len()).ok()?;
    let whole = oracle::place(frame).expect("what can be cut is TCP or UDP");
    let mut at = whole.payload;
    for i in 0..segments.count() {
        let range = segments.payload(i).expect("a packet for each number");
        assert_eq!(range.start, at, "no byte twice, none left out");
        at = range.end;
        if i > 3 && i + 2 < segments.count() {
            continue;
        }
        let mut packet = vec![0; segments.header_len()];
        let left = segments.write_headers(i, &mut packet).expect("room for the headers");
        packet.extend_from_slice(&frame[range]);
        let header = left.to_vnet(&packet, packet.len()).expect("a packet can be finished");
        oracle::check(&header.to_bytes(), &packet, packet.len());
        let p = oracle::place(&packet).expect("a packet is what it was cut from");
        assert_eq!((p.l4, p.payload, p.tcp, p.v6), (whole.l4, whole.payload, whole.tcp, whole.v6));
        let l3 = if p.v6 { 0 } else { 14 + 4 * tags(&packet) };
        if !p.v6 && segments.count() > 1 {
            assert_eq!(checksum::sum(&packet[l3..p.l4]), 0xffff, "the IPv4 header's checksum is right");
        }
    }
    assert_eq!(at, whole.end);
    Some(segments.count())
}

fn tags(frame: &[u8]) -> usize {
    (0..).take_while(|n| matches!(frame.get(12 + n * 4..14 + n * 4), Some([0x81, 0] | [0x88, 0xa8]))).count()
}
