//! `tap-rs status`.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use super::{Snapshot, render};
use crate::cli::StatusArgs;
use crate::commands::Failure;
use crate::runtime::control_socket::{Request, ask_all};

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// Clears a terminal and goes to its first column and row (ECMA-48: ED 2, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Prints how the running ones are doing, once or again and again.
///
/// # Errors
/// Nobody runs, or nobody reads what is printed.
pub fn command(args: &StatusArgs) -> Result<(), Failure> {
    loop {
        let text = look(args)?;
        let clear = if args.watch && !args.json && stdout().is_terminal() { CLEAR } else { "" };
        let print = || {
            let mut out = stdout().lock();
            out.write_all(clear.as_bytes())?;
            out.write_all(text.as_bytes())?;
            out.flush()
        };
        print().map_err(|_| Failure::OutputClosed)?;
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(EVERY);
    }
}

fn look(args: &StatusArgs) -> Result<String, Failure> {
    let answers =
        ask_all(args.name.as_deref(), &Request::Status {}).map_err(|e| Failure::Refused(e.to_string()))?;
    let mut texts = Vec::new();
    for (name, document) in answers {
        if args.json {
            texts.push(format!("{}\n", String::from_utf8_lossy(&document)));
            continue;
        }
        let snapshot: Snapshot = serde_json::from_slice(&document).map_err(|e| {
            Failure::Refused(format!(
                "{name} runs another version of tap-rs, whose status is not understood: {e}"
            ))
        })?;
        texts.push(render(&name, &snapshot));
    }
    Ok(texts.join(if args.json { "" } else { "\n" }))
}
