//! What the tunnel has given up is really gone: each act is tried from inside.
//!
//! Without the usual harness: this program runs itself in the role of the tunnel, once for each act.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tap_rs::config::{Hooks, ScriptPolicy};
use tap_rs::keys::PrivateKey;
use tap_rs::nic::Devices;
use tap_rs::runtime::hooks::Words;
use tap_rs::runtime::keeper::{self, Rules};
use tap_rs::runtime::reload::Source;
use tap_rs::runtime::sandbox;
use tap_rs::runtime::script::Script;
use tap_rs::sys::process;
use tap_rs::sys::unix::Messages;

const ROLE: &str = "TAP_RS_TEST_SANDBOX";
const FOLDER: &str = "TAP_RS_TEST_SANDBOX_FOLDER";

/// What is tried, and what becomes of it; a number is an error of the kernel's.
const ACTS: &[(&str, &str)] = &[
    // What the tunnel does all the time.
    ("read a file beside the config", "done"),
    ("open a UDP socket", "done"),
    ("look at interfaces", "done"),
    ("talk to a child of the keeper's", "done"),
    // What it never does.
    ("read /etc/shadow", "13"),
    ("read another process's memory map", "13"),
    ("write a file beside the config", "13"),
    ("make a file in /tmp", "13"),
    ("open /dev/net/tun", "13"),
    ("read a file by a name with dots in it", "13"),
    ("bind a TCP socket", "13"),
    ("start a program", "1"),
    ("start a thread", "1"),
    ("make a device", "1"),
    ("remove a file", "1"),
    ("change files' modes", "1"),
    ("become another program", "killed"),
    ("enter a namespace", "killed"),
    ("mount", "killed"),
];

fn main() {
    if let Ok(act) = env::var(ROLE) {
        let folder = env::var(FOLDER).unwrap();
        return report(be_the_tunnel(&act, Path::new(&folder)));
    }
    what_the_tunnel_has_no_need_of_is_refused();
    the_keeper_runs_no_script_that_its_own_policy_does_not_allow();
    the_keeper_writes_no_key_that_no_invite_waits_for();
    the_keeper_enters_no_namespace_of_others_that_its_config_does_not_name();
}

/// A config that nobody reads.
fn nowhere() -> Source {
    Source { path: "/nonexistent/c.toml".into(), overrides: Default::default() }
}

