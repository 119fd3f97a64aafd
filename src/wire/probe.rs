//! The marked frame of `tap-rs doctor`: proves that frames pass, hop by hop.
//!
//! ```text
//! dst 6 | src 6 | 88 B5 | magic 8 | token u64 | a pattern
//! ```
//!
//! From the LAN to the host it goes from [`STATION`] to the NIC's MAC, back from the NIC's MAC to [`STATION`]. The
//! ethertype is one that IEEE 802 leaves to local experiments. What tells a marked frame from a forged one is the token:
//! the other end must have said beforehand that it is about to send it.

use super::control::Reader;
use super::ether::{self, Link, ethertype};
use crate::metrics::DropReason;
use crate::types::{MacAddr, NicId};

/// Who is at the other end of a marked frame: a locally administered address that no station has.
pub const STATION: MacAddr = MacAddr([0x02, b't', b'a', b'p', b'r', b's']);

/// The shortest marked frame in bytes.
pub const MIN_LEN: usize = 60;

const MAGIC: [u8; 8] = *b"tapprobe";
const MAGIC_END: usize = ether::HEADER_LEN + MAGIC.len();
const TOKEN_END: usize = MAGIC_END + 8;

const _: () = assert!(TOKEN_END <= MIN_LEN);

/// Longest text of a [`Probed`] in bytes.
pub const TEXT_MAX: usize = 200;

/// A marked frame of `len` bytes, at least [`MIN_LEN`].
pub fn frame(dst: MacAddr, src: MacAddr, token: u64, len: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(len.max(MIN_LEN));
    frame.extend(ether::header(dst, src, ethertype::LOCAL));
    frame.extend(MAGIC);
    frame.extend(token.to_le_bytes());
    let pattern = token.to_le_bytes().into_iter().cycle().zip(0u8..=250).cycle();
    let rest = len.max(MIN_LEN).saturating_sub(frame.len());
    frame.extend(pattern.take(rest).map(|(a, b)| a.wrapping_add(b)));
    frame
}

/// True for frames that say that they are marked, whoever sent them.
#[inline]
pub fn is_marked(head: &[u8], link: &Link) -> bool {
    link.ethertype == ethertype::LOCAL && head.get(ether::HEADER_LEN..MAGIC_END) == Some(&MAGIC)
}

/// The token of a marked frame.
pub fn token(head: &[u8]) -> Option<u64> {
    let link = Link::parse(head)?;
    let token = head.get(MAGIC_END..TOKEN_END)?.first_chunk()?;
    is_marked(head, &link).then_some(u64::from_le_bytes(*token))
}

/// How far a marked frame has come at the end that is to send it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Progress {
    /// It has not come yet, and would be sent back.
    Expected = 1,
    /// It has come, has passed, and has been sent back.
    Answered = 2,
    /// It has come and has been dropped; the text begins with the reason.
    Dropped = 3,
    /// There is no such NIC at this end.
    NoNic = 4,
    /// The NIC's interface is gone at this end.
    NicGone = 5,
}

impl Progress {
    const ALL: [Self; 5] = [Self::Expected, Self::Answered, Self::Dropped, Self::NoNic, Self::NicGone];
}

/// What the other end says of a marked frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Which one.
    pub token: u64,
    /// On which NIC.
    pub nic: NicId,
    /// How far it has come.
    pub progress: Progress,
    /// That end's MTU of the NIC in bytes; 0 where it has none.
    pub mtu: u16,
    /// Microseconds from its reception until it was in the NIC.
    pub there_us: u32,
    /// Microseconds from there until it was on its way back.
    pub back_us: u32,
    /// Which drops were counted there meanwhile, `reason+n` with commas between; at most [`TEXT_MAX`] bytes of ASCII.
    pub text: String,
}

