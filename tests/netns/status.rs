//! `tap-rs status`, asked of real programs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::Value;

use crate::common::lab::{Edit, Lab, SOON};
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

/// What a program says of itself once it says what is wanted.
fn status(lab: &Lab, program: &Program, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + SOON;
    loop {
        let output = lab.server.exec(&[TAP_RS, "status", "--json"]);
        let mine = output
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|v| v["pid"] == program.pid())
            .expect("the program is among those that answer");
        if wanted(&mine) {
            return mine;
        }
        assert!(Instant::now() < end, "{mine:#}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn both_sides_say_how_they_are_doing() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let (server, client) = lab.up(&Edit::default(), &Edit::default());
    let site = &lab.sites[0];
    site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));

    let reported = |v: &Value| v["peers"][0]["report"].is_object() && v["peers"][0]["push"].is_object();
    let s = status(&lab, &server, reported);
    assert_eq!(s["role"], "server");
    assert_eq!(s["peers"][0]["name"], "site0");
    assert_eq!(s["peers"][0]["state"], "established");
    assert_eq!(s["peers"][0]["push"]["state"], "applied");
    assert!(s["peers"][0]["endpoint"].as_str().unwrap().starts_with("172.31.0.2:"), "{s:#}");
    assert!(s["peers"][0]["received"]["bytes"].as_u64().unwrap() > 0);

    let c = status(&lab, &client, |v| v["peers"][0]["rtt_us"].is_number());
    assert_eq!(c["role"], "client");
    assert_eq!(c["peers"][0]["datagram_bytes"], 1472);
    for (nic, told) in site.nics.iter().zip(c["nics"].as_array().unwrap()) {
        assert_eq!(told["name"], nic.on_client.as_str());
        assert_eq!(told["state"], "up");
        assert_eq!(told["mac"], nic.mac_text());
        assert!(told["uplink"]["frames"].as_u64().unwrap() > 0, "{told:#}");
    }
    assert_eq!(c["plane"]["drops"]["unauthentic"], Value::Null);
}

/// Handshakes are refused by control, not by a worker.
#[test]
fn handshakes_of_unknown_clients_are_counted() {
    needs_root!();
    let mut lab = Lab::new();
    lab.keygen("stranger");
    let server = lab.start_server(&Edit::default());
    let text = lab.client_toml(0, &Edit::default()).replace("client0.key", "stranger.key");
    let path = lab.write("client0.toml", text);
    let _client = Program::start(&lab.sites[0].client, &["-c", path.to_str().unwrap()]);
    status(&lab, &server, |v| v["plane"]["drops"]["unknown_key"].as_u64().is_some_and(|n| n > 0));
}

#[test]
fn what_is_dropped_is_told_with_its_reason() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    let stolen = crate::common::frame::ethernet([0xff; 6], [3, 0, 0, 0, 0, 9], 0x88b5, b"from a group");
    site.lan.packet_socket("eth0").send(&stolen).unwrap();
    status(&lab, &client, |v| v["nics"][0]["drops"]["source_not_unicast"] == 1);
}

#[test]
fn people_get_text_that_fits_their_terminal() {
    needs_root!();
    let lab = Lab::new();
    let (_server, _client) = lab.up_plain();
    let text = lab.server.exec(&[TAP_RS, "status"]);
    assert!(text.contains("site0") && text.contains("established"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_name_that_nobody_has_is_said_with_those_there_are() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let output = lab.server.try_exec(&[TAP_RS, "status", "no-such-name"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no-such-name") && said.contains("server"), "{said}");
}

#[test]
fn what_is_no_request_is_refused_in_one_sentence() {
    needs_root!();
    let lab = Lab::new();
    let server = lab.start_server(&Edit::default());
    let mine = status(&lab, &server, |v| v["pid"] == server.pid());
    let name =
        std::path::Path::new(mine["config"].as_str().unwrap()).file_stem().unwrap().display().to_string();
    let ask = |request: &str| {
        let path = |file: String| format!("/run/tap-rs/{file}.sock");
        let mut line = UnixStream::connect(path(format!("{name}-{}", server.pid())))
            .or_else(|_| UnixStream::connect(path(name.clone())))
            .unwrap();
        // Of what is too long only the start is read.
        let _ = line.write_all(request.as_bytes());
        let mut answer = String::new();
        let _ = line.read_to_string(&mut answer);
        answer
    };
    for bad in ["hello\n", "{\"ask\":\"sudo\"}\n", &"x".repeat(1 << 17)] {
        assert!(ask(bad).contains("does not understand") || bad.len() > 1 << 16, "{bad}");
    }
    status(&lab, &server, |v| v["role"] == "server");
}
