//! What the kernel does with what comes in by NICs.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use super::finding::Findings;
use super::links::{Links, Room};
use super::subject::View;
use crate::commands::Failure;

/// What a server's kernel does with the NICs of one namespace.
pub fn sysctls(room: &Room<'_>, nics: &[&View], findings: &mut Findings) -> Result<(), Failure> {
    let rules = rules();
    let shared = |nic: &View| nics.iter().any(|other| other.name != nic.name && share(nic, other));
    for nic in nics.iter().filter(|_| room.runs) {
        let (name, it) = (&nic.name, room.of(&nic.name));
        let v4 = |key: &str| effective("ipv4", name, key);
        if shared(nic) && v4("arp_filter") == Some(0) && v4("arp_ignore") == Some(0) {
            let what = format!(
                "{it} answers ARP for the addresses of other NICs in its subnet (arp_filter, arp_ignore are 0)"
            );
            findings.warn(
                "sysctl",
                what,
                format!(
                    "{}, or see configs/sysctl.conf",
                    room.sysctl(&format!("net.ipv4.conf.{name}.arp_ignore=1"))
                ),
            )?;
        }
        let routed = rules.as_ref().is_none_or(|rules| nic.addrs.iter().all(|(ip, _)| has_rule(rules, *ip)));
        if shared(nic) && !routed {
            let what = format!(
                "{it} shares its subnet with other NICs and has no routing rule of its own: its answers leave by another"
            );
            findings.warn(
                "sysctl",
                what,
                "write routing = \"auto\" in the server's file, or make a table for each NIC as docs/ROUTING.md says",
            )?;
        }
        if shared(nic) && !routed && v4("rp_filter") == Some(1) {
            let what = format!(
                "{it} drops what the route back to would leave by another NIC (rp_filter is 1, strict)"
            );
            findings.warn("sysctl", what, room.sysctl(&format!("net.ipv4.conf.{name}.rp_filter=2")))?;
        }
        let v6 = nic.addrs.iter().any(|(ip, _)| ip.is_ipv6());
        if v6 && read("ipv6", name, "disable_ipv6") == Some(1) {
            let what = format!("{it} has an IPv6 address in its config, and IPv6 is off on it");
            findings.broken("sysctl", what, room.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6=0")))?;
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
pub fn bridges(links: &Links, nics: &[&View], findings: &mut Findings) -> Result<(), Failure> {
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
