//! `tap-rs capture`, of real NICs.

use std::fs;
use std::process::Command;

use crate::common::frame::{arp_request, ethernet};
use crate::common::lab::{Lab, SOON};
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

/// A capture of the client's NIC that has begun.
fn start(lab: &Lab, client: &Program, more: &[&str]) -> Program {
    let name = client.name();
    let args = [&["capture", "mv0", &name][..], more].concat();
    let capture = Program::start(&lab.sites[0].client, &args);
    capture.wait_for_log(&["mv0", "times are UTC"], SOON);
    capture
}

#[test]
fn frames_are_shown_both_ways_with_why_they_were_dropped() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let mut capture = start(&lab, &client, &[]);
    site.lan.ping(nic.ip);
    let request = capture.wait_for_log(&["ICMP", "echo request"], SOON);
    assert!(request.contains(" in ") && request.contains("> nic"), "{request}");
    let reply = capture.wait_for_log(&["ICMP", "echo reply"], SOON);
    assert!(reply.contains(" out nic > "), "{reply}");
    let stolen = ethernet([0xff; 6], [3, 0, 0, 0, 0, 9], 0x88b5, b"from a group");
    site.lan.packet_socket("eth0").send(&stolen).unwrap();
    capture.wait_for_log(&["03:00:00:00:00:09 > all", "0x88b5", "60", "DROPPED source_not_unicast"], SOON);
    assert!(capture.interrupt().success());
    capture.wait_for_log(&["frames"], SOON);
}

#[test]
fn a_capture_ends_after_its_count_and_leaves_nothing_behind() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    for _ in 0..6 {
        let mut capture = start(&lab, &client, &["-c", "2"]);
        site.lan.ping(nic.ip);
        site.lan.ping(nic.ip);
        assert!(capture.wait(SOON).success());
        capture.wait_for_log(&["2 frames"], SOON);
        // What is over makes room: four may run at a time.
        site.lan.ping(nic.ip);
    }
}

#[test]
fn only_dropped_frames_are_shown_where_that_is_asked() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let capture = start(&lab, &client, &["--dropped"]);
    site.lan.ping(nic.ip);
    // A station that says it is the NIC.
    let claim = arp_request([2, 9, 9, 9, 9, 9], nic.ipv4(), nic.ipv4());
    site.lan.packet_socket("eth0").send(&claim).unwrap();
    capture.wait_for_log(&["announced", "DROPPED spoofed_arp"], SOON);
    assert_eq!(capture.count(&["echo"]), 0);
}

#[test]
fn a_capture_file_is_read_by_tcpdump() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let file = lab.dir().join("c.pcapng");
    let name = client.name();
    let args = ["capture", "mv0", &name, "-w", file.to_str().unwrap(), "-c", "4"];
    let mut capture = Program::start(&site.client, &args);
    let end = std::time::Instant::now() + SOON;
    while !file.exists() {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    (0..4).for_each(|_| site.lan.ping(nic.ip));
    assert!(capture.wait(SOON).success());
    let bytes = fs::read(&file).unwrap();
    assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert!(bytes.windows(3).any(|w| w == b"mv0"), "the interface has its name");
    if Command::new("tcpdump").arg("--version").output().is_ok() {
        let output = Command::new("tcpdump").args(["-nr", file.to_str().unwrap()]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("ICMP echo request") && text.lines().count() == 4, "{output:?}");
    }
}

#[test]
fn a_server_shows_its_taps() {
    needs_root!();
    let lab = Lab::new();
    let (server, _client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let name = server.name();
    let capture = Program::start(&lab.server, &["capture", &nic.on_server, &name]);
    capture.wait_for_log(&["at the server"], SOON);
    site.lan.ping(nic.ip);
    let request = capture.wait_for_log(&["echo request"], SOON);
    assert!(request.contains(" in "), "the same way as at the client: {request}");
}

#[test]
fn a_nic_that_is_not_there_is_said_with_those_there_are() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let name = client.name();
    let output = lab.server.try_exec(&[TAP_RS, "capture", "eth7", &name]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("eth7") && said.contains("there are: mv0"), "{said}");
}

#[test]
fn a_reader_that_is_slow_loses_frames_of_its_own_and_delays_none() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let name = client.name();
    // Nobody reads the pipe, which holds 64 KiB.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = site.client.command(TAP_RS);
    let mut capture = command.args(["capture", "mv0", &name, "-w", "-"]).stdout(writer).spawn().unwrap();
    drop(command);
    // But for the file's first block: the capture has begun.
    std::io::Read::read_exact(&mut reader, &mut [0; 28]).unwrap();
    let socket = site.lan.packet_socket("eth0");
    let frame = ethernet(nic.mac, [2, 0, 0, 0, 0, 9], 0x88b6, &[7; 1400]);
    let end = std::time::Instant::now() + SOON;
    // More than the pipe, the sockets and the queue hold.
    for i in 0..6000 {
        while socket.send(&frame).is_err() {
            assert!(std::time::Instant::now() < end);
        }
        if i % 500 == 0 {
            site.lan.ping(nic.ip);
        }
    }
    site.lan.ping(nic.ip);
    let file = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &reader, &mut bytes).unwrap();
        bytes
    });
    // `ip netns exec` becomes the program: a signal reaches it.
    let pid = capture.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(capture.wait().unwrap().success());
    let bytes = file.join().unwrap();
    // Interface statistics, at the end: isb_ifdrop is not 0.
    let block = &bytes[bytes.len() - 52..];
    assert_eq!(block[..4], [5, 0, 0, 0], "{block:02x?}");
    let lost = u64::from_le_bytes(block[36..44].try_into().unwrap());
    assert!(lost > 0, "{block:02x?}");
}
