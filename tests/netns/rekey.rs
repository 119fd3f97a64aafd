//! New keys under way: however often, no frame is lost.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::common::lab::{Edit, Lab, SOON};
use crate::common::traffic::echo_without_loss;
use crate::needs_root;

#[test]
fn a_thousand_new_sessions_under_load_lose_no_frame() {
    needs_root!();
    let lab = Lab::new();
    let quiet = Edit { top: "log = \"debug\"".into(), ..Edit::default() };
    let (_server, client) = lab.up(&Edit::default(), &quiet);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    let stop = AtomicBool::new(false);
    let echoed = std::thread::scope(|scope| {
        let load = scope.spawn(|| echo_without_loss(&site.lan, &lab.server, nic.ip, 10_001, &stop));
        for n in 1..=1000 {
            client.rekey();
            if load.is_finished() {
                break;
            }
            client.wait_for_nth(&["session renewed"], n, SOON);
        }
        stop.store(true, Relaxed);
        load.join().unwrap()
    });
    assert!(echoed > 10_000, "{echoed} datagrams crossed");
}
