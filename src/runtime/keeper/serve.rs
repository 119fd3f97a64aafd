//! The keeper itself: the loop of the copy, and the children that it starts.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as Stream;
use std::time::Duration;

use tracing::{info, warn};

use super::child::{Task, play};
use super::enrol::enrol;
use super::question::{Guarded, Question};
use super::{ROOM, Rules, answer};
use crate::config::Hook;
use crate::keys::PublicKey;
use crate::nic::events::listener;
use crate::nic::netns::{self, within};
use crate::nic::sysctl::Sysctl;
use crate::nic::{self, Devices, Here};
#[cfg(feature = "full")]
use crate::runtime::control_socket::{Name, Place};
use crate::runtime::{netns as config_netns, script_policy};
use crate::sys::netlink::NetlinkSocket;
use crate::sys::process::{
    become_nobody, close_others, is_named, keep_memory_private, leave, name_of, parent, set_name, split,
    stand_apart,
};
use crate::sys::unix::Messages;
use crate::types::{NetnsName, NicName};

/// Most interfaces that are looked after.
const GUARDED: usize = 4096;

/// Serves until the other end of the line is closed; then cleans up and ends this process.
pub(super) fn run(line: Messages, rules: Rules) -> ! {
    let tunnel = parent();
    let name = name_of(tunnel).unwrap_or_default();
    stand_apart();
    close_others(line.as_fd());
    let _ = keep_memory_private();
    set_name(c"tap-rs-keeper");
    let served = std::panic::catch_unwind(|| {
        let mut desk = Desk {
            rules,
            tunnel,
            name,
            guarded: Vec::new(),
            up: false,
            #[cfg(feature = "full")]
            socket: None,
        };
        desk.serve(&line);
        desk.clean_up();
    });
    leave(u8::from(served.is_err()))
}

struct Desk {
    rules: Rules,
    /// The process that asks.
    tunnel: u32,
    /// Its name, by which others of its kind are known: also when it is gone.
    name: String,
    /// What must not stay as it is when the tunnel is gone.
    guarded: Vec<Guarded>,
    /// The NICs were set up: at the end the program for that is run.
    up: bool,
    /// Where `tap-rs status` finds the tunnel.
    #[cfg(feature = "full")]
    socket: Option<Name>,
}