impl Probed {
    /// Appends the message, without its kind.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.token.to_le_bytes());
        out.extend(self.nic.0.to_le_bytes());
        out.push(self.progress as u8);
        out.extend(self.mtu.to_le_bytes());
        out.extend(self.there_us.to_le_bytes());
        out.extend(self.back_us.to_le_bytes());
        out.extend(self.text.as_bytes().iter().take(TEXT_MAX));
    }

    /// Reads what [`Self::encode`] wrote. The text is held to printable ASCII: it is shown to people.
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let (token, nic, progress) = (r.u64()?, NicId(r.u16()?), r.u8()?);
        let progress = Progress::ALL.into_iter().find(|p| *p as u8 == progress)?;
        let (mtu, there_us, back_us) = (r.u16()?, r.u32()?, r.u32()?);
        let text = std::mem::take(&mut r.0);
        let plain = text.len() <= TEXT_MAX && text.iter().all(|b| matches!(b, 0x20..=0x7e));
        let text = plain.then(|| String::from_utf8_lossy(text).into_owned())?;
        Some(Self { token, nic, progress, mtu, there_us, back_us, text })
    }
}

/// The counters that have moved, for [`Probed::text`]: whole ones only, the first of `moved` first.
pub fn text(moved: impl Iterator<Item = (DropReason, u64)>) -> String {
    let mut text = String::new();
    for (reason, n) in moved {
        let one = format!("{}{}+{n}", if text.is_empty() { "" } else { "," }, reason.label());
        if text.len().saturating_add(one.len()) > TEXT_MAX {
            break;
        }
        text.push_str(&one);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sample::NIC;

    #[test]
    fn a_marked_frame_is_known_by_its_token() {
        for len in [0, 60, 1514, 9014] {
            let frame = frame(NIC, STATION, 0x1234_5678_9abc_def0, len);
            assert_eq!(frame.len(), len.max(MIN_LEN));
            assert_eq!(token(&frame), Some(0x1234_5678_9abc_def0));
        }
    }

    #[test]
    fn other_frames_of_the_same_ethertype_are_not_marked() {
        let mut other = frame(NIC, STATION, 1, 60);
        other[14] ^= 1;
        assert_eq!(token(&other), None);
        let mut other = frame(NIC, STATION, 1, 60);
        other[13] = 0xb6;
        assert_eq!(token(&other), None);
        assert_eq!(token(&frame(NIC, STATION, 1, 60)[..21]), None);
    }

    #[test]
    fn the_text_has_whole_counters_and_a_length() {
        let moved = DropReason::ALL.iter().map(|r| (*r, 1_000_000));
        let text = text(moved);
        assert!(text.len() <= TEXT_MAX && text.starts_with("bad_length+1000000,unknown_type+1000000,"));
        assert!(text.split(',').all(|one| one.ends_with("+1000000")));
    }

    #[test]
    fn a_text_may_be_as_long_as_the_longest_and_no_longer() {
        let of = |last: u64| text((0..20).map(|n| (DropReason::BadMac, if n == 19 { last } else { 1 })));
        let shorter = "bad_mac+1,".repeat(19);
        assert_eq!(of(10), format!("{shorter}bad_mac+10"));
        assert_eq!(of(10).len(), TEXT_MAX);
        assert_eq!(of(100), shorter.trim_end_matches(','));
    }

    #[test]
    fn a_text_that_is_not_plain_is_refused() {
        let probed = |text: &str| Probed {
            token: 1,
            nic: NicId(2),
            progress: Progress::Dropped,
            mtu: 3,
            there_us: 4,
            back_us: 5,
            text: text.into(),
        };
        let decode = |p: &Probed| {
            let mut bytes = Vec::new();
            p.encode(&mut bytes);
            Probed::read(&mut Reader(&bytes))
        };
        assert_eq!(decode(&probed("storm+1")), Some(probed("storm+1")));
        for bad in ["\x1b[2J", "é", "a\n"] {
            assert_eq!(decode(&probed(bad)), None, "{bad:?}");
        }
    }
}
