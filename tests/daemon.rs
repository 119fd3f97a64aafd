//! A process goes on in the background, and its foreground ends with what the daemon reports.
//!
//! Without the usual harness: that has threads. This program runs itself in the role of the daemon.

use std::env;
use std::process::Command;

use tap_rs::sys::process::daemonize;

const ROLE: &str = "TAP_RS_TEST_DAEMON";

fn main() {
    if let Ok(report) = env::var(ROLE) {
        return be_a_daemon(&report);
    }
    for (report, status) in [("0", 0), ("5", 5), ("nothing", 1)] {
        let output = Command::new(env::current_exe().unwrap()).env(ROLE, report).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "in a session of its own\n");
    }
    println!("test a_daemon_reports_to_the_foreground ... ok");
}

fn be_a_daemon(report: &str) {
    let foreground = daemonize().unwrap();
    // /proc/self/stat: id, (name), state, parent, group, session
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let [_state, _parent, group, session, ..] = fields[..] else { panic!("{stat}") };
    assert!(session == group && session != std::process::id().to_string());
    println!("in a session of its own");
    if let Ok(status) = report.parse() {
        foreground.release(status).unwrap();
    }
}
