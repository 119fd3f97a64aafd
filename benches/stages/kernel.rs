//! The stages that are system calls: read and write on a tap, send and recv on a socket, in a network namespace of
//! this process's own.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::process::Command;

use divan::Bencher;
use tap_rs::dataplane::batch::Batch;
use tap_rs::nic::netlink::Netlink;
use tap_rs::nic::{self, Nic, NicRequest, Queue, Side};
use tap_rs::sys::process;
use tap_rs::sys::udp::{RecvBatch, UdpSocket};
use tap_rs::types::{Mtu, NicMode, NicSpec, OffloadMode, Path, Suite};
use tap_rs::wire::vnet::VnetHeader;

use crate::common::{DATAGRAM, NIC, SIZES, Size, direction, frame, sealed};

/// Headers of a UDP frame over IPv4.
const UDP_HEADERS: usize = 14 + 20 + 8;

/// Goes into a new network namespace, without IPv6, whose own packets nobody asked for. False without root.
pub fn enter() -> bool {
    let able = process::is_root() && process::new_netns().is_ok();
    if able {
        let _ = fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        Netlink::open().unwrap().set_up("lo", true).unwrap();
    }
    able
}

fn unable() -> bool {
    !process::is_root()
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
}

/// The projected host's NIC, 10.9.0.2/24, and a neighbour on it who is not there.
struct Tap {
    queue: Queue,
    feed: UdpSocket,
    neighbour: Path,
    _nic: Nic,
}

impl Tap {
    fn new() -> Self {
        let addrs = vec!["10.9.0.2/24".parse().unwrap()];
        let spec = NicSpec { name: "tap0".parse().unwrap(), mac: NIC, addrs, mtu: Mtu::DEFAULT };
        let request = NicRequest {
            spec,
            mode: NicMode::Tap,
            parent: None,
            side: Side::Server,
            configure: true,
            offload: OffloadMode::Auto,
            stack: Default::default(),
        };
        let (mut nic, mut queues) = nic::open(&request, 1).unwrap();
        nic.set_up(true).unwrap();
        nic.set_carrier(true).unwrap();
        ip("neigh replace 10.9.0.9 lladdr 02:00:00:00:00:09 nud permanent dev tap0");
        let feed = UdpSocket::bind("10.9.0.2:0".parse().unwrap(), false).unwrap();
        let tap = Self {
            queue: queues.remove(0),
            feed,
            neighbour: Path::new("10.9.0.9:9".parse().unwrap(), None),
            _nic: nic,
        };
        while tap.read(&mut Batch::new(), 0).is_some() {}
        tap
    }

    /// Has the kernel put one frame into the queue.
    fn feed(&self, size: Size) {
        let (len, segment) = match size.is_super() {
            true => (size.0 - UDP_HEADERS, 1472),
            false => (size.0 - UDP_HEADERS, size.0),
        };
        self.feed.send_segments(&self.neighbour, &vec![7; len], segment).unwrap();
    }

    fn read(&self, batch: &mut Batch, expected: usize) -> Option<usize> {
        batch.start(DATAGRAM);
        let mut front = [0; VnetHeader::LEN];
        let read = |places: &mut [IoSliceMut<'_>]| self.queue.read_vectored(places);
        batch.read(&mut front, expected, read).ok()
    }
}

#[divan::bench(args = SIZES, sample_size = 16, sample_count = 300, ignore = unable())]
fn read(bencher: Bencher<'_, '_>, size: Size) {
    let (tap, mut batch) = (Tap::new(), Batch::new());
    bencher
        .with_inputs(|| {
            tap.feed(size);
            size.0
        })
        .bench_local_values(|expected| {
            assert_eq!(tap.read(&mut batch, expected), Some(VnetHeader::LEN + expected));
        });
}

/// To a MAC that the kernel does not take for its own: it ends in the driver.
#[divan::bench(args = SIZES, ignore = unable())]
fn write(bencher: Bencher<'_, '_>, size: Size) {
    let (tap, (mut frame, offload)) = (Tap::new(), frame(size));
    frame[5] ^= 0x11;
    let head = offload.to_vnet(&frame, frame.len()).unwrap().to_bytes();
    // As it lies in a train: one piece of each datagram.
    let pieces = frame.chunks(1420);
    let slices: Vec<_> = std::iter::once(&head[..]).chain(pieces).map(IoSlice::new).collect();
    bencher.bench_local(|| tap.queue.write_vectored(&slices).unwrap());
}

/// Into a cable whose other end throws away what is not for it.
#[divan::bench(args = SIZES, ignore = unable())]
fn send(bencher: Bencher<'_, '_>, size: Size) {
    ip("link add wan0 type veth peer name wan1");
    ip("addr add 10.8.0.1/24 dev wan0");
    ip("link set wan1 up");
    ip("link set wan0 up");
    ip("neigh replace 10.8.0.2 lladdr 02:00:00:00:00:02 nud permanent dev wan0");
    let socket = UdpSocket::bind("0.0.0.0:0".parse().unwrap(), false).unwrap();
    let path = Path::new("10.8.0.2:9".parse().unwrap(), None);
    let (train, segment) = sealed(size, &mut direction(Suite::Aes).0);
    bencher.bench_local(|| socket.send_segments(&path, &train, segment).unwrap());
    ip("link del wan0");
}

#[divan::bench(args = SIZES, sample_size = 8, sample_count = 300, ignore = unable())]
fn recv(bencher: Bencher<'_, '_>, size: Size) {
    let bind = || UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let (from, to, mut batch) = (bind(), bind(), RecvBatch::new(1));
    to.set_buffers(4 << 20, 4 << 20).unwrap();
    let there: SocketAddr = to.local_addr().unwrap();
    let path = Path::new(there, None);
    let (train, segment) = sealed(size, &mut direction(Suite::Aes).0);
    bencher
        .with_inputs(|| {
            from.send_segments(&path, &train, segment).unwrap();
            1
        })
        .bench_local_values(|n| assert_eq!(batch.recv(&to, 1).unwrap(), n));
}
