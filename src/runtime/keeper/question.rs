//! What the tunnel asks of the keeper, as bytes: one for the question, then its parts.
//!
//! ```text
//! number: 4 bytes   name: length u8, bytes (0: none)   setting: key u8, value u8
//! interface: number | client u8 | table number (0: none) | name of its namespace | settings
//! ```

use std::str::FromStr;

use crate::nic::Traces;
use crate::nic::sysctl::Sysctl;
use crate::types::NetnsName;

/// What is asked, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Question {
    /// `/dev/net/tun`: namespace.
    Tun = b't',
    /// A macvtap's device: number, name.
    Macvtap = b'm',
    /// A socket for requests to a namespace, which is made where it is missing: namespace.
    Netlink = b'n',
    /// A socket that hears of events in a namespace: namespace.
    Events = b'e',
    /// A setting's file: key, namespace, interface.
    Sysctl = b'y',
    /// To remove the namespaces that killed processes have left.
    Sweep = b'w',
    /// To look after an interface: interface.
    Guard = b'g',
    /// Not to any more: number, namespace.
    Release = b'r',
    /// Whether a process is one of ours: number.
    Runs = b'l',
    /// To run a script: limit in milliseconds; with its text and a line.
    Script = b's',
    /// To run a program of `[hooks]`: which; with its variables and a line.
    Hook = b'h',
    /// To resolve a name: port, name; with a line.
    Resolve = b'd',
    /// To read the config again, for what the keeper goes by.
    Policy = b'p',
    /// To write an invited client's key into the config: the invite's key, the client's.
    Enrol = b'k',
    /// A socket that `tap-rs status` finds, and a descriptor that tells when it no longer does.
    #[cfg(feature = "full")]
    Listen = b'c',
}

impl Question {
    const ALL: &[Self] = &[
        Self::Tun,
        Self::Macvtap,
        Self::Netlink,
        Self::Events,
        Self::Sysctl,
        Self::Sweep,
        Self::Guard,
        Self::Release,
        Self::Runs,
        Self::Script,
        Self::Hook,
        Self::Resolve,
        Self::Policy,
        Self::Enrol,
        #[cfg(feature = "full")]
        Self::Listen,
    ];

    /// The question that a message begins with, and the rest of it.
    pub(super) fn parse(message: &[u8]) -> Option<(Self, Parts<'_>)> {
        let (tag, rest) = message.split_first()?;
        let question = Self::ALL.iter().copied().find(|q| *q as u8 == *tag)?;
        Some((question, Parts(rest)))
    }
}

/// An interface to look after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guarded {
    pub(super) netns: Option<NetnsName>,
    pub(super) traces: Traces,
}

impl Guarded {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Traces { index, client, table, sysctls } = &self.traces;
        let mut out = index.to_ne_bytes().to_vec();
        out.push(u8::from(*client));
        out.extend(table.unwrap_or(0).to_ne_bytes());
        out.extend(name(self.netns.as_ref().map(NetnsName::as_str)));
        out.extend(sysctls.iter().flat_map(|(key, before)| [*key as u8, *before]));
        out
    }

    pub(super) fn parse(parts: &mut Parts<'_>) -> Option<Self> {
        let index = parts.number()?;
        let client = parts.byte()? == 1;
        let table = parts.number().map(|n| (n != 0).then_some(n))?;
        let netns = parts.name()?;
        let mut sysctls = Vec::new();
        while let Some(key) = parts.byte() {
            sysctls.push((Sysctl::from_u8(key)?, parts.byte()?));
        }
        Some(Self { netns, traces: Traces { index, client, table, sysctls } })
    }
}

/// A name, or none, with its length before it.
pub(super) fn name(text: Option<&str>) -> Vec<u8> {
    let text = text.unwrap_or_default();
    let mut out = vec![u8::try_from(text.len()).unwrap_or(0)];
    out.extend(text.as_bytes());
    out
}

/// What is left to be read of a message.
pub(super) struct Parts<'a>(pub(super) &'a [u8]);

impl<'a> Parts<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*number))
    }

    /// `Some(None)`: no name is given. `None`: what is given is not one.
    pub(super) fn name<T: FromStr>(&mut self) -> Option<Option<T>> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        if text.is_empty() {
            return Some(None);
        }
        std::str::from_utf8(text).ok()?.parse().ok().map(Some)
    }

    pub(super) fn rest<T: FromStr>(&self) -> Option<T> {
        std::str::from_utf8(self.0).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_interface_to_look_after_crosses_as_it_is() {
        for netns in [None, Some("decoy7")] {
            for table in [None, Some(20_007)] {
                let sysctls = vec![(Sysctl::ArpIgnore, 0), (Sysctl::AcceptRa, 2)];
                let traces = Traces { index: 7, client: table.is_none(), table, sysctls };
                let guarded = Guarded { netns: netns.map(|n| n.parse().unwrap()), traces };
                let bytes = guarded.bytes();
                assert_eq!(Guarded::parse(&mut Parts(&bytes)), Some(guarded));
            }
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for bad in ["../x", ".", "a/b"] {
            let bytes = name(Some(bad));
            assert_eq!(Parts(&bytes).name::<NetnsName>(), None, "{bad}");
        }
        assert_eq!(Parts(&[9, b'a']).name::<NetnsName>(), None, "cut off");
        assert_eq!(Parts(&name(None)).name::<NetnsName>(), Some(None));
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Guarded::parse(&mut Parts(&bytes));
            let _ = Question::parse(&bytes);
        }
    }
}
