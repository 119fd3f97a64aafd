//! What handshakes cost a server: the refusals, which anybody can cause, and the whole.

use std::hint::black_box;
use std::time::Instant;

use divan::Bencher;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tap_rs::keys::PrivateKey;
use tap_rs::proto::client::{Client, ClientParams};
use tap_rs::proto::cookie;
use tap_rs::proto::output::{Output, PeerId};
use tap_rs::proto::server::{ClientSpec, Server, ServerParams};
use tap_rs::types::{Path, Suite};

struct Pair {
    server: Server,
    now: Instant,
    clients: u64,
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::generate(&mut StdRng::seed_from_u64(seed.into()))
}

fn path() -> Path {
    Path::new("192.0.2.1:5000".parse().unwrap(), None)
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let params = ServerParams { identity: key(1), suites: Suite::ALL.to_vec(), instance: 7 };
        let mut server = Server::new(now, params, StdRng::seed_from_u64(1)).unwrap();
        server.add_client(
            now,
            PeerId(1),
            ClientSpec { keys: vec![key(2).public()], psk: None, invite: false },
        );
        Self { server, now, clients: 0 }
    }

    /// A client that has just begun, and its HELLO.
    fn hello(&mut self) -> (Client, Vec<u8>) {
        self.clients += 1;
        let params = ClientParams::new(key(2), key(1).public(), Suite::Aes, 3);
        let mut client = Client::new(self.now, params, StdRng::seed_from_u64(self.clients)).unwrap();
        client.handle_address(self.now, Path::new("192.0.2.2:7077".parse().unwrap(), None), 1472);
        client.handle_timeout(self.now);
        let hello = sent(std::iter::from_fn(|| client.poll_output()));
        (client, hello)
    }

    /// An INIT that no server has seen.
    fn init(&mut self) -> Vec<u8> {
        let (mut client, hello) = self.hello();
        let cookie = self.answer(&hello);
        client.handle_datagram(self.now, &cookie).unwrap();
        sent(std::iter::from_fn(|| client.poll_output()))
    }

    fn answer(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.server.handle_datagram(self.now, path(), bytes).unwrap();
        sent(std::iter::from_fn(|| self.server.poll_output()))
    }
}

fn sent(outputs: impl Iterator<Item = Output>) -> Vec<u8> {
    let sends = outputs.filter_map(|o| if let Output::Send { bytes, .. } = o { Some(bytes) } else { None });
    sends.last().expect("something is sent")
}

fn spoil(mut datagram: Vec<u8>) -> Vec<u8> {
    *datagram.last_mut().unwrap() ^= 1;
    datagram
}

#[divan::bench(sample_size = 64)]
fn hello_with_a_wrong_mac(bencher: Bencher<'_, '_>) {
    let mut pair = Pair::new();
    let bad = spoil(pair.hello().1);
    bencher.bench_local(|| pair.server.handle_datagram(pair.now, path(), black_box(&bad)).unwrap_err());
}

#[divan::bench(sample_size = 64)]
fn init_with_a_wrong_mac(bencher: Bencher<'_, '_>) {
    let mut pair = Pair::new();
    let bad = spoil(pair.init());
    bencher.bench_local(|| pair.server.handle_datagram(pair.now, path(), black_box(&bad)).unwrap_err());
}

#[divan::bench(sample_size = 64)]
fn hello_to_cookie(bencher: Bencher<'_, '_>) {
    let mut pair = Pair::new();
    let hello = pair.hello().1;
    bencher.bench_local(|| pair.answer(black_box(&hello)));
}

/// Message 1 read, message 2 written, the session's keys ready.
#[divan::bench]
fn init_to_session(bencher: Bencher<'_, '_>) {
    let pair = std::cell::RefCell::new(Pair::new());
    bencher
        .with_inputs(|| pair.borrow_mut().init())
        .bench_local_refs(|init| pair.borrow_mut().answer(black_box(init)));
}

#[divan::bench(sample_size = 64)]
fn blake2s_mac_of_132_bytes(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| cookie::mac(black_box(&[7; 16]), black_box(&[5; 132])));
}
