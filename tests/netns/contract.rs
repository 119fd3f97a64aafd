//! The NIC contract: what each end lets through on real interfaces, and what not.
//!
//! Whether a frame crossed is known without waiting: behind it goes one that must cross, in the same queue.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tap_rs::sys::packet::PacketSocket;

use crate::common::capture::{drain, first};
use crate::common::frame::{
    BROADCAST, STRANGER, arp, arp_request, ethernet, link_local, neighbour_advertisement,
    router_advertisement, tagged, udp4,
};
use crate::common::lab::{Edit, Lab, NIC_READY, Nic, PORT, SESSION, SOON};
use crate::common::program::Program;
use crate::needs_root;

struct Bed {
    wire: PacketSocket,
    tap: PacketSocket,
    nic: Nic,
    count: u32,
    _programs: (Program, Program),
    lab: Lab,
}

/// Lines for the NIC in the client's file and in the server's.
fn bed(on_client: &str, on_server: &str) -> Bed {
    let lab = Lab::new();
    let edit = |nic: &str| Edit { nic: nic.to_owned(), ..Edit::default() };
    let programs = lab.up(&edit(on_server), &edit(on_client));
    stand(lab, programs)
}

/// The client's NIC is a tap in a bridge, which sees what a macvtap's filter keeps out.
fn bridged_bed() -> Bed {
    let lab = Lab::new();
    let server = lab.start_server(&Edit::default());
    let client = lab.start_client(0, &Edit { mode: Some("tap"), ..Edit::default() });
    client.wait_for_log(&[NIC_READY], SOON);
    client.wait_for_log(&[SESSION], SOON);
    crate::forward::bridge(&lab.sites[0].client, "lan0", &lab.sites[0].nics[0].on_client);
    stand(lab, (server, client))
}

fn stand(lab: Lab, programs: (Program, Program)) -> Bed {
    let nic = lab.sites[0].nics[0].clone();
    lab.sites[0].lan.ping(nic.ip);
    let (wire, tap) = (lab.sites[0].lan.packet_socket("eth0"), lab.server.packet_socket(&nic.on_server));
    Bed { wire, tap, nic, count: 0, _programs: programs, lab }
}

impl Bed {
    /// True if this frame, sent by a host on the LAN, comes out of the server's tap.
    fn reaches_server(&mut self, frame: &[u8]) -> bool {
        let behind = self.behind(STRANGER);
        crosses(&mut self.wire, &mut self.tap, frame, &behind)
    }

    /// True if this frame, sent from the server's tap, comes out on the LAN.
    fn reaches_lan(&mut self, frame: &[u8]) -> bool {
        let behind = self.behind(self.nic.mac);
        crosses(&mut self.tap, &mut self.wire, frame, &behind)
    }

    fn behind(&mut self, source: [u8; 6]) -> Vec<u8> {
        self.count += 1;
        ethernet(BROADCAST, source, 0x88b5, format!("behind {}", self.count).as_bytes())
    }
}

fn crosses(from: &mut PacketSocket, to: &mut PacketSocket, frame: &[u8], behind: &[u8]) -> bool {
    drain(to);
    from.send(frame).unwrap();
    from.send(behind).unwrap();
    let either = first(to, SOON, |p| !p.outgoing && (p.bytes == frame || p.bytes == behind));
    either.expect("not even the frame behind it crossed").bytes == frame
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 77);

#[test]
fn what_the_lan_may_send_crosses() {
    needs_root!();
    let mut bed = bed("", "");
    let nic = bed.nic.clone();
    assert!(bed.reaches_server(&ethernet(nic.mac, STRANGER, 0x88b5, b"to the NIC")));
    assert!(bed.reaches_server(&ethernet(BROADCAST, STRANGER, 0x88b5, b"to all")));
    assert!(bed.reaches_server(&ethernet([1, 0, 0x5e, 0, 0, 0xfb], STRANGER, 0x88b5, b"to some")));
    assert!(bed.reaches_server(&arp_request(STRANGER, HOST, nic.ipv4())));
    assert!(bed.reaches_server(&tagged(&ethernet(nic.mac, STRANGER, 0x88b5, b"tagged"), 9)));
    assert!(bed.reaches_server(&ethernet(nic.mac, STRANGER, 0x88b5, &[1; 1500])));
}

#[test]
fn what_the_server_may_send_crosses() {
    needs_root!();
    let mut bed = bed("", "");
    let nic = bed.nic.clone();
    assert!(bed.reaches_lan(&ethernet(STRANGER, nic.mac, 0x88b5, b"to a host")));
    assert!(bed.reaches_lan(&ethernet(BROADCAST, nic.mac, 0x88b5, b"to all")));
    assert!(bed.reaches_lan(&arp(2, (nic.mac, STRANGER), (nic.mac, nic.ipv4()), HOST)));
    assert!(bed.reaches_lan(&neighbour_advertisement((BROADCAST, nic.mac), nic.ipv6(), nic.mac)));
    assert!(bed.reaches_lan(&ethernet(STRANGER, nic.mac, 0x88b5, &[1; 1500])));
}

