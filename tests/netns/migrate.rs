//! A pair of configs of the original, migrated as its users would: frames cross.

use std::path::Path;
use std::process::Command;

use crate::common::lab::{Lab, NIC_READY, SESSION, SOON};
use crate::common::program::{Program, TAP_RS};
use crate::common::traffic::tcp;
use crate::needs_root;

const MB: usize = 1 << 20;

/// Migrates `OLD.toml` in this folder to `new/OLD.toml` with a key there; what it said.
fn migrate(folder: &Path, old: &str, more: &[&str]) -> String {
    let new = format!("new/{old}");
    let output = Command::new(TAP_RS)
        .args(["migrate", old, "-o", &new, "--keys", "new"])
        .args(more)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// What `check` says of it, on one line or none.
fn check(folder: &Path, file: &str) -> String {
    let output = Command::new(TAP_RS).args(["check", "-c", file]).current_dir(folder).output().unwrap();
    String::from_utf8(output.stderr).unwrap().trim().to_owned()
}

#[test]
fn a_migrated_pair_with_its_keys_exchanged_carries_frames() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let nics = |name: &str| {
        format!(
            "[[nics]]\nifname = \"{name}\"  #网卡名\nip = \"{}\"\nmac =  \"{}\"\n",
            nic.ip,
            nic.mac_text()
        )
    };
    let old = |side: &str, mode: &str, name: &str| {
        format!(
            "#is_daemon = true\ntap_mode = \"{mode}\" #tap or macvtap\nrun_mode = \"{side}\"\ntimeout = 120\n\
             protocol = \"Tcp\"\n\n[server]\nbind_addr = \"172.31.0.1:1234\"\n\n{}",
            nics(name)
        )
    };
    lab.write("client.toml", old("client", "macvtap", "mv0"));
    lab.write("server.toml", old("server", "tap", "tap0"));
    std::fs::create_dir(lab.dir().join("new")).unwrap();
    let said = [
        migrate(lab.dir(), "client.toml", &["--parent", "lan0"]),
        migrate(lab.dir(), "server.toml", &["--prefix", "24"]),
    ];
    for (said, (file, word, key)) in said.iter().zip([
        ("new/client.toml", "SERVER_PUBLIC_KEY", "new/server.key.pub"),
        ("new/server.toml", "CLIENT_PUBLIC_KEY", "new/client.key.pub"),
    ]) {
        assert!(said.contains("timeout = 120: ") && said.contains("protocol = \"Tcp\": "), "{said}");
        let why = check(lab.dir(), file);
        assert!(
            why.contains(word) && why.lines().count() == 1,
            "only the other side's key is missing: {why}"
        );
        assert!(said.lines().any(|l| l.strip_prefix("! ") == Some(&why)), "it had said so: {said}");
        let text = std::fs::read_to_string(lab.dir().join(file)).unwrap();
        let key = std::fs::read_to_string(lab.dir().join(key)).unwrap();
        lab.write(file, text.replace(word, key.trim()));
        assert_eq!(check(lab.dir(), file), "");
    }
    let start = |ns, file: &str| Program::start(ns, &["-c", lab.dir().join(file).to_str().unwrap()]);
    let server = start(&lab.server, "new/server.toml");
    server.wait_for_log(&[NIC_READY, "tap0"], SOON);
    let client = start(&site.client, "new/client.toml");
    client.wait_for_log(&[SESSION], SOON);
    client.wait_for_log(&[NIC_READY, "mv0"], SOON);
    site.lan.ping(nic.ip);
    tcp(&site.lan, &lab.server, nic.ip, MB, MB);
}
