//! Load between two namespaces, checked byte by byte.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tap_rs::sys::udp::set_buffers;

use super::ns::Ns;

/// What must not be seen on the underlay: it occurs in every 64 bytes of the payload.
pub const MARKER: &[u8] = b"tap-rs test payload ";

/// Bytes that no part of looks like another, but for the marker; its length is odd so that it meets every boundary.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::new();
    while bytes.len() < 1_000_000 {
        bytes.extend_from_slice(MARKER);
        for _ in 0..5 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
    }
    bytes.push(b'!');
    bytes
});

/// The pattern from `at` on, up to its end.
fn pattern(at: usize) -> &'static [u8] {
    &PATTERN[at % PATTERN.len()..]
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a connection from `client` to `ip` in `server` and sends `up` bytes that way, then `down` bytes back.
/// Panics if a byte is lost or wrong, or nothing moves for a while. Returns the time it took.
pub fn tcp(client: &Ns, server: &Ns, ip: IpAddr, up: usize, down: usize) -> Duration {
    let listener = server.inside(|| TcpListener::bind((ip, 0)).unwrap());
    let there = listener.local_addr().unwrap();
    let start = Instant::now();
    // The kernel takes the connection before it is accepted, so that a failure here leaves nobody waiting.
    let mut stream = client.inside(|| TcpStream::connect_timeout(&there, PATIENCE)).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    patient(&stream);
    patient(&accepted);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            expect(&mut accepted, up);
            send(&mut accepted, down);
        });
        send(&mut stream, up);
        expect(&mut stream, down);
    });
    start.elapsed()
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

fn send(stream: &mut TcpStream, total: usize) {
    let mut sent = 0;
    while sent < total {
        let part = pattern(sent);
        let part = &part[..part.len().min(total - sent).min(128 << 10)];
        stream.write_all(part).unwrap();
        sent += part.len();
    }
}

fn expect(stream: &mut TcpStream, total: usize) {
    let (mut got, mut buffer) = (0, vec![0; 128 << 10]);
    while got < total {
        let want = buffer.len().min(total - got);
        let len = uninterrupted(|| stream.read(&mut buffer[..want])).unwrap();
        assert!(len > 0, "the connection ended after {got} of {total} bytes");
        let mut checked = 0;
        while checked < len {
            let part = pattern(got + checked);
            let n = part.len().min(len - checked);
            assert!(buffer[checked..checked + n] == part[..n], "wrong bytes after {}", got + checked);
            checked += n;
        }
        got += len;
    }
}

/// Again, where a signal came between.
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A datagram of `len` bytes there and back. Panics if it does not come back unchanged.
#[track_caller]
pub fn udp_echo(client: &Ns, server: &Ns, ip: IpAddr, len: usize) {
    let there = server.inside(|| UdpSocket::bind((ip, 0)).unwrap());
    let any: SocketAddr = if ip.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let here = client.inside(|| UdpSocket::bind(any).unwrap());
    let mut buffer = vec![0; 65_536];
    here.connect(there.local_addr().unwrap()).unwrap();
    here.send(&pattern(0)[..len]).unwrap();
    for socket in [&there, &here] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let (got, from) = uninterrupted(|| there.recv_from(&mut buffer)).expect("the datagram did not arrive");
    assert!(buffer[..got] == pattern(0)[..len], "{got} bytes instead of {len}, or others");
    there.send_to(&buffer[..got], from).unwrap();
    let got = uninterrupted(|| here.recv(&mut buffer)).expect("the answer did not arrive");
    assert!(buffer[..got] == pattern(0)[..len], "{got} bytes instead of {len}, or others");
}

/// Sends `count` datagrams of many sizes up to `largest` bytes, some microseconds apart, and returns how many
/// arrived. Panics if one arrived that is not exactly as it was sent.
pub fn udp_storm(client: &Ns, server: &Ns, ip: IpAddr, count: usize, largest: usize) -> usize {
    let there = server.inside(|| UdpSocket::bind((ip, 0)).unwrap());
    there.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // What waits for a reader that has no processor is not lost by that.
    set_buffers(&there, 32 << 20, 1 << 20).unwrap();
    let here = client.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    here.connect(there.local_addr().unwrap()).unwrap();
    let size = |n: usize| 8 + n.wrapping_mul(2_654_435_761) % (largest - 8);
    let sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let (mut arrived, mut buffer) = (0, vec![0; 65_536]);
            // To the first silence that began when the last was sent.
            loop {
                let last = sent.load(Relaxed);
                let Ok(len) = uninterrupted(|| there.recv(&mut buffer)) else {
                    if last {
                        return arrived;
                    }
                    continue;
                };
                let (head, rest) = buffer[..len].split_first_chunk::<8>().expect("shorter than any sent");
                let n = usize::try_from(u64::from_le_bytes(*head)).unwrap();
                assert!(n < count && len == size(n), "{len} bytes with number {n} of {count}");
                assert!(rest == &pattern(n)[..rest.len()], "datagram {n} arrived with wrong bytes");
                arrived += 1;
            }
        });
        let end = SetAtEnd(&sent);
        for n in 0..count {
            let body = &pattern(n)[..size(n) - 8];
            let number = u64::try_from(n).unwrap().to_le_bytes();
            // A full queue is a loss like any other.
            let _ = here.send(&[&number[..], body].concat());
            std::thread::sleep(Duration::from_micros(300));
        }
        drop(end);
        receiver.join().unwrap()
    })
}

/// Datagrams under way at a time: fewer than any queue on the way holds.
const WINDOW: u64 = 32;

/// Sends numbered datagrams as fast as they come back, until told to stop and at least so many. Returns how many there
/// were. Panics if one does not come back.
pub fn echo_without_loss(client: &Ns, server: &Ns, ip: IpAddr, at_least: u64, stop: &AtomicBool) -> u64 {
    let there = server.inside(|| UdpSocket::bind((ip, 0)).unwrap());
    let here = client.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    here.connect(there.local_addr().unwrap()).unwrap();
    there.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    here.set_read_timeout(Some(PATIENCE)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while !done.load(Relaxed) {
                if let Ok((len, from)) = there.recv_from(&mut buffer) {
                    there.send_to(&buffer[..len], from).unwrap();
                }
            }
        });
        let _end = SetAtEnd(&done);
        let (mut sent, mut back) = (0u64, 0u64);
        let mut buffer = [0; 2048];
        let goes_on = |sent| sent < at_least || !stop.load(Relaxed);
        while back < sent || goes_on(sent) {
            while sent < back + WINDOW && goes_on(sent) {
                let mut datagram = vec![0x5a; 8 + usize::try_from(sent % 1400).unwrap()];
                datagram[..8].copy_from_slice(&sent.to_le_bytes());
                here.send(&datagram).unwrap();
                sent += 1;
            }
            let got = uninterrupted(|| here.recv(&mut buffer));
            done.store(got.is_err(), Relaxed);
            let len = got.unwrap_or_else(|e| panic!("datagram {back} of {sent} did not come back: {e}"));
            assert_eq!(len, 8 + usize::try_from(back % 1400).unwrap());
            assert_eq!(buffer[..8], back.to_le_bytes(), "out of order");
            back += 1;
        }
        back
    })
}

/// Sets a flag when it goes, also in a panic, so that nobody waits for ever.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
