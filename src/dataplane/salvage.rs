//! What can be handed on of a super-frame of which parts are missing.
//!
//! ```text
//! parts     |  first  |  part   |         |  part   |  part   |       one datagram was lost
//! packets   |hdr| 0  |   1   |   2   |   3   |   4   |   5   |
//! written    \__ 0, 1 as one frame __/       \____ 4, 5 ____/         2 and 3 touch what is missing
//! ```
//!
//! Without tap-rs the loss of one datagram would have cost one packet; here it costs the one or two that touch the
//! missing bytes. Packets that are wholly there and adjacent go out as one smaller super-frame with headers of its
//! own, in order. Where the first part is missing there are no headers, and nothing can be saved. What was handed on
//! before is left out, so that missing parts may still come.

use std::iter;
use std::ops::Range;

use super::parts::{Buffers, Partial};
use super::unpack::{Frame, Sink};
use crate::wire::record::MIN_FIRST_PART;
use crate::wire::segment::Segments;

/// Room for the headers of a run, and for as much of its payload as stands in a frame's head.
const HEAD_ROOM: usize = 1024;

/// Hands every packet of `frame` whose bytes have all come, and which has not been handed on before, to `sink`.
pub fn salvage(frame: &mut Partial, buffers: &dyn Buffers, sink: &mut impl Sink) {
    let runs = hand_on(frame, buffers, sink);
    frame.note_handed(runs);
}

fn hand_on(frame: &Partial, buffers: &dyn Buffers, sink: &mut impl Sink) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let Some((total, offload)) = frame.head else { return runs };
    let head = frame.pieces(buffers).next().map_or(&[][..], |(_, bytes)| bytes);
    let Ok(segments) = Segments::new(head, offload, total) else { return runs };
    if offload.gso.is_none() || segments.count() < 2 {
        return runs;
    }
    let mut pieces = frame.pieces(buffers).peekable();
    let mut i = 0usize;
    while let Some((start, bytes)) = pieces.next() {
        // A stretch of the frame without a gap.
        let mut end = start.saturating_add(bytes.len());
        while let Some((_, more)) = pieces.next_if(|&(at, _)| at == end) {
            end = end.saturating_add(more.len());
        }
        while segments.payload(i).is_some_and(|p| p.start < start) {
            i = i.saturating_add(1);
        }
        let first = i;
        while segments.payload(i).is_some_and(|p| p.end <= end) {
            i = i.saturating_add(1);
        }
        for new in without(first..i, frame.handed()) {
            run(frame, &segments, new.clone(), buffers, sink);
            runs.push(new);
        }
    }
    runs
}

/// What of `run` is in none of `handed`, which are in order.
fn without(run: Range<usize>, handed: &[Range<usize>]) -> impl Iterator<Item = Range<usize>> {
    let mut at = run.start;
    let end = run.end..run.end;
    let gaps = handed.iter().cloned().chain(iter::once(end)).map(move |h| {
        let gap = at..h.start.min(run.end);
        at = at.max(h.end);
        gap
    });
    gaps.filter(|gap| !gap.is_empty())
}

/// Hands on the packets `run` as one frame.
fn run(
    frame: &Partial,
    segments: &Segments<'_>,
    run: Range<usize>,
    buffers: &dyn Buffers,
    sink: &mut impl Sink,
) {
    let mut room = [0u8; HEAD_ROOM];
    let Some(offload) = segments.write_run(run.clone(), &mut room) else { return };
    let Some(payload) = segments.run_payload(&run) else { return };
    let headers = segments.header_len();
    let total = headers.saturating_add(payload.len());

    // The frame's head must show as much as that of any other frame.
    let shown = MIN_FIRST_PART.saturating_sub(headers).min(payload.len());
    let front = payload.start..payload.start.saturating_add(shown);
    let mut head_len = headers;
    for bytes in within(frame, &front, buffers) {
        let end = head_len.saturating_add(bytes.len());
        let Some(place) = room.get_mut(head_len..end) else { return };
        place.copy_from_slice(bytes);
        head_len = end;
    }
    let Some(head) = room.get(..head_len) else { return };
    let (session, salvaged) = (frame.key.session, run.len());
    let whole = Frame { session, nic: frame.nic, offload, head, total, salvaged };
    sink.frame(whole, iter::once(head).chain(within(frame, &(front.end..payload.end), buffers)));
}

/// The pieces of the bytes `range` of a frame.
fn within<'a>(
    frame: &'a Partial,
    range: &Range<usize>,
    buffers: &'a dyn Buffers,
) -> impl Iterator<Item = &'a [u8]> {
    let range = range.clone();
    frame.pieces(buffers).filter_map(move |(offset, bytes)| {
        let from = range.start.saturating_sub(offset);
        let to = range.end.saturating_sub(offset).min(bytes.len());
        bytes.get(from..to).filter(|b| !b.is_empty())
    })
}
