//! A pull by itself: what it asks for and when, and what it takes.

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn pull_through(lossy: f64, blob: &[u8], seed: u8) -> (Duration, Vec<u8>) {
    let hash = hash_of(blob);
    let revision = revision_of(&hash);
    let mut rng = StdRng::from_seed([seed; 32]);
    let (start, rtt) = (Instant::now(), Some(Duration::from_millis(20)));
    let (mut now, mut pull) = (start, Pull::new(start));
    loop {
        for message in pull.handle_timeout(now, rtt) {
            if rng.random_bool(lossy) || rng.random_bool(lossy) {
                continue;
            }
            let Control::Get { revision: r, offset } = message else { panic!("{message:?}") };
            if r == 0 {
                pull.handle_offer(now, revision, blob.len() as u32, &hash).unwrap();
            } else if let Some(Control::Chunk { revision, offset, bytes }) = chunk(blob, r, offset)
                && let Some((_, got)) = pull.handle_chunk(now, revision, offset, bytes).unwrap()
            {
                return (now - start, got);
            }
        }
        now = pull.poll_timeout(rtt).unwrap().max(now + Duration::from_millis(1));
    }
}

#[test]
fn a_full_blob_arrives_through_a_third_of_loss() {
    let mut blob = vec![0; MAX_LEN];
    StdRng::from_seed([7; 32]).fill(&mut blob[..]);
    let (took, got) = pull_through(0.3, &blob, 1);
    assert!(got == blob);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn every_length_around_a_chunk_arrives() {
    for n in [1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN + 5] {
        let blob: Vec<u8> = (0..n).map(|i| i as u8).collect();
        assert_eq!(pull_through(0.1, &blob, 2).1, blob);
    }
}

#[test]
fn a_wrong_hash_delivers_nothing_and_asks_again() {
    let now = Instant::now();
    let mut pull = Pull::new(now);
    let hash = hash_of(b"right");
    pull.handle_offer(now, revision_of(&hash), 5, &hash).unwrap();
    assert_eq!(pull.handle_chunk(now, revision_of(&hash), 0, b"wrong"), Err(DropReason::BadPush));
    assert_eq!(pull.poll_timeout(None), Some(now + REPENT));
}

#[test]
fn misplaced_chunks_are_dropped() {
    let now = Instant::now();
    let mut pull = Pull::new(now);
    let blob = vec![1; 2000];
    let hash = hash_of(&blob);
    let revision = revision_of(&hash);
    pull.handle_offer(now, revision, 2000, &hash).unwrap();
    let (bad, foreign) = (Err(DropReason::BadPush), Err(DropReason::Unexpected));
    for (r, offset, len, want) in [
        (revision ^ 1, 0, 1024, foreign),
        (revision, 1, 1024, bad.clone()),
        (revision, 0, 1023, bad.clone()),
        (revision, 1024, 1024, bad.clone()),
        (revision, 2048, 0, bad.clone()),
        (revision, 4096, 0, bad),
    ] {
        assert_eq!(pull.handle_chunk(now, r, offset, &vec![1; len]), want, "{offset}");
    }
    assert_eq!(pull.handle_timeout(now, None).len(), 2);
    let mut take = |offset: usize| {
        let end = blob.len().min(offset + CHUNK_LEN);
        pull.handle_chunk(now, revision, offset as u32, &blob[offset..end])
    };
    assert_eq!(take(0), Ok(None));
    assert_eq!(take(0), Ok(None), "again, which is nobody's fault");
    assert_eq!(take(1024), Ok(Some((revision, blob.clone()))));
    assert_eq!(take(1024), Ok(None), "late, which is nobody's fault");
}

#[test]
fn what_was_delivered_is_not_pulled_again() {
    let now = Instant::now();
    let mut pull = Pull::new(now);
    let hash = hash_of(b"blob");
    let revision = revision_of(&hash);
    pull.handle_offer(now, revision, 4, &hash).unwrap();
    assert!(pull.handle_chunk(now, revision, 0, b"blob").unwrap().is_some());
    pull.handle_revision(now, revision);
    pull.restart(now);
    pull.handle_offer(now, revision, 4, &hash).unwrap();
    assert_eq!(pull.poll_timeout(None), None);
    pull.handle_revision(now, revision ^ 1);
    assert_eq!(pull.poll_timeout(None), Some(now));
}

#[test]
fn an_offer_that_cannot_be_is_not_allocated_for() {
    let now = Instant::now();
    let mut pull = Pull::new(now);
    let hash = hash_of(b"x");
    for (revision, length) in [(revision_of(&hash), u32::MAX), (revision_of(&hash), 0), (5, 10)] {
        assert_eq!(pull.handle_offer(now, revision, length, &hash), Err(DropReason::BadPush));
        assert_eq!(pull.poll_timeout(None), Some(now + REPENT));
    }
}

#[test]
fn offers_that_change_without_end_are_taken_once_a_second() {
    let start = Instant::now();
    let mut pull = Pull::new(start);
    let offer = |pull: &mut Pull, at: u64, blob: &[u8]| {
        let hash = hash_of(blob);
        pull.handle_offer(start + Duration::from_millis(at), revision_of(&hash), 1 << 20, &hash)
    };
    assert_eq!(offer(&mut pull, 0, b"0"), Ok(()));
    for at in 1..1000 {
        assert_eq!(offer(&mut pull, at, &at.to_le_bytes()), Err(DropReason::RateLimited));
    }
    assert_eq!(pull.poll_timeout(None), Some(start + REPENT), "then it asks what holds by now");
    assert_eq!(offer(&mut pull, 1000, b"the last"), Ok(()));
}

/// A pull under way: the offer of `length` bytes is taken, nothing has been asked for.
fn pulling(now: Instant, length: usize) -> (Pull, Vec<u8>, u64) {
    let blob = vec![3; length];
    let (hash, mut pull) = (hash_of(&blob), Pull::new(now));
    let revision = revision_of(&hash);
    pull.handle_offer(now, revision, length as u32, &hash).unwrap();
    (pull, blob, revision)
}

#[test]
fn what_is_offered_is_asked_for_at_once_and_again_after_four_times_the_patience() {
    let now = Instant::now();
    let mut pull = Pull::new(now);
    let question = [Control::Get { revision: 0, offset: 0 }];
    let (rtt, gap) = (Some(Duration::from_millis(50)), Duration::from_millis(4 * 150));
    for (after, asked) in [(0, true), (0, false), (599, false), (600, true), (1199, false), (1200, true)] {
        let at = now + Duration::from_millis(after);
        assert_eq!(pull.handle_timeout(at, rtt), question[..usize::from(asked)], "{after} ms");
    }
    assert_eq!(pull.poll_timeout(rtt), Some(now + gap * 3));
}

#[test]
fn a_get_is_sent_again_after_three_round_trips_within_bounds() {
    let ms = Duration::from_millis;
    for (rtt, gap) in [(None, 150), (Some(ms(1)), 50), (Some(ms(100)), 300), (Some(ms(900)), 1000)] {
        let now = Instant::now();
        let (mut pull, ..) = pulling(now, 10);
        for n in 0..3 {
            let at = now + ms(gap) * n;
            assert_eq!(pull.handle_timeout(at, rtt).len(), 1, "{rtt:?}");
            assert_eq!(pull.poll_timeout(rtt), Some(at + ms(gap)));
            assert!(pull.handle_timeout(at + ms(gap - 1), rtt).is_empty(), "{rtt:?}");
        }
    }
}

#[test]
fn no_more_gets_are_under_way_than_the_window_holds() {
    let now = Instant::now();
    let (mut pull, blob, revision) = pulling(now, MAX_LEN);
    let offsets = |gets: Vec<Control<'_>>| -> Vec<usize> {
        let offset = |get: &Control<'_>| match get {
            Control::Get { offset, .. } => *offset as usize / CHUNK_LEN,
            other => panic!("{other:?}"),
        };
        gets.iter().map(offset).collect()
    };
    assert_eq!(offsets(pull.handle_timeout(now, None)), (0..WINDOW).collect::<Vec<_>>());
    for at in [5, 1] {
        let offset = at * CHUNK_LEN;
        let bytes = &blob[offset..offset + CHUNK_LEN];
        assert_eq!(pull.handle_chunk(now, revision, offset as u32, bytes), Ok(None));
    }
    assert_eq!(offsets(pull.handle_timeout(now, None)), [WINDOW, WINDOW + 1], "one for each that came");
}

