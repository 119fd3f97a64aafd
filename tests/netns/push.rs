//! What the server sets on a client, and what the client lets it set.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::common::lab::{Edit, Lab, NIC_READY, SESSION, SOON};
use crate::common::program::Program;
use crate::common::traffic::tcp;
use crate::needs_root;

fn remote(top: &str) -> Edit {
    Edit { remote: true, top: top.to_owned(), ..Edit::default() }
}

#[test]
fn a_client_with_keys_and_an_address_gets_its_nics() {
    needs_root!();
    let lab = Lab::plan().nics(2).lan_mtu(1400).build();
    let (_server, _client) = lab.up(&Edit::default(), &remote(""));
    let site = &lab.sites[0];
    for nic in &site.nics {
        site.lan.ping(nic.ip);
        assert_eq!(site.lan.neighbour(nic.ip), Some(nic.mac_text()));
        let link = site.client.ip(&format!("-d link show {}", nic.on_client));
        assert!(link.contains("macvtap") && link.contains("mtu 1400"), "{link}");
        assert!(!site.client.ip(&format!("addr show {}", nic.on_client)).contains("inet 10."));
    }
    tcp(&site.lan, &lab.server, site.nics[1].ip, 1_000_000, 1_000_000);
}

#[test]
fn the_server_decides_the_clients_mode() {
    needs_root!();
    let lab = Lab::new();
    let server = Edit { top: "client_tap_mode = \"tap\"".into(), ..Edit::default() };
    let (_server, _client) = lab.up(&server, &remote(""));
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let link = site.client.ip(&format!("-d link show {}", nic.on_client));
    assert!(link.contains("tun type tap"), "{link}");
    crate::forward::bridge(&site.client, "lan0", &nic.on_client);
    site.lan.ping(nic.ip);
}

#[test]
fn more_nics_than_the_client_allows_are_refused() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let _server = lab.start_server(&Edit::default());
    let limits = Edit { server: "[limits]\nmax_nics = 1".into(), ..remote("") };
    let client = lab.start_client(0, &limits);
    client.wait_for_log(&["max_nics"], SOON);
    assert_eq!(client.count(&[NIC_READY]), 0);
    assert!(lab.sites[0].nics.iter().all(|nic| !lab.sites[0].client.has_link(&nic.on_client)));
}

#[test]
fn a_parent_that_the_client_does_not_allow_is_refused() {
    needs_root!();
    let lab = Lab::new();
    let elsewhere =
        lab.server_toml(&Edit::default()).replace("client_parent = \"lan0\"", "client_parent = \"wan0\"");
    lab.write("server.toml", elsewhere);
    let server = lab.run_server();
    server.wait_for_log(&[NIC_READY], SOON);
    let client = lab.start_client(0, &remote(""));
    client.wait_for_log(&["wan0", "parents"], SOON);
    assert!(!lab.sites[0].client.has_link("mv0"));
}

/// A server that pushes a script, and a client with a policy for it.
struct Pushed {
    lab: Lab,
    server: Program,
    client: Program,
    proof: PathBuf,
}

/// `PROOF` in the script's text stands for a file that it can show its work in.
fn push(text: &str, policy: impl Fn(&[u8]) -> String) -> Pushed {
    let lab = Lab::new();
    let proof = lab.dir().join("proof");
    let text = text.replace("PROOF", proof.to_str().unwrap());
    lab.write("script.sh", &text);
    let server = lab.start_server(&Edit { server: "script_path = \"script.sh\"".into(), ..Edit::default() });
    let client = lab.start_client(0, &remote(&policy(text.as_bytes())));
    Pushed { lab, server, client, proof }
}

fn any(_: &[u8]) -> String {
    "script = \"any\"".into()
}

fn pinned(text: &[u8]) -> String {
    let sum: String = Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect();
    format!("script = \"pinned\"\nscript_sha256 = [\"{sum}\"]")
}

#[test]
fn no_script_runs_on_a_client_that_says_nothing_about_scripts() {
    needs_root!();
    let pushed = push("touch PROOF", |_| String::new());
    pushed.client.wait_for_log(&["script_sha256"], SOON);
    assert!(!pushed.proof.exists());
}

#[test]
fn a_pinned_script_runs_and_another_does_not() {
    needs_root!();
    let pushed = push("touch PROOF", pinned);
    pushed.client.wait_for_log(&[NIC_READY], SOON);
    assert!(pushed.proof.exists());

    let pushed = push("touch PROOF", |_| pinned(b"something else"));
    pushed.client.wait_for_log(&["script_sha256"], SOON);
    assert!(!pushed.proof.exists());
}

