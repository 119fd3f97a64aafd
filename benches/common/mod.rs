//! The pure stages of the data path, one at a time, over frames made by hand.

// Each benchmark uses a part of this.
#![allow(dead_code)]

use std::fmt;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use tap_rs::dataplane::batch::Batch;
use tap_rs::dataplane::parts::Buffers;
use tap_rs::dataplane::reassembly::Reassembly;
use tap_rs::dataplane::unpack::{Frame, Origin, Sink, unpack};
use tap_rs::metrics::DropReason;
use tap_rs::policy::Contract;
use tap_rs::proto::activity::Activity;
use tap_rs::proto::session::{Keys, Lane, Opener, establish};
use tap_rs::types::{MacAddr, Mtu, NicId, NicRules, NicSpec, Suite};
use tap_rs::wire::datagram::DATA_HEADER_LEN;
use tap_rs::wire::record::{Gso, Offload};

/// Bytes of UDP payload of a full datagram, over an Ethernet and IPv4.
pub const DATAGRAM: usize = 1472;

pub const NIC: MacAddr = MacAddr([2, 0, 0, 0, 0x80, 0x64]);
pub const HOST: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

const HEADERS: usize = 14 + 20 + 20;
const SEGMENT: u16 = 1446;

/// Bytes of one frame, Ethernet header included.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

/// Small, middling and full frames, and a TCP super-frame of nearly the largest size that our interfaces hand over.
pub const SIZES: [Size; 4] = [Size(64), Size(256), Size(1400), Size(61_900)];

