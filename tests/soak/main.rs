//! Many bytes, every one of them compared, and many faults: through the program on real interfaces.
//!
//! ```text
//! cargo test --test soak                                        1 GB, and faults for 20 s
//! cargo test --release --test soak -- --gigabytes 100           as much as you have time for
//! cargo test --release --test soak -- --minutes 30              faults for so long
//!            --megabits 200   the load while faults fall, Mbit/s, all flows together (a debug build: 100)
//!            --seed 7         the same dice again
//! ```
//! The volume ([`volume`]) is shared out among: both suites; macvtap and a bridged tap on the LAN; offloads on, and off
//! everywhere, so that checksums are made and looked at in full; a clean underlay, and one that loses, reorders, repeats
//! and spoils datagrams. The faults ([`faults`]) fall one after the other on one stage under a mixed load of bounded rate.
//! Meanwhile no kernel on the way may have seen a bad checksum or header. A harness of its own, for the options; needs
//! root.

#[path = "../common/mod.rs"]
mod common;

mod counters;
mod faults;
mod load;
mod noise;
mod stage;
mod volume;

use std::str::FromStr;
use std::time::Duration;

use noise::Dice;

/// Of faults, where no option says how long.
const ORDINARY: Duration = Duration::from_secs(20);
/// Of the load under faults, where no option says how much. A debug build on a busy machine would drown in more.
const MEGABITS: f64 = if cfg!(debug_assertions) { 100.0 } else { 200.0 };

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (gigabytes, minutes) = (option::<f64>(&args, "--gigabytes"), option::<f64>(&args, "--minutes"));
    let chosen = gigabytes.is_some() || minutes.is_some();
    let filtered = !chosen && args.iter().any(|a| !a.starts_with('-') && !"soak".contains(a.as_str()));
    if filtered || args.iter().any(|a| a == "--list") || !common::can_make_namespaces() {
        return;
    }
    let seed = option(&args, "--seed").unwrap_or(u64::from(std::process::id()));
    println!("soak: seed {seed}");
    let mut dice = Dice::new(seed);
    if gigabytes.is_some() || !chosen {
        volume::run(gigabytes.unwrap_or(1.0), &mut dice);
    }
    if minutes.is_some() || !chosen {
        let span = minutes.map_or(ORDINARY, |m| Duration::from_secs_f64(m * 60.0));
        faults::run(span, option(&args, "--megabits").unwrap_or(MEGABITS), &mut dice);
    }
}

fn option<T: FromStr>(args: &[String], name: &str) -> Option<T> {
    let value = args.get(args.iter().position(|a| a == name)? + 1);
    let value = value.and_then(|v| v.parse().ok());
    Some(value.unwrap_or_else(|| panic!("{name} takes a number")))
}
