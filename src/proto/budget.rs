//! How many handshakes a server computes: for one source, and for all of them.
//!
//! Asked after the cookie is checked and before any Diffie-Hellman, so that each source really receives where it sends
//! from. A source is an IPv4 address or an IPv6 /64, for whoever has one address of a /64 has all. The table is fixed: nothing
//! is kept for a source that was not there before, and sources that fall together share. Which do depends on a secret.
//!
//! Sources that ask seldom and sources that ask often draw on different funds: who floods takes from those that
//! flood, and a client that comes now and then still gets in. What is refused counts as asking, so that who goes on flooding
//! never asks seldom again.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand::CryptoRng;
use rand::RngExt;

use crate::metrics::DropReason;
use crate::proto::cookie::mac;

/// Handshakes a second of one source: many clients may be behind one NAT.
const SOURCE: Rate = Rate { a_second: 150, at_once: 300 };
/// Those of all sources that have lately asked seldom.
const SELDOM: Rate = Rate { a_second: 300, at_once: 600 };
/// Those of all others.
const OFTEN: Rate = Rate { a_second: 120, at_once: 100 };
/// Up to this a source counts as one that asks seldom.
const FEW: Rate = Rate { a_second: 1, at_once: 8 };
/// Places in the table.
const PLACES: usize = 4096;

/// One handshake; with this unit a nanosecond earns as many as there are handshakes a second.
const ONE: u64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Rate {
    a_second: u64,
    at_once: u64,
}

/// A bucket that fills at a rate.
#[derive(Clone, Copy)]
struct Bucket {
    used: u64,
    at: Instant,
}

/// What is known of the sources of one place.
#[derive(Clone, Copy)]
struct Source {
    all: Bucket,
    few: Bucket,
}

/// What is left for handshakes.
pub struct Budgets {
    secret: [u8; 32],
    places: Box<[Source]>,
    seldom: Bucket,
    often: Bucket,
}

impl Budgets {
    /// All of it.
    pub fn new(now: Instant, rng: &mut impl CryptoRng) -> Self {
        let unused = Bucket { used: 0, at: now };
        let places = vec![Source { all: unused, few: unused }; PLACES].into();
        Self { secret: rng.random(), places, seldom: unused, often: unused }
    }

    /// Takes one handshake of `from` out.
    ///
    /// # Errors
    /// [`DropReason::RateLimited`]: there is none left for it now.
    pub fn take(&mut self, now: Instant, from: SocketAddr) -> Result<(), DropReason> {
        let place = self.place(from.ip());
        let source = self.places.get_mut(place).ok_or(DropReason::RateLimited)?;
        let seldom = source.few.note(now, FEW);
        source.all.take(now, SOURCE)?;
        if seldom { self.seldom.take(now, SELDOM) } else { self.often.take(now, OFTEN) }
    }

    fn place(&self, ip: IpAddr) -> usize {
        let source = match ip.to_canonical() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            // An IPv4 address has no bits up there.
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        let [a, b, ..] = mac(&self.secret, &source.to_be_bytes());
        usize::from(u16::from_be_bytes([a, b])) % PLACES
    }
}

impl Bucket {
    fn take(&mut self, now: Instant, rate: Rate) -> Result<(), DropReason> {
        let used = self.used_with_one_more(now, rate);
        if used > rate.at_once.saturating_mul(ONE) {
            return Err(DropReason::RateLimited);
        }
        self.set(now, used);
        Ok(())
    }

    /// The same, but what is not there counts as well: up to as many again as may come at once. True: it was there.
    fn note(&mut self, now: Instant, rate: Rate) -> bool {
        let (used, full) = (self.used_with_one_more(now, rate), rate.at_once.saturating_mul(ONE));
        self.set(now, used.min(full.saturating_mul(2)));
        used <= full
    }

    fn used_with_one_more(&self, now: Instant, rate: Rate) -> u64 {
        let past = now.saturating_duration_since(self.at);
        let earned = u64::try_from(past.as_nanos()).unwrap_or(u64::MAX).saturating_mul(rate.a_second);
        self.used.saturating_sub(earned).saturating_add(ONE)
    }

