//! A newcomer's ten likely mistakes. Each ends in one sentence that mends it, said by the program itself or by its doctor;
//! and what it says is then done, and works.
//!
//! The tenth, a clock that is wrong, is `a_clock_that_is_wrong_is_said_with_what_sets_it` in `runtime/doctor/machine.rs`: a
//! test cannot set this machine's clock.

use std::fs;
use std::process::Command;

use super::doctor::{doctor, finding};
use crate::common::frame::contains;
use crate::common::lab::{Edit, Lab, NIC_READY, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

/// What a program that does not start says.
#[track_caller]
fn refused(ns: &Ns, file: &std::path::Path) -> String {
    let output = ns.try_exec(&[TAP_RS, "-c", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[track_caller]
fn assert_has(said: &str, words: &[&str]) {
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

/// The text between the first backquotes, as a command to run.
fn command(said: &str) -> Vec<String> {
    said.split('`').nth(1).unwrap().split(' ').map(str::to_owned).collect()
}

fn run(ns: &Ns, said: &str) {
    let words = command(said);
    ns.exec(&words.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn wrong_key_of_the_server() {
    needs_root!();
    let mut lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    lab.keygen("another");
    let right = lab.client_toml(0, &Edit::default());
    let file = lab.write("c.toml", right.replace(lab.public_key("server"), lab.public_key("another")));
    let path = file.to_str().unwrap();
    let mut client = Program::start(&lab.sites[0].client, &["-c", path]);
    client.wait_for_log(&["no answer", "is public_key the server's own"], SOON);
    let (found, status) = doctor(&lab.sites[0].client, &["-c", path]);
    assert_eq!(status, 4);
    let said = finding(&found, "broken", &["no answer from UDP port 1234", "the box itself answers"]);
    assert_has(&said, &["compare [server] public_key here with `tap-rs pubkey < server.key`"]);
    client.terminate();
    lab.write("c.toml", right);
    let client = Program::start(&lab.sites[0].client, &["-c", path]);
    client.wait_for_log(&[SESSION], SOON);
}

#[test]
fn wrong_key_of_the_client() {
    needs_root!();
    let mut lab = Lab::new();
    lab.keygen("another");
    let right = lab.server_toml(&Edit::default());
    lab.write("server.toml", right.replace(lab.public_key("client0"), lab.public_key("another")));
    let server = lab.run_server();
    let client = lab.start_client(0, &Edit::default());
    client.wait_for_log(&["does not let this client in", lab.public_key("client0")], SOON);
    let file = lab.dir().join("client0.toml");
    let (found, _) = doctor(&lab.sites[0].client, &["-c", file.to_str().unwrap()]);
    let said = finding(&found, "broken", &["its public key is right, and it does not let this client in"]);
    assert_has(&said, &[&format!("list public_key = \"{}\" under [[clients]]", lab.public_key("client0"))]);
    lab.write("server.toml", right);
    server.reload();
    client.wait_for_log(&[SESSION], SOON);
}

#[test]
fn swapped_keys() {
    needs_root!();
    let lab = Lab::new();
    let (ns, plain) = (&lab.sites[0].client, lab.client_toml(0, &Edit::default()));
    let server = lab.public_key("server");
    // Each other's files, the public key where the private one belongs, and the reverse.
    for (from, to, words) in [
        (
            "client0.key",
            "server.key",
            &["public key of this client's own private key", "write the server's"][..],
        ),
        (server, lab.public_key("client0"), &["public key of this client's own private key"]),
        ("client0.key", "client0.key.pub", &["is a public key's file", "the secret itself"]),
        (server, "server.key", &["server.key is a private key's file", "server.key.pub"]),
    ] {
        let said = refused(ns, &lab.write("wrong.toml", plain.replace(from, to)));
        assert_has(&said, words);
        let (found, status) = doctor(ns, &["-c", lab.dir().join("wrong.toml").to_str().unwrap()]);
        assert_eq!(status, 4);
        finding(&found, "broken", words);
    }
    let text = lab.server_toml(&Edit::default()).replace(lab.public_key("client0"), server);
    let said = refused(&lab.server, &lab.write("wrong.toml", text));
    assert_has(&said, &["public key of the server's own private key", "write the client's"]);
}

#[test]
fn address_in_use() {
    needs_root!();
    let lab = Lab::new();
    let other = lab.server.inside(|| std::net::UdpSocket::bind("0.0.0.0:1234").unwrap());
    let file = lab.write("server.toml", lab.server_toml(&Edit::default()));
    let said = refused(&lab.server, &file);
    assert_has(&said, &["cannot listen on 0.0.0.0:1234", "another program has this port", "`ss -ulpn`"]);
    let (found, status) = doctor(&lab.server, &["-c", file.to_str().unwrap()]);
    assert_eq!(status, 4);
    let said = finding(&found, "broken", &["another program has UDP port 1234", "end it, or choose another"]);
    assert_has(&said, &["`ss -ulpn 'sport = :1234'`"]);
    drop(other);
    lab.run_server().wait_for_log(&[NIC_READY], SOON);
}

#[test]
fn port_blocked() {
    needs_root!();
    let lab = Lab::new();
    lab.server.exec(&["nft", "add table inet filter"]);
    lab.server
        .exec(&["nft", "add chain inet filter input { type filter hook input priority 0; policy drop; }"]);
    let _server = lab.start_server(&Edit::default());
    let client = lab.start_client(0, &Edit::default());
    client.wait_for_log(&["no answer", "does its firewall let this UDP port in"], SOON);
    let client_file = lab.dir().join("client0.toml");
    let (found, _) = doctor(&lab.sites[0].client, &["-c", client_file.to_str().unwrap()]);
    finding(&found, "broken", &["no answer from UDP port 1234", "let the port in"]);
    let file = lab.dir().join("server.toml");
    let (found, status) = doctor(&lab.server, &["-c", file.to_str().unwrap()]);
    assert_eq!(status, 4, "there is no session either");
    let said = finding(&found, "warning", &["drops what no rule lets pass", "UDP port 1234"]);
    run(&lab.server, &said);
    client.wait_for_log(&[SESSION], SOON);
    let (found, _) = doctor(&lab.server, &["-c", file.to_str().unwrap()]);
    finding(&found, "ok", &["no rule here was found"]);
}

#[test]
fn mtu_too_large() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let ns = &lab.sites[0].client;
    let file = lab.write("c.toml", lab.client_toml(0, &Edit::default()).replace("mtu = 1500", "mtu = 9000"));
    let said = refused(ns, &file);
    assert_has(&said, &["mv0 cannot have MTU 9000", "lan0, which it stands on, has 1500"]);
    assert_eq!(command(&said), ["ip", "link", "set", "lan0", "mtu", "9000"]);
    let (found, _) = doctor(ns, &["-c", file.to_str().unwrap()]);
    finding(
        &found,
        "broken",
        &["lan0, which it stands on, has 1500", "`ip link set lan0 mtu 9000`", "mtu = 1500"],
    );
    run(ns, &said);
    Program::start(ns, &["-c", file.to_str().unwrap()]).wait_for_log(&[SESSION], SOON);
}

#[test]
fn nic_name_taken() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let ns = &lab.sites[0].client;
    ns.ip("link add mv0 type bridge");
    let file = lab.write("c.toml", lab.client_toml(0, &Edit::default()));
    let said = refused(ns, &file);
    assert_has(&said, &["mv0 is a bridge interface, not a macvtap", "choose another name"]);
    let (found, _) = doctor(ns, &["-c", file.to_str().unwrap()]);
    finding(&found, "broken", &["mv0 is a bridge interface", "choose another `ifname`"]);
    run(ns, &said);
    Program::start(ns, &["-c", file.to_str().unwrap()]).wait_for_log(&[SESSION], SOON);
}

#[test]
fn no_root() {
    needs_root!();
    let lab = Lab::new();
    let program = lab.dir().join("tap-rs");
    fs::copy(TAP_RS, &program).unwrap();
    lab.write("c.toml", lab.client_toml(0, &Edit::default()));
    let all = |path: &std::path::Path| std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    fs::read_dir(lab.dir()).unwrap().for_each(|entry| all(&entry.unwrap().path()));
    all(lab.dir());
    let nobody = |args: &[&str]| {
        let mut command: Command = lab.sites[0].client.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(args);
        command.current_dir(lab.dir()).output().unwrap()
    };
    let output = nobody(&["-c", "c.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(contains(&output.stderr, b"run as root"), "{output:?}");
    let output = nobody(&["doctor", "-c", "c.toml"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(contains(&output.stdout, b"BROKEN   root       you are not root"), "{output:?}");
    assert!(contains(&output.stdout, b"`sudo tap-rs doctor`"), "{output:?}");
}

#[test]
fn old_config() {
    needs_root!();
    let lab = Lab::new();
    // As the original's README has it: no keys, for the original had none.
    let old = "log = \"info\"\nis_daemon = false\nrun_mode = \"client\"\ntap_mode = \"macvtap\"\nreply_arp = false\n\
               [server]\nbind_addr = \"172.31.0.1:1234\"\n\
               [[nics]]\nifname = \"mv0\"\nip = \"18.8.80.150/24\"\nmac = \"be:17:dd:5c:07:17\"\n";
    let file = lab.write("old.toml", old);
    let said = refused(&lab.sites[0].client, &file);
    assert_has(&said, &["this is a config of the original tap-rs", "`tap-rs migrate "]);
    let (found, status) = doctor(&lab.sites[0].client, &["-c", file.to_str().unwrap()]);
    assert_eq!(status, 4);
    finding(&found, "broken", &["config of the original tap-rs", "`tap-rs migrate "]);
    // What it says is done, as it says it; then one sentence says what only the user can know.
    let words = command(&said);
    let mut migrate = Command::new(TAP_RS);
    let output = migrate.args(&words[1..]).current_dir(lab.dir()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = refused(&lab.sites[0].client, &lab.dir().join("new.toml"));
    assert_has(&said, &["SERVER_PUBLIC_KEY stands for the public key of the server", "`tap-rs keygen`"]);
}

#[test]
fn dns_dead() {
    needs_root!();
    let lab = Lab::new();
    let server_addr = Some("tunnel.example.invalid:1234".to_owned());
    let client = lab.start_client(0, &Edit { server_addr, ..Edit::default() });
    let words =
        ["cannot resolve the server's name", "/etc/resolv.conf", "write the server's address in bind_addr"];
    client.wait_for_log(&words, std::time::Duration::from_secs(30));
    let file = lab.dir().join("client0.toml");
    let (found, status) = doctor(&lab.sites[0].client, &["-c", file.to_str().unwrap()]);
    assert_eq!(status, 4);
    let said = finding(&found, "broken", &["tunnel.example.invalid cannot be resolved"]);
    assert_has(&said, &["/etc/resolv.conf", "or write the server's address in [server] bind_addr"]);
    assert_eq!(client.count(&words[..1]), 1, "once, however often it is tried");
}
