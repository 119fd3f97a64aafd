//! `tap-rs status`, asked of real programs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::Value;

use crate::common::lab::{Edit, Lab, SOON};
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

/// What a program says of itself once it says what is wanted.
pub fn status(lab: &Lab, program: &Program, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + SOON;
    loop {
        // By its name: all that run here are others' tests, too.
        let output = lab.server.try_exec(&[TAP_RS, "status", "--json", &program.name()]);
        let mine = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
        if mine["pid"] == program.pid() && wanted(&mine) {
            return mine;
        }
        assert!(Instant::now() < end, "{mine:#} {}", String::from_utf8_lossy(&output.stderr));
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

    let measured = |v: &Value| v["peers"][0]["rtt_us"].is_number() && v["peers"][0]["datagram_bytes"] == 1472;
    let c = status(&lab, &client, measured);
    assert_eq!(c["role"], "client");
    for (nic, told) in site.nics.iter().zip(c["nics"].as_array().unwrap()) {
        assert_eq!(told["name"], nic.on_client.as_str());
        assert_eq!(told["state"], "up");
        assert_eq!(told["mac"], nic.mac_text());
        assert!(told["uplink"]["frames"].as_u64().unwrap() > 0, "{told:#}");
    }
    assert_eq!(c["plane"]["drops"]["unauthentic"], Value::Null);
}

/// The kernel's answer is there when the write returns: reading it takes no second wake-up.
#[test]
fn a_ping_wakes_the_servers_worker_once() {
    const PINGS: u64 = 200;
    needs_root!();
    let lab = Lab::new();
    let (server, _client) = lab.up_plain();
    let (lan, ip) = (&lab.sites[0].lan, lab.sites[0].nics[0].ip);
    lan.ping(ip);
    let wakeups = || status(&lab, &server, |_| true)["plane"]["wakeups"].as_u64().unwrap();
    let before = wakeups();
    lan.exec(&["ping", "-q", "-i", "0.01", "-c", &PINGS.to_string(), &ip.to_string()]);
    let woke = wakeups() - before;
    assert!((PINGS..PINGS * 3 / 2).contains(&woke), "{woke} times for {PINGS} pings");
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
fn both_sides_know_what_is_lost_each_way() {
    needs_root!();
    let lab = Lab::new();
    let (server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    lab.server.exec(&["nft", "add table inet lossy"]);
    lab.server.exec(&["nft", "add chain inet lossy in { type filter hook input priority 0; }"]);
    lab.server.exec(&["nft", "add rule inet lossy in udp dport 1234 numgen inc mod 5 == 0 drop"]);
    // Answers to these are not waited for; one datagram each.
    let _ = site.lan.try_exec(&["ping", "-q", "-c", "300", "-i", "0.002", "-W", "1", &nic.ip.to_string()]);

    let lost = |v: &Value, way: &str| v["peers"][0][way]["recent_percent"].as_f64().unwrap_or(0.0);
    let s = status(&lab, &server, |v| lost(v, "loss_in") > 10.0);
    assert_eq!(lost(&s, "loss_out"), 0.0, "{s:#}");
    let c = status(&lab, &client, |v| lost(v, "loss_out") > 10.0);
    assert_eq!(lost(&c, "loss_in"), 0.0, "{c:#}");
    for (told, way) in [(&s, "loss_in"), (&c, "loss_out")] {
        let loss = &told["peers"][0][way];
        assert!(loss["expected"].as_u64() > loss["arrived"].as_u64(), "{loss:#}");
        assert!(lost(told, way) < 30.0, "{loss:#}");
    }
    let peer = &c["peers"][0];
    assert!(peer["jitter_us"].is_number() && c["memory_kb"].as_u64().unwrap() > 100, "{c:#}");
    assert!(c["nics"][0]["uplink"]["last_s"].as_u64().unwrap() < 60, "{c:#}");
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
    let (server, _client) = lab.up_plain();
    status(&lab, &server, |v| v["peers"][0]["state"] == "established");
    let text = lab.server.exec(&[TAP_RS, "status", &server.name()]);
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
    let mine = status(&lab, &server, |_| true);
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

/// Fifty clients with ten NICs each, none of them there.
fn large(lab: &Lab) -> String {
    let mut text = "run_mode = \"server\"\nprivate_key = \"server.key\"\nmetrics = 9095\n[server]\n\
                    bind_addr = \"0.0.0.0:1234\"\n"
        .to_owned();
    for client in 0..50 {
        let key = tap_rs::keys::PrivateKey::generate(&mut rand::rng()).public();
        text += &format!("[[clients]]\nname = \"site{client}\"\npublic_key = \"{key}\"\n");
        for nic in 0..10 {
            text += &format!(
                "[[clients.nics]]\nifname = \"t{client}x{nic}\"\nip = \"10.{client}.{nic}.1/24\"\n\
                 mac = \"02:00:00:00:{client:02x}:{nic:02x}\"\n"
            );
        }
    }
    lab.write("large.toml", text).to_str().unwrap().to_owned()
}

#[test]
fn fifty_clients_and_five_hundred_nics_stay_readable_and_cheap() {
    needs_root!();
    let lab = Lab::new();
    let server = Program::start(&lab.server, &["-c", &large(&lab)]);
    server.wait_for_log(&["server started"], SOON * 6);
    status(&lab, &server, |_| true);
    let name = server.name();
    let asked = || lab.server.exec(&[TAP_RS, "status", &name]);
    let own = asked();
    assert!(own.lines().all(|line| line.chars().count() <= 80), "{own}");
    assert!(own.contains("t49x9") && own.lines().count() < 700, "{own}");

    // Each look is one answer a second for whoever watches: a hundredth of a core is 10 ms.
    let cost = |look: &dyn Fn(), times: u32| {
        let before = server.cpu();
        (0..times).for_each(|_| look());
        (server.cpu() - before) / times
    };
    let socket = cost(&|| drop(asked()), 30);
    let scrape = cost(
        &|| {
            let curl =
                "exec 3<>/dev/tcp/127.0.0.1/9095; printf 'GET /metrics HTTP/1.1\\r\\n\\r\\n' >&3; cat <&3";
            let text = lab.server.exec(&["bash", "-c", curl]);
            assert!(text.contains("nic=\"t49x9\""));
            std::thread::sleep(std::time::Duration::from_millis(500));
        },
        10,
    );
    println!("a look costs the server {socket:?}, a scrape {scrape:?}");
    // Without optimization the same takes some ten times as long.
    let most = std::time::Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 10 });
    assert!(socket < most && scrape < most, "{socket:?}, {scrape:?}");
}
