//! The document for people: at most 80 columns. Few NICs are shown with all there is to say of them, many with a line each.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::model::{Flow, Loss, Nic, Peer, Snapshot};
use super::paint::{Paint, Tone, bytes, count, micros, short_span, span};

/// The width that everything fits.
const WIDTH: usize = 80;

/// More NICs than this are shown with a line each.
const MANY: usize = 16;

/// A running tap-rs, under its name. `long`: every NIC with all that is known of it, however many there are.
pub fn render(name: &str, s: &Snapshot, long: bool, paint: Paint) -> String {
    let mut out = String::new();
    let memory =
        if s.memory_kb > 0 { format!(", {} of memory", kilobytes(s.memory_kb)) } else { String::new() };
    let _ = writeln!(
        out,
        "{}: {} (pid {}), up {}{memory}",
        paint.tone(Tone::Head, name),
        s.role,
        s.pid,
        span(s.uptime_s)
    );
    let _ = writeln!(out, "  at {}, config {}", s.local, s.config);
    // Whose NICs are whose, without a search for each peer.
    let mut nics = BTreeMap::<&str, Vec<&Nic>>::new();
    for nic in &s.nics {
        nics.entry(&nic.peer).or_default().push(nic);
    }
    let full = long || s.nics.len() <= MANY;
    for peer in &s.peers {
        describe_peer(&mut out, peer, paint);
        let own = nics.get(peer.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        if !full && !own.is_empty() {
            let _ = writeln!(
                out,
                "  {:<15} {:<8} {:<15} {:>9} {:>9} {:>6} {:>9}",
                "NIC", "", "ADDRESS", "TO PEER", "FROM PEER", "LAST", "DROPPED"
            );
        }
        for nic in own {
            if full { describe_nic(&mut out, nic, paint) } else { list_nic(&mut out, nic, paint) }
        }
    }
    describe_drops(&mut out, "  dropped before any NIC: ", &s.plane.drops, paint);
    out
}

fn describe_peer(out: &mut String, p: &Peer, paint: Paint) {
    let endpoint =
        p.endpoint.as_deref().filter(|e| *e != p.name).map(|e| format!(" at {e}")).unwrap_or_default();
    let state = paint.tone(Tone::of_state(&p.state), &p.state);
    let _ = writeln!(out, "\n  {}: {state}{endpoint}", paint.tone(Tone::Head, &p.name));
    if let (Some(suite), Some(age)) = (&p.suite, p.handshake_age_s) {
        let jitter = p.jitter_us.map(|us| format!(" (jitter {})", micros(us))).unwrap_or_default();
        let rtt = p.rtt_us.map(|us| format!(", round trip {}{jitter}", micros(us))).unwrap_or_default();
        let heard = p.heard_s.map(|s| format!(", heard {} ago", short_span(s))).unwrap_or_default();
        let _ = writeln!(out, "    {suite}, datagrams of {} bytes", p.datagram_bytes.unwrap_or(0));
        let _ = writeln!(out, "    handshake {} ago{heard}{rtt}", short_span(age));
        let _ = writeln!(
            out,
            "    this session: sent {}{}, received {}{}",
            bytes(p.sent.bytes),
            lost(p.loss_out),
            bytes(p.received.bytes),
            lost(p.loss_in)
        );
    }
    if let Some(r) = &p.report {
        let _ = writeln!(
            out,
            "    load {:.2}, {} of {} memory available, up {} ({} ago)",
            r.load,
            kilobytes(r.available_kb),
            kilobytes(r.memory_kb),
            span(r.uptime_s),
            short_span(r.age_s)
        );
    }
    if let Some(push) = &p.push {
        let code = if push.code == 0 { String::new() } else { format!(" ({})", push.code) };
        let tone = if push.state == "applied" { Tone::Good } else { Tone::Bad };
        let state = paint.tone(tone, &format!("{}{code}", push.state.replace('_', " ")));
        let _ = writeln!(out, "    push {} {state}", push.revision);
    }
}

fn describe_nic(out: &mut String, n: &Nic, paint: Paint) {
    let head = format!("    {:<15} {} {} ", n.name, state(n, paint), n.mac);
    list(out, &head, &n.addrs, " ", painted(&head, n, paint));
    let netns = n.netns.as_ref().map(|netns| format!(", in {netns}")).unwrap_or_default();
    let table = n.table.map(|table| format!(", table {table}")).unwrap_or_default();
    let _ = writeln!(out, "      {} mtu {}, offload {}{netns}{table}", n.mode, n.mtu, n.offload);
    describe_conflict(out, n, paint);
    let flow = |f: &Flow| {
        let last = f.last_s.map(|s| format!(", the last {} ago", short_span(s))).unwrap_or_default();
        format!("{} frames, {}{last}", count(f.frames), bytes(f.bytes))
    };
    let _ = writeln!(out, "      to the peer: {}", flow(&n.uplink));
    let _ = writeln!(out, "      from it:     {}", flow(&n.downlink));
    if let Some(dropped) = n.storm {
        let _ = writeln!(
            out,
            "      {}",
            paint.tone(Tone::Bad, &format!("a storm goes on: {} frames dropped", count(dropped)))
        );
    }
    describe_drops(out, "      dropped: ", &n.drops, paint);
}

fn list_nic(out: &mut String, n: &Nic, paint: Paint) {
    let addr = n.addrs.first().map_or("", String::as_str);
    // Without its prefix's length; an IPv6 address may still take more than there is.
    let addr: String = addr.split('/').next().unwrap_or(addr).chars().take(15).collect();
    let last = n.uplink.last_s.into_iter().chain(n.downlink.last_s).min();
    let drops: u64 = n.drops.values().fold(0, |sum, n| sum.saturating_add(*n));
    let drops = if drops == 0 { String::new() } else { count(drops) };
    let _ = writeln!(
        out,
        "  {:<15} {} {addr:<15} {:>9} {:>9} {:>6} {}",
        n.name,
        state(n, paint),
        bytes(n.uplink.bytes),
        bytes(n.downlink.bytes),
        last.map(short_span).unwrap_or_default(),
        paint.tone(Tone::Wary, &format!("{drops:>9}"))
    );
    describe_conflict(out, n, paint);
}

/// Who has the NIC's address.
fn describe_conflict(out: &mut String, n: &Nic, paint: Paint) {
    if let Some(conflict) = &n.conflict {
        let _ = writeln!(out, "      {}", paint.tone(Tone::Bad, conflict));
    }
}

fn state(n: &Nic, paint: Paint) -> String {
    paint.tone(Tone::of_state(&n.state), &format!("{:<8}", n.state))
}

/// How many characters of a line's head are not seen.
fn painted(head: &str, n: &Nic, paint: Paint) -> usize {
    let plain = format!("    {:<15} {:<8} {} ", n.name, n.state, n.mac);
    if paint == Paint::default() { 0 } else { head.len().saturating_sub(plain.len()) }
}

fn lost(loss: Option<Loss>) -> String {
    let percent = loss.and_then(|l| l.recent_percent);
    percent.map(|p| format!(" (lost {p:.1} %)")).unwrap_or_default()
}

fn describe_drops(out: &mut String, what: &str, drops: &BTreeMap<String, u64>, paint: Paint) {
    if drops.is_empty() {
        return;
    }
    let items: Vec<_> = drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    let plain = what.trim_start();
    let indent = &what[..what.len().saturating_sub(plain.len())];
    let head = format!("{indent}{}", paint.tone(Tone::Wary, plain));
    list(out, &head, &items, ", ", head.len().saturating_sub(what.len()));
}

/// Items behind a head, going on below where the line is full. `unseen`: bytes of the head that take no room.
fn list(out: &mut String, head: &str, items: &[String], between: &str, unseen: usize) {
    let indent = head.len().saturating_sub(unseen);
    let (mut line, mut width) = (head.to_owned(), indent);
    for (i, item) in items.iter().enumerate() {
        let last = i.saturating_add(1) == items.len();
        let item = if last { item.clone() } else { format!("{item}{between}") };
        if width > indent && width.saturating_add(item.trim_end().len()) > WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(indent);
            width = indent;
        }
        line.push_str(&item);
        width = width.saturating_add(item.len());
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

fn kilobytes(kb: u64) -> String {
    bytes(kb.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::super::model::{Plane, Push, Report, Volume};
    use super::*;

    fn peer() -> Peer {
        let loss = Loss { expected: 1000, arrived: 985, recent_percent: Some(1.5) };
        let volume = Volume { datagrams: 1, bytes: 999_900_000_000 };
        Peer {
            name: "branch".into(),
            state: "established".into(),
            endpoint: Some("[2001:db8:1234:5678::1]:65000".into()),
            suite: Some("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".into()),
            handshake_age_s: Some(99),
            heard_s: Some(99),
            rtt_us: Some(1_234_567),
            jitter_us: Some(1_234_567),
            loss_in: Some(loss),
            loss_out: Some(Loss { recent_percent: Some(100.0), ..loss }),
            datagram_bytes: Some(1472),
            sent: volume,
            received: volume,
            report: Some(Report {
                load: 12.5,
                memory_kb: 64_000_000,
                available_kb: 1_000_000,
                ..Report::default()
            }),
            push: Some(Push { revision: "0123456789abcdef".into(), state: "script_failed".into(), code: 7 }),
        }
    }

    fn nic(n: usize) -> Nic {
        let drops = crate::metrics::DropReason::ALL.iter().map(|r| (r.label().to_owned(), 1_234_567));
        let flow = Flow { frames: 123_456_789, bytes: 1_234_567_890_123, last_s: Some(6000) };
        Nic {
            name: format!("interface-of{n}"),
            peer: "branch".into(),
            mode: "macvtap".into(),
            state: "conflict".into(),
            mac: "be:17:dd:5c:07:17".into(),
            addrs: vec!["18.8.80.150/24".into(), "2001:db8::1234/64".into(), "fe80::1/64".into()],
            mtu: 9000,
            offload: "checksum, TCP, UDP".into(),
            conflict: Some("2001:db8::1234 is also at aa:bb:cc:dd:ee:ff".into()),
            storm: Some(123_456_789_012),
            netns: Some("decoy7".into()),
            table: Some(51_820),
            uplink: flow,
            downlink: flow,
            drops: drops.collect(),
            probes: 7,
        }
    }

    fn server(nics: usize) -> Snapshot {
        Snapshot {
            role: "server".into(),
            pid: 4_194_304,
            uptime_s: 90_000,
            local: "[::]:65535".into(),
            memory_kb: 123_456,
            config: "/etc/tap-rs/server.toml".into(),
            peers: vec![peer()],
            nics: (0..nics).map(nic).collect(),
            plane: Plane { drops: nic(0).drops, ..Plane::default() },
            ..Snapshot::default()
        }
    }

    /// What a terminal shows.
    fn seen(text: &str) -> String {
        let mut parts = text.split("\x1b[");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |seen, part| seen + part.split_once('m').unwrap().1)
    }

    #[test]
    fn the_fullest_snapshot_fits_a_terminal_in_colour_as_without() {
        for (nics, long) in [(1, false), (500, false), (500, true)] {
            let plain = render("server", &server(nics), long, Paint::default());
            for line in plain.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
            assert_eq!(seen(&render("server", &server(nics), long, Paint::colourful())), plain);
        }
    }

    #[test]
    fn nothing_is_left_out_of_few_nics() {
        let text = render("server", &server(1), false, Paint::default());
        for words in [
            "lost 1.5 %",
            "jitter 1234.6 ms",
            "126.4 MB of memory",
            "the last 1 h ago",
            "loop 1234567",
            "script failed (7)",
            "fe80::1/64",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn many_nics_have_a_line_each() {
        let short = render("server", &server(500), false, Paint::default());
        let long = render("server", &server(500), true, Paint::default());
        // Each of these has a line more, with who has its address.
        assert!(short.lines().count() < 1040, "{}", short.lines().count());
        assert_eq!(short.matches("is also at aa:bb:cc:dd:ee:ff").count(), 500);
        assert!(long.lines().count() > 2000);
        assert!(short.contains("interface-of499"));
    }
}
