//! Interfaces as they really are: each test has network namespaces of its own, which end with its threads.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tap_rs::nic::events::{Event, Events};
use tap_rs::nic::netlink::{MacvlanMode, Netlink, Prefix, Route, Rule};
use tap_rs::nic::sysctl::Sysctl;
use tap_rs::nic::{
    Devices, GSO_MAX_SIZE, Here, Nic, NicError, NicRequest, Queue, Side, Traces, VNET_HEADER_LEN, abandon,
    open, open_with,
};
use tap_rs::sys::netlink::NetlinkSocket;
use tap_rs::sys::poll::{self, Epoll, Interest};
use tap_rs::sys::udp::{RecvBatch, UdpSocket, path_mtu_hint};
use tap_rs::sys::{process, tun};
use tap_rs::types::{
    MacAddr, Mtu, NetnsName, NicMode, NicName, NicSpec, NicStack, OffloadMode, Path as UdpPath,
};

/// A network namespace; it lives as long as this or a thread in it.
struct Netns(File);

impl Netns {
    fn new() -> Self {
        let open = || {
            process::new_netns().unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Self(thread::spawn(open).join().unwrap())
    }

    /// Runs `job` in it, with a `/sys` that shows it.
    fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(|| self.enter_and(job)).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn enter_and<T>(&self, job: impl FnOnce() -> T) -> T {
        process::enter_netns(&self.0).unwrap();
        process::new_mounts().unwrap();
        process::mount_sysfs(Path::new("/sys")).unwrap();
        job()
    }
}

/// Namespaces for one test; `None` without the rights to make them.
fn netns<const N: usize>() -> Option<[Netns; N]> {
    if process::is_root() {
        return Some(std::array::from_fn(|_| Netns::new()));
    }
    skipped("needs root");
    None
}

fn name(s: &str) -> NicName {
    s.parse().unwrap()
}

const MAC: MacAddr = MacAddr([0xbe, 0x17, 0xdd, 0x5c, 0x07, 0x17]);

fn request(nic: &str, mode: NicMode, side: Side) -> NicRequest {
    let addrs = ["10.9.0.2/24", "fd09::2/64"].map(|a| a.parse().unwrap()).to_vec();
    NicRequest {
        spec: NicSpec { name: name(nic), mac: MAC, addrs, mtu: Mtu::DEFAULT },
        mode,
        parent: (mode == NicMode::Macvtap).then(|| name("eth0")),
        side,
        configure: true,
        offload: OffloadMode::Auto,
        stack: NicStack::default(),
    }
}

fn client_macvtap() -> NicRequest {
    request("mv0", NicMode::Macvtap, Side::Client)
}

fn server_tap() -> NicRequest {
    request("tap0", NicMode::Tap, Side::Server)
}

/// `eth0` here, up, and its other end `lan0` in `lan`, up with 10.9.0.1 and fd09::1.
fn cable_to(lan: &Netns) -> Netlink {
    let mut nl = Netlink::open().unwrap();
    nl.create_veth(&name("eth0"), &name("lan0"), Some(lan.0.as_fd())).unwrap();
    nl.set_up("eth0", true).unwrap();
    lan.run(|| {
        let mut nl = Netlink::open().unwrap();
        let lan0 = nl.link("lan0").unwrap().unwrap().index;
        nl.add_address(lan0, "10.9.0.1".parse().unwrap(), 24).unwrap();
        nl.add_address(lan0, "fd09::1".parse().unwrap(), 64).unwrap();
        nl.set_up(lan0, true).unwrap();
    });
    nl
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        thread::sleep(Duration::from_millis(2));
    }
}

fn refusal(request: &NicRequest) -> String {
    open(request, 1).map(drop).unwrap_err().to_string()
}

