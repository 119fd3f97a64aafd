//! Firewall rules that may drop the tunnel's datagrams. Best effort: rule sets are programs, and this reads their words.

use std::process::Command;

use super::finding::Findings;
use super::subject::Subject;
use crate::commands::Failure;
use crate::nic::Side;

/// Looks at nftables, or else at iptables.
pub fn examine(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    let (Some(side), Some(port)) = (subject.side(), subject.port()) else { return Ok(()) };
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // iptables mostly writes nftables' rules, which `nft` shows too.
    let doubt = match (said("nft", &["list", "ruleset"]), said("iptables-save", &[])) {
        (Some(rules), _) if !rules.trim().is_empty() => nftables(&rules, port, side),
        (_, Some(rules)) => iptables(&rules, port, side),
        (Some(_), None) => None,
        (None, None) => {
            return findings.note(
                "firewall",
                "no `nft` and no `iptables-save` here: the firewall's rules were not looked at",
                "install one of them to have them looked at",
            );
        }
    };
    match doubt {
        Some(what) if side == Side::Server => findings.warn(
            "firewall",
            what,
            format!("let the port in: `nft insert rule inet filter input udp dport {port} accept`, or `iptables -I INPUT -p udp --dport {port} -j ACCEPT`"),
        ),
        Some(what) => findings.warn(
            "firewall",
            what,
            format!("let it out: `nft insert rule inet filter output udp dport {port} accept`, or `iptables -I OUTPUT -p udp --dport {port} -j ACCEPT`"),
        ),
        None => findings.ok("firewall", format!("no rule here was found that would drop UDP port {port}")),
    }
}

/// What speaks against the port in `nft list ruleset`: a rule that names it and drops, or a chain that drops what no rule
/// names.
fn nftables(rules: &str, port: u16, side: Side) -> Option<String> {
    let hook = if side == Side::Server { "hook input" } else { "hook output" };
    let mut table = "";
    let mut chain: Option<(String, bool, bool)> = None;
    for line in rules.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(['{', ' ']);
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = Some((name.trim_end_matches(['{', ' ']).to_owned(), false, false));
        } else if line == "}" {
            if let Some((name, true, false)) = chain.take() {
                return Some(format!(
                    "the chain {name} of nftables' table {table} drops what no rule lets pass, and none names UDP port {port}"
                ));
            }
        } else if let Some((name, drops, named)) = &mut chain {
            *drops |= line.contains(hook) && line.contains("policy drop");
            if names(line, port) {
                *named = true;
                if line.contains("udp") && (line.ends_with("drop") || line.contains("reject")) {
                    return Some(format!(
                        "a rule in the chain {name} of nftables' table {table} drops UDP port {port}: `{line}`"
                    ));
                }
            }
        }
    }
    None
}

/// The same in `iptables-save`.
fn iptables(rules: &str, port: u16, side: Side) -> Option<String> {
    let chain = if side == Side::Server { "INPUT" } else { "OUTPUT" };
    let mut drops = false;
    for line in rules.lines() {
        drops |= line.starts_with(&format!(":{chain} DROP"));
        if line.starts_with(&format!("-A {chain} ")) && names(line, port) {
            if line.contains("-j DROP") || line.contains("-j REJECT") {
                return Some(format!("a rule of iptables drops UDP port {port}: `{line}`"));
            }
            drops = false;
        }
    }
    drops.then(|| format!("iptables drops what no rule lets pass in {chain}, and none names UDP port {port}"))
}

/// The port stands in the line as a number of its own.
fn names(line: &str, port: u16) -> bool {
    let port = port.to_string();
    line.contains("dport") && line.split(|c: char| !c.is_ascii_digit()).any(|number| number == port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROPPING: &str = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0; policy drop;\n\t\ttcp dport 22 accept\n\t}\n}\n";

    #[test]
    fn a_blocked_port_is_found_in_nftables() {
        let found = nftables(DROPPING, 1234, Side::Server).unwrap();
        assert!(found.contains("chain input") && found.contains("inet filter"), "{found}");
        let open = DROPPING.replace("tcp dport 22", "udp dport { 53, 1234 }");
        assert_eq!(nftables(&open, 1234, Side::Server), None);
        assert_eq!(nftables(DROPPING, 1234, Side::Client), None, "what comes in is nothing to a client");
        let rule = "table ip x {\n\tchain y {\n\t\ttype filter hook input priority 0; policy accept;\n\t\tudp dport 1234 counter drop\n\t}\n}\n";
        assert!(nftables(rule, 1234, Side::Server).unwrap().contains("counter drop"));
        assert_eq!(nftables(rule, 234, Side::Server), None);
    }

    #[test]
    fn a_blocked_port_is_found_in_iptables() {
        let dropping = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
        assert!(iptables(dropping, 1234, Side::Server).is_some());
        let open = dropping.replace("-p tcp --dport 22", "-p udp --dport 1234");
        assert_eq!(iptables(&open, 1234, Side::Server), None);
        let rule = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p udp -m udp --dport 1234 -j REJECT\n";
        assert!(iptables(rule, 1234, Side::Server).unwrap().contains("REJECT"));
    }
}
