//! The program itself: what it prints, what it leaves on disk, and its exit code.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// RFC 7748, section 6.1: Alice.
const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

/// Runs tap-rs in `folder`, with `input` on standard input.
fn tap_rs_with(folder: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tap-rs"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read may have ended before this is written.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn tap_rs(folder: &Path, args: &[&str]) -> Output {
    tap_rs_with(folder, args, b"")
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The one line of a refusal with this exit code.
fn refusal(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!((out(output), err(output).lines().count()), ("", 1), "{output:?}");
    err(output).trim_end().to_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn keygen_writes_a_private_file_and_prints_the_public_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let made = tap_rs(dir.path(), &["keygen", "--out", "my.key"]);
    assert!(made.status.success());
    assert_eq!((out(&made).len(), err(&made)), (45, ""));
    let private = std::fs::read(dir.path().join("my.key")).unwrap();
    assert_eq!((private.len(), private.last()), (45, Some(&b'\n')));
    assert_eq!(mode(&dir.path().join("my.key")), 0o600);
    assert_eq!(mode(&dir.path().join("my.key.pub")) & !0o644, 0);
    assert_eq!(std::fs::read_to_string(dir.path().join("my.key.pub")).unwrap(), out(&made));
    assert_eq!(out(&tap_rs_with(dir.path(), &["pubkey"], &private)), out(&made));
}

#[test]
fn top_without_a_terminal_says_what_to_use_instead() {
    let dir = tempfile::tempdir().unwrap();
    let why = refusal(&tap_rs(dir.path(), &["top"]), 1);
    assert!(why.contains("needs a terminal") && why.contains("`tap-rs status --json`"), "{why}");
}

#[test]
fn keygen_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    assert!(tap_rs(dir.path(), &["keygen", "--out", "my.key"]).status.success());
    let before = std::fs::read(dir.path().join("my.key")).unwrap();
    let why = refusal(&tap_rs(dir.path(), &["keygen", "--out", "my.key"]), 1);
    assert!(why.starts_with("my.key exists") && why.contains("`mv my.key my.key.old`"), "{why}");
    assert_eq!(std::fs::read(dir.path().join("my.key")).unwrap(), before);
    // A link that leads nowhere is in the way as well: it is not followed.
    std::os::unix::fs::symlink("elsewhere", dir.path().join("link")).unwrap();
    refusal(&tap_rs(dir.path(), &["keygen", "--out", "link"]), 1);
    assert!(!dir.path().join("elsewhere").exists());
    let why = refusal(&tap_rs(dir.path(), &["keygen", "--out", "no/such/k"]), 1);
    assert!(why.contains("`mkdir -p no/such`"), "{why}");
}

#[test]
fn keygen_without_a_file_prints_the_private_key() {
    let dir = tempfile::tempdir().unwrap();
    let private = tap_rs(dir.path(), &["keygen"]);
    assert_eq!((out(&private).len(), err(&private)), (45, ""));
    let again = tap_rs(dir.path(), &["keygen"]);
    assert_ne!(out(&private), out(&again));
    let public = tap_rs_with(dir.path(), &["pubkey"], &private.stdout);
    assert!(public.status.success());
    assert_ne!(out(&public), out(&private));
}

#[test]
fn a_private_key_that_goes_into_an_open_file_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("k")).unwrap();
    std::fs::set_permissions(dir.path().join("k"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tap-rs")).arg("keygen").stdout(file).output().unwrap();
    assert!(output.status.success());
    assert!(err(&output).contains("others may read"), "{output:?}");
}

#[test]
fn pubkey_is_that_of_rfc_7748() {
    let dir = tempfile::tempdir().unwrap();
    for input in [PRIVATE.to_owned(), format!("{PRIVATE}\n")] {
        let output = tap_rs_with(dir.path(), &["pubkey"], input.as_bytes());
        assert_eq!((output.status.code(), out(&output)), (Some(0), format!("{PUBLIC}\n").as_str()));
    }
}

#[test]
fn pubkey_of_garbage_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    for input in [&b""[..], b"garbage", &[0xff; 5000], &PRIVATE.as_bytes()[..40], &[b'\n'; 3]] {
        let why = refusal(&tap_rs_with(dir.path(), &["pubkey"], input), 1);
        assert!(why.starts_with("standard input: this is not a key"), "{why}");
    }
}

