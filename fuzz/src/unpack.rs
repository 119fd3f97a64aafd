//! Datagrams' plaintexts through `unpack`, as a worker has them: receive batches, lanes, time that passes.
//!
//! Whatever a peer sends, each frame that comes out is whole and as long as it says, its header means to the kernel
//! what its bytes mean ([`super::oracle`]), and what is under way stays within its bounds.

use std::time::Duration;

use tap_rs::dataplane::parts::Buffers;
use tap_rs::dataplane::reassembly::{MAX_FRAMES, Reassembly};
use tap_rs::dataplane::unpack::{Frame, Origin, Sink, expire, hurry, unpack};
use tap_rs::metrics::DropReason;
use tap_rs::types::NicId;
use tap_rs::wire::control::Control;
use tap_rs::wire::record::{MAX_FRAME, MIN_FIRST_PART, Record};

use super::input::{Input, epoch};
use super::{frames, offload, oracle};

struct Batch(Vec<Vec<u8>>);

impl Buffers for Batch {
    fn buffer(&self, i: usize) -> &[u8] {
        self.0.get(i).map_or(&[], Vec::as_slice)
    }
}

struct Checks;

impl Sink for Checks {
    fn has(&self, _: u32, nic: NicId) -> bool {
        nic.0 < 3
    }

    fn frame<'a>(&mut self, frame: Frame<'a>, pieces: impl Iterator<Item = &'a [u8]>) {
        assert!(frame.nic.0 < 3, "a frame for a NIC that is not there");
        let whole: Vec<u8> = pieces.flatten().copied().collect();
        assert_eq!(whole.len(), frame.total);
        assert!(frame.total <= MAX_FRAME && whole.starts_with(frame.head));
        assert!(frame.head.len() >= frame.total.min(MIN_FIRST_PART), "{} shown", frame.head.len());
        if let Ok(header) = frame.offload.to_vnet(frame.head, frame.total) {
            oracle::check(&header.to_bytes(), &whole, frame.head.len());
            offload::cut(frame.offload, &whole);
        }
        if frame.salvaged > 0 {
            let packets = offload::cut(frame.offload, &whole);
            assert_eq!(packets, Some(frame.salvaged), "a salvaged run is the packets that it says");
        }
    }

    fn control(&mut self, _: u32, message: &[u8]) {
        let _ = Control::decode(message);
    }

    fn drop(&mut self, _: u32, reason: DropReason) {
        use DropReason::*;
        assert!(
            matches!(reason, BadRecord | BadOffload | UnknownNic | PartConflict | PartExpired | PartEvicted),
            "{reason:?}"
        );
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (mut reassembly, mut batch, mut sink) = (Reassembly::default(), Batch(Vec::new()), Checks);
    let (mut now, mut seq) = (epoch(), 0u64);
    while let Some(op) = input.next() {
        let mut from = Origin { session: 0, lane: 0, seq, buffer: batch.0.len() as u16, start: 0, now };
        match op & 15 {
            0 => {
                reassembly.keep(&batch);
                batch.0.clear();
                now += Duration::from_micros(u64::from(input.u8()) * 20);
                expire(&mut reassembly, now, &mut sink);
            }
            1 => hurry(&mut reassembly, from, &batch, &mut sink),
            2 => reassembly.forget(u32::from(op >> 4 & 3)),
            3 => seq = input.u64(),
            kind => {
                let plaintext = if kind < 7 { raw(&mut input) } else { cut_frame(&mut input, kind) };
                seq = seq.saturating_add(1);
                (from.session, from.lane, from.seq) = (u32::from(op >> 4 & 3), op >> 6 & 1, seq);
                batch.0.push(plaintext);
                let Some(plaintext) = batch.0.last() else { return };
                unpack(&mut reassembly, from, plaintext, &batch, &mut sink);
            }
        }
        assert!(reassembly.len() <= MAX_FRAMES && reassembly.memory() < 4 << 20);
    }
}

/// Bytes as they come.
fn raw(input: &mut Input<'_>) -> Vec<u8> {
    let n = usize::from(input.u8());
    input.take(n).to_vec()
}

/// Parts of a frame, one behind the other, from some byte of it on.
fn cut_frame(input: &mut Input<'_>, kind: u8) -> Vec<u8> {
    let (nic, frame) = (NicId(u16::from(kind >> 2 & 3)), u16::from(input.u8() & 7));
    let offload = frames::offload(input);
    let total = frames::length(input);
    let bytes = frames::frame(input, total);
    let (mut at, mut plaintext) = (usize::from(input.u16()), Vec::with_capacity(256));
    for _ in 0..=kind & 1 {
        let part = bytes.get(at..).unwrap_or_default();
        let part = &part[..part.len().min(usize::from(input.u8()) * 8)];
        let (offset, total) = (at as u32, bytes.len() as u32);
        let record = match at {
            0 if part.len() == bytes.len() => Record::Whole { nic, offload },
            0 => Record::First { nic, frame, total, offload },
            _ => Record::Next { nic, frame, offset },
        };
        plaintext.extend(record.encode(part.len() as u16));
        plaintext.extend(part);
        at += part.len();
    }
    plaintext
}
