//! What the program around the state machines asks of them, tells them, and has them do.

use tap_rs::keys::PublicKey;
use tap_rs::proto::output::{Event, PeerId};
use tap_rs::proto::server::{ClientSpec, Server};
use tap_rs::types::{NicId, Suite};
use tap_rs::wire::control::Control;
use tap_rs::wire::datagram::Type;

use super::sim::{CLIENT, CLIENT_KEY, SERVER_ADDR, Sim, Spec, key};
use super::*;

const PROBE: Control<'static> = Control::Probe { token: 7, nic: NicId(3) };

/// Established, and long enough ago for the path to be known.
fn settled() -> Sim {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    exchange(&mut sim, secs(1), ms(20));
    sim
}

fn server(sim: &mut Sim) -> &mut Server {
    sim.server.as_mut().unwrap()
}

/// What each Established of these events said: the other end is new, or was silent.
fn firsts(events: &[(Duration, Event)]) -> Vec<bool> {
    let first = |(_, e): &(Duration, Event)| match e {
        Event::Established { first, .. } => Some(*first),
        _ => None,
    };
    events.iter().filter_map(first).collect()
}

#[test]
fn a_session_is_told_with_its_suite_path_and_round_trip() {
    let mut sim = Sim::new(Spec::default());
    assert!(sim.client.session().is_none() && !sim.client.is_established());
    assert!(server(&mut sim).session(CLIENT).is_none());
    assert_eq!(sim.client.rtt(), None);
    sim.establish();
    sim.run(ms(100));
    assert!(sim.client.is_established());
    let (near, (far, silent)) = (sim.client.session().unwrap(), server(&mut sim).session(CLIENT).unwrap());
    assert_eq!((near.suite, near.path.remote), (Suite::Aes, SERVER_ADDR.into()));
    assert_eq!((far.suite, far.path.remote, silent), (Suite::Aes, sim.client_addr, false));
    let rtt = sim.client.rtt().unwrap();
    assert!(rtt >= sim.latency * 2 && rtt < sim.latency * 3, "{rtt:?}");
}

#[test]
fn silence_is_told_by_both_and_ends_with_the_first_word() {
    let mut sim = settled();
    assert!(!sim.client.is_silent());
    sim.link.down = true;
    sim.send_up(b"hello?");
    sim.run(secs(60));
    assert!(sim.client.is_silent() && sim.client.is_established());
    assert!(server(&mut sim).session(CLIENT).unwrap().1);
    sim.link.down = false;
    sim.send_down(b"here");
    assert!(sim.run_until_event(secs(5), |e| *e == Event::Answers));
    assert!(!sim.client.is_silent());
    sim.run(secs(1));
    assert!(!server(&mut sim).session(CLIENT).unwrap().1);
}

#[test]
fn a_session_is_the_first_with_another_run_of_the_program_and_after_a_silence() {
    let mut sim = settled();
    sim.client.rekey();
    sim.run(secs(1));
    assert_eq!(
        (firsts(&sim.client_events), firsts(&sim.server_events)),
        (vec![true, false], vec![true, false])
    );
    sim.link.down = true;
    sim.send_up(b"hello?");
    sim.run(secs(60));
    sim.link.down = false;
    sim.run(secs(6));
    assert_eq!(
        (firsts(&sim.client_events)[2..].to_vec(), firsts(&sim.server_events)[2..].to_vec()),
        (vec![true], vec![true])
    );
    sim.start_server();
    sim.client.rekey();
    sim.run(secs(1));
    assert_eq!(firsts(&sim.client_events)[3..], [true]);
}

#[test]
fn a_session_is_replaced_only_after_the_server_has_used_it() {
    let mut sim = Sim::new(Spec::default());
    assert!(sim.run_until_event(secs(1), established));
    let greets = |sim: &mut Sim| {
        let before = sim.record.len();
        sim.client.handle_timeout(sim.now);
        sim.run(Duration::ZERO);
        sim.record[before..].iter().any(|d| d.bytes[0] == Type::Hello as u8)
    };
    sim.client.rekey();
    assert!(!greets(&mut sim), "a frame of the server's is still to come");
    sim.client.handle_first_use(sim.client_plane.using[&SERVER].0);
    assert!(greets(&mut sim));
}

#[test]
fn a_new_session_is_no_silence_also_where_a_frame_waits_for_its_answer() {
    let mut sim = settled();
    sim.send_up(b"under way");
    sim.client.rekey();
    sim.run(secs(1));
    assert_eq!(firsts(&sim.client_events), [true, false]);
    assert!(!sim.client_events.iter().any(|(_, e)| *e == Event::Silent));
}

#[test]
fn an_init_that_nobody_answers_is_said_three_times_ever_slower_and_then_comes_a_new_hello() {
    let mut sim = Sim::new(Spec { known: false, ..Spec::default() });
    let (mut said, mut seen) = (Vec::new(), 0);
    while sim.elapsed() < secs(60) {
        sim.run(ms(1));
        for d in sim.record[seen..].iter().filter(|d| d.from == sim.client_addr) {
            said.push((d.bytes[0] == Type::Init as u8, sim.elapsed()));
        }
        seen = sim.record.len();
    }
    let runs: Vec<_> = said.chunk_by(|a, b| a.0 == b.0).filter(|run| run[0].0).collect();
    assert!(runs.len() > 3, "{said:?}");
    for run in &runs[..runs.len() - 1] {
        assert_eq!(run.len(), 3);
        let gaps: Vec<_> = run.windows(2).map(|w| w[1].1 - w[0].1).collect();
        assert!(gaps[0] >= ms(180) && gaps[1] >= ms(370), "{gaps:?}");
    }
}

