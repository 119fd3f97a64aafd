//! Frames through pack, seal, a bad network, open and unpack: what comes out is what per-packet transport would
//! have delivered, whatever is lost.

use std::collections::{BTreeSet, HashMap};
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::batch::Batch;
use super::parts::Buffers;
use super::reassembly::{MAX_PER_SESSION, PATIENCE, REORDER, Reassembly};
use super::unpack::{Frame, Origin, Sink, expire, hurry, unpack};
use crate::metrics::DropReason;
use crate::proto::activity::Activity;
use crate::proto::session::{Keys, Lane, Opener, establish};
use crate::types::{NicId, Suite};
use crate::wire::datagram::DATA_HEADER_LEN;
use crate::wire::record::{Gso, HEADER_LEN, MAX_FRAME, MIN_FIRST_PART, Offload, Record};
use crate::wire::sample;
use crate::wire::segment::Segments;

type Sent = (NicId, Offload, Vec<u8>);

/// One direction of a session.
pub(super) fn direction(index: u32) -> (Lane, Arc<Opener>) {
    let activity = || Arc::new(Activity::new(Instant::now()));
    let keys = |send: u8, receive: u8, local, remote| Keys {
        suite: Suite::Aes,
        send: [send; 32].into(),
        receive: [receive; 32].into(),
        local_index: local,
        remote_index: remote,
    };
    let (mut lanes, _) = establish(&keys(1, 2, 1, index), activity()).unwrap();
    let (_, opener) = establish(&keys(2, 1, index, 1), activity()).unwrap();
    (lanes.take().unwrap(), opener)
}

/// Does to the places what `readv` would do with this frame.
fn scatter(mut frame: &[u8], places: &mut [IoSliceMut<'_>]) -> usize {
    let total = frame.len();
    for place in places {
        let (here, rest) = frame.split_at(frame.len().min(place.len()));
        place[..here.len()].copy_from_slice(here);
        frame = rest;
    }
    assert!(frame.is_empty(), "the read was cut short");
    total
}

/// Every frame through the packer, `expected` bytes of it foreseen: the trains, each a list of datagrams.
fn pack(frames: &[Sent], datagram: usize, expected: usize, lane: &mut Lane) -> Vec<Vec<Vec<u8>>> {
    let mut batch = Batch::new();
    batch.start(datagram);
    let mut trains = Vec::new();
    let mut flush = |batch: &mut Batch| {
        let count = batch.datagrams();
        let (bytes, segment) = batch.seal(lane).unwrap();
        let train: Vec<_> = bytes.chunks(segment).map(<[u8]>::to_vec).collect();
        assert_eq!((train.len(), bytes.len() <= 65_507), (count, true));
        assert!(train.iter().rev().skip(1).all(|d| d.len() == segment), "all but the last are full");
        trains.push(train);
        batch.start(datagram);
    };
    for (nic, offload, frame) in frames {
        if !batch.open() {
            flush(&mut batch);
            assert!(batch.open());
        }
        let total = batch.read(&mut [], expected, |places| Ok(scatter(frame, places))).unwrap();
        let head = batch.head(total);
        assert_eq!(head, &frame[..head.len()]);
        assert!(head.len() >= total.min(MIN_FIRST_PART));
        batch.pack(*nic, *offload, total);
        while !batch.place_tail() {
            flush(&mut batch);
        }
    }
    if !batch.is_empty() {
        flush(&mut batch);
    }
    trains
}

/// The far end.
struct Receiver {
    opener: Arc<Opener>,
    reassembly: Reassembly,
    now: Instant,
    out: Collected,
}

#[derive(Default)]
struct Collected {
    frames: Vec<Sent>,
    drops: Vec<DropReason>,
}

struct OneBuffer<'a>(&'a [u8]);

impl Buffers for OneBuffer<'_> {
    fn buffer(&self, i: usize) -> &[u8] {
        if i == 3 { self.0 } else { &[] }
    }
}

impl Sink for Collected {
    fn has(&self, _: u32, nic: NicId) -> bool {
        nic.0 < 100
    }

