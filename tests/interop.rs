//! A client of another make talks to the program: `tests/interop/client.py`, written from `docs/PROTOCOL.md` alone,
//! with another language's Noise library.
//!
//! Its Python is `TAP_RS_INTEROP_PYTHON`, or a virtual environment that is made here once, under `target/`. Where
//! that cannot be made every test says that it was skipped, and fails if `CI` is `true`.

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use common::capture::{Capture, Captured};
use common::lab::{Edit, GOODBYE, Lab, PORT};
use common::program::{Program, TAP_RS};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");
const PATIENCE: Duration = Duration::from_secs(60);
/// What the client ends with where nothing answers its HELLO, or its INIT.
const NO_COOKIE: i32 = 3;
const NO_RESP: i32 = 4;

#[test]
fn another_client_computes_the_worked_example() {
    let Some(python) = python() else { return };
    let example = format!("{HERE}/../vectors/worked-example.json");
    let output = client_command(Command::new(python)).args(["vectors", &example]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"ok vectors\n");
}

#[test]
fn another_client_talks_to_the_kernel_behind_its_nic_under_both_ciphers() {
    needs_root!();
    let Some(python) = python() else { return };
    let lab = Lab::new();
    // For a blob of many chunks.
    let script = format!("script_content = \"{}\"", "x".repeat(100_000));
    let server = lab.start_server(&Edit { server: script, ..Edit::default() });
    let capture = Capture::on(&lab.server, "wan0");
    for suite in ["0x01", "0x02"] {
        let line = talk(&lab, &python, suite, &[]);
        assert!(line.contains("blob=1000"), "the script has been pulled: {line}");
    }
    server.wait_for_nth(&[GOODBYE, "site0"], 2, PATIENCE);
    assert!(datagrams(&capture.finish(), Way::FromServer) > 10, "the captures of these tests see the server");
}

#[test]
fn another_client_talks_with_a_pre_shared_key_and_not_with_a_wrong_one() {
    needs_root!();
    let Some(python) = python() else { return };
    let lab = Lab::new();
    for name in ["right.psk", "wrong.psk"] {
        let path = lab.dir().join(name);
        assert!(Command::new(TAP_RS).arg("genpsk").arg("--out").arg(path).status().unwrap().success());
    }
    let edit = Edit { client: "psk = \"right.psk\"".into(), ..Edit::default() };
    let server = lab.start_server(&edit);
    let psk = |name| lab.dir().join(name).display().to_string();
    talk(&lab, &python, "0x11", &["--psk", &psk("right.psk")]);
    talk(&lab, &python, "0x12", &["--psk", &psk("right.psk")]);
    server.wait_for_nth(&[GOODBYE, "site0"], 2, PATIENCE);
    let mut refused = start(&lab, &python, "0x11", lab.public_key("server"), &["--psk", &psk("wrong.psk")]);
    assert_eq!(refused.wait(PATIENCE).code(), Some(NO_RESP));
}

/// It knows nothing of PROBE: it stands for every version that is older.
#[test]
fn a_client_that_does_not_know_proofs_is_said_to_be_older_and_stays_undisturbed() {
    needs_root!();
    let Some(python) = python() else { return };
    let lab = Lab::new();
    let server = lab.start_server(&Edit::default());
    let ip = lab.sites[0].nics[0].ip;
    let listener = lab.server.inside(|| TcpListener::bind((ip, 0)).unwrap());
    let port = listener.local_addr().unwrap().port().to_string();
    let mut client = start(&lab, &python, "0x01", lab.public_key("server"), &["--tcp-port", &port]);
    // It has pulled its config, and now waits for these bytes.
    let (mut line, _) = listener.accept().unwrap();
    let output = lab.server.try_exec(&[TAP_RS, "doctor", &server.name()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("tap0x0: site0 does not know marked frames: the other side is older"), "{said}");
    line.write_all(&(0..=250).cycle().take(50_000).collect::<Vec<u8>>()).unwrap();
    drop(line);
    client.wait_for_log(&["ok suite=0x01"], PATIENCE);
    assert!(client.wait(PATIENCE).success());
}

#[test]
fn with_a_wrong_server_key_the_server_says_nothing_and_the_other_client_gives_up() {
    needs_root!();
    let Some(python) = python() else { return };
    let mut lab = Lab::new();
    lab.keygen("another");
    let _server = lab.start_server(&Edit::default());
    let capture = Capture::on(&lab.server, "wan0");
    let mut client = start(&lab, &python, "0x01", lab.public_key("another"), &[]);
    assert_eq!(client.wait(PATIENCE).code(), Some(NO_COOKIE));
    let seen = capture.finish();
    assert!(datagrams(&seen, Way::ToServer) >= 3, "the client's HELLOs came through");
    assert_eq!(datagrams(&seen, Way::FromServer), 0, "{:?}", seen.packets);
}

/// Runs the client to its good end, and returns the line that it ends with. It reads a connection from the server's
/// kernel, too.
#[track_caller]
fn talk(lab: &Lab, python: &Path, suite: &str, more: &[&str]) -> String {
    let ip = lab.sites[0].nics[0].ip;
    let listener = lab.server.inside(|| TcpListener::bind((ip, 0)).unwrap());
    let port = listener.local_addr().unwrap().port().to_string();
    // Not joined: where the client fails, nobody connects.
    std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..=250).cycle().take(50_000).collect();
        listener.accept().unwrap().0.write_all(&bytes).unwrap();
    });
    let more = [more, &["--tcp-port", &port]].concat();
    let mut client = start(lab, python, suite, lab.public_key("server"), &more);
    let line = client.wait_for_log(&[&format!("ok suite={suite}")], PATIENCE);
    assert!(client.wait(PATIENCE).success());
    for none in ["split=0", "partial=0", "super=0"] {
        assert!(!line.contains(none), "not all that a client must understand has been seen: {line}");
    }
    client.wait_for_log(&["tcp 50000 bytes"], PATIENCE);
    line
}

