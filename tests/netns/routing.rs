//! Several NICs in one subnet on the server: each is answered by itself, and nothing of what sees to that stays behind.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::common::capture::Capture;
use crate::common::lab::{Edit, Lab, NIC_READY, SOON, Site};
use crate::common::program::Program;
use crate::common::traces::{gone, keeper_of, kill_both, settled, stack, until};
use crate::needs_root;

/// The LAN's host is the router of the NICs.
fn with_gateway(site: &Site) -> Edit {
    let nic = format!("gateway = [\"{}\", \"fd00:80::2\"]", site.host());
    Edit { nic, ..Edit::default() }
}

/// The pairs of MAC and address that echo replies came from.
fn repliers(site: &Site, of: impl FnOnce()) -> Vec<([u8; 6], IpAddr)> {
    let capture = Capture::on(&site.lan, "eth0");
    of();
    let reply = |bytes: &[u8]| {
        let mac = bytes[6..12].try_into().unwrap();
        match (&bytes[12..14], bytes.get(23), bytes.get(34)) {
            ([8, 0], Some(1), Some(0)) => {
                Some((mac, IpAddr::from(<[u8; 4]>::try_from(&bytes[26..30]).unwrap())))
            }
            _ if bytes[12..14] == [0x86, 0xdd]
                && bytes.get(20) == Some(&58)
                && bytes.get(54) == Some(&129) =>
            {
                Some((mac, IpAddr::from(<[u8; 16]>::try_from(&bytes[22..38]).unwrap())))
            }
            _ => None,
        }
    };
    let seen = capture.finish();
    seen.packets.iter().filter(|p| !p.outgoing).filter_map(|p| reply(&p.bytes)).collect()
}

#[test]
fn several_nics_in_one_subnet_are_each_answered_by_themselves() {
    needs_root!();
    let lab = Lab::plan().nics(3).build();
    // As some distributions set it.
    lab.server.sysctl("net.ipv4.conf.all.rp_filter", 1);
    let site = &lab.sites[0];
    let (_server, _client) = lab.up(&with_gateway(site), &Edit::default());
    let seen = repliers(site, || {
        for nic in &site.nics {
            site.lan.ping(nic.ip);
            site.lan.ping(nic.ip6);
        }
    });
    for nic in &site.nics {
        for ip in [nic.ip, nic.ip6] {
            let macs: Vec<_> = seen.iter().filter(|(_, from)| *from == ip).map(|(mac, _)| *mac).collect();
            assert!(!macs.is_empty() && macs.iter().all(|mac| *mac == nic.mac), "{ip}: {macs:x?}");
            assert_eq!(site.lan.neighbour(ip), Some(nic.mac_text()));
        }
    }
}

#[test]
fn without_routing_the_second_nic_is_not_heard() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let before = stack(&lab.server);
    let site = &lab.sites[0];
    let server = Edit { top: "routing = \"none\"".into(), ..Edit::default() };
    let (_server, _client) = lab.up(&server, &Edit::default());
    site.lan.ping(site.nics[0].ip);
    let second = &site.nics[1];
    let seen = repliers(site, || {
        site.lan.answers(second.ip, Duration::from_secs(1));
    });
    assert!(!seen.contains(&(second.mac, second.ip)), "this is what routing = \"auto\" mends: {seen:x?}");
    let after = stack(&lab.server);
    assert_eq!(after["rule show"], before["rule show"]);
    assert!(!after["route show table all"].contains("proto 116"));
    let conf = lab.server.exec(&["cat", "/proc/sys/net/ipv4/conf/tap0x1/arp_ignore"]);
    assert_eq!(conf.trim(), "0");
}

