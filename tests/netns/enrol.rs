//! A box becomes a client by an invite; and the ways in which it does not.

use std::process::Output;

use crate::common::lab::{Edit, Lab, NIC_READY, PORT, SESSION, SOON};
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

/// A server whose file has comments and no client.
fn bare(lab: &Lab) -> String {
    let text = format!(
        "# the gateway\nrun_mode = \"server\"\nprivate_key = \"server.key\"\n\n\
         [server]   # here\nbind_addr = \"0.0.0.0:{PORT}\"\npublic_addr = \"{}\"\n# the end\n",
        lab.sites[0].server_addr
    );
    lab.write("server.toml", &text);
    text
}

fn path(lab: &Lab, name: &str) -> String {
    lab.dir().join(name).to_str().unwrap().to_owned()
}

fn nic_of(lab: &Lab) -> String {
    let nic = &lab.sites[0].nics[0];
    format!(
        "ip={}/24,mac={},ifname={},client_ifname={}",
        nic.ip,
        nic.mac_text(),
        nic.on_server,
        nic.on_client
    )
}

/// The string of an invite.
#[track_caller]
fn invite(lab: &Lab, args: &[&str]) -> String {
    let file = path(lab, "server.toml");
    let output = lab.server.try_exec(&[&[TAP_RS, "invite", "-c", &file], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn join(lab: &Lab, string: &str, out: &str) -> Output {
    let folder = path(lab, out);
    lab.sites[0].client.try_exec(&[TAP_RS, "join", string, "--parent", "lan0", "--out", &folder])
}

/// One sentence says why not, and nothing is left behind.
#[track_caller]
fn refused(lab: &Lab, output: &Output, out: &str, words: &[&str]) {
    let why = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(why.lines().count(), 1, "{why}");
    assert!(words.iter().all(|word| why.contains(word)), "{why}");
    let left = std::fs::read_dir(lab.dir().join(out)).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{out}");
}

#[test]
fn an_invited_box_makes_its_own_key_and_its_frames_cross() {
    needs_root!();
    let lab = Lab::new();
    let before = bare(&lab);
    let server = lab.run_server();
    server.wait_for_log(&["server started"], SOON);
    let string = invite(&lab, &["site0", "--nic", &nic_of(&lab)]);
    server.wait_for_log(&[NIC_READY, "tap0x0"], SOON);
    let joined = join(&lab, &string, "box");
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    server.wait_for_log(&["enrolled", "site0"], SOON);

    let client = Program::start(&lab.sites[0].client, &["-c", &path(&lab, "box/client.toml")]);
    client.wait_for_log(&[NIC_READY, "mv0"], SOON);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    assert_eq!(server.count(&[SESSION]), 1, "the invite's own session is none to tell of");

    let after = std::fs::read_to_string(lab.dir().join("server.toml")).unwrap();
    let public = std::fs::read_to_string(lab.dir().join("box/client.key.pub")).unwrap();
    assert!(after.starts_with(&before) && after.contains(public.trim()), "{after}");
    assert!(after.contains("invite = ") && !after.contains("invite_until"), "{after}");
    assert!(!after.contains(&string), "the secret does not stand in the config");

    // Once is enough, also for whoever has seen the string.
    refused(
        &lab,
        &join(&lab, &string, "thief"),
        "thief",
        &["this invite has been used", "`tap-rs invite NAME`"],
    );
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    server.wait_for_log(&["refused: this invite has been used", "site0"], SOON);
}

#[test]
fn late_damaged_and_unknown_invites_are_told_apart() {
    needs_root!();
    let lab = Lab::new();
    bare(&lab);
    let server = lab.run_server();
    server.wait_for_log(&["server started"], SOON);

    let late = invite(&lab, &["late", "--valid", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    refused(&lab, &join(&lab, &late, "a"), "a", &["was valid until", "that is over"]);

    let good = invite(&lab, &["good"]);
    let turned = if good.ends_with('A') { "B" } else { "A" };
    let changed = format!("{}{turned}", &good[..good.len() - 1]);
    refused(&lab, &join(&lab, &changed, "b"), "b", &["no whole invite", "once more"]);
    refused(&lab, &join(&lab, &good[1..], "c"), "c", &["no whole invite"]);

    let file = path(&lab, "server.toml");
    lab.server.exec(&[TAP_RS, "clients", "remove", "good", "-c", &file]);
    refused(&lab, &join(&lab, &good, "d"), "d", &["does not know this invite", "taken back"]);
    drop(server);
    refused(&lab, &join(&lab, &good, "e"), "e", &["no answer from 172.31.0.1:1234", "firewall"]);
}

#[test]
fn an_invite_outlives_a_restart_of_the_server() {
    needs_root!();
    let lab = Lab::new();
    bare(&lab);
    // Written while nobody runs.
    let string = invite(&lab, &["site0", "--nic", &nic_of(&lab)]);
    let mut server = lab.run_server();
    server.wait_for_log(&[NIC_READY, "tap0x0"], SOON);
    server.kill9();
    let server = lab.run_server();
    server.wait_for_log(&[NIC_READY, "tap0x0"], SOON);
    assert!(join(&lab, &string, "box").status.success());
    // The same box again, as after an answer that was lost: it is that client already.
    std::fs::remove_file(lab.dir().join("box/client.toml")).unwrap();
    assert!(join(&lab, &string, "box").status.success());
    drop(server);
    // A used invite is remembered, too.
    let server = lab.run_server();
    server.wait_for_log(&[NIC_READY, "tap0x0"], SOON);
    refused(&lab, &join(&lab, &string, "thief"), "thief", &["has been used"]);
}

#[test]
fn of_two_boxes_with_one_invite_one_gets_in() {
    needs_root!();
    let lab = Lab::new();
    bare(&lab);
    let server = lab.run_server();
    server.wait_for_log(&["server started"], SOON);
    let string = invite(&lab, &["site0"]);
    let outputs = std::thread::scope(|scope| {
        let joins = ["x", "y"].map(|out| {
            scope.spawn({
                let (lab, string) = (&lab, &string);
                move || join(lab, string, out)
            })
        });
        joins.map(|join| join.join().unwrap())
    });
    let [x, y] = &outputs;
    assert_ne!(x.status.success(), y.status.success(), "{outputs:?}");
    let (loser, out) = if x.status.success() { (y, "y") } else { (x, "x") };
    refused(&lab, loser, out, &["has been used"]);
    assert_eq!(server.count(&["enrolled", "site0"]), 1);
}

#[test]
fn a_client_that_is_there_gets_another_box() {
    needs_root!();
    let lab = Lab::new();
    let (server, client) = lab.up(&Edit::default(), &Edit { remote: true, ..Edit::default() });
    let string = invite(&lab, &["site0", "--server", "172.31.0.1:1234"]);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    assert!(join(&lab, &string, "box").status.success());
    client.wait_for_log(&["session ended"], SOON);
    drop(client);
    let client = Program::start(&lab.sites[0].client, &["-c", &path(&lab, "box/client.toml")]);
    client.wait_for_log(&[NIC_READY, "mv0"], SOON);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    assert_eq!(server.count(&[NIC_READY, "tap0x0"]), 1, "the NIC on the server stayed");
}
