//! Marked frames between two workers.

use super::*;
use crate::dataplane::probe::Role;
use crate::wire::probe::{STATION, frame};

/// Waits for what a worker says of a marked frame.
fn step(end: &mut End) -> (u64, Step) {
    loop {
        if let Notice::Probe { token, step, .. } = end.notice() {
            return (token, step);
        }
    }
}

fn expect(end: &End, token: u64) {
    let until = crate::sys::clock::now() + PATIENCE;
    end.do_(Command::Expect { key: QUEUE, expected: Expected { token, role: Role::Answer, until } });
}

fn send_probe(end: &End, token: u64, len: usize) {
    end.do_(Command::Probe { key: QUEUE, token, len, until: crate::sys::clock::now() + PATIENCE });
}

#[test]
fn a_marked_frame_goes_into_the_servers_nic_and_back_from_either_side() {
    let (mut client, mut server) = End::pair();
    for len in [60, 1514] {
        expect(&server, 7);
        // Commands are obeyed before what has been received meanwhile.
        server.do_(Command::SetDatagram { peer: PEER, datagram: 1472 });
        send_probe(&client, 7, len);
        assert_eq!(step(&mut client), (7, Step::Sent));
        assert_eq!(server.take().1, frame(NIC, STATION, 7, len));
        assert!(matches!(step(&mut server), (7, Step::Answered { .. })));
        assert_eq!(step(&mut client), (7, Step::Returned));
    }
    expect(&client, 8);
    send_probe(&server, 8, 1514);
    assert_eq!(step(&mut server), (8, Step::Sent));
    assert!(matches!(step(&mut client), (8, Step::Answered { .. })));
    assert_eq!(step(&mut server), (8, Step::Returned));
    assert_eq!(server.take().1, frame(NIC, STATION, 8, 1514));
    // Neither on the LAN, nor among the frames.
    client.wire.set_nonblocking(true).unwrap();
    assert!(client.wire.recv(&mut [0; 64]).is_err());
    assert_eq!((client.nic.uplink.frames.load(Relaxed), server.nic.downlink.frames.load(Relaxed)), (0, 0));
    assert!(client.nic.probes.load(Relaxed) >= 6 && server.nic.probes.load(Relaxed) >= 6);
}

#[test]
fn a_marked_frame_is_good_once_and_only_where_it_is_expected() {
    let (mut client, server) = End::pair();
    send_probe(&client, 9, 60);
    assert_eq!(step(&mut client), (9, Step::Sent));
    let dropped = |n| {
        let end = crate::sys::clock::now() + PATIENCE;
        while server.nic.drops.of(DropReason::StrayProbe) < n {
            assert!(Instant::now() < end);
            std::thread::yield_now();
        }
    };
    dropped(1);
    expect(&server, 9);
    for _ in 0..2 {
        send_probe(&client, 9, 60);
    }
    dropped(2);
    assert_eq!(server.take().1.len(), 60);
    server.wire.set_nonblocking(true).unwrap();
    assert!(server.wire.recv(&mut [0; 64]).is_err(), "once");
}

#[test]
fn a_lan_cannot_send_a_marked_frame() {
    let (client, server) = End::pair();
    expect(&server, 10);
    client.put(VnetHeader::default(), &frame(NIC, HOST, 10, 60));
    let end = crate::sys::clock::now() + PATIENCE;
    while client.nic.drops.of(DropReason::StrayProbe) == 0 {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
    assert_eq!(server.nic.probes.load(Relaxed), 0);
}

#[test]
fn a_marked_frame_without_a_session_says_so() {
    let mut client = End::new(Side::Client, Offloads::TCP_UDP);
    send_probe(&client, 11, 60);
    assert_eq!(step(&mut client), (11, Step::Dropped(DropReason::NoSession)));
}
