//! The client's side of a push: it pulls, verifies and delivers once; the server keeps no state for it.
//!
//! ```text
//! Settled ──a PONG names another revision──▶ Asking ──OFFER──▶ Pulling ──all chunks, right hash──▶ Settled
//!                                               ▲                 └──────wrong hash────────┐
//!                                               └──────────────────────────────────────────┘
//! ```

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::metrics::DropReason;
use crate::wire::control::{CHUNK_LEN, Control};
use crate::wire::push::MAX_LEN;

/// GETs under way at once.
const WINDOW: usize = 64;

/// A GET that is not answered is sent again after three round trips, within these bounds.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long after a blob with a wrong hash, or an OFFER that cannot be, the client asks again; and how long after it has
/// taken an OFFER it takes another, so that a server that changes its mind without end costs room and work once a second.
const REPENT: Duration = Duration::from_secs(1);

/// The first eight bytes of a blob's SHA-256, little-endian, and never 0.
pub fn revision_of(hash: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
}

/// The SHA-256 of a blob.
pub fn hash_of(blob: &[u8]) -> [u8; 32] {
    Sha256::digest(blob).into()
}

/// The state of the pull.
pub struct Pull {
    state: State,
    /// The last revision that was delivered; 0: none yet.
    delivered: u64,
    /// When an OFFER was last taken.
    taken: Option<Instant>,
}

enum State {
    Settled,
    Asking { next: Instant },
    Pulling(Box<Pulling>),
}

struct Pulling {
    revision: u64,
    hash: [u8; 32],
    blob: Vec<u8>,
    /// For each chunk: when it was last asked for; `None` once it is there.
    chunks: Vec<Option<Instant>>,
    missing: usize,
}

impl Pull {
    /// Nothing is known yet: asks at once.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Asking { next: now }, delivered: 0, taken: None }
    }

    /// A new session: whatever is offered there is asked for.
    pub fn restart(&mut self, now: Instant) {
        if !matches!(self.state, State::Pulling(_)) {
            self.state = State::Asking { next: now };
        }
    }

    /// The server said which revision it offers.
    pub fn handle_revision(&mut self, now: Instant, revision: u64) {
        let known = match &self.state {
            State::Pulling(p) => p.revision,
            State::Asking { .. } => return,
            State::Settled => self.delivered,
        };
        if revision != 0 && revision != known {
            self.state = State::Asking { next: now };
        }
    }

    /// The server made an offer. `BadPush`: one that cannot be; `RateLimited`: sooner after another than once a second.
    /// Either way it is asked for again.
    pub fn handle_offer(
        &mut self,
        now: Instant,
        revision: u64,
        length: u32,
        hash: &[u8; 32],
    ) -> Result<(), DropReason> {
        let length = length as usize;
        if revision == 0 || revision == self.delivered {
            self.state = State::Settled;
            return Ok(());
        }
        if matches!(&self.state, State::Pulling(p) if p.revision == revision) {
            return Ok(());
        }
        if length == 0 || length > MAX_LEN || revision != revision_of(hash) {
            self.state = State::Asking { next: now + REPENT };
            return Err(DropReason::BadPush);
        }
        if let Some(next) = self.taken.map(|t| t + REPENT).filter(|next| now < *next) {
            self.state = State::Asking { next };
            return Err(DropReason::RateLimited);
        }
        self.taken = Some(now);
        let count = length.div_ceil(CHUNK_LEN);
        // A time long past, as far as this clock reaches: every chunk is due.
        let due = now.checked_sub(PATIENCE.1).unwrap_or(now);
        self.state = State::Pulling(Box::new(Pulling {
            revision,
            hash: *hash,
            blob: vec![0; length],
            chunks: vec![Some(due); count],
            missing: count,
        }));
        Ok(())
    }

    /// A piece came in. Returns the blob and its revision when it was the last one and the hash is right.
    /// `BadPush`: it is out of place, or the hash is wrong; `Unexpected`: it is of no blob that was asked for.
    pub fn handle_chunk(
        &mut self,
        now: Instant,
        revision: u64,
        offset: u32,
        bytes: &[u8],
    ) -> Result<Option<(u64, Vec<u8>)>, DropReason> {
        let p = match &mut self.state {
            State::Pulling(p) if p.revision == revision => p,
            // A GET that was sent twice is answered twice.
            _ if revision == self.delivered => return Ok(None),
            _ => return Err(DropReason::Unexpected),
        };
        if !p.place(offset as usize, bytes)? || p.missing > 0 {
            return Ok(None);
        }
        let blob = std::mem::take(&mut p.blob);
        if hash_of(&blob) != p.hash {
            self.state = State::Asking { next: now + REPENT };
            return Err(DropReason::BadPush);
        }
        self.delivered = revision;
        self.state = State::Settled;
        Ok(Some((revision, blob)))
    }

    /// When there is something to send.
    pub fn poll_timeout(&self, rtt: Option<Duration>) -> Option<Instant> {
        match &self.state {
            State::Settled => None,
            State::Asking { next } => Some(*next),
            State::Pulling(p) => {
                p.window().map(|(_, asked)| asked).min().and_then(|t| t.checked_add(patience(rtt)))
            }
        }
    }

    /// The GETs to send now.
    pub fn handle_timeout(&mut self, now: Instant, rtt: Option<Duration>) -> Vec<Control<'static>> {
        match &mut self.state {
            State::Settled => Vec::new(),
            State::Asking { next } if now >= *next => {
                *next = now + patience(rtt).saturating_mul(4);
                vec![Control::Get { revision: 0, offset: 0 }]
            }
            State::Asking { .. } => Vec::new(),
            State::Pulling(p) => p.ask(now, patience(rtt)),
        }
    }
}

