//! What each key does.

use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::app::{App, View};

/// The last line of the screen.
pub(super) const HELP_LINE: &str =
    "q quit  ? help  enter open  n NICs  p peers  s sort  / filter  space pause";

/// Each key, and what it does.
pub(super) const HELP: &[(&str, &str)] = &[
    ("arrows, PgUp, PgDn, Home, End", "move the mark (also j k g G)"),
    ("enter", "a NIC's drops by reason; a peer's NICs"),
    ("esc, backspace", "back; out of a filter"),
    ("n", "all NICs"),
    ("p", "peers: round trip, jitter, loss each way"),
    ("s", "sort by the next column"),
    ("r", "the other way round"),
    ("/", "only rows with this name, peer, MAC, address"),
    ("space", "pause, and go on"),
    ("tab, shift-tab", "the next tap-rs on this machine, the one before"),
    ("q, ctrl-c", "quit"),
];

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Going,
    Ended,
}

/// Does what a key says.
pub(super) fn press(app: &mut App, key: KeyEvent) -> After {
    if key.kind == KeyEventKind::Release {
        return After::Going;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { After::Ended } else { After::Going };
    }
    if app.typing {
        type_filter(app, key.code);
        return After::Going;
    }
    match key.code {
        KeyCode::Char('q') => return After::Ended,
        KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => {
            app.back();
        }
        KeyCode::Char('?' | 'h') => app.help = !app.help,
        KeyCode::Char('n') => app.show(View::Nics { peer: None }),
        KeyCode::Char('p') => app.show(View::Peers),
        KeyCode::Char('s') => app.sort_next(),
        KeyCode::Char('r') => app.reversed = !app.reversed,
        KeyCode::Char('/') => app.typing = true,
        KeyCode::Char(' ') => app.paused = !app.paused,
        KeyCode::Tab => app.turn(false),
        KeyCode::BackTab => app.turn(true),
        KeyCode::Enter | KeyCode::Right => app.open(),
        KeyCode::Up | KeyCode::Char('k') => app.mark(app.marked.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => app.mark(app.marked.saturating_add(1)),
        KeyCode::PageUp => app.mark(app.marked.saturating_sub(app.page)),
        KeyCode::PageDown => app.mark(app.marked.saturating_add(app.page)),
        KeyCode::Home | KeyCode::Char('g') => app.mark(0),
        KeyCode::End | KeyCode::Char('G') => app.mark(usize::MAX),
        _ => {}
    }
    After::Going
}

/// The longest filter, in characters: no text that it is looked for in is longer.
const FILTER: usize = 64;

fn type_filter(app: &mut App, key: KeyCode) {
    match key {
        KeyCode::Enter => app.typing = false,
        KeyCode::Esc => {
            app.typing = false;
            app.filter.clear();
        }
        KeyCode::Backspace => {
            app.filter.pop();
        }
        KeyCode::Char(c) if !c.is_control() && app.filter.chars().count() < FILTER => app.filter.push(c),
        _ => {}
    }
    app.mark(0);
}
