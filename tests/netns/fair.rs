//! One client at full speed takes no more than its share.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::common::lab::{Edit, Lab, NIC_READY, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::traces::until;
use crate::common::traffic::{tcp, udp_storm};
use crate::needs_root;

/// Full datagrams as fast as they can be sent, to a socket that nobody reads.
fn flood(from: &Ns, to: &Ns, address: IpAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let there = to.inside(|| UdpSocket::bind((address, 0)).unwrap());
    let here = from.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    here.connect(there.local_addr().unwrap()).unwrap();
    while !stop.load(Relaxed) {
        sent.fetch_add(u64::from(here.send(&[0x5a; 1472]).is_ok()), Relaxed);
    }
}

/// The addresses of those whom the host hears on a socket of their own (`/proc/net/udp`, state ESTABLISHED).
pub fn heard_apart(host: &Ns) -> Vec<Ipv4Addr> {
    let table = host.exec(&["cat", "/proc/net/udp"]);
    let connected = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let connected = connected.filter(|columns| columns.get(3) == Some(&"01"));
    let mut addresses: Vec<_> = connected
        .map(|columns| {
            let (ip, _port) = columns[2].split_once(':').unwrap();
            Ipv4Addr::from(u32::from_str_radix(ip, 16).unwrap().to_ne_bytes())
        })
        .collect();
    addresses.sort_unstable();
    addresses
}

#[test]
fn each_client_is_heard_on_a_socket_of_its_own_wherever_it_moves() {
    needs_root!();
    let lab = Lab::plan().sites(2).build();
    let server = lab.start_server(&Edit::default());
    assert!(heard_apart(&lab.server).is_empty());
    let mut clients: Vec<_> = (0..2).map(|site| lab.start_client(site, &Edit::default())).collect();
    clients.iter().for_each(|client| drop(client.wait_for_log(&[NIC_READY], SOON)));
    let of = |site: u8, host: u8| Ipv4Addr::new(172, 31, site, host);
    until("each client is heard apart", SOON, || heard_apart(&lab.server) == [of(0, 2), of(1, 2)]);
    let site = &lab.sites[0];
    site.client.sysctl("net.ipv4.conf.all.promote_secondaries", 1);
    site.client.ip("addr add 172.31.0.3/24 dev wan0");
    site.client.ip("addr del 172.31.0.2/24 dev wan0");
    site.lan.ping(site.nics[0].ip);
    until("the socket has followed", SOON, || heard_apart(&lab.server) == [of(0, 3), of(1, 2)]);
    drop(clients.pop());
    drop(server);
    assert!(heard_apart(&lab.server).is_empty());
}

#[test]
fn a_modest_clients_frames_cross_while_another_floods_both_ways() {
    needs_root!();
    let lab = Lab::plan().sites(2).build();
    let _server = lab.start_server(&Edit::default());
    let _clients: Vec<_> = (0..2)
        .map(|site| {
            let client = lab.start_client(site, &Edit::default());
            client.wait_for_log(&[SESSION], SOON);
            client.wait_for_log(&[NIC_READY], SOON);
            client
        })
        .collect();
    let [greedy, modest] = [0, 1].map(|i| (&lab.sites[i], &lab.sites[i].nics[0]));
    for (site, nic) in [greedy, modest] {
        site.lan.ping(nic.ip);
    }
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (up, down) = std::thread::scope(|scope| {
        scope.spawn(|| flood(&greedy.0.lan, &lab.server, greedy.1.ip, &stop, &sent));
        scope.spawn(|| flood(&lab.server, &greedy.0.lan, greedy.0.host(), &stop, &sent));
        let up = udp_storm(&modest.0.lan, &lab.server, modest.1.ip, 1500, 1200);
        let down = udp_storm(&lab.server, &modest.0.lan, modest.0.host(), 1500, 1200);
        tcp(&modest.0.lan, &lab.server, modest.1.ip, 200_000, 200_000);
        stop.store(true, Relaxed);
        (up, down)
    });
    let sent = sent.into_inner();
    println!("{up} and {down} of 1500 crossed beside {sent}");
    assert!(sent > 20_000, "a flood of {sent} datagrams is none");
    assert!(up >= 1350 && down >= 1350, "{up} and {down} of 1500 crossed beside {sent}");
}
