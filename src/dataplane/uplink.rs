//! The way from a NIC to its peer: read → check → pack → seal → send.
//!
//! A burst is what a queue gives until it has nothing more, within a budget that lets others have their turn. NICs of
//! one peer share a batch; nothing waits in it beyond the worker's turn, so a small frame alone leaves at once.

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::batch::Batch;
use super::capture::Fate;
use super::outside::Outside;
use super::rest::Rest;
use super::tables::{Nic, OwnedLane, Peer, Tables};
use super::{NicKey, Notice, PeerKey, probe};
use crate::metrics::DropReason;
use crate::nic::Side;
use crate::proto::session::REKEY_AFTER_DATAGRAMS;
use crate::wire::record::{MAX_FRAME, Offload};
use crate::wire::vnet::VnetHeader;

/// Batches that one NIC fills before the next has its turn.
const BATCHES_A_TURN: usize = 2;

/// Frames that one NIC gives before the next has its turn.
const FRAMES_A_TURN: usize = 256;

/// How a NIC's turn ended.
#[derive(Debug)]
pub enum Turn {
    /// It has nothing more to read. So many frames were read.
    Empty(usize),
    /// There may be more, but it is another's turn.
    More,
    /// Its descriptor is dead.
    Dead(io::Error),
}

/// The outgoing half of a worker.
#[derive(Default)]
pub struct Uplink {
    batch: Batch,
    /// Whose datagrams are in the batch.
    peer: Option<PeerKey>,
    rest: Rest,
}

impl Uplink {
    /// Works a burst of the NIC `key` off. What is left in the batch leaves with [`Self::finish`], or when a NIC of
    /// another peer comes.
    pub fn turn(&mut self, key: NicKey, tables: &mut Tables, out: &Outside, now: Instant) -> Turn {
        let Some(peer_key) = tables.nics.get(&key).map(|nic| nic.peer) else { return Turn::Empty(0) };
        if self.peer != Some(peer_key) {
            self.finish(tables, out, now);
        }
        let (Some(nic), Some(peer)) = (tables.nics.get_mut(&key), tables.peers.get_mut(&peer_key)) else {
            return Turn::Empty(0);
        };
        if self.peer.replace(peer_key) != Some(peer_key) {
            self.batch.start(peer.datagram);
        }
        self.burst(key, nic, peer, out, now)
    }

    /// Sends what is in the batch.
    pub fn finish(&mut self, tables: &mut Tables, out: &Outside, now: Instant) {
        let peer = self.peer.take().and_then(|key| tables.peers.get_mut(&key).map(|peer| (key, peer)));
        if let Some((key, peer)) = peer
            && !self.batch.is_empty()
        {
            self.send(key, peer, out, now);
        }
    }

    fn burst(&mut self, key: NicKey, nic: &mut Nic, peer: &mut Peer, out: &Outside, now: Instant) -> Turn {
        let can_send = peer.can_send();
        let mut batches = 0usize;
        let rested = self.rest.ends(now);
        for frames in 0..FRAMES_A_TURN {
            if self.batch.should_leave(nic.length) || !self.batch.open() {
                self.send(nic.peer, peer, out, now);
                batches = batches.saturating_add(1);
                if batches >= BATCHES_A_TURN {
                    return Turn::More;
                }
            }
            let (vnet, total) = match self.read(nic) {
                Ok(frame) => frame,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Turn::Empty(frames),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Turn::Dead(e),
            };
            nic.length = total.max(nic.length.saturating_sub(nic.length / 8));
            let checked = self.check(nic, &vnet, total, can_send, out, now);
            if !nic.captures.is_empty() {
                self.show(nic, &vnet, total, &checked, out.side);
            }
            match checked {
                Ok(Some(offload)) => {
                    self.pack(nic, peer, offload, total, out, now);
                    if frames == 0 && rested {
                        self.send(nic.peer, peer, out, now);
                    }
                }
                Ok(None) => {}
                Err(reason) => nic.refuse(key, reason, out),
            }
        }
        Turn::More
    }

