//! From counters to rates: what has passed from one snapshot to the next, and for how it went before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::runtime::status::Snapshot;
use crate::runtime::status::model::Nic;

/// Samples that are kept: as many as the widest terminal shows, or nearly.
const KEEP: usize = 240;

/// Counters of a NIC, of a peer's NICs, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub out_frames: u64,
    pub out_bytes: u64,
    pub in_frames: u64,
    pub in_bytes: u64,
    pub drops: u64,
}

impl Totals {
    fn of(nic: &Nic) -> Self {
        Self {
            out_frames: nic.uplink.frames,
            out_bytes: nic.uplink.bytes,
            in_frames: nic.downlink.frames,
            in_bytes: nic.downlink.bytes,
            drops: nic.drops.values().fold(0, |sum, n| sum.saturating_add(*n)),
        }
    }

    fn add(&mut self, other: Self) {
        self.each(&other, u64::saturating_add);
    }

    fn each(&mut self, other: &Self, f: fn(u64, u64) -> u64) {
        self.out_frames = f(self.out_frames, other.out_frames);
        self.out_bytes = f(self.out_bytes, other.out_bytes);
        self.in_frames = f(self.in_frames, other.in_frames);
        self.in_bytes = f(self.in_bytes, other.in_bytes);
        self.drops = f(self.drops, other.drops);
    }
}

/// How one thing has been going.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    before: Option<Totals>,
    /// In the last step, by the second.
    pub rate: Totals,
    /// Bytes a second to the peer, the newest last.
    pub out: VecDeque<u64>,
    /// Bytes a second from the peer, the newest last.
    pub inn: VecDeque<u64>,
}

impl Track {
    fn step(&mut self, totals: Totals, seconds: f64) {
        let Some(before) = self.before.replace(totals) else { return };
        let mut step = totals;
        step.each(&before, u64::saturating_sub);
        let per_second = |n: u64| (n as f64 / seconds).round() as u64;
        self.rate = Totals {
            out_frames: per_second(step.out_frames),
            out_bytes: per_second(step.out_bytes),
            in_frames: per_second(step.in_frames),
            in_bytes: per_second(step.in_bytes),
            drops: per_second(step.drops),
        };
        keep(&mut self.out, self.rate.out_bytes);
        keep(&mut self.inn, self.rate.in_bytes);
    }

    /// Both ways together, the newest last.
    pub(super) fn both(&self) -> Vec<u64> {
        self.out.iter().zip(&self.inn).map(|(o, i)| o.saturating_add(*i)).collect()
    }
}

fn keep(ring: &mut VecDeque<u64>, value: u64) {
    if ring.len() >= KEEP {
        ring.pop_front();
    }
    ring.push_back(value);
}

/// One running tap-rs, watched.
#[derive(Debug)]
pub(super) struct History {
    at: Instant,
    /// By peer and name.
    pub nics: BTreeMap<(String, String), Track>,
    pub peers: BTreeMap<String, Track>,
    pub all: Track,
    /// Drops by the second and reason, of each NIC that dropped in the last step.
    pub reasons: BTreeMap<(String, String), BTreeMap<String, u64>>,
}

impl History {
    pub(super) fn new(at: Instant, first: &Snapshot) -> Self {
        let mut history = Self {
            at,
            nics: BTreeMap::new(),
            peers: BTreeMap::new(),
            all: Track::default(),
            reasons: BTreeMap::new(),
        };
        history.follow(first, 1.0);
        history
    }

    /// From `before` to `after`, which was taken at `at`.
    pub(super) fn step(&mut self, at: Instant, before: &Snapshot, after: &Snapshot) {
        let seconds = at.saturating_duration_since(self.at).as_secs_f64().max(0.05);
        self.at = at;
        self.follow(after, seconds);
        self.reasons.clear();
        let old: BTreeMap<_, _> = before.nics.iter().map(|nic| (key(nic), &nic.drops)).collect();
        for nic in &after.nics {
            let Some(old) = old.get(&key(nic)).filter(|old| ***old != nic.drops) else { continue };
            let rate = |(reason, n): (&String, &u64)| {
                let step = n.saturating_sub(old.get(reason).copied().unwrap_or(0));
                (step > 0).then(|| (reason.clone(), (step as f64 / seconds).round() as u64))
            };
            self.reasons.insert(key(nic), nic.drops.iter().filter_map(rate).collect());
        }
    }

    fn follow(&mut self, snapshot: &Snapshot, seconds: f64) {
        // What is gone is forgotten.
        let mut nics = std::mem::take(&mut self.nics);
        let (mut peers, mut all) = (BTreeMap::<&str, Totals>::new(), Totals::default());
        for nic in &snapshot.nics {
            let totals = Totals::of(nic);
            all.add(totals);
            peers.entry(&nic.peer).or_default().add(totals);
            let mut track = nics.remove(&key(nic)).unwrap_or_default();
            track.step(totals, seconds);
            self.nics.insert(key(nic), track);
        }
        self.all.step(all, seconds);
        let mut tracks = std::mem::take(&mut self.peers);
        for peer in &snapshot.peers {
            let mut track = tracks.remove(&peer.name).unwrap_or_default();
            track.step(peers.get(peer.name.as_str()).copied().unwrap_or_default(), seconds);
            self.peers.insert(peer.name.clone(), track);
        }
    }
}

/// What a NIC is known by.
pub(super) fn key(nic: &Nic) -> (String, String) {
    (nic.peer.clone(), nic.name.clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::status::model::{Flow, Peer};

    fn snapshot(bytes: u64, storms: u64) -> Snapshot {
        let nic = |name: &str| Nic {
            name: name.into(),
            peer: "p".into(),
            uplink: Flow { frames: bytes / 100, bytes, last_s: None },
            drops: [("storm".into(), storms)].into(),
            ..Nic::default()
        };
        let peers = vec![Peer { name: "p".into(), ..Peer::default() }];
        Snapshot { nics: vec![nic("a"), nic("b")], peers, ..Snapshot::default() }
    }

    #[test]
    fn rates_are_what_passed_by_the_second() {
        let now = Instant::now();
        let [first, second] = [snapshot(1000, 5), snapshot(3000, 9)];
        let mut history = History::new(now, &first);
        assert_eq!(history.all.rate, Totals::default(), "nothing is known of one look");
        history.step(now + Duration::from_secs(2), &first, &second);
        let a = &history.nics[&("p".to_owned(), "a".to_owned())];
        assert_eq!((a.rate.out_bytes, a.rate.out_frames, a.rate.drops), (1000, 10, 2));
        assert_eq!((history.peers["p"].rate.out_bytes, history.all.rate.out_bytes), (2000, 2000));
        assert_eq!(history.reasons[&("p".to_owned(), "a".to_owned())]["storm"], 2);
        assert_eq!(history.all.both(), [2000]);
    }

    #[test]
    fn a_nic_that_is_gone_is_forgotten_and_a_history_is_bounded() {
        let now = Instant::now();
        let (full, empty) = (snapshot(0, 0), Snapshot::default());
        let mut history = History::new(now, &full);
        for n in 1..1000 {
            history.step(now + Duration::from_secs(n), &full, &full);
        }
        assert_eq!(history.all.out.len(), KEEP);
        history.step(now + Duration::from_secs(1001), &full, &empty);
        assert!(history.nics.is_empty() && history.peers.is_empty());
    }
}
