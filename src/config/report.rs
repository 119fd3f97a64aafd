//! What a reader of a config file is told, and where in the file.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A position in the file: both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// One sentence about a config file. Displays as `path:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub path: PathBuf,
    /// Where in it. `None`: the matter is the file as a whole, or the command line.
    pub at: Option<Place>,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(at) = self.at {
            write!(f, "{}:{}:", at.line, at.column)?;
        }
        write!(f, " {}", self.message)
    }
}

/// Something that works but is probably not what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Note);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Everything that keeps a config from being used, in the order of the file. Displays one error a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The errors; never empty.
    pub errors: Vec<Note>,
    /// What else was noticed.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// Collects what is found while a file is checked, so that one run shows everything.
pub(super) struct Notes<'a> {
    path: &'a Path,
    text: &'a str,
    errors: Vec<Note>,
    warnings: Vec<Note>,
    /// Keys that an error was noted for before the values were looked at.
    spoilt: Vec<String>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, errors: Vec::new(), warnings: Vec::new(), spoilt: Vec::new() }
    }

    /// The file that is spoken of.
    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// Notes an error at the byte range `at` of the text.
    pub(super) fn error(&mut self, at: impl Into<Option<Range<usize>>>, message: impl Into<String>) {
        self.errors.push(self.note(at.into(), message.into()));
    }

    /// Marks a key as written, but wrongly: [`Self::missing`] then says nothing more about it.
    pub(super) fn spoil(&mut self, key: &str) {
        self.spoilt.push(key.to_owned());
    }

    /// Notes that a key is missing, unless it was there and wrong.
    pub(super) fn missing(&mut self, key: &str, at: Range<usize>, message: impl Into<String>) {
        if !self.spoilt.iter().any(|k| k == key) {
            self.error(at, message);
        }
    }

    /// Notes a warning at the byte range `at` of the text.
    pub(super) fn warn(&mut self, at: impl Into<Option<Range<usize>>>, message: impl Into<String>) {
        self.warnings.push(self.note(at.into(), message.into()));
    }

    /// The line of a byte range, for a message that points at a second place.
    pub(super) fn line(&self, at: &Range<usize>) -> usize {
        place(self.text, at.start).line
    }

    /// `value` where no error was noted: the errors and warnings otherwise.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<(T, Vec<Warning>), Report> {
        self.errors.sort_by_key(|n| n.at);
        self.errors.dedup();
        self.warnings.sort_by_key(|n| n.at);
        let warnings = self.warnings.into_iter().map(Warning).collect();
        match value {
            Some(value) if self.errors.is_empty() => Ok((value, warnings)),
            _ => Err(Report { errors: self.errors, warnings }),
        }
    }

    /// Ends the run with one last error, at a byte of the text.
    pub(super) fn fail<T>(mut self, at: Option<usize>, message: String) -> Result<T, Report> {
        self.error(at.map(|byte| byte..byte), message);
        self.finish(None::<T>).map(|(value, _)| value)
    }

    fn note(&self, at: Option<Range<usize>>, message: String) -> Note {
        Note { path: self.path.to_owned(), at: at.map(|r| place(self.text, r.start)), message }
    }
}

/// The line and column of a byte; the end of the text for bytes behind it.
pub(super) fn place(text: &str, byte: usize) -> Place {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i.saturating_add(1));
    let column = before.get(line_start..).unwrap_or("").chars().filter(|c| *c != '\u{feff}').count();
    Place { line: before.matches('\n').count().saturating_add(1), column: column.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let text = "a = 1\n# 网卡\nb = \"é\" # x";
        assert_eq!(place(text, 0), Place { line: 1, column: 1 });
        assert_eq!(place(text, 4), Place { line: 1, column: 5 });
        let x = text.find('x').map(|i| place(text, i));
        assert_eq!(x, Some(Place { line: 3, column: 11 }));
        assert_eq!(place("\u{feff}a = 1", 3), Place { line: 1, column: 1 });
        assert_eq!(place("", 99), Place { line: 1, column: 1 });
    }
}