#[test]
fn the_script_runs_before_the_nics_are_there_and_what_it_says_is_logged() {
    needs_root!();
    let pushed = push("ip link show mv0 >PROOF 2>&1; printf 'one\\033[31m\\n'; echo two >&2", any);
    pushed.client.wait_for_log(&["script", "one\\u{1b}[31m"], SOON);
    pushed.client.wait_for_log(&["script", "two"], SOON);
    pushed.client.wait_for_log(&[NIC_READY], SOON);
    let text = fs::read_to_string(&pushed.proof).unwrap();
    assert!(text.contains("does not exist"), "{text}");
    pushed.lab.sites[0].lan.ping(pushed.lab.sites[0].nics[0].ip);
}

#[test]
fn the_script_finds_nothing_of_the_clients() {
    needs_root!();
    let pushed = push(
        "{ tr '\\0' '\\n' </proc/$$/environ; pwd; umask; for fd in /proc/$$/fd/*; do readlink $fd; done; } >PROOF; exit 9",
        any,
    );
    let mut pushed = pushed;
    assert_eq!(pushed.client.wait(SOON).code(), Some(9));
    let text = fs::read_to_string(&pushed.proof).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("PATH=") && lines[1..3] == ["/", "0077"], "{text}");
    let foreign = |l: &&&str| {
        ["socket:", "/dev/net/tun", "/dev/tap", ".key", "anon_inode"].iter().any(|w| l.contains(w))
    };
    assert_eq!(lines.iter().find(foreign), None);
}

#[test]
fn the_client_ends_with_the_scripts_status() {
    needs_root!();
    std::thread::scope(|scope| {
        for (text, status) in [("exit 7", 7), ("kill -9 $$", 128 + 9), ("#!/bin/bash -e\nfalse", 1)] {
            scope.spawn(move || {
                let mut pushed = push(text, any);
                assert_eq!(pushed.client.wait(SOON).code(), Some(status), "{text}");
                pushed.server.wait_for_log(&["script_failed", &format!("code={status}")], SOON);
                assert!(!pushed.lab.sites[0].client.has_link("mv0"));
            });
        }
    });
}

#[test]
fn a_script_that_does_not_end_is_stopped_and_the_client_with_it() {
    needs_root!();
    let mut pushed =
        push("sleep 60 & echo $! >PROOF; sleep 60", |_| "script = \"any\"\nscript_timeout = 3".into());
    assert_eq!(pushed.client.wait(SOON).code(), Some(124));
    let child = fs::read_to_string(&pushed.proof).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "its child is still there: {stat}");
}

#[test]
fn a_client_that_is_stopped_takes_a_running_script_along() {
    needs_root!();
    let mut pushed = push("echo $$ >PROOF; echo started; sleep 60", any);
    pushed.client.wait_for_log(&["script", "started"], SOON);
    pushed.client.terminate();
    let pid = fs::read_to_string(&pushed.proof).unwrap();
    let gone = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    let end = std::time::Instant::now() + SOON;
    while !gone() {
        assert!(std::time::Instant::now() < end, "the script is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_interpreter_off_the_list_does_not_start() {
    needs_root!();
    let lab = Lab::new();
    let evil = lab.write("evil", format!("#!/bin/sh\ntouch {}/proof\n", lab.dir().display()));
    fs::set_permissions(&evil, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    lab.write("script.sh", format!("#!{}\n", evil.display()));
    let _server = lab.start_server(&Edit { server: "script_path = \"script.sh\"".into(), ..Edit::default() });
    let client = lab.start_client(0, &remote("script = \"any\""));
    client.wait_for_log(&["evil", "#!/bin/sh"], SOON);
    assert!(!lab.dir().join("proof").exists());
}

#[test]
fn a_script_runs_once_however_often_the_session_begins_anew() {
    needs_root!();
    let mut pushed = push("echo ran >>PROOF", any);
    pushed.client.wait_for_log(&[NIC_READY], SOON);
    pushed.server.kill9();
    let _server = pushed.lab.run_server();
    pushed.client.wait_for_nth(&[SESSION], 2, SOON);
    pushed.lab.sites[0].lan.ping(pushed.lab.sites[0].nics[0].ip);
    assert_eq!(fs::read_to_string(&pushed.proof).unwrap(), "ran\n");
}
