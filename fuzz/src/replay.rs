//! The replay window, held against a list of everything that was ever taken.

use tap_rs::metrics::DropReason;
use tap_rs::proto::replay::Window;

use super::input::Input;

/// Runs one input: steps from the newest sequence number.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (mut window, mut seen, mut newest) = (Window::new(), Vec::new(), None::<u64>);
    while let Some(op) = input.next() {
        let at = newest.unwrap_or(0);
        let seq = match op & 7 {
            0 => at.saturating_add(1),
            1 => at.saturating_add(u64::from(input.u8())),
            2 => at.saturating_add(u64::from(input.u16())),
            3 => at.saturating_sub(u64::from(input.u8())),
            4 | 5 => at.saturating_sub(u64::from(input.u16())),
            6 => at.saturating_sub(Window::SIZE).saturating_add(u64::from(op >> 3)).saturating_sub(16),
            _ => input.u64() >> (op >> 3),
        };
        let seq = seq.min(u64::MAX - 1);
        let too_old = newest.is_some_and(|n| seq.saturating_add(Window::SIZE) < n.saturating_add(1));
        let verdict = window.check(seq);
        let want = if too_old {
            Err(DropReason::TooOld)
        } else if seen.contains(&seq) {
            Err(DropReason::Replayed)
        } else {
            Ok(())
        };
        assert_eq!(verdict, want, "{seq} after {newest:?}");
        let is_newest = newest.is_none_or(|n| seq > n);
        assert_eq!(window.commit(seq), want.map(|()| is_newest));
        if want.is_ok() {
            seen.push(seq);
            newest = newest.max(Some(seq));
        }
    }
}
