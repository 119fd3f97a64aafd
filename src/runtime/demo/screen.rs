//! What the demo prints: 80 columns, colour only on a terminal.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

pub(super) struct Screen {
    terminal: bool,
    colour: bool,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        let terminal = stdout().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { terminal, colour: terminal && !dumb && !set("NO_COLOR") }
    }

    pub(super) fn title(&self, text: &str) {
        self.line(&format!("\n{}\n", self.painted(BOLD, text)));
    }

    pub(super) fn drawing(&self, drawing: &str) {
        self.line(&format!("{drawing}\n"));
    }

    pub(super) fn heading(&self, text: &str) {
        self.line(&format!("\n{}\n", self.painted(BOLD, text)));
    }

    /// Something that was done.
    pub(super) fn step(&self, label: &str, text: &str) {
        self.labelled("-", DIM, label, text);
    }

    /// Something that was found, good or not.
    pub(super) fn result(&self, good: bool, label: &str, text: &str) {
        let (sign, colour) = if good { ("+", GREEN) } else { ("!", RED) };
        self.labelled(sign, colour, label, text);
    }

    /// The end of it all.
    pub(super) fn done(&self, label: &str, text: &str) {
        self.line("");
        self.labelled("-", DIM, label, text);
    }

    /// Goes on with the text above.
    pub(super) fn more(&self, text: &str) {
        self.line(&format!("{:14}{text}", ""));
    }

    /// A figure that changes in place; nothing where the output is not a terminal.
    pub(super) fn live(&self, label: &str, text: &str) {
        if self.terminal {
            self.write(&format!("\r   {label:10} {text}\x1b[K"));
        }
    }

    /// A line of somebody else's, as it is.
    pub(super) fn raw(&self, text: &str) {
        self.line(&format!("   {text}"));
    }

    fn labelled(&self, sign: &str, colour: &str, label: &str, text: &str) {
        let wipe = if self.terminal { "\r\x1b[K" } else { "" };
        self.line(&format!("{wipe} {} {label:10} {text}", self.painted(colour, sign)));
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// With the reader gone there is nobody to tell, and cleaning up goes on.
    fn write(&self, text: &str) {
        let mut out = stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "1;32";
const RED: &str = "1;31";

/// A time in the unit that suits it.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// Bits a second in the unit that suits them.
pub(super) fn rate(bits: f64) -> String {
    if bits >= 1e9 { format!("{:6.2} Gbit/s", bits / 1e9) } else { format!("{:6.0} Mbit/s", bits / 1e6) }
}
