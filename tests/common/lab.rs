//! The stage of an end-to-end test.
//!
//! ```text
//!  lan ── eth0 ═══ lan0 ── client ── wan0 ═══════════════════ wan0 ── server     one site
//!                                    wan0 ═ in ─ router ─ out ═ wan0             with a router
//! ```
//! Site `i` has the LAN 10.(80+i).0.0/24 and fd00:(80+i)::/64, its host at .2; its NIC `j` is at .(100+j).
//! The underlay of site `i` is 172.31.i.0/24 or fd31:i::/64, the server at .1, the client at .2. With a router the
//! client is at 172.30.i.2 and fd30:i::2 behind .1, and the router is 172.31.i.2 or fd31:i::2 to the server.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::ns::Ns;
use super::program::{Program, TAP_RS};

pub const PORT: u16 = 1234;
/// What both sides log when a session is there; the server with `client=NAME`.
pub const SESSION: &str = "session established";
/// What the server logs when a client has said goodbye, with `client=NAME`.
pub const GOODBYE: &str = "session ended";
/// What both sides log when a NIC can carry frames, with `nic=NAME`.
pub const NIC_READY: &str = "nic ready";
/// What both sides log when a NIC has been taken away, with `nic=NAME`.
pub const NIC_GONE: &str = "nic gone";
/// For what should take well under a second, on a machine that is very busy.
pub const SOON: Duration = Duration::from_secs(30);

/// What a lab is to look like.
#[derive(Clone)]
pub struct Plan {
    sites: usize,
    nics: usize,
    lan_mtu: u16,
    ipv6_underlay: bool,
    router: bool,
    nat: bool,
    udp_offload: bool,
}

impl Plan {
    /// How many clients there are, each on a LAN of its own.
    pub fn sites(mut self, n: usize) -> Self {
        self.sites = n;
        self
    }

    /// How many NICs each client has.
    pub fn nics(mut self, n: usize) -> Self {
        self.nics = n;
        self
    }

    pub fn lan_mtu(mut self, mtu: u16) -> Self {
        self.lan_mtu = mtu;
        self
    }

    pub fn ipv6_underlay(mut self) -> Self {
        self.ipv6_underlay = true;
        self
    }

    /// A router between client and server.
    pub fn router(mut self) -> Self {
        self.router = true;
        self
    }

    /// A router that hides the client behind its own address.
    pub fn nat(mut self) -> Self {
        self.nat = true;
        self.router()
    }

    /// Every datagram on its own on the underlay.
    pub fn no_udp_offload(mut self) -> Self {
        self.udp_offload = false;
        self
    }

    pub fn is_ipv6(&self) -> bool {
        self.ipv6_underlay
    }

    pub fn build(self) -> Lab {
        Lab::build(self)
    }
}

/// A client's box and what is around it.
pub struct Site {
    pub lan: Ns,
    pub client: Ns,
    pub router: Option<Ns>,
    pub nics: Vec<Nic>,
    /// Where the server is for this client.
    pub server_addr: SocketAddr,
}

impl Site {
    /// The address of the host on the LAN.
    pub fn host(&self) -> IpAddr {
        let [a, b, c, _] = self.nics[0].ipv4().octets();
        [a, b, c, 2].into()
    }
}

/// A projected NIC.
#[derive(Clone)]
pub struct Nic {
    pub mac: [u8; 6],
    pub ip: IpAddr,
    pub ip6: IpAddr,
    pub on_client: String,
    pub on_server: String,
}

impl Nic {
    pub fn new(site: usize, n: usize) -> Self {
        let (i, j) = (u8::try_from(site).unwrap(), u8::try_from(n).unwrap());
        Self {
            mac: [2, 0, 0, 0, 80 + i, 100 + j],
            ip: [10, 80 + i, 0, 100 + j].into(),
            ip6: format!("fd00:{}::{}", 80 + i, 100 + j).parse().unwrap(),
            on_client: format!("mv{n}"),
            on_server: format!("tap{site}x{n}"),
        }
    }

    pub fn ipv4(&self) -> Ipv4Addr {
        let IpAddr::V4(ip) = self.ip else { unreachable!() };
        ip
    }

    pub fn ipv6(&self) -> Ipv6Addr {
        let IpAddr::V6(ip) = self.ip6 else { unreachable!() };
        ip
    }

    pub fn mac_text(&self) -> String {
        self.mac.map(|b| format!("{b:02x}")).join(":")
    }
}

/// What a test wants otherwise in a config file.
#[derive(Clone, Default)]
pub struct Edit {
    /// Lines for the top level.
    pub top: String,
    /// Lines for `[server]`.
    pub server: String,
    /// Lines for each `[[clients]]` of the server's file.
    pub client: String,
    /// Lines for each NIC.
    pub nic: String,
    /// `tap_mode`, where it is not macvtap on the client and tap on the server.
    pub mode: Option<&'static str>,
    /// Sites' NICs, where they are not the plan's.
    pub nics: Option<Vec<Vec<Nic>>>,
    /// Where the client looks for the server.
    pub server_addr: Option<String>,
    /// The client's file names no NICs: the server pushes them.
    pub remote: bool,
    /// Only IPv4 addresses on the NICs.
    pub ipv4_only: bool,
}

