//! `tap-rs demo`, as a newcomer meets it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::common::lab::SOON;
use crate::common::ns::Ns;
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

const A_WHILE: Duration = Duration::from_secs(60);

/// A server or client that a demo has started.
struct Actor {
    pid: String,
    config: PathBuf,
}

/// Both of them, once they are there. Other demos may run on this machine.
fn actors(demo: &Program) -> Vec<Actor> {
    demo.wait_for_log(&["client", "started"], SOON);
    let parent = format!("PPid:\t{}", demo.pid());
    let actor = |e: fs::DirEntry| {
        let status = fs::read_to_string(e.path().join("status")).ok()?;
        let of_this_demo = status.lines().any(|line| line == parent);
        let config = of_this_demo.then(|| config(&e.file_name().to_string_lossy())).flatten()?;
        Some(Actor { pid: e.file_name().into_string().ok()?, config })
    };
    let actors: Vec<Actor> = fs::read_dir("/proc").unwrap().flatten().filter_map(actor).collect();
    assert_eq!(actors.len(), 2);
    actors
}

/// What is behind `-c` on a process's command line.
fn config(pid: &str) -> Option<PathBuf> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&str> = line.split('\0').collect();
    let at = words.iter().position(|word| *word == "-c")?;
    Some(PathBuf::from(words.get(at + 1)?))
}

/// Waits until neither the processes nor their files are there.
#[track_caller]
fn assert_gone(actors: &[Actor]) {
    let here = |a: &Actor| config(&a.pid).as_ref() == Some(&a.config) || a.config.parent().unwrap().exists();
    let end = std::time::Instant::now() + SOON;
    while actors.iter().any(here) {
        assert!(std::time::Instant::now() < end, "the demo left something behind");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    needs_root!();
    let ns = Ns::new();
    let mut demo = Program::start(&ns, &["demo"]);
    let cast = actors(&demo);
    assert_eq!(demo.wait(A_WHILE).code(), Some(0));
    for words in [
        &["ping", "10.77.0.150", "20 of 20"][..],
        &["ping", "10.77.0.151", "20 of 20"],
        &["the script said", "root"],
        &["fetch", "10.77.0.150", "200 OK"],
        &["fetch", "10.77.0.151", "200 OK"],
        &["secret: 0 times on the underlay"],
        &["transfer", "to server", "bit/s"],
        &["transfer", "to LAN", "bit/s"],
    ] {
        assert_eq!(demo.count(words), 1, "{words:?}");
    }
    let lines = demo.lines();
    let bad = lines.iter().find(|line| line.chars().count() > 80 || line.contains('\x1b'));
    assert_eq!(bad, None, "80 columns, and no colour where nobody looks");
    assert_gone(&cast);
    assert_eq!(ns.ip("-br link").lines().count(), 1, "only the loopback is left in the namespace around it");
}

#[test]
fn a_demo_that_is_interrupted_or_killed_leaves_nothing() {
    needs_root!();
    let ns = Ns::new();
    let mut demo = Program::start(&ns, &["demo"]);
    let cast = actors(&demo);
    demo.wait_for_log(&["ping"], SOON);
    assert_eq!(demo.interrupt().code(), Some(130));
    assert_gone(&cast);

    let mut demo = Program::start(&ns, &["demo"]);
    let cast = actors(&demo);
    demo.wait_for_log(&["ping"], SOON);
    demo.kill9();
    assert_gone(&cast);
}

#[test]
fn without_root_the_demo_says_so_in_one_line() {
    needs_root!();
    // The test's own folder may be closed to others, so the program is copied to where they may go.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode;
    fs::set_permissions(dir.path(), open(0o755)).unwrap();
    let program = dir.path().join("tap-rs");
    fs::copy(TAP_RS, &program).unwrap();
    fs::set_permissions(&program, open(0o755)).unwrap();
    let output = Command::new(&program).arg("demo").uid(65_534).gid(65_534).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.lines().count() == 1 && said.contains("sudo tap-rs demo"), "{said}");
}