/// Starts the client in the first site's namespace, with the station's address that the site's host would have.
fn start(lab: &Lab, python: &Path, suite: &str, server_key: &str, more: &[&str]) -> Program {
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let mut command = client_command(site.client.command(python.to_str().unwrap()));
    command.args(["talk", "--suite", suite, "--server", &site.server_addr.to_string()]);
    command.args(["--server-key", server_key, "--key"]).arg(lab.dir().join("client0.key"));
    command.args(["--mac", &nic.mac_text(), "--ip", &nic.ip.to_string()]);
    command.args(["--station-ip", &site.host().to_string()]).args(more);
    Program::watch(command, format!("client.py {suite}"))
}

/// Python with the client for its program, leaving nothing in the source tree.
fn client_command(mut python: Command) -> Command {
    python.args(["-EB", &format!("{HERE}/client.py")]);
    python
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    ToServer,
    FromServer,
}

/// How many of the packets are UDP over IPv4 to or from the server's port.
fn datagrams(seen: &Captured, way: Way) -> usize {
    assert_eq!(seen.missed, 0);
    let port_at = if way == Way::FromServer { 34 } else { 36 };
    let is_one = |bytes: &[u8]| {
        bytes.get(12..15) == Some(&[8, 0, 0x45])
            && bytes.get(23) == Some(&17)
            && bytes.get(port_at..port_at + 2) == Some(&PORT.to_be_bytes())
    };
    seen.packets.iter().filter(|p| is_one(&p.bytes)).count()
}

/// The Python that has the client's libraries; or None, said aloud.
fn python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("TAP_RS_INTEROP_PYTHON") {
        return Some(python.into());
    }
    match &*ENVIRONMENT {
        Ok(python) => Some(python.clone()),
        Err(why) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "no Python environment: {why}");
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("?");
            let _ = writeln!(std::io::stderr(), "SKIPPED (needs python3-venv and PyPI): {name}");
            None
        }
    }
}

/// The virtual environment's Python. It is made where it is not there yet, or is one for other requirements.
static ENVIRONMENT: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target directory")?;
    let (venv, wanted) = (target.join("interop-venv"), Path::new(HERE).join("requirements.txt"));
    let is_ready = || fs::read(venv.join("requirements.txt")).ok() == fs::read(&wanted).ok();
    if !is_ready() {
        // Made aside and put in its place, so that another run of these tests never meets half of one.
        let aside = target.join(format!("interop-venv.{}", std::process::id()));
        let made = make_environment(&aside, &wanted);
        if made.is_ok() {
            let _ = fs::remove_dir_all(&venv);
            let _ = fs::rename(&aside, &venv);
        }
        let _ = fs::remove_dir_all(&aside);
        made?;
    }
    if is_ready() { Ok(venv.join("bin/python")) } else { Err(format!("cannot make {}", venv.display())) }
});

fn make_environment(venv: &Path, requirements: &Path) -> Result<(), String> {
    run(Command::new("python3").args(["-m", "venv"]).arg(venv))?;
    let pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "1", "-r"];
    run(Command::new(venv.join("bin/python")).args(pip).arg(requirements))?;
    fs::copy(requirements, venv.join("requirements.txt")).map_err(|e| e.to_string())?;
    Ok(())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}
