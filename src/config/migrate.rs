//! A config of the original tap-rs (2020), turned into one of this.
//!
//! ```text
//!   text ──layout──▶ sections and their keys ──fate of each──▶ edits ──▶ new text, and what was done, line by line
//! ```
//!
//! What is not touched stays as it is, comments included. What a file cannot say, the other side's public key, gets a
//! placeholder that a check refuses. The original passed over keys that it did not know, so they go; the caller checks
//! the result with [`super::check_text`] for what is left to do.

mod fate;
mod take_over;

use std::ops::Range;
use std::path::Path;

use super::Role;
use super::check::{CLIENT_KEY, SERVER_KEY};
use super::edit::layout::{Item, Key, behind_empty_lines, comment_above, items, line_end, unquoted};
use super::edit::{EditError, quoted};
use super::report::place;
use crate::types::NicName;

/// What the file cannot know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// The path of this side's private key, as the new file is to name it.
    pub private_key: &'a str,
    /// The other side's public key, where it is known.
    pub peer_key: Option<&'a str>,
    /// What the server is to call its client.
    pub name: &'a str,
    /// What a client's macvtaps are to be made on.
    pub parent: Option<&'a NicName>,
    /// The prefix length of a server's IPv4 addresses.
    pub prefix: Option<u8>,
    /// The prefix length of its IPv6 addresses.
    pub prefix6: Option<u8>,
    /// The folder of the old file, where the new one goes into another.
    pub from: Option<&'a Path>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A line of the old file is not in the new one.
    Gone,
    /// A line of the old file has another value.
    Changed,
    /// A line is new.
    Added,
    /// Nothing; a line of the old file means something else now, or wants something done elsewhere.
    Noted,
}

/// One sentence about one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was done.
    pub deed: Deed,
    /// The line: of the new file where it was added, otherwise of the old one.
    pub line: usize,
    /// What, and why.
    pub what: String,
}

/// A config of the original.
#[derive(Debug)]
pub struct Old<'a> {
    text: &'a str,
    /// Which side's it is.
    pub role: Role,
    sections: Vec<Section>,
}

impl<'a> Old<'a> {
    /// Reads a text that is TOML. `None`: it is a config of this tap-rs already.
    ///
    /// # Errors
    /// It does not say which side it is for.
    pub fn read(text: &'a str) -> Result<Option<Self>, EditError> {
        let sections = sections(text);
        let mut old = Self { text, role: Role::Client, sections };
        old.role = match old.value("run_mode").map(str::to_ascii_lowercase).as_deref() {
            Some("client") => Role::Client,
            Some("server") => Role::Server,
            _ => {
                return Err(EditError(
                    "it does not say which side it is for; write run_mode = \"client\" or run_mode = \"server\" above \
                     the first [section]"
                        .to_owned(),
                ));
            }
        };
        let new = match old.role {
            Role::Client => old.has(Table::Server, "public_key"),
            Role::Server => {
                old.has(Table::New, "name")
                    || old.value("private_key").is_some() && !old.has(Table::Nics, "ifname")
            }
        };
        Ok((!new).then_some(old))
    }

    /// Somebody has begun already: this side's private key is named.
    pub fn names_its_key(&self) -> bool {
        self.value("private_key").is_some()
    }

    /// The new text, and what is to be said of it, in the order of the file.
    pub fn migrate(&self, wish: &Wish<'_>) -> (String, Vec<Change>) {
        let mut edits = Vec::new();
        for section in &self.sections {
            self.take_over(section, wish, &mut edits);
        }
        self.add_keys(wish, &mut edits);
        apply(self.text, edits)
    }

    fn add_keys(&self, wish: &Wish<'_>, edits: &mut Vec<Edit>) {
        let mut add = |at: usize, with: String, what: &str| {
            edits.push(Edit::of(Deed::Added, at, at..at, &with, what.to_owned()));
        };
        if let Some(run_mode) = self.key(Table::Top, "run_mode") {
            let at = line_end(self.text, run_mode.value.end);
            if !self.names_its_key() {
                let line = self.line_at(at, "private_key", wish.private_key);
                add(at, line, "private_key: each side proves with a key of its own who it is");
            }
            if let Some(parent) = wish.parent.filter(|_| self.role == Role::Client) {
                let line = self.line_at(at, "parent", parent.as_str());
                add(at, line, "parent: tap-rs makes the macvtaps on it, and removes them at the end");
            }
            if self.is_remote() {
                let what = "script: the original ran what the server sent, as root; to allow the server's script write \
                            \"pinned\", and the script_sha256 that `tap-rs check` prints on the server";
                add(at, self.line_at(at, "script", "never"), what);
            }
        }
        match self.role {
            Role::Client => self.add_server_key(wish, &mut add),
            Role::Server => self.add_client(wish, &mut add),
        }
    }

    fn add_server_key(&self, wish: &Wish<'_>, add: &mut impl FnMut(usize, String, &str)) {
        let key = wish.peer_key.unwrap_or(SERVER_KEY);
        let what = "public_key: the server proves with its key that it is the right one";
        // `[server]` with its lines; or all in one line; or with points.
        if let Some(header) = self.sections.iter().find(|s| s.table == Table::Server) {
            let last = header.keys.iter().find(|k| k.name == "bind_addr").map(|k| k.value.end);
            let end = last.or(header.header.as_ref().map(|h| h.end)).unwrap_or(0);
            let at = line_end(self.text, end);
            add(at, self.line_at(at, "public_key", key), what);
        } else if let Some(inline) = self.key(Table::Top, "server") {
            let brace = inline.value.start.saturating_add(1);
            add(brace, format!(" public_key = {},", quoted(key)), what);
        } else if let Some(dotted) = self.key(Table::Top, "server.bind_addr") {
            let at = line_end(self.text, dotted.value.end);
            add(at, self.line_at(at, "server.public_key", key), what);
        }
    }

