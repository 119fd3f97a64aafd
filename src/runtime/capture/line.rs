//! A frame in a line, for people.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use super::stream::{Note, Shown};
use crate::dataplane::capture::Way;
use crate::types::MacAddr;
use crate::wire::ether::{Link, ethertype};
use crate::wire::ip::protocol;
use crate::wire::probe::STATION;

/// Where a terminal's line ends.
const WIDTH: usize = 80;

/// The frame in words, its time in UTC as in the log. `mac`: the NIC's own. `narrow`: no line is longer than a terminal's;
/// what does not fit goes on below.
pub fn line(frame: &Shown, mac: Option<MacAddr>, narrow: bool) -> String {
    let way = if frame.way == Way::In { "in " } else { "out" };
    let head = format!("{} {way} {}", clock(frame.at), stations(&frame.bytes, mac));
    let mut what = format!("{}, {}", content(&frame.bytes), frame.total);
    if frame.gso > 0 {
        what.push_str(&format!(" (in packets of {})", frame.gso));
    }
    let note = match &frame.note {
        Note::Passed => String::new(),
        Note::Dropped(reason) => format!("DROPPED {reason}"),
        Note::Answered => "answered here".to_owned(),
        Note::Probe => "(tap-rs doctor)".to_owned(),
    };
    let width = if narrow { WIDTH } else { usize::MAX };
    let mut lines = vec![head];
    for part in [what, note].into_iter().filter(|part| !part.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.len().saturating_add(part.len()) < width => {
                line.push(' ');
                line.push_str(&part);
            }
            _ => lines.push(format!("    {part}")),
        }
    }
    lines.iter().map(|line| line.chars().take(width).collect::<String>()).collect::<Vec<_>>().join("\n")
}

/// The time of day.
fn clock(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let s = since.as_secs();
    let [h, m, s] = [s / 3600 % 24, s / 60 % 60, s % 60];
    format!("{h:02}:{m:02}:{s:02}.{:06}", since.subsec_micros())
}

fn stations(bytes: &[u8], own: Option<MacAddr>) -> String {
    let Some(link) = Link::parse(bytes) else { return "?".to_owned() };
    let name = |mac: MacAddr| match mac {
        mac if Some(mac) == own => "nic".to_owned(),
        MacAddr::BROADCAST => "all".to_owned(),
        STATION => "doctor".to_owned(),
        mac => mac.to_string(),
    };
    format!("{} > {}", name(link.src), name(link.dst))
}

/// What it carries.
fn content(bytes: &[u8]) -> String {
    let Some(link) = Link::parse(bytes) else { return "cut off".to_owned() };
    let payload = bytes.get(link.l3..).unwrap_or_default();
    let inner = match link.ethertype {
        ethertype::ARP => arp(payload),
        ethertype::IPV4 => ipv4(payload),
        ethertype::IPV6 => ipv6(payload),
        length if length < ethertype::MIN => Some("LLC".to_owned()),
        other => Some(format!("ethertype {other:#06x}")),
    };
    let inner = inner.unwrap_or_else(|| "cut off".to_owned());
    let tag = bytes.get(14..16).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b) & 0xfff);
    match (link.tags, tag) {
        (1.., Some(vlan)) => format!("vlan {vlan} {inner}"),
        _ => inner,
    }
}

fn arp(p: &[u8]) -> Option<String> {
    let ip = |at: usize| Some(Ipv4Addr::from(*p.get(at..)?.first_chunk::<4>()?));
    let operation = u16::from_be_bytes(*p.get(6..)?.first_chunk()?);
    let (sender, target) = (ip(14)?, ip(24)?);
    Some(match operation {
        1 if sender == target => format!("ARP {sender} announced"),
        1 => format!("ARP who has {target}? {sender}"),
        2 => format!("ARP {sender} is here"),
        n => format!("ARP operation {n}"),
    })
}