#[test]
fn a_clients_macvtap_stands_in_without_an_address() {
    let Some([client, lan]) = netns() else { return };
    client.run(|| {
        let mut nl = cable_to(&lan);
        let (mut nic, queues) = open(&client_macvtap(), 1).unwrap();
        assert_eq!((queues.len(), nic.is_created(), nic.mac()), (1, true, MAC));
        assert!(nic.offloads().checksum() && nic.offloads().tcp(), "{}", nic.offloads());
        let link = nl.link("mv0").unwrap().unwrap();
        assert_eq!((link.kind.as_deref(), link.mac, link.mtu), (Some("macvtap"), Some(MAC), 1500));
        assert!(!link.is_up() && link.is_all_multicast());
        nic.set_up(true).unwrap();
        until("up", || nl.link("mv0").unwrap().unwrap().has_carrier());
        assert_eq!(nl.addresses(nic.index()).unwrap(), []);
        let switch = std::fs::read_to_string("/proc/sys/net/ipv6/conf/mv0/disable_ipv6").unwrap();
        assert_eq!(switch, "1\n");
        drop(queues);
        nic.close();
        assert_eq!(nl.link("mv0").unwrap(), None);
        assert!(nl.link("eth0").unwrap().is_some());
    });
}

#[test]
fn a_macvtap_that_was_there_is_found_and_left_as_it_was() {
    let Some([client, lan]) = netns() else { return };
    client.run(|| {
        let mut nl = cable_to(&lan);
        let eth0 = nl.link("eth0").unwrap().unwrap().index;
        let own = MacAddr([2, 0, 0, 0, 0, 9]);
        nl.create_macvtap(&name("mv0"), eth0, MacvlanMode::Bridge, Some(own)).unwrap();
        let before = nl.link("mv0").unwrap().unwrap();
        let mut request = client_macvtap();
        request.parent = None;
        request.spec.mtu = Mtu::try_from(1400).unwrap();
        let (nic, _queues) = open(&request, 2).unwrap();
        let during = nl.link("mv0").unwrap().unwrap();
        assert_eq!((during.mac, during.mtu, during.is_all_multicast()), (Some(MAC), 1400, true));
        assert_eq!((during.gso_max_size, nic.is_created()), (GSO_MAX_SIZE, false));
        drop(nic);
        assert_eq!(nl.link("mv0").unwrap().unwrap(), before);
        let switch = std::fs::read_to_string("/proc/sys/net/ipv6/conf/mv0/disable_ipv6").unwrap();
        assert_eq!(switch, "0\n");
    });
}

#[test]
fn an_address_on_a_clients_macvtap_is_warned_of() {
    let Some([client, lan]) = netns() else { return };
    client.run(|| {
        let mut nl = cable_to(&lan);
        let eth0 = nl.link("eth0").unwrap().unwrap().index;
        nl.create_macvtap(&name("mv0"), eth0, MacvlanMode::Bridge, None).unwrap();
        let mv0 = nl.link("mv0").unwrap().unwrap().index;
        nl.add_address(mv0, "10.9.0.2".parse().unwrap(), 24).unwrap();
        let log = Log::default();
        let (_nic, _queues) = log.of(|| open(&client_macvtap(), 1).unwrap());
        log.says("10.9.0.2/24");
        log.says("ip addr flush dev mv0");
    });
}

/// What a kill does to a client's macvtap: descriptors close, and nothing is undone.
fn leave_as_if_killed() {
    let (nic, queues) = open(&client_macvtap(), 1).unwrap();
    drop(queues);
    std::mem::forget(nic);
}

#[test]
fn what_a_killed_client_left_is_taken_over() {
    let Some([client, lan]) = netns() else { return };
    client.run(|| {
        let mut nl = cable_to(&lan);
        leave_as_if_killed();
        let (nic, _queues) = open(&client_macvtap(), 1).unwrap();
        assert!(nic.is_created());
        drop(nic);
        assert_eq!(nl.link("mv0").unwrap(), None);
    });
}

/// The keeper of a killed process removes what that one has left, just when it has been found, or later, when it is open.
struct Vanishing {
    later: bool,
    done: AtomicBool,
}

