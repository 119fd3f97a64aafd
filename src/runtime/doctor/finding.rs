//! What was found, and how it is said.

use std::io::{Write, stdout};

use serde::Serialize;

use crate::commands::{Failure, WIDTH, wrapped};
use crate::runtime::probe::Proof;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, but not as well or as long as it should.
    Warning,
    /// It does not work.
    Broken,
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Broken => "BROKEN",
        }
    }
}

#[derive(Serialize)]
struct Finding {
    severity: Severity,
    check: &'static str,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

/// Everything that was found: said at once for people, collected for machines.
pub struct Findings {
    json: bool,
    wrap: bool,
    found: Vec<Finding>,
    proofs: Vec<Proof>,
    worst: Severity,
    count: usize,
}

/// The whole document.
#[derive(Serialize)]
struct Document<'a> {
    worst: Severity,
    findings: &'a [Finding],
    proofs: &'a [Proof],
}

type Said = Result<(), Failure>;

impl Findings {
    /// Nothing yet. `wrap`: lines end where a terminal's do.
    pub fn new(json: bool, wrap: bool) -> Self {
        Self { json, wrap, found: Vec::new(), proofs: Vec::new(), worst: Severity::Ok, count: 0 }
    }

    /// As it should be.
    pub fn ok(&mut self, check: &'static str, what: impl Into<String>) -> Said {
        self.add(Severity::Ok, check, what.into(), None)
    }

    /// Good to know, and what to do with it.
    pub fn note(&mut self, check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Said {
        self.add(Severity::Note, check, what.into(), Some(mend.into()))
    }

    /// Not as it should be.
    pub fn warn(&mut self, check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Said {
        self.add(Severity::Warning, check, what.into(), Some(mend.into()))
    }

    /// It cannot work so.
    pub fn broken(&mut self, check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Said {
        self.add(Severity::Broken, check, what.into(), Some(mend.into()))
    }

    /// How bad the worst is so far.
    pub fn worst(&self) -> Severity {
        self.worst
    }

    /// How much has been found so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Keeps a proof for the document.
    pub fn keep(&mut self, proof: Proof) {
        self.proofs.push(proof);
    }

    /// Says what there is to say at the end, and how bad the worst was.
    pub fn finish(self) -> Result<Severity, Failure> {
        if self.json {
            let document = Document { worst: self.worst, findings: &self.found, proofs: &self.proofs };
            let text = serde_json::to_string(&document)
                .map_err(|e| Failure::Refused(format!("cannot write the findings: {e}")))?;
            print(&text)?;
        }
        Ok(self.worst)
    }

    fn add(&mut self, severity: Severity, check: &'static str, what: String, mend: Option<String>) -> Said {
        self.worst = self.worst.max(severity);
        self.count = self.count.saturating_add(1);
        let finding = Finding { severity, check, what, mend };
        if self.json {
            self.found.push(finding);
            return Ok(());
        }
        print(&line(&finding, if self.wrap { WIDTH } else { usize::MAX }))
    }
}

/// `severity  check  sentence; what mends it`, in lines of at most `width` characters where words allow.
fn line(f: &Finding, width: usize) -> String {
    let head = format!("{:<8} {:<10}", f.severity.word(), f.check);
    let sentence = match &f.mend {
        Some(mend) => format!("{}; {mend}", f.what),
        None => f.what.clone(),
    };
    wrapped(&head, &sentence, width)
}

fn print(text: &str) -> Said {
    writeln!(stdout(), "{text}").map_err(|_| Failure::OutputClosed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(what: &str) -> Finding {
        Finding {
            severity: Severity::Warning,
            check: "clock",
            what: what.into(),
            mend: Some("`do it`".into()),
        }
    }

    #[test]
    fn a_finding_is_one_line_with_what_mends_it() {
        assert_eq!(line(&finding("late"), usize::MAX), "warning  clock      late; `do it`");
    }

    #[test]
    fn on_a_terminal_lines_end_where_it_does() {
        let text = line(&finding(&"word ".repeat(60)), WIDTH);
        assert!(text.lines().count() > 3 && text.lines().all(|l| l.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|l| l.starts_with(&" ".repeat(20))), "{text}");
    }
}
