//! Interfaces: that they are there and up, as long as they should be, without addresses that do not belong there, and what
//! the kernel does with what comes in by them.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use super::finding::Findings;
use super::subject::{Subject, View};
use crate::commands::Failure;
use crate::nic::netlink::{Link, Netlink};
use crate::nic::{NicError, Side, maker};
use crate::sys::process::is_like_us;
use crate::types::OffloadMode;

/// NICs that are spoken of one by one; of more, only what is wrong.
const FEW: usize = 16;

/// Looks at every NIC, at what stands beside it, and at what was left behind.
pub fn examine(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    let Some(side) = subject.side() else { return Ok(()) };
    let links = match Links::read() {
        Ok(links) => links,
        Err(e) => {
            return findings.warn("interface", format!("interfaces cannot be listed: {e}"), "run as root");
        }
    };
    // Those in namespaces of their own are out of sight.
    let nics: Vec<_> = subject.nics().into_iter().filter(|nic| nic.netns.is_none()).collect();
    let few = nics.len() <= FEW;
    for nic in &nics {
        let before = findings.count();
        own(&links, nic, side, subject.running.is_some(), findings)?;
        parent(&links, nic, findings)?;
        addresses(&links, nic, side, findings)?;
        if few && findings.count() == before && subject.running.is_some() {
            findings.ok(
                "interface",
                format!("{}: there, with MTU {}, and nothing that is not its own", nic.name, nic.mtu),
            )?;
        }
    }
    conflicts(subject, findings)?;
    offloads(subject, findings)?;
    leftovers(&links, &nics, findings)?;
    if side == Side::Server {
        sysctls(&nics, subject.running.is_some(), findings)
    } else {
        bridges(&links, &nics, findings)
    }
}

/// Every interface, and its addresses.
struct Links {
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

    fn named(&self, name: &str) -> Option<&Link> {
        self.all.iter().find(|link| link.name == name)
    }

    fn numbered(&self, index: u32) -> Option<&Link> {
        self.all.iter().find(|link| link.index == index)
    }
}

