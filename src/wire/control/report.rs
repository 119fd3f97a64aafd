//! REPORT: how a client's box is doing.

use super::reader::Reader;
use crate::types::NicId;

/// NICs in one REPORT at the most; a client with more sends several.
pub const REPORT_NICS: usize = 28;

/// How the client box is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One-minute load average in hundredths.
    pub load: u32,
    /// Seconds since the client program started.
    pub uptime: u32,
    /// Memory of the box, in kilobytes: all of it, and what is available.
    pub memory: (u64, u64),
    /// Its NICs, [`REPORT_NICS`] at the most.
    pub nics: Vec<NicReport>,
}

/// What one NIC has carried since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicReport {
    /// Which NIC.
    pub nic: u16,
    /// Frames and bytes from the LAN.
    pub uplink: (u64, u64),
    /// Frames and bytes to the LAN.
    pub downlink: (u64, u64),
}

impl Report {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let nics = self.nics.get(..REPORT_NICS).unwrap_or(&self.nics);
        out.push(7);
        out.extend(self.load.to_le_bytes());
        out.extend(self.uptime.to_le_bytes());
        out.extend(self.memory.0.to_le_bytes());
        out.extend(self.memory.1.to_le_bytes());
        out.push(nics.len() as u8);
        for n in nics {
            out.extend(n.nic.to_le_bytes());
            for v in [n.uplink.0, n.uplink.1, n.downlink.0, n.downlink.1] {
                out.extend(v.to_le_bytes());
            }
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let (load, uptime, memory) = (r.u32()?, r.u32()?, (r.u64()?, r.u64()?));
        let count = usize::from(r.u8()?);
        if count > REPORT_NICS {
            return None;
        }
        let nic = |r: &mut Reader<'_>| {
            Some(NicReport { nic: r.u16()?, uplink: (r.u64()?, r.u64()?), downlink: (r.u64()?, r.u64()?) })
        };
        let nics = (0..count).map(|_| nic(r)).collect::<Option<_>>()?;
        Some(Self { load, uptime, memory, nics })
    }
}

impl NicReport {
    /// The NIC's number.
    pub fn id(&self) -> NicId {
        NicId(self.nic)
    }
}