    fn frame<'a>(&mut self, frame: Frame<'a>, pieces: impl Iterator<Item = &'a [u8]>) {
        let bytes = pieces.collect::<Vec<_>>().concat();
        assert_eq!((bytes.len(), &bytes[..frame.head.len()]), (frame.total, frame.head));
        assert!(frame.head.len() >= frame.total.min(MIN_FIRST_PART));
        self.frames.push((frame.nic, frame.offload, bytes));
    }

    fn control(&mut self, _: u32, _: &[u8]) {
        unreachable!("no control record was sent");
    }

    fn drop(&mut self, _: u32, reason: DropReason) {
        self.drops.push(reason);
    }
}

impl Receiver {
    fn new(opener: Arc<Opener>) -> Self {
        let (reassembly, now) = (Reassembly::default(), Instant::now());
        Self { opener, reassembly, now, out: Collected::default() }
    }

    /// One receive batch: these datagrams lie one behind the other in one buffer.
    fn receive<'a>(&mut self, datagrams: impl IntoIterator<Item = &'a Vec<u8>>) {
        let datagrams: Vec<_> = datagrams.into_iter().collect();
        let mut buffer = datagrams.iter().copied().flatten().copied().collect::<Vec<u8>>();
        let (mut base, mut last) = (0, None);
        for datagram in datagrams {
            let bytes = &mut buffer[base..base + datagram.len()];
            let seq = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
            let len = self.opener.open(bytes).unwrap().plaintext.len();
            let start = base + DATA_HEADER_LEN;
            let origin = Origin { session: 9, lane: 0, seq, buffer: 3, start, now: self.now };
            let buffers = OneBuffer(&buffer);
            let plaintext = &buffer[start..start + len];
            unpack(&mut self.reassembly, origin, plaintext, &buffers, &mut self.out);
            last = Some(origin);
            base += datagram.len();
        }
        if let Some(last) = last {
            hurry(&mut self.reassembly, last, &OneBuffer(&buffer), &mut self.out);
        }
        self.reassembly.keep(&OneBuffer(&buffer));
    }

    fn finish(mut self) -> Collected {
        expire(&mut self.reassembly, self.now + PATIENCE + Duration::from_millis(1), &mut self.out);
        assert!(self.reassembly.is_empty());
        self.out
    }
}

/// A frame of the packets that a plain segmenter makes of it.
fn packets((nic, offload, frame): &Sent) -> Vec<(NicId, Vec<u8>)> {
    if offload.gso.is_none() {
        return vec![(*nic, frame.clone())];
    }
    let segments = Segments::new(frame, *offload, frame.len()).unwrap();
    let one = |i| {
        let mut out = vec![0; segments.header_len()];
        segments.write_headers(i, &mut out).unwrap();
        out.extend(&frame[segments.payload(i).unwrap()]);
        (*nic, out)
    };
    (0..segments.count()).map(one).collect()
}

/// The packets whose bytes have all come, if these datagrams have: told from the records alone.
fn expected(frames: &[Sent], trains: &[Vec<Vec<u8>>], lost: &BTreeSet<usize>) -> Vec<(NicId, Vec<u8>)> {
    let (_, opener) = direction(9);
    let mut here: Vec<Vec<bool>> = frames.iter().map(|(_, _, f)| vec![false; f.len()]).collect();
    let (mut names, mut next) = (HashMap::new(), 0);
    for (n, datagram) in trains.iter().flatten().enumerate() {
        let mut datagram = datagram.clone();
        let mut rest = &*opener.open(&mut datagram).unwrap().plaintext;
        while let Some((record, body, behind)) = Record::decode(rest).unwrap() {
            let (frame, offset) = match record {
                Record::Next { frame, offset, .. } => (names[&frame], offset as usize),
                _ => {
                    if let Record::First { frame, .. } = record {
                        names.insert(frame, next);
                    }
                    next += 1;
                    (next - 1, 0)
                }
            };
            assert_eq!(&frames[frame].2[offset..offset + body.len()], body);
            here[frame][offset..offset + body.len()].fill(!lost.contains(&n));
            rest = behind;
        }
    }
    let mut out = Vec::new();
    for (sent, here) in frames.iter().zip(&here) {
        let (_, offload, frame) = sent;
        if offload.gso.is_none() {
            out.extend(here.iter().all(|&h| h).then(|| packets(sent)).into_iter().flatten());
        } else if here[0] {
            let segments = Segments::new(frame, *offload, frame.len()).unwrap();
            let whole = |i| here[segments.payload(i).unwrap()].iter().all(|&h| h);
            out.extend(packets(sent).into_iter().enumerate().filter(|(i, _)| whole(*i)).map(|(_, p)| p));
        }
    }
    out
}

