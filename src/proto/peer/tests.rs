//! One peer by itself: what its timers send, and what its sessions are replaced for.

use super::*;
use crate::proto::activity::Volume;
use crate::proto::index::{Tag, free_index};
use crate::proto::session::REKEY_AFTER_DATAGRAMS;
use crate::proto::timers::{CHALLENGE_LIFE, REKEY_AFTER_BYTES};
use crate::types::Suite;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[test]
fn a_handshake_takes_no_index_that_a_session_has() {
    let (now, mut out) = (Instant::now(), Outputs::default());
    let first = StdRng::from_seed([7; 32]).next_u32();
    let key = || [0; 32].into();
    let (suite, remote_index) = (Suite::Aes, 2);
    let keys = Keys { suite, send: key(), receive: key(), local_index: first, remote_index };
    let mut peer = Peer::new(PeerId(0), now);
    let slot = peer.install(now, &keys, 0, &mut out).unwrap();
    peer.promote(now, slot, Path::new(([192, 0, 2, 1], 5000).into(), None), &mut out);
    assert!(peer.has(first) && !peer.has(remote_index), "the other end's own number is no collision");
    let index = free_index(&mut StdRng::from_seed([7; 32]), Tag::default(), |index| peer.has(index));
    assert_ne!(index, first);
}

#[test]
fn a_session_that_was_not_used_yet_goes_with_its_key() {
    let (now, mut out) = (Instant::now(), Outputs::default());
    let path = Path::new(([192, 0, 2, 1], 5000).into(), None);
    let mut peer = Peer::new(PeerId(0), now);
    for (kept, there) in [([7; 32], true), ([8; 32], false)] {
        let key = || [0; 32].into();
        let keys = Keys { suite: Suite::Aes, send: key(), receive: key(), local_index: 1, remote_index: 2 };
        let mut slot = peer.install(now, &keys, 0, &mut out).unwrap();
        slot.key = [7; 32];
        let shaken = Handshaken { init_mac: [0; 16], resp: [0; crate::wire::datagram::RESP_LEN], path };
        peer.next = Some((slot, shaken));
        assert!(!peer.keep_keys(|key| *key == kept, &mut out), "the current one is not concerned");
        assert_eq!(peer.next.is_some(), there);
    }
}

const HOME: [u8; 4] = [192, 0, 2, 1];

fn path(ip: [u8; 4]) -> Path {
    Path::new((ip, 5000).into(), None)
}

/// A peer with a session, and nothing left to do of that.
fn up(now: Instant) -> (Peer, StdRng, Outputs) {
    let (mut peer, mut out) = (Peer::new(PeerId(0), now), Outputs::default());
    let key = || [0; 32].into();
    let keys = Keys { suite: Suite::Aes, send: key(), receive: key(), local_index: 1, remote_index: 2 };
    let slot = peer.install(now, &keys, 0, &mut out).unwrap();
    peer.promote(now, slot, path(HOME), &mut out);
    drain(&mut out);
    (peer, StdRng::from_seed([0; 32]), out)
}

fn drain(out: &mut Outputs) -> Vec<Output> {
    std::iter::from_fn(|| out.pop()).collect()
}

/// The sizes of the datagrams that go out.
fn sent(out: &mut Outputs) -> Vec<usize> {
    let size = |output: Output| match output {
        Output::Send { bytes, .. } => Some(bytes.len()),
        _ => None,
    };
    drain(out).into_iter().filter_map(size).collect()
}

/// The sizes of datagrams that the data path is told of.
fn sizes(out: &mut Outputs) -> Vec<u16> {
    let size = |output: Output| match output {
        Output::Datagram { size, .. } => Some(size),
        _ => None,
    };
    drain(out).into_iter().filter_map(size).collect()
}

