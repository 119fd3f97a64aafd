//! Two workers, joined by UDP over the loopback device, each with a NIC that is really a socket pair.

mod end;
mod hold;
mod probe;
mod turn;
mod violations;

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::end::{End, contract, keys, path};
use super::batch::Batch;
use super::*;
use crate::metrics::{DropReason, WorkerCounters};
use crate::nic::{Offloads, Side};
use crate::proto::activity::Activity;
use crate::proto::session::{Keys, Lanes, establish};
use crate::sys::udp::UdpSocket;
use crate::types::{NicRules, NicSpec, Suite};
use crate::wire::checksum::complete_checksum;
use crate::wire::record::{Gso, MAX_FRAME, Offload, Record};
use crate::wire::sample::{HOST, HOST4, NIC, NIC4};
use crate::wire::vnet::VnetHeader;
use crate::wire::{datagram, sample};

const PEER: PeerKey = PeerKey(1);
const QUEUE: NicKey = NicKey(7);
const ID: NicId = NicId(3);
const PATIENCE: Duration = Duration::from_secs(30);

fn tcp_header(gso_size: u16, frame: &[u8]) -> VnetHeader {
    Offload { needs_checksum: true, gso: Some(Gso::Tcp(gso_size)) }.to_vnet(frame, frame.len()).unwrap()
}

/// A frame from the NIC to a host of its LAN, of this many bytes of UDP payload.
fn outbound(len: usize) -> Vec<u8> {
    sample::with_partial_checksum(sample::from_nic(NIC4, 17, &sample::udp(1, 2, &vec![7; len])))
}

#[test]
fn frames_of_every_size_cross_both_ways() {
    let (client, server) = End::pair();
    for len in [0, 100, 1472] {
        let (frame, back) = (sample::udp_frame(false, len), outbound(len));
        client.put(VnetHeader::default(), &frame);
        assert_eq!(server.take(), (VnetHeader::default(), frame));
        server.put(VnetHeader::default(), &back);
        assert_eq!(client.take(), (VnetHeader::default(), back));
    }
    for len in [1449, 20_000, 60_000, 65_400] {
        let frame = sample::tcp_frame(len % 2 == 0, len);
        let vnet = tcp_header(1400, &frame);
        client.put(vnet, &frame);
        let payload = &frame[usize::from(vnet.hdr_len)..];
        assert_eq!(server.take_payload(vnet.hdr_len, payload.len()), payload);
    }
    let load = |n: &std::sync::atomic::AtomicU64| n.load(Relaxed);
    let frames = |e: &End| (load(&e.nic.uplink.frames), load(&e.nic.downlink.frames));
    client.await_that("the count", |e| frames(e) == (7, 3));
    server.await_that("the count", |e| frames(e).0 == 3 && frames(e).1 >= 7);
    assert_eq!(server.counters().drops.seen().count(), 0);
    assert!(load(&client.counters().sent.datagrams) > load(&client.counters().sent.trains));
}

#[test]
fn a_burst_of_small_frames_shares_datagrams_once_its_first_has_left() {
    let (client, server) = End::pair();
    // Nothing is read before the NIC is there, so that all frames make one burst.
    client.do_(Command::RemoveNic(QUEUE));
    let (wire, queue) = UnixDatagram::pair().unwrap();
    queue.set_nonblocking(true).unwrap();
    for i in 0..8u8 {
        let frame = sample::udp_frame(false, 50 + usize::from(i));
        wire.send(&[&VnetHeader::default().to_bytes()[..], &frame].concat()).unwrap();
    }
    let queue = Queue::stand_in(queue.into(), Offloads::TCP_UDP);
    let counters = Arc::clone(&client.nic);
    let (key, peer, id, reads, reply_arp) = (QUEUE, PEER, ID, true, false);
    client.do_(Command::AddNic { key, peer, id, queue, reads, contract: contract(), counters, reply_arp });
    for i in 0..8 {
        assert_eq!(server.take().1, sample::udp_frame(false, 50 + i));
    }
    assert_eq!(server.counters().received.datagrams.load(Relaxed), 2);
}