/// The MAC part, on one end at a time: the other end has it lifted.
fn one_end_at_a_time(test: impl Fn(Bed) + Sync) {
    std::thread::scope(|scope| {
        for (on_client, on_server) in [("bridge = true", ""), ("", "bridge = true")] {
            let test = &test;
            scope.spawn(move || test(bed(on_client, on_server)));
        }
    });
}

#[test]
fn a_frame_from_the_nics_own_mac_does_not_loop_to_the_server() {
    needs_root!();
    one_end_at_a_time(|mut bed| {
        assert!(!bed.reaches_server(&ethernet(BROADCAST, bed.nic.mac, 0x88b5, b"from itself")));
    });
}

#[test]
fn a_frame_from_a_group_address_does_not_reach_the_server() {
    needs_root!();
    one_end_at_a_time(|mut bed| {
        assert!(!bed.reaches_server(&ethernet(BROADCAST, [3, 0, 0, 0, 0, 1], 0x88b5, b"from a group")));
    });
}

#[test]
fn a_frame_to_another_host_does_not_reach_the_server() {
    needs_root!();
    let mut bed = bridged_bed();
    let other = [2, 0, 0, 0, 0, 9];
    assert!(!bed.reaches_server(&ethernet(other, STRANGER, 0x88b5, b"to another")));
    let mac = bed.nic.mac;
    assert!(bed.reaches_server(&ethernet(mac, STRANGER, 0x88b5, b"to the NIC")));
}

#[test]
fn a_host_that_claims_the_servers_address_is_not_heard() {
    needs_root!();
    let mut bed = bed("", "");
    let nic = bed.nic.clone();
    assert!(
        !bed.reaches_server(&arp(1, (STRANGER, BROADCAST), (STRANGER, nic.ipv4()), nic.ipv4())),
        "announced"
    );
    assert!(
        !bed.reaches_server(&arp(2, (STRANGER, nic.mac), (STRANGER, nic.ipv4()), nic.ipv4())),
        "answered"
    );
    let all = [0x33, 0x33, 0, 0, 0, 1];
    assert!(
        !bed.reaches_server(&neighbour_advertisement((all, STRANGER), nic.ipv6(), STRANGER)),
        "advertised"
    );
}

#[test]
fn a_frame_longer_than_the_nics_mtu_does_not_cross() {
    needs_root!();
    let mut bed = bed("mtu = 1280", "mtu = 1280");
    let nic = bed.nic.clone();
    assert!(bed.reaches_server(&ethernet(nic.mac, STRANGER, 0x88b5, &[1; 1280])));
    assert!(!bed.reaches_server(&ethernet(nic.mac, STRANGER, 0x88b5, &[1; 1281])));
    assert!(!bed.reaches_server(&ethernet(nic.mac, STRANGER, 0x88b5, &[1; 1500])));
}

#[test]
fn the_tunnels_own_datagrams_do_not_go_into_the_tunnel() {
    needs_root!();
    let mut bed = bed("", "");
    let mac = bed.nic.mac;
    let (client, server) = ([172, 31, 0, 2].into(), [172, 31, 0, 1].into());
    let datagram = |from, to, ports| udp4((mac, STRANGER), (from, to), ports, &[5, 1, 2, 0, 9, 9, 9, 9]);
    assert!(
        bed.reaches_server(&datagram(HOST, [10, 80, 0, 100].into(), (PORT, PORT))),
        "others may use the port"
    );
    let wan = bed.lab.sites[0].client.exec(&["ss", "-Huna"]);
    let port: u16 = wan
        .split_whitespace()
        .filter_map(|word| word.rsplit_once(':'))
        .find_map(|(_, port)| port.parse().ok())
        .expect("the client has a UDP socket");
    assert!(!bed.reaches_server(&datagram(client, server, (port, PORT))), "from client to server");
    assert!(!bed.reaches_server(&datagram(server, client, (PORT, port))), "from server to client");
}

#[test]
fn the_server_cannot_send_from_another_mac() {
    needs_root!();
    one_end_at_a_time(|mut bed| {
        assert!(!bed.reaches_lan(&ethernet(BROADCAST, STRANGER, 0x88b5, b"as another")));
        assert!(!bed.reaches_lan(&ethernet(STRANGER, [2, 0, 0, 0, 0, 9], 0x88b5, b"as another")));
    });
}

#[test]
fn a_bridging_nic_may_stand_for_other_macs() {
    needs_root!();
    let mut bed = bed("bridge = true", "bridge = true");
    assert!(bed.reaches_lan(&ethernet(BROADCAST, [2, 0, 0, 0, 0, 9], 0x88b5, b"for another")));
}