#[test]
fn a_session_is_worn_by_what_it_carries_either_way() {
    let cases = [
        ((REKEY_AFTER_DATAGRAMS - 1, REKEY_AFTER_BYTES - 1), false),
        ((REKEY_AFTER_DATAGRAMS, 0), true),
        ((0, REKEY_AFTER_BYTES), true),
    ];
    for ((datagrams, bytes), worn) in cases {
        for count in [Volume::count_sent, Volume::count_received] {
            let (peer, ..) = up(Instant::now());
            count(peer.current.as_ref().unwrap().lane.volume(), datagrams, bytes);
            assert_eq!(peer.worn(), worn, "{datagrams} datagrams, {bytes} bytes");
        }
    }
}

#[test]
fn whoever_heard_frames_and_said_nothing_for_a_while_sends_an_empty_datagram() {
    let now = Instant::now();
    let (mut peer, mut rng, mut out) = up(now);
    peer.activity.note_received(now, true);
    let soon = KEEPALIVE_AFTER - Duration::from_millis(1);
    for (after, empty) in [(soon, 0), (KEEPALIVE_AFTER, 1), (KEEPALIVE_AFTER * 2, 0)] {
        // Probes of the path go out meanwhile, and do not stand for it.
        assert!(peer.poll_timeout() <= Some(now + after));
        peer.handle_timeout(now + after, &mut rng, &mut out);
        assert_eq!(sent(&mut out).iter().filter(|n| **n == DATA_OVERHEAD).count(), empty, "{after:?}");
    }
}

#[test]
fn a_size_that_is_proven_holds_until_the_kernel_refuses_it() {
    let now = Instant::now();
    let (mut peer, mut rng, mut out) = up(now);
    peer.handle_timeout(now, &mut rng, &mut out);
    assert_eq!(sent(&mut out), [usize::from(ORDINARY)], "a probe as long as the first link takes");
    let token = peer.pings.back().unwrap().token;
    peer.handle_pong(now, token, path(HOME), &mut out);
    assert_eq!(sizes(&mut out), [ORDINARY]);
    peer.handle_too_big(now, &mut out);
    assert_eq!(sizes(&mut out), [FLOOR]);
    peer.handle_too_big(now, &mut out);
    assert!(sizes(&mut out).is_empty(), "it is what it was");
}

#[test]
fn a_path_is_asked_to_prove_itself_once_in_a_while_and_the_one_in_use_is_not() {
    let now = Instant::now();
    let (mut peer, mut rng, mut out) = up(now);
    let new = path([192, 0, 2, 2]);
    let gap = CHALLENGE_LIFE / 4;
    for (after, asked) in
        [(Duration::ZERO, 1), (Duration::ZERO, 0), (gap - Duration::from_millis(1), 0), (gap, 1)]
    {
        peer.challenge(now + after, new, &mut rng, &mut out);
        assert_eq!(sent(&mut out).len(), asked, "{after:?}");
    }
    peer.challenge(now, path([192, 0, 2, 3]), &mut rng, &mut out);
    assert_eq!(sent(&mut out).len(), 1, "another path is another question");
    peer.challenge(now, path(HOME), &mut rng, &mut out);
    assert_eq!(sent(&mut out).len(), 0);
}

#[test]
fn every_ping_is_answered_where_the_peer_is_and_elsewhere_one_at_a_time() {
    let now = Instant::now();
    let (mut peer, _, mut out) = up(now);
    let new = path([192, 0, 2, 2]);
    let ms = Duration::from_millis;
    let cases =
        [(0, path(HOME), 1), (0, path(HOME), 1), (0, new, 1), (0, new, 0), (49, new, 0), (50, new, 1)];
    for (after, from, answers) in cases {
        peer.handle_ping(now + ms(after), 7, 0, true, from, &mut out);
        let to: Vec<_> = drain(&mut out).into_iter().collect();
        assert_eq!(to.len(), answers, "{after} ms, {from}");
        assert!(to.iter().all(|o| matches!(o, Output::Send { path, .. } if *path == from)));
    }
}

