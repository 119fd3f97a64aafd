//! `tap-rs demo`, as a newcomer meets it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::common::lab::SOON;
use crate::common::ns::Ns;
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

const A_WHILE: Duration = Duration::from_secs(60);

/// Keys that a demo keeps while it runs.
fn papers() -> usize {
    let mine = |e: &fs::DirEntry| e.file_name().to_string_lossy().starts_with("tap-rs-demo-");
    fs::read_dir("/dev/shm").map_or(0, |dir| dir.flatten().filter(mine).count())
}

/// Processes that run with a config of a demo.
fn actors() -> usize {
    let of_a_demo = |e: &fs::DirEntry| {
        let line = fs::read(e.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("/tap-rs-demo-")
    };
    fs::read_dir("/proc").unwrap().flatten().filter(of_a_demo).count()
}

/// One at a time: what is left behind is counted over the whole machine.
#[test]
fn the_demo_shows_everything_and_leaves_nothing_however_it_ends() {
    needs_root!();
    let ns = Ns::new();
    let mut demo = Program::start(&ns, &["demo"]);
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
    assert_eq!((papers(), actors()), (0, 0));
    assert_eq!(ns.ip("-br link").lines().count(), 1, "only the loopback is left in the namespace around it");

    let mut demo = Program::start(&ns, &["demo"]);
    demo.wait_for_log(&["ping"], SOON);
    assert_eq!(demo.interrupt().code(), Some(130));
    assert_eq!((papers(), actors()), (0, 0));

    let mut demo = Program::start(&ns, &["demo"]);
    demo.wait_for_log(&["ping"], SOON);
    demo.kill9();
    let end = std::time::Instant::now() + SOON;
    while actors() > 0 {
        assert!(std::time::Instant::now() < end, "the children of a killed demo live on");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(papers(), 0);
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
