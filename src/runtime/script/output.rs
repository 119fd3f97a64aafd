//! What a script prints, as lines that are safe to log: bounded, and with nothing in them that a terminal obeys.

use std::fmt::Write;

/// Bytes of one line that are shown; the rest of the line is not.
const LINE: usize = 1024;
/// Bytes of a script's whole output that are shown.
const TOTAL: usize = 64 * 1024;

/// Cuts a stream of bytes into lines and gives each to `say`.
pub(super) struct Output<F> {
    say: F,
    line: Vec<u8>,
    /// Bytes that may still be shown.
    left: usize,
    /// Bytes that were not.
    hidden: u64,
}

impl<F: FnMut(&str)> Output<F> {
    pub(super) fn new(say: F) -> Self {
        Self { say, line: Vec::new(), left: TOTAL, hidden: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            self.keep(text);
            if ends {
                self.line_ends();
            }
        }
    }

    /// The last line need not end in a newline.
    pub(super) fn finish(mut self) {
        if !self.line.is_empty() {
            self.line_ends();
        }
        if self.hidden > 0 {
            (self.say)(&format!("({} more bytes of output, not shown)", self.hidden));
        }
    }

    fn keep(&mut self, text: &[u8]) {
        let room = LINE.saturating_sub(self.line.len()).min(self.left);
        let (shown, hidden) = text.split_at_checked(room).unwrap_or((text, &[]));
        self.line.extend_from_slice(shown);
        self.left = self.left.saturating_sub(shown.len());
        self.hidden = self.hidden.saturating_add(u64::try_from(hidden.len()).unwrap_or(u64::MAX));
    }

    fn line_ends(&mut self) {
        // An empty line costs as well, or a script could log without end by newlines alone.
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None if self.line.is_empty() => {
                self.hidden = self.hidden.saturating_add(1);
                return;
            }
            None => {}
        }
        (self.say)(&escaped(&self.line));
        self.line.clear();
    }
}

/// Text without control, format and unassigned characters; bytes that are not UTF-8 as `\xNN`.
fn escaped(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\'' | '\\' => text.push(c),
                _ => text.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut output = Output::new(|line: &str| lines.push(line.to_owned()));
        parts.iter().for_each(|part| output.push(part));
        output.finish();
        lines
    }

    #[test]
    fn lines_are_joined_over_reads_and_the_last_needs_no_newline() {
        assert_eq!(lines(&[b"on", b"e\ntwo\n\nfo", b"ur"]), ["one", "two", "", "four"]);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(
            lines(&[
                b"\x1b[31mred\r\0\x07\t\"it's\"\\n\n",
                "中文 \u{202e}é\u{9b}\n".as_bytes(),
                b"\xff\xc3\n"
            ]),
            ["\\u{1b}[31mred\\r\\0\\u{7}\\t\"it's\"\\n", "中文 \\u{202e}é\\u{9b}", "\\xff\\xc3"]
        );
    }

    #[test]
    fn a_long_line_is_cut_and_the_rest_counted() {
        let got = lines(&[&[b'a'; 5000], b"\nnext\n"]);
        assert_eq!(got[0].len(), LINE);
        assert_eq!(got[1..], ["next", "(3976 more bytes of output, not shown)"]);
    }

    #[test]
    fn endless_output_is_counted_and_not_kept() {
        for piece in [&b"\n"[..], b"yes\n", b"x"] {
            let many = piece.repeat(1_000_000 / piece.len());
            let got = lines(&[&many, &many]);
            assert!(got.iter().map(String::len).sum::<usize>() <= TOTAL + 64);
            assert!(got.len() <= TOTAL + 2 && got.last().unwrap().ends_with("not shown)"));
        }
    }
}