fn own(links: &Links, nic: &View, side: Side, runs: bool, findings: &mut Findings) -> Result<(), Failure> {
    let Some(link) = links.named(&nic.name) else {
        if !runs {
            return Ok(());
        }
        return findings.broken(
            "interface",
            format!("{} is gone", nic.name),
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
            nic.name,
            link.kind_name(),
            nic.mode
        );
        return findings.broken("interface", what, format!("choose another `ifname`, or rename that one: `ip link set {0} down && ip link set {0} name {0}-old`", nic.name));
    }
    if runs && side == Side::Server && !link.is_up() {
        findings.broken(
            "interface",
            format!("{} is down", nic.name),
            format!("`ip link set {} up`", nic.name),
        )?;
    }
    if runs && link.mtu != u32::from(nic.mtu) {
        findings.warn(
            "interface",
            format!("{} has MTU {}, and should have {}", nic.name, link.mtu, nic.mtu),
            format!("`ip link set {} mtu {}`", nic.name, nic.mtu),
        )?;
    }
    Ok(())
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

fn addresses(links: &Links, nic: &View, side: Side, findings: &mut Findings) -> Result<(), Failure> {
    for (index, ip) in &links.addresses {
        let Some(link) = links.numbered(*index) else { continue };
        let (own, its) = (link.name == nic.name, nic.addrs.iter().any(|(addr, _)| addr == ip));
        let del = format!("`ip addr del {ip} dev {}`", link.name);
        if own && side == Side::Client && !is_link_local(*ip) {
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
        } else if own && side == Side::Server && !its && !is_link_local(*ip) {
            let what = format!(
                "{} has the address {ip}, which its config does not name: frames from it may be dropped",
                nic.name
            );
            findings.warn("address", what, format!("add it to `ip`, or {del}"))?;
        }
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
fn leftovers(links: &Links, nics: &[View], findings: &mut Findings) -> Result<(), Failure> {
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

/// What a server's kernel does with several NICs.
fn sysctls(nics: &[View], runs: bool, findings: &mut Findings) -> Result<(), Failure> {
    let rules = rules();
    let shared = |nic: &View| nics.iter().any(|other| other.name != nic.name && share(nic, other));
    for nic in nics.iter().filter(|_| runs) {
        let name = &nic.name;
        let v4 = |key: &str| effective("ipv4", name, key);
        if shared(nic) && v4("arp_filter") == Some(0) && v4("arp_ignore") == Some(0) {
            let what = format!(
                "{name} answers ARP for the addresses of other NICs in its subnet (arp_filter, arp_ignore are 0)"
            );
            findings.warn(
                "sysctl",
                what,
                format!("`sysctl -w net.ipv4.conf.{name}.arp_ignore=1`, or see configs/sysctl.conf"),
            )?;
        }
        let routed = rules.as_ref().is_none_or(|rules| nic.addrs.iter().all(|(ip, _)| has_rule(rules, *ip)));
        if shared(nic) && !routed {
            let what = format!(
                "{name} shares its subnet with other NICs and has no routing rule of its own: its answers leave by another"
            );
            findings.warn(
                "sysctl",
                what,
                "write routing = \"auto\" in the server's file, or make a table for each NIC as docs/ROUTING.md says",
            )?;
        }
        if shared(nic) && !routed && v4("rp_filter") == Some(1) {
            let what = format!(
                "{name} drops what the route back to would leave by another NIC (rp_filter is 1, strict)"
            );
            findings.warn("sysctl", what, format!("`sysctl -w net.ipv4.conf.{name}.rp_filter=2`"))?;
        }
        let v6 = nic.addrs.iter().any(|(ip, _)| ip.is_ipv6());
        if v6 && read("ipv6", name, "disable_ipv6") == Some(1) {
            let what = format!("{name} has an IPv6 address in its config, and IPv6 is off on it");
            findings.broken("sysctl", what, format!("`sysctl -w net.ipv6.conf.{name}.disable_ipv6=0`"))?;
        }
    }
    Ok(())
}

/// The routing rules of both families; `None` without `ip`.
fn rules() -> Option<String> {
    let of = |family: &str| {
        let output = Command::new("ip").args([family, "rule"]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    Some(of("-4")? + &of("-6").unwrap_or_default())
}

/// A rule is about what comes from this address.
fn has_rule(rules: &str, ip: IpAddr) -> bool {
    rules.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.find(|word| *word == "from").and(words.next()).is_some_and(|from| from == ip.to_string())
    })
}

/// In one subnet.
fn share(a: &View, b: &View) -> bool {
    let net = |ip: IpAddr, len: u8| match ip {
        IpAddr::V4(ip) => {
            (4, u128::from(ip.to_bits().checked_shr(32u32.saturating_sub(len.into())).unwrap_or(0)))
        }
        IpAddr::V6(ip) => (6, ip.to_bits().checked_shr(128u32.saturating_sub(len.into())).unwrap_or(0)),
    };
    let nets =
        |nic: &View| nic.addrs.iter().filter_map(|(ip, len)| Some(net(*ip, (*len)?))).collect::<Vec<_>>();
    let others = nets(b);
    nets(a).iter().any(|n| others.contains(n))
}

/// The kernel goes by the larger of what holds for all and for one.
fn effective(family: &str, name: &str, key: &str) -> Option<u32> {
    Some(read(family, "all", key)?.max(read(family, name, key)?))
}

fn read(family: &str, name: &str, key: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/sys/net/{family}/conf/{name}/{key}")).ok()?.trim().parse().ok()
}

/// A client's tap in a bridge: what the host's firewall does to bridged frames.
fn bridges(links: &Links, nics: &[View], findings: &mut Findings) -> Result<(), Failure> {
    let bridged = nics.iter().filter_map(|nic| links.named(&nic.name)).any(|link| link.master.is_some());
    let filtered =
        fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|v| v.trim() == "1");
    if bridged && filtered {
        findings.warn(
            "sysctl",
            "the firewall of this box filters what its bridge forwards (bridge-nf-call-iptables is 1)",
            "`sysctl -w net.bridge.bridge-nf-call-iptables=0`",
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NicMode;

    fn nic(name: &str, addr: &str) -> View {
        let addr: crate::types::NicAddr = addr.parse().unwrap();
        View {
            name: name.into(),
            addrs: vec![(addr.ip, addr.prefix)],
            mtu: 1500,
            mode: NicMode::Tap,
            parent: None,
            netns: None,
        }
    }

    #[test]
    fn nics_of_one_subnet_are_told_from_others() {
        assert!(share(&nic("a", "10.0.0.1/24"), &nic("b", "10.0.0.9/24")));
        assert!(share(&nic("a", "fd00::1/64"), &nic("b", "fd00::2/64")));
        for (a, b) in
            [("10.0.0.1/24", "10.0.1.1/24"), ("10.0.0.1/24", "fd00::1/64"), ("10.0.0.1", "10.0.0.1/32")]
        {
            assert!(!share(&nic("a", a), &nic("b", b)), "{a} {b}");
        }
    }
}
