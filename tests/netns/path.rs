//! Paths that carry less than their first link: found without ICMP, without one fragment, and noticed when they shrink
//! and when they grow.

use std::net::UdpSocket;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::common::capture::Capture;
use crate::common::lab::{Lab, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::program::Program;
use crate::common::traces::until;
use crate::common::traffic::{SetAtEnd, tcp, udp_echo};
use crate::common::watch::Watch;
use crate::needs_root;
use crate::status::status;

const MB: usize = 1_000_000;

/// What bulk may take that never stalls.
const SECONDS: Duration = Duration::from_secs(10);

/// The router drops what is longer than 1280 bytes, and says nothing.
fn black_hole(router: &Ns) {
    router.exec(&["nft", "add table inet hole"]);
    router.exec(&["nft", "add chain inet hole forward { type filter hook forward priority 0; }"]);
    router.exec(&["nft", "add rule inet hole forward meta length > 1280 drop"]);
}

/// The next link has an MTU of 1280, and nobody hears of it.
fn narrow_link_without_icmp(lab: &Lab) {
    let site = &lab.sites[0];
    let router = site.router.as_ref().unwrap();
    // A veth takes no more than its own MTU: the other end shrinks, too, after it has been asked for the MTU.
    router.ip("link set out mtu 1280");
    router.ip("link set in mtu 1280");
    for ns in [&site.client, &lab.server, router] {
        ns.exec(&["nft", "add table ip deaf"]);
        ns.exec(&["nft", "add chain ip deaf in { type filter hook input priority 0; }"]);
        ns.exec(&["nft", "add chain ip deaf out { type filter hook output priority 0; }"]);
        for chain in ["in", "out"] {
            ns.exec(&["nft", &format!("add rule ip deaf {chain} icmp type destination-unreachable drop")]);
        }
    }
}

/// Bulk both ways within seconds, over a LAN of this MTU, and whole packets only on the underlay.
fn crosses(lan_mtu: u16, shrink: impl FnOnce(&Lab)) {
    let lab = Lab::plan().router().lan_mtu(lan_mtu).no_udp_offload().build();
    shrink(&lab);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let router = site.router.as_ref().unwrap();
    let captures = [Capture::on(&lab.server, "wan0"), Capture::on(&site.client, "wan0")];
    let far_side = [Capture::on(router, "in"), Capture::on(router, "out")];
    let (server, client) = lab.up_plain();
    let watch = Watch::start(&[&server, &client]);
    udp_echo(&site.lan, &lab.server, nic.ip, usize::from(lan_mtu) - 28);
    tcp(&site.lan, &lab.server, nic.ip, 2 * MB, 2 * MB);
    tcp(&lab.server, &site.lan, site.host(), 2 * MB, 2 * MB);
    watch.assert_within(SECONDS, "bulk both ways", &[&server, &client]);
    for capture in captures {
        capture.finish().assert_whole();
    }
    for capture in far_side {
        let seen = capture.finish();
        seen.assert_whole();
        let bulk = seen.packets.iter().filter(|p| p.outgoing && p.bytes.len() > 1000).count();
        assert!(bulk > 1000, "only {bulk} packets of some length were passed on");
        let longest = seen.packets.iter().filter(|p| p.outgoing).map(|p| p.bytes.len()).max();
        assert!(longest <= Some(1280 + 14), "the router passed on {longest:?} bytes");
    }
}

#[test]
fn a_narrow_link_is_found_without_icmp_for_lans_of_every_mtu() {
    needs_root!();
    for lan_mtu in [1400, 1500, 9000] {
        crosses(lan_mtu, narrow_link_without_icmp);
    }
}

#[test]
fn a_path_that_swallows_long_packets_carries_bulk_from_the_start() {
    needs_root!();
    crosses(1500, |lab| black_hole(lab.sites[0].router.as_ref().unwrap()));
}

/// Sends full frames one way, some milliseconds apart, until told to stop; notes when the last one arrived first.
fn one_way(from: &Ns, to: &Ns, address: std::net::IpAddr, stop: &AtomicBool, arrivals: &Mutex<Vec<Instant>>) {
    let there = to.inside(|| UdpSocket::bind((address, 0)).unwrap());
    there.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let here = from.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    here.connect(there.local_addr().unwrap()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while !stop.load(Relaxed) {
                if let Ok(1472) = there.recv(&mut buffer) {
                    arrivals.lock().unwrap().push(Instant::now());
                }
            }
        });
        while !stop.load(Relaxed) {
            let _ = here.send(&[0x5a; 1472]);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

/// What was under way when a path changed is past it by then.
const UNDER_WAY: Duration = Duration::from_millis(100);

#[test]
fn a_path_that_begins_to_swallow_long_packets_under_load_carries_them_again_within_2_seconds() {
    needs_root!();
    let lab = Lab::plan().router().no_udp_offload().build();
    let (server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    let capture = Capture::on(site.router.as_ref().unwrap(), "in");
    let (stop, up, down) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
    let (hole, starved) = std::thread::scope(|scope| {
        let _end = SetAtEnd(&stop);
        scope.spawn(|| one_way(&site.lan, &lab.server, nic.ip, &stop, &up));
        scope.spawn(|| one_way(&lab.server, &site.lan, site.host(), &stop, &down));
        until("there is load", SOON, || [&up, &down].iter().all(|a| a.lock().unwrap().len() > 200));
        let watch = Watch::start(&[&server, &client]);
        black_hole(site.router.as_ref().unwrap());
        let hole = Instant::now();
        let past = hole + UNDER_WAY;
        let again = |a: &Mutex<Vec<Instant>>| a.lock().unwrap().last().is_some_and(|t| *t > past);
        until("frames cross again", SOON, || again(&up) && again(&down));
        (hole, hole.elapsed().saturating_sub(watch.own(&[&server, &client])))
    });
    let seen = capture.finish();
    for (way, arrivals, passed_on) in [("up", up, false), ("down", down, true)] {
        let long = seen.packets.iter().filter(|p| p.outgoing == passed_on && p.bytes.len() > 1400).count();
        assert!(long > 100, "{way}: only {long} long packets before the path shrank");
        let arrivals = arrivals.into_inner().unwrap();
        assert!(arrivals.iter().filter(|t| **t < hole).count() > 100, "{way}: there was no load");
        let again = *arrivals.iter().find(|t| **t > hole + UNDER_WAY).unwrap() - hole;
        println!(
            "{way}: frames cross again after {again:?}, of which no processor was to be had for {starved:?}"
        );
        assert!(again < Duration::from_millis(2300) + starved, "{way}: again after {again:?}");
    }
    assert_eq!(client.count(&[SESSION]), 1, "the session outlived it");
}

/// How a path comes to carry no more than 1280 bytes.
#[derive(Clone, Copy, Debug)]
enum Narrow {
    Silently,
    ByIcmp,
}

/// A path between client and server whose router can be made narrow and wide.
struct Passage<'a> {
    lab: &'a Lab,
    router: &'a Ns,
    /// Bytes of IP and UDP headers.
    headers: u64,
}

impl Passage<'_> {
    fn narrow(&self, how: Narrow) {
        match how {
            Narrow::Silently => black_hole(self.router),
            Narrow::ByIcmp => self.route("mtu lock 1280"),
        }
    }

    fn widen(&self, how: Narrow) {
        match how {
            Narrow::Silently => drop(self.router.exec(&["nft", "delete table inet hole"])),
            Narrow::ByIcmp => self.route("mtu 1500"),
        }
    }

    /// What the router's routes say of MTUs.
    fn route(&self, mtu: &str) {
        for (link, net) in [("in", 30), ("out", 31)] {
            let host = if link == "in" { 1 } else { 2 };
            self.router.ip(&match self.lab.plan.is_ipv6() {
                false => format!(
                    "route replace 172.{net}.0.0/24 dev {link} proto kernel scope link src 172.{net}.0.{host} {mtu}"
                ),
                true => format!("-6 route replace fd{net}:0::/64 dev {link} proto kernel metric 256 {mtu}"),
            });
        }
    }

    /// The client gets another address: it may be at another place.
    fn move_client(&self) {
        let client = &self.lab.sites[0].client;
        match self.lab.plan.is_ipv6() {
            false => {
                client.sysctl("net.ipv4.conf.all.promote_secondaries", 1);
                client.ip("addr add 172.30.0.3/24 dev wan0");
                client.ip("addr del 172.30.0.2/24 dev wan0");
            }
            true => {
                client.ip("-6 addr add fd30:0::3/64 dev wan0 nodad");
                client.ip("-6 addr del fd30:0::2/64 dev wan0");
            }
        }
    }

    /// Waits until both ends have found that the way carries packets of so many bytes, to within the search's grain.
    fn wait_until_found(&self, programs: [&Program; 2], packet: u64) {
        let payload = packet - self.headers;
        for program in programs {
            status(self.lab, program, |v| {
                let found = v["peers"][0]["datagram_bytes"].as_u64().unwrap_or(0);
                found <= payload && found + 8 > payload
            });
        }
    }
}

/// Under load both ways: the path shrinks, and frames cross again; it grows, and is used in full from when the client
/// has another address.
fn shrinks_and_grows(how: Narrow, ipv6: bool) {
    let plan = Lab::plan().router().no_udp_offload();
    let lab = if ipv6 { plan.ipv6_underlay() } else { plan }.build();
    let (server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let router = site.router.as_ref().unwrap();
    let passage = Passage { lab: &lab, router, headers: if ipv6 { 48 } else { 28 } };
    site.lan.ping(nic.ip);
    passage.wait_until_found([&server, &client], 1500);
    let (stop, up, down) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
    let arrived_since = |when: Instant, count: usize| {
        let since =
            |way: &Mutex<Vec<Instant>>| way.lock().unwrap().iter().rev().take_while(|t| **t > when).count();
        since(&up) > count && since(&down) > count
    };
    std::thread::scope(|scope| {
        let _end = SetAtEnd(&stop);
        scope.spawn(|| one_way(&site.lan, &lab.server, nic.ip, &stop, &up));
        scope.spawn(|| one_way(&lab.server, &site.lan, site.host(), &stop, &down));
        let start = Instant::now();
        until("there is load", SOON, || arrived_since(start, 100));
        passage.narrow(how);
        let (shrunk, watch) = (Instant::now(), Watch::start(&[&server, &client]));
        let past = shrunk + UNDER_WAY;
        until("full frames cross the narrow path", SOON, || arrived_since(past, 0));
        watch.assert_within(Duration::from_secs(5), "the narrow path", &[&server, &client]);
        let crossed = shrunk.elapsed();
        passage.wait_until_found([&server, &client], 1280);
        let found = shrunk.elapsed();
        passage.widen(how);
        passage.move_client();
        let grown = Instant::now();
        passage.wait_until_found([&server, &client], 1500);
        println!(
            "{how:?}, IPv6 {ipv6}: crossed after {crossed:?}, settled after {found:?}, wide after {:?}",
            grown.elapsed()
        );
        let capture = Capture::on(router, "in");
        let wide = Instant::now();
        until("full frames cross the wide path", SOON, || arrived_since(wide, 100));
        stop.store(true, Relaxed);
        let seen = capture.finish();
        seen.assert_whole();
        for outgoing in [false, true] {
            let long = seen.packets.iter().filter(|p| p.outgoing == outgoing && p.bytes.len() > 1400).count();
            assert!(long > 50, "{long} long packets, outgoing {outgoing}");
        }
    });
    assert_eq!(client.count(&[SESSION]), 1, "the session is still the first one");
}

#[test]
fn a_path_that_shrinks_and_grows_in_silence_is_used_as_it_is() {
    needs_root!();
    shrinks_and_grows(Narrow::Silently, false);
    shrinks_and_grows(Narrow::Silently, true);
}

#[test]
fn a_path_that_shrinks_and_grows_by_icmp_is_used_as_it_is() {
    needs_root!();
    shrinks_and_grows(Narrow::ByIcmp, false);
    shrinks_and_grows(Narrow::ByIcmp, true);
}
