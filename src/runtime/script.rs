//! Runs a script that the server pushed, on the client, as root: under a policy that the client sets, and cut
//! off from everything that the client has open. A child of the [keeper](super::keeper) does. The programs of `[hooks]`
//! are run in the same way.
//!
//! ```text
//! bytes → allowed? → interpreter? → sealed memfd → INTERPRETER /proc/self/fd/N → lines → log
//!                                                        └ ended, or TERM, 2 s, KILL → Outcome
//! ```
//!
//! What the script finds, whatever the client was started with: `PATH` and no other variable, directory `/`,
//! umask 077, standard input at `/dev/null`, both outputs on one pipe to the log, its own text under one more
//! descriptor, no others, and a session and process group of its own. Its text is never a file on a disk, and
//! cannot change once it has been checked.
//!
//! What it leaves behind: a script that ends by itself may leave processes running (that is how one starts a
//! daemon), and nothing is done to them. They should not keep the script's output: the pipe is closed soon after
//! the script's end, and writing to it then kills. A script that runs out of time takes its whole group along;
//! only what moved into a session of its own stays. The same holds when [`run_with`]'s future is dropped.
//!
//! Not here: that one script runs once (the caller remembers hashes), and where the bytes come from.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod output;
mod shebang;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::config::{ScriptPolicy, may_run};
use crate::sys::poll::await_readable;
use crate::sys::process::signal_group;
use crate::sys::script::{confine, pidfd, sealed_memfd};
use output::Output;
use sha2::{Digest, Sha256};
pub use shebang::BadInterpreter;
use shebang::Interpreter;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until, timeout_at};

/// A script that the policy lets through.
#[derive(Clone, Copy)]
pub struct Script<'a> {
    /// The text, with its `#!` line if it has one.
    pub bytes: &'a [u8],
    /// How long it may run before it is stopped.
    pub limit: Duration,
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this status.
    Exited(u8),
    /// This signal killed it, and the signal was not ours.
    Signaled(i32),
    /// It was still running at its limit.
    TimedOut,
}

impl Outcome {
    /// The status that the client ends with, as a shell and timeout(1) have it: n, 128 + signal, 124.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
            Self::TimedOut => 124,
        }
    }
}

impl From<ExitStatus> for Outcome {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, signal) => Self::Signaled(signal.unwrap_or_default()),
        }
    }
}

/// The policy does not allow a script.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The policy is [`ScriptPolicy::Never`].
    #[error(
        "the server wants a script run here, and this client runs none; to allow exactly this one, write \
         script = \"pinned\" and script_sha256 = [\"{}\"] in the client's config", hex(.0)
    )]
    Never([u8; 32]),
    /// The policy is [`ScriptPolicy::Pinned`], and the sum is not on the list.
    #[error(
        "the server wants a script run here that is not on this client's list; if it is meant to be, add \
         \"{}\" to script_sha256 in the client's config", hex(.0)
    )]
    NotPinned([u8; 32]),
}

