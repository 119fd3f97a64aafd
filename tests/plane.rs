//! The data path between real interfaces, with fixed keys and no control plane.
//!
//! ```text
//! lan            client                        server
//! lan0 ── veth ── eth0 ── mv0 ═ worker ─ veth ─ worker ═ tap0
//! 10.9.0.1                      192.0.2.1  192.0.2.2     10.9.0.2
//! ```
//!
//! Each test has network namespaces of its own, which end with its threads. `TAPRS_SECONDS` sets how long the load
//! runs, for a look with a profiler, `TAPRS_LOSS_PER_MILLE` how lossy the lossy test is; figures are printed, never judged.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket as StdUdp};
use std::os::fd::AsFd;
use std::path::Path as FilePath;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use tap_rs::dataplane::{Command, NicKey, Notice, PeerKey, WorkerConfig, WorkerHandle, spawn};
use tap_rs::metrics::NicCounters;
use tap_rs::nic::netlink::Netlink;
use tap_rs::nic::{Nic, NicRequest, Side, open};
use tap_rs::policy::Contract;
use tap_rs::proto::activity::Activity;
use tap_rs::proto::session::{Keys, establish};
use tap_rs::sys::process;
use tap_rs::sys::udp::UdpSocket;
use tap_rs::types::{
    MacAddr, Mtu, NicId, NicMode, NicName, NicRules, NicSpec, NicStack, OffloadMode, Path, Suite,
};

const MAC: MacAddr = MacAddr([0xbe, 0x17, 0xdd, 0x5c, 0x07, 0x17]);

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

    /// Runs `job` in it, with a `/sys` that shows it, in a thread of this name.
    fn run_as<T: Send>(&self, name: &str, job: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            process::enter_netns(&self.0).unwrap();
            process::new_mounts().unwrap();
            process::mount_sysfs(FilePath::new("/sys")).unwrap();
            job()
        };
        thread::scope(|s| Builder::new().name(name.into()).spawn_scoped(s, enter).unwrap().join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        self.run_as("test-setup", job)
    }
}

fn name(s: &str) -> NicName {
    s.parse().unwrap()
}

fn give(nl: &mut Netlink, link: &str, addr: &str) {
    let index = nl.link(link).unwrap().unwrap().index;
    nl.add_address(index, addr.parse::<IpAddr>().unwrap(), 24).unwrap();
    nl.set_up(index, true).unwrap();
}

/// One end of the tunnel.
struct End {
    worker: WorkerHandle,
    nic: Nic,
    counters: Arc<NicCounters>,
    notices: mpsc::Receiver<Notice>,
}

impl End {
    /// In the namespace of the calling thread.
    fn new(side: Side, mode: NicMode, suite: Suite, offload: OffloadMode) -> Self {
        let (own, other, ifname) = match side {
            Side::Client => ("192.0.2.1:7077", "192.0.2.2:7077", "mv0"),
            Side::Server => ("192.0.2.2:7077", "192.0.2.1:7077", "tap0"),
        };
        let addrs = vec!["10.9.0.2/24".parse().unwrap()];
        let spec = NicSpec { name: name(ifname), mac: MAC, addrs, mtu: Mtu::DEFAULT };
        let contract = Box::new(Contract::new(&spec, NicRules::default()));
        let parent = (mode == NicMode::Macvtap).then(|| name("eth0"));
        let request =
            NicRequest { spec, mode, parent, side, configure: true, offload, stack: NicStack::default() };
        let (mut nic, mut queues) = open(&request, 1).unwrap();
        nic.set_up(true).unwrap();
        let socket = UdpSocket::bind(own.parse().unwrap(), false).unwrap();
        socket.set_buffers(4 << 20, 4 << 20).unwrap();
        let (sender, notices) = mpsc::channel(64);
        let worker_name = if side == Side::Client { "plane-client" } else { "plane-server" };
        let worker = spawn(socket, &WorkerConfig::new(side, worker_name), sender).unwrap();

        let (send, receive, local_index, remote_index) =
            if side == Side::Client { (1, 2, 10, 20) } else { (2, 1, 20, 10) };
        let (send, receive) = ([send; 32].into(), [receive; 32].into());
        let keys = Keys { suite, send, receive, local_index, remote_index };
        let (mut lanes, opener) = establish(&keys, Arc::new(Activity::new(Instant::now()))).unwrap();
        let (peer, key, id, counters) = (PeerKey(1), NicKey(1), NicId(1), Arc::<NicCounters>::default());
        let (index, lane) = (opener.index(), lanes.take().unwrap());
        let path = Path::new(other.parse().unwrap(), None);
        for command in [
            Command::AddPeer(peer),
            Command::AddNic {
                key,
                peer,
                id,
                queue: queues.remove(0),
                reads: true,
                contract,
                counters: Arc::clone(&counters),
                reply_arp: false,
            },
            Command::Install { peer, opener, lane },
            Command::Use { peer, index, path, datagram: 1472 },
        ] {
            worker.send(command).unwrap();
        }
        Self { worker, nic, counters, notices }
    }

