//! The least that a tunnel in user space does: a read, a send, a receive, a write. No encryption, no checks, no
//! headers, nothing joined or packed, and no frame survives a lost datagram.
//!
//! What it reaches on a machine is what the kernel's interfaces leave to any tunnel there, so that `benches/peers.py`
//! can say how much of that tap-rs uses. Not for any other use: it hands offload metadata on as it came.
//!
//! ```text
//! relay client|server NIC PARENT MAC ADDRESS/PREFIX LOCAL:PORT REMOTE:PORT
//! ```

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};

use tap_rs::nic::{self, NicRequest, Queue, Side};
use tap_rs::sys::poll::{Epoll, Events, Interest};
use tap_rs::sys::udp::{RecvBatch, UdpSocket};
use tap_rs::types::{Mtu, NicMode, NicSpec, NicStack, OffloadMode, Path};

/// UDP payload of a full datagram over a 1500-byte path with IPv4.
const DATAGRAM: usize = 1472;

/// Room for the largest frame behind its vnet header.
const ROOM: usize = 66_000;

fn main() {
    if let Err(e) = run() {
        eprintln!("relay: {e}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` and `cargo test --benches` start every benchmark.
    let [side, name, parent, mac, addr, local, remote] = words.as_slice() else {
        eprintln!("relay client|server NIC PARENT MAC ADDRESS/PREFIX LOCAL:PORT REMOTE:PORT");
        return Ok(());
    };
    let (side, mode) = match side.as_str() {
        "client" => (Side::Client, NicMode::Macvtap),
        "server" => (Side::Server, NicMode::Tap),
        _ => return Err("the first word is client or server".into()),
    };
    let spec =
        NicSpec { name: name.parse()?, mac: mac.parse()?, addrs: vec![addr.parse()?], mtu: Mtu::DEFAULT };
    let parent = (mode == NicMode::Macvtap).then(|| parent.parse()).transpose()?;
    let request = NicRequest {
        spec,
        mode,
        parent,
        side,
        configure: true,
        offload: OffloadMode::Auto,
        stack: NicStack::default(),
    };
    let (mut nic, queues) = nic::open(&request, 1)?;
    nic.set_up(true)?;
    let socket = UdpSocket::bind(local.parse()?, false)?;
    socket.set_buffers(4 << 20, 4 << 20)?;
    let queue = queues.first().ok_or("no queue")?;
    println!("nic ready");
    Ok(relay(queue, &socket, &Path::new(remote.parse()?, None))?)
}

fn relay(queue: &Queue, socket: &UdpSocket, path: &Path) -> io::Result<()> {
    let (epoll, mut events) = (Epoll::new()?, Events::with_capacity(2));
    epoll.add(queue, 0, Interest::READ)?;
    epoll.add(socket, 1, Interest::READ)?;
    let (mut frame, mut batch) = (vec![0; ROOM], RecvBatch::new(8));
    loop {
        epoll.wait(&mut events, None)?;
        for event in events.iter() {
            if event.token == 0 {
                up(queue, socket, path, &mut frame)?;
            } else {
                down(queue, socket, &mut batch)?;
            }
        }
    }
}

fn up(queue: &Queue, socket: &UdpSocket, path: &Path, frame: &mut [u8]) -> io::Result<()> {
    loop {
        match queue.read_vectored(&mut [IoSliceMut::new(frame)]) {
            // A train ends with a shorter datagram: one byte too many is no harm to a frame.
            Ok(n) => {
                let n = if n % DATAGRAM == 0 { n + 1 } else { n };
                // What is lost here is lost.
                let _ = socket.send_segments(path, &frame[..n], DATAGRAM);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

fn down(queue: &Queue, socket: &UdpSocket, batch: &mut RecvBatch) -> io::Result<()> {
    batch.recv(socket, 8)?;
    for train in batch.received() {
        // Small frames of one size may have been joined.
        let frame = if train.segment < DATAGRAM { train.segment } else { train.bytes.len() };
        for frame in train.bytes.chunks(frame) {
            let _ = queue.write_vectored(&[IoSlice::new(frame)]);
        }
    }
    Ok(())
}