fn sorted<T: Ord>(mut v: Vec<T>) -> Vec<T> {
    v.sort_unstable();
    v
}

/// Bytes that differ from place to place and from frame to frame.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

fn plain_frame() -> impl Strategy<Value = Sent> {
    let len = prop_oneof![14usize..400, 1000usize..1600, 14usize..MAX_FRAME];
    (0u16..3, any::<u64>(), len).prop_map(|(nic, seed, n)| (NicId(nic), Offload::default(), noise(seed, n)))
}

fn super_frame() -> impl Strategy<Value = Sent> {
    (any::<bool>(), any::<bool>(), any::<u64>(), 200usize..1500, 1usize..60_000).prop_map(
        |(v6, is_tcp, seed, size, len)| {
            let size = if is_tcp { size } else { size.max(len / 100) };
            let data = noise(seed, len.max(size + 1));
            let (proto, body, gso) = match is_tcp {
                true => (6, sample::tcp(seed as u32, 0x99, &[1; 12], &data), Gso::Tcp(size as u16)),
                false => (17, sample::udp(1, 2, &data), Gso::Udp(size as u16)),
            };
            let frame = sample::with_partial_checksum(sample::to_nic(v6, proto, &body));
            (NicId(7), Offload { needs_checksum: true, gso: Some(gso) }, frame)
        },
    )
}

fn frames() -> impl Strategy<Value = Vec<Sent>> {
    prop::collection::vec(prop_oneof![plain_frame(), super_frame()], 1..12)
}

fn foreseen() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0usize), 0usize..4000, Just(MAX_FRAME)]
}

