//! The NIC contract: what it lets pass is held against the rules of `docs/FRAMES.md` once more, read from the bytes
//! in the plainest way.

use std::net::SocketAddr;
use std::time::Duration;

use tap_rs::policy::Contract;
use tap_rs::types::{MacAddr, NicRules};
use tap_rs::wire::record::Offload;

use super::frames::{self, HOST, NIC, NIC4, NIC6};
use super::input::{Input, epoch};

/// Runs one input: rules, then frames both ways.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let rules = frames::rules(input.u8());
    let nic = frames::nic();
    let ends = (SocketAddr::from(([192, 0, 2, 1], 4500)), SocketAddr::from(([192, 0, 2, 2], 4500)));
    let mut contract = Contract::new(&nic, rules);
    // Judges what is in a frame, whatever is left of the budgets.
    let mut patient = Contract::new(&nic, NicRules { broadcast_pps: u32::MAX, ..rules });
    contract.set_tunnel(Some(ends));
    patient.set_tunnel(Some(ends));
    let (mut now, mut groups) = (epoch(), [0u32; 2]);
    while let Some(op) = input.next() {
        let offload = if op & 4 == 0 { Offload::default() } else { frames::offload(&mut input) };
        let frame = match op & 3 {
            0 => addressed(input.u8(), &mut input),
            1 => {
                let n = usize::from(input.u8());
                input.take(n).to_vec()
            }
            _ => {
                let total = frames::length(&mut input);
                frames::frame(&mut input, total)
            }
        };
        let shown = if op & 8 == 0 { frame.len() } else { frame.len().min(192) };
        let (head, total) = (&frame[..shown], frame.len());
        if op & 16 != 0 {
            now += Duration::from_millis(u64::from(op >> 5));
        }
        let lan = patient.lan_to_host(now, head, total, offload).is_ok();
        let host = patient.host_to_lan(now, head, total, offload).is_ok();
        if lan {
            may_reach_host(rules, &frame, offload);
        }
        if host {
            may_reach_lan(rules, &frame, offload);
        }
        assert!(rules.bridge || !(lan && host), "no frame goes round: {frame:02x?}");
        let (passed, may) = match op & 32 {
            0 => (contract.lan_to_host(now, head, total, offload).is_ok(), lan),
            _ => (contract.host_to_lan(now, head, total, offload).is_ok(), host),
        };
        assert!(may || !passed, "a budget lets nothing pass");
        let way = &mut groups[usize::from(op & 32 != 0)];
        *way += u32::from(passed && frame[0] & 1 != 0);
        let seconds = (now - epoch()).as_secs() as u32 + 1;
        assert!(*way <= rules.broadcast_pps.saturating_mul(seconds + 1), "{way} in {seconds} s");
        if let Some(answer) = contract.reply_arp(&frame) {
            may_answer(&frame, &answer);
        }
    }
}

/// A frame with an envelope that has a chance, and a body from the input.
fn addressed(shape: u8, input: &mut Input<'_>) -> Vec<u8> {
    let group = [0x33, 0x33, 0, 0, 0, 1];
    let dst = match shape & 3 {
        0 => NIC,
        1 => HOST,
        2 => group,
        _ => [0xff; 6],
    };
    let src = if shape & 4 == 0 { NIC } else { HOST };
    let mut frame = [dst, src].concat();
    if shape & 8 != 0 {
        frame.extend([0x81, 0, 0, 9]);
    }
    let n = usize::from(input.u8());
    let body = input.take(n);
    let icmp6 = |src: [u8; 16]| {
        let length = (body.len() as u16).to_be_bytes();
        let dst = frames::HOST6;
        [&[0x86, 0xdd, 0x60, 0, 0, 0][..], &length, &[58, 255], &src, &dst, body].concat()
    };
    frame.extend(match shape >> 4 & 7 {
        0 => [&[8, 6, 0, 1, 8, 0, 6, 4, 0][..], body].concat(),
        1 => icmp6(NIC6),
        2 => icmp6(frames::HOST6),
        3 => [&[8, 0, 0x45][..], body].concat(),
        4 => [&[0x86, 0xdd, 0x60][..], body].concat(),
        5 => [&[0, 40, 0xaa, 0xaa, 3, 0, 0][..], body].concat(),
        _ => body.to_vec(),
    });
    frame
}

