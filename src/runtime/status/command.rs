//! `tap-rs status`.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use super::paint::Paint;
use super::{Snapshot, render};
use crate::cli::StatusArgs;
use crate::commands::Failure;
use crate::runtime::control_socket::{Request, ask_all};
use crate::sys::terminal::terminal_size;

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// Rows of a terminal that does not say.
const ROWS: u16 = 24;

/// Prints how the running ones are doing, once or again and again.
///
/// # Errors
/// Nobody runs, or nobody reads what is printed.
pub fn command(args: &StatusArgs) -> Result<(), Failure> {
    loop {
        let text = look(args)?;
        let screen = args.watch && !args.json && stdout().is_terminal();
        let text = if screen { on_screen(&text, rows()) } else { text };
        let print = || {
            let mut out = stdout().lock();
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

/// The text over what the terminal shows, without a flicker: each line and what is below the last is wiped behind it
/// (ECMA-48: CUP, EL, ED). What has no room is counted.
fn on_screen(text: &str, rows: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let room = rows.saturating_sub(1);
    let hidden = lines.len().saturating_sub(room);
    let shown = if hidden > 0 { room.saturating_sub(1) } else { room };
    let mut out = "\x1b[H".to_owned();
    for line in lines.iter().take(shown) {
        out.push_str(line);
        out.push_str("\x1b[K\n");
    }
    if hidden > 0 {
        let hidden = hidden.saturating_add(1);
        out.push_str(&format!("... {hidden} more lines: a larger terminal, or `tap-rs top`\x1b[K\n"));
    }
    out.push_str("\x1b[J");
    out
}

fn rows() -> usize {
    usize::from(terminal_size(&stdout()).map_or(ROWS, |(_, rows)| rows))
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
        texts.push(render(&name, &snapshot, args.long, Paint::for_output()));
    }
    Ok(texts.join(if args.json { "" } else { "\n" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_never_written_beyond_its_rows() {
        let text = "line\n".repeat(500);
        for rows in [24, 50, 600] {
            let screen = on_screen(&text, rows);
            assert!(screen.lines().count() <= rows, "{rows}");
            assert_eq!(screen.contains("more lines"), rows < 500);
        }
        assert!(on_screen(&text, 24).contains("... 478 more lines"));
    }
}
