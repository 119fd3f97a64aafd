//! A session: the keys of one finished handshake, ready for the data path.
//!
//! ```text
//!              ┌─ Lane 0 ── the control plane        every Lane owns its numbers: it is moved, never copied
//!   Lanes ─────┼─ Lane 1 ── worker 1
//!              └─ Lane n ── worker n
//!   Opener ──── shared: one key, one replay window a lane
//! ```
//!
//! A counter is lane (8 bits) ‖ sequence (56 bits). A [`Lane`] increments a plain integer of its own, so a nonce is
//! used twice only if a lane exists twice, which the types forbid: no atomics, no lock.
//! On the way in the order is: lane, pre-check, AEAD, commit. Nothing changes before the tag is verified.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::metrics::DropReason;
use crate::proto::activity::{Activity, Volume};
use crate::proto::aead::AeadKey;
pub use crate::proto::aead::TAG_LEN;
use crate::proto::replay::Window;
use crate::types::Suite;
use crate::wire::control::Tally;
use crate::wire::datagram::{DATA_HEADER_LEN, DataHeader};

/// How many lanes a session has each way: one for control, the others for workers. Bounds the receiver's windows.
pub const LANES: u8 = 16;

/// Bytes of a DATA datagram that are not plaintext.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;

const SEQ_BITS: u32 = 56;
const SEQ_MASK: u64 = (1 << SEQ_BITS) - 1;

/// Datagrams after which the client starts a new handshake: AES-GCM's confidentiality bound (RFC 9147, 4.5.3, rounded down).
pub const REKEY_AFTER_DATAGRAMS: u64 = 1 << 24;

/// Datagrams that one lane seals at the most.
pub const REJECT_AFTER_DATAGRAMS: u64 = 1 << 26;

/// A session's two keys and indices, as the handshake leaves them.
pub struct Keys {
    /// Which AEAD.
    pub suite: Suite,
    /// The key for what we send.
    pub send: zeroize::Zeroizing<[u8; 32]>,
    /// The key for what we receive.
    pub receive: zeroize::Zeroizing<[u8; 32]>,
    /// The index that we chose: stands in what we receive.
    pub local_index: u32,
    /// The index that the peer chose: stands in what we send.
    pub remote_index: u32,
}

/// The lanes of a session that nobody has taken yet.
pub struct Lanes {
    key: Arc<AeadKey>,
    suite: Suite,
    receiver_index: u32,
    next: u8,
    volume: Arc<Volume>,
    activity: Arc<Activity>,
}

impl Lanes {
    /// The next lane; `None` when all are taken.
    pub fn take(&mut self) -> Option<Lane> {
        let lane = self.next;
        if lane >= LANES {
            return None;
        }
        self.next = lane.saturating_add(1);
        let header =
            DataHeader { suite: self.suite, receiver_index: self.receiver_index, counter: 0 }.encode();
        let counter = u64::from(lane) << SEQ_BITS;
        let (volume, activity) = (Arc::clone(&self.volume), Arc::clone(&self.activity));
        Some(Lane { key: Arc::clone(&self.key), header, counter, volume, activity })
    }
}

/// The right to seal datagrams under one session's key with one lane's counters. Not `Clone`.
pub struct Lane {
    key: Arc<AeadKey>,
    header: [u8; DATA_HEADER_LEN],
    counter: u64,
    volume: Arc<Volume>,
    activity: Arc<Activity>,
}

impl Lane {
    /// Seals one datagram in place: `[DATA_HEADER_LEN of anything][plaintext][TAG_LEN of anything]`.
    /// Fails with `Expired` once the lane has sealed [`REJECT_AFTER_DATAGRAMS`], `BadLength` below [`DATA_OVERHEAD`] bytes.
    pub fn seal(&mut self, datagram: &mut [u8]) -> Result<(), DropReason> {
        if self.counter & SEQ_MASK >= REJECT_AFTER_DATAGRAMS {
            return Err(DropReason::Expired);
        }
        let Some((header, rest)) = datagram.split_first_chunk_mut::<DATA_HEADER_LEN>() else {
            return Err(DropReason::BadLength);
        };
        let Some((plaintext, tag)) = rest.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(DropReason::BadLength);
        };
        *header = self.header;
        DataHeader::put_counter(header, self.counter);
        *tag = self.key.seal(self.counter, &[], plaintext).map_err(|_| DropReason::Expired)?;
        self.counter = self.counter.wrapping_add(1);
        Ok(())
    }

    /// How much the session has carried; the sender counts here once a batch.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// When the peer was last heard and spoken to.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }
}