    fn report(&mut self, what: &str) {
        let c = self.worker.counters();
        let (sent, received) = (&c.sent, &c.received);
        let n = |n: &std::sync::atomic::AtomicU64| n.load(Relaxed);
        println!(
            "{what}: {} wakeups; sent {} trains, {} datagrams; received {} trains, {} datagrams; \
             read {} frames, wrote {}; spilled {}, kept {}, salvaged {}, cut {}; dropped {:?}, of the NIC {:?}",
            n(&c.wakeups),
            n(&sent.trains),
            n(&sent.datagrams),
            n(&received.trains),
            n(&received.datagrams),
            n(&self.counters.uplink.frames),
            n(&self.counters.downlink.frames),
            n(&c.spilled),
            n(&c.kept),
            n(&c.salvaged),
            n(&c.cut),
            c.drops.seen().collect::<Vec<_>>(),
            self.counters.drops.seen().collect::<Vec<_>>(),
        );
        let _ = self.nic.name();
        while let Ok(notice) = self.notices.try_recv() {
            assert!(matches!(notice, Notice::FirstUse { .. }), "{notice:?}");
        }
    }
}

/// The whole topology, the tunnel open.
struct Bed {
    lan: Netns,
    server: Netns,
    client: Netns,
    near: End,
    far: End,
}

impl Bed {
    fn new(suite: Suite, offload: OffloadMode) -> Option<Self> {
        if !process::is_root() {
            skipped("needs root");
            return None;
        }
        let [lan, client, server] = std::array::from_fn(|_| Netns::new());
        client.run(|| {
            let mut nl = Netlink::open().unwrap();
            nl.create_veth(&name("eth0"), &name("lan0"), Some(lan.0.as_fd())).unwrap();
            nl.create_veth(&name("wan0"), &name("wan0"), Some(server.0.as_fd())).unwrap();
            nl.set_up("eth0", true).unwrap();
            give(&mut nl, "wan0", "192.0.2.1");
            // The way without a tunnel, to compare with.
            give(&mut nl, "eth0", "10.9.1.2");
        });
        lan.run(|| give(&mut Netlink::open().unwrap(), "lan0", "10.9.1.1"));
        for (ns, link, addr) in [(&lan, "lan0", "10.9.0.1"), (&server, "wan0", "192.0.2.2")] {
            ns.run(|| {
                let mut nl = Netlink::open().unwrap();
                nl.set_up("lo", true).unwrap();
                give(&mut nl, link, addr);
                // What a benchmark compares must not hang on the machine's own choice.
                let _ = std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "cubic");
            });
        }
        let far = server.run(|| End::new(Side::Server, NicMode::Tap, suite, offload));
        let near = client.run(|| End::new(Side::Client, NicMode::Macvtap, suite, offload));
        Some(Self { lan, server, client, near, far })
    }

    fn report(&mut self) {
        self.near.report("client");
        self.far.report("server");
    }
}

fn seconds(otherwise: f64) -> Duration {
    let set = std::env::var("TAPRS_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs_f64(set.unwrap_or(otherwise))
}

/// Bytes that tell where in the stream they are.
fn pattern() -> Vec<u8> {
    let mut x = 1u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    };
    std::iter::repeat_with(&mut next).take(1 << 20).collect()
}

/// Sends a stream from `from` to `addr` in `to` for a while, and checks it there byte by byte if so asked. Gbit/s.
fn stream(from: &Netns, to: &Netns, addr: &str, time: Duration, check: bool) -> f64 {
    let addr: SocketAddr = addr.parse().unwrap();
    let listener = to.run(|| TcpListener::bind(addr).unwrap());
    let pattern = &pattern();
    thread::scope(|scope| {
        scope.spawn(|| {
            from.run_as("load-send", || {
                let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5)).unwrap();
                let end = Instant::now() + time;
                while Instant::now() < end {
                    stream.write_all(pattern).unwrap();
                }
            });
        });
        let receive = || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (mut room, mut total, start) = (vec![0; 256 << 10], 0usize, Instant::now());
            loop {
                let n = stream.read(&mut room).unwrap();
                if n == 0 {
                    return total as f64 * 8e-9 / start.elapsed().as_secs_f64();
                }
                let mut rest = if check { &room[..n] } else { &[] };
                let mut at = total % pattern.len();
                while !rest.is_empty() {
                    let (here, behind) = rest.split_at(rest.len().min(pattern.len() - at));
                    assert!(here == &pattern[at..at + here.len()], "wrong byte near {total}");
                    (rest, at) = (behind, 0);
                }
                total += n;
            }
        };
        to.run_as("load-receive", receive)
    })
}

