//! So many bytes, in TCP writes and trains of datagrams of every size, over every kind of stage.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tap_rs::types::Path;

use crate::common::lab::{Edit, Lab, NIC_READY, PORT, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::relay::{Faults, Relay};
use crate::common::traffic::uninterrupted;
use crate::counters::kernel_errors;
use crate::noise::{Dice, NOISE, compare, noise};

/// A clean path takes this many times as much as a bad one, which is slow.
const CLEAN_SHARE: u64 = 15;

const FAULTS: Faults = Faults { lost: 1, repeated: 1, reordered: 3, spoiled: 1 };

/// Nothing stands still for longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries so much over each stage.
pub fn run(gigabytes: f64, dice: &mut Dice) {
    let (start, mut total) = (Instant::now(), 0);
    for plan in plans() {
        let parts = if plan.bad_path { 1.0 } else { CLEAN_SHARE as f64 };
        let bytes = (gigabytes * 1e9 * parts / (8 * (CLEAN_SHARE + 1)) as f64) as u64;
        let (took, carried) = (Instant::now(), soak(&plan, bytes, dice));
        total += carried;
        println!("soak: {plan:?}: {:.3} GB in {:.1} s", carried as f64 * 1e-9, took.elapsed().as_secs_f64());
    }
    println!(
        "soak: {:.2} GB in {:.0} s, every byte compared",
        total as f64 * 1e-9,
        start.elapsed().as_secs_f64()
    );
}

#[derive(Debug)]
struct Plan {
    suite: &'static str,
    mode: &'static str,
    offload: &'static str,
    bad_path: bool,
}

fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for suite in ["aes", "chacha"] {
        for mode in ["macvtap", "tap"] {
            for offload in ["auto", "off"] {
                plans.extend([false, true].map(|bad_path| Plan { suite, mode, offload, bad_path }));
            }
        }
    }
    plans
}

/// Carries about so many bytes under this plan, and returns how many were compared.
fn soak(plan: &Plan, bytes: u64, dice: &mut Dice) -> u64 {
    let lab = if plan.bad_path { Lab::plan().router().no_udp_offload().build() } else { Lab::new() };
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    if plan.offload == "off" {
        for (ns, link) in [(&site.lan, "eth0"), (&site.client, "lan0")] {
            ns.exec(&["ethtool", "-K", link, "tx", "off", "rx", "off"]);
        }
    }
    let relay = plan.bad_path.then(|| {
        let front: SocketAddr = ([172, 30, 0, 1], PORT).into();
        let router = site.router.as_ref().unwrap();
        (Relay::start(router, front, site.server_addr, Faults::default()), front)
    });
    let offload = format!("offload = \"{}\"\n", plan.offload);
    let top = format!("suite = \"{}\"\n{offload}", plan.suite);
    let server_addr = relay.as_ref().map(|(_, front)| front.to_string());
    let _server = lab.start_server(&Edit { top: offload, ..Edit::default() });
    let mode = (plan.mode == "tap").then_some("tap");
    let client = lab.start_client(0, &Edit { top, mode, server_addr, ..Edit::default() });
    client.wait_for_log(&[SESSION], SOON);
    client.wait_for_log(&[NIC_READY, &nic.on_client], SOON);
    if plan.mode == "tap" {
        site.client.ip("link add br0 type bridge");
        for link in ["lan0", nic.on_client.as_str(), "br0"] {
            site.client.ip(&format!("link set {link} up{}", if link == "br0" { "" } else { " master br0" }));
        }
    }
    for address in [nic.ip, nic.ip6] {
        site.lan.ping(address);
    }
    let before = [kernel_errors(&site.lan), kernel_errors(&lab.server)];
    if let Some((relay, _)) = &relay {
        relay.set(FAULTS);
    }
    let carried = AtomicU64::new(0);
    let (lan, server) = (&site.lan, &lab.server);
    let lan6: IpAddr = "fd00:80::2".parse().unwrap();
    let ways =
        [(lan, server, nic.ip), (lan, server, nic.ip6), (server, lan, site.host()), (server, lan, lan6)];
    std::thread::scope(|scope| {
        let carried = &carried;
        for (from, to, ip) in ways {
            let (mut tcp_dice, udp_dice) = (dice.fork(), dice.fork());
            scope.spawn(move || {
                while carried.load(Relaxed) < bytes {
                    tcp(from, to, ip, &mut tcp_dice, carried);
                }
            });
            if ip.is_ipv4() {
                scope.spawn(move || udp(from, to, ip, udp_dice, carried, bytes));
            }
        }
    });
    let after = [kernel_errors(&site.lan), kernel_errors(&lab.server)];
    assert_eq!(after, before, "{plan:?}: a kernel has seen bad checksums or headers");
    carried.into_inner()
}

