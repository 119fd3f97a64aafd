//! `init`, `clients`, `invite` and `join` as far as they need no network: files, messages, exit codes.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn tap_rs(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tap-rs"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What it prints; panics with its complaint.
#[track_caller]
fn said(folder: &Path, args: &[&str]) -> String {
    let output = tap_rs(folder, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// Its one sentence.
#[track_caller]
fn refused(folder: &Path, args: &[&str], code: i32) -> String {
    let output = tap_rs(folder, args);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), ""), "{output:?}");
    let why = text(&output.stderr).trim_end().to_owned();
    assert_eq!(why.lines().count(), 1, "{why}");
    why
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const INIT: [&str; 7] =
    ["init", "--server", "203.0.113.10:1234", "--parent", "eth0", "--nic", "ip=192.168.1.150/24"];

#[test]
fn init_writes_a_pair_that_matches_and_checks() {
    let dir = tempfile::tempdir().unwrap();
    let next = said(dir.path(), &INIT);
    assert!(next.contains("tap-rs -c server.toml") && next.contains("tap-rs -c client.toml"), "{next}");
    assert!(next.lines().all(|line| line.len() <= 80), "{next}");
    let all = ["client.key", "client.key.pub", "client.toml", "server.key", "server.key.pub", "server.toml"];
    assert_eq!(names(dir.path()), all);
    for name in ["client.key", "server.key", "client.toml", "server.toml"] {
        assert_eq!(std::fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(read("server.toml").contains(read("client.key.pub").trim()));
    assert!(read("client.toml").contains(read("server.key.pub").trim()));
    for name in ["server.toml", "client.toml"] {
        let output = tap_rs(dir.path(), &["check", "-c", name]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{name}");
    }
    let server = said(dir.path(), &["check", "-c", "server.toml"]);
    assert!(server.contains("tap tap0: ") && server.contains("192.168.1.150/24"), "{server}");
    // The MAC is one that no manufacturer gives.
    let mac = server.split("tap0: ").nth(1).unwrap();
    assert!("26ae".contains(mac.chars().nth(1).unwrap()), "{mac}");
}

#[test]
fn init_overwrites_nothing_and_leaves_nothing_half_done() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("client.key"), "precious").unwrap();
    let why = refused(dir.path(), &INIT, 1);
    assert!(why.contains("client.key exists") && why.contains("--out DIR"), "{why}");
    assert_eq!(names(dir.path()), ["client.key"]);
    said(dir.path(), &[&INIT[..], &["--out", "new/er"]].concat());
    assert_eq!(names(&dir.path().join("new/er")).len(), 6);
    // What no config may have is found by the check, and taken back.
    let bad = ["--name", "a b", "--out", "bad"];
    let why = refused(dir.path(), &[&INIT[..], &bad].concat(), 1);
    assert!(why.contains("cannot be a client's name"), "{why}");
    assert_eq!(names(&dir.path().join("bad")), [""; 0]);
}

#[test]
fn without_a_terminal_nothing_waits_and_the_option_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (args, option) in [
        (&["init"][..], "--server HOST:PORT"),
        (&["init", "--server", "h.example:1"], "--parent IFNAME"),
        (&["init", "--server", "h.example:1", "--parent", "eth0"], "--nic ip=ADDRESS/PREFIX"),
        (&["join"], "the string that `tap-rs invite` printed"),
    ] {
        let why = refused(dir.path(), args, 2);
        assert!(why.contains("nobody is here to be asked") && why.contains(option), "{why}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

/// A server with comments everywhere.
fn server(folder: &Path) -> String {
    said(folder, &["init", "--server-only", "--server", "203.0.113.10:1234"]);
    let file = folder.join("server.toml");
    let text = std::fs::read_to_string(&file).unwrap()
        + "# the end\n\n# branch\n[[clients]] # one\nname = \"branch\"\n";
    let key = said(folder, &["keygen", "--out", "branch.key"]);
    let text = format!("{text}public_key = \"{}\"  # of 2026\n", key.trim());
    std::fs::write(&file, &text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    text
}

#[test]
fn clients_come_change_and_go_and_the_rest_of_the_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let before = server(dir.path());
    let read = || std::fs::read_to_string(dir.path().join("server.toml")).unwrap();
    let clients = |args: &[&str]| said(dir.path(), &[&["clients", "-c", "server.toml"], args].concat());
    let keys = ["lab", "next"].map(|n| said(dir.path(), &["keygen", "--out", &format!("{n}.key")]));
    let [lab, next] = keys.each_ref().map(|key| key.trim());

    assert!(clients(&["add", "lab", "lab.key.pub", "--nic", "10.0.0.7/24"]).contains("no server runs with"));
    assert!(read().starts_with(&before) && read().contains(lab));
    let check = said(dir.path(), &["check", "-c", "server.toml"]);
    assert!(check.contains("tap tap0: ") && check.contains("10.0.0.7/24"), "{check}");

    clients(&["rotate", "branch", next]);
    assert!(clients(&["list"]).starts_with("branch: ") && clients(&["list"]).contains(next));
    let why = refused(dir.path(), &["clients", "-c", "server.toml", "rotate", "branch", lab], 1);
    assert!(why.contains("two keys already") && why.contains("--finish"), "{why}");
    clients(&["rotate", "branch", "--finish"]);
    let old = std::fs::read_to_string(dir.path().join("branch.key.pub")).unwrap();
    assert!(read().starts_with(&before.replace(old.trim(), next)), "{}", read());
    let why = refused(dir.path(), &["clients", "-c", "server.toml", "rotate", "branch", "--finish"], 1);
    assert!(why.contains("no second key"), "{why}");

    clients(&["remove", "lab"]);
    clients(&["remove", "branch"]);
    assert_eq!(read().trim_end(), before.split("\n\n# branch").next().unwrap().trim_end());
    assert_eq!(std::fs::metadata(dir.path().join("server.toml")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(clients(&["list"]), "");
}

#[test]
fn what_cannot_be_done_to_clients_is_said_and_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let before = server(dir.path());
    said(dir.path(), &[&INIT[..], &["--out", "pair"]].concat());
    for (args, words) in [
        (&["remove", "bench", "-c", "server.toml"][..], "no client bench; there are: branch"),
        (&["add", "branch", "server.key.pub", "-c", "server.toml"], "already taken"),
        (&["add", "x", "branch.key.pub", "-c", "server.toml"], "is already taken on line"),
        (&["add", "x", "none.pub", "-c", "server.toml"], "none.pub is neither a key"),
        (&["list", "-c", "pair/client.toml"], "is a client's config"),
        (&["list", "-c", "none.toml"], "cannot read none.toml"),
    ] {
        let output = tap_rs(dir.path(), &[&["clients"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains(words), "{args:?}: {}", text(&output.stderr));
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("server.toml")).unwrap(), before);
}

#[test]
fn an_invite_is_one_line_and_its_secret_is_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    server(dir.path());
    let output = tap_rs(dir.path(), &["invite", "lab", "-c", "server.toml", "--valid", "30m"]);
    let (string, hint) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(string.lines().count(), 1, "{output:?}");
    assert!(hint.contains("valid until 20") && hint.contains("tap-rs join"), "{hint}");
    let file = std::fs::read_to_string(dir.path().join("server.toml")).unwrap();
    assert!(file.contains("invite_until = \"20") && !file.contains(string.trim()), "{file}");
    let list = said(dir.path(), &["clients", "list", "-c", "server.toml"]);
    assert!(list.contains("lab: invited until 20"), "{list}");
    // A second invite replaces the first.
    let second = said(dir.path(), &["invite", "lab", "-c", "server.toml"]);
    assert_ne!(second, string);
    let file = std::fs::read_to_string(dir.path().join("server.toml")).unwrap();
    assert_eq!((file.matches("invite =").count(), file.matches("name = \"lab\"").count()), (1, 1));

    let bare = file.replace("public_addr", "#");
    std::fs::write(dir.path().join("server.toml"), bare).unwrap();
    let why = refused(dir.path(), &["invite", "x", "-c", "server.toml"], 2);
    assert!(why.contains("where do clients reach this server") && why.contains("public_addr"), "{why}");
}

#[test]
fn a_damaged_string_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "hello", "AQMAAAAA", "????"] {
        let output = tap_rs(dir.path(), &["join", bad, "--parent", "eth0"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).starts_with("this is no whole invite"), "{bad}: {output:?}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}
