//! The end that answers: waits for a frame that the other end has announced, and says how far it came.

use std::time::{Duration, Instant};

use super::{Context, EXPECT, Probes, moved};
use crate::dataplane::NicKey;
use crate::dataplane::probe::{Expected, Role, Step};
use crate::metrics::DropReason;
use crate::proto::output::PeerId;
use crate::types::NicId;
use crate::wire::control::Control;
use crate::wire::probe::{Probed, Progress, text};

/// Shortest time between two frames that one peer announces: what others may have this process do is little.
const ANNOUNCE_GAP: Duration = Duration::from_millis(20);

/// How long an answer is remembered.
const REMEMBER: Duration = Duration::from_secs(10);

/// A frame that has been announced.
pub(super) struct Answering {
    key: NicKey,
    since: Instant,
    /// What had been dropped before.
    before: Vec<(DropReason, u64)>,
    /// Why it was dropped.
    reason: Option<DropReason>,
    probed: Probed,
}

impl Probes {
    /// The other end announces a frame, or asks how far it has come.
    pub fn handle_probe(
        &mut self,
        peer: PeerId,
        (token, nic): (u64, NicId),
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let now = cx.now;
        let known = self.answering.get(&(peer, nic)).is_some_and(|a| a.probed.token == token);
        if !known {
            let soon = |at: Instant| now.saturating_duration_since(at) < ANNOUNCE_GAP;
            if self.announced.get(&peer).copied().is_some_and(soon) {
                return Err(DropReason::RateLimited);
            }
            self.announced.retain(|_, at| soon(*at));
            self.announced.insert(peer, now);
            self.answering.retain(|_, a| now.saturating_duration_since(a.since) < REMEMBER);
            self.expect(peer, (token, nic), cx);
        }
        self.say(peer, nic, cx);
        Ok(())
    }

    fn expect(&mut self, peer: PeerId, (token, nic): (u64, NicId), cx: &mut Context<'_>) {
        let mut probed = Probed {
            token,
            nic,
            progress: Progress::NoNic,
            mtu: 0,
            there_us: 0,
            back_us: 0,
            text: String::new(),
        };
        let Some(place) = cx.ports.find_number(peer, nic) else {
            return cx.say(peer, Control::Probed(probed));
        };
        probed.mtu = place.mtu;
        let Some(key) = place.key else {
            probed.progress = Progress::NicGone;
            return cx.say(peer, Control::Probed(probed));
        };
        probed.progress = Progress::Expected;
        cx.plane.expect(key, Expected { token, role: Role::Answer, until: cx.now + EXPECT });
        let before = cx.drops(&place);
        self.answering.insert((peer, nic), Answering { key, since: cx.now, before, reason: None, probed });
    }

    /// What a worker says of a frame that was announced. True where it is one.
    pub(super) fn answer_step(
        &mut self,
        (key, token): (NicKey, u64),
        step: Step,
        cx: &mut Context<'_>,
    ) -> bool {
        let is_it = |a: &Answering| (a.key, a.probed.token) == (key, token);
        let Some((&(peer, nic), answering)) = self.answering.iter_mut().find(|(_, a)| is_it(a)) else {
            return false;
        };
        let micros = |d: Duration| u32::try_from(d.as_micros()).unwrap_or(u32::MAX);
        match step {
            Step::Answered { there, back } => {
                answering.probed.progress = Progress::Answered;
                (answering.probed.there_us, answering.probed.back_us) = (micros(there), micros(back));
            }
            Step::Dropped(reason) => {
                answering.probed.progress = Progress::Dropped;
                answering.reason = Some(reason);
            }
            Step::Sent | Step::Returned => return true,
        }
        self.say(peer, nic, cx);
        true
    }

    /// Says how far the frame has come.
    fn say(&mut self, peer: PeerId, nic: NicId, cx: &mut Context<'_>) {
        let Some(answering) = self.answering.get_mut(&(peer, nic)) else { return };
        if let Some(place) = cx.ports.find_number(peer, nic) {
            let (reason, after) = (answering.reason, cx.drops(&place));
            let mut drops: Vec<_> = moved(&answering.before, &after).collect();
            drops.sort_by_key(|(r, _)| Some(*r) != reason);
            if let Some(reason) = reason.filter(|r| drops.first().is_none_or(|(first, _)| first != r)) {
                drops.insert(0, (reason, 1));
            }
            answering.probed.text = text(drops.into_iter());
        }
        cx.say(peer, Control::Probed(answering.probed.clone()));
    }
}
