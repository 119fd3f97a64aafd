//! What a command line says of a NIC or of a time, for the commands that write configs.

use std::str::FromStr;
use std::time::Duration;

use crate::types::{MacAddr, Mtu, NicAddr, NicName, ParseError};

use super::edit::quoted;

/// A NIC, as far as it was said: `ip=192.168.1.150/24,mac=be:17:dd:5c:07:17,ifname=tap0,client_ifname=mv0,mtu=1400`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicArg {
    /// Its addresses; at least one.
    pub ip: Vec<NicAddr>,
    /// Its MAC.
    pub mac: Option<MacAddr>,
    /// Its name on the server.
    pub ifname: Option<NicName>,
    /// Its name on the client.
    pub client_ifname: Option<NicName>,
    /// Its MTU.
    pub mtu: Option<Mtu>,
}

impl FromStr for NicArg {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let mut nic = Self::default();
        for part in s.split(',') {
            // An address alone is understood, too.
            let (key, value) = part.split_once('=').unwrap_or(("ip", part));
            match key {
                "ip" => nic.ip.push(value.parse()?),
                "mac" => nic.mac = Some(value.parse()?),
                "ifname" => nic.ifname = Some(value.parse()?),
                "client_ifname" => nic.client_ifname = Some(value.parse()?),
                "mtu" => {
                    let bytes = value.parse::<u32>().ok().and_then(|n| Mtu::try_from(n).ok());
                    nic.mtu = Some(bytes.ok_or_else(|| ParseError(format!("{value:?} is no MTU")))?);
                }
                _ => {
                    return Err(ParseError(format!(
                        "{key:?} is nothing that a NIC has; write ip, mac, ifname, client_ifname or mtu"
                    )));
                }
            }
        }
        if let Some(bare) = nic.ip.iter().find(|ip| ip.prefix.is_none()) {
            return Err(ParseError(format!("{bare} has no prefix; write one like {bare}/24")));
        }
        if nic.ip.is_empty() {
            return Err(ParseError("a NIC needs an address, like ip=192.168.1.150/24".to_owned()));
        }
        Ok(nic)
    }
}

impl NicArg {
    /// The keys of a server's `[[clients.nics]]`. `ifname`, `mac`: what it has where nothing was said.
    pub fn keys(&self, ifname: &NicName, mac: MacAddr) -> Vec<(&'static str, String)> {
        let addrs: Vec<_> = self.ip.iter().map(|ip| quoted(&ip.to_string())).collect();
        let ip = match addrs.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let name = self.ifname.as_ref().unwrap_or(ifname);
        let mut keys = vec![("ifname", quoted(name.as_str()))];
        keys.extend(self.client_ifname.as_ref().map(|name| ("client_ifname", quoted(name.as_str()))));
        keys.push(("ip", ip));
        keys.push(("mac", quoted(&self.mac.unwrap_or(mac).to_string())));
        keys.extend(self.mtu.map(|mtu| ("mtu", mtu.to_string())));
        keys
    }
}

/// A span of time: `90s`, `30m`, `1h`, `7d`; 1 s to 365 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        const YEAR: u64 = 365 * 86_400;
        let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
        let seconds = units
            .iter()
            .find_map(|(unit, seconds)| s.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*seconds));
        match seconds {
            Some(n @ 1..=YEAR) => Ok(Self(Duration::from_secs(n))),
            _ => Err(ParseError(format!("{s:?} is no time from 1s to 365d; write one like 30m, 1h or 7d"))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_nic_is_read_as_a_config_has_it() {
        let nic: NicArg =
            "ip=10.0.0.7/24,ip=fd00::7/64,mac=be:17:dd:5c:07:17,client_ifname=mv0,mtu=1400".parse().unwrap();
        let keys = nic.keys(&"tap3".parse().unwrap(), "02:00:00:00:00:01".parse().unwrap());
        let text: Vec<_> = keys.iter().map(|(k, v)| format!("{k} = {v}")).collect();
        assert_eq!(
            text,
            [
                "ifname = \"tap3\"",
                "client_ifname = \"mv0\"",
                "ip = [\"10.0.0.7/24\", \"fd00::7/64\"]",
                "mac = \"be:17:dd:5c:07:17\"",
                "mtu = 1400"
            ]
        );
        assert_eq!("10.0.0.7/24".parse::<NicArg>().unwrap().ip.len(), 1);
    }

    #[test]
    fn what_is_no_nic_is_refused_with_what_to_write() {
        for (bad, word) in [
            ("mac=be:17:dd:5c:07:17", "needs an address"),
            ("ip=1", ""),
            ("10.0.0.7/24,name=x", "ifname"),
            ("10.0.0.7/24,mtu=9", "no MTU"),
        ] {
            assert!(bad.parse::<NicArg>().is_err_and(|e| e.0.contains(word)), "{bad}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))));
        }
        for bad in ["", "1", "h", "0s", "366d", "-1h", "1w", "99999999999999999999d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
