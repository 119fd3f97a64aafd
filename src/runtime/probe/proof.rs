//! What a proof has shown: the answer to whoever asked for it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::probe::{Probed, Progress};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There and back.
    Passed,
    /// There is no session to send it on.
    NoSession,
    /// The interface at this end is gone.
    NicGone,
    /// The other end says nothing: it is older, or control messages do not come through.
    Silent,
    /// The other end has no NIC of this number.
    NoNic,
    /// The other end's interface is gone.
    FarNicGone,
    /// Dropped at this end, on the way out.
    DroppedHere,
    /// Sent, and never come to the other end's NIC.
    LostThere,
    /// Dropped at the other end.
    DroppedThere,
    /// Sent back by the other end, and not come.
    LostBack,
    /// Dropped at this end, on the way back.
    DroppedBack,
}

/// What a proof has shown. As JSON it is documented in `docs/DOCTOR.md`, and only ever grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The NIC's name at this end.
    pub nic: String,
    /// The other end.
    pub peer: String,
    /// Length of the frame.
    pub bytes: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was dropped at this end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From the order to the start, at this end, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub here_us: Option<u64>,
    /// Of that, what the other end does not account for: both ways through the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_us: Option<u64>,
    /// At the other end, from its socket into its NIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub there_us: Option<u64>,
    /// At the other end, from its NIC to its socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_us: Option<u64>,
    /// All of it, from the start until it was back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// The NIC's MTU at the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far_mtu: Option<u16>,
    /// Drops that were counted at this end meanwhile, by reason.
    pub moved_here: BTreeMap<String, u64>,
    /// Drops that were counted at the other end; `reason+n`, with commas between.
    pub moved_there: String,
    #[serde(skip)]
    answered: bool,
}

impl Proof {
    pub(super) fn new(nic: &str, peer: String, bytes: usize) -> Self {
        Self {
            nic: nic.to_owned(),
            peer,
            bytes,
            outcome: Outcome::Silent,
            reason: None,
            here_us: None,
            network_us: None,
            there_us: None,
            back_us: None,
            round_trip_us: None,
            far_mtu: None,
            moved_here: BTreeMap::new(),
            moved_there: String::new(),
            answered: false,
        }
    }

    /// What the other end says.
    pub(super) fn hear(&mut self, probed: &Probed) {
        self.far_mtu = Some(probed.mtu).filter(|mtu| *mtu > 0);
        self.moved_there.clone_from(&probed.text);
        if probed.progress == Progress::Answered {
            self.answered = true;
            (self.there_us, self.back_us) = (Some(probed.there_us.into()), Some(probed.back_us.into()));
        }
    }

    /// The other end has sent it back.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// The times of this end's clock.
    pub(super) fn time(&mut self, here: Option<Duration>, round_trip: Option<Duration>) {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        (self.here_us, self.round_trip_us) = (here.map(micros), round_trip.map(micros));
        self.network_us = self
            .round_trip_us
            .zip(self.there_us)
            .zip(self.back_us)
            .map(|((all, there), back)| all.saturating_sub(there).saturating_sub(back));
    }
}