/// A tunnel that has been taken over asks for a script that the config does not allow.
fn the_keeper_runs_no_script_that_its_own_policy_does_not_allow() {
    let folder = tempfile::tempdir().unwrap();
    let proof = folder.path().join("proof");
    let text = format!("touch {}", proof.display());
    let policies = [ScriptPolicy::Never, ScriptPolicy::Pinned(vec![[7; 32]]), ScriptPolicy::Any];
    // As in the program: all of them before the first runtime.
    let keepers = policies.map(|script| {
        let (hooks, words) = (Hooks::default(), Words::default());
        keeper::start(Rules { script, netns: Vec::new(), hooks, words, config: nowhere(), pid: None })
            .unwrap()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (keeper, runs) in keepers.iter().zip([false, false, true]) {
        let script = Script { bytes: text.as_bytes(), limit: Duration::from_secs(10) };
        let outcome = runtime.block_on(keeper.run(script));
        assert_eq!((outcome.is_ok(), proof.exists()), (runs, runs), "{outcome:?}");
    }
    println!("test the_keeper_runs_no_script_that_its_own_policy_does_not_allow ... ok");
}

/// A tunnel that has been taken over wants a key of its own on the list.
fn the_keeper_writes_no_key_that_no_invite_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let key = || PrivateKey::generate(&mut rand::rng()).public();
    let [waits, late, used, none, mine, taken] = [(); 6].map(|()| key());
    PrivateKey::generate(&mut rand::rng()).write_new(&folder.path().join("s.key")).unwrap();
    let path = folder.path().join("s.toml");
    let text = format!(
        "run_mode = \"server\"\nprivate_key = \"s.key\"\n[server]\nbind_addr = \"0.0.0.0:1\"\n\
         [[clients]]\nname = \"a\"\ninvite = \"{waits}\"  # this one\ninvite_until = \"9000-01-01T00:00:00Z\"\n\
         [[clients]]\nname = \"b\"\ninvite = \"{late}\"\ninvite_until = \"2020-01-01T00:00:00Z\"\n\
         [[clients]]\nname = \"c\"\ninvite = \"{used}\"\npublic_key = \"{taken}\"\n"
    );
    fs::write(&path, &text).unwrap();
    let config = Source { path: path.clone(), overrides: Default::default() };
    let keeper = {
        let (hooks, words) = (Hooks::default(), Words::default());
        keeper::start(Rules {
            script: ScriptPolicy::Never,
            netns: Vec::new(),
            hooks,
            words,
            config,
            pid: None,
        })
        .unwrap()
    };
    for invite in [late, used, none, taken] {
        assert!(keeper.enrol(invite, mine).unwrap_err().to_string().contains("no such invite"));
    }
    assert!(keeper.enrol(waits, taken).unwrap_err().to_string().contains("already taken"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "nothing was written");
    keeper.enrol(waits, mine).unwrap();
    let name = "name = \"a\"\n";
    let after = text
        .replace("invite_until = \"9000-01-01T00:00:00Z\"\n", "")
        .replace(name, &format!("{name}public_key = \"{mine}\"\n"));
    assert_eq!(fs::read_to_string(&path).unwrap(), after);
    assert!(keeper.enrol(waits, key()).is_err(), "once");
    println!("test the_keeper_writes_no_key_that_no_invite_waits_for ... ok");
}

/// A tunnel that has been taken over wants into somebody's namespace. What the config names is read by the keeper itself.
fn the_keeper_enters_no_namespace_of_others_that_its_config_does_not_name() {
    const TEST: &str = "the_keeper_enters_no_namespace_of_others_that_its_config_does_not_name";
    if !process::is_root() {
        println!("SKIPPED (needs root): {TEST}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    PrivateKey::generate(&mut rand::rng()).write_new(&folder.path().join("s.key")).unwrap();
    let (path, key) = (folder.path().join("s.toml"), PrivateKey::generate(&mut rand::rng()).public());
    let name_in_config = |netns: &str| {
        let text = format!(
            "run_mode = \"server\"\nprivate_key = \"s.key\"\n[server]\nbind_addr = \"0.0.0.0:1\"\n\
             [[clients]]\nname = \"a\"\npublic_key = \"{key}\"\n\
             [[clients.nics]]\nifname = \"tap0\"\nmac = \"52:54:00:00:00:01\"\nip = \"10.0.0.2/24\"\nnetns = \"{netns}\"\n"
        );
        fs::write(&path, text).unwrap();
    };
    let config = Source { path: path.clone(), overrides: Default::default() };
    let (hooks, words) = (Hooks::default(), Words::default());
    let script = ScriptPolicy::Never;
    let keeper = keeper::start(Rules { script, netns: Vec::new(), hooks, words, config, pid: None }).unwrap();
    let [one, other] = [1, 2].map(|n| OthersNetns::new(format!("taprs-{}-{n}", std::process::id())));
    let enters = |netns: &OthersNetns| match keeper.netlink(&netns.0.parse().unwrap()) {
        Ok(_) => true,
        Err(e) => {
            assert!(e.to_string().contains("is not in the config"), "{e}");
            false
        }
    };
    assert!(!enters(&one) && !enters(&other), "its config names none");
    name_in_config(&one.0);
    assert!(!enters(&one), "it has not read that yet");
    keeper.follow().unwrap();
    assert!(enters(&one) && !enters(&other));
    name_in_config(&other.0);
    keeper.follow().unwrap();
    assert!(enters(&other) && enters(&one), "a NIC may have to go back to where it was");
    println!("test {TEST} ... ok");
}

/// A namespace that somebody else has made.
struct OthersNetns(String);

impl OthersNetns {
    fn new(name: String) -> Self {
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Self(name)
    }
}

impl Drop for OthersNetns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn what_the_tunnel_has_no_need_of_is_refused() {
    if !process::is_root() {
        println!("SKIPPED (needs root): what_the_tunnel_has_no_need_of_is_refused");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config"), "read me").unwrap();
    for (act, expected) in ACTS {
        let mut child = Command::new(env::current_exe().unwrap());
        child.env(ROLE, act).env(FOLDER, folder.path()).stdin(Stdio::null());
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let became = match output.status.signal() {
            Some(libc::SIGSYS) => "killed".to_owned(),
            _ => said,
        };
        assert_eq!(became, *expected, "{act}: {output:?}");
    }
    println!("test what_the_tunnel_has_no_need_of_is_refused ... ok");
}

fn report(result: std::io::Result<()>) {
    match result {
        Ok(()) => println!("done"),
        Err(e) => println!("{}", e.raw_os_error().map_or(e.to_string(), |n| n.to_string())),
    }
}

fn be_the_tunnel(act: &str, folder: &Path) -> std::io::Result<()> {
    let config = folder.join("config");
    let parent = process::parent();
    sandbox::keep_secrets();
    let _sandbox = sandbox::confine(&[folder.to_owned()]);
    sandbox::filter();
    let status = fs::read_to_string("/proc/self/status");
    assert!(status.is_err(), "/proc is closed, too");
    match act {
        "read a file beside the config" => fs::read_to_string(config).map(|text| assert_eq!(text, "read me")),
        "open a UDP socket" => UdpSocket::bind("127.0.0.1:0").map(drop),
        "look at interfaces" => {
            let mut netlink = tap_rs::nic::netlink::Netlink::open()?;
            netlink.links().map(|links| assert!(!links.is_empty())).map_err(|e| e.error)
        }
        "talk to a child of the keeper's" => {
            let (a, b) = Messages::pair()?;
            a.send(b"x", &[])?;
            b.recv(&mut [0; 4]).map(drop)
        }
        "read /etc/shadow" => File::open("/etc/shadow").map(drop),
        "read another process's memory map" => File::open(format!("/proc/{parent}/maps")).map(drop),
        "write a file beside the config" => OpenOptions::new().write(true).open(config).map(drop),
        "make a file in /tmp" => File::create("/tmp/tap-rs-was-here").map(drop),
        "open /dev/net/tun" => File::open("/dev/net/tun").map(drop),
        "read a file by a name with dots in it" => File::open(folder.join("../../etc/passwd")).map(drop),
        "bind a TCP socket" => TcpListener::bind("127.0.0.1:0").map(drop),
        "start a program" => Command::new("/bin/true").status().map(drop),
        "start a thread" => std::thread::Builder::new().spawn(|| ()).map(drop),
        "make a device" => process::make_char_device(&folder.join("device"), 1, 3),
        "change files' modes" => {
            fs::set_permissions(config, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        }
        "remove a file" => fs::remove_file(config),
        "become another program" => Err(Command::new("/bin/true").exec()),
        "enter a namespace" => process::new_netns(),
        "mount" => process::mount_sysfs(folder),
        other => panic!("no such act: {other}"),
    }
}
