//! A config read again while the program runs: clients follow, nobody else is disturbed, mistakes change nothing.

use std::time::Duration;

use crate::common::lab::{Edit, Lab, NIC_GONE, NIC_READY, Nic, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::program::TAP_RS;
use crate::common::traces::until;
use crate::common::traffic::tcp;
use crate::needs_root;

fn with(nics: &[usize]) -> Edit {
    Edit { nics: Some(vec![nics.iter().map(|n| Nic::new(0, *n)).collect()]), ..Edit::default() }
}

fn remote() -> Edit {
    Edit { remote: true, ..Edit::default() }
}

#[test]
fn nics_appear_and_vanish_while_another_carries_traffic() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let (server, client) = lab.up(&with(&[0, 1]), &remote());
    let site = &lab.sites[0];
    let (kept, added) = (Nic::new(0, 0), Nic::new(0, 2));
    site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));
    std::thread::scope(|scope| {
        // A connection over the NIC that stays lives through it.
        let load = scope.spawn(|| tcp(&site.lan, &lab.server, kept.ip, 30_000_000, 30_000_000));
        lab.write("server.toml", lab.server_toml(&with(&[0, 2])));
        server.reload();
        client.wait_for_log(&[NIC_READY, "mv2"], SOON);
        client.wait_for_log(&[NIC_GONE, "mv1"], SOON);
        site.lan.ping(added.ip);
        until("mv1 and its twin are gone", SOON, || {
            !site.client.has_link("mv1") && !lab.server.has_link("tap0x1")
        });
        load.join().unwrap();
    });
    assert!(!site.lan.answers(Nic::new(0, 1).ip, Duration::from_millis(300)));
    assert_eq!(client.count(&[SESSION]), 1, "the session is still the first one");
    assert_eq!(client.count(&[NIC_READY, "mv0"]), 1, "the NIC that stays was left alone");
}

#[test]
fn a_changed_mtu_reaches_the_client() {
    needs_root!();
    let lab = Lab::new();
    let (server, _client) = lab.up(&with(&[0]), &remote());
    let site = &lab.sites[0];
    lab.write("server.toml", lab.server_toml(&Edit { nic: "mtu = 1400".into(), ..with(&[0]) }));
    server.reload();
    until("mtu 1400 on both ends", SOON, || {
        site.client.try_exec(&["ip", "link", "show", "mv0"]).stdout.windows(8).any(|w| w == b"mtu 1400")
            && lab.server.ip("link show tap0x0").contains("mtu 1400")
    });
    site.lan.ping(site.nics[0].ip);
}

#[test]
fn a_file_with_a_mistake_changes_nothing() {
    needs_root!();
    let lab = Lab::new();
    let (server, client) = lab.up(&with(&[0]), &remote());
    let site = &lab.sites[0];
    let good = lab.server_toml(&with(&[0, 1]));
    lab.write("server.toml", good.replace("ifname", "ifnaem"));
    server.reload();
    server.wait_for_log(&["ifnaem"], SOON);
    site.lan.ping(site.nics[0].ip);
    assert!(!lab.server.has_link("tap0x1"));
    lab.write("server.toml", good);
    server.reload();
    client.wait_for_log(&[NIC_READY, "mv1"], SOON);
}

#[test]
fn a_client_taken_off_the_list_is_shut_out_and_the_others_stay() {
    needs_root!();
    let lab = Lab::plan().sites(2).build();
    let server = lab.start_server(&Edit::default());
    let clients = [lab.start_client(0, &remote()), lab.start_client(1, &remote())];
    for (client, site) in clients.iter().zip(&lab.sites) {
        client.wait_for_log(&[NIC_READY], SOON);
        site.lan.ping(site.nics[0].ip);
    }
    let text = lab.server_toml(&Edit::default());
    let (head, second) = text.split_at(text.rfind("[[clients]]").unwrap());
    let first = head.find("[[clients]]").unwrap();
    lab.write("server.toml", format!("{}{second}", &head[..first]));
    server.reload();
    until("the first client's NIC is gone from the server", SOON, || !lab.server.has_link("tap0x0"));
    assert!(!lab.sites[0].lan.answers(lab.sites[0].nics[0].ip, Duration::from_millis(500)));
    lab.sites[1].lan.ping(lab.sites[1].nics[0].ip);
    assert_eq!(clients[1].count(&[SESSION]), 1);
}

