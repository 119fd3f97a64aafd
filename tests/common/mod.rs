//! What the end-to-end tests stand on: network namespaces, the program started in them as users start it, and
//! frames to send and look at. Everything is undone by guards, after a panic too.

// Each test program uses a part of this.
#![allow(dead_code)]

pub mod capture;
pub mod frame;
pub mod lab;
pub mod ns;
pub mod program;
pub mod relay;
pub mod traces;
pub mod traffic;
pub mod watch;

use std::io::Write;

/// Ends the test here, and says so, where it cannot make namespaces.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !$crate::common::can_make_namespaces() {
            return;
        }
    };
}

/// True for root. Otherwise says which test is skipped, in a form that `.ci/run` looks for.
pub fn can_make_namespaces() -> bool {
    let able = std::thread::spawn(|| tap_rs::sys::process::new_netns().is_ok()).join().unwrap();
    if !able {
        let thread = std::thread::current();
        // Not by `println!`, which the test harness keeps to itself where a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED (needs root): {}", thread.name().unwrap_or("?"));
    }
    able
}