fn round_trip(lan: &Netns, server: &Netns) -> Duration {
    let echo = server.run(|| StdUdp::bind("10.9.0.2:7").unwrap());
    echo.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut room = [0; 100];
            for _ in 0..200 {
                let (n, from) = echo.recv_from(&mut room).unwrap();
                echo.send_to(&room[..n], from).unwrap();
            }
        });
        lan.run(|| {
            let socket = StdUdp::bind("10.9.0.1:0").unwrap();
            socket.connect("10.9.0.2:7").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut times: Vec<_> = (0..200)
                .map(|_| {
                    let start = Instant::now();
                    socket.send(b"ping").unwrap();
                    socket.recv(&mut [0; 100]).unwrap();
                    start.elapsed()
                })
                .collect();
            times.sort_unstable();
            times[100]
        })
    })
}

/// Sends datagrams of 64 bytes as fast as one thread can for a while; how many arrive a second, and what part.
fn flood(from: &Netns, to: &Netns, addr: &str, time: Duration) -> (f64, f64) {
    let target = to.run(|| StdUdp::bind(addr).unwrap());
    target.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            from.run_as("load-send", || {
                let socket = StdUdp::bind("0.0.0.0:0").unwrap();
                socket.connect(addr).unwrap();
                let (mut n, end) = (0u64, Instant::now() + time);
                while Instant::now() < end {
                    for _ in 0..64 {
                        n += u64::from(socket.send(&[0; 64]).is_ok());
                    }
                }
                n
            })
        });
        let receive = || {
            let mut n = 0u64;
            while target.recv(&mut [0; 100]).is_ok() {
                n += 1;
            }
            n
        };
        let received = to.run_as("load-receive", receive) as f64;
        (received / time.as_secs_f64(), received / sender.join().unwrap() as f64)
    })
}

/// CPU seconds that the threads of this process with such names have used.
fn cpu(name: &str) -> f64 {
    let ticks = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (front, back) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = back.split(' ').collect();
        let both = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        front.contains(name).then_some(both)
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.flatten().filter_map(ticks).sum::<f64>() / 100.0
}

#[test]
fn bulk_tcp_crosses_macvtap_and_tap_byte_for_byte() {
    let Some(mut bed) = Bed::new(Suite::Aes, OffloadMode::Auto) else { return };
    println!("round trip {:?}", round_trip(&bed.lan, &bed.server));
    let up = stream(&bed.lan, &bed.server, "10.9.0.2:5001", seconds(0.4), true);
    let down = stream(&bed.server, &bed.lan, "10.9.0.1:5002", seconds(0.4), true);
    println!("up {up:.2} Gbit/s, down {down:.2} Gbit/s, every byte compared");
    bed.report();
}

#[test]
fn bulk_tcp_crosses_without_any_offload_and_under_the_other_suite() {
    let Some(mut bed) = Bed::new(Suite::ChaCha, OffloadMode::Off) else { return };
    let up = stream(&bed.lan, &bed.server, "10.9.0.2:5001", seconds(0.4), true);
    let down = stream(&bed.server, &bed.lan, "10.9.0.1:5002", seconds(0.4), true);
    println!("up {up:.2} Gbit/s, down {down:.2} Gbit/s, every byte compared");
    bed.report();
}