impl Devices for Vanishing {
    fn tun(&self, netns: Option<&NetnsName>) -> std::io::Result<File> {
        Here.tun(netns)
    }

    fn netlink(&self, netns: &NetnsName) -> std::io::Result<NetlinkSocket> {
        Here.netlink(netns)
    }

    fn sysctl(&self, netns: Option<&NetnsName>, key: Sysctl, interface: &str) -> std::io::Result<File> {
        Here.sysctl(netns, key, interface)
    }

    fn macvtap(&self, name: &NicName, index: u32) -> std::io::Result<File> {
        let first = !self.done.swap(true, Relaxed);
        let opened = self.later.then(|| Here.macvtap(name, index));
        if first {
            Netlink::open().unwrap().delete_link(index).unwrap();
        }
        opened.unwrap_or_else(|| Here.macvtap(name, index))
    }

    fn runs(&self, process: u32) -> bool {
        Here.runs(process)
    }
}

#[test]
fn what_is_gone_again_when_it_is_taken_over_is_made() {
    for later in [false, true] {
        let Some([client, lan]) = netns() else { return };
        client.run(|| {
            let mut nl = cable_to(&lan);
            leave_as_if_killed();
            let vanishing = Vanishing { later, done: AtomicBool::new(false) };
            let (nic, _queues) = open_with(&vanishing, &client_macvtap(), 1).unwrap();
            assert!(nic.is_created() && nl.link("mv0").unwrap().is_some());
        });
    }
}

#[test]
fn what_another_has_taken_over_is_not_abandoned() {
    let Some([client, lan]) = netns() else { return };
    client.run(|| {
        let mut nl = cable_to(&lan);
        let eth0 = nl.link("eth0").unwrap().unwrap().index;
        nl.create_macvtap(&name("mv0"), eth0, MacvlanMode::Bridge, None).unwrap();
        nl.set_up("mv0", true).unwrap();
        let index = nl.link("mv0").unwrap().unwrap().index;
        let sysctls = vec![(Sysctl::ArpIgnore, 1)];
        let traces = Traces { index, client: true, table: None, sysctls };
        let arp_ignore = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/mv0/arp_ignore").unwrap();
        for whose in ["made", "held"] {
            nl.set_alias("mv0", &format!("{whose} by tap-rs, process 7")).unwrap();
            assert_eq!(abandon(&traces, 8).unwrap(), None);
            assert!(nl.link("mv0").unwrap().is_some_and(|link| link.is_up()), "{whose}");
            assert_eq!(arp_ignore(), "0\n");
        }
        assert!(abandon(&traces, 7).unwrap().is_some(), "its own it sets down");
        assert!(!nl.link("mv0").unwrap().unwrap().is_up());
        assert_eq!(arp_ignore(), "1\n");
    });
}

#[test]
fn a_device_is_found_where_sys_and_dev_show_another_namespace() {
    let Some([one, one_lan, two, two_lan]) = netns() else { return };
    let make = |lan: &Netns, nic: &str| {
        let mut nl = cable_to(lan);
        let eth0 = nl.link("eth0").unwrap().unwrap().index;
        nl.create_macvtap(&name(nic), eth0, MacvlanMode::Bridge, None).unwrap();
        nl.link(nic).unwrap().unwrap().index
    };
    // The same number twice: /dev/tap<number> can be only one of them, and /sys is the machine's.
    assert_eq!(one.run(|| make(&one_lan, "mv1")), two.run(|| make(&two_lan, "mv2")));
    for (ns, nic) in [(&one, "mv1"), (&two, "mv2")] {
        let opened = || {
            process::enter_netns(&ns.0).unwrap();
            let mut request = client_macvtap();
            request.spec.name = name(nic);
            // Refused if the device turns out to be the other one's.
            let (_nic, queues) = open(&request, 1).unwrap();
            queues[0].is_attached()
        };
        assert!(thread::scope(|scope| scope.spawn(opened).join()).unwrap());
    }
    let ours = format!(".tap-rs-{}-", std::process::id());
    for place in ["/dev", "/run", "/tmp"] {
        until("the end of the private nodes", || {
            let names = std::fs::read_dir(place).unwrap().flatten().map(|e| e.file_name());
            !names.into_iter().any(|n| n.to_string_lossy().starts_with(&ours))
        });
    }
}