#[test]
fn datagrams_fit_at_once_into_a_first_link_that_has_shrunk_and_what_the_kernel_refuses_is_not_sent_again() {
    let mut sim = settled();
    assert_eq!(sizes(&sim), (1472, 1472));
    let now = sim.now;
    sim.client.set_ceiling(now, 1300);
    server(&mut sim).set_ceiling(now, CLIENT, 1310);
    sim.run(ms(1));
    let (up, down) = sizes(&sim);
    assert!(up <= 1300 && down <= 1310, "{up} {down}");
    exchange(&mut sim, secs(20), ms(20));
    assert_eq!(sizes(&sim), (1300, 1310));
    let now = sim.now;
    sim.client.handle_too_big(now);
    server(&mut sim).handle_too_big(now, CLIENT);
    sim.run(ms(1));
    let (up, down) = sizes(&sim);
    assert!(up < 1300 && down < 1310, "{up} {down}");
}

#[test]
fn a_client_that_is_told_of_another_network_shows_itself_there_at_once() {
    let mut sim = settled();
    sim.run(secs(60));
    sim.client_addr = ([198, 51, 100, 9], 6000).into();
    sim.client.handle_network_change(sim.now);
    sim.run(ms(100));
    assert_eq!(sim.server_plane.using[&CLIENT].1.remote, sim.client_addr);
}

#[test]
fn a_client_that_is_told_of_another_network_greets_at_once_however_long_nobody_answered() {
    let mut sim = Sim::new(Spec::default());
    sim.link.down = true;
    sim.run(secs(120));
    let said = sim.record.len();
    sim.client.handle_network_change(sim.now);
    sim.run(ms(1));
    assert_eq!(sim.record.len(), said + 1);
    sim.run(ms(600));
    assert_eq!(sim.record.len(), said + 2, "and soon again");
}

#[test]
fn pings_and_patience_are_as_long_as_was_said_last() {
    let mut sim = settled();
    sim.run(secs(120));
    let said = |sim: &mut Sim| {
        let before = sim.record.len();
        sim.run(secs(100));
        sim.record.len() - before
    };
    let seldom = said(&mut sim);
    sim.client.set_times(secs(1), secs(2));
    let often = said(&mut sim);
    assert!(seldom < 40 && often >= 100, "{seldom} {often}");
    sim.link.down = true;
    sim.send_up(b"hello?");
    assert!(sim.run_until_event(ms(1_600), |e| *e == Event::Silent));
}

#[test]
fn a_message_is_sent_as_it_is_either_way() {
    let mut sim = settled();
    let now = sim.now;
    sim.client.tell(now, &PROBE);
    server(&mut sim).tell(now, CLIENT, &PROBE);
    sim.run(ms(100));
    let probe = Event::Probe { token: 7, nic: NicId(3) };
    for events in [&sim.client_events, &sim.server_events] {
        assert_eq!(events.iter().filter(|(_, e)| *e == probe).count(), 1);
    }
}

#[test]
fn a_server_with_nothing_to_say_answers_a_frame_before_it_is_taken_for_dead() {
    let mut sim = settled();
    sim.run(secs(300));
    for _ in 0..10 {
        sim.send_up(b"anybody there?");
        sim.run(secs(40));
    }
    assert!(!sim.client_events.iter().any(|(_, e)| *e == Event::Silent));
}

#[test]
fn the_key_of_a_stranger_is_told_once() {
    let mut sim = Sim::new(Spec { known: false, ..Spec::default() });
    sim.run(secs(1));
    let stranger: Option<PublicKey> = server(&mut sim).take_stranger();
    assert_eq!(stranger.map(|key| *key.as_bytes()), Some(*key(CLIENT_KEY).public().as_bytes()));
    assert!(server(&mut sim).take_stranger().is_none());
}

#[test]
fn suites_that_are_no_longer_accepted_make_no_new_session_and_leave_those_that_there_are() {
    let mut sim = settled();
    server(&mut sim).set_suites(vec![Suite::ChaCha]);
    sim.client.rekey();
    sim.run(secs(10));
    assert!(sim.server_plane.drops[&DropReason::BadSuite] > 0);
    assert_eq!(firsts(&sim.client_events), [true]);
    sim.send_up(b"still");
    sim.run(ms(100));
    assert_eq!(sim.server_plane.frames.last().unwrap(), b"still");
}

#[test]
fn the_indices_of_a_server_have_its_tag() {
    let mut sim = settled();
    for _ in 0..5 {
        sim.client.rekey();
        sim.run(secs(1));
    }
    let tag = server(&mut sim).index_tag();
    assert!(tag.mask.count_ones() >= 12, "{tag:?}");
    assert!(!sim.server_plane.openers.is_empty());
    assert!(sim.server_plane.openers.keys().all(|index| index & tag.mask == tag.value));
}

#[test]
fn a_client_that_is_removed_takes_nobody_along() {
    let mut sim = settled();
    let come_and_go = |sim: &mut Sim| {
        let (now, other) = (sim.now, PeerId(CLIENT.0 + 1));
        let spec = ClientSpec { keys: vec![key(77).public()], psk: None, invite: false };
        server(sim).add_client(now, other, spec);
        server(sim).remove_client(now, other);
    };
    come_and_go(&mut sim);
    // Its messages are heard, its key is known, and its silence is noticed.
    sim.client.tell(sim.now, &PROBE);
    sim.run(ms(100));
    assert!(sim.server_events.iter().any(|(_, e)| matches!(e, Event::Probe { .. })));
    sim.client.rekey();
    assert!(sim.run_until_event(secs(1), established));
    sim.run(secs(1));
    sim.link.down = true;
    sim.run(secs(1));
    come_and_go(&mut sim);
    sim.run(secs(100));
    assert!(sim.server_events.iter().any(|(_, e)| *e == Event::Silent));
}
