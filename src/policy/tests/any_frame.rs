//! What holds for all frames.

use super::*;
use crate::wire::record::Gso;
use proptest::prelude::*;
use std::time::Duration;

fn rules() -> impl Strategy<Value = NicRules> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 0u32..20)
        .prop_map(|(bridge, vlan, strict, broadcast_pps)| NicRules { bridge, vlan, strict, broadcast_pps })
}

fn offload() -> impl Strategy<Value = Offload> {
    let gso = prop_oneof![
        4 => Just(None),
        1 => any::<u16>().prop_map(|n| Some(Gso::Tcp(n))),
        1 => any::<u16>().prop_map(|n| Some(Gso::Udp(n)))
    ];
    (any::<bool>(), gso).prop_map(|(needs_checksum, gso)| Offload { needs_checksum, gso })
}

/// Frames near the rules' edges: real ones with a few bytes changed and an odd end, and noise.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let real = (0usize..10, any::<bool>()).prop_map(|(n, v6)| match n {
        0 => tcp_frame(v6, 2000),
        1 => udp_frame(v6, 100),
        2 => to_nic(true, 58, &nd(135, NIC6, &[&lla(1, HOST)])),
        3 => from_nic(NIC6, 58, &nd(136, NIC6, &[&lla(2, NIC)])),
        4 => ether(MacAddr::BROADCAST, HOST, &[], 0x0806, &arp_packet(1, HOST, HOST4, NIC4)),
        5 => ether(HOST, NIC, &[(0x8100, 7)], 0x0806, &arp_packet(2, NIC, NIC4, HOST4)),
        6 => from_nic(NIC4, 17, &udp(68, 67, b"x")),
        7 => to_nic(true, 60, &[&[58, 0, 1, 4, 0, 0, 0, 0][..], &nd(136, HOST6, &[])].concat()),
        8 => to_nic(true, 44, &[&[58, 0, 0, 1, 0, 0, 0, 9][..], &[136; 40]].concat()),
        _ => opaque(ALL_NODES, if v6 { HOST } else { NIC }, &[(0x88a8, 0), (0x8100, 1)], 60),
    });
    let changes = prop::collection::vec((0usize..120, any::<u8>()), 0..4);
    let bent = (real, changes, 0usize..200, any::<bool>()).prop_map(|(mut f, changes, cut, whole)| {
        for (at, byte) in changes {
            if let Some(b) = f.get_mut(at) {
                *b = byte;
            }
        }
        if !whole {
            f.truncate(cut);
        }
        f
    });
    prop_oneof![4 => bent, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_one_end_lets_pass_the_other_does(
        rules in rules(), frames in prop::collection::vec((frame(), offload(), 0u64..300), 1..20),
    ) {
        let mut near = contract(rules);
        near.set_tunnel(Some(("18.8.80.9:4000".parse().unwrap(), "18.8.80.150:5001".parse().unwrap())));
        let mut far = near.clone();
        let mut now = Instant::now();
        for (frame, offload, ms) in frames {
            now += Duration::from_millis(ms);
            if near.lan_to_host(now, &frame, frame.len(), offload).is_ok() {
                prop_assert_eq!(far.lan_to_host(now, &frame, frame.len(), offload), Ok(()));
            }
            if near.host_to_lan(now, &frame, frame.len(), offload).is_ok() {
                prop_assert_eq!(far.host_to_lan(now, &frame, frame.len(), offload), Ok(()));
            }
            let _ = near.reply_arp(&frame);
        }
    }

    #[test]
    fn without_bridge_no_frame_passes_both_ways(frame in frame()) {
        let c = contract(NicRules { vlan: true, ..plain() });
        let pass = |r: Result<(), DropReason>| r.is_ok();
        let (len, now) = (frame.len(), Instant::now());
        let up = pass(c.clone().lan_to_host(now, &frame, len, Offload::default()));
        let down = pass(c.clone().host_to_lan(now, &frame, len, Offload::default()));
        prop_assert!(!(up && down), "a loop could not be told from traffic");
    }

    #[test]
    fn a_head_of_a_longer_frame_never_panics(frame in frame(), more in 0usize..70_000, offload in offload()) {
        let mut c = contract(NicRules { strict: true, ..plain() });
        let _ = c.lan_to_host(Instant::now(), &frame, frame.len() + more, offload);
        let _ = c.host_to_lan(Instant::now(), &frame, frame.len() + more, offload);
    }
}
