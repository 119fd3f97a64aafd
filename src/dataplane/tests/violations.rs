//! A peer with valid keys that keeps to no rule. Whatever it sends, nothing of it comes out of a NIC, each try is counted
//! under one reason of its own, and what a neighbour of the same worker sends arrives, nothing dropped.
//!
//! Behind each try goes a frame that must pass, in the same lane: what comes out first shows whether the try passed.

mod frames;

use std::collections::BTreeMap;

use super::*;
use crate::proto::session::Lane;
use crate::types::MacAddr;
use crate::wire::sample::{NIC6, ether};

const NEIGHBOUR: PeerKey = PeerKey(2);
/// The NIC that is the neighbour's alone.
const NOT_ITS_OWN: NicId = NicId(4);
const NEXT_DOOR: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x44]);
/// The tunnel's endpoints, as the contract knows them.
const ENDS: (&str, &str) = ("18.8.80.150:5000", "18.8.80.9:4000");

/// Who seals, and where from.
struct Sender {
    lane: Lane,
    socket: UdpSocket,
    nic: NicId,
}

/// A worker with two peers, one of which is hostile.
struct Scene {
    /// The worker and the hostile peer's NIC.
    end: End,
    /// The worker's side.
    side: Side,
    hostile: Sender,
    good: Sender,
    neighbour: (UnixDatagram, Arc<NicCounters>),
    tries: u32,
}

fn lane(keys: &Keys) -> (Lane, Arc<crate::proto::session::Opener>) {
    let (mut lanes, opener) = establish(keys, Arc::new(Activity::new(Instant::now()))).unwrap();
    (lanes.take().unwrap(), opener)
}

fn keys_next_door(side: Side) -> Keys {
    let keys = keys(side);
    let (send, receive) = ([keys.send[0] + 2; 32].into(), [keys.receive[0] + 2; 32].into());
    let (local_index, remote_index) = (keys.local_index + 1, keys.remote_index + 1);
    Keys { suite: keys.suite, send, receive, local_index, remote_index }
}

fn contract_of(mac: MacAddr, rules: NicRules) -> Box<Contract> {
    let addrs = [NIC4.to_string(), NIC6.to_string()].map(|a| a.parse().unwrap()).into();
    let spec = NicSpec { name: "nic0".parse().unwrap(), mac, addrs, mtu: 1500.try_into().unwrap() };
    let mut contract = Contract::new(&spec, rules);
    contract.set_tunnel(Some((ENDS.0.parse().unwrap(), ENDS.1.parse().unwrap())));
    Box::new(contract)
}

fn local() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap()
}

fn whole(nic: NicId, offload: Offload, frame: &[u8]) -> Vec<u8> {
    [&Record::Whole { nic, offload }.encode(frame.len() as u16)[..], frame].concat()
}

fn plain() -> Offload {
    Offload::default()
}

fn cut(gso: Gso) -> Offload {
    Offload { needs_checksum: true, gso: Some(gso) }
}

impl Scene {
    fn new(side: Side) -> Self {
        let other = if side == Side::Client { Side::Server } else { Side::Client };
        let end = End::new(side, Offloads::TCP_UDP);
        let (wire, queue) = UnixDatagram::pair().unwrap();
        queue.set_nonblocking(true).unwrap();
        wire.set_read_timeout(Some(PATIENCE)).unwrap();
        let counters = Arc::new(NicCounters::default());
        let (own, opener) = lane(&keys_next_door(side));
        end.do_(Command::AddPeer(NEIGHBOUR));
        end.do_(Command::AddNic {
            key: NicKey(8),
            peer: NEIGHBOUR,
            id: NOT_ITS_OWN,
            queue: Queue::stand_in(queue.into(), Offloads::TCP_UDP),
            reads: true,
            contract: contract_of(NEXT_DOOR, NicRules::default()),
            counters: Arc::clone(&counters),
            reply_arp: false,
        });
        end.do_(Command::Install { peer: NEIGHBOUR, opener, lane: own });
        let hostile = Sender { lane: lane(&keys(other)).0, socket: local(), nic: ID };
        let good = Sender { lane: lane(&keys_next_door(other)).0, socket: local(), nic: NOT_ITS_OWN };
        let scene = Self { end, side, hostile, good, neighbour: (wire, counters), tries: 0 };
        scene.hold_to(NicRules { broadcast_pps: 0, ..NicRules::default() });
        scene
    }

    /// Other rules for the hostile peer's NIC.
    fn hold_to(&self, rules: NicRules) {
        self.end.do_(Command::UpdateNic { key: QUEUE, contract: contract_of(NIC, rules), reply_arp: false });
    }

