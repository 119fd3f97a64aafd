//! SIGHUP on the server: running clients follow, and nobody else is disturbed.

use std::time::{Duration, Instant};

use crate::common::lab::{Edit, Lab, NIC_GONE, NIC_READY, Nic, SESSION, SOON};
use crate::common::traffic::tcp;
use crate::needs_root;

fn with(nics: &[usize]) -> Edit {
    Edit { nics: Some(vec![nics.iter().map(|n| Nic::new(0, *n)).collect()]), ..Edit::default() }
}

fn remote() -> Edit {
    Edit { remote: true, ..Edit::default() }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "{what} within {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nics_appear_and_vanish_while_another_carries_traffic() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let (server, client) = lab.up(&with(&[0, 1]), &remote());
    let site = &lab.sites[0];
    let (kept, added) = (Nic::new(0, 0), Nic::new(0, 2));
    site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));
    std::thread::scope(|scope| {
        // A connection over the NIC that stays lives through it.
        let load = scope.spawn(|| tcp(&site.lan, &lab.server, kept.ip, 30_000_000, 30_000_000));
        lab.write("server.toml", lab.server_toml(&with(&[0, 2])));
        server.reload();
        client.wait_for_log(&[NIC_READY, "mv2"], SOON);
        client.wait_for_log(&[NIC_GONE, "mv1"], SOON);
        site.lan.ping(added.ip);
        until("mv1 and its twin are gone", || !site.client.has_link("mv1") && !lab.server.has_link("tap0x1"));
        load.join().unwrap();
    });
    assert!(!site.lan.answers(Nic::new(0, 1).ip, Duration::from_millis(300)));
    assert_eq!(client.count(&[SESSION]), 1, "the session is still the first one");
    assert_eq!(client.count(&[NIC_READY, "mv0"]), 1, "the NIC that stays was left alone");
}

#[test]
fn a_changed_mtu_reaches_the_client() {
    needs_root!();
    let lab = Lab::new();
    let (server, _client) = lab.up(&with(&[0]), &remote());
    let site = &lab.sites[0];
    lab.write("server.toml", lab.server_toml(&Edit { nic: "mtu = 1400".into(), ..with(&[0]) }));
    server.reload();
    until("mtu 1400 on both ends", || {
        site.client.try_exec(&["ip", "link", "show", "mv0"]).stdout.windows(8).any(|w| w == b"mtu 1400")
            && lab.server.ip("link show tap0x0").contains("mtu 1400")
    });
    site.lan.ping(site.nics[0].ip);
}

#[test]
fn a_file_with_a_mistake_changes_nothing() {
    needs_root!();
    let lab = Lab::new();
    let (server, client) = lab.up(&with(&[0]), &remote());
    let site = &lab.sites[0];
    let good = lab.server_toml(&with(&[0, 1]));
    lab.write("server.toml", good.replace("ifname", "ifnaem"));
    server.reload();
    server.wait_for_log(&["ifnaem"], SOON);
    site.lan.ping(site.nics[0].ip);
    assert!(!lab.server.has_link("tap0x1"));
    lab.write("server.toml", good);
    server.reload();
    client.wait_for_log(&[NIC_READY, "mv1"], SOON);
}

#[test]
fn a_client_taken_off_the_list_is_shut_out_and_the_others_stay() {
    needs_root!();
    let lab = Lab::plan().sites(2).build();
    let server = lab.start_server(&Edit::default());
    let clients = [lab.start_client(0, &remote()), lab.start_client(1, &remote())];
    for (client, site) in clients.iter().zip(&lab.sites) {
        client.wait_for_log(&[NIC_READY], SOON);
        site.lan.ping(site.nics[0].ip);
    }
    let text = lab.server_toml(&Edit::default());
    let (head, second) = text.split_at(text.rfind("[[clients]]").unwrap());
    let first = head.find("[[clients]]").unwrap();
    lab.write("server.toml", format!("{}{second}", &head[..first]));
    server.reload();
    until("the first client's NIC is gone from the server", || !lab.server.has_link("tap0x0"));
    assert!(!lab.sites[0].lan.answers(lab.sites[0].nics[0].ip, Duration::from_millis(500)));
    lab.sites[1].lan.ping(lab.sites[1].nics[0].ip);
    assert_eq!(clients[1].count(&[SESSION]), 1);
}