#[test]
fn a_macvtap_that_cannot_be_says_why() {
    let Some([client, lan]) = netns() else { return };
    client.run(|| {
        let mut nl = cable_to(&lan);
        let mut r = client_macvtap();
        r.spec.mtu = Mtu::try_from(9000).unwrap();
        let e = refusal(&r);
        assert!(
            e.contains("eth0, which it stands on, has 1500") && e.contains("ip link set eth0 mtu 9000"),
            "{e}"
        );
        r = client_macvtap();
        r.parent = Some(name("eth7"));
        assert!(
            refusal(&r).ends_with("eth7, on which mv0 is to be made, does not exist; there are: eth0, lo")
        );
        r.parent = None;
        assert!(refusal(&r).contains("ip link add link eth0 name mv0 type macvtap mode bridge"));
        r = client_macvtap();
        r.spec.name = name("eth0");
        assert!(refusal(&r).starts_with("eth0 is a veth interface, not a macvtap"));

        nl.create_bridge(&name("br0")).unwrap();
        let br0 = nl.link("br0").unwrap().unwrap().index;
        nl.set_master("eth0", br0).unwrap();
        assert!(refusal(&client_macvtap()).starts_with("eth0 is a port of the bridge br0"));
        nl.set_master("eth0", 0).unwrap();

        let (mut nic, _queues) = open(&client_macvtap(), 1).unwrap();
        nl.set_up("eth0", false).unwrap();
        let log = Log::default();
        log.of(|| nic.set_up(true).unwrap());
        log.says("run `ip link set eth0 up`");
        nl.set_up("eth0", true).unwrap();
        let mut twin = client_macvtap();
        twin.spec.name = name("mv1");
        let (mut twin, _queues) = open(&twin, 1).unwrap();
        let e = twin.set_up(true).unwrap_err();
        assert!(matches!(e, NicError::MacTaken(_)), "{e}");
        // Nothing that was refused has stayed.
        drop((nic, twin));
        let mut left: Vec<_> = nl.links().unwrap().into_iter().map(|l| l.name).collect();
        left.sort();
        assert_eq!(left, ["br0", "eth0", "lo"]);
    });
}

#[test]
fn a_servers_tap_is_the_host() {
    let Some([server]) = netns() else { return };
    server.run(|| {
        let mut nl = Netlink::open().unwrap();
        let (mut nic, queues) = open(&server_tap(), 1).unwrap();
        let link = nl.link("tap0").unwrap().unwrap();
        assert_eq!((link.mac, link.mtu, link.is_up()), (Some(MAC), 1500, true));
        assert_eq!((link.gso_max_size, nic.is_created()), (GSO_MAX_SIZE, true));
        let ips = |nl: &mut Netlink| {
            let all = nl.addresses(link.index).unwrap();
            let mut ips: Vec<_> =
                all.iter().filter(|a| !a.link_scope).map(|a| format!("{}/{}", a.ip, a.prefix)).collect();
            ips.sort();
            ips
        };
        assert_eq!(ips(&mut nl), ["10.9.0.2/24", "fd09::2/64"]);
        assert!(link.has_carrier());
        nic.set_carrier(false).unwrap();
        assert!(!nl.link("tap0").unwrap().unwrap().has_carrier());
        nic.set_carrier(true).unwrap();
        assert!(nl.link("tap0").unwrap().unwrap().has_carrier());
        assert!(matches!(open(&server_tap(), 1), Err(NicError::Busy(_))));
        assert!(queues[0].is_attached());
        // A worker may be late in letting go.
        nic.close();
        assert_eq!(nl.link("tap0").unwrap(), None);
        assert!(!queues[0].is_attached());
        assert!(queues[0].read_vectored(&mut [IoSliceMut::new(&mut [0; 100])]).is_err());
    });
}

