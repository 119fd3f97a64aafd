//! The two processes: what the tunnel has given up and says to nobody, and what is left to the keeper: taking NICs down
//! when the program is killed, and being small until then.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::common::lab::{Edit, Lab, SOON};
use crate::common::program::TAP_RS;
use crate::common::traces::{gone, keeper_of, until};
use crate::common::traffic::tcp;
use crate::needs_root;

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

/// Takes its limit away, where root may do that, and has it abort. True where a core was written.
fn dumps_core(pid: u32, end: impl FnOnce() -> ExitStatus) -> bool {
    let pid = pid.to_string();
    let _ = Command::new("prlimit").args(["--core=unlimited:unlimited", "--pid", &pid]).output();
    assert!(Command::new("kill").args(["-s", "ABRT", &pid]).status().unwrap().success());
    let status = end();
    assert_eq!(status.signal(), Some(6), "{status}");
    status.core_dumped()
}

#[test]
fn a_core_cannot_be_forced() {
    needs_root!();
    let room = tempfile::tempdir().unwrap();
    let mut other = Command::new("sleep").arg("60").current_dir(&room).spawn().unwrap();
    assert!(dumps_core(other.id(), || other.wait().unwrap()), "of another program there is one");
    let lab = Lab::new();
    let (server, client) = lab.up_plain();
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    for mut program in [server, client] {
        assert!(!dumps_core(program.pid(), || program.wait(SOON)), "{:?}", program.lines());
    }
}

/// How often these bytes are in what a process may write to, as root sees it.
fn occurrences(pid: u32, needle: &[u8]) -> usize {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let first = needle[0];
    let count = |bytes: &[u8]| bytes.windows(needle.len()).filter(|w| w[0] == first && *w == needle).count();
    let part = |line: &str| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        let [from, to] = [from, to].map(|n| u64::from_str_radix(n, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // Guard pages and buffers that nobody has touched cannot be read, or are empty.
        memory.read_exact_at(&mut bytes, from).ok()?;
        Some(count(&bytes))
    };
    maps.lines().filter(|l| l.contains(" rw")).filter_map(part).sum()
}

#[test]
fn a_process_under_traffic_has_its_key_where_it_needs_it_and_nowhere_else() {
    needs_root!();
    let lab = Lab::new();
    let psk = Command::new(TAP_RS).arg("genpsk").output().unwrap().stdout;
    lab.write("site0.psk", &psk);
    let log = "log = \"debug\"";
    let server = Edit { top: log.into(), client: "psk = \"site0.psk\"".into(), ..Edit::default() };
    let client = Edit { top: format!("{log}\npsk = \"site0.psk\""), ..Edit::default() };
    let (server, client) = lab.up(&server, &client);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    tcp(&site.lan, &lab.server, nic.ip, 500_000, 500_000);
    let secrets =
        [(&server, "server.key"), (&client, "client0.key"), (&server, "site0.psk"), (&client, "site0.psk")];
    let text = |file: &str| fs::read_to_string(lab.dir().join(file)).unwrap().trim().to_owned();
    // Clamping changes the first byte and the last.
    let bytes = |file: &str| STANDARD.decode(text(file)).unwrap()[1..31].to_vec();
    let copies = || secrets.map(|(program, file)| occurrences(program.pid(), &bytes(file)));
    let before = copies();
    assert!(before.iter().all(|n| *n > 0), "the search finds what is there: {before:?}");
    for nth in 1..=10 {
        client.rekey();
        // A handshake under way has copies of its own, on both sides.
        client.wait_for_nth(&["renewed"], nth, SOON);
        server.wait_for_nth(&["renewed"], nth, SOON);
        tcp(&site.lan, &lab.server, nic.ip, 50_000, 50_000);
    }
    for ((program, file), (was, is)) in secrets.into_iter().zip(before.into_iter().zip(copies())) {
        assert!(is <= was, "{file}: {is} copies after ten handshakes, {was} before");
        let keeper = keeper_of(program);
        assert_eq!(occurrences(keeper, &bytes(file)), 0, "{file} in the keeper");
        for pid in [program.pid(), keeper] {
            assert_eq!(occurrences(pid, &text(file).as_bytes()[..40]), 0, "{file} as text");
        }
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
