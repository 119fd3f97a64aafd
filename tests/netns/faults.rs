//! Crashes, bad paths and changes under way: how soon frames cross again, and that none is ever wrong.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::common::lab::{Edit, Lab, NIC_READY, PORT, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::relay::{Faults, Relay};
use crate::common::traffic::{tcp, udp_storm};
use crate::needs_root;

#[test]
fn frames_cross_within_5_seconds_of_a_killed_server_20_times_of_20() {
    needs_root!();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let lab = Lab::new();
                let (mut server, _client) = lab.up_plain();
                let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
                for run in 0..5 {
                    site.lan.ping(nic.ip);
                    server.kill9();
                    // The client is to notice in different states: at once, and after it has tried for a while.
                    std::thread::sleep(Duration::from_millis(700 * run));
                    server = lab.run_server();
                    site.lan.ping_within(nic.ip, Duration::from_secs(5));
                }
            });
        }
    });
}

#[test]
fn a_client_that_is_killed_and_started_again_takes_its_nics_back() {
    needs_root!();
    let lab = Lab::new();
    let (server, mut client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    for run in 2..5 {
        site.lan.ping(nic.ip);
        client.kill9();
        client = lab.start_client(0, &Edit::default());
        site.lan.ping_within(nic.ip, Duration::from_secs(5));
        server.wait_for_nth(&[SESSION, "client=site0"], run, SOON);
    }
}

#[test]
fn a_server_that_comes_later_is_found() {
    needs_root!();
    let lab = Lab::new();
    let client = lab.start_client(0, &Edit::default());
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    assert!(!site.lan.answers(nic.ip, Duration::from_secs(2)), "nobody answers without a session");
    assert_eq!(client.count(&[SESSION]), 0);
    let _server = lab.start_server(&Edit::default());
    site.lan.ping_within(nic.ip, Duration::from_secs(6));
}

#[test]
fn the_clients_box_never_answers_for_a_projected_address() {
    needs_root!();
    let lab = Lab::new();
    let (mut server, mut client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    server.kill9();
    assert!(!site.lan.answers(nic.ip, Duration::from_secs(4)), "with the server dead");
    client.kill9();
    assert!(!site.lan.answers(nic.ip, Duration::from_secs(1)), "with both dead");
}

#[test]
fn a_client_that_changes_its_address_goes_on_within_a_second() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    // Otherwise the second address of a subnet goes with the first.
    site.client.sysctl("net.ipv4.conf.all.promote_secondaries", 1);
    site.lan.ping(nic.ip);
    for host in 3..8 {
        site.client.ip(&format!("addr add 172.31.0.{host}/24 dev wan0"));
        site.client.ip(&format!("addr del 172.31.0.{}/24 dev wan0", host - 1));
        site.lan.ping_within(nic.ip, Duration::from_secs(1));
        tcp(&site.lan, &lab.server, nic.ip, 100_000, 100_000);
        tcp(&lab.server, &site.lan, site.host(), 100_000, 100_000);
    }
    assert_eq!(client.count(&[SESSION]), 1, "the session is still the first one");
}

#[test]
fn a_nat_that_forgets_quickly_costs_no_session() {
    needs_root!();
    let lab = Lab::plan().nat().build();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let router = site.router.as_ref().unwrap();
    router.sysctl("net.netfilter.nf_conntrack_udp_timeout", 2);
    router.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", 2);
    let (_server, client) = lab.up_plain();
    site.lan.ping(nic.ip);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(4));
        site.lan.ping_within(nic.ip, Duration::from_secs(1));
    }
    tcp(&site.lan, &lab.server, nic.ip, 1_000_000, 1_000_000);
    assert_eq!(client.count(&[SESSION]), 1);
}

#[test]
fn a_nat_that_gives_the_client_another_port_under_load_costs_no_session() {
    needs_root!();
    let lab = Lab::plan().nat().build();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let router = site.router.as_ref().unwrap();
    let (_server, client) = lab.up_plain();
    site.lan.ping(nic.ip);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| tcp(&site.lan, &lab.server, nic.ip, 20_000_000, 20_000_000));
        for port in [40_000, 50_000, 60_000] {
            std::thread::sleep(Duration::from_millis(300));
            router.exec(&["nft", "flush chain ip nat out"]);
            router.exec(&[
                "nft",
                &format!("add rule ip nat out ip protocol udp masquerade to :{port}-{}", port + 99),
            ]);
            // A mapping lasts as long as its entry; with the link down for a moment it is forgotten.
            router.ip("link set out down");
            router.ip("link set out up");
        }
        load.join().unwrap();
    });
    site.lan.ping(nic.ip);
    assert_eq!(client.count(&[SESSION]), 1);
}