#[test]
fn what_the_peer_says_of_a_session_is_the_newest_that_can_be_true() {
    let (mut peer, ..) = up(Instant::now());
    peer.current.as_ref().unwrap().lane.volume().count_sent(10, 0);
    let tally = |expected, arrived| Tally { expected, arrived };
    peer.handle_tally(2, Some(tally(10, 9)));
    assert_eq!(peer.info().unwrap().outgoing, None, "there is no such session");
    peer.handle_tally(1, None);
    let said =
        [(tally(8, 7), (8, 7)), (tally(5, 5), (8, 7)), (tally(8, 8), (8, 8)), (tally(99, 98), (10, 10))];
    for (told, (expected, arrived)) in said {
        peer.handle_tally(1, Some(told));
        assert_eq!(peer.info().unwrap().outgoing.unwrap().recent, tally(expected, arrived));
    }
}

#[test]
fn a_session_with_another_run_of_the_other_end_is_new() {
    let (peer, ..) = up(Instant::now());
    assert!(!peer.is_new(0) && peer.is_new(1));
    assert!(Peer::new(PeerId(0), Instant::now()).is_new(0), "there is none yet");
}

#[test]
fn a_busy_peer_is_looked_at_twice_a_second_and_an_idle_one_when_it_wakes() {
    let now = Instant::now();
    let (mut peer, mut rng, mut out) = up(now);
    assert_eq!(peer.watch(), None, "idle");
    assert!(peer.activity.note_sent(now, true), "the data path is asked to say when that changes");
    assert_eq!(peer.watch(), Some(now + WATCH));
    // Answered, and nothing since: it counts as busy until two looks have seen nothing new.
    peer.activity.note_received(now, false);
    for (after, busy) in [(WATCH, true), (WATCH * 2, true), (WATCH * 3, false)] {
        peer.handle_timeout(now + after, &mut rng, &mut out);
        assert_eq!(peer.watch(), busy.then(|| now + after + WATCH), "{after:?}");
    }
    peer.activity.note_sent(now + WATCH * 3, true);
    peer.clear(&mut out);
    assert_eq!(peer.watch(), None, "there is no session");
}

/// A session with this index, `now` its beginning, in `peer`'s hands.
fn session(peer: &Peer, now: Instant, index: u32, out: &mut Outputs) -> Slot {
    let key = || [0; 32].into();
    let keys = Keys {
        suite: Suite::Aes,
        send: key(),
        receive: key(),
        local_index: index,
        remote_index: index + 100,
    };
    peer.install(now, &keys, 0, out).unwrap()
}

/// The indices that nothing is received on any more.
fn retired(out: &mut Outputs) -> Vec<u32> {
    let index = |output: Output| match output {
        Output::Retire { index } => Some(index),
        _ => None,
    };
    drain(out).into_iter().filter_map(index).collect()
}

#[test]
fn a_session_is_received_on_until_the_one_that_replaced_it_is_replaced() {
    let now = Instant::now();
    let (mut peer, _, mut out) = up(now);
    for (index, gone) in [(2, &[][..]), (3, &[1]), (4, &[2])] {
        let slot = session(&peer, now, index, &mut out);
        peer.promote(now, slot, path(HOME), &mut out);
        assert_eq!(retired(&mut out), gone);
        assert!(peer.has(index) && peer.has(index - 1) && !peer.has(index + 100));
    }
    peer.clear(&mut out);
    assert_eq!(retired(&mut out), [4, 3]);
}

#[test]
fn a_session_is_forgotten_at_its_age_and_it_is_told_if_that_was_the_one_in_use() {
    let now = Instant::now();
    let (mut peer, _, mut out) = up(now);
    let young = now + Duration::from_secs(60);
    let slot = session(&peer, young, 2, &mut out);
    peer.promote(young, slot, path(HOME), &mut out);
    drain(&mut out);
    assert!(peer.poll_timeout() <= Some(now + REJECT_AFTER));
    for (at, gone, lost) in [
        (now + REJECT_AFTER - Duration::from_millis(1), &[][..], false),
        (now + REJECT_AFTER, &[1], false),
        (young + REJECT_AFTER - Duration::from_millis(1), &[], false),
        (young + REJECT_AFTER, &[2], true),
    ] {
        assert_eq!((peer.expire(at, &mut out), &retired(&mut out)[..]), (lost, gone));
    }
}

