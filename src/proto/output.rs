//! What the state machines want done. They never do it themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::keys::PublicKey;
use crate::proto::session::{Lanes, Opener};
use crate::types::{NicId, Path, Suite};
use crate::wire::control::{Enrolment, PushState, Report, Tally};
use crate::wire::probe::Probed;

/// Names a peer within one client or server: always 0 on a client, the client's number on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// One thing to do.
pub enum Output {
    /// Send this datagram.
    Send {
        /// Where to, and from.
        path: Path,
        /// The datagram, sealed where it must be.
        bytes: Vec<u8>,
    },
    /// Receive on a new session, and hand a lane of it to each worker.
    Install {
        /// Whose session.
        peer: PeerId,
        /// For receiving.
        opener: Arc<Opener>,
        /// For sending, from [`Output::Use`] on.
        lanes: Lanes,
    },
    /// Seal with this session from now on.
    Use {
        /// Whose session.
        peer: PeerId,
        /// Which: the index that stands in what we receive.
        index: u32,
        /// Where its datagrams go.
        path: Path,
        /// How long they may be, in bytes of UDP payload.
        datagram: u16,
    },
    /// Send to this path from now on.
    Path {
        /// Whose path.
        peer: PeerId,
        /// The new path.
        path: Path,
    },
    /// Send datagrams of this size from now on.
    Datagram {
        /// To whom.
        peer: PeerId,
        /// UDP payload bytes.
        size: u16,
    },
    /// Forget a session, both ways.
    Retire {
        /// The index that stands in what we receive.
        index: u32,
    },
    /// Tell whoever is interested.
    Event {
        /// About whom.
        peer: PeerId,
        /// What.
        event: Event,
    },
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake is finished and its session is in use.
    Established {
        /// Which suite.
        suite: Suite,
        /// Where the peer is.
        path: Path,
        /// False where it replaces a live session with the same run of the other end's program.
        first: bool,
    },
    /// The peer does not answer. Its session, if there is one, keeps working.
    Silent,
    /// A silent peer answers again, on the session that it had.
    Answers,
    /// There is no session any more.
    Lost,
    /// The peer stopped in good order.
    Bye,
    /// The peer is at another address now.
    Moved(Path),
    /// Handshakes lead nowhere: the server's name should be resolved again.
    Resolve {
        /// The server has answered the HELLO, and then not the INIT: it is there, its key is right, and it does not
        /// let us in.
        greeted: bool,
    },
    /// A blob has been pulled, and its hash is right.
    Push {
        /// Its revision.
        revision: u64,
        /// The blob.
        blob: Vec<u8>,
    },
    /// What became of a push on the client.
    Status {
        /// Of which revision.
        revision: u64,
        /// How it went.
        state: PushState,
        /// The script's exit code, else 0.
        code: u8,
    },
    /// The client's load.
    Report(Report),
    /// Whoever has an invite wants to be known by this key, and has proven to have its private half.
    Enrol(PublicKey),
    /// What became of our own wish to be known.
    Enrolled(Enrolment),
    /// Two boxes use one key in turn.
    Flapping,
    /// A listed client wants a session from there: is it to have one?
    Verify(Path),
    /// The peer is about to send a marked frame, and wants to hear how far it has come.
    Probe {
        /// The frame's token.
        token: u64,
        /// On which NIC.
        nic: NicId,
    },
    /// How far a marked frame of ours has come.
    Probed(Probed),
}

/// A session as it stands, for whoever looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Which suite.
    pub suite: Suite,
    /// When its handshake ended.
    pub since: Instant,
    /// Where the peer is.
    pub path: Path,
    /// Bytes of UDP payload that the path is known to carry.
    pub datagram: u16,
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// How far round-trip times are from it, smoothed.
    pub jitter: Option<Duration>,
    /// When the peer was last heard.
    pub heard: Option<Instant>,
    /// Datagrams and bytes sealed.
    pub sent: (u64, u64),
    /// Datagrams and bytes opened.
    pub received: (u64, u64),
    /// What has come of what the peer sent.
    pub incoming: Arrivals,
    /// What has come of what was sent to the peer, as it said last; `None` where it has not said so.
    pub outgoing: Option<Arrivals>,
}

/// What has come of what was sent one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Since the first session with this peer; only grows.
    pub total: Tally,
    /// In the session in use and the one before: the last two to four minutes.
    pub recent: Tally,
}

/// Outputs in the order in which they are to be done.
#[derive(Default)]
pub struct Outputs(VecDeque<Output>);

impl Outputs {
    /// The next thing to do.
    pub fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.0.push_back(output);
    }

    pub(crate) fn event(&mut self, peer: PeerId, event: Event) {
        self.push(Output::Event { peer, event });
    }
}