/// Runs a program of the system in the calling thread's namespace. False where it is missing or fails.
fn system(command: &str) -> bool {
    let mut words = command.split(' ');
    let mut program = std::process::Command::new(words.next().unwrap());
    program.args(words).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// TCP segments with a wrong checksum that this namespace's kernel has seen.
fn checksum_errors() -> u64 {
    // Not `/proc/net`, which is the namespace of the process's first thread.
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|l| l.starts_with("Tcp:")).map(|l| l.split(' '));
    let (mut names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.position(|n| n == "InCsumErrors").unwrap();
    values.nth(at).unwrap().parse().unwrap()
}

#[test]
fn bulk_tcp_survives_the_loss_of_single_datagrams_byte_for_byte() {
    let Some(mut bed) = Bed::new(Suite::Aes, OffloadMode::Auto) else { return };
    // Each datagram on its own, and one in a hundred lost, each way.
    let per_mille = std::env::var("TAPRS_LOSS_PER_MILLE").unwrap_or_else(|_| "10".into());
    let lossy = || {
        let rule = "table netdev loss {\n chain i {\n  type filter hook ingress device \"wan0\" priority 0;\n  \
                    ip protocol udp numgen random mod 1000 < LOSS drop;\n }\n}\n";
        let rule = rule.replace("LOSS", &per_mille);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(rule.as_bytes()).unwrap();
        system("ethtool -K wan0 tx-udp-segmentation off gso off gro off")
            && system(&format!("nft -f {}", file.path().display()))
    };
    if !bed.client.run(lossy) || !bed.server.run(lossy) {
        skipped("needs ethtool and nft");
        return;
    }
    let up = stream(&bed.lan, &bed.server, "10.9.0.2:5001", seconds(0.5), true);
    let down = stream(&bed.server, &bed.lan, "10.9.0.1:5002", seconds(0.5), true);
    println!("up {up:.2} Gbit/s, down {down:.2} Gbit/s at {per_mille} ‰ loss, every byte compared");
    assert_eq!((bed.lan.run(checksum_errors), bed.server.run(checksum_errors)), (0, 0));
    let salvaged = |end: &End| end.worker.counters().salvaged.load(Relaxed);
    println!("salvaged {} and {} packets", salvaged(&bed.near), salvaged(&bed.far));
    bed.report();
}

#[test]
fn datagrams_too_big_for_their_path_are_told_and_smaller_ones_pass() {
    let Some(mut bed) = Bed::new(Suite::Aes, OffloadMode::Auto) else { return };
    bed.far.worker.send(Command::SetDatagram { peer: PeerKey(1), datagram: 1473 }).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let socket = bed.server.run(|| StdUdp::bind("10.9.0.2:0").unwrap());
    loop {
        assert!(Instant::now() < deadline, "nothing was told");
        socket.send_to(&[1; 1472], "10.9.0.1:9").unwrap();
        if let Ok(Notice::DatagramTooBig { peer: PeerKey(1) }) = bed.far.notices.try_recv() {
            break;
        }
    }
    bed.far.worker.send(Command::SetDatagram { peer: PeerKey(1), datagram: 1472 }).unwrap();
    let target = bed.lan.run(|| StdUdp::bind("10.9.0.1:10").unwrap());
    target.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut room = [0; 2000];
    // The queue of the NIC may still be full of those that were too big, and then the kernel drops the next.
    let heard = loop {
        assert!(Instant::now() < deadline, "nothing passes");
        socket.send_to(&[2; 1472], "10.9.0.1:10").unwrap();
        if let Ok(heard) = target.recv(&mut room) {
            break heard;
        }
    };
    assert_eq!(heard, 1472);
}

#[test]
fn throughput_is_printed() {
    let Some(mut bed) = Bed::new(Suite::Aes, OffloadMode::Auto) else { return };
    println!("round trip {:?}", round_trip(&bed.lan, &bed.server));
    for (what, from, to, addr) in [
        ("bare veth", &bed.lan, &bed.client, "10.9.1.2:5000"),
        ("up", &bed.lan, &bed.server, "10.9.0.2:5001"),
        ("down", &bed.server, &bed.lan, "10.9.0.1:5002"),
    ] {
        let (time, before) = (seconds(0.4), cpu("plane-"));
        let rate = stream(from, to, addr, time, false);
        let used = (cpu("plane-") - before) * 8.0 / rate / time.as_secs_f64();
        println!("{what} {rate:.2} Gbit/s, {used:.2} s of the workers' CPU for a GB, both ends");
    }
    for (what, from, to, addr) in
        [("up", &bed.lan, &bed.server, "10.9.0.2:5003"), ("down", &bed.server, &bed.lan, "10.9.0.1:5004")]
    {
        let (time, before) = (seconds(0.2), cpu("plane-"));
        let (rate, part) = flood(from, to, addr, time);
        let used = (cpu("plane-") - before) * 1e6 / rate / time.as_secs_f64();
        println!("{what} {rate:.0} small datagrams/s, {:.0} % of them, {used:.1} µs each", part * 100.0);
    }
    bed.report();
}

/// Not by `println!`, which the test harness keeps to itself where a test passes.
fn skipped(why: &str) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED ({why}): {name}\n").as_bytes())
        .unwrap();
}