fn datagram() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1472usize), Just(1452), Just(1232), 512usize..9000]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_frame_comes_out_whole_and_in_order_when_nothing_is_lost(
        frames in frames(), expected in foreseen(), datagram in datagram(), at_once in 1usize..100,
    ) {
        let (mut lane, opener) = direction(9);
        let trains = pack(&frames, datagram, expected, &mut lane);
        let mut receiver = Receiver::new(opener);
        let datagrams: Vec<_> = trains.iter().flatten().collect();
        datagrams.chunks(at_once).for_each(|d| receiver.receive(d.iter().copied()));
        let out = receiver.finish();
        prop_assert_eq!(&out.drops, &[]);
        prop_assert!(out.frames == frames);
    }

    #[test]
    fn whatever_is_lost_exactly_the_packets_whose_bytes_came_are_delivered(
        frames in frames(), foreseen in foreseen(), datagram in datagram(), at_once in 1usize..100,
        loss in 0.0f64..0.6, seed: u64,
    ) {
        let (mut lane, opener) = direction(9);
        let trains = pack(&frames, datagram, foreseen, &mut lane);
        let count = trains.iter().flatten().count();
        let lost: BTreeSet<_> = noise(seed, count).iter().enumerate()
            .filter(|(_, b)| f64::from(**b) < loss * 256.0).map(|(i, _)| i).collect();
        let mut receiver = Receiver::new(opener);
        let arrived: Vec<_> = trains.iter().flatten().enumerate()
            .filter(|(i, _)| !lost.contains(i)).map(|(_, d)| d).collect();
        arrived.chunks(at_once).for_each(|d| receiver.receive(d.iter().copied()));
        let out = receiver.finish();
        let got = out.frames.iter().flat_map(packets).collect();
        prop_assert!(sorted(got) == sorted(expected(&frames, &trains, &lost)));
    }

    #[test]
    fn datagrams_that_overtake_one_another_a_little_cost_nothing(
        frames in frames(), foreseen in foreseen(), datagram in datagram(), at_once in 1usize..100, seed: u64,
    ) {
        let (mut lane, opener) = direction(9);
        let trains = pack(&frames, datagram, foreseen, &mut lane);
        let mut datagrams: Vec<_> = trains.iter().flatten().collect();
        let span = REORDER.min(MAX_PER_SESSION as u64) as usize / 2;
        let order = noise(seed, datagrams.len());
        for (window, order) in datagrams.chunks_mut(span).zip(order.chunks(span)) {
            for (i, &b) in order.iter().enumerate() {
                window.swap(i, usize::from(b) % window.len());
            }
        }
        let mut receiver = Receiver::new(opener);
        datagrams.chunks(at_once).for_each(|d| receiver.receive(d.iter().copied()));
        let out = receiver.finish();
        prop_assert_eq!(&out.drops, &[]);
        prop_assert!(sorted(out.frames.iter().flat_map(packets).collect())
            == sorted(frames.iter().flat_map(packets).collect()));
    }

    #[test]
    fn records_of_any_kind_are_survived(
        plaintexts in prop::collection::vec((prop::collection::vec(hostile(), 0..12), any::<u16>()), 1..40),
    ) {
        let (mut reassembly, mut out) = (Reassembly::default(), Collected::default());
        let now = Instant::now();
        for (i, (records, session)) in plaintexts.iter().enumerate() {
            let plaintext: Vec<u8> = records.iter()
                .flat_map(|(r, body)| [&r.encode(body.len() as u16)[..], body].concat()).collect();
            let session = u32::from(session % 5);
            let origin = Origin { session, lane: 0, seq: i as u64, buffer: 3, start: 0, now };
            unpack(&mut reassembly, origin, &plaintext, &OneBuffer(&plaintext), &mut out);
            reassembly.keep(&OneBuffer(&plaintext));
            prop_assert!(reassembly.len() <= super::reassembly::MAX_FRAMES);
        }
        expire(&mut reassembly, now + PATIENCE, &mut out);
        prop_assert!(reassembly.is_empty() && reassembly.memory() < 4 << 20);
    }
}

/// Parts of few frames, so that they meet and contradict one another.
fn hostile() -> impl Strategy<Value = (Record, Vec<u8>)> {
    let nic = (0u16..2).prop_map(NicId);
    let gso = prop_oneof![Just(None), (1u16..600).prop_map(|n| Some(Gso::Tcp(n)))];
    let record = prop_oneof![
        (nic.clone(), 0u16..4, 0u32..3000, gso).prop_map(|(nic, frame, total, gso)| Record::First {
            nic,
            frame,
            total,
            offload: Offload { needs_checksum: gso.is_some(), gso }
        }),
        (nic, 0u16..4, 0u32..3000).prop_map(|(nic, frame, offset)| Record::Next { nic, frame, offset }),
        Just(Record::Next { nic: NicId(1), frame: 3, offset: (1 << 24) - 1 }),
    ];
    let tcp = sample::tcp_frame(false, 1000);
    (record, 0usize..1000).prop_map(move |(r, n)| (r, tcp[..n].to_vec()))
}

