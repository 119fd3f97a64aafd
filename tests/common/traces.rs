//! What a running program and its boxes leave traces in: processes, descriptors, interfaces, routes, sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::lab::SOON;
use super::ns::Ns;
use super::program::Program;

#[track_caller]
pub fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < end, "{what} within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The process number of a program's keeper.
pub fn keeper_of(program: &Program) -> u32 {
    let pid = program.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let mut children = children.split_whitespace();
    let keeper = children.next().expect("a keeper").parse().unwrap();
    assert_eq!(children.next(), None, "and no other child");
    assert_eq!(fs::read_to_string(format!("/proc/{keeper}/comm")).unwrap(), "tap-rs-keeper\n");
    keeper
}

pub fn gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// As the machine's memory running out may do it: nobody is left to clean up.
pub fn kill_both(program: &mut Program) {
    let keeper = keeper_of(program);
    // Stopped first: whoever lives a moment longer is not to clean up.
    let line = format!("kill -STOP {0} {keeper}; kill -9 {keeper} {0}", program.pid());
    assert!(Command::new("/bin/sh").args(["-c", &line]).status().unwrap().success());
    program.wait(SOON);
    until("the keeper is dead", SOON, || gone(keeper));
}

pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// What a box's stack looks like, as people see it: rules, routes, settings.
pub fn stack(ns: &Ns) -> BTreeMap<String, String> {
    let said = ["rule show", "-6 rule show", "route show table all", "-6 route show table all"];
    let mut all: BTreeMap<_, _> = said.into_iter().map(|words| (words.to_owned(), ns.ip(words))).collect();
    for key in ["arp_ignore", "arp_announce", "rp_filter", "accept_ra"] {
        let family = if key == "accept_ra" { "ipv6" } else { "ipv4" };
        let dir = format!("/proc/sys/net/{family}/conf");
        let values = ns.inside(|| {
            let each = |entry: fs::DirEntry| {
                let value = fs::read_to_string(entry.path().join(key)).unwrap();
                format!("{} {value}", entry.file_name().display())
            };
            fs::read_dir(&dir).unwrap().map(|entry| each(entry.unwrap())).collect::<Vec<_>>()
        });
        all.insert(key.to_owned(), values.concat());
    }
    all
}

/// Waits until IPv6 has done what it does by itself with a link whose cable has been put in, on each of these.
pub fn settled(links: &[(&Ns, &str)]) {
    for (ns, link) in links {
        let own = format!("dev {link}");
        until(&format!("{link} is settled"), SOON, || {
            let routes = ns.ip("-6 route show table all");
            let has = |kind: &str| routes.lines().any(|l| l.starts_with(kind) && l.contains(&own));
            has("fe80::/64") && has("local fe80::") && has("multicast ff00::/8")
        });
    }
}

/// The names of the interfaces, and the stack, each in an order of its own.
pub fn everything(ns: &Ns) -> (String, String) {
    let links = ns.ip("-br link");
    let name = |line: &str| line.split(['@', ' ']).next().unwrap().to_owned();
    let sorted = |said: &str| said.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let names: BTreeSet<_> = links.lines().map(name).collect();
    let stack: BTreeMap<_, _> = stack(ns).into_iter().map(|(what, said)| (what, sorted(&said))).collect();
    (format!("{names:?}"), format!("{stack:#?}"))
}

/// Sockets in the programs' folder that bear the name of this one.
pub fn sockets_of(dir: &Path) -> Vec<String> {
    let names = fs::read_dir("/run/tap-rs").map(|entries| {
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    });
    let mine = dir.file_name().unwrap().to_string_lossy().into_owned();
    names.unwrap_or_default().into_iter().filter(|name| name.contains(&mine)).collect()
}
