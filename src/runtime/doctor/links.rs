//! Interfaces: that they are there and up, as long as they should be, and without addresses that do not belong there; here and
//! in the namespaces that NICs have to themselves.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::finding::Findings;
use super::stack::{bridges, sysctls};
use super::subject::{Subject, View};
use crate::commands::Failure;
use crate::nic::netlink::{Link, Netlink};
use crate::nic::{NicError, Side, maker, netns};
use crate::sys::process::is_like_us;
use crate::types::{NetnsName, OffloadMode};

/// NICs that are spoken of one by one; of more, only what is wrong.
const FEW: usize = 16;

/// Looks at every NIC where it lives, at what stands beside it, and at what was left behind. Without `here`, tap-rs and those of
/// its NICs that have no namespace of their own are out of sight.
pub fn examine(subject: &Subject, here: bool, findings: &mut Findings) -> Result<(), Failure> {
    let Some(side) = subject.side() else { return Ok(()) };
    let all = subject.nics();
    let mut rooms = BTreeMap::<Option<&str>, Vec<&View>>::from([(None, Vec::new())]);
    for nic in &all {
        rooms.entry(nic.netns.as_deref()).or_default().push(nic);
    }
    for (netns, nics) in rooms {
        let room = Room { netns, side, runs: subject.running.is_some(), few: all.len() <= FEW };
        match netns {
            None if here => room.examine(&nics, findings)?,
            None => {}
            Some(name) => room.enter(name, &nics, findings)?,
        }
    }
    conflicts(subject, findings)?;
    offloads(subject, findings)
}

/// A network namespace: this one, or one of NICs' own.
pub struct Room<'a> {
    /// Its name, where it is not this one.
    pub netns: Option<&'a str>,
    /// Which end of the tunnel this is.
    pub side: Side,
    /// A tap-rs runs with these NICs.
    pub runs: bool,
    few: bool,
}

impl Room<'_> {
    /// `ip` with these words, in here.
    pub fn ip(&self, words: &str) -> String {
        let there = self.netns.map(|netns| format!("-n {netns} ")).unwrap_or_default();
        format!("`ip {there}{words}`")
    }

    /// Sets one of this namespace's settings.
    pub fn sysctl(&self, setting: &str) -> String {
        let there = self.netns.map(|netns| format!("ip netns exec {netns} ")).unwrap_or_default();
        format!("`{there}sysctl -w {setting}`")
    }

    /// An interface's name, and where it is.
    pub fn of(&self, name: &str) -> String {
        self.netns.map_or_else(|| name.to_owned(), |netns| format!("{name} in {netns}"))
    }

    /// Looks from inside.
    fn enter(&self, name: &str, nics: &[&View], findings: &mut Findings) -> Result<(), Failure> {
        let opened = name
            .parse::<NetnsName>()
            .map_err(|e| io::Error::other(e.to_string()))
            .and_then(|name| netns::open(&name));
        let refused = match opened {
            Ok(there) => {
                let mut done = Ok(());
                let entered = netns::within(&there, || {
                    done = self.examine(nics, findings);
                    Ok(())
                });
                match entered {
                    Ok(()) => return done,
                    Err(e) => e,
                }
            }
            // It is made at the start.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.runs => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let names = nics.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>().join(", ");
                let what = format!(
                    "the network namespace {name} has lost its name, so that nobody can be started in it; {names} lives on in it"
                );
                return findings.broken(
                    "namespace",
                    what,
                    "restart tap-rs, which makes it again; somebody has said `ip netns del`",
                );
            }
            Err(e) => e,
        };
        findings.warn(
            "namespace",
            format!("the network namespace {name} cannot be looked into: {refused}"),
            "run as root, outside of containers",
        )
    }

    fn examine(&self, nics: &[&View], findings: &mut Findings) -> Result<(), Failure> {
        let links = match Links::read() {
            Ok(links) => links,
            Err(e) => {
                return findings.warn(
                    "interface",
                    format!("interfaces cannot be listed: {e}"),
                    "run as root",
                );
            }
        };
        for nic in nics {
            let before = findings.count();
            self.own(&links, nic, findings)?;
            parent(&links, nic, findings)?;
            self.addresses(&links, nic, findings)?;
            if self.few && findings.count() == before && self.runs {
                findings.ok(
                    "interface",
                    format!(
                        "{}: there, with MTU {}, and nothing that is not its own",
                        self.of(&nic.name),
                        nic.mtu
                    ),
                )?;
            }
        }
        leftovers(&links, nics, findings)?;
        match self.side {
            Side::Server => sysctls(self, nics, findings),
            Side::Client => bridges(&links, nics, findings),
        }
    }

    fn own(&self, links: &Links, nic: &View, findings: &mut Findings) -> Result<(), Failure> {
        let Some(link) = links.named(&nic.name) else {
            if !self.runs {
                return Ok(());
            }
            return findings.broken(
                "interface",
                format!("{} is gone", self.of(&nic.name)),
                "tap-rs makes it again as soon as it can; its log says what is in the way",
            );
        };
        let kind = match nic.mode {
            crate::types::NicMode::Tap => "tun",
            crate::types::NicMode::Macvtap => "macvtap",
        };
        if link.kind_name() != kind {
            let what = format!(
                "{} is a {} interface, and the config wants to make a {} of this name",
                self.of(&nic.name),
                link.kind_name(),
                nic.mode
            );
            let (down, rename) = (
                self.ip(&format!("link set {} down", nic.name)),
                self.ip(&format!("link set {0} name {0}-old", nic.name)),
            );
            let mend = format!("choose another `ifname`, or rename that one: {down} and {rename}");
            return findings.broken("interface", what, mend);
        }
        if self.runs && self.side == Side::Server && !link.is_up() {
            findings.broken(
                "interface",
                format!("{} is down", self.of(&nic.name)),
                self.ip(&format!("link set {} up", nic.name)),
            )?;
        }
        if self.runs && link.mtu != u32::from(nic.mtu) {
            findings.warn(
                "interface",
                format!("{} has MTU {}, and should have {}", self.of(&nic.name), link.mtu, nic.mtu),
                self.ip(&format!("link set {} mtu {}", nic.name, nic.mtu)),
            )?;
        }
        Ok(())
    }

    fn addresses(&self, links: &Links, nic: &View, findings: &mut Findings) -> Result<(), Failure> {
        for (index, ip) in &links.addresses {
            let Some(link) = links.numbered(*index) else { continue };
            let (own, its) = (link.name == nic.name, nic.addrs.iter().any(|(addr, _)| addr == ip));
            let del = self.ip(&format!("addr del {ip} dev {}", link.name));
            if own && self.side == Side::Client && !is_link_local(*ip) {
                let what = format!(
                    "{} has the address {ip} here, so this box answers for it instead of the server",
                    nic.name
                );
                findings.broken("address", what, del)?;
            } else if !own && its {
                let what = format!(
                    "{ip} is {}'s, and {} has it as well: this box keeps what is for it",
                    nic.name, link.name
                );
                findings.broken("address", what, del)?;
            } else if own && self.side == Side::Server && !its && !is_link_local(*ip) {
                let what = format!(
                    "{} has the address {ip}, which its config does not name: frames from it may be dropped",
                    self.of(&nic.name)
                );
                findings.warn("address", what, format!("name it in the config, on both sides, or {del}"))?;
            }
        }
        Ok(())
    }
}