#[test]
fn sessions_go_with_their_keys_whether_they_are_in_use_or_were() {
    for (kept, gone, lost) in [(8, &[1][..], false), (7, &[2], true), (9, &[2, 1], true)] {
        let now = Instant::now();
        let (mut peer, _, mut out) = up(now);
        peer.current.as_mut().unwrap().key = [7; 32];
        let mut slot = session(&peer, now, 2, &mut out);
        slot.key = [8; 32];
        peer.promote(now, slot, path(HOME), &mut out);
        drain(&mut out);
        assert_eq!(peer.keep_keys(|key| *key == [kept; 32], &mut out), lost);
        assert_eq!(retired(&mut out), gone);
    }
}

#[test]
fn an_init_whose_session_is_in_use_or_was_is_known() {
    let now = Instant::now();
    let (mut peer, _, mut out) = up(now);
    assert!(!peer.has_answered(&[1; 16]), "on a client, none");
    peer.current.as_mut().unwrap().init_mac = Some([1; 16]);
    let mut slot = session(&peer, now, 2, &mut out);
    slot.init_mac = Some([2; 16]);
    peer.promote(now, slot, path(HOME), &mut out);
    assert_eq!([1, 2, 3].map(|n| peer.has_answered(&[n; 16])), [true, true, false]);
}

/// The probe that is due answered: what the path carries is known.
fn measure(peer: &mut Peer, now: Instant, rng: &mut StdRng, out: &mut Outputs) -> Vec<u16> {
    peer.handle_timeout(now, rng, out);
    let token = peer.pings.back().unwrap().token;
    peer.handle_pong(now, token, path(HOME), out);
    sizes(out)
}

#[test]
fn another_first_link_or_another_path_is_measured_anew_and_the_same_link_is_not() {
    let now = Instant::now();
    let (mut peer, mut rng, mut out) = up(now);
    assert_eq!(measure(&mut peer, now, &mut rng, &mut out), [ORDINARY]);
    peer.set_ceiling(now, ORDINARY, &mut out);
    assert!(sizes(&mut out).is_empty(), "it is what it was");
    peer.set_ceiling(now, 1400, &mut out);
    assert_eq!(sizes(&mut out), [FLOOR]);
    assert_eq!(measure(&mut peer, now, &mut rng, &mut out), [1400]);
    let new = path([192, 0, 2, 2]);
    peer.moved(now, new, &mut out);
    let outputs = drain(&mut out);
    assert!(matches!(outputs[..], [
        Output::Path { path, .. },
        Output::Datagram { size: FLOOR, .. }
    ] if path == new));
    assert_eq!(measure(&mut peer, now, &mut rng, &mut out), [1400]);
    let slot = session(&peer, now, 2, &mut out);
    peer.promote(now, slot, new, &mut out);
    assert_eq!(peer.info().unwrap().datagram, 1400, "a new session on the same path");
    let slot = session(&peer, now, 3, &mut out);
    peer.promote(now, slot, path(HOME), &mut out);
    assert_eq!(peer.info().unwrap().datagram, FLOOR, "and on another");
}

#[test]
fn a_path_that_may_be_another_is_searched_without_waiting() {
    let now = Instant::now();
    let (mut peer, mut rng, mut out) = up(now);
    let mut at = now;
    // Nothing longer than the floor passes, until the search has ended.
    while let Some(due) = peer.pmtu.poll_timeout(false) {
        at = at.max(due);
        peer.handle_timeout(at, &mut rng, &mut out);
    }
    drain(&mut out);
    peer.handle_timeout(at, &mut rng, &mut out);
    assert!(sent(&mut out).is_empty());
    peer.search(at);
    peer.handle_timeout(at, &mut rng, &mut out);
    assert_eq!(sent(&mut out), [usize::from(ORDINARY)]);
}

