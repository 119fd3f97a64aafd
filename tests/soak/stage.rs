//! The stage on which faults fall, and the faults.
//!
//! ```text
//!  lan ═ client (macvtap on lan0) ═══ router: relay ═══ server (tap)
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::lab::{Edit, Lab, Nic, PORT, Site};
use crate::common::ns::Ns;
use crate::common::program::Program;
use crate::common::relay::{Faults, Relay};
use crate::common::traces::{everything, keeper_of, kill_both, settled, sockets_of};
use crate::common::traffic::tcp;
use crate::common::watch::Watch;
use crate::noise::Dice;

/// What a bad path does to how many of a hundred datagrams.
const BAD: Faults = Faults { lost: 5, repeated: 5, reordered: 10, spoiled: 1 };

/// From the end of a fault until frames cross and a connection has carried something both ways. A debug build is
/// given as much again, since it runs beside other tests.
const BACK: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 5 });

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    ServerKilled,
    ClientKilled,
    UnderlayDown,
    TapDeleted,
    MacvtapDeleted,
    ParentDeleted,
    AddressChanged,
    LongPacketsSwallowed,
    BadPath,
    NatRebound,
}

use Fault::*;

impl Fault {
    /// Those that end a process.
    pub const DEADLY: [Self; 2] = [ServerKilled, ClientKilled];
    /// Those that both programs are to outlive.
    pub const SURVIVED: [Self; 8] = [
        UnderlayDown,
        TapDeleted,
        MacvtapDeleted,
        ParentDeleted,
        AddressChanged,
        LongPacketsSwallowed,
        BadPath,
        NatRebound,
    ];
}

pub struct Stage<'a> {
    lab: &'a Lab,
    relay: Relay,
    server_file: PathBuf,
    client_file: PathBuf,
    pub server: Program,
    pub client: Program,
    /// The last byte of the client's address.
    host: u8,
    before: [(String, String); 2],
}

/// Boxes that a stage can be set on.
pub fn lab() -> Lab {
    Lab::plan().router().no_udp_offload().build()
}

impl<'a> Stage<'a> {
    pub fn new(lab: &'a Lab) -> Self {
        let site = &lab.sites[0];
        let front: SocketAddr = ([172, 30, 0, 1], PORT).into();
        let relay = Relay::start(site.router.as_ref().unwrap(), front, site.server_addr, Faults::default());
        // Named after the test's folder, so that their sockets are known.
        let tag = lab.dir().file_name().unwrap().to_string_lossy().into_owned();
        let server_file = lab.write(&format!("s{tag}.toml"), lab.server_toml(&Edit::default()));
        let through = Edit { server_addr: Some(front.to_string()), ..Edit::default() };
        let client_file = lab.write(&format!("c{tag}.toml"), lab.client_toml(0, &through));
        // Otherwise the second address of a subnet goes with the first.
        site.client.sysctl("net.ipv4.conf.all.promote_secondaries", 1);
        settled(&[(&lab.server, "wan0"), (&site.client, "wan0"), (&site.client, "lan0")]);
        let before = [everything(&lab.server), everything(&site.client)];
        let (server, client) = (run(&lab.server, &server_file), run(&site.client, &client_file));
        Self { lab, relay, server_file, client_file, server, client, host: 2, before }
    }

