//! Proofs: a marked frame from this end's NIC to the other's and back.
//!
//! ```text
//!   this end                                          the other end
//!   Asking  ── PROBE ─────────────────────────────────▶ Expect: the worker waits for the frame
//!           ◀───────────────────────── PROBED expected ─
//!   Flying  ══ the frame, as if the NIC had given it ══▶ contract, NIC, and back
//!           ◀═══════════════════════════════════════════
//!           ◀───────────────────────── PROBED answered ─  how long that took, which drops were counted
//!   Inquiring, where it is not back in time: PROBE again, and PROBED says how far it came
//! ```
//!
//! An end that answers keeps one token a NIC, for a few seconds; an older one does not know PROBE, and says nothing.

mod answering;
mod proof;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use proof::{Outcome, Proof};

use self::answering::Answering;
use super::control_socket::Asker;
use super::plane::Plane;
use super::ports::{Place, Ports};
use crate::dataplane::NicKey;
use crate::dataplane::probe::Step;
use crate::metrics::DropReason;
use crate::proto::output::PeerId;
use crate::types::{NicId, Sorted};
use crate::wire::control::Control;
use crate::wire::ether;
use crate::wire::probe::{MIN_LEN, Probed, Progress};

/// How long an answer to PROBE is waited for, and how often it is asked.
const ASK_GAP: Duration = Duration::from_millis(400);
const ASKS: u32 = 3;

/// How long the frame is waited for.
const FLIGHT: Duration = Duration::from_millis(1200);

/// How long the other end waits for a frame that was announced.
const EXPECT: Duration = Duration::from_secs(5);

/// What a proof is made with.
pub struct Context<'a> {
    /// The time.
    pub now: Instant,
    /// The workers.
    pub plane: &'a Plane,
    /// The NICs.
    pub ports: &'a Ports,
    /// What peers are to be told.
    pub says: &'a mut VecDeque<(PeerId, Control<'static>)>,
}

/// All proofs that are under way, ours and others'.
#[derive(Default)]
pub struct Probes {
    running: Vec<Running>,
    answering: Sorted<(PeerId, NicId), Answering>,
    /// When each peer has announced its last one to us.
    announced: Sorted<PeerId, Instant>,
}

enum Stage {
    Asking,
    Flying,
    Inquiring,
}

struct Running {
    token: u64,
    place: Place,
    id: NicId,
    key: NicKey,
    asker: Asker,
    stage: Stage,
    asks: u32,
    /// When something is to be done about it.
    next: Instant,
    /// What had been dropped before.
    before: Vec<(DropReason, u64)>,
    launched: Option<Instant>,
    sent: Option<Instant>,
    returned: Option<Instant>,
    proof: Proof,
}

impl Probes {
    /// Somebody wants a proof of a NIC, with a frame of so many bytes; 0: the longest. `peer` says what a peer is called.
    pub fn start(
        &mut self,
        asker: Asker,
        (nic, bytes): (&str, u16),
        token: u64,
        cx: &mut Context<'_>,
        peer: impl Fn(PeerId) -> String,
    ) {
        let Some(place) = cx.ports.find(nic) else {
            return asker.refuse(format!("there is no NIC {nic} here; there are: {}", cx.ports.names()));
        };
        let longest = usize::from(place.mtu).saturating_add(ether::HEADER_LEN);
        let bytes = if bytes == 0 { longest } else { usize::from(bytes).min(longest) };
        let mut proof = Proof::new(&place.name, peer(place.peer), bytes.max(MIN_LEN));
        let (Some(key), Some(id), true) = (place.key, place.id, place.live) else {
            proof.outcome = if place.gone { Outcome::NicGone } else { Outcome::NoSession };
            return asker.answer(&proof);
        };
        cx.say(place.peer, Control::Probe { token, nic: id });
        self.running.push(Running {
            token,
            id,
            key,
            asker,
            stage: Stage::Asking,
            asks: 1,
            next: cx.now + ASK_GAP,
            before: cx.drops(&place),
            launched: None,
            sent: None,
            returned: None,
            proof,
            place,
        });
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.running.iter().map(|r| r.next).min()
    }