#[test]
fn a_message_goes_to_the_path_in_use_and_counts_as_a_sign_of_life() {
    let now = Instant::now();
    let (mut peer, _, mut out) = up(now);
    peer.activity.note_received(now, true);
    peer.send(now, &Control::Bye, &mut out);
    let outputs = drain(&mut out);
    assert!(matches!(&outputs[..], [Output::Send { path: to, .. }] if *to == path(HOME)));
    assert_eq!(peer.activity.owed(), None);
    peer.clear(&mut out);
    drain(&mut out);
    peer.send(now, &Control::Bye, &mut out);
    assert!(drain(&mut out).is_empty(), "there is no session");
}

#[test]
fn the_timer_is_for_what_comes_first_a_keepalive_the_confirmation_of_a_busy_path_or_the_end() {
    assert_eq!(ORDINARY, 1452);
    let now = Instant::now();
    let (mut peer, mut rng, mut out) = up(now);
    assert_eq!(measure(&mut peer, now, &mut rng, &mut out), [ORDINARY]);
    peer.handle_timeout(now, &mut rng, &mut out);
    assert_eq!(peer.poll_timeout(), Some(now + REJECT_AFTER), "idle");
    peer.activity.note_received(now, true);
    let confirm = peer.pmtu.due();
    assert!(confirm >= now && confirm <= now + Duration::from_secs(1));
    assert_eq!(peer.poll_timeout(), Some(confirm.min(now + KEEPALIVE_AFTER)));
    peer.handle_timeout(confirm, &mut rng, &mut out);
    assert!(sent(&mut out).contains(&usize::from(ORDINARY)), "frames have passed lately");
    let token = peer.pings.back().unwrap().token;
    peer.handle_pong(confirm, token, path(HOME), &mut out);
    peer.activity.note_received(confirm, true);
    assert_eq!(peer.poll_timeout(), Some(confirm + KEEPALIVE_AFTER));
    // No more frames pass: the path is confirmed once more, and that is all.
    peer.handle_timeout(confirm + KEEPALIVE_AFTER, &mut rng, &mut out);
    let token = peer.pings.back().unwrap().token;
    peer.handle_pong(confirm + KEEPALIVE_AFTER, token, path(HOME), &mut out);
    assert_eq!(peer.poll_timeout(), Some(now + REJECT_AFTER));
}

#[test]
fn what_came_of_sessions_that_are_gone_is_not_forgotten() {
    let now = Instant::now();
    let (mut peer, _, mut out) = up(now);
    // Keys and indices are the same both ways here: what it sends it can receive.
    let key = || [0; 32].into();
    let keys = Keys { suite: Suite::Aes, send: key(), receive: key(), local_index: 9, remote_index: 9 };
    let slot = peer.install(now, &keys, 0, &mut out).unwrap();
    peer.promote(now, slot, path(HOME), &mut out);
    drain(&mut out);
    peer.send(now, &Control::Bye, &mut out);
    let Some(Output::Send { mut bytes, .. }) = out.pop() else { panic!("nothing sent") };
    peer.current.as_ref().unwrap().opener.open(&mut bytes).unwrap();
    let one = Tally { expected: 1, arrived: 1 };
    assert_eq!(peer.tally(), Some(one), "what a PING and a PONG tell");
    peer.handle_tally(9, Some(one));
    for index in [2, 3] {
        let slot = session(&peer, now, index, &mut out);
        peer.promote(now, slot, path(HOME), &mut out);
    }
    let info = peer.info().unwrap();
    assert!(!peer.has(9));
    assert_eq!((info.incoming.total, info.outgoing.unwrap().total), (one, one));
    assert_eq!((info.incoming.recent, info.outgoing.unwrap().recent), <_>::default());
}
