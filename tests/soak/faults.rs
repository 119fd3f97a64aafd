//! Faults thrown by dice, one after the other, on one stage under load, with new keys every second.
//!
//! The first half has every fault. In the second no process is killed, so that what processes keep can be told from
//! what a new one begins with: both are to have no more memory and no more descriptors at its end than after its
//! first quarter.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::common::program::{Program, own_kb};
use crate::common::traces::{descriptors, keeper_of};
use crate::counters::kernel_errors;
use crate::load::{AFTERMATH, Load, StopAtEnd};
use crate::noise::Dice;
use crate::stage::{self, Fault, Stage};

/// Behind all kinds of faults, in a run that has the time: a connection that ends early in it has none to blame.
const LULL: Duration = AFTERMATH.saturating_add(Duration::from_secs(10));

/// Between two rekeys.
const REKEY: Duration = Duration::from_secs(1);

/// What a process may grow by in the last three eighths of a run that is long enough to tell.
const GROWTH_KB: u64 = 1024;
const MEASURABLE: Duration = Duration::from_secs(60);

pub fn run(span: Duration, megabits: f64, dice: &mut Dice) {
    let lab = stage::lab();
    println!("soak: faults for {:.0} s under {megabits} Mbit/s", span.as_secs_f64());
    let mut stage = Stage::new(&lab);
    stage.back();
    let errors = || [kernel_errors(&lab.server), kernel_errors(&lab.sites[0].lan)];
    let (before, load) = (errors(), Load::new());
    let rekeyed = Rekeyed { client: Mutex::new(Some(stage.client.pid())), times: AtomicU64::new(0) };
    let figures = std::thread::scope(|scope| {
        let _end = StopAtEnd(&load);
        let (site, server) = (&lab.sites[0], &lab.server);
        let (nic, lan) = (&site.nics[0], &site.lan);
        let there = [nic.ip, nic.ip6];
        let here = [site.host(), "fd00:80::2".parse().unwrap()];
        for (from, to, ips) in [(lan, server, there), (server, lan, here)] {
            let (rate, load) = (megabits * 1e6 / 8.0 / 4.0, &load);
            let (tcp_dice, udp_dice) = (dice.fork(), dice.fork());
            // A flow that panics ends the run.
            scope.spawn(move || {
                let _end = StopAtEnd(load);
                load.tcp(from, to, ips, rate, tcp_dice);
            });
            scope.spawn(move || {
                let _end = StopAtEnd(load);
                load.udp(from, to, ips[0], rate, udp_dice);
            });
        }
        scope.spawn(|| rekeyed.again_and_again(&load));
        let figures = throw(&mut stage, &load, &rekeyed, (span, dice));
        load.await_connection();
        figures
    });
    figures.print();
    load.print();
    println!("soak: {} rekeys", rekeyed.times.load(Relaxed));
    assert_eq!(errors(), before, "a kernel has seen bad checksums or headers");
    figures.assert_flat(span);
    stage.end();
    println!("soak: no interface, route, rule or socket is left");
}

/// One fault after the other, for so long.
fn throw(
    stage: &mut Stage<'_>,
    load: &Load,
    rekeyed: &Rekeyed,
    (span, dice): (Duration, &mut Dice),
) -> Figures {
    let start = Instant::now();
    let (mut figures, mut bag) = (Figures::default(), Vec::new());
    while start.elapsed() < span && !load.stopped() {
        let calm = start.elapsed() > span / 2;
        if figures.early.is_none() && start.elapsed() > span * 5 / 8 {
            figures.early = Some(Kept::by(stage));
        }
        // Each kind once, in any order; then again.
        bag.retain(|fault| !calm || !Fault::DEADLY.contains(fault));
        if bag.is_empty() {
            if span >= MEASURABLE && !figures.faults.is_empty() {
                std::thread::sleep(LULL);
            }
            bag = Fault::SURVIVED.to_vec();
            bag.extend(Fault::DEADLY.iter().filter(|_| !calm));
        }
        let fault = bag.swap_remove(dice.below(bag.len()));
        load.broken();
        if fault == Fault::ClientKilled {
            // Until it has said what it does with the signal, that ends it.
            *rekeyed.client.lock().unwrap() = None;
        }
        let meanwhile = stage.suffer(fault, dice);
        let took = stage.back().max(meanwhile.unwrap_or_default());
        *rekeyed.client.lock().unwrap() = Some(stage.client.pid());
        load.whole();
        let (count, slowest) = figures.faults.entry(fault).or_default();
        (*count, *slowest) = (*count + 1, took.max(*slowest));
        std::thread::sleep(Duration::from_millis(dice.below(2_000) as u64));
    }
    figures.late = Some(Kept::by(stage));
    figures
}

/// The client that is told every second to make a new session, while it can be.
struct Rekeyed {
    client: Mutex<Option<u32>>,
    times: AtomicU64,
}

impl Rekeyed {
    fn again_and_again(&self, load: &Load) {
        while !load.stopped() {
            // Under the lock, so that nobody else can have got its number.
            if let Some(pid) = *self.client.lock().unwrap() {
                let line = format!("kill -USR1 {pid}");
                assert!(Command::new("/bin/sh").args(["-c", &line]).status().unwrap().success());
                self.times.fetch_add(1, Relaxed);
            }
            std::thread::sleep(REKEY);
        }
    }
}

#[derive(Default)]
struct Figures {
    /// How often each came, and the slowest return.
    faults: BTreeMap<Fault, (u32, Duration)>,
    early: Option<Kept>,
    late: Option<Kept>,
}

impl Figures {
    fn print(&self) {
        for (fault, (count, slowest)) in &self.faults {
            println!("soak: {fault:?}: {count} times, back within {:.2} s", slowest.as_secs_f64());
        }
        for (when, kept) in [("5/8 of the time", &self.early), ("all of it", &self.late)] {
            println!("soak: after {when}: {kept:?}");
        }
    }

    fn assert_flat(&self, span: Duration) {
        let (Some(early), Some(late)) = (&self.early, &self.late) else { return };
        for (name, late) in &late.0 {
            let early = &early.0[name];
            if span >= MEASURABLE {
                assert!(late.kb <= early.kb + GROWTH_KB, "the {name} has grown from {early:?} to {late:?}");
            }
            assert!(late.descriptors <= early.descriptors + 1, "the {name} had {early:?} and has {late:?}");
        }
    }
}

/// What each process has.
#[derive(Debug)]
struct Kept(BTreeMap<&'static str, Has>);

#[derive(Debug)]
struct Has {
    kb: u64,
    descriptors: usize,
}

impl Kept {
    fn by(stage: &Stage<'_>) -> Self {
        let [server, client] = [&stage.server, &stage.client].map(Program::pid);
        let keepers = [&stage.server, &stage.client].map(keeper_of);
        let all = [
            ("server", server),
            ("client", client),
            ("server's keeper", keepers[0]),
            ("client's keeper", keepers[1]),
        ];
        Self(all.into_iter().map(|(name, pid)| (name, Has::by(pid))).collect())
    }
}

impl Has {
    fn by(pid: u32) -> Self {
        Self { kb: own_kb(pid), descriptors: descriptors(pid) }
    }
}
