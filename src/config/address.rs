//! Where the server is: an address or a DNS name, and a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::types::ParseError;

/// Who answers at the far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A DNS name (RFC 1035, section 2.3.1, and underscores), to be resolved again when the server cannot be reached.
    Name(String),
}

/// A host and its UDP port, 1 to 65535: `192.0.2.1:1234`, `[2001:db8::1]:1234` or `tunnel.example.net:1234`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddr {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl FromStr for ServerAddr {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        if let Ok(addr) = s.parse::<SocketAddr>() {
            return Self::from_socket(addr);
        }
        let Some((host, port)) = s.rsplit_once(':') else {
            return refuse(format!("{s:?} has no port; write one like \"{}:1234\"", s.escape_debug()));
        };
        if host.contains(':') && !host.starts_with('[') {
            return refuse(format!(
                "{s:?} is ambiguous; put an IPv6 address in brackets, like \"[2001:db8::1]:1234\""
            ));
        }
        if !is_dns_name(host) {
            return refuse(format!(
                "{host:?} is neither an address nor a DNS name; write one like \"192.0.2.1:1234\" or \"tunnel.example.net:1234\""
            ));
        }
        match port.parse() {
            Ok(port @ 1..) => Ok(Self { host: Host::Name(host.to_owned()), port }),
            _ => refuse(format!("the port in {s:?} must be 1 to 65535")),
        }
    }
}

impl ServerAddr {
    fn from_socket(addr: SocketAddr) -> Result<Self, ParseError> {
        if addr.port() == 0 {
            return refuse(format!("the port in \"{addr}\" must be 1 to 65535"));
        }
        if addr.ip().is_unspecified() || addr.ip().is_multicast() {
            return refuse(format!("{} is not the address of one server; write the server's own", addr.ip()));
        }
        Ok(Self { host: Host::Ip(addr.ip()), port: addr.port() })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// An address to bind, with a port from 1 to 65535.
pub(super) fn bind_address(s: &str) -> Result<SocketAddr, ParseError> {
    match s.parse::<SocketAddr>() {
        Ok(addr) if addr.port() == 0 => refuse(format!("the port in {s:?} must be 1 to 65535")),
        Ok(addr) if addr.ip().is_multicast() => {
            refuse(format!("{} is not an address of this box", addr.ip()))
        }
        Ok(addr) => Ok(addr),
        Err(_) => refuse(format!(
            "{s:?} is not an address with a port; the server takes one of its own, like \"0.0.0.0:1234\" or \"[::]:1234\""
        )),
    }
}

fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name that ends in a number is a mistyped IPv4 address (RFC 3696, section 2).
    let ends_in_number = name.rsplit('.').next().is_some_and(|l| l.chars().all(|c| c.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(is_label) && !ends_in_number
}

fn refuse<T>(why: String) -> Result<T, ParseError> {
    Err(ParseError(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_addresses_or_names_with_a_port() {
        for good in [
            "192.0.2.1:1234",
            "[2001:db8::1]:1",
            "tunnel.example.net:65535",
            "localhost:1234",
            "a_b.example.:9",
        ] {
            assert_eq!(good.parse::<ServerAddr>().map(|a| a.to_string()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn what_is_no_server_is_refused_with_the_form_to_write() {
        for (bad, word) in [
            ("192.0.2.1", "no port"),
            ("tunnel.example.net", "no port"),
            ("2001:db8::1:1234", "in brackets"),
            ("192.0.2.1000:1234", "neither"),
            ("tunnel.example.net:0", "1 to 65535"),
            ("tunnel.example.net:70000", "1 to 65535"),
            ("192.0.2.1:0", "1 to 65535"),
            ("0.0.0.0:1234", "the server's own"),
            ("-x.example:1", "neither"),
            ("exämple.net:1", "neither"),
            (":1234", "neither"),
        ] {
            let why = bad.parse::<ServerAddr>().map_err(|e| e.0);
            assert!(why.as_ref().is_err_and(|e| e.contains(word)), "{bad}: {why:?}");
        }
    }

    #[test]
    fn a_server_binds_to_an_address_and_not_to_a_name() {
        assert!(bind_address("[::]:1234").is_ok() && bind_address("0.0.0.0:1").is_ok());
        for bad in ["tunnel.example.net:1234", "0.0.0.0", "0.0.0.0:0", "224.0.0.1:9", ""] {
            assert!(bind_address(bad).is_err(), "{bad}");
        }
    }
}
