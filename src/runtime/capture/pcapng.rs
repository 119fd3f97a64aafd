//! pcapng (draft-ietf-opsawg-pcapng): one section, one interface, a block for each frame.
//!
//! Super-frames are written whole, as a capture on the interface itself would have them: `snaplen` is large enough.

use std::io::{self, Write};
use std::time::SystemTime;

use super::stream::{Head, Note, Shown};
use crate::dataplane::capture::Way;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;

/// Option numbers. Each kind of block has its own, but for the comment.
const COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_MAC: u16 = 6;
const IF_TSRESOL: u16 = 9;
const SHB_USERAPPL: u16 = 4;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Writes the section and the interface.
pub fn start(out: &mut impl Write, head: &Head, snaplen: u32) -> io::Result<()> {
    let mut section = Vec::new();
    section.extend(BYTE_ORDER.to_le_bytes());
    section.extend(1u16.to_le_bytes());
    section.extend(0u16.to_le_bytes());
    // Its length is not known.
    section.extend(u64::MAX.to_le_bytes());
    option(&mut section, SHB_USERAPPL, concat!("tap-rs ", env!("CARGO_PKG_VERSION")).as_bytes());
    block(out, SECTION, section)?;

    let mut interface = Vec::new();
    interface.extend(ETHERNET.to_le_bytes());
    interface.extend(0u16.to_le_bytes());
    interface.extend(snaplen.to_le_bytes());
    option(&mut interface, IF_NAME, head.nic.as_bytes());
    let what = format!("{} of {}, seen at the {}", head.mode, head.peer, head.role);
    option(&mut interface, IF_DESCRIPTION, what.as_bytes());
    if let Some(mac) = head.mac() {
        option(&mut interface, IF_MAC, &mac.0);
    }
    // Nanoseconds.
    option(&mut interface, IF_TSRESOL, &[9]);
    block(out, INTERFACE, interface)
}

/// Writes a frame. `missed`: frames lost between the one before and this one.
pub fn frame(out: &mut impl Write, frame: &Shown, missed: u64) -> io::Result<()> {
    let mut packet = Vec::with_capacity(frame.bytes.len().saturating_add(96));
    packet.extend(0u32.to_le_bytes());
    packet.extend(stamp(frame.at));
    packet.extend(u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    packet.extend(u32::try_from(frame.total).unwrap_or(u32::MAX).to_le_bytes());
    packet.extend(&frame.bytes);
    pad(&mut packet);
    // Bits 0 and 1: 1 inbound, 2 outbound.
    let way: u32 = if frame.way == Way::In { 1 } else { 2 };
    option(&mut packet, EPB_FLAGS, &way.to_le_bytes());
    if missed > 0 {
        option(&mut packet, EPB_DROPCOUNT, &missed.to_le_bytes());
    }
    let comment = match &frame.note {
        Note::Passed => None,
        Note::Dropped(reason) => Some(format!("dropped: {reason}")),
        Note::Answered => Some("answered by the client itself".to_owned()),
        Note::Probe => Some("a marked frame of tap-rs doctor".to_owned()),
    };
    if let Some(comment) = comment {
        option(&mut packet, COMMENT, comment.as_bytes());
    }
    block(out, PACKET, packet)
}

/// Writes how many frames there were, and how many of them the capture has lost.
pub fn finish(out: &mut impl Write, at: SystemTime, seen: u64, lost: u64) -> io::Result<()> {
    let mut statistics = Vec::new();
    statistics.extend(0u32.to_le_bytes());
    statistics.extend(stamp(at));
    option(&mut statistics, ISB_IFRECV, &seen.saturating_add(lost).to_le_bytes());
    option(&mut statistics, ISB_IFDROP, &lost.to_le_bytes());
    block(out, STATISTICS, statistics)
}

/// A block whose body may have options at its end.
fn block(out: &mut impl Write, kind: u32, mut body: Vec<u8>) -> io::Result<()> {
    // opt_endofopt
    body.extend([0; 4]);
    let length = u32::try_from(body.len().saturating_add(12)).unwrap_or(u32::MAX).to_le_bytes();
    out.write_all(&[&kind.to_le_bytes()[..], &length, &body, &length].concat())
}

fn option(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(kind.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(value);
    pad(body);
}

/// To four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The high half first.
fn stamp(at: SystemTime) -> [u8; 8] {
    let nanos = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    (nanos.rotate_left(32)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Kind and body of each block of a file.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let number = |b: &[u8]| u32::from_le_bytes(b[..4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = number(&file[4..]) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(number(&file[length - 4..]) as usize, length, "the length stands at both ends");
            blocks.push((number(file), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn a_file_has_what_wireshark_reads() {
        let head = Head {
            nic: "mv0".into(),
            peer: "server:1234".into(),
            role: "client".into(),
            mac: "be:17:dd:5c:07:17".into(),
            mode: "macvtap".into(),
        };
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(0x0102_0304_0506_0708);
        let shown = Shown {
            at,
            lost: 2,
            total: 61,
            gso: 0,
            way: Way::Out,
            note: Note::Dropped("storm".into()),
            bytes: vec![0xaa; 61],
        };
        let mut file = Vec::new();
        start(&mut file, &head, 65_557).unwrap();
        frame(&mut file, &shown, 2).unwrap();
        finish(&mut file, at, 1, 2).unwrap();
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|b| b.0).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, STATISTICS]);
        let packet = &blocks[2].1;
        assert_eq!(packet[4..12], [4, 3, 2, 1, 8, 7, 6, 5], "the time, its high half first");
        assert_eq!(packet[20..81], [0xaa; 61]);
        assert_eq!(packet[84..92], [2, 0, 4, 0, 2, 0, 0, 0], "outbound");
        let has = |body: &[u8], what: &[u8]| body.windows(what.len()).any(|w| w == what);
        assert!(has(packet, b"dropped: storm"));
        assert!(
            has(&blocks[1].1, b"mv0") && has(&blocks[1].1, b"macvtap of server:1234, seen at the client")
        );
    }
}
