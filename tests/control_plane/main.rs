//! The protocol's promises, in virtual time.

mod asked;
mod enrol;
mod sim;
mod twins;
mod violations;
mod world;

use std::time::Duration;

use rand::RngExt;
use sim::{CLIENT, Datagram, Link, SERVER_ADDR, Sim, Spec};
use tap_rs::metrics::DropReason;
use tap_rs::proto::client::SERVER;
use tap_rs::proto::output::Event;
use tap_rs::proto::pmtu::FLOOR;
use tap_rs::types::Suite;
use tap_rs::wire::control::PushState;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn bad_link() -> Link {
    Link { loss: 0.3, repeat: 0.1, reorder: 0.2, corrupt: 0.05, ..Link::default() }
}

fn established(event: &Event) -> bool {
    matches!(event, Event::Established { .. })
}

/// UDP payload of full datagrams, up and down.
fn sizes(sim: &Sim) -> (u16, u16) {
    (sim.client_plane.using[&SERVER].2, sim.server_plane.using[&CLIENT].2)
}

/// Sends numbered frames both ways, one pair every `gap`, for `span`; returns how many pairs.
fn exchange(sim: &mut Sim, span: Duration, gap: Duration) -> u64 {
    let (end, mut n) = (sim.now + span, 0u64);
    while sim.now < end {
        sim.send_up(&[b"up".as_slice(), &n.to_le_bytes()].concat());
        sim.send_down(&[b"down".as_slice(), &n.to_le_bytes()].concat());
        n += 1;
        sim.run(gap);
    }
    sim.run(secs(1));
    n
}

#[test]
fn every_suite_carries_frames_both_ways() {
    for suite in Suite::ALL {
        let psk = suite.has_psk().then_some(9);
        let mut sim = Sim::new(Spec { suite, client_psk: psk, server_psk: psk, ..Spec::default() });
        sim.establish();
        assert!(sim.elapsed() <= ms(51), "two round trips and one datagram: {:?}", sim.elapsed());
        sim.send_up(b"up");
        sim.send_down(b"down");
        sim.run(ms(100));
        assert_eq!(sim.server_plane.frames, [b"up"]);
        assert_eq!(sim.client_plane.frames, [b"down"]);
    }
}

#[test]
fn a_server_answers_neither_unknown_keys_nor_wrong_psks_nor_barred_suites() {
    let cases = [
        (Spec { known: false, ..Spec::default() }, DropReason::UnknownKey),
        (Spec { server_psk: Some(1), ..Spec::default() }, DropReason::BadSuite),
        (Spec { suite: Suite::AesPsk, client_psk: Some(1), ..Spec::default() }, DropReason::BadSuite),
        (Spec { suites: &[Suite::ChaCha], ..Spec::default() }, DropReason::BadSuite),
    ];
    for (spec, reason) in cases {
        let mut sim = Sim::new(spec);
        sim.run(secs(20));
        assert!(sim.server_plane.using.is_empty() && sim.client_plane.using.is_empty());
        assert!(sim.server_plane.drops.get(&reason).is_some_and(|n| *n > 0), "{:?}", sim.server_plane.drops);
    }
    let spec = Spec { suite: Suite::AesPsk, client_psk: Some(1), server_psk: Some(2), ..Spec::default() };
    let mut sim = Sim::new(spec);
    sim.run(secs(20));
    assert!(sim.client_plane.using.is_empty() && sim.server_plane.using.is_empty());
    assert!(sim.client_plane.drops[&DropReason::BadHandshake] > 0);
}

#[test]
fn a_bad_link_delivers_nothing_wrong_and_a_megabyte_of_config_in_time() {
    for seed in 1..=8 {
        let mut sim = Sim::new(Spec { seed, ..Spec::default() });
        let mut blob = vec![0; 1 << 20];
        sim.rng.fill(&mut blob[..]);
        sim.server.as_mut().unwrap().set_push(sim.now, CLIENT, blob.clone().into());
        sim.link = bad_link();
        assert!(
            sim.run_until_event(secs(30), |e| matches!(e, Event::Push { blob: got, .. } if *got == blob)),
            "seed {seed}"
        );
        let pairs = exchange(&mut sim, secs(20), ms(10));
        for (frames, word) in [(&sim.client_plane.frames, &b"down"[..]), (&sim.server_plane.frames, b"up")] {
            let mut got: Vec<_> = frames.clone();
            assert!(got.len() as u64 > pairs / 2, "seed {seed}: {} of {pairs}", got.len());
            got.sort();
            let all = got.len();
            got.dedup();
            assert_eq!(got.len(), all, "a frame came twice");
            assert!(got.iter().all(|f| f.starts_with(word) && f.len() == word.len() + 8));
        }
        assert!(!sim.client_events.iter().any(|(_, e)| *e == Event::Lost));
    }
}

