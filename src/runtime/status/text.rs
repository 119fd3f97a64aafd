//! The document for people: at most 80 columns, plain text.

use std::fmt::Write;

use super::model::{Nic, Peer, Snapshot};

/// A running tap-rs, under its name.
pub fn render(name: &str, s: &Snapshot) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{name}: {} (pid {}), up {}, {}", s.role, s.pid, span(s.uptime_s), s.local);
    let _ = writeln!(out, "  config {}", s.config);
    for peer in &s.peers {
        describe_peer(&mut out, peer);
        for nic in s.nics.iter().filter(|n| n.peer == peer.name) {
            describe_nic(&mut out, nic);
        }
    }
    describe_drops(&mut out, "  dropped before any NIC", &s.plane.drops);
    out
}

fn describe_peer(out: &mut String, p: &Peer) {
    let endpoint =
        p.endpoint.as_deref().filter(|e| *e != p.name).map(|e| format!(" at {e}")).unwrap_or_default();
    let _ = writeln!(out, "\n  {}: {}{endpoint}", p.name, p.state);
    if let (Some(suite), Some(age)) = (&p.suite, p.handshake_age_s) {
        let rtt = p.rtt_us.map(|us| format!(", round trip {}", micros(us))).unwrap_or_default();
        let _ = writeln!(out, "    {suite}");
        let _ = writeln!(
            out,
            "    handshake {} ago{rtt}, datagrams of {} bytes",
            span(age),
            p.datagram_bytes.unwrap_or(0)
        );
        let _ = writeln!(
            out,
            "    sent {}, received {} in this session",
            bytes(p.sent.bytes),
            bytes(p.received.bytes)
        );
    }
    if let Some(r) = &p.report {
        let _ = writeln!(
            out,
            "    load {:.2}, {} of {} memory available, up {} ({} ago)",
            r.load,
            bytes(r.available_kb.saturating_mul(1024)),
            bytes(r.memory_kb.saturating_mul(1024)),
            span(r.uptime_s),
            span(r.age_s)
        );
    }
    if let Some(push) = &p.push {
        let code = if push.code == 0 { String::new() } else { format!(" ({})", push.code) };
        let _ = writeln!(out, "    push {} {}{code}", push.revision, push.state.replace('_', " "));
    }
}

fn describe_nic(out: &mut String, n: &Nic) {
    let _ = writeln!(out, "    {:<15} {:<4} {} {}", n.name, n.state, n.mac, n.addrs.join(" "));
    let _ = writeln!(out, "      {} mtu {}, offload {}", n.mode, n.mtu, n.offload);
    let flow = |f: &super::model::Flow| format!("{} frames, {}", f.frames, bytes(f.bytes));
    let _ = writeln!(out, "      to the peer {}; from it {}", flow(&n.uplink), flow(&n.downlink));
    describe_drops(out, "      dropped", &n.drops);
}

fn describe_drops(out: &mut String, what: &str, drops: &std::collections::BTreeMap<String, u64>) {
    if drops.is_empty() {
        return;
    }
    let list = drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "{what}: {list}");
}

fn span(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, _, _) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while value >= 1000.0 {
        let Some(next) = units.next() else { break };
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

fn micros(us: u64) -> String {
    if us < 1000 { format!("{us} us") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::super::model::*;
    use super::*;

    #[test]
    fn times_and_sizes_read_as_people_say_them() {
        assert_eq!(
            [span(5), span(65), span(3660), span(90_000)],
            ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!([bytes(999), bytes(1500), bytes(2_500_000)], ["999 B", "1.5 kB", "2.5 MB"]);
    }

    #[test]
    fn a_full_snapshot_fits_a_terminal() {
        let drops = [("loop".to_owned(), 3), ("storm".to_owned(), 12)].into();
        let nic = Nic {
            name: "interface-of-15".into(),
            peer: "branch".into(),
            mode: "macvtap".into(),
            state: "up".into(),
            mac: "be:17:dd:5c:07:17".into(),
            addrs: vec!["18.8.80.150/24".into(), "2001:db8::1234/64".into()],
            mtu: 9000,
            offload: "checksum, TCP, UDP".into(),
            conflict: None,
            netns: None,
            table: None,
            uplink: Flow { frames: 123_456_789, bytes: 1_234_567_890_123 },
            downlink: Flow { frames: 123_456_789, bytes: 1_234_567_890_123 },
            drops,
            probes: 0,
        };
        let peer = Peer {
            name: "branch".into(),
            state: "established".into(),
            endpoint: Some("[2001:db8:1234:5678::1]:65000".into()),
            suite: Some("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".into()),
            handshake_age_s: Some(100),
            rtt_us: Some(12_345),
            datagram_bytes: Some(1472),
            report: Some(Report {
                load: 12.5,
                memory_kb: 64_000_000,
                available_kb: 1_000_000,
                ..Report::default()
            }),
            push: Some(Push { revision: "0123456789abcdef".into(), state: "script_failed".into(), code: 7 }),
            ..Peer::default()
        };
        let text = render(
            "server",
            &Snapshot { role: "server".into(), peers: vec![peer], nics: vec![nic], ..Snapshot::default() },
        );
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.contains("loop 3, storm 12") && text.contains("script failed (7)"));
    }
}
