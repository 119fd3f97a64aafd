//! Time limits that are promised for a program that has a processor when it wants one, held on a machine whose
//! processors others have.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::lab::SOON;
use super::ns::Ns;
use super::program::Program;

/// Counts the time that is the programs' own: not that in which one of them was ready to run, and something else ran.
pub struct Watch {
    start: Instant,
    waited: BTreeMap<u32, Duration>,
}

impl Watch {
    /// Those that run already; what others have waited counts from their start.
    pub fn start(programs: &[&Program]) -> Self {
        let waited = programs.iter().map(|p| (p.pid(), waited(p.pid()))).collect();
        Self { start: Instant::now(), waited }
    }

    /// Since the start, of these programs.
    pub fn own(&self, programs: &[&Program]) -> Duration {
        let before = |pid| self.waited.get(&pid).copied().unwrap_or_default();
        let since = |p: &&Program| waited(p.pid()).saturating_sub(before(p.pid()));
        self.start.elapsed().saturating_sub(programs.iter().map(since).sum())
    }

    /// Panics where it has been longer.
    #[track_caller]
    pub fn assert_within(&self, limit: Duration, what: &str, programs: &[&Program]) {
        let (all, own) = (self.start.elapsed(), self.own(programs));
        assert!(
            own <= limit,
            "{what} took {own:?} of the programs' own time, {all:?} in all, and not {limit:?}"
        );
    }
}

/// As [`Ns::ping_within`], of the programs' own time.
#[track_caller]
pub fn ping_within(ns: &Ns, ip: IpAddr, limit: Duration, programs: &[&Program]) {
    let watch = Watch::start(programs);
    ns.ping_within(ip, limit + SOON);
    watch.assert_within(limit, &format!("an answer from {ip}"), programs);
}

/// How long a process's threads, and its keeper, were ready to run and did not (`/proc/PID/schedstat`); nothing where
/// the kernel does not count it.
fn waited(pid: u32) -> Duration {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let all = children.split_whitespace().map(str::to_owned).chain([pid.to_string()]);
    let tasks = all.filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
