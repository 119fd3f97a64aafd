//! Many bytes, every one of them compared: TCP in writes of every size and UDP in trains of every size, through the
//! program on real interfaces.
//!
//! ```text
//! cargo test --test soak                                        1 GB
//! cargo test --release --test soak -- --gigabytes 100           as much as you have time for
//! ```
//! The volume is shared out among: both suites; macvtap and a bridged tap on the LAN; offloads on, and off everywhere,
//! so that checksums are made and looked at in full; a clean underlay, and one that loses, reorders, repeats and
//! spoils datagrams. Meanwhile no kernel on the way may have seen a bad checksum or header. A harness of its own, for
//! the option; needs root.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::lab::{Edit, Lab, NIC_READY, PORT, SESSION, SOON};
use common::ns::Ns;
use common::relay::{Faults, Relay};
use tap_rs::types::Path;

/// A clean path takes this many times as much as a bad one, which is slow.
const CLEAN_SHARE: u64 = 15;

const FAULTS: Faults = Faults { lost: 1, repeated: 1, reordered: 3, spoiled: 1 };

/// Nothing stands still for longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let gigabytes = args.iter().position(|a| a == "--gigabytes").and_then(|i| args.get(i + 1));
    let filtered =
        gigabytes.is_none() && args.iter().any(|a| !a.starts_with('-') && !"soak".contains(a.as_str()));
    if filtered || args.iter().any(|a| a == "--list") || !common::can_make_namespaces() {
        return;
    }
    let gigabytes: f64 = gigabytes.map_or(1.0, |g| g.parse().expect("--gigabytes takes a number"));
    let (start, seed) = (Instant::now(), u64::from(std::process::id()));
    println!("soak: {gigabytes} GB, seed {seed}");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
    let mut total = 0;
    for plan in plans() {
        let parts = if plan.bad_path { 1.0 } else { CLEAN_SHARE as f64 };
        let bytes = (gigabytes * 1e9 * parts / (8 * (CLEAN_SHARE + 1)) as f64) as u64;
        let (took, carried) = (Instant::now(), soak(&plan, bytes, &mut dice));
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
            let len = accepted.read(&mut buffer).unwrap();
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

static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    // An odd length, so that it meets every boundary.
    (0..125_000).flat_map(|_| dice.roll().to_le_bytes()).chain([0x5a]).collect()
});

/// The stream's bytes from `at` on, as many as lie together.
fn noise(at: usize) -> &'static [u8] {
    &NOISE[at % NOISE.len()..]
}

fn compare(mut at: usize, mut got: &[u8]) {
    while !got.is_empty() {
        let part = noise(at);
        let n = part.len().min(got.len());
        assert!(got[..n] == part[..n], "wrong bytes between {at} and {}", at + n);
        (at, got) = (at + n, &got[n..]);
    }
}

/// What a kernel has counted of packets that were not as they should be.
fn kernel_errors(ns: &Ns) -> Vec<(String, u64)> {
    // Not `/proc/net`, which is the namespace of the process's first thread.
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let (pairs, six) = ns.inside(|| ([read("snmp"), read("netstat")].concat(), read("snmp6")));
    let wanted = |name: &str| name.ends_with("CsumErrors") || name.ends_with("InHdrErrors");
    let mut found: Vec<(String, u64)> = Vec::new();
    let lines: Vec<&str> = pairs.lines().collect();
    for two in lines.chunks_exact(2) {
        let (names, values) = (two[0].split(' '), two[1].split(' '));
        let kind = names.clone().next().unwrap_or_default();
        let counters = names.zip(values).skip(1).filter(|(name, _)| wanted(name));
        found.extend(counters.map(|(name, value)| (format!("{kind}{name}"), value.parse().unwrap())));
    }
    let counters = six.lines().filter_map(|line| line.split_once(char::is_whitespace));
    found.extend(
        counters.filter(|(name, _)| wanted(name)).map(|(n, v)| (n.to_owned(), v.trim().parse().unwrap())),
    );
    assert!(found.len() > 5, "the kernel's counters are not where they were: {found:?}");
    found
}

/// Numbers that look random (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.roll() >> 16) % n as u64) as usize
    }

    fn fork(&mut self) -> Self {
        Self(self.roll() | 1)
    }
}
