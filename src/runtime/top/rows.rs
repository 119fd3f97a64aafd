//! What the two tables show: their rows, in order, without those that are filtered out.

use std::cmp::Ordering;

use super::history::{History, Track, key};
use crate::runtime::status::Snapshot;
use crate::runtime::status::model::{Nic, Peer};

/// Columns of the NICs that rows can be sorted by.
pub(super) const NIC_SORTS: &[&str] = &["OUT", "IN", "FRAMES", "DROPS", "LAST", "NIC", "PEER", "STATE"];

/// Columns of the peers that rows can be sorted by.
pub(super) const PEER_SORTS: &[&str] = &["OUT", "IN", "RTT", "JITTER", "LOSS", "PEER", "STATE"];

/// A NIC and how it goes.
pub(super) struct NicRow<'a> {
    pub nic: &'a Nic,
    pub track: &'a Track,
}

impl NicRow<'_> {
    pub(super) fn last_s(&self) -> Option<u64> {
        self.nic.uplink.last_s.into_iter().chain(self.nic.downlink.last_s).min()
    }

    pub(super) fn frames(&self) -> u64 {
        self.track.rate.out_frames.saturating_add(self.track.rate.in_frames)
    }
}

/// A peer and how it goes.
pub(super) struct PeerRow<'a> {
    pub peer: &'a Peer,
    pub track: &'a Track,
    pub nics: usize,
}

impl PeerRow<'_> {
    /// Lost towards it and from it, in per cent.
    pub(super) fn losses(&self) -> (Option<f64>, Option<f64>) {
        let percent = |loss: Option<crate::runtime::status::model::Loss>| loss.and_then(|l| l.recent_percent);
        (percent(self.peer.loss_out), percent(self.peer.loss_in))
    }
}

/// In which order, and which.
pub(super) struct Choice<'a> {
    pub sort: &'a str,
    /// Against a column's own order.
    pub reversed: bool,
    pub filter: &'a str,
    /// Of this peer alone.
    pub peer: Option<&'a str>,
}

impl Choice<'_> {
    fn ordered(&self, order: Ordering) -> Ordering {
        if self.reversed { order.reverse() } else { order }
    }

    fn takes<'t>(&self, mut texts: impl Iterator<Item = &'t str>) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty() || texts.any(|text| text.to_lowercase().contains(&wanted))
    }
}

pub(super) fn nics<'a>(s: &'a Snapshot, history: &'a History, choice: &Choice<'_>) -> Vec<NicRow<'a>> {
    let taken = |nic: &&Nic| {
        let own = [&nic.name, &nic.peer, &nic.mac, &nic.state, &nic.mode].into_iter().map(String::as_str);
        choice.peer.is_none_or(|peer| nic.peer == peer)
            && choice.takes(own.chain(nic.addrs.iter().map(String::as_str)))
    };
    let row = |nic: &'a Nic| Some(NicRow { nic, track: history.nics.get(&key(nic))? });
    let mut rows: Vec<_> = s.nics.iter().filter(taken).filter_map(row).collect();
    let names = |a: &NicRow<'_>, b: &NicRow<'_>| (&a.nic.peer, &a.nic.name).cmp(&(&b.nic.peer, &b.nic.name));
    rows.sort_by(|a, b| {
        let order = match choice.sort {
            "IN" => b.track.rate.in_bytes.cmp(&a.track.rate.in_bytes),
            "FRAMES" => b.frames().cmp(&a.frames()),
            "DROPS" => b.track.rate.drops.cmp(&a.track.rate.drops).then_with(|| dropped(b).cmp(&dropped(a))),
            "LAST" => a.last_s().unwrap_or(u64::MAX).cmp(&b.last_s().unwrap_or(u64::MAX)),
            "NIC" => a.nic.name.cmp(&b.nic.name),
            "PEER" => a.nic.peer.cmp(&b.nic.peer),
            "STATE" => a.nic.state.cmp(&b.nic.state),
            _ => b.track.rate.out_bytes.cmp(&a.track.rate.out_bytes),
        };
        choice.ordered(order).then_with(|| names(a, b))
    });
    rows
}

fn dropped(row: &NicRow<'_>) -> u64 {
    row.nic.drops.values().fold(0, |sum, n| sum.saturating_add(*n))
}

pub(super) fn peers<'a>(s: &'a Snapshot, history: &'a History, choice: &Choice<'_>) -> Vec<PeerRow<'a>> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for nic in &s.nics {
        let count = counts.entry(&nic.peer).or_default();
        *count = count.saturating_add(1);
    }
    let taken = |peer: &&Peer| {
        let own = [&peer.name, &peer.state].into_iter().chain(&peer.endpoint);
        choice.takes(own.map(String::as_str))
    };
    let row = |peer: &'a Peer| {
        let nics = counts.get(peer.name.as_str()).copied().unwrap_or(0);
        Some(PeerRow { peer, track: history.peers.get(&peer.name)?, nics })
    };
    let mut rows: Vec<_> = s.peers.iter().filter(taken).filter_map(row).collect();
    let worse = |row: &PeerRow<'_>| row.losses().0.unwrap_or(0.0).max(row.losses().1.unwrap_or(0.0));
    rows.sort_by(|a, b| {
        let order = match choice.sort {
            "IN" => b.track.rate.in_bytes.cmp(&a.track.rate.in_bytes),
            "RTT" => b.peer.rtt_us.cmp(&a.peer.rtt_us),
            "JITTER" => b.peer.jitter_us.cmp(&a.peer.jitter_us),
            "LOSS" => worse(b).total_cmp(&worse(a)),
            "PEER" => a.peer.name.cmp(&b.peer.name),
            "STATE" => b.peer.state.cmp(&a.peer.state),
            _ => b.track.rate.out_bytes.cmp(&a.track.rate.out_bytes),
        };
        choice.ordered(order).then_with(|| a.peer.name.cmp(&b.peer.name))
    });
    rows
}
