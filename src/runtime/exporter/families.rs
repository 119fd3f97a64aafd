//! What is exported: a table of families, each with how it is read off a snapshot.
//!
//! Names follow Prometheus' convention: the program first, base units, `_total` for what only grows. Labels are names of the
//! config and of this program, never anything that a stranger sends, so that their number is bounded by the config;
//! [`NICS`] and [`PEERS`] bound it whatever the config says.

use super::text::Samples;
use crate::metrics::DropReason;
use crate::runtime::status::Snapshot;
use crate::runtime::status::model::{Flow, Loss, Nic, Peer, Plane, Trains};

/// NICs with series of their own; of more, the first.
pub const NICS: usize = 2000;

/// Peers with series of their own; of more, the first.
pub const PEERS: usize = 2000;

/// What a family's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; its labels tell.
    Info,
}

/// Series of one name.
#[derive(Debug)]
pub struct Family {
    /// As it stands before the labels.
    pub name: &'static str,
    /// What its numbers mean.
    pub kind: Kind,
    /// Its labels, in the order of the samples' values.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
    /// Reads the samples off.
    pub(super) samples: fn(&Snapshot, &mut Samples<'_>),
}

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Snapshot, &mut Samples<'_>),
) -> Family {
    Family { name, kind, labels, help, samples }
}