    fn add_client(&self, wish: &Wish<'_>, add: &mut impl FnMut(usize, String, &str)) {
        let first = self.sections.iter().find(|s| s.table == Table::Nics);
        let at = first
            .and_then(|s| s.header.as_ref())
            .map_or(self.text.len(), |h| comment_above(self.text, h.start));
        let key = wish.peer_key.unwrap_or(CLIENT_KEY);
        let newline = if self.ends_line(at) { "" } else { "\n" };
        let behind = if at == self.text.len() { "" } else { "\n" };
        let section = format!(
            "{newline}[[clients]]\nname = {}\npublic_key = {}\n{behind}",
            quoted(wish.name),
            quoted(key)
        );
        let what = "[[clients]]: who may connect; the original took whoever sent last, and here it is who has this key";
        add(at, section, what);
    }

    fn line_at(&self, at: usize, key: &str, value: &str) -> String {
        let newline = if self.ends_line(at) { "" } else { "\n" };
        format!("{newline}{key} = {}\n", quoted(value))
    }

    /// A line may begin at this byte.
    fn ends_line(&self, at: usize) -> bool {
        self.text.get(..at).is_some_and(|t| t.is_empty() || t.ends_with('\n'))
    }

    /// The NICs come from the server.
    fn is_remote(&self) -> bool {
        self.role == Role::Client && self.value("use_remote_config") == Some("true")
    }

    /// A value of the top level, without its quotes.
    fn value(&self, name: &str) -> Option<&'a str> {
        let key = self.key(Table::Top, name)?;
        self.text.get(key.value.clone()).map(unquoted)
    }

    fn key(&self, table: Table, name: &str) -> Option<&Key> {
        self.sections.iter().filter(|s| s.table == table).flat_map(|s| &s.keys).find(|k| k.name == name)
    }

    /// A table has this key, however the table is written.
    fn has(&self, table: Table, name: &str) -> bool {
        let inline = match table {
            Table::Server => "server",
            Table::Nics => "nics",
            Table::New => "clients",
            Table::Top | Table::Other => return self.key(table, name).is_some(),
        };
        let dotted = self.key(Table::Top, &format!("{inline}.{name}")).is_some();
        dotted || self.key(table, name).is_some() || self.value(inline).is_some_and(|v| v.contains(name))
    }
}

/// A kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Top,
    Server,
    Nics,
    /// One that the original did not have.
    New,
    Other,
}

impl Table {
    fn of(path: &[String]) -> Self {
        match path.first().map(String::as_str) {
            None => Self::Top,
            Some(name) if path.len() == 1 => Self::named(name).unwrap_or(Self::Other),
            Some("clients" | "limits" | "hooks") => Self::New,
            Some(_) => Self::Other,
        }
    }

    /// The one that a key of the top level may be, written in a line.
    fn named(name: &str) -> Option<Self> {
        match name {
            "server" => Some(Self::Server),
            "nics" => Some(Self::Nics),
            "clients" | "limits" | "hooks" => Some(Self::New),
            _ => None,
        }
    }
}

/// A header with the keys below it; the top level has none.
#[derive(Debug)]
struct Section {
    table: Table,
    header: Option<Range<usize>>,
    keys: Vec<Key>,
}

impl Section {
    /// With the comment above it, and the empty lines behind.
    fn whole(&self, text: &str) -> Range<usize> {
        let header = self.header.clone().unwrap_or(0..0);
        let last = self.keys.last().map_or(header.end, |k| k.value.end);
        comment_above(text, header.start)..behind_empty_lines(text, line_end(text, last))
    }
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections = vec![Section { table: Table::Top, header: None, keys: Vec::new() }];
    for item in items(text) {
        match (item, sections.last_mut()) {
            (Item::Header { path, at, .. }, _) => {
                sections.push(Section { table: Table::of(&path), header: Some(at), keys: Vec::new() });
            }
            (Item::Key(key), Some(section)) => section.keys.push(key),
            (Item::Key(_), None) => {}
        }
    }
    sections
}

/// Another text in one place of the old one, and what is to be said of it.
struct Edit {
    deed: Deed,
    /// The byte of the old text that is spoken of.
    about: usize,
    range: Range<usize>,
    with: String,
    what: String,
}

impl Edit {
    fn of(deed: Deed, about: usize, range: Range<usize>, with: &str, what: String) -> Self {
        Self { deed, about, range, with: with.to_owned(), what }
    }

    fn is_note_of(&self, key: &str) -> bool {
        let rest = self.what.strip_prefix(key);
        self.deed == Deed::Noted && rest.is_some_and(|rest| rest.starts_with([' ', ':']))
    }
}

/// Makes all edits, which do not overlap.
fn apply(text: &str, mut edits: Vec<Edit>) -> (String, Vec<Change>) {
    edits.sort_by_key(|e| e.range.start);
    let (mut new, mut changes, mut taken) = (String::with_capacity(text.len()), Vec::new(), 0usize);
    for edit in edits {
        new.push_str(text.get(taken..edit.range.start).unwrap_or_default());
        // A new line may begin with the end of the one before it.
        let at = new.len().saturating_add(edit.with.len().saturating_sub(edit.with.trim_start().len()));
        new.push_str(&edit.with);
        let line = match edit.deed {
            Deed::Added => place(&new, at).line,
            Deed::Gone | Deed::Changed | Deed::Noted => place(text, edit.about).line,
        };
        changes.push(Change { deed: edit.deed, line, what: edit.what });
        taken = edit.range.end.max(taken);
    }
    new.push_str(text.get(taken..).unwrap_or_default());
    (new, changes)
}

#[cfg(test)]
#[path = "migrate/tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
