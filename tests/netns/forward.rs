//! Frames cross, whole and unchanged, on every kind of interface and underlay.

use std::time::{Duration, Instant};

use crate::common::capture::{Capture, drain, first};
use crate::common::frame::{BROADCAST, STRANGER, arp, arp_request, ethernet, tagged};
use crate::common::lab::{Edit, Lab, NIC_READY, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::program::{Program, TAP_RS};
use crate::common::traffic::{MARKER, tcp, udp_echo};
use crate::needs_root;

const MB: usize = 1_000_000;

#[test]
fn lan_host_and_server_ping_each_other() {
    needs_root!();
    let lab = Lab::new();
    let (_server, _client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    lab.server.ping(site.host());
    assert_eq!(site.lan.neighbour(nic.ip), Some(nic.mac_text()), "the NIC's own MAC answers");
}

#[test]
fn ipv6_neighbour_discovery_and_ping_cross() {
    needs_root!();
    let lab = Lab::new();
    let (_server, _client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip6);
    lab.server.ping("fd00:80::2".parse().unwrap());
    assert_eq!(site.lan.neighbour(nic.ip6), Some(nic.mac_text()));
    udp_echo(&site.lan, &lab.server, nic.ip6, 4000);
}

#[test]
fn full_frames_cross_whole_and_sealed_without_ip_fragments() {
    needs_root!();
    let lab = Lab::plan().no_udp_offload().build();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let captures = [Capture::on(&lab.server, "wan0"), Capture::on(&site.client, "wan0")];
    let (_server, _client) = lab.up_plain();
    site.lan.ping(nic.ip);
    udp_echo(&site.lan, &lab.server, nic.ip, 1472);
    udp_echo(&site.lan, &lab.server, nic.ip, 8000);
    tcp(&site.lan, &lab.server, nic.ip, 5 * MB, 5 * MB);
    tcp(&lab.server, &site.lan, site.host(), 5 * MB, 5 * MB);
    for capture in captures {
        let seen = capture.finish();
        seen.assert_sealed(&[MARKER, &nic.mac, b"tap-rs echo request"], 1000);
        seen.assert_whole();
    }
}

#[test]
fn tcp_crosses_both_ways_with_the_underlays_offloads_on() {
    needs_root!();
    let lab = Lab::new();
    let (_server, _client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let capture = Capture::on(&lab.server, "wan0");
    tcp(&site.lan, &lab.server, nic.ip, 20 * MB, 20 * MB);
    tcp(&site.lan, &lab.server, nic.ip6, 5 * MB, 5 * MB);
    capture.finish().assert_sealed(&[MARKER], 100);
}

#[test]
fn jumbo_frames_cross_an_ordinary_underlay() {
    needs_root!();
    let lab = Lab::plan().lan_mtu(9000).no_udp_offload().build();
    let capture = Capture::on(&lab.server, "wan0");
    let (_server, _client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    udp_echo(&site.lan, &lab.server, nic.ip, 8972);
    tcp(&site.lan, &lab.server, nic.ip, 5 * MB, 5 * MB);
    capture.finish().assert_whole();
    assert!(lab.server.ip(&format!("link show {}", nic.on_server)).contains("mtu 9000"));
}

#[test]
fn a_small_mtu_is_applied_on_both_sides() {
    needs_root!();
    let lab = Lab::plan().lan_mtu(576).build();
    let edit = Edit { ipv4_only: true, ..Edit::default() };
    let (_server, _client) = lab.up(&edit, &edit);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    assert!(lab.server.ip(&format!("link show {}", nic.on_server)).contains("mtu 576"));
    assert!(site.client.ip(&format!("link show {}", nic.on_client)).contains("mtu 576"));
    tcp(&site.lan, &lab.server, nic.ip, MB, MB);
}

#[test]
fn an_arp_sweep_finds_every_nic_by_its_own_mac_and_nothing_else() {
    needs_root!();
    let lab = Lab::plan().nics(3).build();
    let (_server, _client) = lab.up_plain();
    let site = &lab.sites[0];
    site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));

    let mut wire = site.lan.packet_socket("eth0");
    for host in 1..255 {
        wire.send(&arp_request(STRANGER, [10, 80, 0, 77].into(), [10, 80, 0, host].into())).unwrap();
    }
    let mut found = Vec::new();
    // All that are expected, and what comes in a while after them.
    let patience = |found: usize| if found < site.nics.len() { SOON } else { Duration::from_secs(1) };
    while let Some(reply) = first(&mut wire, patience(found.len()), |p| {
        !p.outgoing && p.bytes[..6] == STRANGER && p.bytes[12..14] == [8, 6]
    }) {
        assert_eq!(reply.bytes[6..12], reply.bytes[22..28], "Ethernet and ARP name the same sender");
        found.push((reply.bytes[28..32].to_vec(), reply.bytes[22..28].to_vec()));
    }
    found.sort();
    let expected: Vec<_> =
        site.nics.iter().map(|nic| (nic.ipv4().octets().to_vec(), nic.mac.to_vec())).collect();
    assert_eq!(found, expected);
}

#[test]
fn multicast_from_the_lan_reaches_the_nic() {
    needs_root!();
    let lab = Lab::new();
    let (_server, _client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let (wire, mut tap) = (site.lan.packet_socket("eth0"), lab.server.packet_socket(&nic.on_server));
    for group in [[1, 0, 0x5e, 0, 0, 0xfb], [0x33, 0x33, 0, 0, 0, 0xfb], [1, 0x80, 0xc2, 0, 0, 0xe]] {
        let frame = ethernet(group, STRANGER, 0x88b5, b"to many");
        wire.send(&frame).unwrap();
        assert!(first(&mut tap, SOON, |p| p.bytes == frame).is_some(), "{group:02x?}");
    }
}

#[test]
fn tagged_frames_cross_both_ways() {
    needs_root!();
    let lab = Lab::new();
    let edit = Edit { nic: "vlan = true".into(), ..Edit::default() };
    let (_server, _client) = lab.up(&edit, &edit);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    // Both ways are open: the kernel takes a moment to make use of the server's tap.
    site.lan.ping(nic.ip);
    let (mut wire, mut tap) = (site.lan.packet_socket("eth0"), lab.server.packet_socket(&nic.on_server));

    for payload in [&b"in a tag"[..], &[0x5a; 1500]] {
        let frame = tagged(&ethernet(nic.mac, STRANGER, 0x88b5, payload), 7);
        wire.send(&frame).unwrap();
        assert!(first(&mut tap, SOON, |p| p.bytes == frame).is_some(), "to the server");
        let frame = tagged(&ethernet(STRANGER, nic.mac, 0x88b5, payload), 7);
        tap.send(&frame).unwrap();
        assert!(first(&mut wire, SOON, |p| !p.outgoing && p.bytes == frame).is_some(), "to the LAN");
    }
}

#[test]
fn twenty_nics_at_once_each_answer_for_themselves_in_under_10_mb() {
    needs_root!();
    let lab = Lab::plan().nics(20).build();
    let (server, client) = lab.up_plain();
    let site = &lab.sites[0];
    assert!(server.own_peak_kb() < 10_000 && client.own_peak_kb() < 10_000, "memory at the start");
    assert!(client.own_kb() <= 4_096, "the idle client takes {} kB", client.own_kb());
    // All in one subnet: the server's kernel is told to answer by the NIC that was asked.
    for (table, nic) in (100..).zip(&site.nics) {
        let (dev, ip) = (&nic.on_server, nic.ip);
        lab.server.ip(&format!("route add 10.80.0.0/24 dev {dev} src {ip} table {table}"));
        lab.server.ip(&format!("rule add from {ip} table {table}"));
    }
    let capture = Capture::on(&site.lan, "eth0");
    for nic in &site.nics {
        site.lan.ping(nic.ip);
        assert_eq!(site.lan.neighbour(nic.ip), Some(nic.mac_text()));
    }
    for packet in capture.finish().packets.iter().filter(|p| !p.outgoing && p.bytes[12..14] == [8, 0]) {
        let nic = site.nics.iter().find(|nic| nic.ipv4().octets() == packet.bytes[26..30]).unwrap();
        assert_eq!(packet.bytes[6..12], nic.mac, "{} is answered for by another NIC", nic.ip);
    }
    std::thread::scope(|scope| {
        for nic in &site.nics {
            scope.spawn(|| tcp(&site.lan, &lab.server, nic.ip, MB, MB));
        }
    });
    assert!(server.own_peak_kb() < 10_000, "the server takes {} kB", server.own_peak_kb());
    assert!(client.own_peak_kb() < 10_000, "the client takes {} kB", client.own_peak_kb());
}

#[test]
fn three_clients_share_a_server_and_see_only_their_own_frames() {
    needs_root!();
    let lab = Lab::plan().sites(3).nics(2).build();
    let server = lab.start_server(&Edit::default());
    let clients: Vec<Program> = (0..3).map(|i| lab.start_client(i, &Edit::default())).collect();
    for (i, client) in clients.iter().enumerate() {
        client.wait_for_log(&[SESSION], SOON);
        server.wait_for_log(&[SESSION, &format!("client=site{i}")], SOON);
        for nic in &lab.sites[i].nics {
            lab.sites[i].lan.ping(nic.ip);
        }
    }
    let elsewhere: Vec<Capture> = lab.sites[1..].iter().map(|site| Capture::on(&site.lan, "eth0")).collect();
    let site = &lab.sites[0];
    tcp(&site.lan, &lab.server, site.nics[0].ip, 2 * MB, 2 * MB);
    for capture in elsewhere {
        capture.finish().assert_sealed(&[MARKER], 0);
    }
    std::thread::scope(|scope| {
        for site in &lab.sites {
            scope.spawn(|| tcp(&site.lan, &lab.server, site.nics[1].ip, 2 * MB, 2 * MB));
        }
    });
}

#[test]
fn the_underlay_may_be_ipv6() {
    needs_root!();
    let lab = Lab::plan().ipv6_underlay().no_udp_offload().build();
    let capture = Capture::on(&lab.server, "wan0");
    let (_server, _client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    tcp(&site.lan, &lab.server, nic.ip, 2 * MB, 2 * MB);
    let seen = capture.finish();
    seen.assert_sealed(&[MARKER], 100);
    seen.assert_whole();
}

#[test]
fn every_suite_carries_frames() {
    needs_root!();
    let psk = Program::watch(genpsk(), "genpsk".to_owned()).wait_for_log(&["="], SOON);
    std::thread::scope(|scope| {
        for suite in ["aes", "chacha"] {
            for keyed in [false, true] {
                let psk = &psk;
                scope.spawn(move || {
                    let lab = Lab::new();
                    lab.write("psk", psk);
                    let line = if keyed { "psk = \"psk\"\n" } else { "" };
                    let top = format!("suite = \"{suite}\"\n{line}");
                    let server = Edit { client: line.into(), ..Edit::default() };
                    let (_server, _client) = lab.up(&server, &Edit { top, ..Edit::default() });
                    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
                    tcp(&site.lan, &lab.server, nic.ip, MB, MB);
                });
            }
        }
    });
}

fn genpsk() -> std::process::Command {
    let mut command = std::process::Command::new(TAP_RS);
    command.arg("genpsk");
    command
}

#[test]
fn a_tap_in_a_bridge_serves_on_the_client() {
    needs_root!();
    let lab = Lab::new();
    let server = lab.start_server(&Edit::default());
    let client = lab.start_client(0, &Edit { mode: Some("tap"), ..Edit::default() });
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    client.wait_for_log(&[NIC_READY, &nic.on_client], SOON);
    bridge(&site.client, "lan0", &nic.on_client);
    site.lan.ping(nic.ip);
    tcp(&site.lan, &lab.server, nic.ip, 2 * MB, 2 * MB);
    assert_eq!(site.lan.neighbour(nic.ip), Some(nic.mac_text()));
    drop(server);
}

pub fn bridge(ns: &Ns, a: &str, b: &str) {
    ns.ip("link add br0 type bridge");
    for port in [a, b] {
        ns.ip(&format!("link set {port} master br0"));
        ns.ip(&format!("link set {port} up"));
    }
    ns.ip("link set br0 up");
}

#[test]
fn a_machine_behind_the_servers_macvtap_answers() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let machine = Ns::new();
    machine.ip(&format!("link add eth0 type veth peer name srv0 netns {}", lab.server.name()));
    machine.ip(&format!("link set eth0 address {} up", nic.mac_text()));
    machine.ip(&format!("addr add {}/24 dev eth0", nic.ip));
    lab.server.ip("link set srv0 up");
    let server =
        Edit { mode: Some("macvtap"), nic: "parent = \"srv0\"\nbridge = true".into(), ..Edit::default() };
    let client = Edit { nic: "bridge = true".into(), ..Edit::default() };
    let (_server, _client) = lab.up(&server, &client);
    site.lan.ping(nic.ip);
    tcp(&site.lan, &machine, nic.ip, MB, MB);
    machine.ping(site.host());
}

#[test]
fn a_client_told_to_answer_arp_answers_requests_and_passes_replies() {
    needs_root!();
    let lab = Lab::new();
    // The server's interface has no address, so nobody there answers.
    let server = Edit { nic: "configure = false".into(), ..Edit::default() };
    let client = Edit { top: "reply_arp = true".into(), ..Edit::default() };
    let (_server, _client) = lab.up(&server, &client);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    lab.server.ip(&format!("link set {} up", nic.on_server));
    let (mut wire, mut tap) = (site.lan.packet_socket("eth0"), lab.server.packet_socket(&nic.on_server));
    drain(&mut tap);

    wire.send(&arp_request(STRANGER, [10, 80, 0, 77].into(), nic.ipv4())).unwrap();
    let answer = first(&mut wire, SOON, |p| !p.outgoing && p.bytes[..6] == STRANGER).unwrap();
    assert_eq!(answer.bytes[20..22], [0, 2]);
    assert_eq!(answer.bytes[22..32], [&nic.mac[..], &nic.ipv4().octets()].concat());

    let reply = arp(2, (STRANGER, nic.mac), (STRANGER, [10, 80, 0, 77].into()), nic.ipv4());
    wire.send(&reply).unwrap();
    let seen = first(&mut tap, SOON, |p| p.bytes[12..14] == [8, 6]).unwrap();
    assert_eq!(seen.bytes, reply, "the reply, and the request was not passed on");
}

/// Files as they were written for the program of 2020: interfaces made by hand, bare addresses, its keys of every
/// kind; and the new keys, nothing else.
#[test]
fn files_of_the_original_work_with_keys_added() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let common = "pid = \"tap-rs.pid\"\nis_daemon = false\nmtu = 1500\nreply_arp = false\nprotocol = \"udp\"\n\
         log = \"info\"\ntimeout = 5\nuse_remote_config = false\n";
    let nics = |name: &str| {
        format!("[[nics]]\nifname = \"{name}\"\nip = \"{}\"\nmac = \"{}\"\n", nic.ip, nic.mac_text())
    };
    let server = format!(
        "tap_mode = \"tap\"\nrun_mode = \"server\"\n{common}private_key = \"server.key\"\n\
         [server]\nbind_addr = \"0.0.0.0:1234\"\n\
         [[clients]]\nname = \"branch\"\npublic_key = \"{}\"\n{}",
        lab.public_key("client0"),
        nics("tap0")
    );
    let client = format!(
        "tap_mode = \"macvtap\"\nrun_mode = \"client\"\n{common}private_key = \"client0.key\"\n\
         [server]\nbind_addr = \"172.31.0.1:1234\"\npublic_key = \"{}\"\n{}",
        lab.public_key("server"),
        nics("mv0")
    );
    site.client.ip("link add link lan0 name mv0 type macvtap mode bridge");
    site.client.ip(&format!("link set mv0 address {} up", nic.mac_text()));
    lab.write("server.toml", server);
    let client_file = lab.write("client.toml", client);
    let server = lab.run_server();
    server.wait_for_log(&[NIC_READY, "tap0"], SOON);
    let client = Program::start(&site.client, &["-c", client_file.to_str().unwrap()]);
    client.wait_for_log(&[SESSION], SOON);
    assert!(lab.server.ip("link show tap0").contains(&nic.mac_text()), "the MAC is applied");
    assert!(!lab.server.ip("addr show tap0").contains("inet 10."), "a bare address is the user's matter");
    lab.server.ip(&format!("addr add {}/24 dev tap0", nic.ip));
    site.lan.ping(nic.ip);
    tcp(&site.lan, &lab.server, nic.ip, MB, MB);
}

#[test]
fn a_broadcast_from_the_server_reaches_the_lan() {
    needs_root!();
    let lab = Lab::new();
    let (_server, _client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    // The kernel takes a moment to make use of a cable that has just been put in.
    let end = Instant::now() + SOON;
    while !lab.server.ip(&format!("link show {}", nic.on_server)).contains("state UP") {
        assert!(Instant::now() < end, "the server's tap has a carrier");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut wire, tap) = (site.lan.packet_socket("eth0"), lab.server.packet_socket(&nic.on_server));
    let frame = ethernet(BROADCAST, nic.mac, 0x88b5, b"to all");
    tap.send(&frame).unwrap();
    assert!(first(&mut wire, SOON, |p| !p.outgoing && p.bytes == frame).is_some());
}
