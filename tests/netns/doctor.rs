//! `tap-rs doctor`, on real tunnels, sound and broken.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::capture::{drain, first};
use crate::common::frame::ethernet;
use crate::common::lab::{Edit, Lab, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

/// What is found, and the exit status.
pub fn doctor(ns: &Ns, args: &[&str]) -> (Value, i32) {
    let output = ns.try_exec(&[&[TAP_RS, "doctor", "--json"], args].concat());
    let document = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (document, output.status.code().unwrap())
}

/// The sentence of a finding, and what mends it, as one.
#[track_caller]
pub fn finding(found: &Value, severity: &str, words: &[&str]) -> String {
    let all = found["findings"].as_array().unwrap();
    let text = |f: &Value| format!("{}; {}", f["what"].as_str().unwrap(), f["mend"].as_str().unwrap_or(""));
    let wanted = |f: &&Value| f["severity"] == severity && words.iter().all(|w| text(f).contains(w));
    all.iter().find(wanted).map(text).unwrap_or_else(|| panic!("no {severity} with {words:?}: {found:#}"))
}

/// The outcome of each proof, and its reason where it has one.
fn outcomes(found: &Value) -> Vec<String> {
    let proofs = found["proofs"].as_array().unwrap();
    proofs.iter().map(|p| p["outcome"].as_str().unwrap().to_owned()).collect()
}

/// Does what a finding says.
fn mend(ns: &Ns, said: &str) {
    ns.exec(&said.split('`').nth(1).unwrap().split(' ').collect::<Vec<_>>());
}

/// Both ends say all is well.
fn up(lab: &Lab) -> (Program, Program, String, String) {
    let (server, client) = lab.up_plain();
    let names = (server.name(), client.name());
    (server, client, names.0, names.1)
}

#[test]
fn a_sound_tunnel_is_proven_from_both_sides_hop_by_hop() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let (_s, _c, server, client) = up(&lab);
    for (ns, name) in [(&lab.sites[0].client, &client), (&lab.server, &server)] {
        let (found, status) = doctor(ns, &[name]);
        assert!([0, 3].contains(&status), "{found:#}");
        assert_eq!(outcomes(&found), ["passed"; 4], "{found:#}");
        for proof in found["proofs"].as_array().unwrap() {
            let micros = |key: &str| proof[key].as_u64().unwrap_or_else(|| panic!("{key}: {proof:#}"));
            assert!(micros("round_trip_us") >= micros("network_us"), "{proof:#}");
            assert!(micros("there_us") > 0 && micros("back_us") > 0 && micros("here_us") > 0, "{proof:#}");
            assert_eq!(proof["far_mtu"], 1500);
        }
        let lengths: Vec<_> = found["proofs"].as_array().unwrap().iter().map(|p| &p["bytes"]).collect();
        assert_eq!(lengths, [60, 1514, 60, 1514]);
        let broken = found["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == "broken");
        assert_eq!(broken.count(), 0, "{found:#}");
    }
}

#[test]
fn a_marked_frame_is_in_the_servers_nic_and_never_on_the_lan() {
    needs_root!();
    let lab = Lab::new();
    let (_s, _c, server, client) = up(&lab);
    let (mut lan, mut tap) = (lab.sites[0].lan.packet_socket("eth0"), lab.server.packet_socket("tap0x0"));
    drain(&mut lan);
    doctor(&lab.sites[0].client, &[&client]);
    doctor(&lab.server, &[&server]);
    let marked = |p: &tap_rs::sys::packet::Packet| p.bytes[12..].starts_with(b"\x88\xb5tapprobe");
    let long = |p: &tap_rs::sys::packet::Packet| marked(p) && p.bytes.len() == 1514;
    assert!(first(&mut tap, SOON, long).is_some(), "it was written into the tap");
    assert!(first(&mut lan, Duration::from_millis(300), marked).is_none());
}

#[test]
fn marked_frames_that_nobody_waits_for_are_dropped() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client, ..) = up(&lab);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let mut tap = lab.server.packet_socket("tap0x0");
    drain(&mut tap);
    let forged = ethernet(nic.mac, [2, b't', b'a', b'p', b'r', b's'], 0x88b5, b"tapprobe01234567");
    let socket = site.lan.packet_socket("eth0");
    (0..20).for_each(|_| socket.send(&forged).unwrap());
    let end = Instant::now() + SOON;
    loop {
        let text = lab.server.exec(&[TAP_RS, "status", &client.name()]);
        if text.contains("stray_probe 20") {
            break;
        }
        assert!(Instant::now() < end, "{text}");
    }
    let marked = |p: &tap_rs::sys::packet::Packet| p.bytes[12..].starts_with(b"\x88\xb5");
    assert!(first(&mut tap, Duration::from_millis(300), marked).is_none(), "nor did one cross");
}

#[test]
fn a_hop_that_drops_is_named_with_its_counter() {
    needs_root!();
    let lab = Lab::new();
    // The server takes shorter frames than the client.
    lab.write("server.toml", lab.server_toml(&Edit::default()).replace("mtu = 1500", "mtu = 1400"));
    let server = lab.run_server();
    server.wait_for_log(&["nic ready"], SOON);
    let client = lab.start_client(0, &Edit::default());
    client.wait_for_log(&["nic ready"], SOON);
    let name = client.name();
    let (found, status) = doctor(&lab.sites[0].client, &[&name]);
    assert_eq!(status, 4, "{found:#}");
    finding(&found, "broken", &["comes to", "dropped there", "60 bytes passes", "oversize+1"]);
    finding(&found, "broken", &["MTU 1500 here and 1400 at", "the same `mtu` for it"]);
    assert_eq!(outcomes(&found), ["passed", "dropped_there"]);
}

