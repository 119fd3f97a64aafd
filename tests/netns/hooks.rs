//! `[hooks]`: programs of the user's, what they find, and a client that one of them does not let in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::lab::{Edit, Lab, SESSION, SOON};
use crate::needs_root;

/// A script that root may run, and the path of what it writes to `$OUT`.
fn program(lab: &Lab, name: &str, text: &str) -> (PathBuf, PathBuf) {
    let out = lab.dir().join(format!("{name}.out"));
    let path = lab.write(name, format!("#!/bin/sh\nOUT={}\n{text}\n", out.display()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    (path, out)
}

/// `[hooks]` with each event's program, to stand before the tables of the NICs.
fn hooks(programs: &[(&str, &PathBuf)]) -> Edit {
    let lines: String =
        programs.iter().map(|(key, path)| format!("{key} = \"{}\"\n", path.display())).collect();
    Edit { server: format!("[hooks]\n{lines}"), ..Edit::default() }
}

#[track_caller]
fn written(path: &PathBuf, words: &str) -> String {
    let end = Instant::now() + SOON;
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.contains(words) {
            return text;
        }
        assert!(Instant::now() < end, "{words:?} is not in {}: {text}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_event_runs_its_program_with_what_it_is_about() {
    needs_root!();
    let lab = Lab::new();
    let (path, out) = program(
        &lab,
        "hook",
        "{ env; umask; pwd; ls /proc/self/fd; echo end of $TAP_RS_EVENT; } >>$OUT; echo hello",
    );
    let all = [("up", &path), ("down", &path), ("peer_up", &path), ("peer_down", &path)];
    let (mut server, mut client) = lab.up(&Edit::default(), &hooks(&all));
    client.wait_for_log(&["peer_up: hello"], SOON);
    let text = written(&out, "end of peer_up");
    let (up, peer_up) = text.split_once("end of up\n").unwrap();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    for line in [
        "TAP_RS_EVENT=up".to_owned(),
        "TAP_RS_ROLE=client".to_owned(),
        "TAP_RS_NAME=client0".to_owned(),
        format!("TAP_RS_CONFIG={}", lab.dir().join("client0.toml").display()),
        format!("TAP_RS_NICS={}", nic.on_client),
        "0077".to_owned(),
        "/".to_owned(),
    ] {
        assert!(up.lines().any(|l| l == line), "{line} in {up}");
    }
    // Besides `PATH` the shell sets only PWD and the like itself.
    let foreign = |l: &&str| {
        l.contains('=')
            && !["TAP_RS_", "PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| l.starts_with(own))
    };
    assert_eq!(up.lines().find(foreign), None);
    for line in [
        "TAP_RS_EVENT=peer_up".to_owned(),
        format!("TAP_RS_PEER={}", site.server_addr),
        format!("TAP_RS_PEER_KEY={}", lab.public_key("server")),
        format!("TAP_RS_ENDPOINT={}", site.server_addr),
    ] {
        assert!(peer_up.lines().any(|l| l == line), "{line} in {peer_up}");
    }
    server.terminate();
    written(&out, "end of peer_down");
    client.terminate();
    // It had ended before the client did.
    assert!(fs::read_to_string(&out).unwrap().contains("end of down"));
}

#[test]
fn down_is_run_after_a_kill_as_well() {
    needs_root!();
    let lab = Lab::new();
    let nic = &lab.sites[0].nics[0];
    let (path, out) =
        program(&lab, "hook", &format!("ip link show {} >>$OUT 2>&1; echo end >>$OUT", nic.on_client));
    let (_server, mut client) = lab.up(&Edit::default(), &hooks(&[("down", &path)]));
    // The keeper is told after the start.
    client.wait_for_log(&[SESSION], SOON);
    client.kill9();
    let text = written(&out, "end");
    assert!(text.contains("does not exist"), "the NIC is gone by then: {text}");
}

#[test]
fn a_program_that_fails_or_hangs_is_told_and_keeps_nothing_from_working() {
    needs_root!();
    let lab = Lab::new();
    let (fails, _) = program(&lab, "fails", "exit 3");
    let (hangs, _) = program(&lab, "hangs", "sleep 600");
    let mut edit = hooks(&[("up", &fails), ("peer_up", &hangs)]);
    edit.server += "timeout = 3\n";
    let (_server, client) = lab.up(&Edit::default(), &edit);
    client.wait_for_log(&["hook failed", "hook=up", "status=3"], SOON);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    client.wait_for_log(&["hook was stopped", "hook=peer_up"], SOON);
}

#[test]
fn a_client_that_verify_refuses_gets_no_session_until_it_agrees() {
    needs_root!();
    let lab = Lab::new();
    let (path, out) = program(
        &lab,
        "verify",
        "echo $TAP_RS_PEER $TAP_RS_PEER_KEY $TAP_RS_ENDPOINT >>$OUT; [ -e $OUT.yes ]",
    );
    let server = lab.start_server(&hooks(&[("verify", &path)]));
    let client = lab.start_client(0, &Edit::default());
    server.wait_for_log(&["hook failed", "hook=verify"], SOON);
    server.wait_for_nth(&["hook failed", "hook=verify"], 2, SOON);
    assert_eq!((server.count(&[SESSION]), client.count(&[SESSION])), (0, 0));
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.starts_with(&format!("site0 {} 172.31.0.2:", lab.public_key("client0"))), "{text}");
    fs::write(format!("{}.yes", out.display()), "").unwrap();
    client.wait_for_log(&[SESSION], SOON);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    // Who has a session renews it without being asked again.
    let asked = fs::read_to_string(&out).unwrap().lines().count();
    client.rekey();
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), asked);
}
