//! The keeper: a small copy of this process that stays root, so that the one that faces the network need not.
//!
//! ```text
//!   start ──split──▶ keeper: root, one thread, asleep; no keys, no network input
//!     │                ▲ "open /dev/net/tun"  "open mv0's device"  "run this script"  "resolve this name"
//!     │                │ descriptors, lines, addresses
//!     └──▶ the tunnel: CAP_NET_ADMIN and nothing else
//! ```
//!
//! It does eight things and checks each itself: it opens the devices of taps and macvtaps; it makes network namespaces for
//! them, and opens there what the tunnel needs; it runs a pushed script if *its* copy of the policy allows that, in a
//! child; it runs the programs of *its* copy of `[hooks]`, and no others; it has a child without any rights resolve a
//! name; it makes the socket of `tap-rs status`; it writes the key of an invited client into the config, where the config itself has that invite; and when the
//! line to it breaks, however the tunnel came to its end, it takes down what must not stay up, and runs the program for
//! that.
//!
//! The line is a pair of sockets. Questions are answered one by one, at once; what takes longer goes on in a child with
//! a line of its own.

mod child;
#[cfg_attr(not(feature = "full"), path = "keeper/enrol/none.rs")]
mod enrol;
mod question;
mod serve;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as Stream;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;
use tracing::{debug, info};

use self::question::{Guarded, Question, name};
use super::hooks::Words;
use super::log::ASKED;
use super::reload::Source;
use super::script::{self, Outcome, Script, ScriptError};
use crate::config::{Hook, Hooks, ScriptPolicy};
use crate::keys::PublicKey;
use crate::nic::events::Events;
use crate::nic::sysctl::Sysctl;
use crate::nic::{Devices, Nic, Side};
use crate::sys::netlink::NetlinkSocket;
use crate::sys::process::{Copy, split};
use crate::sys::script::sealed_memfd;
use crate::sys::unix::Messages;
use crate::types::{NetnsName, NicName};

/// Longest question and answer, in bytes.
const ROOM: usize = 512;

/// What the keeper goes by. It has it from the config, before anything has come from the network.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Which scripts may run.
    pub script: ScriptPolicy,
    /// The programs of `[hooks]`.
    pub hooks: Hooks,
    /// What the program that is run at the end is told.
    pub words: Words,
    /// Which network namespaces of others may be entered.
    pub netns: Vec<NetnsName>,
    /// Where that comes from, again at each reload, and where the keys of invited clients are written.
    pub config: Source,
    /// The pid file, to be removed at the end.
    pub pid: Option<PathBuf>,
}

/// The tunnel's end of the line. When it is dropped the keeper ends, and is waited for.
#[derive(Debug)]
pub struct Keeper {
    line: Option<Messages>,
    copy: Option<Copy>,
}

/// Starts the keeper. To be called while the process has one thread.
pub fn start(rules: Rules) -> io::Result<Keeper> {
    let (ours, theirs) = Messages::pair()?;
    match split()? {
        Some(copy) => Ok(Keeper { line: Some(ours), copy: Some(copy) }),
        None => serve::run(theirs, rules),
    }
}

impl Keeper {
    /// One that has ended.
    #[cfg(test)]
    pub fn absent() -> Self {
        Self { line: None, copy: None }
    }

    /// From now on takes the interface down, or away, when this process ends without having put it back.
    pub fn guard(&self, nic: &Nic, netns: Option<&NetnsName>, side: Side) -> io::Result<()> {
        let guarded = Guarded { netns: netns.cloned(), traces: nic.traces(side) };
        self.ask(Question::Guard, &guarded.bytes(), &[]).map(drop)
    }

    /// The interface has been put back, or is gone.
    pub fn release(&self, index: u32, netns: Option<&NetnsName>) {
        let question = [&index.to_ne_bytes()[..], &name(netns.map(NetnsName::as_str))].concat();
        // A keeper that is gone has nothing to be told.
        let _ = self.ask(Question::Release, &question, &[]);
    }

    /// What happens in a network namespace.
    pub fn events(&self, netns: &NetnsName) -> io::Result<Events> {
        let socket = self.open(Question::Events, &name(Some(netns.as_str())))?;
        Ok(NetlinkSocket::from(OwnedFd::from(socket)).into())
    }

