//! Starting and stopping: what is there while the program runs, and what is left behind.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::lab::{Edit, GOODBYE, Lab, NIC_READY, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::program::Program;
use crate::common::traces::{settled, until};
use crate::common::watch::ping_within;
use crate::needs_root;

/// Links, addresses, routes and rules of a namespace, but for what IPv6 makes by itself once a cable is plugged in.
fn state(ns: &Ns) -> Vec<String> {
    let links = ns.ip("-br link");
    let links = links.lines().map(|l| l.split_whitespace().next().unwrap_or_default().to_owned());
    let rest = ["-o addr", "route show table all", "-6 route show table all", "rule", "-6 rule"]
        .map(|words| ns.ip(words))
        .concat();
    let lasting = |l: &&str| !["fe80", "ff00", "multicast", "anycast"].iter().any(|w| l.contains(w));
    links.chain(rest.lines().filter(lasting).map(str::to_owned)).collect()
}

#[test]
fn a_signal_stops_both_sides_and_leaves_nothing_behind() {
    needs_root!();
    let lab = Lab::plan().nics(3).build();
    let site = &lab.sites[0];
    settled(&[(&lab.server, "wan0"), (&site.client, "wan0"), (&site.client, "lan0")]);
    let snapshot = || [&site.client, &lab.server].map(state);
    let before = snapshot();
    for interrupt in [false, true] {
        let (mut server, mut client) = lab.up_plain();
        site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));
        let end = |program: &mut Program| if interrupt { program.interrupt() } else { program.terminate() };
        assert_eq!(end(&mut client).code(), Some(0));
        server.wait_for_log(&[GOODBYE, "client=site0"], SOON);
        assert_eq!(end(&mut server).code(), Some(0));
        assert_eq!(snapshot(), before);
    }
}

#[test]
fn a_server_that_stops_says_goodbye() {
    needs_root!();
    let lab = Lab::new();
    let (mut server, client) = lab.up_plain();
    server.terminate();
    client.wait_for_log(&[GOODBYE], SOON);
    let server = lab.run_server();
    ping_within(&lab.sites[0].lan, lab.sites[0].nics[0].ip, Duration::from_secs(5), &[&server, &client]);
}

#[test]
fn interfaces_that_were_there_before_are_used_and_left() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    lab.server.exec(&["ip", "tuntap", "add", "dev", &nic.on_server, "mode", "tap"]);
    site.client.ip(&format!("link add link lan0 name {} type macvtap mode bridge", nic.on_client));
    site.client.ip(&format!("link set {} address {}", nic.on_client, nic.mac_text()));
    let (mut server, mut client) = lab.up_plain();
    site.lan.ping(nic.ip);
    client.terminate();
    server.terminate();
    assert!(lab.server.has_link(&nic.on_server) && site.client.has_link(&nic.on_client));
}

#[test]
fn an_interface_that_is_not_to_be_configured_is_left_as_it_is() {
    needs_root!();
    let lab = Lab::new();
    let nic = &lab.sites[0].nics[0];
    lab.server.exec(&["ip", "tuntap", "add", "dev", &nic.on_server, "mode", "tap"]);
    lab.server.ip(&format!("link set {} address 02:00:00:00:00:77 mtu 1300", nic.on_server));
    let before = lab.server.ip(&format!("addr show {}", nic.on_server));
    let edit = Edit { nic: "configure = false".into(), ..Edit::default() };
    let (_server, _client) = lab.up(&edit, &Edit::default());
    let after = lab.server.ip(&format!("addr show {}", nic.on_server));
    for what in ["02:00:00:00:00:77", "mtu 1300"] {
        assert!(before.contains(what) && after.contains(what), "{after}");
    }
    assert!(!after.contains("inet 10."), "{after}");
}