/// Everything that is exported, in this order.
pub const FAMILIES: &[Family] = &[
    // -- the process
    family("tap_rs_build_info", Kind::Info, &["version", "role"], "The program.", |s, out| {
        out.add(&[&s.version, &s.role], 1);
    }),
    family("tap_rs_uptime_seconds", Kind::Gauge, &[], "Time since the start.", |s, out| {
        out.add(&[], s.uptime_s);
    }),
    family("tap_rs_resident_memory_bytes", Kind::Gauge, &[], "Resident memory of the process.", |s, out| {
        out.add_known(&[], Some(s.memory_kb).filter(|kb| *kb > 0).map(|kb| kb.saturating_mul(1024)));
    }),
    family("tap_rs_peers", Kind::Gauge, &[], "Peers of the config.", |s, out| out.add(&[], s.peers.len())),
    family("tap_rs_nics", Kind::Gauge, &[], "NICs of the config.", |s, out| out.add(&[], s.nics.len())),
    // -- the data plane
    family("tap_rs_workers", Kind::Gauge, &[], "Threads that carry frames.", |s, out| {
        out.add(&[], s.plane.workers);
    }),
    family("tap_rs_wakeups_total", Kind::Counter, &[], "Times that a worker woke.", |s, out| {
        out.add(&[], s.plane.wakeups);
    }),
    family("tap_rs_trains_total", Kind::Counter, &["direction"], "Trains of datagrams.", |s, out| {
        both(&s.plane, out, |trains| trains.trains);
    }),
    family("tap_rs_datagrams_total", Kind::Counter, &["direction"], "Datagrams.", |s, out| {
        both(&s.plane, out, |trains| trains.datagrams);
    }),
    family("tap_rs_datagram_bytes_total", Kind::Counter, &["direction"], "UDP payload.", |s, out| {
        both(&s.plane, out, |trains| trains.bytes);
    }),
    family(
        "tap_rs_salvaged_packets_total",
        Kind::Counter,
        &[],
        "Packets saved from super-frames that never completed.",
        |s, out| out.add(&[], s.plane.salvaged),
    ),
    family(
        "tap_rs_dropped_packets_total",
        Kind::Counter,
        &["reason"],
        "What was dropped before it was known to be a NIC's.",
        |s, out| each_reason(out, |reason| s.plane.drops.get(reason).copied().unwrap_or(0)),
    ),
    family(
        "tap_rs_dropped_frames_total",
        Kind::Counter,
        &["reason"],
        "Frames of all NICs that went no further.",
        |s, out| {
            each_reason(out, |reason| s.nics.iter().filter_map(|nic| nic.drops.get(reason)).sum::<u64>());
        },
    ),
    // -- each peer
    family("tap_rs_peer_up", Kind::Gauge, &["peer"], "1 with a session that answers.", |s, out| {
        peers(s).for_each(|p| out.add(&[&p.name], u8::from(p.state == "established")));
    }),
    family("tap_rs_peer_handshake_age_seconds", Kind::Gauge, &["peer"], "Age of the session.", |s, out| {
        peers(s).for_each(|p| out.add_known(&[&p.name], p.handshake_age_s));
    }),
    family(
        "tap_rs_peer_heard_age_seconds",
        Kind::Gauge,
        &["peer"],
        "Time since the peer was last heard.",
        |s, out| peers(s).for_each(|p| out.add_known(&[&p.name], p.heard_s)),
    ),
    family("tap_rs_peer_rtt_seconds", Kind::Gauge, &["peer"], "Smoothed round-trip time.", |s, out| {
        peers(s).for_each(|p| out.add_known(&[&p.name], p.rtt_us.map(seconds)));
    }),
    family(
        "tap_rs_peer_jitter_seconds",
        Kind::Gauge,
        &["peer"],
        "How far round-trip times are from the smoothed one, smoothed.",
        |s, out| peers(s).for_each(|p| out.add_known(&[&p.name], p.jitter_us.map(seconds))),
    ),
    family(
        "tap_rs_peer_path_bytes",
        Kind::Gauge,
        &["peer"],
        "Longest UDP payload that the path to the peer is known to carry.",
        |s, out| peers(s).for_each(|p| out.add_known(&[&p.name], p.datagram_bytes)),
    ),
    family(
        "tap_rs_peer_expected_datagrams_total",
        Kind::Counter,
        &["peer", "direction"],
        "Datagrams that were sent, as far as their receiver can tell.",
        |s, out| losses(s, out, |loss| loss.expected),
    ),
    family(
        "tap_rs_peer_arrived_datagrams_total",
        Kind::Counter,
        &["peer", "direction"],
        "Datagrams of those that arrived.",
        |s, out| losses(s, out, |loss| loss.arrived),
    ),
    family(
        "tap_rs_peer_push_applied",
        Kind::Gauge,
        &["peer"],
        "1 where the peer follows the last push, 0 where it refuses it.",
        |s, out| {
            for p in peers(s) {
                out.add_known(&[&p.name], p.push.as_ref().map(|push| u8::from(push.state == "applied")));
            }
        },
    ),
    // -- each client's box, as it reports
    family(
        "tap_rs_client_report_age_seconds",
        Kind::Gauge,
        &["peer"],
        "Time since the client reported.",
        |s, out| peers(s).for_each(|p| out.add_known(&[&p.name], p.report.as_ref().map(|r| r.age_s))),
    ),
    family(
        "tap_rs_client_load",
        Kind::Gauge,
        &["peer"],
        "One-minute load average of the client's box.",
        |s, out| peers(s).for_each(|p| out.add_known(&[&p.name], p.report.as_ref().map(|r| r.load))),
    ),
    family("tap_rs_client_memory_bytes", Kind::Gauge, &["peer"], "Memory of the client's box.", |s, out| {
        let bytes = |p: &Peer| p.report.as_ref().map(|r| r.memory_kb.saturating_mul(1024));
        peers(s).for_each(|p| out.add_known(&[&p.name], bytes(p)));
    }),
    family(
        "tap_rs_client_available_memory_bytes",
        Kind::Gauge,
        &["peer"],
        "What of it is available.",
        |s, out| {
            let bytes = |p: &Peer| p.report.as_ref().map(|r| r.available_kb.saturating_mul(1024));
            peers(s).for_each(|p| out.add_known(&[&p.name], bytes(p)));
        },
    ),
    // -- each NIC
    family("tap_rs_nic_up", Kind::Gauge, &["peer", "nic"], "1 where the NIC is up.", |s, out| {
        nics(s).for_each(|n| out.add(&[&n.peer, &n.name], u8::from(n.state == "up")));
    }),
    family(
        "tap_rs_nic_conflict",
        Kind::Gauge,
        &["peer", "nic"],
        "1 where somebody on the client's LAN has an address of the NIC.",
        |s, out| nics(s).for_each(|n| out.add(&[&n.peer, &n.name], u8::from(n.conflict.is_some()))),
    ),
    family("tap_rs_nic_info", Kind::Info, &["peer", "nic", "mac", "mode"], "The NIC.", |s, out| {
        nics(s).for_each(|n| out.add(&[&n.peer, &n.name, &n.mac, &n.mode], 1));
    }),
    family(
        "tap_rs_nic_frames_total",
        Kind::Counter,
        &["peer", "nic", "direction"],
        "Frames; a super-frame counts once.",
        |s, out| flows(s, out, |flow| Some(flow.frames)),
    ),
    family(
        "tap_rs_nic_bytes_total",
        Kind::Counter,
        &["peer", "nic", "direction"],
        "Bytes of those frames, Ethernet headers included.",
        |s, out| flows(s, out, |flow| Some(flow.bytes)),
    ),
    family(
        "tap_rs_nic_last_frame_age_seconds",
        Kind::Gauge,
        &["peer", "nic", "direction"],
        "Time since the last frame.",
        |s, out| flows(s, out, |flow| flow.last_s),
    ),
    family(
        "tap_rs_nic_dropped_frames_total",
        Kind::Counter,
        &["peer", "nic", "reason"],
        "Frames of the NIC that went no further, for reasons that have occurred.",
        |s, out| {
            for n in nics(s) {
                n.drops.iter().for_each(|(reason, count)| out.add(&[&n.peer, &n.name, reason], count));
            }
        },
    ),
];

