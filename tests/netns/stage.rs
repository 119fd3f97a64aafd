//! The stage itself, without the program: what the other tests see must not be the stage's own doing.

use std::time::Duration;

use crate::common::capture::{Capture, first};
use crate::common::frame::{STRANGER, ethernet, tagged, udp4};
use crate::common::lab::{Lab, Nic, Plan};
use crate::common::ns::Ns;
use crate::common::relay::{Faults, Relay};
use crate::common::traces::settled;
use crate::common::traffic::{MARKER, tcp, udp_echo, udp_storm};
use crate::needs_root;

/// Two hosts on one wire.
fn pair() -> (Ns, Ns) {
    let (a, b) = (Ns::new(), Ns::new());
    a.ip(&format!("link add eth0 type veth peer name eth0 netns {}", b.name()));
    for (ns, host) in [(&a, 1), (&b, 2)] {
        ns.ip(&format!("addr add 192.0.2.{host}/24 dev eth0"));
        ns.ip(&format!("-6 addr add fd00:99::{host}/64 dev eth0 nodad"));
        ns.ip("link set eth0 up");
    }
    // What is sent before the kernel has noticed a new link's carrier is dropped in silence.
    settled(&[(&a, "eth0"), (&b, "eth0")]);
    (a, b)
}

#[test]
fn a_namespace_is_gone_with_its_guard() {
    needs_root!();
    let name = Ns::new().name().to_owned();
    assert!(!std::path::Path::new("/run/netns").join(name).exists());
}

#[test]
fn two_hosts_on_a_wire_reach_each_other() {
    needs_root!();
    let (a, b) = pair();
    let (ip, ip6) = ("192.0.2.2".parse().unwrap(), "fd00:99::2".parse().unwrap());
    a.ping(ip);
    a.ping(ip6);
    assert!(!a.answers("192.0.2.9".parse().unwrap(), Duration::from_millis(300)));
    assert!(a.neighbour(ip).is_some());
    udp_echo(&a, &b, ip, 8000);
    udp_echo(&a, &b, ip6, 100);
    assert_eq!(udp_storm(&a, &b, ip, 200, 4000), 200);
}

#[test]
fn a_capture_sees_plaintext_and_fragments_where_there_are_some() {
    needs_root!();
    let (a, b) = pair();
    let ip = "192.0.2.2".parse().unwrap();
    let capture = Capture::on(&b, "eth0");
    tcp(&a, &b, ip, 2_500_000, 2_500_000);
    let seen = capture.finish();
    assert_eq!(seen.missed, 0);
    assert!(std::panic::catch_unwind(|| seen.assert_sealed(&[MARKER], 10)).is_err());

    let capture = Capture::on(&b, "eth0");
    udp_echo(&a, &b, ip, 4000);
    let seen = capture.finish();
    assert!(std::panic::catch_unwind(|| seen.assert_whole()).is_err());
}

#[test]
fn a_tag_is_seen_on_the_frame_that_has_one() {
    needs_root!();
    let (a, b) = pair();
    let (tx, mut rx) = (a.packet_socket("eth0"), b.packet_socket("eth0"));
    let frame = tagged(&ethernet([0xff; 6], STRANGER, 0x88b5, b"a tagged frame"), 7);
    tx.send(&frame).unwrap();
    let seen = first(&mut rx, Duration::from_secs(5), |p| p.bytes[6..12] == STRANGER).unwrap();
    assert!(!seen.outgoing && seen.bytes == frame, "{:02x?}", seen.bytes);
}

#[test]
fn a_datagram_made_by_hand_is_taken_by_the_kernel() {
    needs_root!();
    let (a, b) = pair();
    let socket = b.inside(|| std::net::UdpSocket::bind("192.0.2.2:7").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let ips = ("192.0.2.77".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let mac = b.ip("-br link show eth0").split_whitespace().nth(2).map(parse_mac).unwrap();
    a.packet_socket("eth0").send(&udp4((mac, STRANGER), ips, (5, 7), b"by hand")).unwrap();
    let mut buffer = [0; 100];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"by hand"[..], "192.0.2.77:5".parse().unwrap()));
}

fn parse_mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn a_relay_loses_repeats_and_spoils_as_told() {
    needs_root!();
    let (a, b) = pair();
    let server = b.inside(|| std::net::UdpSocket::bind("192.0.2.2:9").unwrap());
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let client = a.inside(|| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let front = "127.0.0.1:1234".parse().unwrap();
    let relay = Relay::start(&a, front, "192.0.2.2:9".parse().unwrap(), Faults::default());
    let count = |faults| {
        relay.set(faults);
        // No more than the server's receive buffer holds.
        for _ in 0..200 {
            client.send_to(&[0; 64], front).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
        let (mut whole, mut all, mut buffer) = (0, 0, [0; 100]);
        while let Ok(len) = server.recv(&mut buffer) {
            all += 1;
            whole += usize::from(buffer[..len] == [0; 64]);
        }
        (whole, all)
    };
    assert_eq!(count(Faults { reordered: 50, ..Faults::default() }), (200, 200));
    let (whole, all) = count(Faults { lost: 30, repeated: 20, spoiled: 10, ..Faults::default() });
    assert!((90..195).contains(&whole) && (whole + 5..225).contains(&all), "{whole} of {all}");
}

/// The underlay alone: the client's box and the server's reach each other by the addresses of the configs.
fn underlay_works(plan: Plan) {
    let lab = plan.build();
    for (i, site) in lab.sites.iter().enumerate() {
        site.client.ping(site.server_addr.ip());
        assert_eq!(site.nics[0].ip, Nic::new(i, 0).ip);
        assert!(!site.lan.answers(site.nics[0].ip, Duration::from_millis(100)));
    }
}

#[test]
fn labs_have_an_underlay() {
    needs_root!();
    underlay_works(Lab::plan().sites(3).nics(2).no_udp_offload());
    underlay_works(Lab::plan().ipv6_underlay());
    underlay_works(Lab::plan().nat());
    underlay_works(Lab::plan().router().lan_mtu(9000));
}