    /// A frame of this NIC's that breaks no rule.
    fn harmless(&self, mac: MacAddr) -> Vec<u8> {
        let (to, from) = if self.side == Side::Server { (mac, HOST) } else { (HOST, mac) };
        ether(to, from, &[], 0x88b5, &self.tries.to_be_bytes())
    }

    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.hostile.seal(plaintext)
    }

    fn send(&self, datagrams: &[Vec<u8>]) {
        for d in datagrams {
            self.hostile.socket.send_segments(&path(self.end.addr), d, 60_000).unwrap();
        }
    }

    fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for (reason, n) in self.end.counters().drops.seen().chain(self.end.nic.drops.seen()) {
            *all.entry(reason.label()).or_default() += n;
        }
        all
    }

    /// Tries with these datagrams, and shows that nothing came of it but these counts.
    fn datagrams(&mut self, what: &str, datagrams: &[Vec<u8>], reasons: &[(DropReason, u64)]) {
        self.tries += 1;
        let mut want = self.drops();
        for (reason, n) in reasons {
            *want.entry(reason.label()).or_default() += n;
        }
        self.send(datagrams);
        let (own, next_door) = (self.harmless(NIC), self.harmless(NEXT_DOOR));
        self.hostile.deliver(self.end.addr, &own);
        self.good.deliver(self.end.addr, &next_door);
        assert_eq!(self.end.take().1, own, "{what} passed");
        let mut room = [0; 256];
        let n = self.neighbour.0.recv(&mut room).unwrap_or_else(|e| panic!("{what}: next door: {e}"));
        assert_eq!(room[VnetHeader::LEN..n], next_door, "{what}");
        let deadline = Instant::now() + PATIENCE;
        while self.drops() != want && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(self.drops(), want, "{what}");
        assert_eq!(self.neighbour.1.drops.seen().count(), 0, "{what} cost the neighbour a frame");
        while self.end.notices.try_recv().is_ok() {}
    }

    /// One datagram with this plaintext.
    fn plaintext(&mut self, what: &str, plaintext: &[u8], reason: DropReason) {
        let datagram = self.seal(plaintext);
        self.datagrams(what, &[datagram], &[(reason, 1)]);
    }

    /// One whole frame.
    fn frame(&mut self, what: &str, (offload, frame): (Offload, Vec<u8>), reason: DropReason) {
        self.plaintext(what, &whole(ID, offload, &frame), reason);
    }

    /// One datagram, changed after it was sealed.
    fn bent(&mut self, what: &str, reason: DropReason, bend: impl Fn(&mut Vec<u8>)) {
        let frame = self.harmless(NIC);
        let mut datagram = self.seal(&whole(ID, plain(), &frame));
        bend(&mut datagram);
        self.datagrams(what, &[datagram], &[(reason, 1)]);
    }

    /// What is wrong whichever way it goes, with `long`, a TCP packet of this direction of 4000 bytes of payload.
    fn whichever_way(&mut self, long: &[u8]) {
        self.sealed_wrongly();
        self.records(long);
        self.parts(long);
        self.metadata(long);
    }

    fn sealed_wrongly(&mut self) {
        self.bent("a changed byte", DropReason::Unauthentic, |d| *d.last_mut().unwrap() ^= 1);
        self.bent("its own keys under the neighbour's index", DropReason::Unauthentic, |d| d[4] += 1);
        self.bent("an index of nobody's", DropReason::UnknownIndex, |d| d[7] ^= 0x80);
        self.bent("another suite", DropReason::BadSuite, |d| d[2] = Suite::ChaCha as u8);
        self.bent("another version", DropReason::BadVersion, |d| d[1] = 2);
        self.bent("a reserved byte", DropReason::ReservedBits, |d| d[3] = 1);
        self.bent("a type that there is not", DropReason::UnknownType, |d| d[0] = 9);
        self.bent("a lane that there is not", DropReason::BadLane, |d| d[15] = 16);
        self.bent("a cut datagram", DropReason::BadLength, |d| d.truncate(31));
        let (first, again) = (self.seal(&[]), self.seal(&[0]));
        self.datagrams("again", &[again.clone(), again], &[(DropReason::Replayed, 1)]);
        (0..10_000).for_each(|_| drop(self.seal(&[])));
        let newest = self.seal(&[0]);
        self.datagrams("from long ago", &[newest, first], &[(DropReason::TooOld, 1)]);
    }

    fn records(&mut self, long: &[u8]) {
        let frame = self.harmless(NIC);
        self.plaintext("the neighbour's NIC", &whole(NOT_ITS_OWN, plain(), &frame), DropReason::UnknownNic);
        let part = Record::First { nic: NOT_ITS_OWN, frame: 1, total: 4000, offload: plain() };
        let part = [&part.encode(1000)[..], &long[..1000]].concat();
        self.plaintext("a part for the neighbour's NIC", &part, DropReason::UnknownNic);
        let mut bad = whole(ID, plain(), &frame);
        bad[6] += 1;
        self.plaintext("a record past its datagram", &bad, DropReason::BadRecord);
        self.plaintext("half a record header", &bad[..7], DropReason::BadRecord);
        for (what, at, value) in [
            ("a kind that there is not", 0, 9),
            ("a bit that there is not", 0, 0x81),
            ("a whole frame with an offset", 1, 1),
            ("a whole frame with a number", 8, 1),
        ] {
            let mut bad = whole(ID, plain(), &frame);
            bad[at] = value;
            self.plaintext(what, &bad, DropReason::BadRecord);
        }
        let message = [&Record::Control.encode(1200)[..], &[1; 1200]].concat();
        self.plaintext("a control message of any length", &message, DropReason::BadControl);
    }

    fn parts(&mut self, long: &[u8]) {
        let total = long.len() as u32;
        let first = |frame, total, len: usize| {
            let record = Record::First { nic: ID, frame, total, offload: plain() };
            [&record.encode(len as u16)[..], &long[..len]].concat()
        };
        let next = |frame, offset: u32| {
            [&Record::Next { nic: ID, frame, offset }.encode(100)[..], &[7; 100]].concat()
        };
        for (what, parts) in [
            ("a first part without its headers", vec![first(1, total, 100)]),
            ("a frame longer than any", vec![first(2, 0xff_ffff, 1000)]),
            ("a part behind the end", vec![first(3, total, 1000), next(3, total - 50)]),
            ("a part over another", vec![first(4, total, 1000), next(4, 950)]),
            ("two lengths of one frame", vec![first(5, total, 1000), first(5, total + 1, 1000)]),
            ("a later part at the beginning", vec![next(6, 0)]),
        ] {
            self.plaintext(what, &parts.concat(), DropReason::PartConflict);
        }
        let unfinished: Vec<u8> = (100..140).flat_map(|n| first(n, total, 200)).collect();
        let bomb = self.seal(&unfinished);
        let counts = [(DropReason::PartEvicted, 24), (DropReason::PartExpired, 16)];
        self.datagrams("forty frames that never end", &[bomb], &counts);
    }

    /// Metadata that the frame's own headers do not bear out.
    fn metadata(&mut self, long: &[u8]) {
        let (bad, checksum) = (DropReason::BadOffload, Offload { needs_checksum: true, gso: None });
        for (what, size) in [("segments of 7 bytes", 7), ("segments of 1 byte", 1)] {
            self.frame(what, (cut(Gso::Tcp(size)), long.to_vec()), bad);
        }
        self.frame("TCP as UDP segments", (cut(Gso::Udp(1000)), long.to_vec()), bad);
        let unfinished = Offload { needs_checksum: false, gso: Some(Gso::Tcp(1000)) };
        self.frame("segments of a finished checksum", (unfinished, long.to_vec()), bad);
        self.frame(
            "segments larger than the MTU",
            (cut(Gso::Tcp(3000)), long.to_vec()),
            DropReason::Oversize,
        );
        let behind = [long, b"behind"].concat();
        self.frame("bytes behind what is cut", (cut(Gso::Tcp(1000)), behind), bad);
        let frame = self.harmless(NIC);
        self.frame("the checksum of a frame that has none", (checksum, frame.clone()), bad);
        let mut record = whole(ID, cut(Gso::Tcp(1)), long);
        record[10] = 0;
        self.plaintext("segments of no bytes", &record, bad);
        record[0] |= 0x40;
        self.plaintext("segments of two kinds", &record, bad);
        let mut record = whole(ID, plain(), &frame);
        record[10] = 9;
        self.plaintext("a size of no kind", &record, bad);
    }
}

impl Sender {
    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut d = vec![0; datagram::DATA_HEADER_LEN];
        d.extend(plaintext);
        d.extend([0; 16]);
        self.lane.seal(&mut d).unwrap();
        d
    }

    fn deliver(&mut self, to: SocketAddr, frame: &[u8]) {
        let sealed = self.seal(&whole(self.nic, plain(), frame));
        self.socket.send_segments(&path(to), &sealed, 2000).unwrap();
    }
}
