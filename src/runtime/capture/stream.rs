//! What crosses the control socket: a line of JSON (the [`Head`]), then messages.
//!
//! ```text
//! length u32 | at u64 ns | lost u64 | total u32 | gso u16 | way u8 | fate u8 | reason length u8 | reason | bytes
//! ```
//! Little-endian; `length` counts what follows it. The last message has the count of what was lost, and no more. Whoever has
//! seen enough closes its way of the connection, and reads on to the end.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::dataplane::capture::{Captured, Copied, Fate, Way};
use crate::types::MacAddr;

/// Bytes that are written at a time.
const PIECE: usize = 64 << 10;

/// The longest message: a super-frame and its head.
const LONGEST: usize = 128 << 10;

/// Which NIC it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its name.
    pub nic: String,
    /// Whose it is.
    pub peer: String,
    /// `client` or `server`.
    pub role: String,
    /// The projected MAC.
    pub mac: String,
    /// `tap` or `macvtap`.
    pub mode: String,
}

/// A frame as the program that asked has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// When it passed.
    pub at: SystemTime,
    /// Frames before it that were lost to the capture.
    pub lost: u64,
    /// Its length.
    pub total: usize,
    /// Payload bytes of its packets, 0 for a frame that is no super-frame.
    pub gso: u16,
    /// Which way.
    pub way: Way,
    /// What became of it: nothing to say, or why it was dropped, or what else was done.
    pub note: Note,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It passed.
    Passed,
    /// The drop reason's label.
    Dropped(String),
    /// Answered by the client itself.
    Answered,
    /// A marked frame of `tap-rs doctor`.
    Probe,
}

/// Writes the head, and then frames until whoever reads them, or the NIC, is gone.
pub async fn serve(mut stream: UnixStream, head: Head, mut captured: Captured) {
    let Ok(mut first) = serde_json::to_vec(&head) else { return };
    first.push(b'\n');
    if stream.write_all(&first).await.is_err() {
        return;
    }
    let (mut reader, mut writer) = stream.split();
    let mut nothing = [0u8; 64];
    loop {
        let copied = tokio::select! {
            copied = captured.next() => copied,
            // Whoever has asked says nothing more; an end is what can come.
            read = reader.read(&mut nothing) => match read {
                Ok(1..) => continue,
                _ => None,
            },
        };
        let Some(copied) = copied else { break };
        let mut piece = Vec::with_capacity(copied.bytes.len().saturating_add(64));
        encode(&mut piece, &copied, captured.lost());
        while piece.len() < PIECE {
            let Some(copied) = captured.next_now() else { break };
            encode(&mut piece, &copied, captured.lost());
        }
        if writer.write_all(&piece).await.is_err() {
            return;
        }
    }
    let end = [&8u32.to_le_bytes()[..], &captured.lost().to_le_bytes()].concat();
    let _ = writer.write_all(&end).await;
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame.
    Frame(Shown),
    /// No more; so many frames were lost to the capture.
    End(u64),
    /// No more: the tap-rs that was asked has ended, or is ending.
    Gone,
}

/// The next frame, or the end.
pub fn read(stream: &mut impl Read) -> io::Result<Next> {
    match read_message(stream) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Next::Gone),
        Err(e) => Err(e),
        Ok(message) => match <[u8; 8]>::try_from(&message[..]) {
            Ok(lost) => Ok(Next::End(u64::from_le_bytes(lost))),
            Err(_) => decode(&message).map(Next::Frame).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        },
    }
}

fn read_message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn encode(out: &mut Vec<u8>, copied: &Copied, lost: u64) {
    let at = copied.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (fate, reason) = match copied.fate {
        Fate::Passed => (0u8, ""),
        Fate::Dropped(reason) => (1, reason.label()),
        Fate::Answered => (2, ""),
        Fate::Probe => (3, ""),
    };
    let mut message = Vec::with_capacity(copied.bytes.len().saturating_add(64));
    message.extend(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
    message.extend(lost.to_le_bytes());
    message.extend(u32::try_from(copied.total).unwrap_or(u32::MAX).to_le_bytes());
    message.extend(copied.gso.to_le_bytes());
    message.extend([u8::from(copied.way == Way::Out), fate, u8::try_from(reason.len()).unwrap_or(0)]);
    message.extend(reason.as_bytes());
    message.extend(&copied.bytes);
    out.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(message);
}

fn decode(message: &[u8]) -> Option<Shown> {
    let (at, rest) = message.split_first_chunk::<8>()?;
    let (lost, rest) = rest.split_first_chunk::<8>()?;
    let (total, rest) = rest.split_first_chunk::<4>()?;
    let (gso, rest) = rest.split_first_chunk::<2>()?;
    let (&[way, fate, reason], rest) = rest.split_first_chunk::<3>()?;
    let (reason, bytes) = rest.split_at_checked(reason.into())?;
    let note = match fate {
        0 => Note::Passed,
        1 => Note::Dropped(String::from_utf8_lossy(reason).into_owned()),
        2 => Note::Answered,
        3 => Note::Probe,
        _ => return None,
    };
    Some(Shown {
        at: SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(u64::from_le_bytes(*at)))?,
        lost: u64::from_le_bytes(*lost),
        total: usize::try_from(u32::from_le_bytes(*total)).ok()?,
        gso: u16::from_le_bytes(*gso),
        way: if way == 0 { Way::In } else { Way::Out },
        note,
        bytes: bytes.to_vec(),
    })
}

impl Head {
    /// The projected MAC, where it is one.
    pub fn mac(&self) -> Option<MacAddr> {
        self.mac.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::DropReason;

    #[test]
    fn a_frame_survives_the_socket() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let mut bytes = Vec::new();
        for (fate, way) in [(Fate::Passed, Way::In), (Fate::Dropped(DropReason::Storm), Way::Out)] {
            let copied = Copied { at, way, fate, total: 1514, gso: 1448, bytes: vec![1, 2, 3].into() };
            encode(&mut bytes, &copied, 9);
        }
        let mut from = &bytes[..];
        let next = |from: &mut &[u8]| match read(from).unwrap() {
            Next::Frame(shown) => shown,
            other => panic!("{other:?}"),
        };
        let first = next(&mut from);
        assert_eq!((first.at, first.lost, first.total, first.gso), (at, 9, 1514, 1448));
        assert_eq!((first.way, first.note, first.bytes), (Way::In, Note::Passed, vec![1, 2, 3]));
        let second = next(&mut from);
        assert_eq!((second.way, second.note), (Way::Out, Note::Dropped("storm".into())));
        assert_eq!(read(&mut from).unwrap(), Next::Gone);
        assert_eq!(read(&mut &[8, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..]).unwrap(), Next::End(3));
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bad in [&[255, 255, 255, 255][..], &[2, 0, 0, 0, 1, 2]] {
            assert!(read(&mut &bad[..]).is_err(), "{bad:?}");
        }
    }
}