    /// Asks again, or gives up.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        for mut running in self.running.extract_if(.., |r| r.next <= now).collect::<Vec<_>>() {
            match running.stage {
                Stage::Asking | Stage::Inquiring if running.asks >= ASKS => {
                    let outcome = running.given_up();
                    running.finish(outcome, cx);
                    continue;
                }
                Stage::Asking | Stage::Inquiring => running.asks = running.asks.saturating_add(1),
                Stage::Flying => (running.stage, running.asks) = (Stage::Inquiring, 1),
            }
            running.ask(cx);
            self.running.push(running);
        }
    }

    /// The other end says how far a frame of ours has come.
    pub fn handle_probed(&mut self, peer: PeerId, probed: &Probed, cx: &mut Context<'_>) {
        let is_it = |r: &Running| (r.token, r.place.peer, r.id) == (probed.token, peer, probed.nic);
        let Some(at) = self.running.iter().position(is_it) else { return };
        let mut running = self.running.swap_remove(at);
        running.proof.hear(probed);
        let outcome = match (&running.stage, probed.progress) {
            (_, Progress::NoNic) => Some(Outcome::NoNic),
            (_, Progress::NicGone) => Some(Outcome::FarNicGone),
            (_, Progress::Dropped) => Some(Outcome::DroppedThere),
            (Stage::Asking, _) => {
                running.launch(cx);
                None
            }
            (Stage::Flying, Progress::Expected) => None,
            (Stage::Inquiring, Progress::Expected) => Some(Outcome::LostThere),
            (_, Progress::Answered) if running.returned.is_some() => Some(Outcome::Passed),
            (Stage::Flying, Progress::Answered) => None,
            (Stage::Inquiring, Progress::Answered) => Some(Outcome::LostBack),
        };
        match outcome {
            Some(outcome) => running.finish(outcome, cx),
            None => self.running.push(running),
        }
    }

    /// A worker says how far a frame has come here.
    pub fn handle_step(
        &mut self,
        (key, token): (NicKey, u64),
        step: Step,
        at: Instant,
        cx: &mut Context<'_>,
    ) {
        if self.answer_step((key, token), step, cx) {
            return;
        }
        let Some(i) = self.running.iter().position(|r| r.token == token) else { return };
        let mut running = self.running.swap_remove(i);
        match step {
            Step::Sent => running.sent = Some(at),
            Step::Dropped(reason) => {
                let outcome =
                    if running.sent.is_none() { Outcome::DroppedHere } else { Outcome::DroppedBack };
                running.proof.reason = Some(reason.label().to_owned());
                return running.finish(outcome, cx);
            }
            Step::Returned => {
                running.returned = Some(at);
                if running.proof.is_answered() {
                    return running.finish(Outcome::Passed, cx);
                }
                // The other end's word is behind it, or was lost.
                (running.stage, running.asks, running.next) = (Stage::Inquiring, 0, cx.now + ASK_GAP);
            }
            Step::Answered { .. } => {}
        }
        self.running.push(running);
    }
}

impl Running {
    fn ask(&mut self, cx: &mut Context<'_>) {
        self.next = cx.now + ASK_GAP;
        cx.say(self.place.peer, Control::Probe { token: self.token, nic: self.id });
    }

    fn launch(&mut self, cx: &mut Context<'_>) {
        (self.stage, self.next, self.launched) = (Stage::Flying, cx.now + FLIGHT, Some(cx.now));
        cx.plane.probe(self.key, self.token, self.proof.bytes, cx.now + EXPECT);
    }

    /// What can be said where nothing more is heard.
    fn given_up(&self) -> Outcome {
        match (&self.stage, self.returned, self.proof.is_answered()) {
            (_, Some(_), _) => Outcome::Passed,
            (Stage::Asking, ..) => Outcome::Silent,
            (_, None, true) => Outcome::LostBack,
            (_, None, false) => Outcome::LostThere,
        }
    }

    fn finish(mut self, outcome: Outcome, cx: &Context<'_>) {
        let after = cx.drops(&self.place);
        self.proof.outcome = outcome;
        self.proof.moved_here = moved(&self.before, &after).map(|(r, n)| (r.label().to_owned(), n)).collect();
        let span = |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
        self.proof.time(span(self.launched, self.sent), span(self.sent, self.returned));
        self.asker.answer(&self.proof);
    }
}

impl Context<'_> {
    fn say(&mut self, peer: PeerId, message: Control<'static>) {
        self.says.push_back((peer, message));
    }

    /// What has been dropped on a NIC, and before it was known to be anybody's.
    fn drops(&self, place: &Place) -> Vec<(DropReason, u64)> {
        place.counters.drops.seen().chain(self.plane.drops()).collect()
    }
}

/// Those of `after` that are more than in `before`, and by how much.
fn moved(
    before: &[(DropReason, u64)],
    after: &[(DropReason, u64)],
) -> impl Iterator<Item = (DropReason, u64)> {
    let sum = |of: &[(DropReason, u64)], reason| {
        of.iter().filter(|(r, _)| *r == reason).fold(0u64, |sum, (_, n)| sum.saturating_add(*n))
    };
    let more: Vec<_> = DropReason::ALL
        .iter()
        .map(|r| (*r, sum(after, *r).saturating_sub(sum(before, *r))))
        .filter(|(_, n)| *n > 0)
        .collect();
    more.into_iter()
}
