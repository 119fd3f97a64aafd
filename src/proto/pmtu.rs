//! Path MTU: the largest datagram that a path carries, found inside the session (RFC 8899, without ICMP).
//!
//! ```text
//!   floor ──probe ceiling──▶ passes: settled
//!                            lost × TRIES: halve between what passes and what does not, until GRAIN
//!   settled ──the path may be another──▶ search above once more
//!           ──while busy, every CONFIRM──▶ lost × TRIES: a black hole, back to floor and search again
//!           ──every RAISE──▶ search above once more
//! ```
//!
//! A probe is a PING padded to the size, with DF set; the PONG confirms it. Sizes are UDP payload bytes.

use std::time::{Duration, Instant};

/// What every path is taken to carry: IPv6's minimum MTU less its header and UDP's (RFC 8200, section 5).
pub const FLOOR: u16 = 1280 - 48;

/// The largest datagram ever sent: a jumbo frame's payload.
pub const CEILING: u16 = 9000 - 28;

const TRIES: u8 = 3;
const GRAIN: u16 = 8;
const CONFIRM: Duration = Duration::from_secs(1);
const RAISE: Duration = Duration::from_secs(600);

/// A probe that the caller is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// UDP payload bytes.
    pub size: u16,
    /// Comes back in the PONG.
    pub token: u64,
}

/// What has been found out about one path, in the sending direction.
#[derive(Debug)]
pub struct PathMtu {
    size: u16,
    ceiling: u16,
    /// The smallest size that is taken not to pass.
    too_big: u16,
    flying: Option<Probe>,
    tries: u8,
    searching: bool,
    next: Instant,
    raise: Instant,
}

impl PathMtu {
    /// A new path, whose first link carries `ceiling` bytes.
    pub fn new(now: Instant, ceiling: u16) -> Self {
        let ceiling = ceiling.clamp(FLOOR, CEILING);
        let searching = ceiling > FLOOR;
        Self {
            size: FLOOR,
            ceiling,
            too_big: ceiling.saturating_add(1),
            flying: None,
            tries: 0,
            searching,
            next: now,
            raise: now + RAISE,
        }
    }

    /// The largest size that is known to pass.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// When the next probe or its answer is due, if one is needed.
    pub fn due(&self) -> Instant {
        self.next
    }

    /// When [`Self::handle_timeout`] has something to do. `busy`: full datagrams are being sent.
    pub fn poll_timeout(&self, busy: bool) -> Option<Instant> {
        (busy || self.searching || self.flying.is_some()).then_some(self.next)
    }