/// The receiving half of a session, shared by every thread that may receive for it.
pub struct Opener {
    key: AeadKey,
    suite: Suite,
    index: u32,
    windows: [OnceLock<Box<Mutex<Window>>>; LANES as usize],
    volume: Arc<Volume>,
    activity: Arc<Activity>,
}

/// A verified datagram.
pub struct Opened<'a> {
    /// The lane that it came on: parts of frames are joined within one lane only.
    pub lane: u8,
    /// Its number in that lane.
    pub seq: u64,
    /// True where no datagram of this lane with a higher counter has been seen: it may move the endpoint.
    pub newest: bool,
    /// Its records.
    pub plaintext: &'a mut [u8],
}

impl Opener {
    /// The index that stands in the datagrams for this session.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Verifies and decrypts one DATA datagram in place.
    pub fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<Opened<'a>, DropReason> {
        let (header, sealed) = DataHeader::split(datagram)?;
        if header.suite != self.suite {
            return Err(DropReason::BadSuite);
        }
        if header.receiver_index != self.index {
            return Err(DropReason::UnknownIndex);
        }
        let lane = (header.counter >> SEQ_BITS) as u8;
        let seq = header.counter & SEQ_MASK;
        let window = self.windows.get(usize::from(lane)).ok_or(DropReason::BadLane)?;
        if let Some(w) = window.get() {
            w.lock().unwrap_or_else(PoisonError::into_inner).check(seq)?;
        }
        let plaintext = self.key.open(header.counter, &[], sealed).map_err(|_| DropReason::Unauthentic)?;
        let window = window.get_or_init(Default::default);
        let newest = window.lock().unwrap_or_else(PoisonError::into_inner).commit(seq)?;
        Ok(Opened { lane, seq, newest, plaintext })
    }

    /// What has come of what the peer sent in this session, over all lanes.
    pub fn tally(&self) -> Tally {
        let windows = self.windows.iter().filter_map(OnceLock::get);
        windows
            .map(|w| w.lock().unwrap_or_else(PoisonError::into_inner).tally())
            .fold(Tally::default(), Tally::plus)
    }

    /// How much the session has carried; the receiver counts here once a batch.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// When the peer was last heard and spoken to.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }
}

