//! Control messages: the body of a control record.
//!
//! ```text
//! kind u8, then, little-endian:
//! 1 PING    token u64 [| tally]                    answered by PONG, wherever it came from; what follows is ignored
//! 2 PONG    token u64 | revision u64 [| tally]     the revision that the sender offers; 0: none
//! 3 OFFER   revision u64 | length u32 | sha256 32
//! 4 GET     revision u64 | offset u32              revision 0: send the OFFER
//! 5 CHUNK   revision u64 | offset u32 | bytes      CHUNK_LEN of them, fewer at the end
//! 6 STATUS  revision u64 | state u8 | code u8      answered by the same STATUS
//! 7 REPORT  load u32 | uptime u32 | total u64 | available u64 | count u8 | count × (nic u16 | 4 × u64)
//! 8 BYE     reason u8
//! 9 ENROL   key 32 | proof 16                      repeated until answered
//! 10 ENROLLED state u8
//! 11 PROBE  token u64 | nic u16                   a marked frame is about to come; answered by PROBED
//! 12 PROBED token u64 | nic u16 | progress u8 | mtu u16 | there u32 | back u32 | text
//!
//! tally     expected u64 | arrived u64             of the session that the message is sent in
//! ```
//!
//! A PONG has a tally only where its PING had one, so that nobody gets what it does not know.
//! Every message may be lost, repeated or reordered. None needs state at the side that answers, but for PROBE, which is
//! remembered for a few seconds.

mod reader;
mod report;
mod tally;

pub(crate) use self::reader::Reader;
pub use self::report::{NicReport, REPORT_NICS, Report};
pub use self::tally::Tally;
use crate::metrics::DropReason;
use crate::types::NicId;
use crate::wire::probe::{Probed, TEXT_MAX};

/// Bytes in a full CHUNK.
pub const CHUNK_LEN: usize = 1024;

/// The longest message, so that each fits one datagram of the smallest path.
pub const MAX_LEN: usize = 13 + CHUNK_LEN;

const _: () = assert!(26 + REPORT_NICS * 34 <= MAX_LEN && 22 + TEXT_MAX <= MAX_LEN);

/// What became of a pushed revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PushState {
    /// Its NICs are in place; the script, if any, ended with 0.
    Applied = 1,
    /// The client's policy forbids its script.
    ScriptRefused = 2,
    /// Its script ended with `code`, 128 + the signal, or 124 for running too long.
    ScriptFailed = 3,
    /// It asks for what the client's limits forbid, or does not parse.
    ConfigRefused = 4,
    /// The client could not make its NICs.
    NicFailed = 5,
}

impl PushState {
    const ALL: [Self; 5] =
        [Self::Applied, Self::ScriptRefused, Self::ScriptFailed, Self::ConfigRefused, Self::NicFailed];
}

/// What became of an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Enrolment {
    /// The key is on the server's list.
    Accepted = 1,
    /// Another key was enrolled with this invite.
    Used = 2,
    /// The invite is no longer valid.
    Late = 3,
    /// The key is a client's already.
    KeyTaken = 4,
    /// The server could not write it down; its log says why.
    Failed = 5,
}

impl Enrolment {
    const ALL: [Self; 5] = [Self::Accepted, Self::Used, Self::Late, Self::KeyTaken, Self::Failed];
}

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// Are you there? Also the path challenge and the path MTU probe.
    Ping {
        /// Comes back in the PONG.
        token: u64,
        /// What the sender has received, where it says so; the PONG is then to say the same of the other way.
        tally: Option<Tally>,
    },
    /// The answer.
    Pong {
        /// The PING's.
        token: u64,
        /// What the sender offers; 0 where it offers nothing.
        revision: u64,
        /// What the sender has received, where it was told the same.
        tally: Option<Tally>,
    },
    /// What there is to pull.
    Offer {
        /// Names the blob: the first eight bytes of its hash, never 0.
        revision: u64,
        /// Bytes of the blob.
        length: u32,
        /// SHA-256 of the blob.
        hash: [u8; 32],
    },
    /// Asks for a chunk, or with revision 0 for the OFFER.
    Get {
        /// Of which blob.
        revision: u64,
        /// From which byte.
        offset: u32,
    },
    /// A piece of the blob.
    Chunk {
        /// Of which blob.
        revision: u64,
        /// From which byte.
        offset: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// What became of a push.
    Status {
        /// Of which blob.
        revision: u64,
        /// How it went.
        state: PushState,
        /// The script's exit code, else 0.
        code: u8,
    },
    /// The client's load.
    Report(Report),
    /// The sender stops in good order.
    Bye,
    /// Whoever has an invite has made this key, and wants to be known by it.
    Enrol {
        /// The new public key.
        key: [u8; 32],
        /// That the sender has its private half.
        proof: [u8; 16],
    },
    /// What became of that.
    Enrolled {
        /// How it went.
        state: Enrolment,
    },
    /// A marked frame is about to come: it is to be sent back, once. Asked again, how far has it come?
    Probe {
        /// The frame's token.
        token: u64,
        /// On which NIC.
        nic: NicId,
    },
    /// How far it has come.
    Probed(Probed),
}