#[test]
fn a_tap_that_was_there_is_found_and_left_as_it_was() {
    let Some([server]) = netns() else { return };
    server.run(|| {
        let mut nl = Netlink::open().unwrap();
        let file = tun::open(Path::new("/dev/net/tun")).unwrap();
        tun::attach_tap(&file, "tap0", false).unwrap();
        tun::set_persistent(&file, true).unwrap();
        drop(file);
        let before = nl.link("tap0").unwrap().unwrap();
        assert!(before.persistent);
        let mut bare = server_tap();
        bare.spec.addrs.push("10.9.0.3".parse().unwrap());
        let log = Log::default();
        let (nic, queues) = log.of(|| open(&bare, 1).unwrap());
        log.says("ip addr add 10.9.0.3/24 dev tap0");
        assert_eq!(nl.addresses(before.index).unwrap().iter().filter(|a| !a.link_scope).count(), 2);
        drop((nic, queues));
        let after = nl.link("tap0").unwrap().unwrap();
        assert_eq!((after.mac, after.mtu, after.is_up()), (before.mac, before.mtu, false));
        assert_eq!(after.gso_max_size, before.gso_max_size);
        assert_eq!(nl.addresses(before.index).unwrap(), []);
        let (nic, queues) = open(&bare, 2).unwrap();
        assert_eq!(queues.len(), 1, "it was made with one, and keeps it");
        drop((nic, queues));
        bare.configure = false;
        let (_nic, _queues) = open(&bare, 1).unwrap();
        let untouched = nl.link("tap0").unwrap().unwrap();
        assert_eq!((untouched.mac, untouched.mtu, untouched.is_up()), (before.mac, before.mtu, false));
    });
}

#[test]
fn a_tap_may_have_several_queues() {
    let Some([server]) = netns() else { return };
    server.run(|| {
        let (_nic, queues) = open(&server_tap(), 3).unwrap();
        assert!(queues.len() == 3 && queues.iter().all(Queue::is_attached));
        let mut wrong = server_tap();
        wrong.spec.name = name("lo");
        assert!(refusal(&wrong).starts_with("lo is a hardware interface, not a tap"));
    });
}

#[test]
fn a_clients_tap_does_not_own_the_projected_mac() {
    let Some([client]) = netns() else { return };
    client.run(|| {
        let mut nl = Netlink::open().unwrap();
        let request = request("tap0", NicMode::Tap, Side::Client);
        let (nic, queues) = open(&request, 1).unwrap();
        let link = nl.link("tap0").unwrap().unwrap();
        assert_ne!(link.mac, Some(MAC));
        assert!(!link.is_up());
        drop((nic, queues));
        let file = tun::open(Path::new("/dev/net/tun")).unwrap();
        tun::attach_tap(&file, "tap0", false).unwrap();
        tun::set_persistent(&file, true).unwrap();
        drop(file);
        nl.set_mac("tap0", MAC).unwrap();
        let (mut nic, _queues) = open(&request, 1).unwrap();
        assert_ne!(nl.link("tap0").unwrap().unwrap().mac, Some(MAC));
        nic.set_up(true).unwrap();
        until("carrier", || nl.link("tap0").unwrap().unwrap().has_carrier());
        assert_eq!(nl.addresses(nic.index()).unwrap(), []);
    });
}