    /// Removes the network namespaces that killed processes have left. Tells of each in the log.
    pub fn sweep(&self) {
        if let Err(e) = self.ask(Question::Sweep, &[], &[]) {
            debug!("nobody looks for old namespaces: {e}");
        }
    }

    /// The config has been read again, and the keeper is to go by it, too.
    pub fn follow(&self) -> io::Result<()> {
        self.ask(Question::Policy, &[], &[]).map(drop)
    }

    /// Writes the key of a client into the config, in the place of its invite.
    pub fn enrol(&self, invite: PublicKey, key: PublicKey) -> io::Result<()> {
        self.ask(Question::Enrol, &[*invite.as_bytes(), *key.as_bytes()].concat(), &[]).map(drop)
    }

    /// A socket that `tap-rs status` finds, and a descriptor with something to read when it no longer does, where the
    /// system has one to spare.
    #[cfg(feature = "full")]
    pub fn listen(&self) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        let mut fds = self.ask(Question::Listen, &[], &[])?.into_iter();
        let socket = fds.next().ok_or(ErrorKind::InvalidData)?;
        Ok((socket, fds.next()))
    }

    /// Has a script run to its end or its limit, and logs what it says. Dropped, it ends the script.
    ///
    /// # Errors
    /// As [`script::run_with`].
    pub async fn run(&self, script: Script<'_>) -> Result<Outcome, ScriptError> {
        script::check(script.bytes)?;
        let limit = u64::try_from(script.limit.as_millis()).unwrap_or(u64::MAX);
        let text = sealed_memfd(script.bytes)?;
        let line = self.hire(Question::Script, &limit.to_ne_bytes(), Some(text.as_fd()))?;
        follow(line, "script").await
    }

    /// Has a program of `[hooks]` run to its end or its limit, and logs what it says. Dropped, it ends the program.
    ///
    /// # Errors
    /// It did not start.
    pub async fn hook(&self, hook: Hook, words: &Words) -> Result<Outcome, ScriptError> {
        let text = sealed_memfd(words.text().as_bytes())?;
        let line = self.hire(Question::Hook, hook.key().as_bytes(), Some(text.as_fd()))?;
        follow(line, hook.key()).await
    }

    /// The addresses of a name.
    pub async fn look_up(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let question = [&port.to_ne_bytes()[..], name.as_bytes()].concat();
        let mut line = self.hire(Question::Resolve, &question, None)?;
        let mut found = Vec::new();
        while let Some(said) = line.next().await? {
            match said.parse() {
                Ok(address) => found.push(address),
                Err(_) => return Err(io::Error::other(said)),
            }
        }
        Ok(found)
    }

    /// Has a child do something, and gives the line to it.
    fn hire(&self, question: Question, rest: &[u8], with: Option<BorrowedFd<'_>>) -> io::Result<Lines> {
        let (ours, theirs) = Stream::pair()?;
        let fds: Vec<_> = with.into_iter().chain([theirs.as_fd()]).collect();
        self.ask(question, rest, &fds)?;
        ours.set_nonblocking(true)?;
        Ok(Lines { from: UnixStream::from_std(ours)?, read: Vec::new() })
    }

    fn open(&self, question: Question, rest: &[u8]) -> io::Result<File> {
        let file = self.ask(question, rest, &[])?.pop().ok_or(ErrorKind::InvalidData)?;
        Ok(file.into())
    }

    fn ask(&self, question: Question, rest: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
        let gone = || io::Error::other("the keeper has ended; restart tap-rs");
        let line = self.line.as_ref().ok_or_else(gone)?;
        line.send(&[&[question as u8], rest].concat(), fds)?;
        answer(line)
    }
}

