//! The lines of the old file: which stay, which go, which get another value; in whichever form a table is written.

use std::ops::Range;

use super::super::edit::inline::inline_tables;
use super::super::edit::layout::{Key, line_end, line_start};
use super::fate::{Fate, fate};
use super::{Deed, Edit, Old, Section, Table, Wish};

impl Old<'_> {
    /// What becomes of a section and its keys.
    pub(super) fn take_over(&self, section: &Section, wish: &Wish<'_>, edits: &mut Vec<Edit>) {
        if let (Some(why), Some(at)) = (self.has_no_use_for(section.table), &section.header) {
            let what = format!("{}: {why}", self.text.get(at.clone()).unwrap_or_default());
            edits.push(Edit::of(Deed::Gone, at.start, section.whole(self.text), "", what));
            return;
        }
        for key in &section.keys {
            let (table, name) = match key.name.split_once('.') {
                Some(("server", name)) if section.table == Table::Top => (Table::Server, name),
                _ => (section.table, key.name.as_str()),
            };
            let line = line_start(self.text, key.start)..line_end(self.text, key.value.end);
            let stays = self.take_over_key(table, name, key, line, wish, edits);
            if let (true, Table::Top, Some(table)) = (stays, section.table, Table::named(name)) {
                for keys in inline_tables(self.text, &key.value) {
                    self.take_over_inline(table, &keys, wish, edits);
                }
            }
        }
    }

    /// A table in a line: a key that goes, goes with one comma.
    fn take_over_inline(&self, table: Table, keys: &[Key], wish: &Wish<'_>, edits: &mut Vec<Edit>) {
        let mut kept = false;
        for (i, key) in keys.iter().enumerate() {
            let before = i.checked_sub(1).and_then(|i| keys.get(i)).filter(|_| kept);
            let behind = keys.get(i.saturating_add(1));
            let range = match (before, behind) {
                (Some(before), _) => before.value.end..key.value.end,
                (None, Some(behind)) => key.start..behind.start,
                (None, None) => key.start..key.value.end,
            };
            kept |= self.take_over_key(table, &key.name, key, range, wish, edits);
        }
    }

    /// What becomes of a key, which goes with `range` where it goes. True: it stays.
    fn take_over_key(
        &self,
        table: Table,
        name: &str,
        key: &Key,
        range: Range<usize>,
        wish: &Wish<'_>,
        edits: &mut Vec<Edit>,
    ) -> bool {
        let written = self.text.get(key.value.clone()).unwrap_or_default();
        let said = match written.len() {
            0..=40 if !written.contains('\n') => format!("{} = {written}", key.name),
            _ => key.name.clone(),
        };
        match fate(self, table, name, written, wish) {
            Fate::Keep => {}
            Fate::Gone(why) => {
                edits.push(Edit::of(Deed::Gone, key.start, range, "", format!("{said}: {why}")));
                return false;
            }
            Fate::Value(value, why) => {
                let what = format!("{said} is now {value}: {why}");
                edits.push(Edit::of(Deed::Changed, key.start, key.value.clone(), &value, what));
            }
            // Of many NICs it is said once.
            Fate::Means(_) if edits.iter().any(|e| e.is_note_of(&key.name)) => {}
            Fate::Means(what) => {
                let at = key.start..key.start;
                edits.push(Edit::of(Deed::Noted, key.start, at, "", format!("{said}: {what}")));
            }
        }
        true
    }

    fn has_no_use_for(&self, table: Table) -> Option<&'static str> {
        match table {
            Table::Nics if self.is_remote() => {
                Some("with use_remote_config the NICs come from the server, and this was a placeholder")
            }
            Table::Other => Some("the original passed over this section, and here it would be an error"),
            _ => None,
        }
    }
}
