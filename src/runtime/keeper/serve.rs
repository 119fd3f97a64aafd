//! The keeper itself: the loop of the copy, and the children that it starts.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as Stream;
use std::time::Duration;

use tracing::warn;

use super::enrol::enrol;
use super::{PATIENCE, Question, ROOM, Rules, Said};
use crate::config::ScriptPolicy;
use crate::keys::PublicKey;
use crate::nic::{self, Devices, Here};
use crate::runtime::script::{Script, allowed, run_with};
use crate::runtime::script_policy;
use crate::sys::poll::await_readable;
use crate::sys::process::{
    become_nobody, close_others, is_like, keep_memory_private, leave, parent, set_name, split, stand_apart,
    take_signals_again,
};
use crate::sys::unix::Messages;
use crate::types::NicName;
use crate::wire::push;

/// Most interfaces that are looked after.
const GUARDED: usize = 4096;

/// Serves until the other end of the line is closed; then cleans up and ends this process.
pub(super) fn run(line: Messages, rules: Rules) -> ! {
    let tunnel = parent();
    stand_apart();
    close_others(line.as_fd());
    let _ = keep_memory_private();
    set_name(c"tap-rs-keeper");
    let served = std::panic::catch_unwind(|| {
        let mut desk = Desk { rules, guarded: Vec::new() };
        desk.serve(&line);
        desk.clean_up(tunnel);
    });
    leave(u8::from(served.is_err()))
}

/// An interface that must not stay as it is when the tunnel is gone.
struct Guarded {
    index: u32,
    client: bool,
}

struct Desk {
    rules: Rules,
    guarded: Vec<Guarded>,
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
                Ok(Some(file)) => line.send(&[0], &[file.as_fd()]),
                Ok(None) => line.send(&[0], &[]),
                Err(e) => line.send(&refusal(&e), &[]),
            };
            if told.is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, question: &[u8], mut fds: Vec<OwnedFd>) -> io::Result<Option<File>> {
        let bad = || io::Error::from(ErrorKind::InvalidInput);
        let (tag, rest) = question.split_first().ok_or_else(bad)?;
        let question = Question::ALL.into_iter().find(|q| *q as u8 == *tag).ok_or_else(bad)?;
        match question {
            Question::Tun => Here.tun().map(Some),
            Question::Macvtap => {
                let (index, name) = number(rest).ok_or_else(bad)?;
                let name: NicName =
                    std::str::from_utf8(name).ok().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
                Here.macvtap(&name, index).map(Some)
            }
            Question::Guard => {
                let (index, rest) = number(rest).ok_or_else(bad)?;
                self.guarded.retain(|g| g.index != index);
                if self.guarded.len() >= GUARDED {
                    return Err(ErrorKind::OutOfMemory.into());
                }
                self.guarded.push(Guarded { index, client: rest == [1] });
                Ok(None)
            }
            Question::Release => {
                let (index, _) = number(rest).ok_or_else(bad)?;
                self.guarded.retain(|g| g.index != index);
                Ok(None)
            }
            Question::Runs => {
                let (pid, _) = number(rest).ok_or_else(bad)?;
                // This process has a name of its own.
                if is_like(pid, parent()) { Ok(None) } else { Err(ErrorKind::NotFound.into()) }
            }
            Question::Policy => {
                self.rules.script = self
                    .rules
                    .config
                    .load()
                    .map(|(config, _)| script_policy(&config))
                    .map_err(io::Error::other)?;
                Ok(None)
            }
            Question::Enrol => {
                let (invite, key) = rest.split_first_chunk::<32>().ok_or_else(bad)?;
                let key = <[u8; 32]>::try_from(key).map_err(|_| bad())?;
                let keys = PublicKey::try_from(*invite).and_then(|i| Ok((i, PublicKey::try_from(key)?)));
                let (invite, key) = keys.map_err(|_| bad())?;
                enrol(&self.rules.config, invite, key).map(|()| None)
            }
            Question::Script => {
                let limit = rest.first_chunk().map(|ms| Duration::from_millis(u64::from_ne_bytes(*ms)));
                let (limit, to, text) =
                    (limit.ok_or_else(bad)?, fds.pop().ok_or_else(bad)?, fds.pop().ok_or_else(bad)?);
                let policy = &self.rules.script;
                in_a_child(|| play(policy, text.into(), limit, to.into())).map(|()| None)
            }
            Question::Resolve => {
                let (port, name) = rest.split_first_chunk::<2>().ok_or_else(bad)?;
                let (port, to) = (u16::from_ne_bytes(*port), fds.pop().ok_or_else(bad)?);
                let name = std::str::from_utf8(name).map_err(|_| bad())?;
                in_a_child(|| resolve(name, port, to.into())).map(|()| None)
            }
        }
    }

    /// The tunnel is gone. Where it ended in order there is nothing left to do.
    fn clean_up(&mut self, tunnel: u32) {
        for Guarded { index, client } in self.guarded.drain(..) {
            match nic::abandon(index, client, tunnel) {
                Ok(None) => {}
                Ok(Some(done)) => warn!("tap-rs ended without putting its interfaces back: {done}"),
                Err(e) => warn!("{e}"),
            }
        }
        if let Some(pid) = &self.rules.pid {
            let _ = fs::remove_file(pid);
        }
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (index, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_ne_bytes(*index), rest))
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

/// Runs a script if the policy allows it, and says how it goes.
fn play(policy: &ScriptPolicy, text: File, limit: Duration, to: Stream) {
    take_signals_again();
    let said = match read(text).and_then(|bytes| play_out(policy, &bytes, limit, &to)) {
        Ok(said) => said,
        Err(e) => Said::Failed(&e.to_string()).text(),
    };
    let _ = (&to).write_all(said.as_bytes());
}

/// A copy, so that nobody changes what has been checked.
fn read(mut text: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    text.rewind()?;
    text.take(push::MAX_LEN as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn play_out(policy: &ScriptPolicy, bytes: &[u8], limit: Duration, to: &Stream) -> io::Result<String> {
    if let Err(e) = allowed(policy, bytes) {
        return Ok(Said::Failed(&e.to_string()).text());
    }
    to.set_write_timeout(Some(PATIENCE))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let say = |line: &str| {
            // Nobody listens any more: then the script is stopped anyway.
            let _ = (&*to).write_all(Said::Line(line).text().as_bytes());
        };
        // The tunnel says nothing on this line, so that it can only be closed.
        let closed = await_readable(to.as_fd().try_clone_to_owned()?)?;
        let run = run_with(Script { bytes, limit }, say);
        tokio::select! {
            ended = run => Ok(match ended {
                Ok(outcome) => Said::Ended(outcome).text(),
                Err(e) => Said::Failed(&e.to_string()).text(),
            }),
            _ = closed.readable() => Ok(String::new()),
        }
    })
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
