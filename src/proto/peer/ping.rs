//! PINGs and PONGs: how far away the peer is, whether a path is its own, and what a path carries.

use std::time::{Duration, Instant};

use rand::CryptoRng;

use super::Peer;
use crate::proto::output::Outputs;
use crate::proto::timers::CHALLENGE_LIFE;
use crate::types::Path;
use crate::wire::control::{Control, Tally};

/// PINGs whose PONG may still come.
const PINGS: usize = 16;

/// What a PING is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Echo,
    Probe,
    Challenge(Path),
}

/// A PING whose PONG may still come.
pub(super) struct Ping {
    pub(super) token: u64,
    sent: Instant,
    purpose: Purpose,
}

/// What a PONG told.
pub(crate) enum Ponged {
    Nothing,
    /// The path is the peer's.
    Proven(Path),
}

impl Peer {
    /// Sends a PING to the path in use.
    pub(crate) fn ping(&mut self, now: Instant, rng: &mut impl CryptoRng, out: &mut Outputs) {
        if let Some(path) = self.path {
            self.ping_to(now, path, Purpose::Echo, rng.next_u64(), 0, out);
        }
    }

    /// Asks whoever is at `path` to prove that it holds the session's keys. Once per [`CHALLENGE_LIFE`] and path.
    pub(crate) fn challenge(
        &mut self,
        now: Instant,
        path: Path,
        rng: &mut impl CryptoRng,
        out: &mut Outputs,
    ) {
        let fresh = |p: &Ping| now.saturating_duration_since(p.sent) < CHALLENGE_LIFE / 4;
        let asked = self.pings.iter().any(|p| p.purpose == Purpose::Challenge(path) && fresh(p));
        if !asked && self.path != Some(path) {
            self.ping_to(now, path, Purpose::Challenge(path), rng.next_u64(), 0, out);
        }
    }

    /// What the peer says that it has received in the session of this index.
    pub(crate) fn handle_tally(&mut self, index: u32, tally: Option<Tally>) {
        if let (Some(tally), Some(slot)) = (tally, self.slot(index)) {
            slot.hear(tally);
        }
    }

    /// Answers a PING, to where it came from; with a tally if `tallied`.
    pub(crate) fn handle_ping(
        &mut self,
        now: Instant,
        token: u64,
        revision: u64,
        tallied: bool,
        from: Path,
        out: &mut Outputs,
    ) {
        // Many PINGs fit one datagram: to an address that nobody has proven, one answer at a time.
        if self.path.is_none_or(|path| path.remote != from.remote) {
            let soon = |t: Instant| now.saturating_duration_since(t) < PONG_ELSEWHERE;
            if self.ponged_elsewhere.is_some_and(soon) {
                return;
            }
            self.ponged_elsewhere = Some(now);
        }
        let tally = self.tally().filter(|_| tallied);
        self.send_to(now, from, Some(&Control::Pong { token, revision, tally }), 0, out);
    }

    /// A PONG came in.
    pub(crate) fn handle_pong(&mut self, now: Instant, token: u64, from: Path, out: &mut Outputs) -> Ponged {
        let Some(at) = self.pings.iter().position(|p| p.token == token) else { return Ponged::Nothing };
        let Some(ping) = self.pings.remove(at) else { return Ponged::Nothing };
        let rtt = now.saturating_duration_since(ping.sent);
        match ping.purpose {
            Purpose::Challenge(path) if path == from && rtt < CHALLENGE_LIFE => return Ponged::Proven(path),
            Purpose::Challenge(_) => return Ponged::Nothing,
            Purpose::Echo => {}
            Purpose::Probe => {
                let before = self.pmtu.size();
                self.pmtu.handle_pong(now, token);
                self.resized(before, out);
            }
        }
        // RFC 6298: a quarter of the new deviation, an eighth of the new sample.
        let deviation = self.rtt.map_or(rtt / 2, |old| old.abs_diff(rtt));
        self.jitter =
            Some(self.jitter.map_or(deviation, |old| old.saturating_mul(3).saturating_add(deviation) / 4));
        self.rtt = Some(self.rtt.map_or(rtt, |old| old.saturating_mul(7).saturating_add(rtt) / 8));
        Ponged::Nothing
    }

