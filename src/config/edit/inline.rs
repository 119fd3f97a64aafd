//! Where things stand in tables that are written in a line.

use std::ops::Range;

use toml_parser::parser::{Event, EventKind};

use super::layout::{Key, events, unquoted};

/// The keys of the tables in a value, `{ … }` or `[{ … }, { … }]`, table by table.
pub(in crate::config) fn inline_tables(text: &str, value: &Range<usize>) -> Vec<Vec<Key>> {
    let is_table = |open: &[EventKind]| {
        matches!(open, [EventKind::InlineTableOpen] | [EventKind::ArrayOpen, EventKind::InlineTableOpen])
    };
    let within = |e: &&Event| value.contains(&e.span().start()) && e.span().end() <= value.end;
    let (mut tables, mut open) = (Vec::<Vec<Key>>::new(), Vec::new());
    let (mut path, mut start) = (Vec::new(), 0);
    for event in events(text).iter().filter(within) {
        let (kind, span) = (event.kind(), event.span().start()..event.span().end());
        if matches!(kind, EventKind::ArrayClose | EventKind::InlineTableClose) {
            open.pop();
        }
        let inside = is_table(&open);
        let key = tables.last_mut().filter(|_| inside).and_then(|keys| keys.last_mut());
        match (kind, key) {
            (EventKind::SimpleKey, _) if inside => {
                if path.is_empty() {
                    start = span.start;
                }
                path.push(text.get(span).map(unquoted).unwrap_or_default().to_owned());
            }
            (EventKind::KeyValSep, _) if inside => {
                let name = std::mem::take(&mut path).join(".");
                let key = Key { name, start, value: span.end..span.end };
                tables.last_mut().into_iter().for_each(|keys| keys.push(key.clone()));
            }
            (EventKind::Scalar | EventKind::ArrayOpen | EventKind::InlineTableOpen, Some(key)) => {
                key.value = span
            }
            (EventKind::ArrayClose | EventKind::InlineTableClose, Some(key)) => key.value.end = span.end,
            _ => {}
        }
        if matches!(kind, EventKind::ArrayOpen | EventKind::InlineTableOpen) {
            open.push(kind);
            tables.extend(is_table(&open).then(Vec::new));
        }
    }
    tables
}
