//! kill -9 at random moments, again and again: always back, and nothing stays behind.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::common::lab::{Edit, Lab, NIC_READY, SOON};
use crate::common::ns::Ns;
use crate::common::program::Program;
use crate::common::traces::{descriptors, everything, kill_both, settled, sockets_of, until};
use crate::common::watch::Watch;
use crate::namespace::{Named, run_file};
use crate::needs_root;

/// Seconds of churn where this does not say otherwise.
const SECONDS: &str = "TAP_RS_CHURN_SECONDS";

/// Of the programs' own time; twice what SECURITY.md promises in a debug build.
const BACK: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 5 });

/// So many at least.
const KILLS: u32 = 5;

#[test]
fn both_sides_come_back_from_every_kill_and_leave_nothing() {
    needs_root!();
    let span = std::env::var(SECONDS).ok().map_or(20, |s| s.parse().expect("seconds"));
    let lab = Lab::plan().nics(2).build();
    let (site, tag) = (&lab.sites[0], lab.dir().file_name().unwrap().to_string_lossy().into_owned());
    // The second NIC lives in a namespace of its own, which the server makes.
    let space = Named::beside(&lab);
    let gateway = format!("gateway = [\"{}\", \"fd00:80::2\"]", site.host());
    let mut text = lab.server_toml(&Edit { nic: gateway, ..Edit::default() });
    let second = text.rfind("client_ifname").unwrap();
    text.insert_str(second, &format!("netns = \"{}\"\n", space.name()));
    // Named after the test's folder, so that their sockets are known.
    let (on_server, on_client) = (format!("s{tag}.toml"), format!("c{tag}.toml"));
    let server_file = lab.write(&on_server, text);
    let client_file = lab.write(&on_client, lab.client_toml(0, &Edit::default()));
    // What the kernel does by itself with a new link.
    settled(&[(&lab.server, "wan0"), (&site.client, "wan0"), (&site.client, "lan0")]);
    let before = [everything(&lab.server), everything(&site.client)];
    let start = |ns: &Ns, file: &Path| Program::start(ns, &["-c", file.to_str().unwrap()]);
    let mut dice = StdRng::seed_from_u64(7);
    let (mut server, mut client) = (run_file(&lab, &server_file), start(&site.client, &client_file));
    let both_answer = |programs: [&Program; 2]| {
        let watch = Watch::start(&programs);
        site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));
        watch.assert_within(BACK, "the way back", &programs);
        watch.own(&programs)
    };
    both_answer([&server, &client]);
    let open = [&server, &client].map(|program| descriptors(program.pid()));
    let (end, mut kills, mut slowest) = (Instant::now() + Duration::from_secs(span), 0, Duration::ZERO);
    while Instant::now() < end || kills < KILLS {
        let (survivor, were) = match dice.random_range(0..2) {
            0 => {
                end_of(&mut server, &mut dice);
                server = run_file(&lab, &server_file);
                (&client, open[1])
            }
            _ => {
                end_of(&mut client, &mut dice);
                client = start(&site.client, &client_file);
                (&server, open[0])
            }
        };
        // Sometimes the next blow falls before they have found each other.
        if dice.random_range(0..4) > 0 {
            slowest = slowest.max(both_answer([&server, &client]));
            until("no descriptor is left behind", SOON, || descriptors(survivor.pid()) <= were + 1);
        } else {
            std::thread::sleep(Duration::from_millis(dice.random_range(0..400)));
        }
        kills += 1;
    }
    both_answer([&server, &client]);
    println!("{kills} kills in {span} s; the slowest return took {slowest:?}");
    for program in [&mut client, &mut server] {
        program.wait_for_log(&[NIC_READY], SOON);
        assert!(program.terminate().success());
    }
    let after = [everything(&lab.server), everything(&site.client)];
    assert_eq!(before, after, "something is left");
    assert!(!space.exists(), "a namespace is left");
    assert_eq!(sockets_of(lab.dir()), Vec::<String>::new());
}

fn end_of(program: &mut Program, dice: &mut StdRng) {
    std::thread::sleep(Duration::from_millis(dice.random_range(0..300)));
    // A process that has just started may have no keeper yet.
    let children = format!("/proc/{0}/task/{0}/children", program.pid());
    let has_keeper = fs::read_to_string(children).is_ok_and(|c| c.split_whitespace().count() == 1);
    match dice.random_range(0..3) {
        0 if has_keeper && comm_is_keeper(program) => kill_both(program),
        _ => program.kill9(),
    }
}

fn comm_is_keeper(program: &Program) -> bool {
    let pid = program.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let comm = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children.split_whitespace().next().is_some_and(|pid| comm(pid) == "tap-rs-keeper\n")
}