    fn site(&self) -> &'a Site {
        &self.lab.sites[0]
    }

    fn nic(&self) -> &'a Nic {
        &self.site().nics[0]
    }

    /// Has it happen; returns when it is over. Where frames are to cross meanwhile, too: how long it took until they did.
    pub fn suffer(&mut self, fault: Fault, dice: &mut Dice) -> Option<Duration> {
        let spell = Duration::from_millis(200 + dice.below(5_800) as u64);
        match fault {
            ServerKilled => {
                kill(&mut self.server, dice);
                std::thread::sleep(spell / 4);
                self.server = run(&self.lab.server, &self.server_file);
            }
            ClientKilled => {
                kill(&mut self.client, dice);
                std::thread::sleep(spell / 4);
                self.client = run(&self.lab.sites[0].client, &self.client_file);
            }
            UnderlayDown => {
                self.site().client.ip("link set wan0 down");
                std::thread::sleep(spell);
                self.site().client.ip("link set wan0 up");
                // Which goes with the link.
                self.site().client.ip("route replace default via 172.30.0.1");
            }
            TapDeleted => drop(self.lab.server.ip(&format!("link del {}", self.nic().on_server))),
            MacvtapDeleted => drop(self.site().client.ip(&format!("link del {}", self.nic().on_client))),
            ParentDeleted => self.replace_parent(spell / 3),
            AddressChanged => self.change_address(),
            LongPacketsSwallowed => {
                let router = self.site().router.as_ref().unwrap();
                black_hole(router);
                let crossed = self.back();
                std::thread::sleep(spell);
                router.exec(&["nft", "delete table ip hole"]);
                return Some(crossed);
            }
            BadPath => {
                self.relay.set(BAD);
                std::thread::sleep(spell);
                self.relay.set(Faults::default());
            }
            NatRebound => self.relay.rebind(self.site().router.as_ref().unwrap()),
        }
        None
    }

    /// How long it takes from now on until an echo, and a new connection each way. Panics where that is too long.
    #[track_caller]
    pub fn back(&self) -> Duration {
        let (lan, server, both) = (&self.site().lan, &self.lab.server, [&self.server, &self.client]);
        let watch = Watch::start(&both);
        lan.ping(self.nic().ip);
        tcp(lan, server, self.nic().ip, 50_000, 50_000);
        tcp(server, lan, self.site().host(), 50_000, 50_000);
        watch.assert_within(BACK, "the way back", &both);
        watch.own(&both)
    }

    /// The LAN's cable and both its plugs go, and are there again after a while as they were.
    fn replace_parent(&self, absent: Duration) {
        let site = self.site();
        let mac = |ns: &Ns, link: &str| {
            let said = ns.ip(&format!("-br link show {link}"));
            said.split_whitespace().nth(2).unwrap().to_owned()
        };
        let (near, far) = (mac(&site.client, "lan0"), mac(&site.lan, "eth0"));
        site.client.ip("link del lan0");
        std::thread::sleep(absent);
        let lan = site.lan.name();
        let peer = format!("peer name eth0 address {far} netns {lan}");
        site.client.ip(&format!("link add lan0 address {near} type veth {peer}"));
        site.client.ip("link set lan0 up");
        site.lan.ip("link set eth0 up");
        site.lan.ip(&format!("addr add {}/24 dev eth0", site.host()));
        site.lan.ip("-6 addr add fd00:80::2/64 dev eth0 nodad");
    }

    fn change_address(&mut self) {
        let old = self.host;
        self.host = if old == 250 { 2 } else { old + 1 };
        let client = &self.lab.sites[0].client;
        client.ip(&format!("addr add 172.30.0.{}/24 dev wan0", self.host));
        client.ip(&format!("addr del 172.30.0.{old}/24 dev wan0"));
    }

    /// Ends both as users do, and looks at what is left.
    pub fn end(mut self) {
        for program in [&mut self.client, &mut self.server] {
            assert!(program.terminate().success());
        }
        // The address that the client had at first.
        if self.host != 2 {
            self.site().client.ip("addr add 172.30.0.2/24 dev wan0");
            self.site().client.ip(&format!("addr del 172.30.0.{}/24 dev wan0", self.host));
        }
        let left = || [everything(&self.lab.server), everything(&self.site().client)];
        let end = Instant::now() + Duration::from_secs(10);
        // What the kernel does by itself with a new link takes a moment.
        while left() != self.before && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(self.before, left(), "something is left, or missing");
        assert_eq!(sockets_of(self.lab.dir()), Vec::<String>::new());
    }
}

fn run(ns: &Ns, file: &Path) -> Program {
    Program::start(ns, &["-c", file.to_str().unwrap()])
}

/// The tunnel, or the tunnel and its keeper at once.
fn kill(program: &mut Program, dice: &mut Dice) {
    match dice.below(2) {
        0 => program.kill9(),
        _ => {
            keeper_of(program);
            kill_both(program);
        }
    }
}

/// The router drops what is longer than 1280 bytes, and says nothing.
fn black_hole(router: &Ns) {
    let table = "table ip hole {\n\
                 chain in { type filter hook input priority 0; ip length > 1280 drop; }\n\
                 chain out { type filter hook output priority 0; ip length > 1280 drop; }\n}";
    router.exec(&["nft", table]);
}