impl Pulling {
    /// The first missing chunks, as many as may be under way, with the time when each was asked for.
    fn window(&self) -> impl Iterator<Item = (usize, Instant)> + '_ {
        self.chunks.iter().enumerate().filter_map(|(i, asked)| Some((i, (*asked)?))).take(WINDOW)
    }

    /// False where it is there already.
    fn place(&mut self, offset: usize, bytes: &[u8]) -> Result<bool, DropReason> {
        let (index, rest) = (offset / CHUNK_LEN, offset % CHUNK_LEN);
        let want = self.blob.len().saturating_sub(offset).min(CHUNK_LEN);
        if rest != 0 || bytes.len() != want {
            return Err(DropReason::BadPush);
        }
        let place = self.blob.get_mut(offset..).and_then(|b| b.get_mut(..want));
        let (Some(chunk), Some(place)) = (self.chunks.get_mut(index), place) else {
            return Err(DropReason::BadPush);
        };
        if chunk.take().is_none() {
            return Ok(false);
        }
        place.copy_from_slice(bytes);
        self.missing = self.missing.saturating_sub(1);
        Ok(true)
    }

    fn ask(&mut self, now: Instant, patience: Duration) -> Vec<Control<'static>> {
        let due: Vec<usize> = self
            .window()
            .filter(|(_, asked)| now.saturating_duration_since(*asked) >= patience)
            .map(|(i, _)| i)
            .collect();
        for &i in &due {
            if let Some(chunk) = self.chunks.get_mut(i) {
                *chunk = Some(now);
            }
        }
        let revision = self.revision;
        // Blobs end at 1 MiB: an offset always fits.
        due.into_iter()
            .map(|i| Control::Get { revision, offset: i.saturating_mul(CHUNK_LEN) as u32 })
            .collect()
    }
}

fn patience(rtt: Option<Duration>) -> Duration {
    rtt.unwrap_or(PATIENCE.0).saturating_mul(3).clamp(PATIENCE.0, PATIENCE.1)
}

/// The chunk that a GET asks for; `None` past the end.
pub fn chunk(blob: &[u8], revision: u64, offset: u32) -> Option<Control<'_>> {
    let at = offset as usize;
    let rest = blob.get(at..).filter(|r| !r.is_empty() && at.is_multiple_of(CHUNK_LEN))?;
    let bytes = rest.get(..CHUNK_LEN).unwrap_or(rest);
    Some(Control::Chunk { revision, offset, bytes })
}

#[cfg(test)]
mod tests;