#[test]
fn datagrams_of_one_flow_are_written_as_one_where_the_nic_takes_that() {
    for (offloads, writes) in [(Offloads::TCP_UDP, 2), (Offloads::TCP, 4)] {
        let (mut client, server) = (End::new(Side::Client, offloads), End::new(Side::Server, offloads));
        let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let partial = Offload { needs_checksum: true, gso: None };
        let frames = [sample::udp_frame(false, 64), sample::tcp_frame(false, 64)];
        let record = |frame: &Vec<u8>| {
            let header = Record::Whole { nic: ID, offload: partial }.encode(frame.len() as u16);
            [&header[..], frame].concat()
        };
        let plaintext = [0, 0, 0, 1].map(|i| record(&frames[i])).concat();
        End::send_as_peer(&mut client.lanes, &socket, server.addr, &[plaintext]);
        let got: Vec<_> = (0..writes).map(|_| server.take()).collect();
        let (first, last) = (&got[0], &got[writes - 1]);
        assert_eq!(last.1, frames[1], "order is kept");
        if writes == 2 {
            assert_eq!((first.0.gso_type, first.0.gso_size, first.1.len()), (5, 64, frames[0].len() + 128));
        }
        server.await_that("the count", |s| s.nic.downlink.frames.load(Relaxed) == 4);
        assert_eq!(server.nic.downlink.bytes.load(Relaxed) as usize, 3 * frames[0].len() + frames[1].len());
        assert_eq!(server.counters().joined.load(Relaxed) as usize, 4 - writes);
    }
}

#[test]
fn the_first_datagram_of_a_session_is_told_once_and_delivered_before_the_session_is_used() {
    let (client, mut server) =
        (End::new(Side::Client, Offloads::TCP_UDP), End::new(Side::Server, Offloads::TCP_UDP));
    client.use_session(server.addr);
    for len in [10, 20] {
        client.put(VnetHeader::default(), &sample::udp_frame(false, len));
        assert_eq!(server.take().1, sample::udp_frame(false, len));
    }
    let Notice::FirstUse { index, path } = server.notice() else { panic!("another notice") };
    assert_eq!((index, path.remote), (server.index, client.addr));
    assert!(server.notices.try_recv().is_err());
}

#[test]
fn frames_without_a_session_are_read_and_counted() {
    let end = End::new(Side::Client, Offloads::TCP_UDP);
    end.put(VnetHeader::default(), &sample::udp_frame(false, 10));
    end.await_that("the drop", |e| e.nic.drops.of(DropReason::NoSession) == 1);
    end.use_session(end.addr);
    end.do_(Command::Retire { index: end.index });
    end.put(VnetHeader::default(), &sample::udp_frame(false, 10));
    end.await_that("the drop", |e| e.nic.drops.of(DropReason::NoSession) == 2);
}

#[test]
fn frames_that_break_the_contract_stop_at_either_end() {
    let (client, server) = End::pair();
    // From the NIC's own MAC: a loop. It would have to come from another station.
    client.put(VnetHeader::default(), &outbound(10));
    client.await_that("the drop", |e| e.nic.drops.of(DropReason::Loop) == 1);
    server.put(VnetHeader::default(), &sample::udp_frame(false, 10));
    server.await_that("the drop", |e| e.nic.drops.of(DropReason::SpoofedMac) == 1);
    client.put(VnetHeader { gso_type: 9, ..VnetHeader::default() }, &sample::udp_frame(false, 10));
    client.await_that("the drop", |e| e.nic.drops.of(DropReason::BadOffload) == 1);
    client.put(VnetHeader::default(), &sample::udp_frame(false, 11));
    assert_eq!(server.take().1, sample::udp_frame(false, 11));
}

#[test]
fn an_arp_request_for_the_nic_is_answered_on_the_spot() {
    let (client, _server) = End::pair();
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend([&HOST.0[..], &HOST4.octets(), &[0; 6], &NIC4.octets()].concat());
    let request = sample::ether(crate::types::MacAddr::BROADCAST, HOST, &[], 0x0806, &arp);
    client.put(VnetHeader::default(), &request);
    let (_, reply) = client.take();
    assert_eq!((&reply[..6], &reply[6..12], &reply[20..22]), (&HOST.0[..], &NIC.0[..], &[0, 2][..]));
    assert_eq!(client.counters().sent.datagrams.load(Relaxed), 0);
}

