//! What a child of the keeper runs, and how it tells of it: a pushed script, or a program of `[hooks]`.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Stream;
use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use super::{PATIENCE, Said};
use crate::config::{Hook, Hooks, ScriptPolicy};
use crate::runtime::hooks::Words;
use crate::runtime::script::{Outcome, Script, ScriptError, allowed, run_program, run_with};
use crate::sys::poll::await_readable;
use crate::sys::process::take_signals_again;
use crate::wire::push;

/// Something to run. The bytes that the tunnel sends along are a script, or a program's variables.
pub(super) enum Task<'a> {
    /// A script, if the policy allows it.
    Script { policy: &'a ScriptPolicy, limit: Duration },
    /// A program that the config names.
    Program { path: &'a Path, limit: Duration },
}

impl<'a> Task<'a> {
    /// The program for this event, if there is one.
    pub(super) fn hook(hooks: &'a Hooks, hook: Hook) -> Option<Self> {
        hooks.program(hook).map(|path| Self::Program { path, limit: hooks.timeout })
    }

    async fn run(&self, bytes: &[u8], say: &mut dyn FnMut(&str)) -> Result<Outcome, ScriptError> {
        match *self {
            Self::Script { policy, limit } => {
                allowed(policy, bytes).map_err(|e| ScriptError::Elsewhere(e.to_string()))?;
                run_with(Script { bytes, limit }, say).await
            }
            Self::Program { path, limit } => {
                let text = String::from_utf8_lossy(bytes);
                run_program(path, Words::pairs(&text), limit, say).await
            }
        }
    }

    /// Runs it in this very process, whose tunnel is gone, and logs how that went.
    pub(super) fn run_alone(&self, words: &str) {
        take_signals_again();
        let mut say = |line: &str| info!("down: {line}");
        match runtime().map(|runtime| runtime.block_on(self.run(words.as_bytes(), &mut say))) {
            Ok(Ok(Outcome::Exited(0))) => info!(hook = "down", "hook ended"),
            Ok(Ok(outcome)) => warn!(hook = "down", status = outcome.code(), "hook failed"),
            Ok(Err(e)) => warn!(hook = "down", "hook: {e}"),
            Err(e) => warn!(hook = "down", "hook: {e}"),
        }
    }
}

/// Runs it, and says on the line how it goes.
pub(super) fn play(task: &Task<'_>, text: File, to: &Stream) {
    take_signals_again();
    let said = match read(text).and_then(|bytes| play_out(task, &bytes, to)) {
        Ok(said) => said,
        Err(e) => Said::Failed(&e.to_string()).text(),
    };
    let _ = { to }.write_all(said.as_bytes());
}

/// A copy, so that nobody changes what has been checked.
fn read(mut text: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    text.rewind()?;
    text.take(push::MAX_LEN as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn play_out(task: &Task<'_>, bytes: &[u8], to: &Stream) -> io::Result<String> {
    to.set_write_timeout(Some(PATIENCE))?;
    runtime()?.block_on(async {
        let mut say = |line: &str| {
            // Nobody listens any more: then the script is stopped anyway.
            let _ = { to }.write_all(Said::Line(line).text().as_bytes());
        };
        // The tunnel says nothing on this line, so that it can only be closed.
        let closed = await_readable(to.as_fd().try_clone_to_owned()?)?;
        tokio::select! {
            ended = task.run(bytes, &mut say) => Ok(match ended {
                Ok(outcome) => Said::Ended(outcome).text(),
                Err(e) => Said::Failed(&e.to_string()).text(),
            }),
            _ = closed.readable() => Ok(String::new()),
        }
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