    pub(super) fn ping_to(
        &mut self,
        now: Instant,
        path: Path,
        purpose: Purpose,
        token: u64,
        size: u16,
        out: &mut Outputs,
    ) {
        if self.pings.len() >= PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back(Ping { token, sent: now, purpose });
        // A challenge is to be no longer than it must be.
        let mut tally = None;
        if purpose == Purpose::Echo {
            self.activity.note_request(now);
            tally = self.tally();
        }
        self.send_to(now, path, Some(&Control::Ping { token, tally }), size, out);
    }
}

/// Shortest time between answers to PINGs from addresses that are not proven.
const PONG_ELSEWHERE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::output::PeerId;
    use crate::proto::session::Keys;
    use crate::types::Suite;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// A peer with a session at `home`.
    fn up(now: Instant, home: Path) -> (Peer, StdRng, Outputs) {
        let (mut peer, mut out) = (Peer::new(PeerId(0), now), Outputs::default());
        let key = || [0; 32].into();
        let keys = Keys { suite: Suite::Aes, send: key(), receive: key(), local_index: 1, remote_index: 2 };
        let slot = peer.install(now, &keys, 0, &mut out).unwrap();
        peer.promote(now, slot, home, &mut out);
        (peer, StdRng::from_seed([0; 32]), out)
    }

    #[test]
    fn the_round_trip_is_smoothed_as_rfc_6298_has_it() {
        let (now, home) = (Instant::now(), Path::new(([192, 0, 2, 1], 5000).into(), None));
        let (mut peer, mut rng, mut out) = up(now, home);
        let ms = Duration::from_millis;
        for (took, rtt, jitter) in [(80, 80, 40), (160, 90, 50)] {
            peer.ping(now, &mut rng, &mut out);
            assert_eq!(peer.activity.unanswered(), Some(now), "it calls for an answer");
            let token = peer.pings.back().unwrap().token;
            peer.handle_pong(now + ms(took), token, home, &mut out);
            assert_eq!((peer.rtt, peer.jitter), (Some(ms(rtt)), Some(ms(jitter))));
        }
    }

    #[test]
    fn the_last_sixteen_pings_may_still_be_answered() {
        let (now, home) = (Instant::now(), Path::new(([192, 0, 2, 1], 5000).into(), None));
        let (mut peer, mut rng, mut out) = up(now, home);
        let mut ping = || {
            peer.ping(now, &mut rng, &mut out);
            peer.pings.iter().map(|p| p.token).collect::<Vec<_>>()
        };
        let waiting: Vec<_> = (0..=PINGS).map(|_| ping()).collect();
        assert!((0..PINGS).all(|n| waiting[n].len() == n + 1));
        assert_eq!(waiting[PINGS], [&waiting[PINGS - 1][1..], &waiting[PINGS][PINGS - 1..]].concat());
    }

    #[test]
    fn a_challenge_proves_a_path_in_time_only() {
        let now = Instant::now();
        let [home, new] = [1, 2].map(|n| Path::new(([192, 0, 2, n], 5000).into(), None));
        let (mut peer, mut rng, mut out) = up(now, home);
        for (after, proves) in [(CHALLENGE_LIFE - Duration::from_millis(1), true), (CHALLENGE_LIFE, false)] {
            peer.challenge(now, new, &mut rng, &mut out);
            let token = peer.pings.back().unwrap().token;
            let answer = peer.handle_pong(now + after, token, new, &mut out);
            assert_eq!(matches!(answer, Ponged::Proven(path) if path == new), proves, "{after:?}");
        }
    }
}