/// One connection, its bytes a slice of the noise that the seed tells.
fn tcp(from: &Ns, to: &Ns, ip: IpAddr, dice: &mut Dice, carried: &AtomicU64) {
    let listener = to.inside(|| TcpListener::bind((ip, 0)).unwrap());
    let there = listener.local_addr().unwrap();
    let mut here = from.inside(|| TcpStream::connect_timeout(&there, PATIENCE)).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    here.set_nodelay(dice.below(2) == 0).unwrap();
    here.set_write_timeout(Some(PATIENCE)).unwrap();
    accepted.set_read_timeout(Some(PATIENCE)).unwrap();
    let total = [1_000, 100_000, 3_000_000][dice.below(3)] + dice.below(1_000_000);
    let (offset, mut sizes) = (dice.below(NOISE.len()), dice.fork());
    let largest = [100, 1_448, 20_000, 300_000][dice.below(4)];
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sent = 0;
            while sent < total {
                let part = noise(offset + sent);
                let len = part.len().min(total - sent).min(1 + sizes.below(largest));
                here.write_all(&part[..len]).unwrap();
                sent += len;
            }
        });
        let (mut got, mut buffer) = (0, vec![0; 256 << 10]);
        loop {
            let len = uninterrupted(|| accepted.read(&mut buffer)).unwrap();
            if len == 0 {
                break;
            }
            compare(offset + got, &buffer[..len]);
            got += len;
            carried.fetch_add(len as u64, Relaxed);
        }
        assert_eq!(got, total, "the connection ended early");
    });
}

/// Trains of datagrams, one after the other. What does not arrive is a loss; what arrives is as it was sent.
fn udp(from: &Ns, to: &Ns, ip: IpAddr, mut dice: Dice, carried: &AtomicU64, bytes: u64) {
    let there = to.inside(|| UdpSocket::bind((ip, 0)).unwrap());
    let any: SocketAddr = ([0, 0, 0, 0], 0).into();
    let here = from.inside(|| tap_rs::sys::udp::UdpSocket::bind(any, false).unwrap());
    let path = Path::new(there.local_addr().unwrap(), None);
    there.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut room = vec![0; 65_536];
    while carried.load(Relaxed) < bytes {
        // One datagram of up to 8 fragments, or a train that the kernel cuts.
        let (size, count) = match dice.below(4) {
            0 => (16 + dice.below(8_000), 1),
            _ => (16 + dice.below(1_457), 1 + dice.below(40)),
        };
        let offset = dice.below(NOISE.len() - 65_536);
        let mut train = Vec::with_capacity(size * count);
        for n in 0..count {
            let len = if n + 1 == count { 16 + dice.below(size - 15) } else { size };
            train.extend((offset as u64).to_le_bytes());
            train.extend((len as u64).to_le_bytes());
            train.extend(&NOISE[offset..offset + len - 16]);
        }
        if here.send_segments(&path, &train, size).is_err() {
            continue;
        }
        for _ in 0..count {
            let Ok(len) = there.recv(&mut room) else { break };
            let (head, body) = room[..len].split_at(16);
            let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap()) as usize;
            assert_eq!(word(8), len, "a datagram of another length than it was sent with");
            assert!(body == &NOISE[word(0)..word(0) + len - 16], "a datagram arrived with wrong bytes");
            carried.fetch_add(len as u64, Relaxed);
        }
    }
}