/// Client and server with a relay between them that starts out perfect.
pub struct BadPath {
    pub lab: Lab,
    pub front: SocketAddr,
    pub relay: Relay,
}

pub fn bad_path() -> BadPath {
    let lab = Lab::plan().router().no_udp_offload().build();
    let router = lab.sites[0].router.as_ref().unwrap();
    let front: SocketAddr = ([172, 30, 0, 1], PORT).into();
    let relay = Relay::start(router, front, lab.sites[0].server_addr, Faults::default());
    BadPath { lab, front, relay }
}

const BAD: Faults = Faults { lost: 30, repeated: 10, reordered: 20, spoiled: 5 };

#[test]
fn no_frame_is_ever_wrong_on_a_bad_path() {
    needs_root!();
    let BadPath { lab, front, relay } = bad_path();
    let client = Edit { server_addr: Some(front.to_string()), ..Edit::default() };
    let (_server, client) = lab.up(&Edit::default(), &client);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    assert!(udp_storm(&site.lan, &lab.server, nic.ip, 500, 1400) > 300, "the path is still good");
    relay.set(BAD);
    for (count, largest, least) in [(3000, 1200, 600), (1500, 8000, 75)] {
        let arrived = udp_storm(&site.lan, &lab.server, nic.ip, count, largest);
        assert!(arrived > least, "to the server {arrived} of {count} up to {largest} bytes");
        let arrived = udp_storm(&lab.server, &site.lan, site.host(), count, largest);
        assert!(arrived > least, "to the LAN {arrived} of {count} up to {largest} bytes");
    }
    relay.set(Faults::default());
    site.lan.ping(nic.ip);
    tcp(&site.lan, &lab.server, nic.ip, 1_000_000, 1_000_000);
    assert!(client.count(&[SESSION]) < 4, "hardly a session was lost");
}

#[test]
fn nearly_1_mib_of_config_crosses_a_bad_path_within_30_seconds() {
    needs_root!();
    let BadPath { lab, front, relay } = bad_path();
    relay.set(BAD);
    let filler = "# a line of a long script, of which most is comment\n".repeat(17_000);
    assert!(filler.len() > 800_000);
    lab.write("script.sh", format!("{filler}echo ran to the end\n"));
    let server = Edit { server: "script_path = \"script.sh\"".into(), ..Edit::default() };
    let _server = lab.start_server(&server);
    let start = Instant::now();
    let client = Edit {
        remote: true,
        top: "script = \"any\"".into(),
        server_addr: Some(front.to_string()),
        ..Edit::default()
    };
    let client = lab.start_client(0, &client);
    client.wait_for_log(&["script", "ran to the end"], Duration::from_secs(30));
    client.wait_for_log(&[NIC_READY], Duration::from_secs(30).saturating_sub(start.elapsed()));
}

#[test]
fn an_underlay_that_breaks_for_a_while_costs_only_that_while() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    site.client.ip("link set wan0 down");
    assert!(!site.lan.answers(nic.ip, Duration::from_secs(6)));
    site.client.ip("link set wan0 up");
    site.lan.ping_within(nic.ip, Duration::from_secs(6));
    let mut client = client;
    assert!(client.is_running());
}

#[test]
fn a_client_that_changes_its_interface_and_route_keeps_its_session() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    // A second way to the same address of the server's.
    site.client.ip(&format!("link add lte0 type veth peer name lte0 netns {}", lab.server.name()));
    for (ns, host) in [(&lab.server, 1), (&site.client, 2)] {
        ns.ip(&format!("addr add 172.29.0.{host}/24 dev lte0"));
        ns.ip("link set lte0 up");
    }
    let (_server, client) = lab.up_plain();
    site.lan.ping(nic.ip);
    for _ in 0..2 {
        site.client.ip("link set wan0 down");
        site.client.ip("route add 172.31.0.0/24 via 172.29.0.1");
        site.lan.ping_within(nic.ip, Duration::from_secs(3));
        tcp(&site.lan, &lab.server, nic.ip, 100_000, 100_000);
        site.client.ip("route del 172.31.0.0/24 via 172.29.0.1");
        site.client.ip("link set wan0 up");
        site.lan.ping_within(nic.ip, Duration::from_secs(3));
        tcp(&site.lan, &lab.server, nic.ip, 100_000, 100_000);
    }
    assert_eq!(client.count(&[SESSION]), 1, "the session is still the first one");
}