impl Desk {
    fn serve(&mut self, line: &Messages) {
        let mut room = [0; ROOM];
        loop {
            let (question, fds) = match line.recv(&mut room) {
                Ok(([], _)) => return,
                Ok(it) => it,
                // A question that is too long; the answer says so.
                Err(e) if e.kind() == ErrorKind::InvalidData => (&[0][..], Vec::new()),
                Err(_) => return,
            };
            let told = match self.answer(question, fds) {
                Ok(files) => line.send(&[0], &files.iter().map(OwnedFd::as_fd).collect::<Vec<_>>()),
                Err(e) => line.send(&refusal(&e), &[]),
            };
            if told.is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, question: &[u8], mut fds: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
        let nothing = || Ok(Vec::new());
        let bad = || io::Error::from(ErrorKind::InvalidInput);
        let (question, mut parts) = Question::parse(question).ok_or_else(bad)?;
        match question {
            Question::Tun => match parts.name::<NetnsName>().ok_or_else(bad)? {
                None => Here.tun(None).map(one),
                Some(netns) => within(&self.netns(&netns)?, || Here.tun(None)).map(one),
            },
            Question::Macvtap => {
                let index = parts.number().ok_or_else(bad)?;
                let name: NicName = parts.rest().ok_or_else(bad)?;
                Here.macvtap(&name, index).map(one)
            }
            Question::Netlink => {
                let netns = parts.name().ok_or_else(bad)?.ok_or_else(bad)?;
                within(&self.netns(&netns)?, NetlinkSocket::open).map(one)
            }
            Question::Events => {
                let netns = parts.name().ok_or_else(bad)?.ok_or_else(bad)?;
                within(&self.netns(&netns)?, listener).map(one)
            }
            Question::Sysctl => {
                let key = parts.byte().and_then(Sysctl::from_u8).ok_or_else(bad)?;
                let netns = parts.name().ok_or_else(bad)?.ok_or_else(bad)?;
                let interface: NicName = parts.rest().ok_or_else(bad)?;
                within(&self.netns(&netns)?, || key.open(interface.as_str())).map(one)
            }
            Question::Sweep => {
                self.sweep();
                nothing()
            }
            Question::Guard => {
                let guarded = Guarded::parse(&mut parts).ok_or_else(bad)?;
                self.guarded.retain(|g| !is_same(g, guarded.traces.index, guarded.netns.as_ref()));
                if self.guarded.len() >= GUARDED {
                    return Err(ErrorKind::OutOfMemory.into());
                }
                self.guarded.push(guarded);
                nothing()
            }
            Question::Release => {
                let index = parts.number().ok_or_else(bad)?;
                let netns: Option<NetnsName> = parts.name().ok_or_else(bad)?;
                self.guarded.retain(|g| !is_same(g, index, netns.as_ref()));
                if let Some(netns) =
                    netns.filter(|n| !self.guarded.iter().any(|g| g.netns.as_ref() == Some(n)))
                {
                    self.remove(vec![netns]);
                }
                nothing()
            }
            Question::Runs => {
                let pid = parts.number().ok_or_else(bad)?;
                // This process has a name of its own.
                if is_named(pid, &self.name) { nothing() } else { Err(ErrorKind::NotFound.into()) }
            }
            Question::Policy => {
                let (config, _) = self.rules.config.load().map_err(io::Error::other)?;
                self.rules.script = script_policy(&config);
                // Those named before, too: where this config cannot be followed, NICs go back into them.
                let more = config_netns(&config).into_iter().filter(|n| !self.rules.netns.contains(n));
                self.rules.netns.extend(more.collect::<Vec<_>>());
                nothing()
            }
            Question::Enrol => {
                let (invite, key) = parts.0.split_first_chunk::<32>().ok_or_else(bad)?;
                let key = <[u8; 32]>::try_from(key).map_err(|_| bad())?;
                let keys = PublicKey::try_from(*invite).and_then(|i| Ok((i, PublicKey::try_from(key)?)));
                let (invite, key) = keys.map_err(|_| bad())?;
                enrol(&self.rules.config, invite, key)?;
                nothing()
            }
            #[cfg(feature = "full")]
            Question::Listen => {
                let Place { listener, watch, name } = Place::make(&self.rules.config.path, self.tunnel)?;
                self.socket = Some(name);
                Ok([listener.into()].into_iter().chain(watch).collect())
            }
            Question::Script => {
                let limit = parts.0.first_chunk().map(|ms| Duration::from_millis(u64::from_ne_bytes(*ms)));
                let (limit, to, text) =
                    (limit.ok_or_else(bad)?, fds.pop().ok_or_else(bad)?, fds.pop().ok_or_else(bad)?);
                let task = Task::Script { policy: &self.rules.script, limit };
                in_a_child(|| play(&task, text.into(), &to.into()))?;
                nothing()
            }
            Question::Hook => {
                let (to, text) = (fds.pop().ok_or_else(bad)?, fds.pop().ok_or_else(bad)?);
                let hook = Hook::ALL.into_iter().find(|h| h.key().as_bytes() == parts.0).ok_or_else(bad)?;
                self.up |= hook == Hook::Up;
                let Some(task) = Task::hook(&self.rules.hooks, hook) else { return nothing() };
                in_a_child(|| play(&task, text.into(), &to.into()))?;
                nothing()
            }
            Question::Resolve => {
                let (port, name) = parts.0.split_first_chunk::<2>().ok_or_else(bad)?;
                let (port, to) = (u16::from_ne_bytes(*port), fds.pop().ok_or_else(bad)?);
                let name = std::str::from_utf8(name).map_err(|_| bad())?;
                in_a_child(|| resolve(name, port, to.into()))?;
                nothing()
            }
        }
    }

    /// The tunnel is gone. Where it ended in order there is nothing left to do.
    fn clean_up(&mut self) {
        #[cfg(feature = "full")]
        self.socket.iter().for_each(Name::remove);
        self.await_last_taps();
        let mut spaces = Vec::new();
        for Guarded { netns, traces } in std::mem::take(&mut self.guarded) {
            let abandon = || nic::abandon(&traces, self.tunnel).map_err(|e| io::Error::other(e.to_string()));
            let done = match &netns {
                None => abandon(),
                // Somebody may have taken its name away.
                Some(netns) => netns::open(netns).map_or(Ok(None), |there| within(&there, abandon)),
            };
            match done {
                Ok(None) => {}
                Ok(Some(done)) => warn!("tap-rs ended without putting its interfaces back: {done}"),
                Err(e) => warn!("{e}"),
            }
            spaces.extend(netns.filter(|n| !spaces.contains(n)));
        }
        if !spaces.is_empty() {
            self.remove(spaces);
        }
        if let Some(task) = Task::hook(&self.rules.hooks, Hook::Down).filter(|_| self.up) {
            task.run_alone(self.rules.words.text());
        }
        if let Some(pid) = &self.rules.pid {
            let _ = fs::remove_file(pid);
        }
    }

    /// A killed tunnel's taps go with its last descriptor, which may be closed after the line.
    fn await_last_taps(&self) {
        let passing = |guarded: &Guarded| {
            let there = guarded.netns.as_ref().map(netns::open);
            let index = guarded.traces.index;
            there.is_some_and(|netns| {
                netns.and_then(|n| within(&n, || nic::is_passing(index))).unwrap_or(false)
            })
        };
        for _ in 0..200 {
            if !self.guarded.iter().any(passing) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The network namespace of this name, made where there is none. Of those that others have made, only what the config
    /// names, or has named in this run: whoever takes the tunnel over is not to get into any.
    fn netns(&self, name: &NetnsName) -> io::Result<File> {
        let tunnel = self.tunnel;
        let known = self.rules.netns.contains(name);
        let open = || netns::open_or_make(name, known, tunnel, |pid| is_named(pid, &self.name)).map(Some);
        for_everybody(open)?.ok_or_else(|| ErrorKind::InvalidData.into())
    }

    /// Removes namespaces of which the tunnel has had the last interface, if it has made them.
    fn remove(&self, names: Vec<NetnsName>) {
        let tunnel = self.tunnel;
        // What the tunnel itself has made is done with, too.
        let runs = |pid| pid != tunnel && is_named(pid, &self.name);
        let removed = for_everybody(|| {
            for name in &names {
                if let Err(e) = netns::remove_if_done(name, runs) {
                    warn!("cannot remove the network namespace {name}: {e}");
                }
            }
            Ok(None)
        });
        if let Err(e) = removed {
            warn!("cannot remove network namespaces: {e}");
        }
    }

    fn sweep(&self) {
        let swept = for_everybody(|| {
            for name in netns::sweep(|pid| is_named(pid, &self.name)) {
                info!("removed the network namespace {name}, which a killed tap-rs has left");
            }
            Ok(None)
        });
        if let Err(e) = swept {
            warn!("cannot look for old network namespaces: {e}");
        }
    }
}

fn is_same(guarded: &Guarded, index: u32, netns: Option<&NetnsName>) -> bool {
    guarded.traces.index == index && guarded.netns.as_ref() == netns
}

fn one(file: impl Into<OwnedFd>) -> Vec<OwnedFd> {
    vec![file.into()]
}

/// Does something in a child that sees the mounts that everybody sees, and waits for what it gives.
fn for_everybody(work: impl FnOnce() -> io::Result<Option<File>>) -> io::Result<Option<File>> {
    let (here, there) = Messages::pair()?;
    in_a_child(|| {
        netns::see_everybodys_mounts();
        let _ = match work() {
            Ok(Some(file)) => there.send(&[0], &[file.as_fd()]),
            Ok(None) => there.send(&[0], &[]),
            Err(e) => there.send(&refusal(&e), &[]),
        };
    })?;
    drop(there);
    answer(&here).map(|mut fds| fds.pop().map(File::from))
}

fn refusal(e: &io::Error) -> Vec<u8> {
    let errno = e.raw_os_error().unwrap_or(0);
    let mut text = e.to_string().into_bytes();
    text.truncate(ROOM / 2);
    [&[1][..], &errno.to_ne_bytes(), &text].concat()
}

/// Does something that takes time in a child, which nobody waits for.
fn in_a_child(work: impl FnOnce()) -> io::Result<()> {
    if split()?.is_some() {
        return Ok(());
    }
    // Whatever becomes of it, the child does not go on as a keeper.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    leave(u8::from(done.is_err()))
}

/// Resolves a name, as nobody: what comes from a name server is read by a process that may do nothing.
fn resolve(name: &str, port: u16, mut to: Stream) {
    become_nobody();
    let found = match (name, port).to_socket_addrs() {
        Ok(found) => found.map(|address| format!("{address}\n")).collect(),
        Err(e) => format!("{}\n", e.to_string().replace('\n', " ")),
    };
    let _ = to.write_all(found.as_bytes());
}