fn peers(s: &Snapshot) -> impl Iterator<Item = &Peer> {
    s.peers.iter().take(PEERS)
}

fn nics(s: &Snapshot) -> impl Iterator<Item = &Nic> {
    s.nics.iter().take(NICS)
}

fn both(plane: &Plane, out: &mut Samples<'_>, number: fn(&Trains) -> u64) {
    out.add(&["sent"], number(&plane.sent));
    out.add(&["received"], number(&plane.received));
}

fn each_reason(out: &mut Samples<'_>, number: impl Fn(&str) -> u64) {
    DropReason::ALL.iter().for_each(|r| out.add(&[r.label()], number(r.label())));
}

fn losses(s: &Snapshot, out: &mut Samples<'_>, number: fn(&Loss) -> u64) {
    for p in peers(s) {
        out.add_known(&[&p.name, "received"], p.loss_in.as_ref().map(number));
        out.add_known(&[&p.name, "sent"], p.loss_out.as_ref().map(number));
    }
}

fn flows(s: &Snapshot, out: &mut Samples<'_>, number: fn(&Flow) -> Option<u64>) {
    for n in nics(s) {
        out.add_known(&[&n.peer, &n.name, "to_peer"], number(&n.uplink));
        out.add_known(&[&n.peer, &n.name, "from_peer"], number(&n.downlink));
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::exporter::text::{Form, render};
    use crate::runtime::status::model::{Push, Report};

    #[test]
    fn names_follow_the_convention() {
        for f in FAMILIES {
            assert!(f.name.starts_with("tap_rs_"), "{}", f.name);
            assert!(f.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", f.name);
            assert_eq!(f.name.ends_with("_total"), f.kind == Kind::Counter, "{}", f.name);
            assert_eq!(f.name.ends_with("_info"), f.kind == Kind::Info, "{}", f.name);
            assert!(
                !["_ms", "_us", "_kb", "_percent"].iter().any(|unit| f.name.ends_with(unit)),
                "{}",
                f.name
            );
            assert!(f.help.ends_with('.'), "{}", f.name);
        }
    }

    /// A snapshot that has something to say in every family.
    fn full(peers: usize, nics: usize) -> Snapshot {
        let peer = |n| Peer {
            name: format!("peer{n}"),
            handshake_age_s: Some(1),
            heard_s: Some(1),
            rtt_us: Some(1),
            jitter_us: Some(1),
            datagram_bytes: Some(1),
            loss_in: Some(Loss::default()),
            loss_out: Some(Loss::default()),
            report: Some(Report::default()),
            push: Some(Push::default()),
            ..Peer::default()
        };
        let flow = Flow { frames: 1, bytes: 60, last_s: Some(1) };
        let nic = |n| Nic {
            name: format!("nic{n}"),
            uplink: flow,
            downlink: flow,
            drops: DropReason::ALL.iter().map(|r| (r.label().into(), 1)).collect(),
            ..Nic::default()
        };
        Snapshot {
            memory_kb: 1,
            peers: (0..peers).map(peer).collect(),
            nics: (0..nics).map(nic).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn every_family_and_every_reason_is_exported() {
        let text = render(&full(1, 1), Form::Prometheus);
        for f in FAMILIES {
            assert!(text.contains(&format!("\n{}", f.name)), "{}", f.name);
        }
        let empty = render(&Snapshot::default(), Form::Prometheus);
        for reason in DropReason::ALL {
            for name in ["tap_rs_dropped_packets_total", "tap_rs_dropped_frames_total"] {
                assert!(empty.contains(&format!("\n{name}{{reason=\"{}\"}} 0\n", reason.label())));
            }
        }
    }

    #[test]
    fn series_stay_bounded_whatever_the_config_has() {
        let samples = |peers, nics| render(&full(peers, nics), Form::Prometheus).lines().count();
        assert_eq!(samples(PEERS, NICS), samples(PEERS + 100, NICS + 100));
    }
}
