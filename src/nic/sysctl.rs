//! The kernel's settings for one interface, in `/proc/sys/net/*/conf`.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Sysctl {
    /// 1: answer ARP requests only for addresses of the interface that they came in by.
    ArpIgnore = 1,
    /// 2: ask by ARP only with an address of the interface that asks.
    ArpAnnounce = 2,
    /// 1: drop packets that would not be answered by the interface that they came in by; 2: only those that would not be
    /// answered at all.
    RpFilter = 3,
    /// 0: take no addresses and routers from router advertisements.
    AcceptRa = 4,
    /// 1: no IPv6 on the interface.
    DisableIpv6 = 5,
}

impl Sysctl {
    const ALL: [Self; 5] =
        [Self::ArpIgnore, Self::ArpAnnounce, Self::RpFilter, Self::AcceptRa, Self::DisableIpv6];

    /// The setting with this number.
    pub fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|key| *key as u8 == n)
    }

    const fn key(self) -> (&'static str, &'static str) {
        match self {
            Self::ArpIgnore => ("ipv4", "arp_ignore"),
            Self::ArpAnnounce => ("ipv4", "arp_announce"),
            Self::RpFilter => ("ipv4", "rp_filter"),
            Self::AcceptRa => ("ipv6", "accept_ra"),
            Self::DisableIpv6 => ("ipv6", "disable_ipv6"),
        }
    }

    /// Its file for an interface, or for `all` of them together, of the calling thread's network namespace. Open, it stays with this very interface, in
    /// whatever namespace it is used.
    ///
    /// # Errors
    /// There is no such interface, no IPv6, or `/proc/sys` is read-only, as in many containers.
    pub fn open(self, interface: &str) -> io::Result<File> {
        File::options().read(true).write(true).open(self.path(interface))
    }

    fn path(self, interface: &str) -> String {
        let (family, key) = self.key();
        format!("/proc/sys/net/{family}/conf/{interface}/{key}")
    }
}

/// The value of a setting; 255 where it is none of those above.
pub fn read(file: &File) -> io::Result<u8> {
    let mut room = [0; 16];
    let n = file.read_at(&mut room, 0)?;
    let text = std::str::from_utf8(room.get(..n).unwrap_or_default()).map_err(|_| ErrorKind::InvalidData)?;
    Ok(text.trim().parse().unwrap_or(u8::MAX))
}

/// Changes a setting.
pub fn write(file: &File, value: u8) -> io::Result<()> {
    file.write_all_at(value.to_string().as_bytes(), 0)
}