#[test]
fn a_thousand_rekeys_under_load_lose_no_frame() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    let (mut n, mut rekeys) = (0u64, 0);
    while rekeys < 1000 {
        let before = sim.client_events.len();
        sim.client.rekey();
        while !sim.client_events[before..].iter().any(|(_, e)| established(e)) {
            sim.send_up(&n.to_le_bytes());
            sim.send_down(&n.to_le_bytes());
            n += 1;
            sim.run(ms(3));
        }
        rekeys += 1;
    }
    sim.run(secs(1));
    let all: Vec<_> = (0..n).map(|n| n.to_le_bytes().to_vec()).collect();
    assert!(sim.server_plane.frames == all, "{} of {n} up", sim.server_plane.frames.len());
    assert!(sim.client_plane.frames == all, "{} of {n} down", sim.client_plane.frames.len());
    assert!(sim.client_plane.openers.len() <= 3 && sim.server_plane.openers.len() <= 3);
}

#[test]
fn traffic_flows_again_within_five_seconds_of_a_killed_servers_return() {
    for seed in 1..=20 {
        let mut sim = Sim::new(Spec { seed, ..Spec::default() });
        sim.establish();
        exchange(&mut sim, secs(3), ms(100));
        sim.kill_server();
        let down = ms(sim.rng.random_range(0..20_000));
        let back = sim.now + down;
        while sim.now < back {
            sim.send_up(b"anyone?");
            sim.run(ms(100).min(back - sim.now));
        }
        sim.start_server();
        while sim.server_plane.frames.is_empty() {
            sim.send_up(b"hello again");
            sim.run(ms(100));
            assert!(sim.now - back < secs(5), "seed {seed}, down {down:?}");
        }
    }
}

#[test]
fn a_server_that_restarts_while_only_it_has_something_to_say_is_found_too() {
    for seed in 1..=20 {
        let mut sim = Sim::new(Spec { seed, ..Spec::default() });
        sim.establish();
        exchange(&mut sim, secs(5), ms(100));
        sim.kill_server();
        sim.run(ms(10));
        sim.start_server();
        let back = sim.now;
        assert!(sim.run_until(back + secs(5), |sim| !sim.server_plane.using.is_empty()), "seed {seed}");
    }
}

#[test]
fn a_client_that_moves_is_followed_within_a_second() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    exchange(&mut sim, secs(3), ms(50));
    sim.client_addr = ([198, 51, 100, 7], 6000).into();
    sim.client.handle_network_change(sim.now);
    let moved = sim.now;
    let followed = |sim: &mut Sim| sim.server_plane.using[&CLIENT].1.remote == sim.client_addr;
    assert!(sim.run_until(moved + secs(1), followed));
    let handshakes = sim.client_events.iter().filter(|(_, e)| established(e)).count();
    assert_eq!(handshakes, 1, "the session goes on");
    sim.send_down(b"there you are");
    sim.run(ms(100));
    assert!(sim.client_plane.frames.contains(&b"there you are".to_vec()));
}

#[test]
fn an_endpoint_moves_only_to_where_the_challenge_is_answered() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    exchange(&mut sim, secs(2), ms(50));
    // Someone on the path holds a datagram back and sends it from an address of his own.
    sim.link.down = true;
    sim.send_up(b"held back");
    sim.link.down = false;
    let stolen = sim.record.last().unwrap().clone();
    let thief = ([203, 0, 113, 66], 666).into();
    sim.inject(ms(1), Datagram { from: thief, ..stolen });
    sim.run(secs(5));
    assert_eq!(sim.server_plane.using[&CLIENT].1.remote, sim.client_addr);
    let sent_to_thief: usize = sim.record.iter().filter(|d| d.to == thief).map(|d| d.bytes.len()).sum();
    assert!(sent_to_thief <= 53 * 2, "{sent_to_thief} bytes");
}

