//! What strangers send: garbage ends in the kernel, handshakes at the door, and no worker is woken for either.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::Value;
use tap_rs::keys::PublicKey;
use tap_rs::proto::cookie::ServerName;
use tap_rs::sys::udp::UdpSocket as Trains;
use tap_rs::types::{Path, Suite};
use tap_rs::wire::datagram::{COOKIE_DATAGRAM_LEN, Cookie, HELLO_LEN, Hello};

use crate::common::lab::{Edit, Lab, SESSION, SOON};
use crate::common::program::Program;
use crate::common::traces::until;
use crate::common::traffic::{tcp, udp_echo};
use crate::needs_root;
use crate::status::status;

fn told(lab: &Lab, server: &Program) -> Value {
    status(lab, server, |_| true)
}

fn dropped(told: &Value, reason: &str) -> u64 {
    told["plane"]["drops"][reason].as_u64().unwrap_or(0)
}

/// Datagrams that came to the workers.
fn received(told: &Value) -> u64 {
    let workers = told["plane"]["by_worker"].as_array().unwrap();
    workers.iter().map(|w| w["received"]["datagrams"].as_u64().unwrap()).sum()
}

fn lab_over(ipv6: bool) -> Lab {
    let plan = if ipv6 { Lab::plan().ipv6_underlay() } else { Lab::plan() };
    plan.build()
}

fn stranger(lab: &Lab) -> UdpSocket {
    let site = &lab.sites[0];
    let any: IpAddr = if site.server_addr.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = site.client.inside(|| UdpSocket::bind((any, 0)).unwrap());
    socket.connect(site.server_addr).unwrap();
    socket
}

/// Looks like each type in turn, and is as long as that may be; the rest of it is anything.
fn garbage(n: u32) -> Vec<u8> {
    let len = [40, 52, 52, 136, 92, 32 + n as usize % 1000][n as usize % 6];
    let mut noise = n.wrapping_mul(2_654_435_761).max(1);
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        noise as u8
    })
    .take(len)
    .collect();
    bytes[..4].copy_from_slice(&[(n % 6) as u8, 1, 1, 0]);
    bytes
}

const FLOOD: u32 = 100_000;

#[test]
fn garbage_reaches_no_worker_and_is_counted_where_the_kernel_drops_it() {
    needs_root!();
    for (ipv6, workers) in [(false, 1), (true, 2)] {
        let lab = lab_over(ipv6);
        let edit = Edit { top: format!("workers = {workers}\n"), ..Edit::default() };
        let (server, client) = lab.up(&edit, &Edit::default());
        let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
        udp_echo(&site.lan, &lab.server, nic.ip, 1000);
        let before = told(&lab, &server);
        assert_eq!(dropped(&before, "unwanted"), 0, "all that the client has said was let in");
        let socket = stranger(&lab);
        // INITs have no byte that can be known without a key.
        let sent = (0..FLOOD).filter(|n| n % 6 != 3 && socket.send(&garbage(*n)).is_ok()).count() as u64;
        let after = status(&lab, &server, |v| dropped(v, "unwanted") >= sent - sent / 100);
        let came = received(&after) - received(&before);
        assert!(came < 1000, "{came} of {sent} datagrams came to a worker");
        assert!(dropped(&after, "unwanted") <= sent, "{after:#}");
        tcp(&site.lan, &lab.server, nic.ip, 500_000, 500_000);
        assert_eq!(client.count(&[SESSION]), 1);
    }
}