#[test]
fn the_server_cannot_claim_a_lan_hosts_address() {
    needs_root!();
    let mut bed = bed("", "");
    let nic = bed.nic.clone();
    assert!(!bed.reaches_lan(&arp(2, (nic.mac, STRANGER), (nic.mac, HOST), HOST)), "its address");
    assert!(!bed.reaches_lan(&arp(1, (nic.mac, BROADCAST), (nic.mac, HOST), HOST)), "announced");
    assert!(!bed.reaches_lan(&arp(2, (nic.mac, STRANGER), (STRANGER, nic.ipv4()), HOST)), "for another MAC");
    let host = "fd00:80::2".parse().unwrap();
    assert!(!bed.reaches_lan(&neighbour_advertisement((BROADCAST, nic.mac), host, nic.mac)), "advertised");
}

#[test]
fn the_server_cannot_speak_to_the_lans_switches() {
    needs_root!();
    let mut bed = bed("", "");
    let mac = bed.nic.mac;
    for last in [0, 1, 2, 3, 0xe, 0xf] {
        let group = [1, 0x80, 0xc2, 0, 0, last];
        assert!(!bed.reaches_lan(&ethernet(group, mac, 0x88b5, b"to a switch")), "{group:02x?}");
    }
}

#[test]
fn the_server_cannot_send_tagged_frames_unless_told_so() {
    needs_root!();
    let mut bed = bed("", "");
    let mac = bed.nic.mac;
    assert!(!bed.reaches_lan(&tagged(&ethernet(STRANGER, mac, 0x88b5, b"tagged"), 7)));
}

#[test]
fn a_strict_nic_has_one_address_and_is_neither_dhcp_server_nor_router() {
    needs_root!();
    let frames = |nic: &Nic| {
        let macs = (STRANGER, nic.mac);
        let ra = router_advertisement((BROADCAST, nic.mac), link_local(nic.mac));
        [
            udp4(macs, (HOST, [10, 80, 0, 2].into()), (5, 6), b"from another address"),
            udp4(macs, (nic.ipv4(), [255; 4].into()), (67, 68), b"a lease"),
            ra,
        ]
    };
    let mut plain = bed("", "");
    for frame in frames(&plain.nic) {
        assert!(plain.reaches_lan(&frame), "{frame:02x?}");
    }
    let mut strict = bed("strict = true", "strict = true");
    for frame in frames(&strict.nic) {
        assert!(!strict.reaches_lan(&frame), "{frame:02x?}");
    }
    let nic = strict.nic.clone();
    assert!(strict.reaches_lan(&udp4((STRANGER, nic.mac), (nic.ipv4(), HOST), (5, 6), b"its own")));
}

#[test]
fn broadcasts_have_a_budget_in_both_directions() {
    needs_root!();
    let mut bed = bed("broadcast_pps = 50", "broadcast_pps = 50");
    let nic = bed.nic.clone();
    for outward in [false, true] {
        let source = if outward { nic.mac } else { STRANGER };
        let (from, to) = if outward { (&bed.tap, &mut bed.wire) } else { (&bed.wire, &mut bed.tap) };
        drain(to);
        let began = Instant::now();
        for _ in 0..1000 {
            from.send(&ethernet(BROADCAST, source, 0x88b5, b"a storm")).unwrap();
        }
        let mine = |p: &tap_rs::sys::packet::Packet| {
            !p.outgoing && p.bytes[6..14] == [&source[..], &[0x88, 0xb5]].concat()
        };
        let (mut arrived, pause) = (0, Duration::from_millis(500));
        while first(to, if arrived == 0 { SOON } else { pause }, mine).is_some() {
            arrived += 1;
        }
        // Unicast is not in the budget. All that crosses of the storm does so before it.
        let frame = ethernet(if outward { STRANGER } else { nic.mac }, source, 0x88b5, b"to one");
        from.send(&frame).unwrap();
        while first(to, SOON, mine).expect("unicast is not in the budget").bytes != frame {
            arrived += 1;
        }
        // 50 at once, and 50 more in each second that it took, which are few where nobody else is busy.
        let most = 200 + 50 * usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!((20..=most).contains(&arrived), "{arrived} of 1000, outward: {outward}");
    }
}

#[test]
fn tags_pass_for_a_nic_from_the_server_where_both_sides_let_them() {
    needs_root!();
    for (on_server, limits, passes) in
        [("vlan = true", "vlan = true", true), ("vlan = true", "", false), ("", "vlan = true", false)]
    {
        let lab = Lab::new();
        let server = Edit { nic: on_server.into(), ..Edit::default() };
        let client = Edit { remote: true, server: format!("[limits]\n{limits}"), ..Edit::default() };
        let programs = lab.up(&server, &client);
        let mut bed = stand(lab, programs);
        let frame = tagged(&ethernet(STRANGER, bed.nic.mac, 0x88b5, b"tagged"), 9);
        assert_eq!(bed.reaches_lan(&frame), passes, "server {on_server:?}, client {limits:?}");
    }
}
