//! Enrolment by an invite, and two keys for one client.

use rand::SeedableRng;
use rand::rngs::StdRng;
use tap_rs::keys::PrivateKey;
use tap_rs::metrics::DropReason;
use tap_rs::proto::client::{Client, ClientParams};
use tap_rs::proto::invite::{key_pair, proof};
use tap_rs::proto::output::Event;
use tap_rs::proto::server::ClientSpec;
use tap_rs::types::{Path, Suite};
use tap_rs::wire::control::{Control, Enrolment, PushState, Report};

use super::sim::{CLIENT, SERVER_ADDR, Sim, Spec, key};
use super::{bad_link, ms, secs};

const SERVER_KEY: u8 = 102;
const NEW: u8 = 120;

fn spec(keys: &[&PrivateKey], invite: bool) -> ClientSpec {
    ClientSpec { keys: keys.iter().map(|k| k.public()).collect(), psk: None, invite }
}

/// The box of the simulation with this key; the server as it is.
fn be(sim: &mut Sim, identity: PrivateKey) {
    let params = ClientParams::new(identity, key(SERVER_KEY).public(), Suite::Aes, 77);
    let mut client = Client::new(sim.now, params, StdRng::from_seed([5; 32])).unwrap();
    client.handle_address(sim.now, Path::new(SERVER_ADDR.into(), None), 1472);
    sim.client = client;
}

fn invite() -> PrivateKey {
    key_pair(&[9; 16], &key(SERVER_KEY).public())
}

/// A server that has one invite, and a box that holds it.
fn invited() -> Sim {
    let mut sim = Sim::new(Spec::default());
    let server = sim.server.as_mut().unwrap();
    server.remove_client(sim.now, CLIENT);
    server.add_client(sim.now, CLIENT, spec(&[&invite()], true));
    be(&mut sim, invite());
    sim
}

fn enrolments(sim: &Sim) -> Vec<&Event> {
    sim.server_events.iter().map(|(_, e)| e).filter(|e| matches!(e, Event::Enrol(_))).collect()
}

/// A control message that the server has opened on the invite's session.
fn say(sim: &mut Sim, message: &Control<'_>) -> Result<(), DropReason> {
    let index = sim.server_plane.using[&CLIENT].0;
    let from = Path::new(sim.client_addr, None);
    let now = sim.now;
    sim.server.as_mut().unwrap().handle_control(now, index, from, &message.encode())
}

#[test]
fn whoever_has_an_invite_is_heard_and_answered_also_on_a_bad_link() {
    for answer in
        [Enrolment::Accepted, Enrolment::Used, Enrolment::Late, Enrolment::KeyTaken, Enrolment::Failed]
    {
        let mut sim = invited();
        sim.link = bad_link();
        let now = sim.now;
        sim.client.enrol(now, &key(NEW));
        let end = sim.now + secs(60);
        let mut answered = 0;
        let done = sim.run_until(end, |sim| {
            let asked = enrolments(sim).len();
            if asked > answered {
                answered = asked;
                let now = sim.now;
                sim.server.as_mut().unwrap().answer_enrolment(now, CLIENT, answer);
            }
            sim.client_events.iter().any(|(_, e)| *e == Event::Enrolled(answer))
        });
        assert!(done, "{answer:?}");
        assert!(enrolments(&sim).iter().all(|e| **e == Event::Enrol(key(NEW).public())));
        sim.run(secs(20));
        assert_eq!(enrolments(&sim).len(), answered, "it is not said again once it is answered");
    }
}

#[test]
fn a_key_without_its_private_half_is_not_enrolled() {
    let mut sim = invited();
    sim.establish();
    let (server, new) = (key(SERVER_KEY), key(NEW));
    let public = *new.public().as_bytes();
    let right = proof(new.as_bytes(), server.public().as_bytes(), &invite().public(), &public).unwrap();
    for bit in 0..8 * 48 {
        let (mut key, mut proof) = (public, right);
        match bit / 8 {
            at @ ..32 => key[at] ^= 1 << (bit % 8),
            at => proof[at - 32] ^= 1 << (bit % 8),
        }
        sim.run(ms(110));
        let said = say(&mut sim, &Control::Enrol { key, proof });
        assert_eq!(said, Err(DropReason::BadMac), "bit {bit}");
    }
    // Somebody who knows the key and not its secret can at best use his own.
    let theft = proof(key(7).as_bytes(), server.public().as_bytes(), &invite().public(), &public).unwrap();
    sim.run(ms(110));
    assert_eq!(say(&mut sim, &Control::Enrol { key: public, proof: theft }), Err(DropReason::BadMac));
    sim.run(ms(110));
    assert_eq!(say(&mut sim, &Control::Enrol { key: [0; 32], proof: right }), Err(DropReason::BadControl));
    assert!(enrolments(&sim).is_empty());
    sim.run(ms(110));
    assert_eq!(say(&mut sim, &Control::Enrol { key: public, proof: right }), Ok(()));
    // A Diffie-Hellman at a time.
    assert_eq!(say(&mut sim, &Control::Enrol { key: public, proof: right }), Err(DropReason::RateLimited));
    sim.run(ms(10));
    assert_eq!(enrolments(&sim).len(), 1);
}

#[test]
fn an_invite_can_do_nothing_else_and_a_client_cannot_enrol() {
    let mut sim = invited();
    sim.establish();
    for message in [
        Control::Status { revision: 1, state: PushState::Applied, code: 0 },
        Control::Report(Report::default()),
        Control::Enrolled { state: Enrolment::Accepted },
    ] {
        assert_eq!(say(&mut sim, &message), Err(DropReason::Unexpected), "{message:?}");
    }
    let mut sim = Sim::new(Spec::default());
    let now = sim.now;
    sim.client.enrol(now, &key(NEW));
    sim.establish();
    sim.run(secs(5));
    assert!(enrolments(&sim).is_empty() && sim.server_plane.drops[&DropReason::Unexpected] > 0);
}