/// A script did not start, or could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Its first line names something that is not on the list.
    #[error(transparent)]
    Interpreter(#[from] BadInterpreter),
    /// The interpreter, or the program, did not start.
    #[error("{0} does not start on this box ({1}); install it, or write the script for /bin/sh")]
    Start(String, io::Error),
    /// The keeper did not run it.
    #[error("{0}")]
    Elsewhere(String),
    /// The kernel refused something on the way.
    #[error("the script could not be run: {0}")]
    Io(#[from] io::Error),
}

/// The SHA-256 of `bytes`, if `policy` allows that they are run.
///
/// # Errors
/// [`Refused`], with the sum and what to write.
pub fn allowed(policy: &ScriptPolicy, bytes: &[u8]) -> Result<[u8; 32], Refused> {
    let sum: [u8; 32] = Sha256::digest(bytes).into();
    match policy {
        ScriptPolicy::Any => Ok(sum),
        ScriptPolicy::Pinned(list) if list.contains(&sum) => Ok(sum),
        ScriptPolicy::Pinned(_) => Err(Refused::NotPinned(sum)),
        ScriptPolicy::Never => Err(Refused::Never(sum)),
    }
}

/// Whether the script's first line names an interpreter that may run it.
///
/// # Errors
/// It does not.
pub fn check(script: &[u8]) -> Result<(), BadInterpreter> {
    Interpreter::of(script).map(drop)
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// From TERM to KILL.
const GRACE: Duration = Duration::from_secs(2);
/// How long a descriptor that some child keeps open is listened to after the script's end.
const DRAIN: Duration = Duration::from_millis(500);

/// Runs a script to its end or its limit, and gives what it says to `say`, line by line. Needs a tokio runtime with
/// time and I/O.
///
/// # Errors
/// The script did not start; a script that starts and fails is an [`Outcome`].
pub async fn run_with(script: Script<'_>, say: impl FnMut(&str)) -> Result<Outcome, ScriptError> {
    let interpreter = Interpreter::of(script.bytes)?;
    let text = sealed_memfd(script.bytes)?;
    let mut command = Command::new(interpreter.path);
    command
        .env_clear()
        .args(interpreter.argument.as_deref())
        .arg(format!("/proc/self/fd/{}", text.as_raw_fd()));
    run_command(command, Some(text.as_fd()), script.limit, say).await
}

/// Runs a program of the user's in the same way, with these variables besides `PATH`.
///
/// # Errors
/// As [`run_with`].
pub async fn run_program(
    program: &Path,
    variables: impl IntoIterator<Item = (&str, &str)>,
    limit: Duration,
    say: impl FnMut(&str),
) -> Result<Outcome, ScriptError> {
    may_run(program).map_err(ScriptError::Elsewhere)?;
    let mut command = Command::new(program);
    command.env_clear().envs(variables);
    run_command(command, None, limit, say).await
}

async fn run_command(
    mut command: Command,
    keep: Option<BorrowedFd<'_>>,
    limit: Duration,
    say: impl FnMut(&str),
) -> Result<Outcome, ScriptError> {
    let (reader, writer) = io::pipe()?;
    let mut group = Group::start(&mut command, keep, writer)?;
    let mut output = Pipe { from: pipe::Receiver::from_owned_fd(reader.into())?, open: true };
    let mut lines = Output::new(say);

    let mut deadline = Instant::now().checked_add(limit);
    let mut sent = None;
    loop {
        tokio::select! {
            biased;
            ended = group.ended() => { ended?; break; }
            () = until(deadline) => {
                sent = match sent {
                    None => Some(libc::SIGTERM),
                    Some(libc::SIGTERM) => Some(libc::SIGKILL),
                    // Stuck inside the kernel: not even KILL gets it out, and waiting would not either.
                    Some(_) => break,
                };
                sent.iter().for_each(|signal| group.signal(*signal));
                deadline = Instant::now().checked_add(GRACE);
            }
            bytes = output.read(), if output.open => lines.push(&bytes),
        }
    }
    if sent.is_some() {
        // Its children too, when the script itself went at once and they did not.
        group.signal(libc::SIGKILL);
    }
    let status = group.reap()?;
    output.drain(&mut lines).await;
    lines.finish();
    Ok(match (sent, status) {
        (None, Some(status)) => status.into(),
        _ => Outcome::TimedOut,
    })
}

/// A limit too far off to be an `Instant` never comes.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The interpreter and every process of its group. Dropped before it was reaped, it is killed.
struct Group {
    leader: Child,
    reaped: bool,
    /// Becomes readable when the leader ends, while its number cannot yet be somebody else's.
    ended: AsyncFd<OwnedFd>,
}

impl Group {
    fn start(
        command: &mut Command,
        keep: Option<BorrowedFd<'_>>,
        output: io::PipeWriter,
    ) -> Result<Self, ScriptError> {
        command.env("PATH", PATH).current_dir("/");
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        confine(command, keep);
        let program = command.get_program().to_string_lossy().into_owned();
        let mut leader = command.spawn().map_err(|e| ScriptError::Start(program, e))?;
        match pidfd(&leader).and_then(await_readable) {
            Ok(ended) => Ok(Self { leader, reaped: false, ended }),
            Err(e) => {
                signal_group(leader.id(), libc::SIGKILL)?;
                leader.wait()?;
                Err(e.into())
            }
        }
    }

    async fn ended(&self) -> io::Result<()> {
        self.ended.readable().await.map(drop)
    }

    fn signal(&self, signal: libc::c_int) {
        if !self.reaped {
            // A group that has ended is no error.
            let _ = signal_group(self.leader.id(), signal);
        }
    }

    fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.leader.try_wait()?;
        self.reaped = status.is_some();
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

/// The reading end of what the script prints to.
struct Pipe {
    from: pipe::Receiver,
    open: bool,
}

impl Pipe {
    async fn read(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let read = loop {
            match self.from.readable().await.and_then(|()| self.from.try_read(&mut bytes)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // An error is an end: there is nothing more to be had.
                read => break read.unwrap_or(0),
            }
        };
        self.open = read > 0;
        bytes.truncate(read);
        bytes
    }

    async fn drain(&mut self, lines: &mut Output<impl FnMut(&str)>) {
        let Some(end) = Instant::now().checked_add(DRAIN) else { return };
        while self.open {
            match timeout_at(end, self.read()).await {
                Ok(bytes) => lines.push(&bytes),
                Err(_) => return,
            }
        }
    }
}

fn hex(sum: &[u8; 32]) -> String {
    sum.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
