//! Colour for terminals, and numbers as people say them.

use std::io::{IsTerminal, stdout};

/// What something is to look like: the meaning, not the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Not now, or to be looked at.
    Wary,
    /// Not as it should be.
    Bad,
    /// A heading.
    Head,
}

impl Tone {
    /// How a peer's or a NIC's state is meant.
    pub fn of_state(state: &str) -> Self {
        match state {
            "established" | "up" => Self::Good,
            "silent" | "down" | "probing" => Self::Wary,
            _ => Self::Bad,
        }
    }
}

/// How text is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint {
    colour: bool,
}

impl Paint {
    /// Colour where standard output is a terminal that shows it, and nobody has asked for none (<https://no-color.org>).
    pub fn for_output() -> Self {
        Self { colour: stdout().is_terminal() && wants_colour() }
    }

    /// Colour, whatever there is.
    #[cfg(test)]
    pub fn colourful() -> Self {
        Self { colour: true }
    }

    /// `text` in the colour of `tone` (ECMA-48: SGR).
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Wary => "33",
            Tone::Bad => "31",
            Tone::Head => "1",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Nothing in the environment speaks against colour.
pub fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
    !refused && !dumb
}

/// `1 h 5 min`
pub fn span(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, _, _) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

/// The same in the largest unit alone: `65 s`, `3 min`, `2 h`, `8 d`.
pub fn short_span(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{} min", seconds / 60),
        6000..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `2.5 MB`
pub fn bytes(n: u64) -> String {
    scaled(n as f64, "B")
}

/// `2.5 M`, `17`
pub fn count(n: u64) -> String {
    scaled(n as f64, "").trim_end().to_owned()
}

/// A number of `unit`s, with as few digits as one reads.
pub fn scaled(n: f64, unit: &str) -> String {
    let (mut value, mut prefixes) = (n, ["k", "M", "G", "T", "P"].iter());
    let mut prefix = "";
    while value >= 999.95 {
        let Some(next) = prefixes.next() else { break };
        value /= 1000.0;
        prefix = next;
    }
    if prefix.is_empty() { format!("{value:.0} {unit}") } else { format!("{value:.1} {prefix}{unit}") }
}

/// `350 us`, `12.3 ms`
pub fn micros(us: u64) -> String {
    if us < 1000 { format!("{us} us") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_as_people_say_them() {
        assert_eq!(
            [span(5), span(65), span(3660), span(90_000)],
            ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!([bytes(999), bytes(1500), bytes(2_500_000)], ["999 B", "1.5 kB", "2.5 MB"]);
        assert_eq!([bytes(999_940), bytes(999_999), bytes(u64::MAX)], ["999.9 kB", "1.0 MB", "18446.7 PB"]);
        assert_eq!([count(17), count(2_500_000)], ["17", "2.5 M"]);
        assert_eq!([short_span(99), short_span(100), short_span(200_000)], ["99 s", "1 min", "2 d"]);
    }

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        assert_eq!(Paint { colour: false }.tone(Tone::Bad, "gone"), "gone");
        assert_eq!(Paint { colour: true }.tone(Tone::Bad, "gone"), "\x1b[31mgone\x1b[0m");
    }
}