#[test]
fn a_vanished_macvtap_is_told_of() {
    let Some([client, lan]) = netns() else { return };
    client.run(|| {
        let mut nl = cable_to(&lan);
        let mut events = Events::open().unwrap();
        let (mut nic, queues) = open(&client_macvtap(), 1).unwrap();
        nic.set_up(true).unwrap();
        let (index, queue) = (nic.index(), &queues[0]);
        wait_for(&mut events, |e| matches!(e, Event::LinkNew(l) if l.index == index && l.has_carrier()));
        assert!(queue.is_attached());
        nl.delete_link("mv0").unwrap();
        wait_for(&mut events, |e| *e == Event::LinkGone { index, name: "mv0".into() });
        assert!(!queue.is_attached());
        let again = queue.read_vectored(&mut [IoSliceMut::new(&mut [0; 100])]).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::WouldBlock);
        assert_eq!(nic.link().unwrap(), None);
        // A new one of that name is not the old one's to remove.
        let (_new, _queues) = open(&client_macvtap(), 1).unwrap();
        drop(nic);
        assert!(nl.link("mv0").unwrap().is_some());
    });
}

#[test]
fn addresses_and_routes_are_told_of() {
    let Some([here, lan]) = netns() else { return };
    here.run(|| {
        let mut nl = cable_to(&lan);
        let eth0 = nl.link("eth0").unwrap().unwrap().index;
        let mut events = Events::open().unwrap();
        nl.add_address(eth0, "10.9.0.7".parse().unwrap(), 24).unwrap();
        wait_for(&mut events, |e| *e == Event::AddressChanged { index: eth0 });
        nl.delete_address(eth0, "10.9.0.7".parse().unwrap(), 24).unwrap();
        wait_for(&mut events, |e| *e == Event::RouteChanged { index: Some(eth0), gone: true });
        // More than the socket's buffer holds.
        for i in 0..5000u32 {
            nl.set_mtu(eth0, 1000 + i % 2).unwrap();
        }
        wait_for(&mut events, |e| *e == Event::Overrun);
    });
}

fn wait_for(events: &mut Events, mut wanted: impl FnMut(&Event) -> bool) {
    until("the event", || {
        while let Some(event) = events.poll().unwrap() {
            if wanted(&event) {
                return true;
            }
        }
        false
    });
}

#[test]
fn routes_and_rules_come_and_go() {
    let Some([here, lan]) = netns() else { return };
    here.run(|| {
        let mut nl = cable_to(&lan);
        let eth0 = nl.link("eth0").unwrap().unwrap().index;
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        nl.add_address(eth0, ip("10.9.0.7"), 24).unwrap();
        nl.add_address(eth0, ip("fd09::7"), 64).unwrap();
        let base = Route {
            to: Prefix::ALL_V4,
            via: Some(ip("10.9.0.1")),
            interface: Some(eth0),
            table: None,
            source: Some(ip("10.9.0.7")),
            metric: None,
            ours: false,
        };
        let far = Route {
            to: Prefix { ip: ip("fd77::"), len: 32 },
            via: Some(ip("fd09::1")),
            source: None,
            table: Some(1000),
            metric: Some(1024),
            ..base
        };
        let on_link = Route { to: Prefix::host(ip("10.8.0.1")), via: None, table: Some(77), ..base };
        for route in [base, far, on_link] {
            let main = Some(route.table.unwrap_or(254));
            let stored = Route { table: main, ..route };
            nl.add_route(&route).unwrap();
            nl.add_route(&route).unwrap();
            let found = nl.routes(route.table).unwrap();
            assert_eq!(found.iter().filter(|r| **r == stored).count(), 1, "{stored:?}\n{found:#?}");
            nl.delete_route(&route).unwrap();
            assert!(!nl.routes(route.table).unwrap().contains(&stored));
            assert!(nl.delete_route(&route).unwrap_err().is_missing());
        }
        for from in [Prefix::host(ip("10.9.0.7")), Prefix { ip: ip("fd09::"), len: 64 }] {
            let rule = Rule { from, table: 1000, priority: Some(500), ours: true };
            nl.add_rule(&rule).unwrap();
            assert!(nl.rules().unwrap().contains(&rule));
            assert_eq!(nl.add_rule(&rule).unwrap_err().errno(), Some(libc::EEXIST));
            nl.delete_rule(&rule).unwrap();
            assert!(nl.delete_rule(&rule).unwrap_err().is_missing());
        }
        let e = nl.add_route(&Route { via: Some(ip("192.0.2.1")), source: None, ..base }).unwrap_err();
        assert!(e.kernel.as_deref().is_some_and(|k| k.contains("gateway")), "{e}");
    });
}