#[test]
fn the_clients_macvtap_has_no_address_and_takes_all_multicast() {
    needs_root!();
    let lab = Lab::new();
    let (_server, _client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let link = site.client.ip(&format!("-d addr show {}", nic.on_client));
    assert!(link.contains(&nic.mac_text()) && link.contains("allmulti 1"), "{link}");
    assert!(!link.contains("inet ") && !link.contains("inet6"), "{link}");
}

#[test]
fn the_servers_tap_has_the_nics_mac_addresses_and_mtu() {
    needs_root!();
    let lab = Lab::plan().lan_mtu(1400).build();
    let (_server, _client) = lab.up_plain();
    let nic = &lab.sites[0].nics[0];
    let link = lab.server.ip(&format!("addr show {}", nic.on_server));
    for what in
        [nic.mac_text(), format!("inet {}/24", nic.ip), format!("inet6 {}/64", nic.ip6), "mtu 1400".into()]
    {
        assert!(link.contains(&what), "{what} in {link}");
    }
}

#[test]
fn a_daemon_detaches_writes_its_files_and_stops_by_its_pid() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let top =
        "is_daemon = true\npid = \"client.pid\"\nstdout = \"client.out\"\nstderr = \"client.err\"".into();
    let mut foreground = lab.start_client(0, &Edit { top, ..Edit::default() });
    assert_eq!(foreground.wait(SOON).code(), Some(0), "the command that started it returns");
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    let pid = fs::read_to_string(lab.dir().join("client.pid")).unwrap();
    let _guard = Stopped(pid.trim().to_owned());
    assert_ne!(pid.trim(), foreground.pid().to_string());
    let read = |f| fs::read_to_string(lab.dir().join(f)).unwrap();
    let log = || ["client.out", "client.err"].map(read).concat();
    until("both are in its log", SOON, || log().contains(SESSION) && log().contains(NIC_READY));
    signal("TERM", pid.trim());
    let end = Instant::now() + SOON;
    while site.client.has_link(&nic.on_client) {
        assert!(Instant::now() < end, "the daemon goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A daemon is nobody's child.
struct Stopped(String);

impl Drop for Stopped {
    fn drop(&mut self) {
        let exe = fs::read_link(format!("/proc/{}/exe", self.0)).unwrap_or_default();
        if exe == std::path::Path::new(crate::common::program::TAP_RS) {
            signal("KILL", &self.0);
        }
    }
}

fn signal(name: &str, pid: &str) {
    let _ = Command::new("/bin/sh").args(["-c", &format!("kill -{name} {pid}")]).status();
}

#[test]
fn the_server_learns_the_clients_load() {
    needs_root!();
    let lab = Lab::new();
    let (server, _client) = lab.up_plain();
    server.wait_for_log(&["client report", "site0", "load="], SOON);
}

#[test]
fn the_servers_tap_has_a_carrier_while_there_is_a_session_and_keeps_its_addresses() {
    needs_root!();
    let lab = Lab::new();
    let nic = &lab.sites[0].nics[0];
    let tap = || lab.server.ip(&format!("addr show {}", nic.on_server));
    let until = |plugged: bool| {
        let end = Instant::now() + SOON;
        while tap().contains("LOWER_UP") != plugged {
            assert!(Instant::now() < end, "plugged: {plugged}: {}", tap());
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = tap();
        for ip in [nic.ip, nic.ip6] {
            assert!(text.contains(&ip.to_string()), "{text}");
        }
    };
    let _server = lab.start_server(&Edit::default());
    until(false);
    for _ in 0..2 {
        let mut client = lab.start_client(0, &Edit::default());
        until(true);
        lab.sites[0].lan.ping(nic.ip);
        lab.sites[0].lan.ping(nic.ip6);
        client.terminate();
        until(false);
    }
}

#[test]
fn a_nic_that_goes_live_is_announced_to_its_lan() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    // Somebody else had the addresses before.
    for ip in [nic.ip, nic.ip6] {
        site.lan.ip(&format!("neigh replace {ip} lladdr 02:00:00:00:99:99 dev eth0 nud stale"));
    }
    let (_server, _client) = lab.up_plain();
    for ip in [nic.ip, nic.ip6] {
        let end = Instant::now() + SOON;
        while site.lan.neighbour(ip) != Some(nic.mac_text()) {
            assert!(Instant::now() < end, "{ip} is still {:?} to the LAN", site.lan.neighbour(ip));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
