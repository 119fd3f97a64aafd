//! Parts of the document, from what the state machines say.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::model::{Loss, Peer, Push, Report, Snapshot, Volume};
use crate::proto::output::{Arrivals, SessionInfo};
use crate::runtime::load::Memory;
use crate::wire::control::{self, PushState};

/// What does not depend on peers and NICs.
pub fn frame(now: Instant, started: Instant, config: &str, local: SocketAddr, memory: &Memory) -> Snapshot {
    Snapshot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        config: config.to_owned(),
        uptime_s: now.saturating_duration_since(started).as_secs(),
        local: local.to_string(),
        memory_kb: memory.resident_kb(),
        ..Snapshot::default()
    }
}

/// A peer with a session.
pub fn peer(now: Instant, name: String, info: &SessionInfo, silent: bool) -> Peer {
    let volume = |(datagrams, bytes)| Volume { datagrams, bytes };
    Peer {
        name,
        state: if silent { "silent" } else { "established" }.to_owned(),
        endpoint: Some(info.path.remote.to_string()),
        suite: Some(info.suite.noise_name().to_owned()),
        handshake_age_s: Some(now.saturating_duration_since(info.since).as_secs()),
        heard_s: info.heard.map(|t| now.saturating_duration_since(t).as_secs()),
        rtt_us: info.rtt.map(micros),
        jitter_us: info.jitter.map(micros),
        loss_in: Some(loss(info.incoming)),
        loss_out: info.outgoing.map(loss),
        datagram_bytes: Some(info.datagram),
        sent: volume(info.sent),
        received: volume(info.received),
        ..Peer::default()
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn loss(arrivals: Arrivals) -> Loss {
    let Arrivals { total, recent } = arrivals;
    let lost = recent.expected.saturating_sub(recent.arrived) as f64 / recent.expected as f64;
    Loss {
        expected: total.expected,
        arrived: total.arrived,
        // To a thousandth; there is none of nothing.
        recent_percent: (recent.expected > 0).then(|| (lost * 100_000.0).round() / 1000.0),
    }
}

/// A client's load report, which came `at`.
pub fn report(now: Instant, at: Instant, report: &control::Report) -> Report {
    Report {
        age_s: now.saturating_duration_since(at).as_secs(),
        load: f64::from(report.load) / 100.0,
        memory_kb: report.memory.0,
        available_kb: report.memory.1,
        uptime_s: u64::from(report.uptime),
    }
}

/// What became of a push.
pub fn push(revision: u64, state: PushState, code: u8) -> Push {
    let state = match state {
        PushState::Applied => "applied",
        PushState::ScriptRefused => "script_refused",
        PushState::ScriptFailed => "script_failed",
        PushState::ConfigRefused => "config_refused",
        PushState::NicFailed => "nic_failed",
    };
    Push { revision: format!("{revision:016x}"), state: state.to_owned(), code }
}
