//! The recipes of docs/COOKBOOK.md, as they stand there, on real interfaces.
//!
//! ```text
//!  host ── eth0 ═══ eth0 ── client ── wan0 ═══════════════ wan0 ── server ── eth1 ═══ eth0 ── device
//!                                     wan0 ═ in ─ router ─ out ═ wan0     where one says so
//! ```

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use tap_rs::keys::PrivateKey;
use tempfile::TempDir;

use crate::common::lab::{NIC_READY, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::program::{Program, TAP_RS};
use crate::doctor::doctor;
use crate::keeper::until;
use crate::needs_root;

/// A fenced block: its first line, which says where it belongs, and the others.
struct Block {
    title: String,
    lines: Vec<String>,
}

impl Block {
    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// The blocks of a recipe; those of the introduction where it has none of that name.
fn recipe(heading: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/COOKBOOK.md");
    let text = fs::read_to_string(path).unwrap();
    let sections: Vec<&str> = text.split("\n## ").collect();
    let own = sections.iter().find(|s| s.starts_with(heading)).unwrap_or_else(|| panic!("no {heading}"));
    let mut all = blocks(own);
    if !all.iter().any(|b| b.title == "client.toml") {
        all.extend(blocks(sections[0]).into_iter().filter(|b| b.title == "client.toml"));
    }
    all
}

fn blocks(section: &str) -> Vec<Block> {
    let fenced = section.split("\n```").skip(1).step_by(2);
    let block = |text: &str| {
        let mut lines = text.lines().skip(1).map(str::to_owned);
        let title = lines.next()?.strip_prefix("# ")?.to_owned();
        Some(Block { title, lines: lines.collect() })
    };
    fenced.filter_map(block).collect()
}

/// Every box, and the folder of each that has one.
struct Stage {
    host: Ns,
    client: Ns,
    server: Ns,
    device: Ns,
    router: Option<Ns>,
    folders: HashMap<&'static str, TempDir>,
    keys: HashMap<String, String>,
    running: Vec<Program>,
    /// As the recipe names them.
    namespaces: Vec<String>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.running.clear();
        for name in &self.namespaces {
            let name = format!("{}-{name}", self.server.name());
            if fs::read_link(format!("/run/netns/{name}")).is_ok() {
                continue;
            }
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

/// How the two boxes are connected.
enum Way {
    Straight,
    OnlyIpv6,
    Nat,
}

impl Stage {
    fn new(path: Way) -> Self {
        let (host, client, server, device) = (Ns::new(), Ns::new(), Ns::new(), Ns::new());
        cable((&host, "eth0"), (&client, "eth0"));
        cable((&server, "eth1"), (&device, "eth0"));
        for address in ["192.168.1.2/24", "192.168.1.1/24", "2001:db8:1::2/64", "2001:db8:1::1/64"] {
            host.ip(&format!("addr add {address} dev eth0"));
        }
        let mut router = None;
        let (on_client, on_server) = match path {
            Way::Straight => ("203.0.113.20/24", "203.0.113.10/24"),
            Way::OnlyIpv6 => ("2001:db8:5::20/64", "2001:db8:5::10/64"),
            Way::Nat => ("10.8.0.20/24", "10.9.0.10/24"),
        };
        if let Way::Nat = path {
            let box_ = Ns::new();
            cable((&client, "wan0"), (&box_, "in"));
            cable((&box_, "out"), (&server, "wan0"));
            for (link, address) in [("in", "10.8.0.1/24"), ("out", "10.9.0.1/24"), ("in", "203.0.113.10/32")]
            {
                box_.ip(&format!("addr add {address} dev {link}"));
            }
            box_.sysctl("net.ipv4.ip_forward", 1);
            router = Some(box_);
        } else {
            cable((&client, "wan0"), (&server, "wan0"));
        }
        client.ip(&format!("addr add {on_client} dev wan0"));
        server.ip(&format!("addr add {on_server} dev wan0"));
        if let Some(router) = &router {
            client.ip("route add default via 10.8.0.1");
            // What leaves towards the server has the router's address: the client is behind NAT, too.
            for rule in [
                "add table ip client",
                "add chain ip client post { type nat hook postrouting priority srcnat; }",
                "add rule ip client post oifname out masquerade",
            ] {
                router.exec(&["nft", rule]);
            }
        }
        let folders = ["client", "server"].map(|side| (side, tempfile::tempdir().unwrap()));
        let (folders, keys) = (folders.into(), HashMap::new());
        let (running, namespaces) = (Vec::new(), Vec::new());
        Self { host, client, server, device, router, folders, keys, running, namespaces }
    }

    fn ns(&self, place: &str) -> &Ns {
        match place {
            "on a host of the LAN" => &self.host,
            "on the client" => &self.client,
            "on the server" => &self.server,
            "on the server's router" => self.router.as_ref().expect("there is a router"),
            _ => panic!("where is {place:?}?"),
        }
    }

    /// Writes what is a file, and starts both sides.
    fn start(&mut self, recipe: &[Block]) {
        let named = |line: &String| Some(line.strip_prefix("netns = \"")?.split('"').next()?.to_owned());
        self.namespaces = recipe.iter().flat_map(|b| &b.lines).filter_map(named).collect();
        for block in recipe {
            match block.title.split_once(", on the ") {
                Some((file, side)) => self.write(side, file, &block.text()),
                None => {
                    if let Some(side) = block.title.strip_suffix(".toml") {
                        let text = self.with_keys(&self.renamed(&block.text()));
                        self.write(side, &block.title, &text);
                    }
                }
            }
        }
        for (block, place) in self.commands(recipe) {
            if place == "on the server's router" {
                self.run(block, place);
            }
        }
        // Not by `ip netns exec`: nobody outside would see what it mounts.
        for side in ["server", "client"] {
            let ns = if side == "server" { &self.server } else { &self.client };
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", ns.name())).arg(TAP_RS);
            command.arg("-c").arg(self.folders[side].path().join(format!("{side}.toml")));
            let program = Program::watch(command, side.to_owned());
            program.wait_for_log(&[if side == "server" { "server started" } else { SESSION }], SOON);
            self.running.push(program);
        }
        self.running[1].wait_for_log(&[NIC_READY], SOON);
        if self.router.is_some() {
            self.running[0].wait_for_log(&[SESSION, "endpoint=10.9.0.1:"], SOON);
        }
    }

    fn commands<'a>(&self, recipe: &'a [Block]) -> Vec<(&'a Block, &'a str)> {
        let is_place = |b: &&Block| b.title.starts_with("on ");
        recipe.iter().filter(is_place).map(|b| (b, b.title.as_str())).collect()
    }

    /// Does what the recipe says to do when it runs.
    #[track_caller]
    fn follow(&self, recipe: &[Block]) {
        let mut done = 0;
        for (block, place) in self.commands(recipe) {
            if place != "on the server's router" {
                self.run(block, place);
                done += 1;
            }
        }
        assert!(done > 0, "nothing was tried");
        let (found, status) = doctor(&self.client, &[&self.running[1].name()]);
        assert!(status < 4, "{found:#}");
    }

    /// Runs a block's lines where they belong, which a line of it may change.
    #[track_caller]
    fn run(&self, block: &Block, place: &str) {
        let mut ns = self.ns(place);
        for line in block.lines.iter().map(|line| self.renamed(line)) {
            match line.strip_prefix("# ") {
                Some(other) => ns = self.ns(other),
                None => _ = ns.exec(&["sh", "-ec", &line]),
            }
        }
    }

    /// With names of namespaces that nobody else on this machine has.
    fn renamed(&self, text: &str) -> String {
        let own = |name: &str| format!("{}-{name}", self.server.name());
        self.namespaces.iter().fold(text.to_owned(), |text, name| {
            text.replace(&format!("netns = \"{name}\""), &format!("netns = \"{}\"", own(name)))
                .replace(&format!("netns exec {name} "), &format!("netns exec {} ", own(name)))
        })
    }

    fn write(&self, side: &str, file: &str, text: &str) {
        let path = self.folders[side].path().join(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }

    /// With a real key for each `…_PUBLIC_KEY`, whose private half is where it belongs.
    fn with_keys(&mut self, text: &str) -> String {
        for side in ["server", "client", "south"] {
            let folder = self.folders[if side == "server" { side } else { "client" }].path();
            self.keys.entry(side.to_owned()).or_insert_with(|| {
                let key = PrivateKey::generate(&mut rand::rng());
                key.write_new(&folder.join(format!("{side}.key"))).unwrap();
                key.public().to_string()
            });
        }
        let word = |side: &str| format!("{}_PUBLIC_KEY", side.to_uppercase());
        self.keys.iter().fold(text.to_owned(), |text, (side, key)| text.replace(&word(side), key))
    }
}

fn cable((a, on_a): (&Ns, &str), (b, on_b): (&Ns, &str)) {
    a.ip(&format!("link add {on_a} type veth peer name {on_b} netns {}", b.name()));
    a.ip(&format!("link set {on_a} up"));
    b.ip(&format!("link set {on_b} up"));
}

fn cook(heading: &str, path: Way, before: impl FnOnce(&Stage)) {
    let recipe = recipe(heading);
    let mut stage = Stage::new(path);
    before(&stage);
    stage.start(&recipe);
    stage.follow(&recipe);
    for program in stage.running.iter_mut().rev() {
        assert!(program.terminate().success());
    }
}

#[test]
fn branch_decoys() {
    needs_root!();
    cook("Branch decoys", Way::Straight, |_| {});
}

#[test]
fn a_server_moved_to_the_cloud() {
    needs_root!();
    cook("A server moved to the cloud", Way::Straight, |_| {});
}

#[test]
fn a_lab_device() {
    needs_root!();
    cook("A lab device", Way::Straight, |stage| {
        stage.device.ip("link set eth0 address 00:80:2f:0a:0b:0c");
        stage.device.ip("addr add 192.168.1.77/24 dev eth0");
    });
}

#[test]
fn behind_nat() {
    needs_root!();
    cook("Behind NAT", Way::Nat, |_| {});
}

#[test]
fn ipv6_only() {
    needs_root!();
    cook("IPv6 only", Way::OnlyIpv6, |_| {});
}

#[test]
fn into_a_container() {
    needs_root!();
    cook("Into a container", Way::Straight, |_| {});
}

/// As Docker's are: a process that runs has it, and a link to it is its name.
#[test]
fn into_a_container_that_is_there_already() {
    needs_root!();
    let mut container = Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap();
    let its = format!("/proc/{}/ns/net", container.id());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    until("it has its own", SOON, || fs::read_link(&its).is_ok_and(|to| to != own));
    let mut name = String::new();
    cook("Into a container", Way::Straight, |stage| {
        name = format!("/run/netns/{}-web", stage.server.name());
        symlink(&its, &name).unwrap();
    });
    let links = Command::new("nsenter").args([&format!("--net={its}"), "ip", "link"]).output().unwrap();
    container.kill().unwrap();
    container.wait().unwrap();
    fs::remove_file(name).unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    assert!(links.contains("lo:") && !links.contains("web0"), "{links}");
}

#[test]
fn into_a_virtual_machine() {
    needs_root!();
    cook("Into a virtual machine", Way::Straight, |stage| {
        // A guest's interface, as the bridge sees it.
        stage.server.ip("link add br-guest type bridge");
        stage.server.ip("link set eth1 master br-guest");
        stage.device.ip("link set eth0 address 52:54:00:aa:bb:cc");
        stage.device.ip("addr add 192.168.1.90/24 dev eth0");
    });
}

#[test]
fn a_whole_segment_by_bridges() {
    needs_root!();
    cook("A whole segment, by bridges", Way::Straight, |stage| {
        for (ns, port) in [(&stage.client, "eth0"), (&stage.server, "eth1")] {
            ns.ip("link add br0 type bridge");
            ns.ip(&format!("link set {port} master br0"));
            ns.ip("link set br0 up");
        }
        stage.device.ip("addr add 192.168.1.201/24 dev eth0");
    });
}

#[test]
fn on_a_client_whose_lan_is_a_bridge() {
    needs_root!();
    cook("On a client whose LAN is a bridge", Way::Straight, |stage| {
        stage.client.ip("link add br0 type bridge");
        stage.client.ip("link set eth0 master br0");
        stage.client.ip("link set br0 up");
    });
}