#[test]
fn links_move_between_namespaces() {
    let Some([here, there]) = netns() else { return };
    here.run(|| {
        let mut nl = Netlink::open().unwrap();
        nl.create_veth(&name("a"), &name("b"), None).unwrap();
        nl.set_tx_queue_len("a", 5).unwrap();
        nl.move_to_netns("b", there.0.as_fd()).unwrap();
        assert_eq!(nl.link("b").unwrap(), None);
        assert!(nl.link("a").unwrap().unwrap().parent_elsewhere);
        there.run(|| assert!(Netlink::open().unwrap().link("b").unwrap().is_some()));
    });
}

/// Copies frames, with their headers, between two queues until told to stop; tells the longest seen each way.
fn pump(a: &Queue, b: &Queue, stop: &AtomicBool, longest: &[AtomicUsize; 2]) {
    let epoll = Epoll::new().unwrap();
    epoll.add(a, 0, Interest::READ).unwrap();
    epoll.add(b, 1, Interest::READ).unwrap();
    let mut events = poll::Events::with_capacity(2);
    let mut room = vec![0; 70_000];
    while !stop.load(Relaxed) {
        epoll.wait(&mut events, Some(Duration::from_millis(20))).unwrap();
        for ((from, to), longest) in [(a, b), (b, a)].into_iter().zip(longest) {
            while let Ok(n) = from.read_vectored(&mut [IoSliceMut::new(&mut room)]) {
                longest.fetch_max(n, Relaxed);
                let (header, frame) = room[..n].split_at(VNET_HEADER_LEN);
                to.write_vectored(&[IoSlice::new(header), IoSlice::new(frame)]).unwrap();
            }
        }
    }
}

/// A host `lan`, a client on its cable, a server elsewhere, and the pump instead of a tunnel. Sends 2 MB each way
/// over TCP to `ip`; gives the longest reads of the client's and the server's interface.
fn transfer(ip: &str, offload: OffloadMode) -> Option<[usize; 2]> {
    let [client, lan, server] = netns()?;
    let (mut on_client, on_server): ((Nic, Vec<Queue>), (Nic, Vec<Queue>)) = (
        client.run(|| {
            cable_to(&lan);
            open(&NicRequest { offload, ..client_macvtap() }, 1).unwrap()
        }),
        server.run(|| open(&NicRequest { offload, ..server_tap() }, 1).unwrap()),
    );
    on_client.0.set_up(true).unwrap();
    let (stop, longest) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    thread::scope(|scope| {
        scope.spawn(|| pump(&on_client.1[0], &on_server.1[0], &stop, &longest));
        let listener = server.run(|| TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 7)).unwrap());
        let back = scope.spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
            (peer, all.len())
        });
        let data: Vec<u8> = (0..2_000_000u32).map(|i| (i * 7 % 253) as u8).collect();
        let echoed = lan.run(|| {
            let timeout = Duration::from_secs(20);
            let addr = (ip.parse::<IpAddr>().unwrap(), 7).into();
            let mut stream = TcpStream::connect_timeout(&addr, timeout).unwrap();
            stream.set_read_timeout(Some(timeout)).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let sent = thread::scope(|s| {
                s.spawn(|| {
                    writer.write_all(&data).unwrap();
                    writer.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                all
            });
            sent == data
        });
        stop.store(true, Relaxed);
        assert!(echoed);
        assert_eq!(back.join().unwrap().1, 2_000_000);
    });
    Some(longest.map(AtomicUsize::into_inner))
}

#[test]
fn tcp_crosses_in_super_frames_both_ways() {
    for ip in ["10.9.0.2", "fd09::2"] {
        let Some(longest) = transfer(ip, OffloadMode::Auto) else { return };
        println!("{ip}: longest reads {longest:?}");
        assert!(longest.iter().all(|n| *n > 10_000), "{ip}: {longest:?}");
        assert!(longest[1] <= GSO_MAX_SIZE as usize + VNET_HEADER_LEN + 18, "{ip}: {longest:?}");
    }
}