    /// Gives up on a probe that is out for `patience`, and says which probe to send next.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        busy: bool,
        patience: Duration,
        token: u64,
    ) -> Option<Probe> {
        if now < self.next || self.poll_timeout(busy).is_none() {
            return None;
        }
        if let Some(lost) = self.flying.take() {
            self.tries = self.tries.saturating_add(1);
            if self.tries >= TRIES {
                self.tries = 0;
                self.give_up(lost.size);
            }
        }
        if !self.searching && self.size < self.ceiling && now >= self.raise {
            self.searching = true;
            self.too_big = self.ceiling.saturating_add(1);
        }
        let Some(size) = self.wanted() else {
            // At the floor there is nothing to confirm: that must not put off the next search for ever.
            if std::mem::take(&mut self.searching) {
                self.raise = now + RAISE;
            }
            self.next = now + CONFIRM;
            return None;
        };
        let probe = Probe { size, token };
        self.flying = Some(probe);
        self.next = now + patience;
        Some(probe)
    }

    /// A PONG came in, a probe's or another's.
    pub fn handle_pong(&mut self, now: Instant, token: u64) {
        let Some(probe) = self.flying.take_if(|p| p.token == token) else { return };
        self.tries = 0;
        self.size = self.size.max(probe.size);
        self.next = if self.searching { now } else { now + CONFIRM };
    }

    /// The kernel refused a datagram of the current size: start over at the floor.
    pub fn handle_too_big(&mut self, now: Instant) {
        self.give_up(self.size);
        self.next = now;
    }

    /// The first link changed: search afresh below its size.
    pub fn set_ceiling(&mut self, now: Instant, ceiling: u16) {
        *self = Self::new(now, ceiling);
    }

    /// The path may have become another: looks for a larger size now. What is known to pass stays until it is missed.
    pub fn search(&mut self, now: Instant) {
        if self.size >= self.ceiling {
            return;
        }
        (self.searching, self.tries, self.too_big) = (true, 0, self.ceiling.saturating_add(1));
        if self.flying.is_none() {
            self.next = now;
        }
    }

    /// `size` does not pass.
    fn give_up(&mut self, size: u16) {
        self.flying = None;
        self.too_big = size;
        if size > self.size {
            return;
        }
        // What used to pass does not any more: nothing that was learnt holds.
        self.searching = self.size > FLOOR;
        self.size = FLOOR;
    }

    /// Which size to probe.
    fn wanted(&mut self) -> Option<u16> {
        if !self.searching {
            return Some(self.size).filter(|&s| s > FLOOR);
        }
        let highest = self.too_big.saturating_sub(1);
        if highest >= self.ceiling {
            return Some(self.ceiling).filter(|&c| c > self.size);
        }
        let gap = highest.saturating_sub(self.size);
        (gap >= GRAIN).then(|| self.size.saturating_add(gap.div_ceil(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    /// Runs the search for `span` over a path that carries `limit` bytes; returns the time it took to settle on the end size.
    fn run(mtu: &mut PathMtu, now: &mut Instant, span: Duration, limit: u16) -> Duration {
        let (start, mut settled, mut token) = (*now, *now, 0);
        while *now < start + span {
            token += 1;
            let before = mtu.size();
            let probe = mtu.handle_timeout(*now, true, PATIENCE, token);
            if let Some(probe) = probe.filter(|p| p.size <= limit) {
                mtu.handle_pong(*now, probe.token);
            }
            if mtu.size() != before {
                settled = *now;
            }
            *now = mtu.poll_timeout(true).unwrap().max(*now + Duration::from_millis(1));
        }
        settled - start
    }

    #[test]
    fn a_clear_path_is_found_with_the_first_probe() {
        let mut now = Instant::now();
        let mut mtu = PathMtu::new(now, 1472);
        assert!(run(&mut mtu, &mut now, Duration::from_secs(1), 1472) < Duration::from_millis(1));
        assert_eq!(mtu.size(), 1472);
    }

    #[test]
    fn a_narrow_path_is_found_to_within_the_grain() {
        for limit in [FLOOR, 1240, 1300, 1392, 1464, 1471] {
            let mut now = Instant::now();
            let mut mtu = PathMtu::new(now, 1472);
            run(&mut mtu, &mut now, Duration::from_secs(20), limit);
            assert!(mtu.size() <= limit && mtu.size() + GRAIN > limit, "{limit}: {}", mtu.size());
        }
    }

    #[test]
    fn a_black_hole_is_noticed_within_two_seconds_of_traffic_and_left_when_it_ends() {
        let mut now = Instant::now();
        let mut mtu = PathMtu::new(now, 1472);
        run(&mut mtu, &mut now, Duration::from_secs(5), 1472);
        let from = now;
        while mtu.size() == 1472 {
            mtu.handle_timeout(now, true, PATIENCE, 1);
            now = mtu.poll_timeout(true).unwrap().max(now);
        }
        assert!(now - from < Duration::from_secs(2), "{:?}", now - from);
        run(&mut mtu, &mut now, Duration::from_secs(20), 1280);
        assert!(mtu.size() > 1280 - GRAIN && mtu.size() <= 1280);
        run(&mut mtu, &mut now, RAISE * 2, 1472);
        assert_eq!(mtu.size(), 1472);
    }

    #[test]
    fn a_size_is_given_up_when_three_probes_of_it_are_lost_and_none_goes_out_early() {
        let start = Instant::now();
        let mut mtu = PathMtu::new(start, 1472);
        let mut probe = |at| mtu.handle_timeout(at, false, PATIENCE, 7).map(|p| p.size);
        for n in 0..3 {
            let now = start + PATIENCE * n;
            assert_eq!(
                (probe(now), probe(now + PATIENCE - Duration::from_millis(1))),
                (Some(1472), None),
                "{n}"
            );
        }
        assert!(probe(start + PATIENCE * 3).is_some_and(|size| size < 1472));
    }

    #[test]
    fn a_path_that_carries_all_that_it_could_is_only_confirmed() {
        let start = Instant::now();
        let mut mtu = PathMtu::new(start, 1472);
        for at in [start, start + CONFIRM, start + RAISE * 2, start + RAISE * 4] {
            let probe = mtu.handle_timeout(at, true, PATIENCE, 7);
            assert_eq!(probe, Some(Probe { size: 1472, token: 7 }));
            mtu.handle_pong(at, 7);
            // The search ends when there is nothing left to be found.
            mtu.handle_timeout(at, true, PATIENCE, 8);
        }
    }

    #[test]
    fn a_path_that_may_be_another_is_searched_at_once_and_keeps_what_passes_meanwhile() {
        for (limit, found) in [(1472, 1472), (1400, 1400), (1240, 1240)] {
            let mut now = Instant::now();
            let mut mtu = PathMtu::new(now, 1472);
            run(&mut mtu, &mut now, Duration::from_secs(20), 1240);
            let narrow = mtu.size();
            mtu.search(now);
            assert_eq!(mtu.size(), narrow);
            run(&mut mtu, &mut now, Duration::from_secs(20), limit);
            assert!(mtu.size() >= narrow && mtu.size() + GRAIN > found, "{limit}: {}", mtu.size());
        }
    }

    #[test]
    fn being_told_again_and_again_neither_floods_nor_keeps_the_search_from_its_end() {
        let mut now = Instant::now();
        let mut mtu = PathMtu::new(now, 1472);
        run(&mut mtu, &mut now, Duration::from_secs(20), 1240);
        let mut probes = 0;
        for token in 0..1000 {
            mtu.search(now);
            probes += u32::from(mtu.handle_timeout(now, false, PATIENCE, token).is_some());
            now += Duration::from_millis(10);
        }
        assert!(probes < 40, "{probes} probes in 10 s");
        run(&mut mtu, &mut now, Duration::from_secs(20), 1300);
        assert!(mtu.size() <= 1300 && mtu.size() + GRAIN > 1300, "{}", mtu.size());
    }

    #[test]
    fn where_nothing_larger_can_be_nothing_is_looked_for() {
        let mut now = Instant::now();
        let mut clear = PathMtu::new(now, 1472);
        run(&mut clear, &mut now, Duration::from_secs(1), 1472);
        clear.search(now);
        assert!(!clear.searching);
    }

    #[test]
    fn an_idle_settled_path_needs_no_timer() {
        let mut now = Instant::now();
        let mut mtu = PathMtu::new(now, 1472);
        run(&mut mtu, &mut now, Duration::from_secs(5), 1472);
        assert_eq!(mtu.poll_timeout(false), mtu.flying.map(|_| mtu.next));
        assert_eq!(PathMtu::new(now, FLOOR).poll_timeout(false), None, "nor does one that can carry no more");
    }

    #[test]
    fn a_path_that_carried_the_floor_alone_is_searched_again_while_traffic_goes_on() {
        let mut now = Instant::now();
        let mut mtu = PathMtu::new(now, 1472);
        run(&mut mtu, &mut now, Duration::from_secs(20), FLOOR);
        assert_eq!(mtu.size(), FLOOR);
        run(&mut mtu, &mut now, RAISE - Duration::from_secs(30), 1472);
        assert_eq!(mtu.size(), FLOOR, "not before its time");
        run(&mut mtu, &mut now, Duration::from_secs(40), 1472);
        assert_eq!(mtu.size(), 1472);
    }

    #[test]
    fn a_settled_path_is_confirmed_once_a_second_while_it_is_busy() {
        for limit in [1472, 1300] {
            let mut now = Instant::now();
            let mut mtu = PathMtu::new(now, 1472);
            run(&mut mtu, &mut now, Duration::from_secs(20), limit);
            let (end, settled, mut probes) = (now + Duration::from_secs(10), mtu.size(), 0);
            while now < end {
                if let Some(probe) = mtu.handle_timeout(now, true, PATIENCE, 9) {
                    assert_eq!(probe.size, settled);
                    mtu.handle_pong(now, 9);
                    probes += 1;
                }
                now += Duration::from_millis(10);
            }
            assert!((9..=10).contains(&probes), "{probes} in 10 s");
        }
    }

    #[test]
    fn a_size_that_the_kernel_refuses_is_left_at_once_and_the_search_is_below() {
        let mut now = Instant::now();
        let mut mtu = PathMtu::new(now, 1472);
        run(&mut mtu, &mut now, Duration::from_secs(5), 1472);
        mtu.handle_too_big(now);
        assert_eq!((mtu.size(), mtu.poll_timeout(false)), (FLOOR, Some(now)));
        let probe = mtu.handle_timeout(now, false, PATIENCE, 1).unwrap();
        assert!(probe.size < 1472, "{}", probe.size);
        run(&mut mtu, &mut now, Duration::from_secs(20), 1400);
        assert!(mtu.size() <= 1400 && mtu.size() + GRAIN > 1400, "{}", mtu.size());
    }

    #[test]
    fn where_even_the_floor_is_refused_nothing_larger_is_looked_for_at_once() {
        let start = Instant::now();
        let mut mtu = PathMtu::new(start, 1472);
        mtu.handle_too_big(start);
        assert_eq!(mtu.poll_timeout(false), None);
        assert_eq!(mtu.handle_timeout(start, true, PATIENCE, 1), None);
        assert_eq!(mtu.poll_timeout(true), Some(start + CONFIRM), "and nothing is due meanwhile");
        assert_eq!(mtu.handle_timeout(start + CONFIRM, true, PATIENCE, 2), None);
        assert!(mtu.handle_timeout(start + RAISE, true, PATIENCE, 3).is_some());
    }

    #[test]
    fn another_first_link_is_searched_afresh_and_what_passed_the_old_one_does_not_count() {
        let mut now = Instant::now();
        let mut mtu = PathMtu::new(now, 1472);
        run(&mut mtu, &mut now, Duration::from_secs(5), 1472);
        mtu.set_ceiling(now, 8000);
        assert_eq!((mtu.size(), mtu.poll_timeout(false)), (FLOOR, Some(now)));
        run(&mut mtu, &mut now, Duration::from_secs(1), 8000);
        assert_eq!(mtu.size(), 8000);
        // Out of bounds: what every path carries, and the longest that is ever sent.
        assert_eq!((FLOOR, CEILING), (1232, 8972));
        for (ceiling, found) in [(0, FLOOR), (u16::MAX, CEILING)] {
            mtu.set_ceiling(now, ceiling);
            run(&mut mtu, &mut now, Duration::from_secs(5), u16::MAX);
            assert_eq!(mtu.size(), found);
        }
    }

    #[test]
    fn a_pong_of_another_token_confirms_nothing() {
        let now = Instant::now();
        let mut mtu = PathMtu::new(now, 1472);
        assert!(mtu.handle_timeout(now, false, PATIENCE, 7).is_some());
        mtu.handle_pong(now, 8);
        assert_eq!((mtu.size(), mtu.poll_timeout(false)), (FLOOR, Some(now + PATIENCE)));
        mtu.handle_pong(now, 7);
        assert_eq!(mtu.size(), 1472);
        mtu.handle_pong(now + PATIENCE, 7);
        assert_eq!(mtu.poll_timeout(false), Some(now), "the same again says nothing more");
    }
}
