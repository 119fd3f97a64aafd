//! What a server's NIC finds around it in its own box: which network namespace it is in, and how it is routed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{ParseError, refuse};

/// How a server's NIC stands in the network stack of its box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicStack {
    /// Who sees to source routes.
    pub routing: Routing,
    /// The routers on the client's LAN that it reaches other networks by: at most one of each family, each in one of
    /// the NIC's subnets or link-local.
    pub gateways: Vec<IpAddr>,
    /// The network namespace that it lives in. `None`: the program's own.
    pub netns: Option<NetnsName>,
}

impl NicStack {
    /// The words that a command about the interface begins with, for people: `ip`, or `ip -n NETNS`.
    pub fn ip(&self) -> String {
        self.netns.as_ref().map_or_else(|| "ip".to_owned(), |netns| format!("ip -n {netns}"))
    }
}

/// Who sees to it that what comes in by a NIC is answered by the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// We do: a routing table for each NIC, rules by source address, the ARP sysctls of its own interface.
    Auto,
    /// The user does.
    #[default]
    None,
}

/// The name of a network namespace as `ip netns` knows it: 1 to 64 bytes of `[A-Za-z0-9_.-]`, not beginning with `.` or
/// `-`. It is a file's name in `/run/netns`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsName(String);

impl NetnsName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetnsName {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if s.is_empty() || s.len() > Self::MAX_LEN || s.starts_with(['.', '-']) || !s.chars().all(good) {
            return refuse(format!(
                "{s:?} cannot be the name of a network namespace; write 1 to {} letters, digits, '_', '.' and '-', a \
                 letter or digit first, like \"decoy7\"",
                Self::MAX_LEN
            ));
        }
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Display for NetnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NetnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespaces_name_leads_out_of_no_folder() {
        for good in ["decoy7", "a", "lab_1.x-y", &"n".repeat(64)] {
            assert_eq!(good.parse::<NetnsName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "-n", ".hidden", "a b", "é", &"n".repeat(65)] {
            assert!(bad.parse::<NetnsName>().is_err(), "{bad:?}");
        }
    }
}
