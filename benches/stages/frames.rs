//! The stages that are no system call: check, pack, seal, open, unpack.

use std::hint::black_box;
use std::time::Instant;

use divan::Bencher;
use tap_rs::types::Suite;

use crate::common::{
    Packer, SIZES, Size, Unpacker, contract, direction, frame, open_train, seal_train, sealed,
};

#[divan::bench(args = SIZES)]
fn check(bencher: Bencher<'_, '_>, size: Size) {
    let ((frame, offload), mut contract, now) = (frame(size), contract(), Instant::now());
    let head = &frame[..frame.len().min(1416)];
    bencher.bench_local(|| contract.lan_to_host(now, black_box(head), frame.len(), offload).unwrap());
}

#[divan::bench(args = SIZES)]
fn pack(bencher: Bencher<'_, '_>, size: Size) {
    let mut packer = Packer::new(size);
    bencher.bench_local(|| packer.pack());
}

#[divan::bench(args = SIZES)]
fn seal(bencher: Bencher<'_, '_>, size: Size) {
    bench_seal(bencher, size, Suite::Aes);
}

#[divan::bench(args = SIZES)]
fn seal_chacha(bencher: Bencher<'_, '_>, size: Size) {
    bench_seal(bencher, size, Suite::ChaCha);
}

fn bench_seal(bencher: Bencher<'_, '_>, size: Size, suite: Suite) {
    let (mut lane, _) = direction(suite);
    let (mut train, segment) = sealed(size, &mut lane);
    bencher.bench_local(|| seal_train(&mut lane, black_box(&mut train), segment));
}

#[divan::bench(args = SIZES, sample_size = 16, sample_count = 200)]
fn open(bencher: Bencher<'_, '_>, size: Size) {
    bench_open(bencher, size, Suite::Aes);
}

#[divan::bench(args = SIZES, sample_size = 16, sample_count = 200)]
fn open_chacha(bencher: Bencher<'_, '_>, size: Size) {
    bench_open(bencher, size, Suite::ChaCha);
}

fn bench_open(bencher: Bencher<'_, '_>, size: Size, suite: Suite) {
    let (mut lane, opener) = direction(suite);
    // What has been opened once is a replay.
    bencher
        .with_inputs(|| sealed(size, &mut lane))
        .bench_local_refs(|(train, segment)| open_train(&opener, train, *segment));
}

#[divan::bench(args = SIZES)]
fn unpack(bencher: Bencher<'_, '_>, size: Size) {
    let mut unpacker = Unpacker::new(size);
    bencher.bench_local(|| unpacker.unpack());
}
