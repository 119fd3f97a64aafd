//! Several workers at either end: flows are spread over them, and every byte crosses.

use crate::common::lab::{Edit, Lab};
use crate::common::program::{Program, TAP_RS};
use crate::common::traffic::{tcp, udp_storm};
use crate::needs_root;
use crate::status::status;

/// The datagrams that each worker of a program has sent and received.
fn carried(lab: &Lab, program: &Program) -> Vec<(u64, u64)> {
    let mine = status(lab, program, |_| true);
    let datagrams = |v: &serde_json::Value| v["datagrams"].as_u64().unwrap();
    let workers = mine["plane"]["by_worker"].as_array().unwrap();
    workers.iter().map(|w| (datagrams(&w["sent"]), datagrams(&w["received"]))).collect()
}

fn with_workers(n: u8) -> Edit {
    Edit { top: format!("workers = {n}\n"), ..Edit::default() }
}

#[test]
fn flows_of_one_client_are_spread_over_the_workers_of_both_ends() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let (server, client) = lab.up(&with_workers(3), &with_workers(2));
    let (site, host) = (&lab.sites[0], &lab.server);
    std::thread::scope(|scope| {
        // By their ports they fall to workers as dice do: one has none of so many in one run of 100,000.
        for n in 0..32 {
            let ip = site.nics[n % 2].ip;
            scope.spawn(move || tcp(&site.lan, host, ip, 1_000_000, 1_000_000));
        }
    });
    for program in [&server, &client] {
        let carried = carried(&lab, program);
        assert!(carried.iter().all(|(sent, _)| *sent > 0), "not all workers have sent: {carried:?}");
        let heard = carried.iter().filter(|(_, received)| *received > 0).count();
        // Of three lanes of the server's the first and the third are the first worker's at the client, and the client has two.
        assert_eq!(heard, 2, "{carried:?}");
    }
}

#[test]
fn every_byte_crosses_where_ends_have_different_numbers_of_workers() {
    needs_root!();
    for (of_server, of_client) in [(1, 3), (3, 1), (2, 2)] {
        let lab = Lab::new();
        let _programs = lab.up(&with_workers(of_server), &with_workers(of_client));
        let (site, host, ip) = (&lab.sites[0], &lab.server, lab.sites[0].nics[0].ip);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| tcp(&site.lan, host, ip, 1_000_000, 1_000_000));
                scope.spawn(|| assert!(udp_storm(&site.lan, host, ip, 500, 1400) > 0));
            }
        });
    }
}

#[test]
fn a_tap_with_one_queue_serves_several_workers() {
    needs_root!();
    let lab = Lab::new();
    let nic = &lab.sites[0].nics[0];
    lab.server.exec(&["ip", "tuntap", "add", &nic.on_server, "mode", "tap"]);
    let _programs = lab.up(&with_workers(2), &with_workers(2));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| tcp(&lab.sites[0].lan, &lab.server, nic.ip, 1_000_000, 1_000_000));
        }
    });
}

#[test]
fn a_second_server_on_the_address_of_several_workers_is_refused() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&with_workers(2));
    let output = lab.server.try_exec(&[TAP_RS, "-c", lab.dir().join("server.toml").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1234"), "{said}");
}
