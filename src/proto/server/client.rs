//! What a server knows of one client.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::metrics::DropReason;
use crate::proto::cookie::equal;
use crate::proto::flaps::Flaps;
use crate::proto::invite;
use crate::proto::output::{Event, PeerId, SessionInfo};
use crate::proto::peer::Peer;
use crate::proto::timers::SILENT_AFTER;
use crate::wire::control::Control;
use crate::wire::datagram::MAC_LEN;

/// Shortest time between two tries to enrol with one invite.
const ENROL_GAP: Duration = Duration::from_millis(100);

/// A client's STATUS and REPORT are told of (and so logged) once in this time on average, and as many as it has
/// reports for its NICs at once.
const TALK_GAP: Duration = Duration::from_secs(1);
const TALK_BURST: Duration = Duration::from_secs(64);

/// A client that may connect.
pub struct ClientSpec {
    /// Its public keys: whoever proves to have one of them is this client. The session that came last counts,
    /// whichever key it was made with.
    pub keys: Vec<PublicKey>,
    /// Its pre-shared key; a client that has one must use it.
    pub psk: Option<PresharedKey>,
    /// It is an invite: it may enrol, and nothing else.
    pub invite: bool,
}

pub(super) struct Offer {
    pub(super) revision: u64,
    pub(super) hash: [u8; 32],
    pub(super) blob: Arc<[u8]>,
}

pub(super) struct ClientState {
    pub(super) spec: ClientSpec,
    pub(super) peer: Peer,
    pub(super) offer: Option<Offer>,
    pub(super) silent: bool,
    /// Which run of the client's program it has a session with.
    pub(super) flaps: Flaps,
    pub(super) due: Option<Instant>,
    /// When it last wanted to enrol.
    pub(super) enrolled: Option<Instant>,
    /// Up to when its STATUS and REPORT have used up what they may.
    pub(super) talked: Option<Instant>,
    pub(super) verdict: Verdict,
}

/// What whoever is asked before a session begins says of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    None,
    Asked,
    /// It may begin one from this address until then.
    Good(IpAddr, Instant),
}

impl ClientState {
    pub(super) fn new(now: Instant, id: PeerId, spec: ClientSpec) -> Self {
        Self {
            spec,
            peer: Peer::new(id, now),
            offer: None,
            silent: false,
            flaps: Flaps::default(),
            due: None,
            enrolled: None,
            talked: None,
            verdict: Verdict::None,
        }
    }

    /// It has a session there already, or may begin one. Somebody with an invite gets none that carries frames.
    pub(super) fn is_verified(&self, now: Instant, from: IpAddr) -> bool {
        let there = |info: SessionInfo| info.path.remote.ip() == from;
        self.spec.invite
            || matches!(self.verdict, Verdict::Good(ip, until) if ip == from && now < until)
            || self.peer.info().is_some_and(there)
    }

    pub(super) fn offer(&self) -> Control<'static> {
        self.offer.as_ref().map_or(Control::Offer { revision: 0, length: 0, hash: [0; 32] }, |o| {
            // A blob has at most 1 MiB.
            Control::Offer { revision: o.revision, length: o.blob.len() as u32, hash: o.hash }
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let heard =
            self.peer.current.as_ref().map(|slot| self.peer.activity.received().unwrap_or(slot.since));
        let silent = heard.filter(|_| !self.silent).map(|t| t + SILENT_AFTER);
        [self.peer.poll_timeout(), self.peer.watch(), silent].into_iter().flatten().min()
    }

    pub(super) fn notice_silence(&mut self, now: Instant) -> Option<Event> {
        let slot = self.peer.current.as_ref()?;
        let heard = self.peer.activity.received().unwrap_or(slot.since);
        let silent = now.saturating_duration_since(heard) >= SILENT_AFTER;
        let changed = std::mem::replace(&mut self.silent, silent) != silent;
        changed.then_some(if silent { Event::Silent } else { Event::Answers })
    }

    /// The new key of somebody with an invite, if it has the private half of it. Seldom: this costs a Diffie-Hellman.
    pub(super) fn proven(
        &mut self,
        now: Instant,
        identity: &PrivateKey,
        key: &[u8; 32],
        proof: &[u8; MAC_LEN],
    ) -> Result<PublicKey, DropReason> {
        if self.enrolled.is_some_and(|t| now.saturating_duration_since(t) < ENROL_GAP) {
            return Err(DropReason::RateLimited);
        }
        self.enrolled = Some(now);
        let invite = self.spec.keys.first().ok_or(DropReason::Unexpected)?;
        let right = invite::proof(identity.as_bytes(), key, invite, key).ok_or(DropReason::BadControl)?;
        if !equal(&right, proof) {
            return Err(DropReason::BadMac);
        }
        PublicKey::try_from(*key).map_err(|_| DropReason::BadControl)
    }

    /// May it tell something more that a person will read?
    pub(super) fn may_talk(&mut self, now: Instant) -> Result<(), DropReason> {
        let used = self.talked.map_or(now, |t| t.max(now));
        if used.saturating_duration_since(now) >= TALK_BURST {
            return Err(DropReason::RateLimited);
        }
        self.talked = Some(used + TALK_GAP);
        Ok(())
    }

    /// May this instance make a session now?
    pub(super) fn admits(&self, now: Instant, instance: u64) -> Result<(), DropReason> {
        if self.peer.current.is_some() && self.flaps.bars(now, instance) {
            return Err(DropReason::RateLimited);
        }
        Ok(())
    }
}