#[test]
fn control_records_and_handshake_datagrams_are_handed_on() {
    let (mut client, mut server) = End::pair();
    let elsewhere = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let from = elsewhere.local_addr().unwrap();

    let hello = datagram::Hello { suite: Suite::Aes, sender_index: 5, nonce: [0; 16] }.encode(|_| [0; 16]);
    elsewhere.send_segments(&path(server.addr), &hello, 2000).unwrap();
    let Notice::Datagram { path: came, bytes } = server.notice() else { panic!("another notice") };
    assert_eq!((came.remote, &bytes[..]), (from, &hello[..]));

    let message = [&Record::Control.encode(4)[..], b"ping"].concat();
    End::send_as_peer(&mut client.lanes, &elsewhere, server.addr, &[message, vec![]]);
    let Notice::FirstUse { index: 20, .. } = server.notice() else { panic!("another notice") };
    let Notice::Moved { index: 20, path: moved } = server.notice() else { panic!("another notice") };
    assert_eq!(moved.remote, from);
    let Notice::Control { index: 20, path: came, newest: true, bytes } = server.notice() else {
        panic!("another notice")
    };
    assert_eq!((came.remote, &bytes[..]), (from, &b"ping"[..]));

    let long = [&Record::Control.encode(1200)[..], &[1; 1200]].concat();
    End::send_as_peer(&mut client.lanes, &elsewhere, server.addr, &[long]);
    let drops = |end: &End| end.counters().drops.of(DropReason::BadControl);
    server.await_that("the drop of a message that is too long", |server| drops(server) == 1);
    assert!(client.notices.try_recv().is_err());
}

#[test]
fn what_is_not_ours_is_counted_and_answered_by_silence() {
    let (mut client, server) = End::pair();
    let stranger = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let drops = &server.counters().drops;
    for (bytes, reason) in [
        (&b"\x05\x01\x02\x00\x01\x02\x03\x04"[..], DropReason::UnknownIndex),
        (b"\x05\x01\x02\x00\x14\x00\x00\x00\0\0\0\0\0\0\0\0 not sealed by anybody", DropReason::Unauthentic),
        (b"\x05\x01", DropReason::BadLength),
        (b"\x09\x01\x02\x00", DropReason::UnknownType),
        (&[1; 300], DropReason::ReservedBits),
    ] {
        stranger.send_segments(&path(server.addr), bytes, 2000).unwrap();
        server.await_that(reason.label(), |_| drops.of(reason) == 1);
    }
    let whole = Record::Whole { nic: NicId(ID.0 + 1), offload: Offload::default() };
    let foreign = [&whole.encode(20)[..], &[0; 20]].concat();
    let broken = [&Record::Control.encode(50)[..], &[0; 20]].concat();
    End::send_as_peer(&mut client.lanes, &stranger, server.addr, &[foreign, broken]);
    server.await_that("the drop", |_| drops.of(DropReason::UnknownNic) == 1);
    server.await_that("the drop", |_| drops.of(DropReason::BadRecord) == 1);
}

/// A super-frame of ten packets, and the train that a peer's worker would make of it.
fn packed(lanes: &mut Lanes) -> (Vec<u8>, Vec<u8>) {
    let frame = sample::tcp_frame(false, 14_000);
    let mut batch = Batch::new();
    batch.start(1472);
    let read = |places: &mut [std::io::IoSliceMut<'_>]| {
        let mut rest = &frame[..];
        for place in places {
            let (here, behind) = rest.split_at(rest.len().min(place.len()));
            place[..here.len()].copy_from_slice(here);
            rest = behind;
        }
        Ok(frame.len())
    };
    let total = batch.read(&mut [], 20_000, read).unwrap();
    batch.pack(ID, Offload { needs_checksum: true, gso: Some(Gso::Tcp(1400)) }, total);
    let (train, segment) = batch.seal(&mut lanes.take().unwrap()).unwrap();
    assert_eq!(segment, 1472);
    (frame.clone(), train.to_vec())
}

#[test]
fn a_super_frame_that_lost_a_datagram_is_salvaged_within_milliseconds() {
    let (mut client, server) = End::pair();
    let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let (frame, mut train) = packed(&mut client.lanes);
    // In one train, so that no pause of this thread's is taken for a loss.
    train[4 * 1472 + 100] ^= 1;
    socket.send_segments(&path(server.addr), &train, 1472).unwrap();
    let headers = frame.len() - 14_000;
    let (vnet, first) = server.take();
    assert_eq!((vnet.gso_size, (first.len() - headers) % 1400), (1400, 0));
    let (_, second) = server.take();
    let saved = first.len() + second.len() - 2 * headers;
    assert!(saved >= 14_000 - 3 * 1400, "{saved} bytes saved");
    server.await_that("the loss", |s| s.counters().drops.of(DropReason::PartExpired) == 1);
    server.await_that("the count", |s| s.counters().salvaged.load(Relaxed) == saved as u64 / 1400);
}