pub struct Lab {
    pub sites: Vec<Site>,
    pub server: Ns,
    pub plan: Plan,
    dir: TempDir,
    public_keys: HashMap<String, String>,
}

impl Lab {
    /// One client with one NIC, an Ethernet everywhere.
    pub fn plan() -> Plan {
        Plan {
            sites: 1,
            nics: 1,
            lan_mtu: 1500,
            ipv6_underlay: false,
            router: false,
            nat: false,
            udp_offload: true,
        }
    }

    pub fn new() -> Self {
        Self::plan().build()
    }

    fn build(plan: Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Ns::new();
        let sites = (0..plan.sites).map(|i| site(&plan, &server, i)).collect();
        let mut lab = Self { sites, server, plan, dir, public_keys: HashMap::new() };
        lab.keygen("server");
        (0..lab.plan.sites).for_each(|i| lab.keygen(&format!("client{i}")));
        lab
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file that only root may read, and returns its path.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// Makes `NAME.key` as users do.
    pub fn keygen(&mut self, name: &str) {
        let path = self.dir.path().join(format!("{name}.key"));
        let output = Command::new(TAP_RS).arg("keygen").arg("--out").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let public = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        self.public_keys.insert(name.to_owned(), public);
    }

    /// The public key of `server` or `clientN`.
    pub fn public_key(&self, name: &str) -> &str {
        &self.public_keys[name]
    }

    fn nics<'a>(&'a self, edit: &'a Edit, site: usize) -> &'a [Nic] {
        edit.nics.as_ref().map_or(&self.sites[site].nics, |nics| &nics[site])
    }

    /// The server's file: its top-level `[[nics]]` belong to the one client, or each client has its own.
    pub fn server_toml(&self, edit: &Edit) -> String {
        let bind = if self.plan.ipv6_underlay { "[::]" } else { "0.0.0.0" };
        let mode = edit.mode.unwrap_or("tap");
        let mut text = format!(
            "tap_mode = \"{mode}\"\nrun_mode = \"server\"\nprivate_key = \"server.key\"\nmtu = {}\n{}\n\
             [server]\nbind_addr = \"{bind}:{PORT}\"\n{}\n",
            self.plan.lan_mtu, edit.top, edit.server
        );
        for i in 0..self.sites.len() {
            let key = self.public_key(&format!("client{i}"));
            text += &format!("[[clients]]\nname = \"site{i}\"\npublic_key = \"{key}\"\n{}\n", edit.client);
            let table = if self.sites.len() == 1 { "nics" } else { "clients.nics" };
            for nic in self.nics(edit, i) {
                text += &nic_toml(table, nic, &nic.on_server, edit);
                text += &format!("client_ifname = \"{}\"\nclient_parent = \"lan0\"\n", nic.on_client);
            }
        }
        text
    }

    pub fn client_toml(&self, site: usize, edit: &Edit) -> String {
        let mode = edit.mode.unwrap_or("macvtap");
        let there = edit.server_addr.clone().unwrap_or(self.sites[site].server_addr.to_string());
        let nics = if edit.remote {
            "use_remote_config = true\nparent = \"lan0\"\n".to_owned()
        } else {
            format!("tap_mode = \"{mode}\"\nmtu = {}\n", self.plan.lan_mtu)
        };
        let mut text = format!(
            "run_mode = \"client\"\nprivate_key = \"client{site}.key\"\n{nics}{}\n\
             [server]\nbind_addr = \"{there}\"\npublic_key = \"{}\"\n{}\n",
            edit.top,
            self.public_key("server"),
            edit.server
        );
        if !edit.remote {
            for nic in self.nics(edit, site) {
                text += &nic_toml("nics", nic, &nic.on_client, edit);
                if mode == "macvtap" {
                    text += "parent = \"lan0\"\n";
                }
            }
        }
        text
    }

    /// Writes the server's file and starts it; returns once its NICs are there.
    pub fn start_server(&self, edit: &Edit) -> Program {
        self.write("server.toml", self.server_toml(edit));
        let program = self.run_server();
        for i in 0..self.sites.len() {
            for nic in self.nics(edit, i) {
                program.wait_for_log(&[NIC_READY, &nic.on_server], SOON);
            }
        }
        program
    }

    /// Starts the server with the file that is there.
    pub fn run_server(&self) -> Program {
        Program::start(&self.server, &["-c", self.dir.path().join("server.toml").to_str().unwrap()])
    }

    /// Writes a client's file and starts it; does not wait.
    pub fn start_client(&self, site: usize, edit: &Edit) -> Program {
        let path = self.write(&format!("client{site}.toml"), self.client_toml(site, edit));
        Program::start(&self.sites[site].client, &["-c", path.to_str().unwrap()])
    }

    /// Starts a server and the first client, and waits for the session and the client's NICs.
    pub fn up(&self, server: &Edit, client: &Edit) -> (Program, Program) {
        let (server, client_program) = (self.start_server(server), self.start_client(0, client));
        client_program.wait_for_log(&[SESSION], SOON);
        for nic in self.nics(client, 0) {
            client_program.wait_for_log(&[NIC_READY, &nic.on_client], SOON);
        }
        (server, client_program)
    }

    /// The same with nothing special.
    pub fn up_plain(&self) -> (Program, Program) {
        self.up(&Edit::default(), &Edit::default())
    }
}

fn nic_toml(table: &str, nic: &Nic, name: &str, edit: &Edit) -> String {
    let ip = match edit.ipv4_only {
        true => format!("\"{}/24\"", nic.ip),
        false => format!("[\"{}/24\", \"{}/64\"]", nic.ip, nic.ip6),
    };
    format!("[[{table}]]\nifname = \"{name}\"\nip = {ip}\nmac = \"{}\"\n{}\n", nic.mac_text(), edit.nic)
}

fn site(plan: &Plan, server: &Ns, i: usize) -> Site {
    let (lan, client) = (Ns::new(), Ns::new());
    veth((&lan, "eth0"), (&client, "lan0"));
    for (ns, link) in [(&lan, "eth0"), (&client, "lan0")] {
        ns.ip(&format!("link set {link} mtu {} up", plan.lan_mtu));
    }
    lan.ip(&format!("addr add 10.{}.0.2/24 dev eth0", 80 + i));
    // A link of less is not one for IPv6 (RFC 8200, section 5).
    if plan.lan_mtu >= 1280 {
        lan.ip(&format!("-6 addr add fd00:{}::2/64 dev eth0 nodad", 80 + i));
    }
    let router = plan.router.then(Ns::new);
    let under = if i == 0 { "wan0".to_owned() } else { format!("wan{i}") };
    match &router {
        None => {
            veth((&client, "wan0"), (server, &under));
            address(plan, &client, "wan0", i, 2);
        }
        Some(router) => {
            veth((&client, "wan0"), (router, "in"));
            veth((router, "out"), (server, &under));
            for (ns, link, host) in [(&client, "wan0", 2), (router, "in", 1)] {
                ns.ip(&format!("link set {link} up"));
                ns.ip(&match plan.ipv6_underlay {
                    false => format!("addr add 172.30.{i}.{host}/24 dev {link}"),
                    true => format!("-6 addr add fd30:{i}::{host}/64 dev {link} nodad"),
                });
            }
            address(plan, router, "out", i, 2);
            client.ip(&match plan.ipv6_underlay {
                false => format!("route add default via 172.30.{i}.1"),
                true => format!("-6 route add default via fd30:{i}::1"),
            });
            router.sysctl("net.ipv4.ip_forward", 1);
            router.sysctl("net.ipv6.conf.all.forwarding", 1);
            if plan.nat {
                router.exec(&["nft", "add table ip nat"]);
                router.exec(&["nft", "add chain ip nat out { type nat hook postrouting priority 100; }"]);
                router.exec(&["nft", "add rule ip nat out oifname \"out\" masquerade"]);
            }
        }
    }
    address(plan, server, &under, i, 1);
    match (&router, plan.ipv6_underlay) {
        (None, _) => {}
        (Some(_), false) => drop(server.ip(&format!("route add 172.30.{i}.0/24 via 172.31.{i}.2"))),
        (Some(_), true) => drop(server.ip(&format!("-6 route add fd30:{i}::/64 via fd31:{i}::2"))),
    }
    if !plan.udp_offload {
        client.exec(&["ethtool", "-K", "wan0", "tx-udp-segmentation", "off"]);
        server.exec(&["ethtool", "-K", &under, "tx-udp-segmentation", "off"]);
    }
    let there: IpAddr = match plan.ipv6_underlay {
        true => format!("fd31:{i}::1").parse().unwrap(),
        false => [172, 31, u8::try_from(i).unwrap(), 1].into(),
    };
    let nics = (0..plan.nics).map(|n| Nic::new(i, n)).collect();
    Site { lan, client, router, nics, server_addr: SocketAddr::new(there, PORT) }
}

fn veth(a: (&Ns, &str), b: (&Ns, &str)) {
    let words = ["peer", "name", b.1, "netns", b.0.name()].join(" ");
    a.0.ip(&format!("link add {} type veth {words}", a.1));
}

fn address(plan: &Plan, ns: &Ns, link: &str, site: usize, host: u8) {
    ns.ip(&format!("link set {link} mtu 1500 up"));
    match plan.ipv6_underlay {
        true => ns.ip(&format!("-6 addr add fd31:{site}::{host}/64 dev {link} nodad")),
        false => ns.ip(&format!("addr add 172.31.{site}.{host}/24 dev {link}")),
    };
}