/// Turns a handshake's keys into the two halves of a session. `None` only if the AEAD refuses its key.
pub fn establish(keys: &Keys, activity: Arc<Activity>) -> Option<(Lanes, Arc<Opener>)> {
    let volume = Arc::new(Volume::default());
    let opener = Opener {
        key: AeadKey::new(keys.suite, &keys.receive)?,
        suite: keys.suite,
        index: keys.local_index,
        windows: [const { OnceLock::new() }; LANES as usize],
        volume: Arc::clone(&volume),
        activity: Arc::clone(&activity),
    };
    let lanes = Lanes {
        key: Arc::new(AeadKey::new(keys.suite, &keys.send)?),
        suite: keys.suite,
        receiver_index: keys.remote_index,
        next: 0,
        volume,
        activity,
    };
    Some((lanes, Arc::new(opener)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn pair(suite: Suite) -> (Lanes, Arc<Opener>) {
        let activity = || Arc::new(Activity::new(Instant::now()));
        let keys = |send: u8, receive: u8, local, remote| Keys {
            suite,
            send: [send; 32].into(),
            receive: [receive; 32].into(),
            local_index: local,
            remote_index: remote,
        };
        let (lanes, _) = establish(&keys(1, 2, 10, 20), activity()).unwrap();
        let (_, opener) = establish(&keys(2, 1, 20, 10), activity()).unwrap();
        (lanes, opener)
    }

    fn datagram(plaintext: &[u8]) -> Vec<u8> {
        let mut d = vec![0xaa; DATA_HEADER_LEN];
        d.extend(plaintext);
        d.extend([0xaa; TAG_LEN]);
        d
    }

    #[test]
    fn a_counter_is_taken_apart_into_lane_and_number() {
        let (mut lanes, opener) = pair(Suite::Aes);
        let mut later = (0..4).map_while(|_| lanes.take()).last().unwrap();
        for seq in 0..3 {
            let mut d = vec![0; DATA_OVERHEAD + 1];
            later.seal(&mut d).unwrap();
            let opened = opener.open(&mut d).unwrap();
            assert_eq!((opened.lane, opened.seq), (3, seq));
        }
        assert_eq!(opener.index(), 20);
        assert_eq!(REJECT_AFTER_DATAGRAMS, 1 << 26);
        assert_eq!(REKEY_AFTER_DATAGRAMS, 1 << 24);
    }

    #[test]
    fn what_one_side_seals_the_other_opens_once() {
        for suite in Suite::ALL {
            let (mut lanes, opener) = pair(suite);
            let (mut zero, mut one) = (lanes.take().unwrap(), lanes.take().unwrap());
            for lane in [&mut zero, &mut one] {
                let mut d = datagram(b"hello");
                lane.seal(&mut d).unwrap();
                assert!(!d.windows(5).any(|w| w == b"hello"));
                let mut replay = d.clone();
                let opened = opener.open(&mut d).unwrap();
                assert_eq!((&*opened.plaintext, opened.newest), (&b"hello"[..], true));
                assert_eq!(opener.open(&mut replay).err(), Some(DropReason::Replayed));
            }
        }
    }

    #[test]
    fn both_halves_count_into_one_volume_and_tell_what_came() {
        use std::sync::atomic::Ordering::Relaxed;
        let (suite, key) = (Suite::Aes, || [3; 32].into());
        let keys = Keys { suite, send: key(), receive: key(), local_index: 5, remote_index: 5 };
        let (mut lanes, opener) = establish(&keys, Arc::new(Activity::new(Instant::now()))).unwrap();
        let mut both = [lanes.take().unwrap(), lanes.take().unwrap()];
        assert_eq!(opener.tally(), Tally::default());
        for (n, lane) in [0, 0, 0, 1].into_iter().enumerate() {
            let mut d = datagram(b"");
            both[lane].seal(&mut d).unwrap();
            // The second is lost on the way.
            if n != 1 {
                opener.open(&mut d).unwrap();
            }
        }
        assert_eq!(opener.tally(), Tally { expected: 4, arrived: 3 });
        both[0].volume().count_sent(2, 300);
        both[1].volume().count_sent(1, 50);
        opener.volume().count_received(3, 400);
        let v = [both[0].volume(), opener.volume()];
        let counted =
            v.map(|v| [&v.sent, &v.sent_bytes, &v.received, &v.received_bytes].map(|n| n.load(Relaxed)));
        assert_eq!(counted, [[3, 350, 3, 400]; 2]);
    }

    #[test]
    fn every_flipped_bit_is_refused_and_changes_nothing() {
        let (mut lanes, opener) = pair(Suite::Aes);
        let mut lane = lanes.take().unwrap();
        let mut good = datagram(b"payload");
        lane.seal(&mut good).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.open(&mut bad).is_err(), "bit {bit}");
        }
        assert_eq!(&*opener.open(&mut good).unwrap().plaintext, b"payload");
    }

    #[test]
    fn lanes_run_out_and_a_foreign_lane_is_refused() {
        let (mut lanes, opener) = pair(Suite::ChaCha);
        let all: Vec<_> = std::iter::from_fn(|| lanes.take()).collect();
        assert_eq!(all.len(), usize::from(LANES));
        let mut d = datagram(b"");
        DataHeader { suite: Suite::ChaCha, receiver_index: 20, counter: u64::from(LANES) << SEQ_BITS }
            .encode()
            .iter()
            .zip(&mut d)
            .for_each(|(from, to)| *to = *from);
        assert_eq!(opener.open(&mut d).err(), Some(DropReason::BadLane));
    }

    #[test]
    fn a_lane_stops_at_its_bound() {
        let (mut lanes, _) = pair(Suite::Aes);
        let mut lane = lanes.take().unwrap();
        lane.counter = REJECT_AFTER_DATAGRAMS - 1;
        let mut d = datagram(b"");
        assert_eq!(lane.seal(&mut d), Ok(()));
        assert_eq!(lane.seal(&mut d), Err(DropReason::Expired));
    }

    #[test]
    fn short_datagrams_are_refused() {
        let (mut lanes, opener) = pair(Suite::Aes);
        let mut lane = lanes.take().unwrap();
        for n in 0..DATA_OVERHEAD {
            assert_eq!(lane.seal(&mut vec![0; n]), Err(DropReason::BadLength));
            assert!(opener.open(&mut vec![0; n]).is_err());
        }
    }
}
