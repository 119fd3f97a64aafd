//! A NIC that is held back until its addresses are known to be free.

use super::*;
use crate::types::MacAddr;
use crate::wire::announce::announcement;
use crate::wire::sample::{HOST, NIC4};

#[test]
fn nothing_passes_either_way_until_it_is_let_go() {
    let (client, server) = End::pair();
    client.do_(Command::Hold { key: QUEUE, on: true });
    client.put(VnetHeader::default(), &sample::udp_frame(false, 10));
    server.put(VnetHeader::default(), &outbound(10));
    client.await_that("both drops", |c| c.nic.drops.of(DropReason::NotLive) == 2);
    client.do_(Command::Hold { key: QUEUE, on: false });
    client.put(VnetHeader::default(), &sample::udp_frame(false, 11));
    assert_eq!(server.take().1, sample::udp_frame(false, 11));
    server.put(VnetHeader::default(), &outbound(12));
    assert_eq!(client.take().1, outbound(12));
}

#[test]
fn a_claim_is_told_once_for_each_time_that_it_is_held() {
    let mut client = End::new(Side::Client, Offloads::NONE);
    let claim = announcement(HOST, NIC4.into());
    let hold = || Command::Hold { key: QUEUE, on: true };
    for held in 1..=2 {
        client.do_(hold());
        for n in 1..=3 {
            client.put(VnetHeader::default(), &claim);
            let dropped = (held - 1) * 3 + n;
            client.await_that("the drop", |c| c.nic.drops.of(DropReason::NotLive) == dropped);
        }
        let Notice::Claimed { key, ip, mac } = client.notice() else { panic!("another notice") };
        assert_eq!((key, ip, mac), (QUEUE, NIC4.into(), HOST));
        assert!(client.notices.try_recv().is_err());
    }
    client.do_(Command::Hold { key: QUEUE, on: false });
    client.put(VnetHeader::default(), &announcement(MacAddr([2, 0, 0, 0, 0, 5]), NIC4.into()));
    client.await_that("the drop", |c| c.nic.drops.of(DropReason::SpoofedArp) == 1);
    assert!(client.notices.try_recv().is_err(), "not when it is live");
}
