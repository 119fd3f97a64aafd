//! Two of what there should be one of, and the same thing said twice.

use tap_rs::proto::output::Event;

use crate::sim::{Datagram, Sim, Spec};
use crate::{ms, secs};

#[test]
fn two_servers_with_one_key_are_told_and_frames_cross_by_whichever_is_there() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    let mut other = (None, Default::default());
    for turn in 0..6 {
        // The address leads to the other one from now on; the first time that one starts.
        std::mem::swap(&mut other.0, &mut sim.server);
        std::mem::swap(&mut other.1, &mut sim.server_plane);
        if sim.server.is_none() {
            sim.start_server();
        }
        let (before, end) = (sim.server_plane.frames.len(), sim.now + secs(8));
        while sim.now < end {
            sim.send_up(b"frame");
            sim.run(ms(50));
        }
        assert!(sim.server_plane.frames.len() > before, "turn {turn}: back within 8 s");
    }
    let told = sim.client_events.iter().filter(|(_, e)| *e == Event::Flapping).count();
    assert!(told >= 1, "{:?}", sim.client_events);
}

#[test]
fn a_client_that_is_restarted_again_and_again_is_let_in_each_time_at_once() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    for turn in 0..20 {
        sim.start_client();
        let arrived = |sim: &mut Sim| {
            sim.send_up(b"frame");
            !std::mem::take(&mut sim.server_plane.frames).is_empty()
        };
        assert!(sim.run_until(sim.now + ms(300), arrived), "turn {turn}");
    }
    assert!(sim.server_events.iter().all(|(_, e)| *e != Event::Flapping));
}

#[test]
fn one_restart_of_the_server_is_no_news_of_two() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    sim.start_server();
    let end = sim.now + secs(8);
    while sim.now < end {
        sim.send_up(b"frame");
        sim.run(ms(50));
    }
    assert!(!sim.server_plane.frames.is_empty());
    assert!(sim.client_events.iter().all(|(_, e)| *e != Event::Flapping));
}

#[test]
fn an_init_that_is_said_again_is_answered_alike_and_costs_no_budget() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    sim.kill_server();
    sim.start_server();
    // The client's own answers are lost, so that the session waits for its first use.
    sim.send_up(b"asks");
    let init = |sim: &Sim, from: usize| sim.record[from..].iter().find(|d| d.bytes[0] == 3).cloned();
    let from = sim.record.len();
    assert!(sim.run_until(sim.now + secs(10), |sim| init(sim, from).is_some()));
    let said: Datagram = init(&sim, from).unwrap();
    let from = sim.record.len();
    for _ in 0..2000 {
        sim.inject(ms(1), said.clone());
    }
    sim.run(ms(30));
    let answers: Vec<_> = sim.record[from..].iter().filter(|d| d.bytes[0] == 4).map(|d| &d.bytes).collect();
    assert!(answers.len() > 300, "{} answers: more than a budget of 300 at once", answers.len());
    assert!(answers.windows(2).all(|w| w[0] == w[1]), "the same RESP");
}

#[test]
fn both_ends_worn_at_once_make_one_new_session() {
    let mut sim = Sim::new(Spec::default());
    sim.establish();
    let established =
        |sim: &Sim| sim.server_events.iter().filter(|(_, e)| matches!(e, Event::Established { .. })).count();
    let before = established(&sim);
    // The client is told to renew twice, while a renewal is on its way; a server never starts one.
    for _ in 0..3 {
        sim.client.rekey();
        sim.client.handle_timeout(sim.now);
    }
    let end = sim.now + secs(3);
    while sim.now < end {
        sim.send_up(b"up");
        sim.send_down(b"down");
        sim.run(ms(20));
    }
    assert_eq!(established(&sim), before + 1);
    assert_eq!(
        (sim.server_plane.frames.len(), sim.client_plane.frames.len()),
        (150, 150),
        "no frame was lost"
    );
}