/// The descriptors of an answer, or what was refused.
fn answer(line: &Messages) -> io::Result<Vec<OwnedFd>> {
    match line.recv(&mut [0; ROOM])? {
        ([], _) => Err(io::Error::other("the keeper has ended; restart tap-rs")),
        ([0], fds) => Ok(fds),
        ([_, a, b, c, d, text @ ..], _) => Err(match i32::from_ne_bytes([*a, *b, *c, *d]) {
            0 => io::Error::other(String::from_utf8_lossy(text).into_owned()),
            errno => io::Error::from_raw_os_error(errno),
        }),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

impl Devices for Keeper {
    fn tun(&self, netns: Option<&NetnsName>) -> io::Result<File> {
        self.open(Question::Tun, &name(netns.map(NetnsName::as_str)))
    }

    fn netlink(&self, netns: &NetnsName) -> io::Result<NetlinkSocket> {
        let socket = self.open(Question::Netlink, &name(Some(netns.as_str())))?;
        Ok(OwnedFd::from(socket).into())
    }

    fn sysctl(&self, netns: Option<&NetnsName>, key: Sysctl, interface: &str) -> io::Result<File> {
        if netns.is_none() {
            return key.open(interface);
        }
        let netns = name(netns.map(NetnsName::as_str));
        self.open(Question::Sysctl, &[&[key as u8][..], &netns, interface.as_bytes()].concat())
    }

    fn macvtap(&self, name: &NicName, index: u32) -> io::Result<File> {
        self.open(Question::Macvtap, &[&index.to_ne_bytes()[..], name.as_str().as_bytes()].concat())
    }

    fn runs(&self, process: u32) -> bool {
        self.ask(Question::Runs, &process.to_ne_bytes(), &[]).is_ok()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.line.take());
        self.copy.iter().for_each(Copy::wait);
    }
}

/// Logs what a child says of what it runs, until that has ended.
async fn follow(mut line: Lines, what: &str) -> Result<Outcome, ScriptError> {
    while let Some(said) = line.next().await? {
        match Said::parse(&said) {
            Some(Said::Line(text)) => info!(target: ASKED, "{what}: {text}"),
            Some(Said::Ended(outcome)) => return Ok(outcome),
            Some(Said::Failed(why)) => return Err(ScriptError::Elsewhere(why.to_owned())),
            None => return Err(ScriptError::Elsewhere(format!("the keeper said {said:?}"))),
        }
    }
    Err(io::Error::from(ErrorKind::UnexpectedEof).into())
}

/// Lines of text from a child of the keeper's.
struct Lines {
    from: UnixStream,
    read: Vec<u8>,
}

impl Lines {
    /// The next line; `None`: there are no more.
    async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.read.iter().position(|b| *b == b'\n') {
                let rest = self.read.split_off(end.saturating_add(1));
                let mut line = std::mem::replace(&mut self.read, rest);
                line.pop();
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            self.from.readable().await?;
            let mut bytes = [0; 4096];
            match self.from.try_read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(n) => self.read.extend_from_slice(bytes.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// One line about a script, as the child that runs it writes it.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// It printed this.
    Line(&'a str),
    /// It has ended.
    Ended(Outcome),
    /// It was not run.
    Failed(&'a str),
}

impl<'a> Said<'a> {
    /// Reads a line without its end; `None` where it is none of these.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (tag, rest) = line.split_once(' ')?;
        Some(match tag {
            "line" => Self::Line(rest),
            "exited" => Self::Ended(Outcome::Exited(rest.parse().ok()?)),
            "signaled" => Self::Ended(Outcome::Signaled(rest.parse().ok()?)),
            "late" => Self::Ended(Outcome::TimedOut),
            "failed" => Self::Failed(rest),
            _ => return None,
        })
    }

    /// The line, with its end.
    pub fn text(&self) -> String {
        match self {
            Self::Line(text) => format!("line {text}\n"),
            Self::Ended(Outcome::Exited(n)) => format!("exited {n}\n"),
            Self::Ended(Outcome::Signaled(n)) => format!("signaled {n}\n"),
            Self::Ended(Outcome::TimedOut) => "late -\n".to_owned(),
            Self::Failed(why) => format!("failed {}\n", why.replace('\n', " ")),
        }
    }
}

/// How long a child waits for the tunnel to take a line.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_script_crosses_as_it_is() {
        for said in [
            Said::Line(""),
            Said::Line("a b  c"),
            Said::Ended(Outcome::Exited(7)),
            Said::Ended(Outcome::Signaled(9)),
            Said::Ended(Outcome::TimedOut),
            Said::Failed("no such thing"),
        ] {
            let text = said.text();
            assert_eq!(Said::parse(text.strip_suffix('\n').unwrap()), Some(said));
        }
        for bad in ["", "line", "exited x", "exited 256", "else 1"] {
            assert_eq!(Said::parse(bad), None);
        }
    }
}