#[test]
fn nothing_that_is_played_back_changes_anything() {
    let mut sim = Sim::new(Spec::default());
    sim.server.as_mut().unwrap().set_push(sim.now, CLIENT, b"config".to_vec().into());
    sim.establish();
    exchange(&mut sim, secs(3), ms(50));
    let (up, down) = (sim.server_plane.frames.clone(), sim.client_plane.frames.clone());
    let (client, server) = (sim.client_plane.using.clone(), sim.server_plane.using.clone());
    let events = (sim.client_events.len(), sim.server_events.len());
    for d in sim.record.clone() {
        sim.inject(ms(1), d.clone());
        sim.inject(ms(2), Datagram { from: ([203, 0, 113, 66], 666).into(), ..d });
    }
    sim.run(ms(500));
    assert!(sim.server_plane.frames == up && sim.client_plane.frames == down);
    assert!(sim.client_plane.using == client && sim.server_plane.using == server);
    assert_eq!((sim.client_events.len(), sim.server_events.len()), events);

    // After a restart of the server the old session means nothing at all.
    let record = sim.record.clone();
    sim.link.down = true;
    sim.start_server();
    for d in record {
        sim.inject(ms(1), d);
    }
    sim.run(ms(500));
    assert!(sim.server_plane.frames.is_empty() && sim.server_plane.using.is_empty());
    assert!(sim.server_plane.openers.is_empty(), "no INIT of the old server's time is answered");
}

#[test]
fn a_session_survives_every_bit_flipped_in_every_kind_of_datagram() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    sim.send_up(b"frame");
    sim.run(ms(100));
    let mut samples = Vec::new();
    for kind in 1..=5 {
        samples.push(sim.record.iter().find(|d| d.bytes[0] == kind).unwrap().clone());
    }
    let (client, server) = (sim.client_plane.using.clone(), sim.server_plane.using.clone());
    for sample in samples {
        for bit in 0..sample.bytes.len() * 8 {
            let mut forged = sample.clone();
            forged.bytes[bit / 8] ^= 1 << (bit % 8);
            sim.inject(ms(1), forged);
        }
    }
    sim.run(ms(50));
    assert!(sim.client_plane.using == client && sim.server_plane.using == server);
    assert_eq!(sim.server_plane.frames.len(), 1);
    sim.send_up(b"still here");
    sim.run(ms(50));
    assert_eq!(sim.server_plane.frames[1], b"still here");
}

#[test]
fn a_scanner_without_the_servers_key_gets_silence() {
    let mut sim = Sim::new(Spec::default());
    sim.link.down = true;
    let sent = sim.record.len();
    let scanner = ([203, 0, 113, 66], 666).into();
    for n in 0..5000u32 {
        let length = sim.rng.random_range(0..200);
        let mut bytes: Vec<u8> = (0..length).map(|_| sim.rng.random()).collect();
        let header = [(n % 6) as u8, 1, 2, 0];
        bytes.iter_mut().zip(header).for_each(|(to, from)| *to = from);
        if n % 2 == 0 {
            let exact = [0, 52, 52, 136, 92, 64][(n % 6) as usize];
            bytes.resize(exact, 7);
        }
        sim.inject(ms(1), Datagram { from: scanner, to: SERVER_ADDR.into(), bytes });
    }
    sim.run(ms(10));
    assert!(sim.record[sent..].iter().all(|d| d.to != scanner));
    assert!(sim.server_plane.openers.is_empty());
}

#[test]
fn no_answer_to_an_unproven_address_is_longer_than_its_question() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    let longest =
        |kind: u8| sim.record.iter().filter(|d| d.bytes[0] == kind).map(|d| d.bytes.len()).max().unwrap();
    assert!(longest(2) <= longest(1) && longest(4) <= longest(3));
}

#[test]
fn sessions_are_replaced_before_they_are_old_and_forgotten_when_they_are() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    sim.run(secs(1000));
    let handshakes = sim.client_events.iter().filter(|(_, e)| established(e)).count();
    assert!((8..=10).contains(&handshakes), "{handshakes}");
    assert!(sim.client_plane.openers.len() <= 2 && sim.server_plane.openers.len() <= 2);
    sim.link.down = true;
    sim.run(secs(200));
    assert!(sim.client_plane.openers.is_empty() && sim.server_plane.openers.is_empty());
    assert!(sim.client_events.iter().any(|(_, e)| *e == Event::Lost));
    assert!(sim.server_events.iter().any(|(_, e)| *e == Event::Lost));
}