#[test]
fn a_duplicate_is_harmless_and_a_contradiction_costs_its_frame() {
    let first = |total| Record::First { nic: NicId(0), frame: 1, total, offload: Offload::default() };
    let next = |offset| Record::Next { nic: NicId(0), frame: 1, offset };
    let run = |records: &[(Record, Vec<u8>)]| {
        let (mut reassembly, mut out) = (Reassembly::default(), Collected::default());
        for (seq, (record, body)) in records.iter().enumerate() {
            let plaintext = [&record.encode(body.len() as u16)[..], body].concat();
            let (seq, now) = (seq as u64, Instant::now());
            let origin = Origin { session: 1, lane: 0, seq, buffer: 3, start: 0, now };
            unpack(&mut reassembly, origin, &plaintext, &OneBuffer(&plaintext), &mut out);
            reassembly.keep(&OneBuffer(&plaintext));
        }
        (out.frames.len(), out.drops)
    };
    let (a, b) = (vec![1; 200], vec![2; 100]);
    let conflict = vec![DropReason::PartConflict];
    let twice = [(first(300), a.clone()), (first(300), a.clone()), (next(200), b.clone())];
    assert_eq!(run(&twice), (1, vec![]));
    assert_eq!(run(&[(next(200), b.clone()), (first(300), a.clone())]), (1, vec![]));
    assert_eq!(run(&[(first(300), a.clone()), (next(150), b.clone())]), (0, conflict.clone()));
    assert_eq!(run(&[(first(300), a.clone()), (next(201), b.clone())]), (0, conflict.clone()));
    assert_eq!(run(&[(first(300), vec![1; 191])]), (0, conflict.clone()));
    assert_eq!(run(&[(first(300), a.clone()), (first(301), a)]), (0, conflict.clone()));
    assert_eq!(run(&[(first(MAX_FRAME as u32 + 1), vec![1; 200])]), (0, conflict));
}

#[test]
fn packets_that_begin_and_end_with_their_parts_are_saved() {
    let frame = sample::tcp_frame(false, 10_000);
    let offload = Offload { needs_checksum: true, gso: Some(Gso::Tcp(1000)) };
    let headers = frame.len() - 10_000;
    let first = Record::First { nic: NicId(0), frame: 1, total: frame.len() as u32, offload };
    let next = |at| Record::Next { nic: NicId(0), frame: 1, offset: at as u32 };
    let parts = [(first, 0..headers + 2000), (next(headers + 3000), headers + 3000..frame.len())];
    let (mut reassembly, mut out) = (Reassembly::default(), Collected::default());
    let now = Instant::now();
    for (record, range) in parts {
        let body = &frame[range];
        let plaintext = [&record.encode(body.len() as u16)[..], body].concat();
        let origin = Origin { session: 1, lane: 0, seq: 0, buffer: 3, start: 0, now };
        unpack(&mut reassembly, origin, &plaintext, &OneBuffer(&plaintext), &mut out);
        reassembly.keep(&OneBuffer(&plaintext));
    }
    expire(&mut reassembly, now + PATIENCE, &mut out);
    let payloads: Vec<_> = out.frames.iter().map(|(_, _, f)| f.len() - headers).collect();
    assert_eq!(payloads, [2000, 7000]);
    let got: Vec<_> = out.frames.iter().flat_map(packets).collect();
    let mut want = packets(&(NicId(0), offload, frame));
    want.remove(2);
    assert!(got == want);
}

#[test]
fn nothing_of_an_earlier_frame_is_left_in_the_padding() {
    let (mut lane, opener) = direction(9);
    let mut batch = Batch::new();
    batch.start(512);
    batch.read(&mut [], 4000, |places| Ok(scatter(&[0xee; 4000], places))).unwrap();
    // The frame is refused; the next leaves too little room for a third in its datagram.
    let total = batch.read(&mut [], 300, |places| Ok(scatter(&[1; 300], places))).unwrap();
    batch.pack(NicId(0), Offload::default(), total);
    assert!(batch.open());
    let total = batch.read(&mut [], 10, |places| Ok(scatter(&[2; 10], places))).unwrap();
    batch.pack(NicId(0), Offload::default(), total);
    let (train, segment) = batch.seal(&mut lane).unwrap();
    assert_eq!((segment, train.len()), (512, 512 + DATA_HEADER_LEN + HEADER_LEN + 10 + 16));
    let mut train = train.to_vec();
    let opened = opener.open(&mut train[..512]).unwrap();
    assert!(opened.plaintext[HEADER_LEN + 300..].iter().all(|&b| b == 0));
}