#[test]
fn genpsk_makes_a_new_key_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (tap_rs(dir.path(), &["genpsk"]), tap_rs(dir.path(), &["genpsk"]));
    assert!(out(&a).len() == 45 && out(&a) != out(&b));
    assert_eq!(out(&tap_rs(dir.path(), &["genpsk", "--out", "k"])), "");
    assert_eq!(mode(&dir.path().join("k")), 0o600);
    refusal(&tap_rs(dir.path(), &["genpsk", "--out", "k"]), 1);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    for args in [&["keygen"][..], &["genpsk"], &["--help"], &["--version"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_tap-rs")).args(args).stdout(writer).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{args:?}: {output:?}");
        assert_eq!(err(&output), "", "{args:?}");
    }
}

#[test]
fn mistakes_on_the_command_line_are_one_line_and_status_2() {
    let dir = tempfile::tempdir().unwrap();
    for (args, words) in [
        (&["--confi", "x"][..], "'--config'"),
        (&["chek"], "'check'"),
        (&[], "`-c FILE`"),
        (&["check"], "`-c FILE`"),
        (&["client", "-c"], "a value is required"),
        (&["check", "-c", "a", "b"], "unexpected argument 'b'"),
        (&["-c", "a", "--log", "loud"], "off, error, warn, info, debug, trace"),
        (&["server", "-c", "a", "--psk", "b"], "'--psk'"),
    ] {
        let why = refusal(&tap_rs(dir.path(), args), 2);
        assert!(why.starts_with("tap-rs: ") && why.contains(words), "{args:?}: {why}");
    }
}

#[test]
fn help_ends_with_examples() {
    let dir = tempfile::tempdir().unwrap();
    let help = tap_rs(dir.path(), &["--help"]);
    assert!(help.status.success());
    for words in ["keygen", "genpsk", "--server-key", "Examples:", "tap-rs -c client.toml"] {
        assert!(out(&help).contains(words), "{words}");
    }
    assert_eq!(out(&tap_rs(dir.path(), &["--version"])), format!("tap-rs {}\n", env!("CARGO_PKG_VERSION")));
}

/// A client's config, with its keys made in `folder`.
fn client_config(folder: &Path) -> String {
    for name in ["client.key", "server.key"] {
        assert!(tap_rs(folder, &["keygen", "--out", name]).status.success());
    }
    let text = "run_mode = \"client\"\nprivate_key = \"client.key\"\n[server]\n\
                bind_addr = \"127.0.0.1:1234\"\npublic_key = \"server.key.pub\"\n\
                [[nics]]\nifname = \"mv0\"\nip = \"18.8.80.150/24\"\nmac = \"be:17:dd:5c:07:17\"\n";
    std::fs::write(folder.join("c.toml"), text).unwrap();
    text.to_owned()
}

#[test]
fn check_says_ok_and_what_would_run() {
    let dir = tempfile::tempdir().unwrap();
    client_config(dir.path());
    let output = tap_rs(dir.path(), &["check", "-c", "c.toml"]);
    assert_eq!(
        out(&output),
        "c.toml: ok, a client of 127.0.0.1:1234\n  \
         macvtap mv0: be:17:dd:5c:07:17 18.8.80.150/24, MTU 1500\n  scripts: never\n"
    );
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
    std::fs::rename(dir.path().join("c.toml"), dir.path().join("default_config.toml")).unwrap();
    assert!(out(&tap_rs(dir.path(), &["check"])).starts_with("default_config.toml: ok"));
}

#[test]
fn check_prints_the_hash_of_a_script_to_pin() {
    let dir = tempfile::tempdir().unwrap();
    client_config(dir.path());
    let text = "run_mode = \"server\"\nprivate_key = \"server.key\"\n[server]\nbind_addr = \"0.0.0.0:1234\"\n\
                script_content = \"abc\"\n[[clients]]\nname = \"branch\"\npublic_key = \"client.key.pub\"\n";
    std::fs::write(dir.path().join("s.toml"), text).unwrap();
    let output = tap_rs(dir.path(), &["check", "-c", "s.toml"]);
    // FIPS 180-2, appendix B.1
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(out(&output).contains(&format!("script_sha256 = [\"{hash}\"]")), "{output:?}");
    assert_eq!(err(&output).lines().count(), 1, "{output:?}");
    assert!(err(&output).starts_with("warning: s.toml:6:1: this client has no NICs"), "{output:?}");
}

