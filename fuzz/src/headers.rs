//! Ethernet, IP, TCP, UDP, ARP and neighbour discovery: what is read lies inside the frame, and a shorter look at
//! the same frame says the same or nothing.

use tap_rs::wire::checksum::{add, complete_checksum, sum};
use tap_rs::wire::ether::Link;
use tap_rs::wire::ip::{Fragment, Ip, Transport};
use tap_rs::wire::neighbour::{Arp, Nd, NdKind};

use super::input::Input;
use super::{frames, oracle};

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (op, more) = (input.u8(), usize::from(input.u8()));
    let frame = if op & 1 == 0 { input.0.to_vec() } else { frames::frame(&mut input, usize::from(op)) };
    let total = frame.len() + if op & 2 == 0 { 0 } else { more };
    let cut = more.min(frame.len());
    look(&frame, total, cut);
    let (start, offset) = (usize::from(op >> 2), more);
    let mut completed = frame.clone();
    match complete_checksum(&mut completed, start, offset) {
        None => assert_eq!(completed, frame),
        Some(()) if offset.is_multiple_of(2) => {
            let was = u16::from_be_bytes([frame[start + offset], frame[start + offset + 1]]);
            assert_eq!(add(sum(&completed[start..]), was), 0xffff, "with what was there it sums up");
        }
        Some(()) => {}
    }
}

fn look(frame: &[u8], total: usize, cut: usize) {
    let Some(link) = Link::parse(frame) else { return };
    assert!(link.l3 <= frame.len() && link.tags <= 2);
    assert!(Link::parse(&frame[..cut]).is_none_or(|l| l == link));
    if let Some(arp) = Arp::parse(frame, link.l3) {
        assert_eq!(arp.to_bytes(), frame[link.l3..][..Arp::LEN]);
    }
    if let Some(t) = Transport::parse(frame, total) {
        assert!(t.ip.l3 < t.ip.l4 && t.ip.l4 < t.payload && t.payload <= t.ip.end);
        assert!(t.payload <= frame.len() && t.ip.end <= total);
        assert!(Transport::parse(&frame[..cut], total).is_none_or(|s| s == t));
        if total == frame.len() {
            let p = oracle::place(frame).expect("seen twice");
            assert_eq!((p.l4, p.payload, p.end, p.tcp), (t.ip.l4, t.payload, t.ip.end, t.is_tcp));
        }
    }
    let Some(ip) = Ip::parse(frame, total, &link) else { return };
    assert!(ip.l3 < ip.l4 && ip.l4 <= ip.end && ip.end <= total && ip.l4 <= frame.len());
    assert!(Ip::parse(&frame[..cut], total, &link).is_none_or(|s| s == ip));
    if let Some((from, _)) = ip.udp_ports(frame) {
        assert_eq!(from.to_be_bytes(), frame[ip.l4..ip.l4 + 2]);
    }
    let Ok(Some(kind)) = NdKind::of(frame, &ip) else { return };
    assert_ne!(ip.fragment, Fragment::Later);
    let Ok(nd) = Nd::parse(frame, &ip, kind) else { return };
    if nd.link_addresses_are(|_| true).is_ok() {
        assert!(ip.end <= frame.len(), "options are judged when all of them are seen");
    }
}
