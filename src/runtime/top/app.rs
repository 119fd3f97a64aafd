//! What is watched, and which part of it is shown.

use std::time::Instant;

use super::history::History;
use super::rows::{Choice, NIC_SORTS, PEER_SORTS};
use super::style::Look;
use crate::runtime::status::Snapshot;

/// One tap-rs that runs, or ran.
pub(super) struct Instance {
    pub name: String,
    pub snapshot: Snapshot,
    pub history: History,
    /// Since when it has not been there.
    pub gone: Option<Instant>,
}

/// What is on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// The NICs, or those of one peer.
    Nics { peer: Option<String> },
    /// The peers.
    Peers,
    /// One NIC and its drops.
    Nic { peer: String, name: String },
}

/// All of it.
pub(super) struct App {
    pub look: Look,
    pub instances: Vec<Instance>,
    /// Which of them is shown.
    pub shown: usize,
    pub view: View,
    /// Where one comes back to from a NIC.
    pub before: View,
    nic_sort: usize,
    peer_sort: usize,
    pub reversed: bool,
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    pub paused: bool,
    pub help: bool,
    /// The row that is marked, and the first that is seen.
    pub marked: usize,
    pub first: usize,
    /// Rows that the last frame had, and what they stand for.
    pub page: usize,
    pub targets: Vec<(String, String)>,
    /// Why nothing is known at present.
    pub trouble: Option<String>,
}

impl App {
    pub(super) fn new(look: Look) -> Self {
        Self {
            look,
            instances: Vec::new(),
            shown: 0,
            view: View::Nics { peer: None },
            before: View::Nics { peer: None },
            nic_sort: 0,
            peer_sort: 0,
            reversed: false,
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            marked: 0,
            first: 0,
            page: 1,
            targets: Vec::new(),
            trouble: None,
        }
    }

    /// What everybody has said at `at`. While it is paused nothing changes.
    pub(super) fn take(&mut self, at: Instant, told: Vec<(String, Snapshot)>) {
        if self.paused {
            return;
        }
        self.trouble = None;
        for instance in &mut self.instances {
            if !told.iter().any(|(name, _)| *name == instance.name) {
                instance.gone.get_or_insert(at);
            }
        }
        for (name, snapshot) in told {
            match self.instances.iter_mut().find(|instance| instance.name == name) {
                Some(known) if known.snapshot.pid == snapshot.pid => {
                    known.history.step(at, &known.snapshot, &snapshot);
                    (known.snapshot, known.gone) = (snapshot, None);
                }
                // The same name, another run.
                Some(known) => {
                    known.history = History::new(at, &snapshot);
                    (known.snapshot, known.gone) = (snapshot, None);
                }
                None => {
                    let history = History::new(at, &snapshot);
                    self.instances.push(Instance { name, snapshot, history, gone: None });
                }
            }
        }
        self.forget_gone();
    }

    /// Nobody answers.
    pub(super) fn fail(&mut self, at: Instant, why: String) {
        if self.paused {
            return;
        }
        self.trouble = Some(why);
        for instance in &mut self.instances {
            instance.gone.get_or_insert(at);
        }
    }

    /// Those that have ended and are not being looked at.
    fn forget_gone(&mut self) {
        let shown = self.instance().map(|i| i.name.clone());
        self.instances.retain(|i| i.gone.is_none() || Some(&i.name) == shown.as_ref());
        self.shown = self.instances.iter().position(|i| Some(&i.name) == shown.as_ref()).unwrap_or(0);
    }

    /// The one that is shown.
    pub(super) fn instance(&self) -> Option<&Instance> {
        self.instances.get(self.shown)
    }

    /// Shows another.
    pub(super) fn turn(&mut self, back: bool) {
        let last = self.instances.len().saturating_sub(1);
        self.shown = match back {
            true => self.shown.checked_sub(1).unwrap_or(last),
            false => after(self.shown, self.instances.len()),
        };
        self.show(match self.view {
            View::Peers => View::Peers,
            _ => View::Nics { peer: None },
        });
    }

    /// Shows another view, from its top.
    pub(super) fn show(&mut self, view: View) {
        self.view = view;
        (self.marked, self.first) = (0, 0);
    }

    /// What rows are sorted by.
    pub(super) fn sort(&self) -> &'static str {
        let (sorts, at) = match self.view {
            View::Peers => (PEER_SORTS, self.peer_sort),
            _ => (NIC_SORTS, self.nic_sort),
        };
        sorts.get(at).copied().unwrap_or_default()
    }

    /// Sorts by the next column.
    pub(super) fn sort_next(&mut self) {
        match self.view {
            View::Peers => self.peer_sort = after(self.peer_sort, PEER_SORTS.len()),
            _ => self.nic_sort = after(self.nic_sort, NIC_SORTS.len()),
        }
        self.reversed = false;
    }

    pub(super) fn choice(&self) -> Choice<'_> {
        let peer = match &self.view {
            View::Nics { peer } => peer.as_deref(),
            _ => None,
        };
        Choice { sort: self.sort(), reversed: self.reversed, filter: &self.filter, peer }
    }

    /// Moves the mark.
    pub(super) fn mark(&mut self, row: usize) {
        self.marked = row.min(self.targets.len().saturating_sub(1));
    }

    /// What the mark is on.
    pub(super) fn open(&mut self) {
        let Some((peer, name)) = self.targets.get(self.marked).cloned() else { return };
        match self.view {
            View::Peers => self.show(View::Nics { peer: Some(peer) }),
            View::Nics { .. } => {
                self.before = std::mem::replace(&mut self.view, View::Nic { peer, name });
            }
            View::Nic { .. } => {}
        }
    }

    /// Back to where one came from; false where that is out.
    pub(super) fn back(&mut self) -> bool {
        if self.help {
            self.help = false;
        } else if let View::Nic { .. } = self.view {
            self.view = std::mem::replace(&mut self.before, View::Nics { peer: None });
        } else if !self.filter.is_empty() {
            self.filter.clear();
        } else if let View::Nics { peer: Some(_) } = self.view {
            self.show(View::Peers);
        } else {
            return false;
        }
        true
    }

    /// Rows that there are in the last frame; the mark stays on one of them, and in sight.
    pub(super) fn settle(&mut self, targets: Vec<(String, String)>, page: usize) {
        // The mark stays where it is and not on whom it is: rows move under it, as in other programs of this kind.
        self.targets = targets;
        self.page = page.max(1);
        self.marked = self.marked.min(self.targets.len().saturating_sub(1));
        let last = self.marked.saturating_add(1).saturating_sub(self.page);
        self.first = self.first.clamp(last, self.marked.max(last));
        self.first = self.first.min(self.targets.len().saturating_sub(self.page));
    }
}

/// The next of so many, or the first again.
fn after(at: usize, count: usize) -> usize {
    at.checked_add(1).filter(|next| *next < count).unwrap_or(0)
}