impl<'a> Control<'a> {
    /// The bytes of the message, at most [`MAX_LEN`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Ping { token, tally } => {
                out.push(1);
                out.extend(token.to_le_bytes());
                tally.iter().for_each(|tally| tally.encode(&mut out));
            }
            Self::Pong { token, revision, tally } => {
                out.push(2);
                out.extend(token.to_le_bytes());
                out.extend(revision.to_le_bytes());
                tally.iter().for_each(|tally| tally.encode(&mut out));
            }
            Self::Offer { revision, length, hash } => {
                out.push(3);
                out.extend(revision.to_le_bytes());
                out.extend(length.to_le_bytes());
                out.extend(hash);
            }
            Self::Get { revision, offset } => {
                out.push(4);
                out.extend(revision.to_le_bytes());
                out.extend(offset.to_le_bytes());
            }
            Self::Chunk { revision, offset, bytes } => {
                out.push(5);
                out.extend(revision.to_le_bytes());
                out.extend(offset.to_le_bytes());
                out.extend(*bytes);
            }
            Self::Status { revision, state, code } => {
                out.push(6);
                out.extend(revision.to_le_bytes());
                out.extend([*state as u8, *code]);
            }
            Self::Report(report) => report.encode(&mut out),
            Self::Bye => out.extend([8, 0]),
            Self::Enrol { key, proof } => {
                out.push(9);
                out.extend(key);
                out.extend(proof);
            }
            Self::Enrolled { state } => out.extend([10, *state as u8]),
            Self::Probe { token, nic } => {
                out.push(11);
                out.extend(token.to_le_bytes());
                out.extend(nic.0.to_le_bytes());
            }
            Self::Probed(probed) => {
                out.push(12);
                probed.encode(&mut out);
            }
        }
        out
    }

    /// Reads a control record's body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DropReason> {
        Self::read(body).ok_or(DropReason::BadControl)
    }

    fn read(body: &'a [u8]) -> Option<Self> {
        let mut r = Reader(body);
        let message = match r.u8()? {
            1 => return Some(Self::Ping { token: r.u64()?, tally: Tally::read(&mut r) }),
            2 => Self::Pong { token: r.u64()?, revision: r.u64()?, tally: Tally::read(&mut r) },
            3 => Self::Offer { revision: r.u64()?, length: r.u32()?, hash: r.array()? },
            4 => Self::Get { revision: r.u64()?, offset: r.u32()? },
            5 => {
                let (revision, offset) = (r.u64()?, r.u32()?);
                let bytes = std::mem::take(&mut r.0);
                if bytes.len() > CHUNK_LEN {
                    return None;
                }
                Self::Chunk { revision, offset, bytes }
            }
            6 => {
                let (revision, state, code) = (r.u64()?, r.u8()?, r.u8()?);
                let state = PushState::ALL.into_iter().find(|s| *s as u8 == state)?;
                Self::Status { revision, state, code }
            }
            7 => Self::Report(Report::read(&mut r)?),
            8 => {
                r.u8()?;
                Self::Bye
            }
            9 => Self::Enrol { key: r.array()?, proof: r.array()? },
            10 => {
                let state = r.u8()?;
                Self::Enrolled { state: Enrolment::ALL.into_iter().find(|s| *s as u8 == state)? }
            }
            11 => Self::Probe { token: r.u64()?, nic: NicId(r.u16()?) },
            12 => Self::Probed(Probed::read(&mut r)?),
            _ => return None,
        };
        r.0.is_empty().then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_survive_the_wire() {
        let bytes = [7; CHUNK_LEN];
        let nic = NicReport { nic: 3, uplink: (1, 2), downlink: (3, 4) };
        let report = Report { load: 150, uptime: 9, memory: (10, 5), nics: vec![nic; REPORT_NICS] };
        let all = [
            Control::Ping { token: 1, tally: None },
            Control::Pong { token: 2, revision: 3, tally: None },
            Control::Offer { revision: 4, length: 5, hash: [6; 32] },
            Control::Get { revision: 7, offset: 8 },
            Control::Chunk { revision: 9, offset: 10, bytes: &bytes },
            Control::Status { revision: 11, state: PushState::ScriptFailed, code: 12 },
            Control::Report(report),
            Control::Bye,
            Control::Enrol { key: [13; 32], proof: [14; 16] },
            Control::Enrolled { state: Enrolment::Late },
            Control::Probe { token: 13, nic: NicId(14) },
            Control::Probed(Probed {
                token: 15,
                nic: NicId(16),
                progress: crate::wire::probe::Progress::Answered,
                mtu: 1500,
                there_us: 17,
                back_us: 18,
                text: "storm+19".into(),
            }),
        ];
        for message in all {
            let bytes = message.encode();
            assert!(bytes.len() <= MAX_LEN);
            assert_eq!(Control::decode(&bytes), Ok(message.clone()));
            for n in 0..bytes.len() {
                let cut = Control::decode(&bytes[..n]);
                let open = matches!(message, Control::Chunk { .. } | Control::Probed(_));
                assert!(cut.is_err() || open, "{message:?} cut to {n}");
            }
        }
    }

    #[test]
    fn what_is_longer_or_more_than_there_may_be_is_refused() {
        for (len, taken) in [(0, true), (1, true), (CHUNK_LEN, true), (CHUNK_LEN + 1, false)] {
            let bytes = vec![7; len];
            let message = Control::Chunk { revision: 1, offset: 0, bytes: &bytes };
            assert_eq!(message.encode().len(), 13 + len);
            assert_eq!(Control::decode(&message.encode()).is_ok(), taken, "{len} bytes");
        }
        assert_eq!(MAX_LEN, 1037);
        for count in [0, 1, REPORT_NICS] {
            let message =
                Control::Report(Report { nics: vec![NicReport::default(); count], ..Report::default() });
            assert_eq!(Control::decode(&message.encode()), Ok(message.clone()), "{count} NICs");
        }
        let full = Report { nics: vec![NicReport::default(); REPORT_NICS], ..Report::default() };
        let mut one_more = Control::Report(full).encode();
        one_more[25] += 1;
        one_more.extend([0; 34]);
        assert_eq!(Control::decode(&one_more), Err(DropReason::BadControl));
    }

    #[test]
    fn a_tally_is_taken_whole_or_not_at_all() {
        let tally = Some(Tally { expected: 9, arrived: 7 });
        let ping = Control::Ping { token: 1, tally };
        let bytes = ping.encode();
        assert_eq!((bytes.len(), Control::decode(&bytes)), (25, Ok(ping)));
        for n in 9..25 {
            assert_eq!(Control::decode(&bytes[..n]), Ok(Control::Ping { token: 1, tally: None }), "{n}");
        }
        let pong = Control::Pong { token: 1, revision: 2, tally };
        let bytes = pong.encode();
        assert_eq!((bytes.len(), Control::decode(&bytes)), (33, Ok(pong)));
        let known = Ok(Control::Pong { token: 1, revision: 2, tally: None });
        assert_eq!(Control::decode(&bytes[..17]), known);
        for n in (0..17).chain(18..33) {
            assert!(Control::decode(&bytes[..n]).is_err(), "{n}");
        }
        assert!(Control::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
            let _ = Control::decode(&bytes);
        }
    }
}
