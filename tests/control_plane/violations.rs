//! A peer with a valid key that keeps to no rule of the control plane. Each try is refused for a reason of its own, and
//! the session of a neighbour goes on as if nothing had been.

use std::time::Duration;

use rand::RngExt;
use tap_rs::metrics::DropReason;
use tap_rs::proto::pull::{hash_of, revision_of};
use tap_rs::types::{Path, Suite};
use tap_rs::wire::control::{CHUNK_LEN, Control, Enrolment, PushState, Report};
use tap_rs::wire::datagram::{Hello, Type};

use super::sim::key;
use super::world::{GOOD, HOSTILE, SERVER_KEY, World, addr, to_server};
use super::{ms, secs};

/// Messages that are none, or none whole.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let pong = Control::Pong { token: 1, revision: 2, tally: None }.encode();
    let chunk = Control::Chunk { revision: 1, offset: 0, bytes: &[0; CHUNK_LEN] }.encode();
    let status = Control::Status { revision: 1, state: PushState::Applied, code: 0 }.encode();
    let mut report = Control::Report(Report::default()).encode();
    *report.last_mut().unwrap() = 200;
    let mut unknown_state = status.clone();
    unknown_state[9] = 99;
    vec![
        ("nothing", vec![]),
        ("a message that there is not", vec![200, 0]),
        ("half a PING", vec![1, 2, 3]),
        ("a PONG and more", [&pong[..], &[0]].concat()),
        ("a CHUNK over its length", [&chunk[..], &[0]].concat()),
        ("half a STATUS", status[..9].to_vec()),
        ("a STATUS of no kind", unknown_state),
        ("a REPORT of 200 NICs in no bytes", report),
        ("half an OFFER", vec![3; 20]),
        ("half a GET", vec![4; 12]),
        ("half an ENROL", vec![9; 40]),
    ]
}

#[test]
fn a_client_that_says_what_it_may_not_is_refused_and_its_neighbour_does_not_notice() {
    let mut world = World::new();
    let mut tries = 0;
    let mut attempt = |world: &mut World, what: &str, message: &[u8], reason| {
        assert_eq!(world.client_says(message), Err(reason), "{what}");
        world.neighbour_is_well(what);
        tries += 1;
    };
    for (what, message) in malformed() {
        attempt(&mut world, what, &message, DropReason::BadControl);
    }
    let revision = revision_of(&hash_of(&[HOSTILE as u8; 3000]));
    let of_another = revision_of(&hash_of(&[GOOD as u8; 3000]));
    for (what, message, reason) in [
        ("an OFFER", Control::Offer { revision: 1, length: 1, hash: [1; 32] }, DropReason::Unexpected),
        ("a CHUNK", Control::Chunk { revision, offset: 0, bytes: b"x" }, DropReason::Unexpected),
        (
            "an ENROL without an invite",
            Control::Enrol { key: [9; 32], proof: [1; 16] },
            DropReason::Unexpected,
        ),
        ("an ENROLLED", Control::Enrolled { state: Enrolment::Accepted }, DropReason::Unexpected),
        (
            "a GET of another's config",
            Control::Get { revision: of_another, offset: 0 },
            DropReason::BadControl,
        ),
        ("a GET of no config", Control::Get { revision: 1, offset: 0 }, DropReason::BadControl),
        ("a GET between chunks", Control::Get { revision, offset: 1 }, DropReason::BadControl),
        ("a GET behind the end", Control::Get { revision, offset: 3072 }, DropReason::BadControl),
        ("a GET far behind it", Control::Get { revision, offset: u32::MAX }, DropReason::BadControl),
    ] {
        attempt(&mut world, what, &message.encode(), reason);
    }
    assert_eq!(tries, 20);
    let (now, path) = (world.now, Path::new(addr(HOSTILE), None));
    let nobody = world.server.handle_control(now, 0xdead_beef, path, &Control::Bye.encode());
    assert_eq!(nobody, Err(DropReason::UnknownIndex));
    world.neighbour_is_well("a message in no session");
}

/// What it tells is shown and logged; a log must not fill up a disk.
#[test]
fn a_client_that_talks_without_end_is_heard_once_a_second() {
    let mut world = World::new();
    let report = Control::Report(Report::default()).encode();
    let status = |code| Control::Status { revision: 1, state: PushState::ScriptFailed, code }.encode();
    let mut heard = 0;
    for n in 0..100_000u32 {
        let said = if n % 2 == 0 { world.client_says(&report) } else { world.client_says(&status(n as u8)) };
        match said {
            Ok(()) => heard += 1,
            Err(reason) => assert_eq!(reason, DropReason::RateLimited),
        }
        world.now += Duration::from_micros(100);
    }
    assert!((64..=80).contains(&heard), "{heard} in ten seconds, 64 of them at once");
    world.settle();
    world.neighbour_is_well("a flood of reports");
    world.now += secs(5);
    assert_eq!(world.client_says(&report), Ok(()), "and is heard again");
}