    /// read: one frame, scattered to where it will be sealed.
    #[inline]
    fn read(&mut self, nic: &Nic) -> io::Result<(VnetHeader, usize)> {
        let mut vnet = [0; VnetHeader::LEN];
        let n = self.batch.read(&mut vnet, nic.length, |places| nic.queue.read_vectored(places))?;
        // Less than a header is the end of a queue: there are no empty reads.
        let total = n.checked_sub(VnetHeader::LEN).ok_or(ErrorKind::UnexpectedEof)?;
        Ok((VnetHeader::from_bytes(&vnet), total))
    }

    /// check: may it pass? `Ok(None)`: it was answered here.
    #[inline]
    fn check(
        &mut self,
        nic: &mut Nic,
        vnet: &VnetHeader,
        total: usize,
        can_send: bool,
        out: &Outside,
        now: Instant,
    ) -> Result<Option<Offload>, DropReason> {
        if total > MAX_FRAME {
            return Err(DropReason::Oversize);
        }
        let head = self.batch.head(total);
        if nic.hold.is_some() {
            listen(nic, head, total, out);
            return Err(DropReason::NotLive);
        }
        if nic.reply_arp && answer_arp(nic, head) {
            return Ok(None);
        }
        let offload = match Offload::from_vnet(vnet, head, total) {
            Ok(offload) => offload,
            Err(_) => self.batch.with_whole(total, |frame| Offload::from_kernel(vnet, frame))?,
        };
        let head = self.batch.head(total);
        match out.side {
            Side::Client => nic.contract.lan_to_host(now, head, total, offload)?,
            Side::Server => nic.contract.host_to_lan(now, head, total, offload)?,
        }
        if can_send { Ok(Some(offload)) } else { Err(DropReason::NoSession) }
    }

    /// Shows the frame that was read to whoever captures its NIC.
    #[cold]
    fn show(
        &mut self,
        nic: &mut Nic,
        vnet: &VnetHeader,
        total: usize,
        checked: &Result<Option<Offload>, DropReason>,
        side: Side,
    ) {
        nic.captures.retain(|c| !c.is_over());
        if nic.captures.is_empty() {
            return;
        }
        let fate = match checked {
            Ok(Some(_)) => Fate::Passed,
            Ok(None) => Fate::Answered,
            Err(reason) => Fate::Dropped(*reason),
        };
        let bytes = self.batch.copy(total, nic.snaplen());
        nic.copy((side, false, fate), (total, vnet.gso_size), bytes);
    }

    /// Sends a marked frame as if the NIC had given it, and at once.
    pub fn inject(
        &mut self,
        key: NicKey,
        token: u64,
        len: usize,
        tables: &mut Tables,
        out: &Outside,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.finish(tables, out, now);
        let nic = tables.nics.get_mut(&key).ok_or(DropReason::UnknownNic)?;
        let peer = tables.peers.get_mut(&nic.peer).ok_or(DropReason::NoSession)?;
        let frame = probe::outward(nic, out.side, token, len);
        self.batch.start(peer.datagram);
        let (vnet, total) = (VnetHeader::default(), frame.len());
        let _ = self.batch.read(&mut [0; VnetHeader::LEN], total, |places| {
            scatter(&frame, places);
            Ok(())
        });
        let checked = self.check(nic, &vnet, total, peer.can_send(), out, now);
        nic.show(&frame, out.side, false, Fate::Probe);
        match checked {
            // What else could be wrong with it has been asked before.
            Err(DropReason::StrayProbe) if peer.can_send() => {}
            Err(DropReason::StrayProbe) | Ok(_) => return Err(DropReason::NoSession),
            Err(reason) => {
                nic.counters.drops.count(reason);
                return Err(reason);
            }
        }
        self.batch.pack(nic.id, Offload::default(), total);
        while self.batch.has_tail() && !self.batch.place_tail() {
            self.send(nic.peer, peer, out, now);
        }
        self.send(nic.peer, peer, out, now);
        Ok(())
    }