fn ipv4(p: &[u8]) -> Option<String> {
    let header = usize::from(p.first()? & 15).saturating_mul(4);
    let ip = |at: usize| Some(Ipv4Addr::from(*p.get(at..)?.first_chunk::<4>()?).to_string());
    let fragment = u16::from_be_bytes(*p.get(6..)?.first_chunk()?) & 0x1fff != 0;
    let (from, to) = (ip(12)?, ip(16)?);
    let inside = p.get(header..).filter(|_| !fragment);
    Some(transport(*p.get(9)?, (&from, &to), inside))
}

fn ipv6(p: &[u8]) -> Option<String> {
    let ip = |at: usize| Some(Ipv6Addr::from(*p.get(at..)?.first_chunk::<16>()?).to_string());
    let (from, to) = (ip(8)?, ip(24)?);
    Some(transport(*p.get(6)?, (&from, &to), p.get(40..)))
}

fn transport(kind: u8, (from, to): (&str, &str), inside: Option<&[u8]>) -> String {
    let port = |at: usize| Some(u16::from_be_bytes(*inside?.get(at..)?.first_chunk()?));
    let separator = if from.contains(':') { '#' } else { ':' };
    let first = inside.and_then(|b| b.first().copied());
    match (kind, port(0), port(2)) {
        (protocol::TCP, Some(a), Some(b)) => {
            let flags = inside.and_then(|i| i.get(13)).copied().unwrap_or(0);
            let flags: String =
                "FSRPAU".chars().enumerate().filter(|(i, _)| flags >> i & 1 == 1).map(|(_, c)| c).collect();
            format!("TCP {from}{separator}{a} > {to}{separator}{b} {flags}")
        }
        (protocol::UDP, Some(a), Some(b)) => format!("UDP {from}{separator}{a} > {to}{separator}{b}"),
        (1, ..) => format!("ICMP {from} > {to} {}", icmp(first, 8, 0)),
        (protocol::ICMPV6, ..) => match first {
            Some(133) => format!("ND {from} asks for routers"),
            Some(134) => format!("ND {from} is a router"),
            Some(135) => format!("ND {from} asks for a neighbour"),
            Some(136) => format!("ND {from} is here"),
            _ => format!("ICMPv6 {from} > {to} {}", icmp(first, 128, 129)),
        },
        _ => format!("protocol {kind} {from} > {to}"),
    }
}

fn icmp(kind: Option<u8>, request: u8, reply: u8) -> String {
    match kind {
        Some(n) if n == request => "echo request".to_owned(),
        Some(n) if n == reply => "echo reply".to_owned(),
        Some(n) => format!("type {n}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sample::{self, HOST, NIC};

    fn shown(bytes: Vec<u8>, note: Note) -> Shown {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(45_296_000_007);
        Shown { at, lost: 0, total: bytes.len(), gso: 0, way: Way::In, note, bytes }
    }

    #[test]
    fn an_arp_request_reads_as_one() {
        let mut bytes = crate::wire::ether::header(MacAddr::BROADCAST, HOST, 0x0806).to_vec();
        bytes.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        bytes.extend([HOST.0.as_slice(), &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 9]].concat());
        let text = line(&shown(bytes, Note::Passed), Some(NIC), true);
        let host = HOST.to_string();
        assert_eq!(text, format!("12:34:56.000007 in  {host} > all ARP who has 10.0.0.9? 10.0.0.2, 42"));
    }

    #[test]
    fn nothing_is_wider_than_a_terminal_and_garbage_is_said() {
        let long = "source_not_unicast".to_owned();
        let mut frames = vec![vec![], vec![0; 13], vec![0xff; 14], vec![0; 60]];
        let tcp = sample::ipv4(sample::HOST4, sample::NIC4, 6, &[], 0, &sample::tcp(1, 0x18, &[], &[0; 9]));
        frames.push(sample::ether(NIC, HOST, &[(0x8100, 7)], 0x0800, &tcp));
        frames.push([&crate::wire::ether::header(NIC, HOST, 0x86dd)[..], &[0xfd; 60]].concat());
        for bytes in frames {
            let text = line(&shown(bytes, Note::Dropped(long.clone())), Some(NIC), true);
            assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
            assert!(text.ends_with("DROPPED source_not_unicast"), "{text}");
        }
    }
}