    /// A clock that stands still or goes back earns nothing.
    fn set(&mut self, now: Instant, used: u64) {
        *self = Self { used, at: self.at.max(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::time::Duration;

    fn source(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from_bits(0x0a00_0000 + n), 7).into()
    }

    #[test]
    fn ten_thousand_attempts_a_second_cost_a_bounded_number_and_a_newcomer_gets_in() {
        let start = Instant::now();
        for seed in 0..20 {
            let mut budgets = Budgets::new(start, &mut StdRng::seed_from_u64(seed));
            let (mut done, mut newcomer_waits) = (0, Vec::new());
            for tick in 0..30_000u32 {
                let now = start + Duration::from_micros(100) * tick;
                done += u64::from(budgets.take(now, source(tick % 16)).is_ok());
                // Somebody new every 100 ms, once the flood is under way.
                if tick > 10_000 && tick % 1000 == 0 {
                    let newcomer = source(1_000_000 + tick);
                    let tries = (0..30u32)
                        .position(|n| budgets.take(now + Duration::from_millis(100) * n, newcomer).is_ok());
                    newcomer_waits.push(tries.expect("gets in within 3 s"));
                }
            }
            // Three seconds of it and what could be had at once.
            let most = 3 * (SELDOM.a_second + OFTEN.a_second) + SELDOM.at_once + OFTEN.at_once;
            assert!(done <= most, "{done} handshakes");
            let at_once = newcomer_waits.iter().filter(|n| **n == 0).count();
            assert!(at_once * 4 >= newcomer_waits.len() * 3, "{newcomer_waits:?}");
        }
    }

    #[test]
    fn who_goes_on_flooding_takes_from_those_that_flood_and_comes_back_after_a_rest() {
        let start = Instant::now();
        let mut budgets = Budgets::new(start, &mut StdRng::seed_from_u64(4));
        let mut late = 0;
        for tick in 0..100_000u32 {
            let done = budgets.take(start + Duration::from_micros(100) * tick, source(tick % 256)).is_ok();
            late += u64::from(done && tick >= 50_000);
        }
        assert!(late <= 5 * OFTEN.a_second + OFTEN.at_once, "{late} handshakes in the last five seconds");
        let mut one = Bucket { used: 0, at: start };
        let noted = |one: &mut Bucket, at| one.note(start + Duration::from_secs(at), FEW);
        assert_eq!([0; 9].map(|at| noted(&mut one, at)), [[true; 8].as_slice(), &[false]].concat()[..]);
        assert!((0..100).all(|_| !noted(&mut one, 0)));
        assert!(!noted(&mut one, 8) && noted(&mut one, 19));
    }

    #[test]
    fn a_thousand_clients_behind_one_address_are_back_in_ten_seconds() {
        let start = Instant::now();
        let mut budgets = Budgets::new(start, &mut StdRng::seed_from_u64(1));
        let mut left = 1000;
        for second in 0..10 {
            let now = start + Duration::from_secs(second);
            // Each of those that are left tries once a second.
            left -= (0..left).filter(|_| budgets.take(now, source(1)).is_ok()).count();
        }
        assert_eq!(left, 0);
    }

    #[test]
    fn the_addresses_of_a_64_are_one_source_and_a_mapped_address_is_its_ipv4() {
        let start = Instant::now();
        let budgets = Budgets::new(start, &mut StdRng::seed_from_u64(2));
        let place = |ip: &str| budgets.place(ip.parse().unwrap());
        assert_eq!(place("2001:db8:1:2::1"), place("2001:db8:1:2:ffff::9"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
        let places: std::collections::HashSet<_> =
            (0..200u32).map(|n| budgets.place(source(n).ip())).collect();
        assert!(places.len() > 150, "{}", places.len());
        let network = |n: u32| place(&format!("2001:db8:{n:x}::1"));
        let places: std::collections::HashSet<_> = (0..200u32).map(network).collect();
        assert!(places.len() > 150, "{}", places.len());
    }

    #[test]
    fn as_many_as_may_come_at_once_do_and_no_more() {
        let now = Instant::now();
        let (mut bucket, rate) = (Bucket { used: 0, at: now }, Rate { a_second: 1, at_once: 3 });
        let taken = [(); 4].map(|()| bucket.take(now, rate).is_ok());
        assert_eq!(taken, [true, true, true, false]);
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut budgets = Budgets::new(start, &mut StdRng::seed_from_u64(3));
        while budgets.take(start, source(1)).is_ok() {}
        assert!(budgets.take(start - Duration::from_secs(50), source(1)).is_err());
        assert!(budgets.take(start, source(1)).is_err());
        assert!(budgets.take(start + Duration::from_secs(1), source(1)).is_ok());
    }
}