#[test]
fn trains_of_garbage_are_dropped_and_those_of_a_client_that_moves_come_in() {
    needs_root!();
    let lab = Lab::new();
    let (server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    tcp(&site.lan, &lab.server, nic.ip, 500_000, 500_000);
    let before = told(&lab, &server);
    let trains = site.client.inside(|| Trains::bind("0.0.0.0:0".parse().unwrap(), false).unwrap());
    let to = Path::new(site.server_addr, None);
    for n in 0..1000u32 {
        trains.send_segments(&to, &garbage(n * 6 + 5)[..32].repeat(40), 32).unwrap();
    }
    let after = status(&lab, &server, |v| dropped(v, "unwanted") >= 990);
    let came = received(&after) - received(&before);
    assert!(came < 1000, "{came} of 40,000 datagrams came to a worker");
    // The client sends in trains while it moves; until the server has followed, they come where strangers come.
    site.client.sysctl("net.ipv4.conf.all.promote_secondaries", 1);
    std::thread::scope(|scope| {
        let bulk = scope.spawn(|| tcp(&site.lan, &lab.server, nic.ip, 200_000_000, 1_000_000));
        site.client.ip("addr add 172.31.0.3/24 dev wan0");
        site.client.ip("addr del 172.31.0.2/24 dev wan0");
        server.wait_for_log(&["client moved", "172.31.0.3"], SOON);
        bulk.join().unwrap();
    });
    let (moved, unwanted) = (told(&lab, &server), dropped(&after, "unwanted"));
    assert_eq!(dropped(&moved, "unwanted"), unwanted, "{moved:#}");
    assert_eq!(client.count(&[SESSION]), 1, "the session goes on");
}

fn hello(name: &ServerName, n: u32) -> [u8; HELLO_LEN] {
    let hello = Hello { suite: Suite::Aes, sender_index: n, nonce: [n as u8; 16] };
    hello.encode(|signed| name.hello_mac(signed))
}

/// Sends these HELLOs, a few at a time, and waits for the answer to each; false once one has none in time. Answers to any
/// sent before are none of these.
fn answered(socket: &UdpSocket, name: &ServerName, indices: Range<u32>, patience: Duration) -> bool {
    let mut some = indices.step_by(20).map(|first| first..first + 20);
    some.all(|some| {
        some.clone().for_each(|n| assert_eq!(socket.send(&hello(name, n)).unwrap(), HELLO_LEN));
        let (mut missing, end): (BTreeSet<u32>, _) = (some.collect(), Instant::now() + patience);
        while !missing.is_empty() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(left)).unwrap();
            let mut answer = [0; COOKIE_DATAGRAM_LEN];
            if socket.recv(&mut answer).is_ok_and(|len| len == answer.len()) {
                missing.remove(&Cookie::decode(&answer).unwrap().receiver_index);
            }
        }
        missing.is_empty()
    })
}

#[test]
fn handshakes_of_strangers_wake_no_worker_and_are_answered() {
    needs_root!();
    for (ipv6, workers) in [(false, 1), (true, 2)] {
        let lab = lab_over(ipv6);
        let server = lab.start_server(&Edit { top: format!("workers = {workers}\n"), ..Edit::default() });
        let name = ServerName::new(&lab.public_key("server").parse::<PublicKey>().unwrap()).unwrap();
        let socket = stranger(&lab);
        // A new link may lose the first. The door hears one after another, and counts before it answers: with the answer
        // to the last of them all are counted.
        let mut first = 1_000_000;
        until("the server answers", SOON, || {
            first += 20;
            answered(&socket, &name, first..first + 20, Duration::from_secs(1))
        });
        let before = told(&lab, &server);
        assert!(answered(&socket, &name, 0..2000, SOON), "{:#}", told(&lab, &server));
        let mut broken = hello(&name, 0);
        broken[HELLO_LEN - 1] ^= 1;
        socket.send(&broken).unwrap();
        let after = status(&lab, &server, |v| dropped(v, "bad_mac") > dropped(&before, "bad_mac"));
        assert_eq!(received(&after), received(&before), "datagrams came to a worker: {before:#} {after:#}");
        let all = |v: &Value| v["plane"]["received"]["datagrams"].as_u64().unwrap();
        assert_eq!(all(&after) - all(&before), 2001, "each is counted once: {before:#} {after:#}");
        // And a client gets in while they go on.
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                (0..20_000).for_each(|n| drop(socket.send(&hello(&name, n))));
            });
            let client = lab.start_client(0, &Edit::default());
            client.wait_for_log(&[SESSION], SOON);
            flood.join().unwrap();
            lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
        });
    }
}

#[test]
fn handshakes_that_come_faster_than_they_are_heard_are_lost_at_the_door_and_counted() {
    needs_root!();
    let lab = Lab::new();
    let (server, _client) = lab.up_plain();
    let (socket, before) = (stranger(&lab), server.rss_kb());
    // Nobody needs a key to send what looks like one.
    let init: Vec<u8> = [&[3, 1, 1, 0][..], &[7; 132]].concat();
    let mut sent = 0;
    until("some find the door's buffer full", SOON, || {
        sent += (0..100_000).filter(|_| socket.send(&init).is_ok()).count() as u64;
        dropped(&told(&lab, &server), "unwanted") > 0
    });
    let counted = |v: &Value| dropped(v, "unwanted") + dropped(v, "bad_mac");
    let after = status(&lab, &server, |v| counted(v) >= sent - sent / 100);
    assert!(counted(&after) <= sent, "{after:#}");
    assert!(dropped(&after, "bad_mac") > 0, "{after:#}");
    assert!(server.rss_kb().saturating_sub(before) < 1024);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
}