/// The ethertype behind at most one tag, and where the packet begins.
fn ethertype(frame: &[u8]) -> (usize, [u8; 2], usize) {
    let at = |i: usize| [frame[i], frame.get(i + 1).copied().unwrap_or(0)];
    match at(12) {
        [0x81, 0] | [0x88, 0xa8] => (1, at(16), 18),
        kind => (0, kind, 14),
    }
}

fn envelope(frame: &[u8], offload: Offload) {
    assert!(frame.len() >= 14 && frame[6] & 1 == 0, "a station sends whole headers from one address");
    let (tags, kind, _) = ethertype(frame);
    assert!(tags == 0 || !matches!(kind, [0x81, 0] | [0x88, 0xa8]), "one tag at the most");
    assert!(offload.gso.is_some() || frame.len() <= 1500 + 14 + 4 * (tags + 1), "no longer than the MTU");
}

fn may_reach_host(rules: NicRules, frame: &[u8], offload: Offload) {
    envelope(frame, offload);
    if rules.bridge {
        return;
    }
    assert!(frame[..6] == NIC || frame[0] & 1 == 1, "for the NIC or for a group");
    assert!(frame[6..12] != NIC, "not from the NIC itself");
    match ethertype(frame) {
        (_, [8, 6], l3) => {
            let (mac, ip) = (&frame[l3 + 8..l3 + 14], &frame[l3 + 14..l3 + 18]);
            assert!(mac != NIC && ip != NIC4, "nobody claims what is the NIC's");
        }
        (_, [0x86, 0xdd], l3) if frame[l3 + 6] == 58 => {
            assert!(frame[l3 + 40] != 136 || frame[l3 + 48..l3 + 64] != NIC6, "nor advertises it");
        }
        _ => {}
    }
}

fn may_reach_lan(rules: NicRules, frame: &[u8], offload: Offload) {
    envelope(frame, offload);
    assert!(!matches!(frame[..6], [1, 0x80, 0xc2, 0, 0, ..=15]), "nothing to the switches");
    let (tags, kind, l3) = ethertype(frame);
    assert!(rules.vlan || tags == 0, "no tag");
    assert!(!matches!(kind, [0x91..=0x93, 0]), "no tag of another kind");
    let ip4 = |at: usize| &frame[at..at + 4];
    if rules.strict && kind == [8, 0] {
        let (src, header) = (ip4(l3 + 12), usize::from(frame[l3] & 15) * 4);
        let ports = frame.get(l3 + header..l3 + header + 4);
        let asks = frame[l3 + 9] == 17 && ports == Some(&[0, 68, 0, 67]);
        assert!(src == NIC4 || (src == [0; 4] && asks), "from its own address");
        let whole = frame[l3 + 6] & 0x1f == 0 && frame[l3 + 7] == 0;
        if frame[l3 + 9] == 17 && whole {
            assert!(!matches!(ports, Some([0, 67, ..] | [_, _, 0, 68])), "no DHCP server");
        }
    }
    if rules.strict && kind == [0x86, 0xdd] && frame[l3 + 6] == 58 {
        assert_ne!(frame[l3 + 40], 134, "no router");
    }
    if rules.bridge {
        return;
    }
    assert_eq!(frame[6..12], NIC, "from its own MAC");
    match kind {
        [8, 6] => {
            assert_eq!(frame[l3 + 8..l3 + 14], NIC, "ARP for its own MAC");
            let probe = frame[l3 + 7] == 1 && ip4(l3 + 14) == [0; 4];
            assert!(ip4(l3 + 14) == NIC4 || probe, "ARP for its own address");
        }
        [0x86, 0xdd] if frame[l3 + 6] == 58 && frame[l3 + 40] == 136 => {
            let target = &frame[l3 + 48..l3 + 64];
            assert!(target == NIC6 || target[..2] == [0xfe, 0x80], "advertises its own address");
        }
        [0..=5, _] if matches!(frame.get(l3..l3 + 6), Some([0xaa, 0xaa, 3, 0, 0, 0 | 0xf8])) => {
            assert_ne!(frame.get(l3 + 6..l3 + 8), Some(&[8, 6][..]), "no ARP in disguise");
        }
        _ => {}
    }
}

/// An answer of the client's own goes to who asked, from the NIC, and may pass.
fn may_answer(asked: &[u8], answer: &[u8]) {
    assert_eq!(answer[..6], asked[6..12]);
    assert_eq!(MacAddr(NIC).0, answer[6..12]);
    assert_eq!(answer[28..32], NIC4);
    assert_eq!(asked[38..42], NIC4);
}