#[test]
fn hosts_beyond_the_gateway_are_answered_through_it() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let site = &lab.sites[0];
    site.lan.ip("addr add 192.0.2.77/32 dev lo");
    site.lan.ip("-6 addr add 2001:db8::77/128 dev lo nodad");
    let (_server, _client) = lab.up(&with_gateway(site), &Edit::default());
    for nic in &site.nics {
        for (from, to) in [("192.0.2.77", nic.ip), ("2001:db8::77", nic.ip6)] {
            let to = to.to_string();
            let end = Instant::now() + SOON;
            while !site.lan.try_exec(&["ping", "-c1", "-W1", "-I", from, &to]).status.success() {
                assert!(Instant::now() < end, "no answer from {to} to {from}");
            }
        }
    }
}

#[test]
fn at_the_end_the_stack_is_as_it_was_also_for_taps_that_were_there() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let site = &lab.sites[0];
    lab.server.ip(&format!("tuntap add {} mode tap", site.nics[1].on_server));
    settled(&[(&lab.server, "wan0")]);
    let before = stack(&lab.server);
    for ending in [Program::terminate, Program::interrupt] {
        let (mut server, mut client) = lab.up(&with_gateway(site), &Edit::default());
        site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));
        let during = stack(&lab.server);
        assert_eq!(during["rule show"].matches("proto 116").count(), 2, "{}", during["rule show"]);
        assert_eq!(during["-6 rule show"].matches("proto 116").count(), 2);
        assert!(ending(&mut server).success());
        assert_eq!(stack(&lab.server), before);
        client.terminate();
    }
}

#[test]
fn after_kill_9_the_keeper_puts_the_stack_back() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let site = &lab.sites[0];
    let there = &site.nics[1].on_server;
    lab.server.ip(&format!("tuntap add {there} mode tap"));
    let before = stack(&lab.server);
    let (mut server, _client) = lab.up(&with_gateway(site), &Edit::default());
    let keeper = keeper_of(&server);
    server.kill9();
    until("the keeper has ended", SOON, || gone(keeper));
    let after = stack(&lab.server);
    for key in ["rule show", "-6 rule show", "arp_ignore", "arp_announce", "rp_filter", "accept_ra"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert!(!after["route show table all"].contains("proto 116"), "{}", after["route show table all"]);
    assert!(!after["-6 route show table all"].contains("proto 116"));
}

#[test]
fn the_next_start_removes_what_nobody_could() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let site = &lab.sites[0];
    let before = stack(&lab.server);
    let mut server = lab.start_server(&with_gateway(site));
    let table = table_of(&server, &site.nics[0].on_server);
    kill_both(&mut server);
    let left = stack(&lab.server);
    assert_eq!(left["rule show"].matches("proto 116").count(), 2, "nobody was left to remove them");

    // Nothing of that is wanted any more.
    let none = Edit { nics: Some(vec![vec![]]), ..Edit::default() };
    let mut server = lab.start_server(&none);
    server.wait_for_log(&["server started"], SOON);
    for rules in ["rule show", "-6 rule show"] {
        assert_eq!(stack(&lab.server)[rules], before[rules]);
    }
    server.terminate();

    // And a NIC has its table again.
    let server = lab.start_server(&with_gateway(site));
    assert_eq!(table_of(&server, &site.nics[0].on_server), table);
}

#[test]
fn a_table_that_somebody_uses_is_left_alone() {
    needs_root!();
    let lab = Lab::new();
    let nic = &lab.sites[0].nics[0].on_server;
    let mut server = lab.start_server(&Edit::default());
    let table = table_of(&server, nic);
    server.terminate();
    lab.server.ip(&format!("route add 198.51.100.0/24 dev lo table {table}"));
    let mut server = lab.start_server(&Edit::default());
    let other = table_of(&server, nic);
    assert_ne!(other, table);
    server.terminate();
    let server = {
        lab.server.ip(&format!("rule add from 198.51.100.1 lookup {other}"));
        lab.start_server(&Edit::default())
    };
    assert!(![table.clone(), other.clone()].contains(&table_of(&server, nic)));
    assert!(lab.server.ip(&format!("route show table {table}")).contains("198.51.100.0/24"));
    assert!(lab.server.ip("rule show").contains(&format!("from 198.51.100.1 lookup {other}")));
}