    /// pack: record headers round the frame.
    #[inline]
    fn pack(
        &mut self,
        nic: &Nic,
        peer: &mut Peer,
        offload: Offload,
        total: usize,
        out: &Outside,
        now: Instant,
    ) {
        self.batch.pack(nic.id, offload, total);
        nic.counters.uplink.count(total, out.turn.get());
        if self.batch.has_tail() {
            out.counters.spilled.fetch_add(1, Relaxed);
            while !self.batch.place_tail() {
                self.send(nic.peer, peer, out, now);
            }
        }
    }

    /// seal and send: the whole batch, and begins the next.
    fn send(&mut self, key: PeerKey, peer: &mut Peer, out: &Outside, now: Instant) {
        let datagrams = self.batch.datagrams() as u64;
        match peer.way() {
            Some((route, way)) => match self.batch.seal(&mut way.lane) {
                Ok((train, segment)) => {
                    let sent = out.send(key, route, train, segment);
                    account(way, key, (datagrams, train.len() as u64), out, now);
                    if !sent {
                        self.batch.drop_tail();
                    }
                }
                Err(reason) => {
                    out.counters.drops.add(reason, datagrams);
                    self.batch.drop_tail();
                }
            },
            None => {
                out.counters.drops.add(DropReason::NoSession, datagrams);
                self.batch.drop_tail();
            }
        }
        self.batch.start(peer.datagram);
    }
}

/// Puts a frame where a read would have put it, behind an empty header.
fn scatter(frame: &[u8], places: &mut [io::IoSliceMut<'_>]) {
    let mut rest = frame;
    for place in places.iter_mut().skip(1) {
        let (here, behind) = rest.split_at(rest.len().min(place.len()));
        if let Some(place) = place.get_mut(..here.len()) {
            place.copy_from_slice(here);
        }
        rest = behind;
    }
}

/// Looks for whoever has an address of a NIC that is held back.
#[cold]
fn listen(nic: &mut Nic, head: &[u8], total: usize, out: &Outside) {
    let Some(hold) = nic.hold.as_mut().filter(|hold| !hold.told) else { return };
    if let Some((ip, mac)) = nic.contract.claimed_by_other(head, total) {
        hold.told = out.tell(Notice::Claimed { key: hold.key, ip, mac });
    }
}

/// Answers an ARP request for one of the NIC's addresses. True where `frame` was one.
fn answer_arp(nic: &Nic, frame: &[u8]) -> bool {
    const ETHERTYPE: std::ops::Range<usize> = 12..14;
    if frame.get(ETHERTYPE) != Some(&[0x08, 0x06]) {
        return false;
    }
    let Some(reply) = nic.contract.reply_arp(frame) else { return false };
    let vnet = VnetHeader::default().to_bytes();
    if nic.queue.write_vectored(&[io::IoSlice::new(&vnet), io::IoSlice::new(&reply)]).is_err() {
        nic.counters.drops.count(DropReason::NicBusy);
    }
    true
}

/// Notes a train, sent or lost on the way out: timers want to know that we tried.
fn account(way: &mut OwnedLane, peer: PeerKey, (datagrams, bytes): (u64, u64), out: &Outside, now: Instant) {
    out.counters.sent.count(datagrams, bytes);
    let (volume, activity) = (way.lane.volume(), way.lane.activity());
    volume.count_sent(datagrams, bytes);
    if activity.note_sent(now, true) {
        out.tell(Notice::Wake { peer });
    }
    if !way.rekey_told && volume.sent.load(Relaxed) >= REKEY_AFTER_DATAGRAMS {
        way.rekey_told = out.tell(Notice::RekeyWanted { index: way.index });
    }
}