/// Every interface, and its addresses.
pub struct Links {
    all: Vec<Link>,
    addresses: Vec<(u32, IpAddr)>,
}

impl Links {
    fn read() -> Result<Self, NicError> {
        let mut netlink = Netlink::open().map_err(NicError::Netlink)?;
        let all = netlink.links()?;
        let mut addresses = Vec::new();
        for link in &all {
            addresses.extend(netlink.addresses(link.index)?.into_iter().map(|a| (link.index, a.ip)));
        }
        Ok(Self { all, addresses })
    }

    /// The interface of this name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.all.iter().find(|link| link.name == name)
    }

    fn numbered(&self, index: u32) -> Option<&Link> {
        self.all.iter().find(|link| link.index == index)
    }
}

fn parent(links: &Links, nic: &View, findings: &mut Findings) -> Result<(), Failure> {
    let there =
        links.named(&nic.name).filter(|l| !l.parent_elsewhere).and_then(|l| links.numbered(l.parent?));
    let parent = match (there, &nic.parent) {
        (Some(parent), _) => parent,
        (None, Some(name)) => match links.named(name) {
            Some(parent) => parent,
            None => {
                let what = format!("{name}, on which {} is to be made, does not exist", nic.name);
                return findings.broken(
                    "interface",
                    what,
                    "`ip link` shows those there are; write one as `parent`",
                );
            }
        },
        (None, None) => return Ok(()),
    };
    let name = &parent.name;
    if parent.mtu < nic.mtu.into() {
        let what = format!(
            "{} is to have MTU {}, and {name}, which it stands on, has {}",
            nic.name, nic.mtu, parent.mtu
        );
        let mend =
            format!("`ip link set {name} mtu {}`, or write mtu = {} on both sides", nic.mtu, parent.mtu);
        findings.broken("mtu", what, mend)?;
    }
    if !parent.is_up() {
        return findings.broken(
            "interface",
            format!("{name}, which {} stands on, is down", nic.name),
            format!("`ip link set {name} up`"),
        );
    }
    if !parent.has_carrier() {
        return findings.broken(
            "interface",
            format!("{name}, which {} stands on, has no link", nic.name),
            "plug its cable in, at both ends",
        );
    }
    Ok(())
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Addresses that another station of the LAN has.
fn conflicts(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    for nic in subject.running.iter().flat_map(|s| &s.nics) {
        if let Some(by) = &nic.conflict {
            let what = format!("{} stays down: {by}", nic.name);
            findings.broken(
                "address",
                what,
                "switch that station off, or give the NIC another address on both sides",
            )?;
        }
    }
    Ok(())
}

/// What the kernel leaves to us, and we to it.
fn offloads(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    let wanted = subject.config().is_some_and(|config| config.common().offload == OffloadMode::Auto);
    for nic in subject.running.iter().flat_map(|s| &s.nics) {
        if wanted && nic.state != "gone" && !nic.offload.contains("TCP") {
            let what =
                format!("{} has no offloads of TCP ({}): everything works, slower", nic.name, nic.offload);
            findings.note("offload", what, "use a kernel from 2.6.27 on for TCP, from 6.2 on for UDP")?;
        }
    }
    Ok(())
}

/// Macvtaps whose process has ended.
fn leftovers(links: &Links, nics: &[&View], findings: &mut Findings) -> Result<(), Failure> {
    for link in &links.all {
        let ours = nics.iter().any(|nic| nic.name == link.name);
        if let Some(pid) = maker(link).filter(|pid| !ours && !is_like_us(*pid)) {
            let what = format!(
                "{} was made by a tap-rs that is no more (process {pid}), and still takes its MAC's frames",
                link.name
            );
            findings.warn("interface", what, format!("`ip link del {}`", link.name))?;
        }
    }
    Ok(())
}