#[test]
fn check_reports_every_mistake_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let text = client_config(dir.path());
    let wrong = text
        .replace("ifname", "ifnam")
        .replace("18.8.80.150/24", "18.8.80.150/40")
        .replace("127.0.0.1:1234", "127.0.0.1")
        .replace("be:17", "bf:17");
    std::fs::write(dir.path().join("c.toml"), wrong).unwrap();
    for args in [&["client", "-c", "c.toml"][..], &["-c", "c.toml"]] {
        assert_eq!(tap_rs(dir.path(), args).stderr, tap_rs(dir.path(), &["check", "-c", "c.toml"]).stderr);
    }
    let output = tap_rs(dir.path(), &["check", "-c", "c.toml"]);
    assert_eq!((output.status.code(), out(&output)), (Some(1), ""));
    let places: Vec<&str> = err(&output).lines().map(|l| l.split_once(": ").unwrap().0).collect();
    assert_eq!(places, ["c.toml:4:13", "c.toml:7:1", "c.toml:8:6", "c.toml:9:7"], "{output:?}");
    assert!(err(&output).contains("did you mean `ifname`?"));
}

#[test]
fn check_refuses_keys_that_others_can_read_and_says_what_to_run() {
    let dir = tempfile::tempdir().unwrap();
    client_config(dir.path());
    let key = dir.path().join("client.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let why = refusal(&tap_rs(dir.path(), &["check", "-c", "c.toml"]), 1);
    assert!(why.starts_with("c.toml:2:15: others may open"), "{why}");
    let command = why.split('`').nth(1).unwrap();
    assert_eq!(command, format!("chmod 600 {}", key.display()));
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success());
    assert!(tap_rs(dir.path(), &["check", "-c", "c.toml"]).status.success());
}

#[test]
fn check_takes_keys_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = client_config(dir.path());
    let bare =
        text.replace("private_key = \"client.key\"\n", "").replace("public_key = \"server.key.pub\"\n", "");
    std::fs::write(dir.path().join("c.toml"), bare).unwrap();
    assert_eq!(tap_rs(dir.path(), &["check", "-c", "c.toml"]).status.code(), Some(1));
    for server_key in ["server.key.pub", PUBLIC] {
        let args = ["check", "-c", "c.toml", "--private-key", "client.key", "--server-key", server_key];
        let output = tap_rs(dir.path(), &args);
        assert!(output.status.success(), "{output:?}");
    }
    let why = refusal(
        &tap_rs(dir.path(), &["check", "-c", "c.toml", "--private-key", "none", "--server-key", PUBLIC]),
        1,
    );
    assert!(why.contains("tap-rs keygen --out none"), "{why}");
}

#[test]
fn a_missing_config_is_one_line_and_status_1() {
    let dir = tempfile::tempdir().unwrap();
    let why = refusal(&tap_rs(dir.path(), &["check", "-c", "none.toml"]), 1);
    assert!(why.starts_with("none.toml: cannot read the config: "), "{why}");
}

#[test]
fn a_name_alone_is_a_config_in_etc() {
    let dir = tempfile::tempdir().unwrap();
    let said = refusal(&tap_rs(dir.path(), &["check", "-c", "no-such-name"]), 1);
    assert!(said.contains("/etc/tap-rs/no-such-name.toml"), "{said}");
    // What is here goes first.
    std::fs::write(dir.path().join("here"), "x = 1\n").unwrap();
    let said = tap_rs(dir.path(), &["check", "-c", "here"]);
    assert!(err(&said).starts_with("here:1:1:"), "{said:?}");
}

/// A client's config as the original's README had it.
const OLD: &str = "tap_mode = \"macvtap\" #tap or macvtap\nrun_mode = \"client\"\ntimeout = 120\n\n[server]\n\
                   bind_addr = \"192.168.1.100:1234\" #服务器ip地址+端口\n\n[[nics]]\nifname = \"tap0\"\n\
                   ip = \"18.8.80.150\"\nmac =  \"be:17:dd:5c:07:17\"\n";

