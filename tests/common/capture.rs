//! Everything that passes an interface, looked at while it passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tap_rs::sys::packet::{Packet, PacketSocket};

use super::frame::contains;
use super::ns::Ns;

pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Captured>>,
}

/// What a capture saw.
#[derive(Default)]
pub struct Captured {
    pub packets: Vec<Packet>,
    pub missed: u32,
}

impl Capture {
    pub fn on(ns: &Ns, interface: &str) -> Self {
        let socket = ns.packet_socket(interface);
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || collect(socket, &stopped));
        Self { stop, thread: Some(thread) }
    }

    /// Ends it and returns what it saw.
    pub fn finish(mut self) -> Captured {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn collect(mut socket: PacketSocket, stop: &AtomicBool) -> Captured {
    let mut seen = Captured::default();
    loop {
        match socket.recv(Duration::from_millis(20)) {
            Ok(Some(packet)) => seen.packets.push(packet),
            // What was on its way when the end was asked for has arrived by now.
            _ if stop.load(Relaxed) => break,
            _ => {}
        }
    }
    seen.missed = socket.missed().unwrap();
    seen
}

impl Captured {
    /// Not one packet with one of these in it, and enough packets for that to mean something.
    #[track_caller]
    pub fn assert_sealed(&self, markers: &[&[u8]], at_least: usize) {
        assert!(self.packets.len() >= at_least, "only {} packets were seen", self.packets.len());
        for marker in markers {
            let found = self.packets.iter().find(|p| contains(&p.bytes, marker));
            assert!(found.is_none(), "{:?} in {found:?}", String::from_utf8_lossy(marker));
        }
    }

    /// No packet longer than the link allows, and no fragment (RFC 791, RFC 8200) among them.
    #[track_caller]
    pub fn assert_whole(&self) {
        assert!(!self.packets.is_empty());
        for packet in &self.packets {
            assert!(packet.bytes.len() <= 1514, "a packet of {} bytes", packet.bytes.len());
            let fragment = match &packet.bytes[12..] {
                [8, 0, ip @ ..] => u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0,
                [0x86, 0xdd, ip @ ..] => ip[6] == 44,
                _ => false,
            };
            assert!(!fragment, "a fragment: {packet:?}");
        }
    }
}

/// The first frame within `patience` that `wanted` holds true for.
pub fn first(
    socket: &mut PacketSocket,
    patience: Duration,
    wanted: impl Fn(&Packet) -> bool,
) -> Option<Packet> {
    let end = std::time::Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return None;
        }
        if let Ok(Some(packet)) = socket.recv(left)
            && wanted(&packet)
        {
            return Some(packet);
        }
    }
}

/// Throws away what has arrived so far.
pub fn drain(socket: &mut PacketSocket) {
    while let Ok(Some(_)) = socket.recv(Duration::ZERO) {}
}