#[test]
fn without_offloads_no_frame_exceeds_the_mtu() {
    let Some(longest) = transfer("10.9.0.2", OffloadMode::Off) else { return };
    assert!(longest.iter().all(|n| *n <= VNET_HEADER_LEN + 1514), "{longest:?}");
}

/// Two ends of a cable with MTU 1400, each with a UDP socket on `[::]`.
fn udp_pair(run: impl FnOnce(&UdpSocket, &UdpSocket) + Send) {
    let Some([here, lan]) = netns() else { return };
    here.run(|| {
        let mut nl = cable_to(&lan);
        let eth0 = nl.link("eth0").unwrap().unwrap().index;
        nl.set_mtu(eth0, 1400).unwrap();
        for ip in ["10.9.0.5", "10.9.0.6"] {
            nl.add_address(eth0, ip.parse().unwrap(), 24).unwrap();
        }
        for ip in ["fd09::5", "fd09::6"] {
            nl.add_address(eth0, ip.parse().unwrap(), 64).unwrap();
        }
        let bind = || UdpSocket::bind("[::]:5000".parse().unwrap(), false).unwrap();
        run(&bind(), &lan.run(bind));
    });
}

fn path(remote: &str, local: Option<&str>) -> UdpPath {
    UdpPath::new(remote.parse().unwrap(), local.map(|l| l.parse().unwrap()))
}

#[test]
fn trains_of_datagrams_cross_a_cable_from_the_address_asked_for() {
    udp_pair(|here, lan| {
        for (from, to) in [("10.9.0.6", "10.9.0.1"), ("fd09::6", "fd09::1")] {
            let (from_ip, to_ip): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let out = UdpPath::new((to_ip, 5000).into(), Some(from_ip));
            here.send_segments(&out, &[5; 13 * 1300 + 9], 1300).unwrap();
            let mut batch = RecvBatch::new(4);
            until("a train", || batch.recv(lan, 4).unwrap() > 0);
            let train = batch.slot(0).unwrap();
            assert_eq!(train.path, UdpPath::new((from_ip, 5000).into(), Some(to_ip)));
            assert_eq!((train.segment, train.bytes.len()), (1300, 13 * 1300 + 9));
            assert_eq!(train.bytes.chunks(train.segment).count(), 14);
        }
    });
}

#[test]
fn a_datagram_larger_than_the_mtu_is_refused_not_fragmented() {
    udp_pair(|here, _lan| {
        for (to, headers) in [("10.9.0.1:5000", 28), ("[fd09::1]:5000", 48)] {
            let out = path(to, None);
            assert_eq!(path_mtu_hint(&out), Some(1400));
            let fits = 1400 - headers;
            here.send_segments(&out, &vec![0; fits], 2000).unwrap();
            let e = here.send_segments(&out, &vec![0; fits + 1], 2000).unwrap_err();
            assert_eq!(e.raw_os_error(), Some(libc::EMSGSIZE), "{to}");
            here.send_segments(&out, &vec![0; fits * 3], fits).unwrap();
            let e = here.send_segments(&out, &vec![0; fits * 3], fits + 1).unwrap_err();
            assert!(matches!(e.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL)), "{to}: {e}");
        }
        assert_eq!(path_mtu_hint(&path("192.0.2.1:9", None)), None);
    });
}

/// What is logged while something runs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn of<T>(&self, job: impl FnOnce() -> T) -> T {
        let to = self.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).finish();
        tracing::subscriber::with_default(log, job)
    }

    fn says(&self, text: &str) {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains(text), "{log}");
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Not by `println!`, which the test harness keeps to itself where a test passes.
fn skipped(why: &str) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED ({why}): {name}\n").as_bytes())
        .unwrap();
}
