//! A network namespace made with `ip netns add`, deleted with its guard.

use std::fs::{self, File};
use std::net::IpAddr;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tap_rs::runtime::ping::Pinger;
use tap_rs::sys::packet::PacketSocket;
use tap_rs::sys::process::enter_netns;

use super::lab::SOON;

pub struct Ns {
    name: String,
}

impl Ns {
    /// A new namespace with its loopback up and no address that nobody asked for.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // The first `ip netns add` on a machine mounts /run/netns, and two at a time trip over each other.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let name = format!("taprs-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        {
            let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
            run(Command::new("ip").args(["netns", "add", &name]));
        }
        let ns = Self { name };
        ns.exec(&["ip", "link", "set", "lo", "up"]);
        ns.sysctl("net.ipv6.conf.default.accept_dad", 0);
        ns.sysctl("net.ipv6.conf.all.accept_dad", 0);
        ns.sysctl("net.ipv6.conf.default.accept_ra", 0);
        ns
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in here, as `ip netns exec` runs it: with a `/sys` of the namespace's own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command to its end; panics with what it said if it fails.
    pub fn exec(&self, argv: &[&str]) -> String {
        run(self.command(argv[0]).args(&argv[1..]))
    }

    /// Runs a command to its end, whatever that is.
    pub fn try_exec(&self, argv: &[&str]) -> Output {
        self.command(argv[0]).args(&argv[1..]).output().unwrap()
    }

    /// `ip` with these words, in here.
    pub fn ip(&self, words: &str) -> String {
        let mut command = Command::new("ip");
        run(command.args(["-n", &self.name]).args(words.split(' ')))
    }

    pub fn sysctl(&self, key: &str, value: impl std::fmt::Display) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        let value = value.to_string();
        self.inside(|| fs::write(&path, &value).unwrap_or_else(|e| panic!("{path}: {e}")));
    }

    /// Runs `f` on a thread that is in here; sockets that it makes stay in here.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let handle = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let work = || {
            enter_netns(&handle).unwrap();
            f()
        };
        std::thread::scope(|scope| match scope.spawn(work).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    pub fn packet_socket(&self, interface: &str) -> PacketSocket {
        self.inside(|| PacketSocket::open(interface).unwrap_or_else(|e| panic!("{interface}: {e}")))
    }

    /// True if such an interface is there.
    pub fn has_link(&self, interface: &str) -> bool {
        self.try_exec(&["ip", "link", "show", "dev", interface]).status.success()
    }

    /// Asks until an answer comes. Panics if none has come in time.
    #[track_caller]
    pub fn ping_within(&self, target: IpAddr, patience: Duration) {
        let answer = self.inside(|| Pinger::new(target).unwrap().until_answered(patience).unwrap());
        assert!(answer.is_some(), "no answer from {target} within {patience:?}");
    }

    /// Asks with the patience of a test that expects an answer.
    #[track_caller]
    pub fn ping(&self, target: IpAddr) {
        self.ping_within(target, SOON);
    }

    /// True if one of some requests over `time` is answered.
    pub fn answers(&self, target: IpAddr, time: Duration) -> bool {
        self.inside(|| Pinger::new(target).unwrap().until_answered(time).unwrap()).is_some()
    }

    /// Which MAC this namespace's neighbour table has for an address.
    pub fn neighbour(&self, ip: IpAddr) -> Option<String> {
        let line = self.ip(&format!("neigh show {ip}"));
        let mut words = line.split_whitespace();
        words.find(|w| *w == "lladdr").and(words.next()).map(str::to_owned)
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
        let _ = fs::remove_dir_all(format!("/etc/netns/{}", self.name));
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; is iproute2 installed?"));
    let (said, erred) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}{erred}", output.status);
    said.into_owned()
}