#[test]
fn a_config_of_the_original_is_refused_with_the_command_that_migrates_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("old.toml"), OLD).unwrap();
    for args in [&["check", "-c", "old.toml"][..], &["-c", "old.toml"]] {
        let why = refusal(&tap_rs(dir.path(), args), 1);
        let command = why.split('`').nth(1).unwrap();
        assert_eq!(command, "tap-rs migrate old.toml -o new.toml --keys .", "{why}");
    }
    let args = ["migrate", "old.toml", "-o", "new.toml", "--keys", "."];
    let done = tap_rs(dir.path(), &args);
    assert_eq!((done.status.code(), out(&done)), (Some(0), ""), "{done:?}");
    let public = std::fs::read_to_string(dir.path().join("client.key.pub")).unwrap();
    for line in [
        "- old.toml:3: timeout = 120: ",
        "+ new.toml:3: private_key: ",
        "+ new.toml:7: public_key: ",
        "! old.toml:10: ip = ",
        "! new.toml:7:14: SERVER_PUBLIC_KEY stands for the public key of the server; write that key",
        &format!(
            "! this side's key is in client.key; its public key, for [[clients]] of the server: {public}"
        ),
    ] {
        assert!(err(&done).contains(line), "{line}: {}", err(&done));
    }
    assert_eq!(mode(&dir.path().join("new.toml")), 0o600);
    let new = std::fs::read_to_string(dir.path().join("new.toml")).unwrap();
    assert!(new.contains("private_key = \"client.key\"\n") && new.contains("#服务器ip地址+端口\n"), "{new}");
    let why = refusal(&tap_rs(dir.path(), &["check", "-c", "new.toml"]), 1);
    assert!(
        why.starts_with("new.toml:7:14: SERVER_PUBLIC_KEY stands for the public key of the server"),
        "{why}"
    );
    std::fs::write(dir.path().join("new.toml"), new.replace("SERVER_PUBLIC_KEY", PUBLIC)).unwrap();
    assert!(tap_rs(dir.path(), &["check", "-c", "new.toml"]).status.success());
}

#[test]
fn migrate_overwrites_nothing_unasked_and_leaves_new_configs_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    std::fs::write(at("old.toml"), OLD).unwrap();
    std::fs::write(at("there.toml"), "precious").unwrap();
    for out in ["there.toml", "old.toml"] {
        let why = refusal(&tap_rs(dir.path(), &["migrate", "old.toml", "-o", out, "--keys", "."]), 1);
        assert!(why.contains(&format!("{out} exists")) && why.contains("`--force`"), "{why}");
    }
    assert_eq!((read("there.toml").as_str(), read("old.toml").as_str()), ("precious", OLD));
    assert!(!at("client.key").exists(), "no key for what was not written");
    let shown = tap_rs(dir.path(), &["migrate", "old.toml", "--keys", "keys", "--peer-key", PUBLIC]);
    assert!(out(&shown).contains(&format!("public_key = \"{PUBLIC}\"\n")), "{shown:?}");
    let key = read("keys/client.key");
    // In its own place, with the key that is there by now.
    let args = ["migrate", "old.toml", "-o", "old.toml", "--force", "--keys", "keys", "--peer-key", PUBLIC];
    assert!(tap_rs(dir.path(), &args).status.success());
    assert_eq!(
        (read("old.toml").contains("private_key = \"keys/client.key\"\n"), read("keys/client.key")),
        (true, key)
    );
    assert!(tap_rs(dir.path(), &["check", "-c", "old.toml"]).status.success());
    let new = read("old.toml");
    let again = tap_rs(dir.path(), &["migrate", "old.toml", "-o", "there.toml", "--force"]);
    assert_eq!((again.status.code(), out(&again)), (Some(0), ""));
    assert!(err(&again).starts_with("old.toml is a config of this tap-rs already"), "{again:?}");
    assert_eq!((read("there.toml").as_str(), read("old.toml")), ("precious", new));
}

#[test]
fn what_is_no_config_is_not_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("broken.toml"), OLD.replace("[server]", "[server")).unwrap();
    std::fs::write(at("bytes.toml"), b"run_mode = \"\xff\"").unwrap();
    std::fs::write(at("side.toml"), OLD.replace("run_mode", "#run_mode")).unwrap();
    std::fs::write(at("old.toml"), OLD).unwrap();
    for (args, words) in [
        (&["none.toml"][..], "cannot read none.toml"),
        (&["broken.toml"], "broken.toml:5:8: "),
        (&["bytes.toml"], "not UTF-8"),
        (&["side.toml"], "side.toml: it does not say which side it is for; write run_mode"),
        (&["old.toml", "-o", "none/new.toml"], "cannot write none/new.toml"),
        (&["old.toml", "--peer-key", "none.pub"], "none.pub is neither a key in base64 nor a file"),
    ] {
        let why = refusal(&tap_rs(dir.path(), &[&["migrate"], args].concat()), 1);
        assert!(why.contains(words), "{args:?}: {why}");
    }
    let why = refusal(&tap_rs(dir.path(), &["migrate", "old.toml", "--force"]), 2);
    assert!(why.contains("--out"), "{why}");
}