#[test]
fn routes_rules_and_addresses_that_somebody_removes_are_put_back_and_told() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let site = &lab.sites[0];
    let (server, _client) = lab.up(&with_gateway(site), &Edit::default());
    let nic = &site.nics[1];
    let table = table_of(&server, &nic.on_server);
    let right = stack(&lab.server);
    let changes = [
        (format!("rule del from {} lookup {table}", nic.ip), "routes and rules"),
        (format!("-6 rule del from {} lookup {table}", nic.ip6), "routes and rules"),
        (format!("route flush table {table}"), "routes and rules"),
        (format!("addr del {}/24 dev {}", nic.ip, nic.on_server), "its address 10.80.0.101/24"),
        (format!("-6 addr del {}/64 dev {}", nic.ip6, nic.on_server), "its address fd00:80::101/64"),
        (format!("link set {} down", nic.on_server), "its link"),
    ];
    for (n, (change, told)) in changes.iter().enumerate() {
        let told_before = server.count(&["put right", told]);
        lab.server.ip(change);
        server.wait_for_nth(&["put right", told], told_before + 1, SOON);
        let same = || {
            let now = stack(&lab.server);
            ["rule show", "-6 rule show"].iter().all(|key| now[*key] == right[*key])
                && lab.server.ip(&format!("route show table {table}")).contains("default via")
                && lab.server.ip(&format!("-6 route show table {table}")).contains("default via")
        };
        until(&format!("change {n} is undone: {change}"), SOON, same);
        site.lan.ping(nic.ip);
        site.lan.ping(nic.ip6);
    }
}

#[test]
fn an_address_that_the_nic_should_not_have_is_told_and_left() {
    needs_root!();
    let lab = Lab::new();
    let nic = &lab.sites[0].nics[0];
    let server = lab.start_server(&Edit::default());
    lab.server.ip(&format!("addr add 10.80.0.200/24 dev {}", nic.on_server));
    server.wait_for_log(&[&nic.on_server, "10.80.0.200/24"], SOON);
    lab.server.ip(&format!("addr add 10.80.0.201/24 dev {}", nic.on_server));
    server.wait_for_log(&[&nic.on_server, "10.80.0.201/24"], SOON);
    assert_eq!(server.count(&["10.80.0.200/24"]), 1, "once");
    assert!(lab.server.ip(&format!("addr show {}", nic.on_server)).contains("10.80.0.200/24"));
}

#[test]
fn an_address_on_the_clients_interface_is_taken_off_before_it_answers_for_long() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    for address in [format!("{}/24", nic.ip), "10.80.0.222/24".to_owned()] {
        site.client.ip(&format!("addr add {address} dev {}", nic.on_client));
        client.wait_for_log(&["put right", &address], SOON);
        let clean = || !site.client.ip(&format!("addr show {}", nic.on_client)).contains("inet ");
        until("the address is gone", SOON, clean);
    }
    site.lan.ping(nic.ip);
}

#[test]
fn a_gateway_comes_with_a_reload() {
    needs_root!();
    let lab = Lab::new();
    let site = &lab.sites[0];
    let server = lab.start_server(&Edit::default());
    let nic = &site.nics[0].on_server;
    let table = table_of(&server, nic);
    let show = || lab.server.ip(&format!("route show table {table}"));
    assert!(!show().contains("default"));
    lab.write("server.toml", lab.server_toml(&with_gateway(site)));
    server.reload();
    server.wait_for_nth(&[NIC_READY, nic], 2, SOON);
    until("the route is there", SOON, || show().contains("default via 10.80.0.2"));
}

/// The table that a NIC was said to have.
fn table_of(server: &Program, nic: &str) -> String {
    let line = server.wait_for_log(&["routing table of its own", nic], SOON);
    let (_, rest) = line.split_once("table=").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}
