//! `tap-rs clients`, beside a server that runs.

use std::time::{Duration, Instant};

use crate::common::lab::{Edit, Lab, NIC_READY, SESSION, SOON};
use crate::common::program::TAP_RS;
use crate::needs_root;

fn remote() -> Edit {
    Edit { remote: true, ..Edit::default() }
}

/// `tap-rs clients` on the server; what it says.
#[track_caller]
fn clients(lab: &Lab, args: &[&str]) -> String {
    let file = lab.dir().join("server.toml");
    lab.server.exec(&[&[TAP_RS, "clients", "-c", file.to_str().unwrap()], args].concat())
}

#[test]
fn a_removed_client_is_gone_within_a_second_and_can_be_added_again() {
    needs_root!();
    let lab = Lab::plan().sites(2).build();
    let server = lab.start_server(&Edit::default());
    let programs = [lab.start_client(0, &remote()), lab.start_client(1, &remote())];
    for (client, site) in programs.iter().zip(&lab.sites) {
        client.wait_for_log(&[NIC_READY], SOON);
        site.lan.ping(site.nics[0].ip);
    }
    let said = clients(&lab, &["remove", "site0"]);
    // The command has waited for it: nothing is left of it from here on.
    assert!(said.contains("- client site0") && said.contains("- nic tap0x0"), "{said}");
    assert!(!lab.server.has_link("tap0x0"));
    assert!(!lab.sites[0].lan.answers(lab.sites[0].nics[0].ip, Duration::from_millis(500)));
    assert_eq!(clients(&lab, &["list"]).lines().count(), 1);
    let nic = &lab.sites[0].nics[0];
    let spec = format!("ip={}/24,mac={},ifname=tap0x0", nic.ip, nic.mac_text());
    clients(&lab, &["add", "site0", lab.public_key("client0"), "--nic", &spec]);
    server.wait_for_nth(&[SESSION, "site0"], 2, SOON);
    lab.sites[0].lan.ping(nic.ip);
    lab.sites[1].lan.ping(lab.sites[1].nics[0].ip);
    assert_eq!(programs[1].count(&[SESSION]), 1, "the other client was left alone");
}

#[test]
fn two_keys_overlap_and_then_the_old_one_ends() {
    needs_root!();
    let mut lab = Lab::new();
    lab.keygen("renewed");
    let (server, client) = lab.up(&Edit::default(), &remote());
    let (site, key) = (&lab.sites[0], lab.public_key("renewed").to_owned());
    let said = clients(&lab, &["rotate", "site0", &key]);
    assert!(said.contains("~ client site0: key") && said.contains(&key), "{said}");
    site.lan.ping(site.nics[0].ip);
    assert_eq!(client.count(&[SESSION]), 1, "the old key goes on");
    // The client changes its key while it runs.
    let text = lab.client_toml(0, &remote()).replace("client0.key", "renewed.key");
    let file = lab.write("client0.toml", text);
    let said = site.client.exec(&[TAP_RS, "reload", file.to_str().unwrap()]);
    assert!(said.contains("a new one") && said.ends_with("reloaded\n"), "{said}");
    client.wait_for_nth(&[SESSION], 2, SOON);
    site.lan.ping(site.nics[0].ip);
    clients(&lab, &["rotate", "site0", "--finish"]);
    site.lan.ping(site.nics[0].ip);
    assert_eq!(server.count(&[NIC_READY, "tap0x0"]), 1);
    // The old key is a stranger's now.
    drop(client);
    let old = lab.start_client(0, &remote());
    server.wait_for_log(&["no client has this key", lab.public_key("client0")], SOON);
    assert_eq!(old.count(&[SESSION]), 0);
}

#[test]
fn finishing_a_rotation_ends_a_session_by_the_old_key_at_once() {
    needs_root!();
    let mut lab = Lab::new();
    lab.keygen("renewed");
    let (_server, client) = lab.up(&Edit::default(), &remote());
    clients(&lab, &["rotate", "site0", lab.public_key("renewed")]);
    let start = Instant::now();
    clients(&lab, &["rotate", "site0", "--finish"]);
    client.wait_for_log(&["session ended"], SOON);
    assert!(!lab.sites[0].lan.answers(lab.sites[0].nics[0].ip, Duration::from_millis(300)));
    assert!(start.elapsed() < SOON);
}

#[test]
fn what_the_running_server_cannot_do_is_taken_back() {
    needs_root!();
    let lab = Lab::new();
    let (_server, _client) = lab.up(&Edit { nics: None, ..Edit::default() }, &remote());
    // The only client's NICs stand at the top level; below it they may have neighbours.
    let file = lab.dir().join("server.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("[[nics]]", "[[clients.nics]]");
    lab.write("server.toml", &text);
    lab.server.ip("link add busy type veth peer name busy2");
    let output = lab.server.try_exec(&[
        TAP_RS,
        "clients",
        "add",
        "x",
        lab.public_key("server"),
        "-c",
        file.to_str().unwrap(),
    ]);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && why.contains("the server's own private key"), "{why}");
    let mut lab = lab;
    lab.keygen("x");
    let args = ["clients", "add", "x", lab.public_key("x"), "--nic", "ip=10.9.9.9/24,ifname=busy", "-c"];
    let output = lab.server.try_exec(&[&[TAP_RS], &args[..], &[file.to_str().unwrap()]].concat());
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && why.contains("as it was") && why.contains("busy"), "{why}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
}