#[test]
fn an_enrolment_that_is_played_back_is_none() {
    let mut sim = invited();
    let now = sim.now;
    sim.client.enrol(now, &key(NEW));
    sim.establish();
    sim.run(ms(500));
    assert_eq!(enrolments(&sim).len(), 1);
    let now = sim.now;
    sim.server.as_mut().unwrap().answer_enrolment(now, CLIENT, Enrolment::Accepted);
    sim.run(secs(2));
    // Everything again, by somebody who has listened; from the same address, and from another.
    let before = enrolments(&sim).len();
    for addr in [sim.client_addr, ([203, 0, 113, 9], 6000).into()] {
        for datagram in sim.record.clone() {
            if datagram.to == SERVER_ADDR.into() {
                sim.inject(ms(1), super::Datagram { from: addr, ..datagram });
                sim.run(ms(2));
            }
        }
    }
    assert_eq!(enrolments(&sim).len(), before);
}

#[test]
fn an_invite_that_is_not_on_the_list_costs_what_an_unknown_key_costs() {
    let mut sim = invited();
    be(&mut sim, key_pair(&[10; 16], &key(SERVER_KEY).public()));
    let now = sim.now;
    sim.client.enrol(now, &key(NEW));
    sim.run(secs(20));
    assert!(enrolments(&sim).is_empty() && sim.server_plane.openers.is_empty());
    assert!(sim.server_plane.drops[&DropReason::UnknownKey] > 0);
    assert!(sim.client_events.iter().any(|(_, e)| *e == Event::Resolve { greeted: true }));
}

#[test]
fn a_client_with_two_keys_is_one_client_and_the_newer_session_counts() {
    let (old, new) = (key(101), key(NEW));
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    let now = sim.now;
    sim.server.as_mut().unwrap().set_spec(now, CLIENT, spec(&[&old, &new], false), true);
    sim.run(secs(1));
    assert_eq!(sim.server_plane.using.len(), 1, "the session by the old key goes on");
    assert!(!sim.server_events.iter().any(|(_, e)| *e == Event::Lost));

    let before = sim.server_plane.using[&CLIENT].0;
    be(&mut sim, key(NEW));
    sim.run(secs(2));
    assert_eq!(sim.server_plane.using.len(), 1);
    assert_ne!(sim.server_plane.using[&CLIENT].0, before, "the session by the new key is in use");

    let now = sim.now;
    sim.server.as_mut().unwrap().set_spec(now, CLIENT, spec(&[&new], false), true);
    sim.run(secs(1));
    assert_eq!(sim.server_plane.using.len(), 1);
    assert_eq!(sim.server_plane.openers.len(), 1, "what the old key had made is forgotten");

    be(&mut sim, old);
    sim.run(secs(2));
    assert!(sim.server_plane.drops[&DropReason::UnknownKey] > 0, "the old key is unknown now");
}

#[test]
fn a_dropped_key_or_another_psk_ends_the_session_at_once() {
    let other = || ClientSpec { keys: vec![key(NEW).public()], psk: None, invite: false };
    let same = || ClientSpec { keys: vec![key(101).public()], psk: None, invite: false };
    for (spec, same_psk) in [(other(), true), (same(), false)] {
        let mut sim = Sim::new(Spec::default());
        sim.establish();
        let now = sim.now;
        sim.server.as_mut().unwrap().set_spec(now, CLIENT, spec, same_psk);
        sim.run(ms(100));
        assert!(sim.server_plane.openers.is_empty());
        assert!(sim.server_events.iter().any(|(_, e)| *e == Event::Lost));
        assert!(sim.client_events.iter().any(|(_, e)| *e == Event::Bye));
    }
}

#[test]
fn a_client_that_is_asked_about_first_gets_a_session_upon_a_good_word_only_and_from_there_only() {
    let mut sim = Sim::new(Spec::default());
    let server = sim.server.as_mut().unwrap();
    server.ask_first(true);
    let asked = |sim: &Sim| sim.server_events.iter().filter(|(_, e)| matches!(e, Event::Verify(_))).count();
    sim.run(secs(10));
    assert!(sim.server_plane.openers.is_empty() && sim.server_plane.drops[&DropReason::Unverified] > 1);
    assert_eq!(asked(&sim), 1, "once until there is an answer");

    let (now, home) = (sim.now, sim.client_addr.ip());
    let server = sim.server.as_mut().unwrap();
    server.handle_verdict(now, CLIENT, home, false);
    sim.run(secs(10));
    assert!(sim.server_plane.openers.is_empty());
    assert_eq!(asked(&sim), 2);

    let (now, elsewhere) = (sim.now, [203, 0, 113, 9].into());
    sim.server.as_mut().unwrap().handle_verdict(now, CLIENT, elsewhere, true);
    sim.run(secs(9));
    assert!(sim.server_plane.openers.is_empty(), "the word is of another address");

    let now = sim.now;
    sim.server.as_mut().unwrap().handle_verdict(now, CLIENT, home, true);
    sim.establish();
    let before = asked(&sim);
    // Longer than the word is good for.
    sim.run(secs(30));
    sim.client.rekey();
    sim.run(secs(30));
    assert_eq!(asked(&sim), before, "where it has a session already nobody is asked");
    assert_eq!(sim.server_plane.using.len(), 1);
}