#[test]
fn an_idle_tunnel_says_little_and_wakes_seldom() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    sim.run(secs(60));
    let (sent, wakes) = (sim.record.len(), sim.wakes);
    sim.run(secs(3600));
    let (sent, wakes) = (sim.record.len() - sent, sim.wakes - wakes);
    assert!(sent < 1100, "{sent} datagrams in an idle hour");
    assert!(wakes < 900, "{wakes} wake-ups in an idle hour");
}

#[test]
fn a_silent_server_is_noticed_in_three_seconds_and_found_when_it_returns() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    exchange(&mut sim, secs(2), ms(50));
    sim.link.down = true;
    sim.run(ms(50));
    let from = sim.now;
    sim.send_up(b"hello?");
    assert!(sim.run_until_event(secs(4), |e| *e == Event::Silent));
    assert!(sim.now - from <= ms(3100), "{:?}", sim.now - from);
    sim.run(secs(60));
    sim.link.down = false;
    assert!(sim.run_until_event(secs(5), established));
}

#[test]
fn a_name_that_leads_nowhere_is_resolved_again() {
    let mut sim = Sim::new(Spec::default());
    sim.link.down = true;
    assert!(sim.run_until_event(secs(10), |e| *e == Event::Resolve { greeted: false }));
}

#[test]
fn a_good_bye_ends_a_session_at_once() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    sim.client.shut_down(sim.now);
    sim.run(ms(100));
    assert!(sim.server_plane.openers.is_empty());
    assert!(sim.server_events.iter().any(|(_, e)| *e == Event::Bye));
    assert_eq!(sim.client.poll_timeout(), None);
}

#[test]
fn a_server_that_says_good_bye_is_found_again() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    sim.server.as_mut().unwrap().shut_down(sim.now);
    sim.run(ms(100));
    assert!(sim.client_plane.openers.is_empty());
    sim.start_server();
    assert!(sim.run_until_event(secs(2), established));
}

#[test]
fn a_removed_client_is_out_at_once_and_stays_out() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    let now = sim.now;
    sim.server.as_mut().unwrap().remove_client(now, CLIENT);
    sim.run(secs(20));
    assert!(sim.server_plane.openers.is_empty() && sim.client_plane.using.is_empty());
    assert!(sim.server_plane.drops[&DropReason::UnknownKey] > 0);
}

#[test]
fn a_changed_push_reaches_a_running_client_even_if_the_offer_is_lost() {
    let mut sim = Sim::new(Spec::default());
    sim.server.as_mut().unwrap().set_push(sim.now, CLIENT, b"one".to_vec().into());
    assert!(sim.run_until_event(secs(2), |e| matches!(e, Event::Push { blob, .. } if blob == b"one")));
    sim.run(secs(30));
    sim.link.down = true;
    let now = sim.now;
    sim.server.as_mut().unwrap().set_push(now, CLIENT, b"two".to_vec().into());
    sim.run(ms(50));
    sim.link.down = false;
    assert!(sim.run_until_event(secs(12), |e| matches!(e, Event::Push { blob, .. } if blob == b"two")));
    let pushes = sim.client_events.iter().filter(|(_, e)| matches!(e, Event::Push { .. })).count();
    assert_eq!(pushes, 2, "each is delivered once");
}

#[test]
fn a_status_is_repeated_until_the_server_has_heard_it() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    sim.link.down = true;
    sim.client.report_status(sim.now, 7, PushState::ScriptFailed, 3);
    sim.run(secs(2));
    sim.link.down = false;
    sim.run(secs(3));
    let status = Event::Status { revision: 7, state: PushState::ScriptFailed, code: 3 };
    assert_eq!(sim.server_events.iter().filter(|(_, e)| *e == status).count(), 1);
}

