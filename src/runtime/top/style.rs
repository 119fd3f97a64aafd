//! How it looks: colours where they are wanted, letters that the terminal has.

use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::symbols::bar;

use crate::runtime::status::paint::{Tone, wants_colour};

/// Bars of plain ASCII, from nothing to full.
const ASCII: [&str; 9] = [" ", ".", ".", ":", ":", "-", "=", "+", "#"];

/// Looks that depend on the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub colour: bool,
    /// It has more letters than ASCII.
    pub unicode: bool,
}

impl Look {
    /// As the environment says.
    pub(super) fn of_environment() -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .filter_map(std::env::var_os)
            .find(|value| !value.is_empty())
            .unwrap_or_default();
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        Self { colour: wants_colour(), unicode: locale.contains("utf-8") || locale.contains("utf8") }
    }

    pub(super) fn tone(self, tone: Tone) -> Style {
        let (colour, plain) = match tone {
            Tone::Good => (Color::Green, Modifier::empty()),
            Tone::Wary => (Color::Yellow, Modifier::empty()),
            Tone::Bad => (Color::Red, Modifier::BOLD),
            Tone::Head => return Style::new().add_modifier(Modifier::BOLD),
        };
        if self.colour { Style::new().fg(colour) } else { Style::new().add_modifier(plain) }
    }

    /// What is less important than the rest.
    pub(super) fn faint(self) -> Style {
        if self.colour { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    /// The history.
    pub(super) fn line(self) -> Style {
        if self.colour { Style::new().fg(Color::Cyan) } else { Style::new() }
    }

    /// The heading of the column that rows are sorted by.
    pub(super) fn arrow(self, descending: bool) -> &'static str {
        match (self.unicode, descending) {
            (true, true) => "▼",
            (true, false) => "▲",
            (false, true) => "v",
            (false, false) => "^",
        }
    }

    /// The bars of a history.
    pub(super) fn bars(self) -> bar::Set<'static> {
        if self.unicode {
            return bar::NINE_LEVELS;
        }
        let [
            empty,
            one_eighth,
            one_quarter,
            three_eighths,
            half,
            five_eighths,
            three_quarters,
            seven_eighths,
            full,
        ] = ASCII;
        bar::Set {
            full,
            seven_eighths,
            three_quarters,
            five_eighths,
            half,
            three_eighths,
            one_quarter,
            one_eighth,
            empty,
        }
    }

    /// A history of one row, the newest at the right; `least` is the highest bar's least value.
    pub(super) fn sparkline(self, values: &[u64], width: usize, least: u64) -> String {
        let bars = self.bars();
        let levels = [
            bars.empty,
            bars.one_eighth,
            bars.one_quarter,
            bars.three_eighths,
            bars.half,
            bars.five_eighths,
            bars.three_quarters,
            bars.seven_eighths,
            bars.full,
        ];
        let shown = values.get(values.len().saturating_sub(width)..).unwrap_or(values);
        let most = shown.iter().copied().max().unwrap_or(0).max(least).max(1);
        let bar = |value: &u64| {
            // Whatever is not nothing is seen.
            let level = (*value as f64 / most as f64 * 8.0).ceil() as usize;
            levels.get(level).copied().unwrap_or(bars.full)
        };
        let line: String = shown.iter().map(bar).collect();
        let blank = width.saturating_sub(shown.len());
        format!("{}{line}", " ".repeat(blank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_shows_its_newest_at_the_right() {
        let unicode = Look { colour: false, unicode: true };
        assert_eq!(unicode.sparkline(&[1, 0, 4, 8], 6, 8), "  ▁ ▄█");
        assert_eq!(unicode.sparkline(&[9, 9, 8, 4], 2, 0), "█▄");
        let ascii = Look { colour: false, unicode: false };
        assert_eq!(ascii.sparkline(&[0, 1, 8], 3, 8), " .#");
        assert_eq!(ascii.sparkline(&[], 3, 8), "   ");
    }
}
