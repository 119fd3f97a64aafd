//! One client at full speed takes no more than its share.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::common::lab::{Edit, Lab, NIC_READY, SESSION, SOON};
use crate::common::ns::Ns;
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