/// `tap-rs reload` for the program with this file: its status, what it says, and what it complains of.
fn reload(ns: &Ns, lab: &Lab, file: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let file = lab.dir().join(file);
    let output = ns.try_exec(&[&[TAP_RS, "reload", file.to_str().unwrap()], args].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_difference_is_told_before_it_is_made() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let (server, client) = lab.up(&with(&[0, 1]), &remote());
    let edit = Edit { nic: "mtu = 1400".into(), top: "log = \"debug\"".into(), ..with(&[0, 2]) };
    let text = lab.server_toml(&edit).replace(":1234\"", ":1235\"");
    lab.write("server.toml", text);
    let changes = "~ log: info -> debug\n- nic tap0x1 of client site0\n~ nic tap0x0 of client site0: mtu 1500 -> 1400\n\
                   + nic tap0x2 of client site0\n! bind_addr: counts from the next start on\n";
    let dry = reload(&lab.server, &lab, "server.toml", &["--dry-run"]);
    assert_eq!(dry, (Some(0), changes.to_owned(), String::new()));
    assert!(lab.server.has_link("tap0x1") && !lab.server.has_link("tap0x2"), "nothing has happened");
    let done = reload(&lab.server, &lab, "server.toml", &[]);
    assert_eq!(done, (Some(0), format!("{changes}reloaded\n"), String::new()));
    // It has waited: all of it is there.
    assert!(!lab.server.has_link("tap0x1") && lab.server.has_link("tap0x2"));
    client.wait_for_log(&[NIC_READY, "mv2"], SOON);
    assert_eq!(client.count(&[SESSION]), 1);
    let again = reload(&lab.server, &lab, "server.toml", &[]);
    assert!(again.1.starts_with("! bind_addr"), "{again:?}");
    client.rekey();
    server.wait_for_log(&["DEBUG", "session renewed"], SOON);
}

#[test]
fn a_refused_reload_says_why_and_leaves_everything_as_it_was() {
    needs_root!();
    let lab = Lab::new();
    let (server, _client) = lab.up(&with(&[0]), &remote());
    let good = lab.server_toml(&with(&[0]));
    lab.write("server.toml", good.replace("ifname", "ifnaem"));
    let (status, said, why) = reload(&lab.server, &lab, "server.toml", &[]);
    let line = good.lines().position(|l| l.starts_with("ifname")).unwrap() + 1;
    assert_eq!((status, said.as_str()), (Some(1), ""));
    assert!(why.contains(&format!("server.toml:{line}:1: ")) && why.contains("ifname"), "{why}");

    // A NIC that cannot be opened takes back those that could.
    lab.server.ip("link add tap0x2 type veth peer name other");
    lab.write("server.toml", lab.server_toml(&with(&[1, 2])));
    let (status, said, why) = reload(&lab.server, &lab, "server.toml", &[]);
    assert!(status == Some(1) && said.contains("+ nic tap0x1") && why.contains("tap0x2"), "{said}{why}");
    assert!(!lab.server.has_link("tap0x1") && lab.server.has_link("tap0x0"));
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    server.wait_for_log(&["reload refused, nothing has changed"], SOON);
    assert_eq!(server.count(&["config reloaded"]), 0);
}

#[test]
fn a_client_follows_its_file_and_keeps_its_session() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let (_server, client) = lab.up(&with(&[0, 1]), &with(&[0]));
    let site = &lab.sites[0];
    let edit = Edit { top: "log = \"debug\"\nkeepalive = 5".into(), ..with(&[0, 1]) };
    lab.write("client0.toml", lab.client_toml(0, &edit));
    let (status, said, why) = reload(&site.client, &lab, "client0.toml", &[]);
    assert_eq!(
        (status, said.as_str(), why.as_str()),
        (Some(0), "~ log: info -> debug\n~ keepalive: 10 s -> 5 s\n+ nic mv1\nreloaded\n", "")
    );
    client.wait_for_log(&[NIC_READY, "mv1"], SOON);
    site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));
    lab.write("client0.toml", lab.client_toml(0, &with(&[0])));
    client.reload();
    client.wait_for_log(&[NIC_GONE, "mv1"], SOON);
    until("mv1 is gone", SOON, || !site.client.has_link("mv1"));
    site.lan.ping(site.nics[0].ip);
    assert_eq!(client.count(&[SESSION]), 1);
    // Another macvtap's name is taken: what is there stays.
    site.client.ip("link add mv1 type veth peer name other");
    lab.write("client0.toml", lab.client_toml(0, &with(&[0, 1])));
    let (status, _, why) = reload(&site.client, &lab, "client0.toml", &[]);
    assert!(status == Some(1) && why.contains("mv1 is a veth"), "{why}");
    site.lan.ping(site.nics[0].ip);
}

#[test]
fn a_client_that_allows_more_takes_what_it_had_refused() {
    needs_root!();
    let lab = Lab::new();
    let script = "#!/bin/sh\nip link add proof type veth peer name proof2\n";
    let server = Edit { server: format!("script_content = {script:?}"), ..Edit::default() };
    let _server = lab.start_server(&server);
    let client = lab.start_client(0, &remote());
    client.wait_for_log(&["script"], SOON);
    let site = &lab.sites[0];
    assert!(!site.client.has_link("mv0") && !site.client.has_link("proof"));
    let hash: String = {
        use sha2::Digest;
        sha2::Sha256::digest(script).iter().map(|b| format!("{b:02x}")).collect()
    };
    let top = format!("script = \"pinned\"\nscript_sha256 = [\"{hash}\"]");
    lab.write("client0.toml", lab.client_toml(0, &Edit { top, ..remote() }));
    client.reload();
    client.wait_for_log(&[NIC_READY, "mv0"], SOON);
    assert!(site.client.has_link("proof"), "the keeper goes by the new file, too");
    assert_eq!(client.count(&[SESSION]), 1);
}

#[test]
fn a_client_moves_to_another_server_address() {
    needs_root!();
    let lab = Lab::new();
    let (server, client) = lab.up(&Edit::default(), &remote());
    lab.server.ip("addr add 172.31.0.9/24 dev wan0");
    let there = Some("172.31.0.9:1234".to_owned());
    lab.write("client0.toml", lab.client_toml(0, &Edit { server_addr: there, ..remote() }));
    let (status, said, _) = reload(&lab.sites[0].client, &lab, "client0.toml", &[]);
    assert_eq!(
        (status, said.as_str()),
        (Some(0), "~ bind_addr: 172.31.0.1:1234 -> 172.31.0.9:1234\nreloaded\n")
    );
    client.wait_for_log(&["trying to reach", "172.31.0.9:1234"], SOON);
    lab.server.sysctl("net.ipv4.conf.all.promote_secondaries", 1);
    lab.server.ip("addr del 172.31.0.1/24 dev wan0");
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    drop(server);
}
