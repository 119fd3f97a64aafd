//! What the log is like: for a journal, for people, and under attack.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::lab::{Edit, Lab, SESSION, SOON};
use crate::common::program::TAP_RS;
use crate::needs_root;

/// Stands in for systemd and its journal: gives the program a stream for standard error and its socket, and prints what
/// comes in by each, a JSON object for every datagram. Once the program has said that it has started it is to end.
const JOURNAL: &str = r#"
import json, os, select, socket, subprocess, sys

def parse(data):
    fields = {}
    while data:
        name, _, data = data.partition(b"\n")
        name, short, value = name.partition(b"=")
        if not short:
            length = int.from_bytes(data[:8], "little")
            value, data = data[8:8 + length], data[9 + length:]
        fields[name.decode()] = value.decode()
    return fields

with_socket = sys.argv[1] == "socket"
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
if with_socket:
    os.makedirs("/run/systemd/journal")
    journal.bind("/run/systemd/journal/socket")
ours, theirs = socket.socketpair()
stat = os.fstat(theirs.fileno())
env = dict(os.environ, JOURNAL_STREAM=f"{stat.st_dev}:{stat.st_ino}")
child = subprocess.Popen(sys.argv[2:], stderr=theirs, env=env)
theirs.close()
open_streams = [ours] + ([journal] if with_socket else [])
while ours in open_streams:
    for stream in select.select(open_streams, [], [])[0]:
        data = stream.recv(1 << 16)
        if b"server started" in data:
            child.terminate()
        if stream is ours and not data:
            open_streams.remove(ours)
        elif stream is ours:
            print(json.dumps({"stream": data.decode()}), flush=True)
        else:
            print(json.dumps(parse(data)), flush=True)
child.wait()
"#;

/// What a server says to a journal until it is told to stop.
fn to_journal(socket: &str) -> Vec<Value> {
    let lab = Lab::new();
    let config = lab.write("server.toml", lab.server_toml(&Edit::default()));
    let script = lab.write("journal.py", JOURNAL);
    let line = format!(
        "mount -t tmpfs none /run/systemd 2>/dev/null || {{ mkdir -p /run/systemd && mount -t tmpfs none /run/systemd; }}\n\
         exec python3 {} {socket} timeout --preserve-status -s TERM 60 {TAP_RS} -c {}",
        script.display(),
        config.display()
    );
    let output = lab
        .server
        .command("unshare")
        .args(["--mount", "--propagation", "private", "/bin/sh", "-c", &line])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!told.is_empty(), "{stderr}");
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_journal_gets_severities_and_fields() {
    needs_root!();
    let told = to_journal("socket");
    let ready = told.iter().find(|v| v["MESSAGE"] == "nic ready").unwrap_or_else(|| panic!("{told:#?}"));
    assert_eq!(ready["PRIORITY"], "6", "{ready:#}");
    assert_eq!(ready["SYSLOG_IDENTIFIER"], "tap-rs", "{ready:#}");
    assert_eq!(ready["TAP_RS_NIC"], "tap0x0", "{ready:#}");
    assert_eq!(ready["TAP_RS_MODE"], "tap", "{ready:#}");
    assert!(
        told.iter().any(|v| v["MESSAGE"] == "server stopped"),
        "after the sandbox as before it: {told:#?}"
    );
    assert!(told.iter().all(|v| v["stream"].is_null()), "nothing twice: {told:#?}");
}

#[test]
fn a_journal_without_its_socket_gets_lines_with_their_severity() {
    needs_root!();
    let told = to_journal("none");
    let text: String = told.iter().filter_map(|v| v["stream"].as_str()).collect();
    assert!(text.contains("<6>nic ready nic=tap0x0"), "{text}");
    assert!(text.lines().all(|line| line.starts_with('<') && !line.contains('\x1b')), "{text}");
}

#[test]
fn a_file_gets_lines_for_people_whatever_the_environment_says() {
    needs_root!();
    let lab = Lab::new();
    let config = lab.write("server.toml", lab.server_toml(&Edit::default()));
    let mut command: Command = lab.server.command(TAP_RS);
    command.args(["-c", config.to_str().unwrap()]).env("JOURNAL_STREAM", "8:12345");
    let program = crate::common::program::Program::watch(command, "server".into());
    let line = program.wait_for_log(&["nic ready", "tap0x0"], SOON);
    assert!(line.starts_with("20") && line.contains(" INFO nic ready nic=tap0x0"), "{line}");
}

#[test]
fn a_client_that_comes_and_goes_without_end_does_not_flood_the_servers_log() {
    needs_root!();
    let lab = Lab::plan().sites(2).build();
    let server = lab.start_server(&Edit::default());
    // Somebody with a client's key, over and over: each run is told a few times at first.
    let runs = 14;
    for _ in 0..runs {
        let mut client = lab.start_client(0, &Edit::default());
        client.wait_for_log(&[SESSION], SOON);
        client.terminate();
    }
    let told = server.count(&[SESSION, "client=site0"]);
    assert!((1..=runs).contains(&told), "{told}");
    // Another client is told of all the same.
    let other = lab.start_client(1, &Edit::default());
    other.wait_for_log(&[SESSION], SOON);
    server.wait_for_log(&[SESSION, "client=site1"], SOON);
    if told < runs {
        server.wait_for_log(&["... ", " more in the last", "site0"], Duration::from_secs(30));
    }
}
