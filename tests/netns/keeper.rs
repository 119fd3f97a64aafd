//! The two processes: what the tunnel has given up and says to nobody, and what is left to the keeper: taking NICs down
//! when the program is killed, and being small until then.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::common::lab::{Edit, Lab, SOON};
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

/// The process number of a program's keeper.
pub fn keeper_of(program: &Program) -> u32 {
    let pid = program.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let mut children = children.split_whitespace();
    let keeper = children.next().expect("a keeper").parse().unwrap();
    assert_eq!(children.next(), None, "and no other child");
    assert_eq!(fs::read_to_string(format!("/proc/{keeper}/comm")).unwrap(), "tap-rs-keeper\n");
    keeper
}

#[track_caller]
pub fn until(what: &str, patience: Duration, holds: impl Fn() -> bool) {
    let end = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < end, "{what} within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[test]
fn the_nics_of_a_killed_client_are_gone_at_once_and_so_is_its_keeper() {
    needs_root!();
    let lab = Lab::plan().nics(3).build();
    let (_server, mut client) = lab.up_plain();
    let (site, keeper) = (&lab.sites[0], keeper_of(&client));
    site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));
    client.kill9();
    let left = || site.nics.iter().any(|nic| site.client.has_link(&nic.on_client));
    until("its macvtaps are gone", SOON, || !left());
    until("its keeper has ended", SOON, || gone(keeper));
}

#[test]
fn what_a_killed_client_did_not_make_is_set_down_and_stays() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.client.ip(&format!("link add link lan0 name {} type macvtap mode bridge", nic.on_client));
    let (_server, mut client) = lab.up_plain();
    site.lan.ping(nic.ip);
    let is_up = || site.client.ip(&format!("link show {}", nic.on_client)).contains(",UP");
    assert!(is_up());
    client.kill9();
    until("it is down", SOON, || !is_up());
}

#[test]
fn a_killed_server_leaves_no_interface() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let (mut server, _client) = lab.up_plain();
    server.kill9();
    let left = || lab.sites[0].nics.iter().any(|nic| lab.server.has_link(&nic.on_server));
    until("its taps are gone", SOON, || !left());
}

#[test]
fn the_keeper_is_small_and_ends_with_its_program() {
    needs_root!();
    let lab = Lab::new();
    let (server, client) = lab.up_plain();
    for mut program in [client, server] {
        let keeper = keeper_of(&program);
        let rollup = fs::read_to_string(format!("/proc/{keeper}/smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|l| l.strip_prefix("Private_Dirty:")).unwrap();
        let kb: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kb < 1024, "{kb} kB are the keeper's own");
        program.terminate();
        assert!(gone(keeper), "the keeper has ended before the program has");
    }
}

#[test]
fn a_script_still_gets_what_root_has() {
    needs_root!();
    let lab = Lab::new();
    lab.write("script.sh", "ip link add br9 type bridge");
    let server = Edit { server: "script_path = \"script.sh\"".into(), ..Edit::default() };
    let client = Edit { remote: true, top: "script = \"any\"".into(), ..Edit::default() };
    let _programs = lab.up(&server, &client);
    assert!(lab.sites[0].client.has_link("br9"));
}

#[test]
fn the_tunnel_keeps_one_capability_and_gets_no_more() {
    needs_root!();
    let lab = Lab::new();
    let (server, client) = lab.up_plain();
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    for program in [&server, &client] {
        for task in fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let field = |key: &str| {
                let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
                line.trim().to_owned()
            };
            // CAP_NET_ADMIN is bit 12.
            assert_eq!([field("CapEff:"), field("CapPrm:")], ["0000000000001000"; 2], "{status}");
            let none = "0000000000000000";
            assert_eq!([field("CapInh:"), field("CapBnd:"), field("CapAmb:")], [none; 3], "{status}");
            assert_eq!([field("NoNewPrivs:"), field("Seccomp:")], ["1", "2"], "{status}");
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", program.pid())).unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
}

#[test]
fn a_log_of_everything_holds_no_secret() {
    needs_root!();
    let lab = Lab::new();
    let psk = Command::new(TAP_RS).arg("genpsk").output().unwrap().stdout;
    lab.write("site0.psk", &psk);
    lab.write("script.sh", "echo hello");
    let server = Edit {
        top: "log = \"trace\"".into(),
        server: "script_path = \"script.sh\"".into(),
        client: "psk = \"site0.psk\"".into(),
        ..Edit::default()
    };
    let client = Edit {
        remote: true,
        top: "log = \"trace\"\nscript = \"any\"\npsk = \"site0.psk\"".into(),
        ..Edit::default()
    };
    let (mut server, mut client) = lab.up(&server, &client);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    client.rekey();
    client.wait_for_log(&["renewed"], SOON);
    server.reload();
    server.wait_for_log(&["reloaded"], SOON);
    client.terminate();
    server.terminate();
    let log = [client.lines(), server.lines()].concat().join("\n").to_lowercase();
    assert!(log.contains("debug") && log.contains("session ended"));
    for file in ["client0.key", "server.key", "site0.psk"] {
        let text = fs::read_to_string(lab.dir().join(file)).unwrap();
        let text = text.trim();
        let bytes = STANDARD.decode(text).unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        // A part would be bad enough.
        for needle in [&text[..20], &hex[..20], &hex[44..], &list[..6].join(", ")] {
            assert!(!log.contains(&needle.to_lowercase()), "{file} is in the log as {needle}");
        }
    }
}
