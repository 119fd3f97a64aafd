//! Where things stand in a file: headers, keys, values, lines, comments.

use std::ops::Range;

use toml_parser::Source;
use toml_parser::parser::{Event, EventKind, parse_document};

/// A key with its value.
#[derive(Clone, Debug)]
pub(in crate::config) struct Key {
    /// With points between where it is dotted.
    pub name: String,
    /// The byte that it begins with.
    pub start: usize,
    /// The bytes of its value.
    pub value: Range<usize>,
}

/// A table header, or a key with its value.
pub(in crate::config) enum Item {
    Header { path: Vec<String>, many: bool, at: Range<usize> },
    Key(Key),
}

/// What the parser says of a text, whatever mistakes there are.
pub(super) fn events(text: &str) -> Vec<Event> {
    let (tokens, mut events) = (Source::new(text).lex().into_vec(), Vec::new());
    parse_document(&tokens, &mut events, &mut ());
    events
}

/// The headers and the keys of the top level of each table, in the order of the file.
pub(in crate::config) fn items(text: &str) -> Vec<Item> {
    let (mut items, mut path, mut depth) = (Vec::new(), Vec::new(), 0usize);
    let (mut start, mut header, mut value) = (0, None, None::<(String, usize, Range<usize>)>);
    let finish = |items: &mut Vec<Item>, value: &mut Option<(String, usize, Range<usize>)>| {
        if let Some((name, start, value)) = value.take() {
            items.push(Item::Key(Key { name, start, value }));
        }
    };
    for event in events(text) {
        let (kind, span) = (event.kind(), event.span().start()..event.span().end());
        match kind {
            EventKind::StdTableOpen | EventKind::ArrayTableOpen => {
                finish(&mut items, &mut value);
                (path, header) = (Vec::new(), Some(span.start));
            }
            EventKind::StdTableClose | EventKind::ArrayTableClose => {
                if let Some(start) = header.take() {
                    let many = kind == EventKind::ArrayTableClose;
                    items.push(Item::Header { path: std::mem::take(&mut path), many, at: start..span.end });
                }
            }
            EventKind::SimpleKey if depth == 0 => {
                if header.is_none() && value.is_some() {
                    finish(&mut items, &mut value);
                    path = Vec::new();
                }
                if path.is_empty() {
                    start = span.start;
                }
                path.push(text.get(span).map(unquoted).unwrap_or_default().to_owned());
            }
            EventKind::KeyValSep if depth == 0 => {
                value = Some((std::mem::take(&mut path).join("."), start, span.end..span.end));
            }
            EventKind::ArrayOpen | EventKind::InlineTableOpen => depth = depth.saturating_add(1),
            EventKind::ArrayClose | EventKind::InlineTableClose => depth = depth.saturating_sub(1),
            _ => {}
        }
        let part = matches!(
            kind,
            EventKind::Scalar
                | EventKind::ArrayOpen
                | EventKind::InlineTableOpen
                | EventKind::ArrayClose
                | EventKind::InlineTableClose
        );
        if let (true, Some((_, _, range))) = (part, &mut value) {
            if range.start == range.end {
                range.start = event.span().start();
            }
            range.end = event.span().end();
        }
    }
    finish(&mut items, &mut value);
    items
}

/// What stands in the quotes of a text without escapes.
pub(in crate::config) fn unquoted(raw: &str) -> &str {
    raw.trim_matches(['"', '\''])
}

/// The text with something else in this place.
pub(in crate::config) fn cut(text: &str, range: Range<usize>, with: &str) -> String {
    let (before, behind) = (text.get(..range.start), text.get(range.end..));
    [before.unwrap_or_default(), with, behind.unwrap_or_default()].concat()
}

/// Where the line of this byte begins.
pub(in crate::config) fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|t| t.rfind('\n')).map_or(0, |i| i.saturating_add(1))
}

/// Where the line behind the one of this byte begins.
pub(in crate::config) fn line_end(text: &str, at: usize) -> usize {
    let rest = text.get(at..).and_then(|t| t.find('\n'));
    rest.map_or(text.len(), |i| at.saturating_add(i).saturating_add(1))
}

/// Where the comment begins that stands right above the line of this byte.
pub(in crate::config) fn comment_above(text: &str, at: usize) -> usize {
    let mut start = line_start(text, at);
    loop {
        let above = line_start(text, start.saturating_sub(1));
        let comment = text.get(above..start).is_some_and(|line| line.trim_start().starts_with('#'));
        if !comment || above == start {
            return start;
        }
        start = above;
    }
}

/// Where the line begins that is behind the empty ones from this byte on.
pub(in crate::config) fn behind_empty_lines(text: &str, mut at: usize) -> usize {
    loop {
        let end = line_end(text, at);
        if end == at || !text.get(at..end).is_some_and(|line| line.trim().is_empty()) {
            return at;
        }
        at = end;
    }
}