#[test]
fn without_a_session_the_proof_says_so_and_why() {
    needs_root!();
    let lab = Lab::new();
    let client = lab.start_client(0, &Edit::default());
    client.wait_for_log(&["no answer"], SOON);
    let name = client.name();
    let (found, status) = doctor(&lab.sites[0].client, &[&name]);
    assert_eq!(status, 4);
    finding(&found, "broken", &["nobody listens on UDP port 1234", "start the server"]);
    finding(&found, "broken", &["mv0: there is no session"]);
    let _server = lab.start_server(&Edit::default());
    client.wait_for_log(&[SESSION], SOON);
}

#[test]
fn addresses_and_links_that_do_not_belong_are_found_with_what_takes_them_away() {
    needs_root!();
    let lab = Lab::new();
    let (ns, nic) = (&lab.sites[0].client, &lab.sites[0].nics[0]);
    // As the original wanted it: a macvtap made by hand, with the address on it. A tap-rs that runs would take it away.
    let file = lab.write("client0.toml", lab.client_toml(0, &Edit::default()));
    ns.ip("link add link lan0 name mv0 type macvtap mode bridge");
    ns.ip("addr add 10.80.0.77/24 dev mv0");
    let (found, status) = doctor(ns, &["-c", file.to_str().unwrap()]);
    assert_eq!(status, 4);
    mend(ns, &finding(&found, "broken", &["10.80.0.77", "`ip addr del 10.80.0.77 dev mv0`"]));
    ns.ip("link del mv0");
    let (_s, _c, _, client) = up(&lab);
    ns.ip(&format!("addr add {}/32 dev lan0", nic.ip));
    let (found, status) = doctor(ns, &[&client]);
    assert_eq!(status, 4);
    mend(ns, &finding(&found, "broken", &["lan0 has it as well", "dev lan0`"]));
    let (found, status) = doctor(ns, &[&client]);
    assert!(status < 4, "{found:#}");
    ns.ip("link set lan0 down");
    let (found, _) = doctor(ns, &[&client]);
    finding(&found, "broken", &["lan0, which mv0 stands on, is down", "`ip link set lan0 up`"]);
}

#[test]
fn a_narrow_path_is_noted() {
    needs_root!();
    let lab = Lab::new();
    for ns in [&lab.server, &lab.sites[0].client] {
        ns.ip("link set wan0 mtu 1280");
    }
    let (_s, _c, _, client) = up(&lab);
    // Once the search for the path's size has had its time.
    let end = Instant::now() + SOON * 2;
    loop {
        let (found, status) = doctor(&lab.sites[0].client, &[&client]);
        if found["findings"].as_array().unwrap().iter().any(|f| f["check"] == "path") {
            finding(&found, "note", &["datagrams of 12", "frames cross whole all the same"]);
            return assert_eq!(
                (status, &outcomes(&found)[..]),
                (0, &["passed".to_owned(), "passed".into()][..])
            );
        }
        assert!(Instant::now() < end, "{found:#}");
    }
}

#[test]
fn a_nic_that_still_asks_its_lan_for_its_address_is_waited_for() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let client = lab.start_client(0, &Edit::default());
    client.wait_for_log(&[SESSION], SOON);
    let (found, _) = doctor(&lab.sites[0].client, &[&client.name()]);
    assert_eq!(outcomes(&found), ["passed"; 2], "{found:#}");
}

#[test]
fn what_others_left_behind_is_found() {
    needs_root!();
    let lab = Lab::new();
    let (_s, _c, _, client) = up(&lab);
    let ns = &lab.sites[0].client;
    ns.ip("link add link lan0 name old0 type macvtap mode bridge");
    // A process number that nobody has: the highest that there can be is 2^22.
    ns.exec(&["ip", "link", "set", "old0", "alias", "made by tap-rs, process 4194304"]);
    let (found, _) = doctor(ns, &[&client]);
    let said = finding(&found, "warning", &["old0", "a tap-rs that is no more"]);
    assert!(said.contains("`ip link del old0`"), "{said}");
}

#[test]
fn from_another_namespace_it_is_said_how_to_look() {
    needs_root!();
    let lab = Lab::new();
    let (_s, client, _, name) = up(&lab);
    let (found, _) = doctor(&lab.sites[0].lan, &[&name]);
    finding(
        &found,
        "warning",
        &["another network namespace", &format!("`nsenter -t {} -n tap-rs doctor {name}`", client.pid())],
    );
    assert_eq!(outcomes(&found), ["passed"; 2], "the proof is made all the same");
}

#[test]
fn people_get_lines_that_say_how_bad_it_is() {
    needs_root!();
    let lab = Lab::new();
    let (_s, _c, _, name) = up(&lab);
    let output = lab.sites[0].client.try_exec(&[TAP_RS, "doctor", &name]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|l| ["ok ", "note ", "warning "].iter().any(|w| l.starts_with(w))), "{text}");
    assert!(text.contains("ok       proof      mv0: 1514 bytes to the NIC at"), "{text}");
}

#[test]
fn a_probe_shows_in_a_capture() {
    needs_root!();
    let lab = Lab::new();
    let (_s, _c, server, client) = up(&lab);
    let capture = Program::start(&lab.server, &["capture", "tap0x0", &server]);
    capture.wait_for_log(&["at the server"], SOON);
    doctor(&lab.sites[0].client, &[&client]);
    capture.wait_for_log(&[" in  doctor > nic", "1514", "(tap-rs doctor)"], SOON);
    capture.wait_for_log(&[" out nic > doctor", "1514", "(tap-rs doctor)"], SOON);
}