#[test]
fn a_nic_without_offloads_gets_finished_packets() {
    let (mut client, server) =
        (End::new(Side::Client, Offloads::TCP_UDP), End::new(Side::Server, Offloads::NONE));
    let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let (frame, train) = packed(&mut client.lanes);
    socket.send_segments(&path(server.addr), &train, 1472).unwrap();
    let headers = frame.len() - 14_000;
    for i in 0..10 {
        let (vnet, mut packet) = server.take();
        assert_eq!((vnet, packet.len()), (VnetHeader::default(), headers + 1400), "packet {i}");
        assert_eq!(packet[headers..], frame[headers + i * 1400..headers + (i + 1) * 1400]);
        // A finished checksum sums to the complement of the pseudo-header's.
        let finished = packet[34 + 16..34 + 18].to_vec();
        let transport = crate::wire::ip::Transport::parse(&packet, packet.len()).unwrap();
        let (ip, l4) = (transport.ip, transport.ip.l4);
        let partial = crate::wire::checksum::pseudo_header_sum(ip.src, ip.dst, ip.protocol, ip.l4_len());
        packet[l4 + 16..l4 + 18].copy_from_slice(&partial.to_be_bytes());
        complete_checksum(&mut packet, l4, 16).unwrap();
        assert_eq!(packet[l4 + 16..l4 + 18], finished);
    }
    assert_eq!(server.counters().cut.load(Relaxed), 1);
}

#[test]
fn a_dead_nic_is_told_once_and_the_worker_sleeps_on() {
    let (mut client, server) = End::pair();
    let (queue, end) = std::io::pipe().unwrap();
    let key = NicKey(8);
    client.do_(Command::AddNic {
        key,
        peer: PEER,
        id: NicId(4),
        queue: Queue::stand_in(queue.into(), Offloads::NONE),
        reads: true,
        contract: contract(),
        counters: Arc::default(),
        reply_arp: false,
    });
    drop(end);
    let Notice::NicDead { key: dead, .. } = client.notice() else { panic!("another notice") };
    assert_eq!(dead, key);
    let before = client.counters().wakeups.load(Relaxed);
    server.put(VnetHeader::default(), &outbound(10));
    assert_eq!(client.take().1, outbound(10));
    assert!(client.counters().wakeups.load(Relaxed) <= before + 1);
    let Notice::FirstUse { .. } = client.notice() else { panic!("another notice") };
    assert!(client.notices.try_recv().is_err());
}

#[test]
fn removing_a_peer_closes_its_queues_and_forgets_its_sessions() {
    let (client, server) = End::pair();
    server.do_(Command::RemovePeer(PEER));
    client.put(VnetHeader::default(), &sample::udp_frame(false, 10));
    server.await_that("the drop", |s| s.counters().drops.of(DropReason::UnknownIndex) == 1);
    assert!(server.wire.send(b"anybody?").is_err());
}

#[test]
fn a_way_that_leads_nowhere_costs_frames_and_nothing_else() {
    let (client, server) = End::pair();
    client.do_(Command::SetPath { peer: PEER, path: path("240.0.0.1:9".parse().unwrap()) });
    client.put(VnetHeader::default(), &sample::udp_frame(false, 10));
    client.await_that("the drop", |c| c.counters().drops.of(DropReason::SocketRefused) > 0);
    client.do_(Command::SetPath { peer: PEER, path: path(server.addr) });
    client.put(VnetHeader::default(), &sample::udp_frame(false, 11));
    assert_eq!(server.take().1, sample::udp_frame(false, 11));
}

#[test]
fn strangers_fill_half_of_the_notice_channel_and_peers_are_heard_all_the_same() {
    let (client, mut server) = End::pair();
    let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let hello = datagram::Hello { suite: Suite::Aes, sender_index: 5, nonce: [0; 16] }.encode(|_| [0; 16]);
    let full = |s: &End| s.counters().drops.of(DropReason::QueueFull) > 0;
    server.await_that("the overflow", |s| {
        socket.send_segments(&path(s.addr), &hello, 2000).unwrap();
        full(s)
    });
    client.put(VnetHeader::default(), &sample::udp_frame(false, 10));
    assert_eq!(server.take().1, sample::udp_frame(false, 10));
    // Behind what strangers said there was still room for a peer.
    loop {
        if let Notice::FirstUse { .. } = server.notice() {
            break;
        }
    }
}
