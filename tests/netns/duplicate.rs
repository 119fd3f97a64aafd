//! A client's NIC asks its LAN who else has its addresses, before it goes live.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::common::capture::{Capture, first};
use crate::common::frame::{STRANGER, arp_request, ethernet};
use crate::common::lab::{Edit, Lab, NIC_READY, SESSION, SOON, Site};
use crate::common::program::TAP_RS;
use crate::common::traces::until;
use crate::common::traffic::SetAtEnd;
use crate::needs_root;
use crate::status::status;

/// The MAC of the host on the LAN.
fn mac_of_host(site: &Site) -> String {
    let link = site.lan.ip("link show eth0");
    let (_, rest) = link.split_once("link/ether ").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

fn is_down(site: &Site) -> bool {
    !site.client.ip(&format!("link show {}", site.nics[0].on_client)).contains(",UP")
}

#[test]
fn a_host_that_has_the_address_is_named_and_the_nic_waits_for_it_to_go() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    for (ip, add) in
        [(nic.ip, format!("addr add {}/24", nic.ip)), (nic.ip6, format!("-6 addr add {}/64", nic.ip6))]
    {
        site.lan.ip(&format!("{add} dev eth0"));
        let _server = lab.start_server(&Edit::default());
        let mut client = lab.start_client(0, &Edit::default());
        let (address, mac) = (ip.to_string(), mac_of_host(site));
        let line = client.wait_for_log(&["ERROR", &format!("{address} is at {mac}")], SOON);
        assert!(line.contains("probe = false"), "it says how to go on: {line}");
        until("the NIC is down", SOON, || is_down(site));
        status(&lab, &client, |v| {
            let told = &v["nics"][0];
            told["state"] == "conflict"
                && told["conflict"].as_str() == Some(&format!("{address} is at {mac}"))
        });
        let text = site.client.exec(&[TAP_RS, "status", &client.name()]);
        assert!(text.contains("conflict") && text.contains(&format!("{address} is at {mac}")), "{text}");
        assert_eq!(client.count(&[NIC_READY]), 0);
        site.lan.ip(&format!("{} dev eth0", add.replace("addr add", "addr del")));
        client.wait_for_log(&[NIC_READY, &nic.on_client], SOON);
        site.lan.ping(ip);
        assert_eq!(client.count(&["ERROR"]), 1, "told once");
        client.terminate();
    }
}

#[test]
fn nothing_passes_while_it_asks_and_the_question_claims_nothing() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let capture = Capture::on(&site.lan, "eth0");
    let (_server, client) = lab.up_plain();
    let seen = capture.finish();
    let from_nic: Vec<_> = seen.packets.iter().filter(|p| !p.outgoing && p.bytes[6..12] == nic.mac).collect();
    // ARP sender address; or the IPv6 source of a solicitation.
    let is_question = |b: &[u8]| match b[12..14] {
        [8, 6] => b[28..32] == [0; 4] && b[38..42] == nic.ipv4().octets(),
        _ => b[20] == 58 && b[54] == 135 && b[22..38] == [0; 16] && b[62..78] == nic.ipv6().octets(),
    };
    let questions = from_nic.iter().take_while(|p| is_question(&p.bytes)).count();
    assert_eq!(questions, 6, "three for each address come first: {from_nic:#x?}");
    assert!(!from_nic.iter().skip(6).any(|p| is_question(&p.bytes)), "and none after them");
    assert_eq!(client.count(&["is at"]), 0);
}

#[test]
fn its_own_frames_come_back_and_fool_nobody() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let site = &lab.sites[0];
    // A switch with a loop, or a hub with an echo.
    let (stop, mut wire) = (AtomicBool::new(false), site.lan.packet_socket("eth0"));
    let echoed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let _end = SetAtEnd(&stop);
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let ours = |mac: &[u8]| site.nics.iter().any(|nic| nic.mac == mac);
                if let Some(p) =
                    first(&mut wire, Duration::from_millis(20), |p| !p.outgoing && ours(&p.bytes[6..12]))
                {
                    echoed.fetch_add(usize::from(wire.send(&p.bytes).is_ok()), Relaxed);
                }
            }
        });
        let (_server, client) = lab.up_plain();
        until("all questions came back", SOON, || echoed.load(Relaxed) >= 12);
        stop.store(true, Relaxed);
        assert_eq!(client.count(&["is at"]), 0);
        site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));
    });
}

