//! New keys under way: however often, no frame is lost.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::common::lab::{Edit, Lab, SOON};
use crate::common::ns::Ns;
use crate::needs_root;

/// Datagrams under way at a time: fewer than any queue on the way holds.
const WINDOW: u64 = 32;

/// Sends numbered datagrams as fast as they come back, until told to stop. Returns how many there were. Panics if
/// one does not come back.
fn echo_without_loss(client: &Ns, server: &Ns, ip: IpAddr, stop: &AtomicBool) -> u64 {
    let there = server.inside(|| UdpSocket::bind((ip, 0)).unwrap());
    let here = client.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    here.connect(there.local_addr().unwrap()).unwrap();
    there.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    here.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
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
        let (mut sent, mut back) = (0u64, 0u64);
        let mut buffer = [0; 2048];
        while back < sent || !stop.load(Relaxed) {
            while sent < back + WINDOW && !stop.load(Relaxed) {
                let mut datagram = vec![0x5a; 8 + usize::try_from(sent % 1400).unwrap()];
                datagram[..8].copy_from_slice(&sent.to_le_bytes());
                here.send(&datagram).unwrap();
                sent += 1;
            }
            let got = here.recv(&mut buffer);
            done.store(got.is_err(), Relaxed);
            let len = got.unwrap_or_else(|e| panic!("datagram {back} of {sent} did not come back: {e}"));
            assert_eq!(len, 8 + usize::try_from(back % 1400).unwrap());
            assert_eq!(buffer[..8], back.to_le_bytes(), "out of order");
            back += 1;
        }
        done.store(true, Relaxed);
        back
    })
}

#[test]
fn a_thousand_new_sessions_under_load_lose_no_frame() {
    needs_root!();
    let lab = Lab::new();
    let quiet = Edit { top: "log = \"debug\"".into(), ..Edit::default() };
    let (_server, client) = lab.up(&Edit::default(), &quiet);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    let stop = AtomicBool::new(false);
    let echoed = std::thread::scope(|scope| {
        let load = scope.spawn(|| echo_without_loss(&site.lan, &lab.server, nic.ip, &stop));
        for n in 1..=1000 {
            client.rekey();
            if load.is_finished() {
                break;
            }
            client.wait_for_nth(&["session renewed"], n, SOON);
        }
        stop.store(true, Relaxed);
        load.join().unwrap()
    });
    assert!(echoed > 10_000, "{echoed} datagrams crossed");
}