#[test]
fn the_path_mtu_is_found_both_ways_and_a_black_hole_is_left() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    exchange(&mut sim, secs(1), ms(20));
    assert_eq!(sizes(&sim), (1472, 1472));
    sim.link.limit = 1300;
    exchange(&mut sim, secs(2), ms(20));
    assert!(sizes(&sim).0 <= 1300 && sizes(&sim).1 <= 1300, "{:?}", sizes(&sim));
    exchange(&mut sim, secs(20), ms(20));
    let (up, down) = sizes(&sim);
    assert!(up > 1290 && down > 1290 && up >= FLOOR, "{up} {down}");
}

#[test]
fn a_path_mtu_that_fell_rises_again_both_ways_once_the_path_allows() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    exchange(&mut sim, secs(1), ms(20));
    sim.link.limit = 1300;
    exchange(&mut sim, secs(30), ms(20));
    assert!(sizes(&sim).0 <= 1300 && sizes(&sim).1 <= 1300, "{:?}", sizes(&sim));
    sim.link.limit = 0;
    exchange(&mut sim, secs(700), ms(100));
    assert_eq!(sizes(&sim), (1472, 1472));
}

#[test]
fn two_boxes_with_one_key_are_told_and_damped() {
    let mut sim = Sim::new(Spec::default());
    let mut twin = Sim::new(Spec { seed: 2, ..Spec::default() });
    sim.establish();
    twin.client_addr = ([198, 51, 100, 9], 5001).into();
    // The twin's datagrams go to our server, and what the server sends there comes back to it.
    let (mut mine, mut theirs) = (sim.record.len(), twin.record.len());
    let end = sim.now + secs(60);
    while sim.now < end {
        sim.run(ms(5));
        twin.kill_server();
        twin.run(ms(5));
        for d in twin.record[theirs..].iter().filter(|d| d.from == twin.client_addr).cloned() {
            sim.inject(ms(1), d);
        }
        theirs = twin.record.len();
        let to_twin = twin.client_addr;
        for d in sim.record[mine..].iter().filter(|d| d.to == to_twin).cloned() {
            twin.inject(ms(1), d);
        }
        mine = sim.record.len();
        sim.send_up(b"a");
        twin.send_up(b"b");
    }
    assert!(sim.server_events.iter().any(|(_, e)| *e == Event::Flapping));
    let handshakes = sim.server_events.iter().filter(|(_, e)| established(e)).count();
    assert!(handshakes < 40, "{handshakes} handshakes in a minute");
    // Once they are told, whoever came last has five seconds.
    let told = sim.server_events.iter().position(|(_, e)| *e == Event::Flapping).unwrap();
    let paths = sim.server_events[told..].iter().filter_map(|(at, e)| match e {
        Event::Established { path, .. } => Some((*at, path.remote)),
        _ => None,
    });
    let paths: Vec<_> = paths.collect();
    let changes: Vec<_> = paths.windows(2).filter(|w| w[0].1 != w[1].1).map(|w| w[1].0 - w[0].0).collect();
    assert!(changes.len() > 3 && changes.iter().all(|gap| *gap >= secs(5)), "{changes:?}");
}

#[test]
fn a_box_that_wakes_up_is_back_at_once_however_long_it_slept() {
    for slept in [secs(5), secs(3600), secs(10 * 365 * 86_400)] {
        let mut sim = Sim::new(Spec::default());
        sim.establish();
        sim.run(secs(30));
        sim.asleep = true;
        // The server keeps its own time; a decade of it would be long to simulate.
        sim.run(slept.min(secs(3600)));
        sim.now += slept.saturating_sub(secs(3600));
        sim.asleep = false;
        let (before, awake) = (sim.server_plane.frames.len(), sim.now);
        let crossed = |sim: &mut Sim| {
            sim.send_up(b"awake");
            sim.server_plane.frames.len() > before
        };
        assert!(sim.run_until(awake + secs(4), crossed), "after {slept:?}");
    }
}

#[test]
fn a_clock_that_goes_back_ten_years_ends_nothing() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    let past = sim.now - secs(10 * 365 * 86_400);
    sim.client.handle_timeout(past);
    sim.server.as_mut().unwrap().handle_timeout(past);
    sim.run(secs(300));
    assert!(exchange(&mut sim, secs(10), ms(100)) > 0);
    assert_eq!(sim.server_plane.frames.len(), 100);
    assert_eq!(sim.client_plane.frames.len(), 100);
}