#[test]
fn handshakes_that_are_repeated_turned_round_or_bent_change_nothing() {
    let mut world = World::new();
    let (now, path) = (world.now, Path::new(addr(HOSTILE), None));
    let of = |kind: Type| world.handshakes.iter().find(|d| d[0] == kind as u8).unwrap().clone();
    let (hello, init) = (of(Type::Hello), of(Type::Init));
    let bent = |datagram: &[u8], at: usize| {
        let mut bent = datagram.to_vec();
        bent[at] ^= 1;
        bent
    };
    let cookie = [&[2u8, 1, 2, 0][..], &[7; 48]].concat();
    let resp = [&[4u8, 1, 2, 0][..], &[7; 88]].concat();
    let elsewhere = Path::new(([203, 0, 113, 66], 666).into(), None);
    for (what, from, datagram, reason) in [
        ("its INIT again", path, init.clone(), None),
        ("its INIT from elsewhere", elsewhere, init.clone(), Some(DropReason::BadMac)),
        ("an INIT with another index", path, bent(&init, 4), Some(DropReason::BadMac)),
        ("an INIT with another key", path, bent(&init, 20), Some(DropReason::BadMac)),
        ("a HELLO with another MAC", path, bent(&hello, 51), Some(DropReason::BadMac)),
        ("a HELLO with more in it", path, bent(&hello, 30), None),
        ("a COOKIE", path, cookie.clone(), Some(DropReason::Unexpected)),
        ("a RESP", path, resp.clone(), Some(DropReason::Unexpected)),
    ] {
        let said = world.server.handle_datagram(now, from, &datagram);
        match reason {
            Some(reason) => assert_eq!(said, Err(reason), "{what}"),
            None => assert!(said.is_err(), "{what}"),
        }
        world.neighbour_is_well(what);
    }
    // The way back: a server's datagrams that a client does not wait for.
    for (what, datagram) in [("a HELLO", hello), ("an INIT", init), ("a COOKIE", cookie), ("a RESP", resp)] {
        let said = world.clients[HOSTILE].handle_datagram(now, &datagram);
        assert_eq!(said, Err(DropReason::Unexpected), "{what}");
    }
}

#[test]
fn a_client_that_greets_without_end_costs_its_neighbour_nothing() {
    let mut world = World::new();
    let (path, before) = (Path::new(addr(HOSTILE), None), world.up);
    let name = tap_rs::proto::cookie::ServerName::new(&key(SERVER_KEY).public()).unwrap();
    for n in 0..10_000u32 {
        let hello = Hello { suite: Suite::Aes, sender_index: n, nonce: world.rng.random() };
        let hello = hello.encode(|signed| name.hello_mac(signed));
        let _ = world.server.handle_datagram(world.now, path, &hello);
        while world.server.poll_output().is_some() {}
    }
    world.clients[GOOD].rekey();
    world.run(ms(100));
    assert_ne!(world.up[GOOD], before[GOOD], "a new session at once");
    assert_eq!(world.up[HOSTILE], before[HOSTILE]);
}

#[test]
fn a_server_that_says_what_it_may_not_is_refused_and_the_session_goes_on() {
    let mut world = World::new();
    let mut tries = 0;
    let before = world.told[HOSTILE].len();
    let mut attempt = |world: &mut World, what: &str, message: &[u8], reason| {
        assert_eq!(world.server_says(message), Err(reason), "{what}");
        world.neighbour_is_well(what);
        tries += 1;
    };
    for (what, message) in malformed() {
        attempt(&mut world, what, &message, DropReason::BadControl);
    }
    let blob = vec![9; 2000];
    let (hash, revision) = (hash_of(&blob), revision_of(&hash_of(&blob)));
    let offer = |revision, length| Control::Offer { revision, length, hash };
    let chunk = |offset, bytes| Control::Chunk { revision, offset, bytes };
    for (what, message, reason) in [
        ("a GET", Control::Get { revision: 1, offset: 0 }, DropReason::Unexpected),
        ("a REPORT", Control::Report(Report::default()), DropReason::Unexpected),
        ("an ENROL", Control::Enrol { key: [9; 32], proof: [1; 16] }, DropReason::Unexpected),
        ("an OFFER of nothing", offer(revision, 0), DropReason::BadPush),
        ("an OFFER over 1 MiB", offer(revision, (1 << 20) + 1), DropReason::BadPush),
        ("an OFFER of 4 GiB", offer(revision, u32::MAX), DropReason::BadPush),
        ("an OFFER by another name", offer(revision ^ 1, 2000), DropReason::BadPush),
        ("a CHUNK of nothing offered", chunk(0, &blob[..1024]), DropReason::Unexpected),
    ] {
        attempt(&mut world, what, &message.encode(), reason);
    }
    // It takes an offer, and gets something else.
    assert_eq!(world.server_says(&offer(revision, 2000).encode()), Ok(()));
    for (what, message) in [
        ("a CHUNK between chunks", chunk(1, &blob[..1024])),
        ("a CHUNK that is short", chunk(0, &blob[..1023])),
        ("a CHUNK behind the end", chunk(2048, &[])),
        ("a CHUNK far behind it", chunk(1 << 31, &blob[..1024])),
    ] {
        assert_eq!(world.server_says(&message.encode()), Err(DropReason::BadPush), "{what}");
        tries += 1;
    }
    assert_eq!(world.server_says(&chunk(0, &blob[..1024]).encode()), Ok(()));
    let wrong = chunk(1024, &[8; 976]);
    assert_eq!(world.server_says(&wrong.encode()), Err(DropReason::BadPush), "bytes that were not offered");
    let other = hash_of(b"another");
    let flap = Control::Offer { revision: revision_of(&other), length: 7, hash: other };
    assert_eq!(world.server_says(&flap.encode()), Err(DropReason::RateLimited), "one OFFER upon the other");
    assert_eq!(world.told[HOSTILE].len(), before, "nothing of it is acted on");
    assert_eq!(tries + 2, 25);
    let path = to_server();
    let nobody = world.clients[HOSTILE].handle_control(world.now, 0xdead_beef, path, &Control::Bye.encode());
    assert_eq!(nobody, Err(DropReason::UnknownIndex));
    world.run(secs(3));
    world.neighbour_is_well("all of it");
}