#[test]
fn a_server_that_moves_is_found_by_its_name() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let hosts = hosts_file(&site.client);
    fs::write(&hosts, "172.31.0.1 tunnel.example.net\n").unwrap();
    let name = format!("tunnel.example.net:{PORT}");
    let (_server, _client) = lab.up(&Edit::default(), &Edit { server_addr: Some(name), ..Edit::default() });
    site.lan.ping(nic.ip);
    // In place: the file is mounted where the client looks.
    fs::write(&hosts, "172.31.0.9 tunnel.example.net\n").unwrap();
    lab.server.ip("addr add 172.31.0.9/24 dev wan0");
    lab.server.ip("addr del 172.31.0.1/24 dev wan0");
    lab.server.ip("addr replace 172.31.0.9/24 dev wan0");
    site.lan.ping_within(nic.ip, Duration::from_secs(20));
}

/// What `ip netns exec` shows as /etc/hosts in a namespace; gone with it.
fn hosts_file(ns: &Ns) -> std::path::PathBuf {
    let dir = std::path::Path::new("/etc/netns").join(ns.name());
    fs::create_dir_all(&dir).unwrap();
    dir.join("hosts")
}

#[test]
fn a_flood_of_garbage_costs_neither_the_session_nor_memory() {
    needs_root!();
    let lab = Lab::new();
    let (server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    tcp(&site.lan, &lab.server, nic.ip, 1_000_000, 1_000_000);
    let before = server.rss_kb();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = site.client.inside(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
            socket.connect(site.server_addr).unwrap();
            // Handshakes that look right at first, and what looks like nothing.
            let kinds: Vec<Vec<u8>> = (0..=255u8)
                .map(|n| [&[n % 6, 1, 1, 0][..], &[n; 236]].concat())
                .map(|mut bytes| {
                    bytes.truncate(4 + usize::from(bytes[10]) % 237);
                    bytes
                })
                .collect();
            while !stop.load(Relaxed) {
                for bytes in &kinds {
                    sent.fetch_add(u64::from(socket.send(bytes).is_ok()), Relaxed);
                }
            }
        });
        let start = Instant::now();
        // A busy machine takes longer for as many.
        let enough = || sent.load(Relaxed) > 100_000 || start.elapsed() > Duration::from_secs(60);
        while start.elapsed() < Duration::from_secs(3) || !enough() {
            tcp(&site.lan, &lab.server, nic.ip, 500_000, 500_000);
            client.rekey();
        }
        stop.store(true, Relaxed);
    });
    let sent = sent.into_inner();
    let grown = server.rss_kb().saturating_sub(before);
    assert!(sent > 100_000, "only {sent} datagrams were sent");
    assert!(grown < 1024, "{grown} kB more for {sent} datagrams");
    assert_eq!(client.count(&[SESSION]), 1, "the session is still the first one");
    site.lan.ping(nic.ip);
}

#[test]
fn what_others_change_on_an_interface_is_put_right() {
    needs_root!();
    let lab = Lab::new();
    let (mut server, mut client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    for change in ["mtu 1300", "down", "address 02:00:00:00:77:77", "down"] {
        site.client.ip(&format!("link set {} {change}", nic.on_client));
        site.lan.ping_within(nic.ip, Duration::from_secs(5));
        lab.server.ip(&format!("link set {} {change}", nic.on_server));
        site.lan.ping_within(nic.ip, Duration::from_secs(5));
    }
    for (ns, name) in [(&site.client, &nic.on_client), (&lab.server, &nic.on_server)] {
        let end = Instant::now() + SOON;
        let right = || {
            let link = ns.ip(&format!("link show {name}"));
            link.contains("mtu 1500") && link.contains(&nic.mac_text())
        };
        while !right() {
            assert!(Instant::now() < end, "{}", ns.ip(&format!("link show {name}")));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    site.lan.ping(nic.ip6);
    assert!(client.count(&["put right"]) > 0 && server.count(&["put right"]) > 0);
    server.terminate();
    site.client.ip(&format!("link set {} up", nic.on_client));
    client.wait_for_log(&["set up without a session"], SOON);
    client.terminate();
}
