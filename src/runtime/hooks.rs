//! The user's programs: which are to be run, one after the other, and what they are told.
//!
//! ```text
//!  event ──▶ queue ──▶ the keeper runs it, in a child ──▶ its lines to the log, its status back
//! ```
//!
//! What a program finds: `PATH`, and the `TAP_RS_` variables of its event ([`Words`]), directory `/`, umask 077,
//! nothing on standard input, both outputs on the log, and a session and process group of its own. It is stopped after
//! `timeout`. Frames go on meanwhile. `down` is not run from here: the keeper does that, however the tunnel ends.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;

use tracing::{info, warn};

use super::control::Waiting;
use super::keeper::Keeper;
use super::script::{Outcome, ScriptError};
use crate::config::{Config, Hook, Hooks as Programs, NicSource};
use crate::proto::output::PeerId;
use crate::types::Sorted;

/// Events that may wait for a program: two for each of some thousand clients that come and go at once.
const WAITING: usize = 4096;

/// What a program is told of its event, as variables of its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(String);

impl Words {
    /// `TAP_RS_name=value`. A value is one line.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let value = value.to_string().replace(['\n', '\0'], " ");
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "TAP_RS_{name}={value}");
        self
    }

    /// One variable a line.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The variables of a text that [`Self::text`] gave, and no others: the keeper trusts no tunnel with `LD_PRELOAD`.
    pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
        text.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| name.starts_with("TAP_RS_"))
    }
}

impl Words {
    /// What every program is told: which side this is, of which config, and the NICs that the config itself names.
    pub fn of(config: &Config, file: &Path) -> Self {
        let (role, nics): (_, Vec<&str>) = match config {
            Config::Client(client) => match &client.nics {
                NicSource::Local(nics) => ("client", nics.iter().map(|nic| nic.spec.name.as_str()).collect()),
                NicSource::Remote { .. } => ("client", Vec::new()),
            },
            Config::Server(server) => {
                let nics = server.clients.iter().flat_map(|client| &client.nics);
                ("server", nics.map(|nic| nic.spec.name.as_str()).collect())
            }
        };
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let words = Self::default().with("ROLE", role).with("NAME", name).with("CONFIG", file.display());
        words.with("NICS", nics.join(" "))
    }
}

/// One event for one program.
struct Run {
    hook: Hook,
    /// Who wants in, and from where.
    asks: Option<(PeerId, IpAddr)>,
    words: Words,
}

/// The programs of this process.
pub struct Hooks {
    programs: Programs,
    /// What every program is told.
    words: Words,
    keeper: Rc<Keeper>,
    waiting: VecDeque<Run>,
    /// Those that `peer_up` has been run for, and `peer_down` not yet.
    up: Sorted<PeerId, ()>,
    running: Option<(Run, Waiting<Result<Outcome, ScriptError>>)>,
}

impl Hooks {
    /// None is running.
    pub fn new(programs: Programs, words: Words, keeper: Rc<Keeper>) -> Self {
        Self { programs, words, keeper, waiting: VecDeque::new(), up: Sorted::default(), running: None }
    }

    /// There is a program for this.
    pub fn has(&self, hook: Hook) -> bool {
        self.programs.program(hook).is_some()
    }

    /// The NICs are set up.
    pub fn up(&mut self) {
        // The keeper hears of it in any case where it is to run the program for their end.
        if self.has(Hook::Up) || self.has(Hook::Down) {
            self.queue(Hook::Up, None, |words| words);
        }
    }

    /// A peer has a session, of which more is said by `words`.
    pub fn peer_up(&mut self, peer: PeerId, words: impl FnOnce(Words) -> Words) {
        if self.up.insert(peer, ()).is_none() && self.has(Hook::PeerUp) {
            self.queue(Hook::PeerUp, None, words);
        }
    }

    /// It has none any more.
    pub fn peer_down(&mut self, peer: PeerId, words: impl FnOnce(Words) -> Words) {
        if self.up.remove(&peer).is_some() && self.has(Hook::PeerDown) {
            self.queue(Hook::PeerDown, None, words);
        }
    }

    /// A peer wants a session; [`Self::next`] says whether it may have one.
    pub fn verify(&mut self, peer: PeerId, from: IpAddr, words: impl FnOnce(Words) -> Words) {
        self.queue(Hook::Verify, Some((peer, from)), words);
    }

    fn queue(&mut self, hook: Hook, asks: Option<(PeerId, IpAddr)>, words: impl FnOnce(Words) -> Words) {
        if self.waiting.len() >= WAITING {
            warn!(%hook, "too many events wait for the programs of [hooks]: one is left out");
            return;
        }
        let words = words(self.words.clone().with("EVENT", hook));
        self.waiting.push_back(Run { hook, asks, words });
    }

    /// The next verdict: of whom, for where, and whether it is good. What comes of other programs is only logged. Safe to
    /// drop and to call again.
    pub async fn next(&mut self) -> (PeerId, IpAddr, bool) {
        loop {
            if self.running.is_none() {
                let Some(run) = self.waiting.pop_front() else { return std::future::pending().await };
                let (keeper, hook, words) = (Rc::clone(&self.keeper), run.hook, run.words.clone());
                self.running = Some((run, Box::pin(async move { keeper.hook(hook, &words).await })));
            }
            let Some((_, ended)) = &mut self.running else { continue };
            let ended = ended.await;
            let Some((Run { hook, asks, .. }, _)) = self.running.take() else { continue };
            if !self.has(hook) {
                continue;
            }
            let content = self.log(hook, ended);
            if let Some((peer, from)) = asks {
                return (peer, from, content);
            }
        }
    }

    fn log(&self, hook: Hook, ended: Result<Outcome, ScriptError>) -> bool {
        let program = self.programs.program(hook).unwrap_or(Path::new("")).display();
        match ended {
            Ok(Outcome::Exited(0)) => {
                info!(%hook, %program, "hook ended");
                return true;
            }
            Ok(Outcome::Exited(status)) => warn!(%hook, %program, status, "hook failed"),
            Ok(Outcome::Signaled(signal)) => warn!(%hook, %program, signal, "hook was killed"),
            Ok(Outcome::TimedOut) => {
                warn!(%hook, %program, seconds = self.programs.timeout.as_secs(), "hook was stopped: it ran too long");
            }
            Err(e) => warn!(%hook, %program, "hook: {e}"),
        }
        false
    }
}