#[test]
fn a_switch_that_asks_for_the_address_does_not_have_it() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let (stop, wire) = (AtomicBool::new(false), site.lan.packet_socket("eth0"));
    let probe = arp_request(STRANGER, Ipv4Addr::UNSPECIFIED, nic.ipv4());
    std::thread::scope(|scope| {
        let _end = SetAtEnd(&stop);
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                wire.send(&probe).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let server = lab.start_server(&Edit::default());
        let client = lab.start_client(0, &Edit::default());
        client.wait_for_log(&[NIC_READY, &nic.on_client], SOON);
        stop.store(true, Relaxed);
        drop(server);
    });
}

#[test]
fn frames_that_only_look_like_a_claim_are_none() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let (stop, wire) = (AtomicBool::new(false), site.lan.packet_socket("eth0"));
    let neighbour: Ipv4Addr = "10.80.0.77".parse().unwrap();
    let frames = [
        // Of another address; cut off; of the NIC's own MAC.
        arp_request(STRANGER, neighbour, nic.ipv4()),
        ethernet(nic.mac, STRANGER, 0x0806, &[0, 1, 8, 0, 6, 4, 0, 2])[..24].to_vec(),
        arp_request(nic.mac, nic.ipv4(), nic.ipv4()),
    ];
    std::thread::scope(|scope| {
        let _end = SetAtEnd(&stop);
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                for frame in &frames {
                    let _ = wire.send(frame);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let _server = lab.start_server(&Edit::default());
        let client = lab.start_client(0, &Edit::default());
        client.wait_for_log(&[NIC_READY, &nic.on_client], SOON);
        stop.store(true, Relaxed);
    });
}

#[test]
fn an_address_of_the_clients_own_box_is_found_too() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.client.ip(&format!("addr add {}/24 dev lan0", nic.ip));
    let _server = lab.start_server(&Edit::default());
    let client = lab.start_client(0, &Edit::default());
    client.wait_for_log(&["ERROR", "this box's own lan0", "ip addr flush dev lan0 to"], SOON);
    assert!(is_down(site));
    site.client.ip(&format!("addr flush dev lan0 to {}", nic.ip));
    client.wait_for_log(&[NIC_READY, &nic.on_client], SOON);
    site.lan.ping(nic.ip);
}

#[test]
fn who_does_not_ask_is_up_at_once() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ip(&format!("addr add {}/24 dev eth0", nic.ip));
    for edit in [
        Edit { top: "probe = false".into(), ..Edit::default() },
        Edit { nic: "probe = false".into(), ..Edit::default() },
    ] {
        let (_server, mut client) = lab.up(&Edit::default(), &edit);
        client.terminate();
    }
}

#[test]
fn a_nic_from_the_server_asks_as_well() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ip(&format!("addr add {}/24 dev eth0", nic.ip));
    let _server = lab.start_server(&Edit::default());
    let client = lab.start_client(0, &Edit { remote: true, ..Edit::default() });
    client.wait_for_log(&[SESSION], SOON);
    client.wait_for_log(&["ERROR", &format!("{} is at {}", nic.ip, mac_of_host(site))], SOON);
}

#[test]
fn the_address_is_asked_for_again_after_a_session_was_lost() {
    needs_root!();
    let lab = Lab::new();
    let (mut server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    server.terminate();
    until("the NIC is down", SOON, || is_down(site));
    site.lan.ip(&format!("addr add {}/24 dev eth0", nic.ip));
    let _server = lab.start_server(&Edit::default());
    client.wait_for_log(&["ERROR", &format!("{} is at", nic.ip)], SOON);
    let other: IpAddr = nic.ip6;
    assert!(!site.lan.answers(other, Duration::from_millis(500)), "none of its addresses answers");
}