#[test]
fn a_new_session_asks_at_once_and_goes_on_with_what_is_under_way() {
    let now = Instant::now();
    let (mut pull, blob, revision) = pulling(now, 10);
    pull.restart(now);
    assert_eq!(pull.handle_chunk(now, revision, 0, &blob), Ok(Some((revision, blob))));
    assert_eq!(pull.poll_timeout(None), None);
    pull.restart(now);
    assert_eq!(pull.handle_timeout(now, None), [Control::Get { revision: 0, offset: 0 }]);
}

#[test]
fn a_server_that_offers_nothing_is_asked_for_nothing() {
    let now = Instant::now();
    let mut pull = Pull::new(now);
    assert_eq!(pull.handle_offer(now, 0, 0, &[0; 32]), Ok(()));
    pull.handle_revision(now, 0);
    assert_eq!(pull.poll_timeout(None), None);
}

#[test]
fn only_the_word_of_another_revision_ends_a_pull_under_way() {
    let now = Instant::now();
    let (mut pull, blob, revision) = pulling(now, 2000);
    assert_eq!(pull.handle_chunk(now, revision, 0, &blob[..CHUNK_LEN]), Ok(None));
    let under_way = [Control::Get { revision, offset: CHUNK_LEN as u32 }];
    pull.handle_revision(now, revision);
    pull.handle_revision(now, 0);
    assert_eq!(pull.handle_offer(now, revision, 2000, &hash_of(&blob)), Ok(()), "the same offer again");
    assert_eq!(pull.handle_timeout(now, None), under_way);
    pull.handle_revision(now, revision ^ 1);
    assert_eq!(pull.handle_timeout(now, None), [Control::Get { revision: 0, offset: 0 }]);
}

#[test]
fn a_get_past_the_end_or_between_chunks_has_no_answer() {
    let blob = vec![7; CHUNK_LEN + 5];
    let length = |offset: usize| match chunk(&blob, 1, offset as u32) {
        Some(Control::Chunk { bytes, .. }) => Some(bytes.len()),
        _ => None,
    };
    assert_eq!([0, CHUNK_LEN].map(length), [Some(CHUNK_LEN), Some(5)]);
    assert_eq!([1, CHUNK_LEN + 1, CHUNK_LEN + 5, 2 * CHUNK_LEN, 1 << 31].map(length), [None; 5]);
    assert_eq!(chunk(&blob[..CHUNK_LEN], 1, CHUNK_LEN as u32), None, "a blob that ends with a chunk");
    assert_eq!(chunk(&[], 1, 0), None);
}

#[test]
fn a_revision_is_the_front_of_the_hash_and_never_0() {
    let mut hash = [0; 32];
    assert_eq!(revision_of(&hash), 1);
    hash[7] = 2;
    assert_eq!(revision_of(&hash), 2 << 56);
    assert_eq!(hash_of(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
}
