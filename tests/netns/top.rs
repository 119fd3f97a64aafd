//! `tap-rs top` on a terminal, and how it leaves it.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::common::lab::{Edit, Lab, SOON};
use crate::common::program::TAP_RS;
use crate::keeper::until;
use crate::needs_root;

#[test]
fn a_signal_ends_it_and_the_terminal_is_as_it_was() {
    needs_root!();
    let lab = Lab::new();
    let server = lab.start_server(&Edit::default());
    for (signal, status) in [("TERM", "143"), ("HUP", "129"), ("INT", "130")] {
        let [pid, before, after, ended] =
            ["pid", "before", "after", "ended"].map(|name| lab.dir().join(format!("{name}-{signal}")));
        let line = format!(
            "stty cols 80 rows 24; stty -g >{}; sh -c 'echo $$ >{}; exec {TAP_RS} top {}'; echo $? >{}; stty -g >{}",
            before.display(),
            pid.display(),
            server.name(),
            ended.display(),
            after.display()
        );
        let mut script = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut screen = script.stdout.take().unwrap();
        let mut shown = Vec::new();
        let mut room = [0; 4096];
        // The first frame is there.
        while !String::from_utf8_lossy(&shown).contains("quit") {
            let n = screen.read(&mut room).unwrap();
            assert!(n > 0, "it ended: {}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&room[..n]);
        }
        let pid = fs::read_to_string(pid).unwrap();
        assert!(Command::new("kill").args([&format!("-{signal}"), pid.trim()]).status().unwrap().success());
        screen.read_to_end(&mut shown).unwrap();
        script.stdin.take().unwrap().flush().unwrap();
        until("the terminal's shell goes on to its end", SOON, || after.exists());
        script.wait().unwrap();
        let shown = String::from_utf8_lossy(&shown);
        let read = |path| fs::read_to_string(path).unwrap();
        assert_eq!((read(&ended).trim(), read(&after)), (status, read(&before)), "{signal}");
        for (taken, given) in [("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h")] {
            assert!(shown.rfind(taken) < shown.rfind(given), "{signal}: {shown:?}");
        }
    }
}
