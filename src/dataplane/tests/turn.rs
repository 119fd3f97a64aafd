//! What one turn of a socket brings: no worker here, so that it is known what has come before it.

use super::*;
use crate::dataplane::downlink::Downlink;
use crate::dataplane::outside::Outside;
use crate::dataplane::tables::{Nic, Session, Tables};

/// The incoming half of a server's worker, the far end of its NIC, and the lanes of its client.
struct Incoming {
    downlink: Downlink,
    tables: Tables,
    out: Outside,
    wire: UnixDatagram,
    from: UdpSocket,
    lanes: Lanes,
    now: Instant,
}

impl Incoming {
    /// In traffic: a long train has just come.
    fn new() -> Self {
        let mut new = Self::at_rest();
        new.send(&[0; 60_000], 1200);
        assert_eq!(new.turn(), 1);
        new
    }

    fn at_rest() -> Self {
        let bind = || UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let established = |side| establish(&keys(side), Arc::new(Activity::new(Instant::now()))).unwrap();
        let (wire, queue) = UnixDatagram::pair().unwrap();
        wire.set_nonblocking(true).unwrap();
        let mut tables = Tables::default();
        tables.peers.entry(PEER).or_default();
        let nic = Nic {
            peer: PEER,
            id: ID,
            queue: Queue::stand_in(queue.into(), Offloads::TCP_UDP),
            reads: true,
            contract: *contract(),
            counters: Arc::default(),
            reply_arp: false,
            hold: None,
            length: 0,
            captures: Vec::new(),
            expected: Vec::new(),
        };
        tables.add_nic(QUEUE, nic);
        let opener = established(Side::Server).1;
        let session = Session { peer: PEER, opener, use_told: false, rekey_told: false };
        tables.sessions.insert(session.opener.index(), session);
        Self {
            downlink: Downlink::default(),
            tables,
            out: Outside::new(Side::Server, bind(), mpsc::channel(64).0),
            wire,
            from: bind(),
            lanes: established(Side::Client).0,
            now: Instant::now(),
        }
    }

    fn send(&self, bytes: &[u8], segment: usize) {
        let to = path(self.out.socket.local_addr().unwrap());
        self.from.send_segments(&to, bytes, segment).unwrap();
    }

    /// Trains that one turn brings.
    fn turn(&mut self) -> usize {
        self.downlink.turn((&self.out.socket, 8), &mut self.tables, &self.out, self.now).unwrap()
    }

    /// Lengths of the frames that have been written.
    fn written(&self) -> Vec<usize> {
        let mut room = vec![0; MAX_FRAME + VnetHeader::LEN];
        let next = || self.wire.recv(&mut room).ok().map(|n| n - VnetHeader::LEN);
        std::iter::from_fn(next).collect()
    }
}

#[test]
fn the_first_turn_after_a_rest_asks_for_one_train() {
    let mut incoming = Incoming::at_rest();
    for _ in 0..2 {
        (0..3).for_each(|_| incoming.send(&[0; 64], 64));
        assert_eq!([incoming.turn(), incoming.turn()], [1, 2]);
        incoming.now += Duration::from_millis(1);
    }
}

#[test]
fn a_nic_that_was_written_to_after_a_rest_may_have_an_answer() {
    let mut incoming = Incoming::at_rest();
    let (_, train) = packed(&mut incoming.lanes);
    incoming.send(&train, 1472);
    assert_eq!((incoming.turn(), incoming.tables.written), (1, Some(QUEUE)));
    let (_, train) = packed(&mut incoming.lanes);
    incoming.send(&train, 1472);
    assert_eq!(
        (incoming.turn(), incoming.tables.written),
        (1, None),
        "in traffic it is left to the next wake-up"
    );
    incoming.now += Duration::from_millis(1);
    incoming.send(&[0; 64], 64);
    assert_eq!((incoming.turn(), incoming.tables.written), (1, None), "nothing was written");
}

#[test]
fn datagrams_that_come_one_by_one_behind_a_hole_are_written_as_one_frame() {
    let mut incoming = Incoming::new();
    let (frame, train) = packed(&mut incoming.lanes);
    for (i, datagram) in train.chunks(1472).enumerate() {
        if i != 2 {
            incoming.send(datagram, datagram.len());
        }
    }
    assert_eq!(incoming.turn(), 8);
    let headers = frame.len() - 14_000;
    let packets: Vec<_> = incoming.written().iter().map(|n| (n - headers) / 1400).collect();
    assert_eq!(packets.len(), 2, "before the hole, and behind it: {packets:?}");
    assert!(packets.iter().sum::<usize>() >= 6, "{packets:?}");
}

#[test]
fn a_turn_brings_more_trains_where_they_are_short_and_few_again_behind_a_long_one() {
    let mut incoming = Incoming::new();
    let short = |incoming: &mut Incoming| {
        (0..32).for_each(|_| incoming.send(&[0; 64], 64));
        let first = incoming.turn();
        while incoming.turn() > 0 {}
        first
    };
    assert_eq!(short(&mut incoming), 8, "nothing is known of what comes");
    for _ in 0..8 {
        short(&mut incoming);
    }
    assert_eq!(short(&mut incoming), 32);
    incoming.send(&[0; 60_000], 1200);
    assert_eq!(incoming.turn(), 1);
    assert_eq!(short(&mut incoming), 8);
}