impl Size {
    pub fn is_super(self) -> bool {
        self.0 > 1514
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A TCP frame from the NIC's LAN to the NIC, 10.9.0.9 to 10.9.0.2.
pub fn frame(size: Size) -> (Vec<u8>, Offload) {
    let offload = match size.is_super() {
        true => Offload { needs_checksum: true, gso: Some(Gso::Tcp(SEGMENT)) },
        false => Offload::default(),
    };
    let mut frame = [&NIC.0[..], &HOST.0, &[8, 0]].concat();
    let len = u16::try_from(size.0 - 14).unwrap().to_be_bytes();
    frame.extend([0x45, 0, len[0], len[1], 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 9, 10, 9, 0, 2]);
    frame.extend([0x80, 1, 0x13, 0x89, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
    frame.extend((HEADERS..size.0).map(|i| (i * 31) as u8));
    assert_eq!(frame.len(), size.0);
    (frame, offload)
}

pub fn contract() -> Contract {
    let addrs = vec!["10.9.0.2/24".parse().unwrap()];
    let spec = NicSpec { name: "tap0".parse().unwrap(), mac: NIC, addrs, mtu: Mtu::DEFAULT };
    Contract::new(&spec, NicRules::default())
}

/// One direction of a session, sealing and opening.
pub fn direction(suite: Suite) -> (Lane, Arc<Opener>) {
    let keys = |send: u8, receive: u8, local_index, remote_index| Keys {
        suite,
        send: [send; 32].into(),
        receive: [receive; 32].into(),
        local_index,
        remote_index,
    };
    let activity = || Arc::new(Activity::new(Instant::now()));
    let (mut lanes, _) = establish(&keys(1, 2, 1, 9), activity()).unwrap();
    let (_, opener) = establish(&keys(2, 1, 9, 1), activity()).unwrap();
    (lanes.take().unwrap(), opener)
}

/// pack: frames of one size into batch after batch.
pub struct Packer {
    pub batch: Batch,
    offload: Offload,
    size: usize,
}

impl Packer {
    pub fn new(size: Size) -> Self {
        let mut batch = Batch::new();
        batch.start(DATAGRAM);
        Self { batch, offload: frame(size).1, size: size.0 }
    }

    /// One frame: places for a read, and the record headers round it. The read itself is nothing.
    #[inline]
    pub fn pack(&mut self) {
        self.pack_with(|_| ());
    }

    /// The same; `fill` does what the read would.
    #[inline]
    pub fn pack_with(&mut self, fill: impl FnOnce(&mut [IoSliceMut<'_>])) {
        if self.batch.capacity() < self.size || !self.batch.open() {
            self.batch.start(DATAGRAM);
            self.batch.open();
        }
        let read = |places: &mut [IoSliceMut<'_>]| {
            fill(places);
            Ok(self.size)
        };
        let total = self.batch.read(&mut [], self.size, read).unwrap();
        self.batch.pack(NicId(1), self.offload, total);
    }
}

/// A sealed train that carries one frame: its datagrams one after another, and the bytes of each but the last.
pub fn sealed(size: Size, lane: &mut Lane) -> (Vec<u8>, usize) {
    let (frame, _) = frame(size);
    let mut packer = Packer::new(size);
    packer.pack_with(|places| scatter(&frame, places));
    let (train, segment) = packer.batch.seal(lane).unwrap();
    (train.to_vec(), segment)
}

fn scatter(mut frame: &[u8], places: &mut [IoSliceMut<'_>]) {
    for place in places {
        let (here, rest) = frame.split_at(frame.len().min(place.len()));
        place[..here.len()].copy_from_slice(here);
        frame = rest;
    }
}

/// open: every datagram of a train, where it lies.
#[inline]
pub fn open_train(opener: &Opener, train: &mut [u8], segment: usize) -> usize {
    let datagrams = train.chunks_mut(segment);
    datagrams.map(|d| opener.open(d).map_or(0, |opened| opened.plaintext.len())).sum()
}

/// seal: every datagram of a train, where it lies.
#[inline]
pub fn seal_train(lane: &mut Lane, train: &mut [u8], segment: usize) {
    train.chunks_mut(segment).for_each(|d| lane.seal(d).unwrap());
}

/// unpack: one train, opened already, into the frame that it carries.
pub struct Unpacker {
    reassembly: Reassembly,
    train: Opened,
    segment: usize,
    sink: Counting,
    now: Instant,
}

struct Opened(Vec<u8>);

impl Buffers for Opened {
    fn buffer(&self, _: usize) -> &[u8] {
        &self.0
    }
}

#[derive(Default)]
struct Counting {
    frames: usize,
    bytes: usize,
    pieces: usize,
}

impl Sink for Counting {
    fn has(&self, _: u32, _: NicId) -> bool {
        true
    }

    fn frame<'a>(&mut self, _: Frame<'a>, pieces: impl Iterator<Item = &'a [u8]>) {
        self.frames += 1;
        for piece in pieces {
            self.pieces += 1;
            self.bytes += piece.len();
        }
    }

    fn control(&mut self, _: u32, _: &[u8]) {
        unreachable!("no control record was sent");
    }

    fn drop(&mut self, _: u32, reason: DropReason) {
        panic!("{reason:?}");
    }
}

impl Unpacker {
    pub fn new(size: Size) -> Self {
        let (mut lane, opener) = direction(Suite::Aes);
        let (mut train, segment) = sealed(size, &mut lane);
        open_train(&opener, &mut train, segment);
        let (reassembly, sink, now) = (Reassembly::default(), Counting::default(), Instant::now());
        Self { reassembly, train: Opened(train), segment, sink, now }
    }

    /// How many bytes of frames came out.
    #[inline]
    pub fn unpack(&mut self) -> usize {
        let (mut start, mut seq) = (0, 0);
        for datagram in self.train.0.chunks(self.segment) {
            let plaintext = &datagram[DATA_HEADER_LEN..datagram.len() - tap_rs::proto::session::TAG_LEN];
            let origin =
                Origin { session: 9, lane: 0, seq, buffer: 0, start: start + DATA_HEADER_LEN, now: self.now };
            unpack(&mut self.reassembly, origin, plaintext, &self.train, &mut self.sink);
            start += datagram.len();
            seq += 1;
        }
        self.sink.bytes
    }
}
