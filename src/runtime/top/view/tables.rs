//! The two tables. Only the rows that are seen are made.

use ratatui_core::layout::{Constraint, Rect};
use ratatui_core::style::Modifier;
use ratatui_core::terminal::Frame;
use ratatui_core::text::Line;
use ratatui_widgets::table::{Cell, Row, Table, TableState};

use super::{LEAST, rate};
use crate::runtime::status::paint::{Tone, count, micros, short_span};
use crate::runtime::top::app::{App, Instance};
use crate::runtime::top::rows::{self, NicRow, PeerRow};
use crate::runtime::top::style::Look;

/// From here on there is room for what one can do without.
const WIDE: u16 = 120;

/// A column: its heading, what it is sorted by, its width; numbers are at the right.
struct Column {
    heading: &'static str,
    sort: &'static str,
    width: u16,
    number: bool,
}

const fn text(heading: &'static str, sort: &'static str, width: u16) -> Column {
    Column { heading, sort, width, number: false }
}

const fn number(heading: &'static str, sort: &'static str, width: u16) -> Column {
    Column { heading, sort, width, number: true }
}

/// The columns, less those that only a wide terminal has; the history takes what is left.
fn layout(columns: &[Column], area: Rect) -> (Vec<Constraint>, usize) {
    let fixed: u16 = columns.iter().map(|c| c.width.saturating_add(1)).fold(0, u16::saturating_add);
    let history = area.width.saturating_sub(fixed);
    let mut widths: Vec<_> = columns.iter().map(|c| Constraint::Length(c.width)).collect();
    widths.push(Constraint::Length(history));
    (widths, history.into())
}

fn header(columns: &[Column], app: &App) -> Row<'static> {
    let (look, sort) = (app.look, app.sort());
    let cell = |c: &Column| {
        let arrow = if c.sort == sort { look.arrow(app.reversed == is_text(sort)) } else { "" };
        let line = Line::from(format!("{}{arrow}", c.heading));
        Cell::from(if c.number { line.right_aligned() } else { line })
    };
    let cells = columns.iter().map(cell).chain([Cell::from("HISTORY")]);
    Row::new(cells.collect::<Vec<_>>()).style(look.tone(Tone::Head))
}

/// What goes up by its nature, from A to Z or from the newest.
fn is_text(sort: &str) -> bool {
    ["NIC", "PEER", "STATE", "LAST"].contains(&sort)
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn history(look: Look, values: &[u64], width: usize) -> Cell<'static> {
    Cell::from(look.sparkline(values, width, LEAST)).style(look.line())
}

/// Tells the app of its rows, and gives those that are seen.
fn seen<T>(app: &mut App, rows: Vec<T>, area: Rect, target: impl Fn(&T) -> (String, String)) -> Vec<T> {
    let page = usize::from(area.height.saturating_sub(1));
    app.settle(rows.iter().map(target).collect(), page);
    rows.into_iter().skip(app.first).take(page).collect()
}

fn show(frame: &mut Frame<'_>, app: &App, table: Table<'_>, area: Rect) {
    let mut state = TableState::new().with_selected(app.marked.saturating_sub(app.first));
    let table = table.column_spacing(1).row_highlight_style(Modifier::REVERSED);
    frame.render_stateful_widget(table, area, &mut state);
}

pub(super) fn nics(frame: &mut Frame<'_>, app: &mut App, instance: &Instance, area: Rect) {
    let wide = area.width >= WIDE;
    let peer = if wide { 20 } else { 10 };
    let mut columns = vec![text("NIC", "NIC", 15), text("PEER", "PEER", peer), text("STATE", "STATE", 8)];
    if wide {
        columns.extend([text("MAC", "", 17), text("ADDRESS", "", 24)]);
    }
    columns.extend([number("OUT/s", "OUT", 7), number("IN/s", "IN", 7)]);
    // Whoever sorts by frames sees them.
    let frames = wide || app.sort() == "FRAMES";
    columns.extend(frames.then_some(number("FRM/s", "FRAMES", 7)));
    columns.extend([number("DROP/s", "DROPS", 7), number("LAST", "LAST", 6)]);
    let (widths, room) = layout(&columns, area);
    let rows = rows::nics(&instance.snapshot, &instance.history, &app.choice());
    let seen = seen(app, rows, area, |row| (row.nic.peer.clone(), row.nic.name.clone()));
    let look = app.look;
    let rows = seen.iter().map(|row| nic_row(look, row, (wide, frames), room));
    let table = Table::new(rows, widths).header(header(&columns, app));
    show(frame, app, table, area);
}

fn nic_row(look: Look, row: &NicRow<'_>, (wide, frames): (bool, bool), room: usize) -> Row<'static> {
    let (nic, rates) = (row.nic, &row.track.rate);
    let mut cells = vec![
        Cell::from(nic.name.clone()),
        Cell::from(nic.peer.clone()),
        Cell::from(nic.state.clone()).style(look.tone(Tone::of_state(&nic.state))),
    ];
    if wide {
        cells.extend([
            Cell::from(nic.mac.clone()),
            Cell::from(nic.addrs.first().cloned().unwrap_or_default()),
        ]);
    }
    let drops = match rates.drops {
        0 => right(String::new()),
        n => right(count(n)).style(look.tone(Tone::Wary)),
    };
    cells.extend([right(rate(rates.out_bytes)), right(rate(rates.in_bytes))]);
    cells.extend(frames.then(|| right(count(row.frames()))));
    cells.extend([
        drops,
        right(row.last_s().map(short_span).unwrap_or_default()),
        history(look, &row.track.both(), room),
    ]);
    Row::new(cells)
}

pub(super) fn peers(frame: &mut Frame<'_>, app: &mut App, instance: &Instance, area: Rect) {
    let wide = area.width >= WIDE;
    let mut columns = vec![text("PEER", "PEER", 14), text("STATE", "STATE", 6)];
    if wide {
        columns.extend([text("ENDPOINT", "", 24), number("NICS", "", 5), number("PATH", "", 5)]);
    }
    columns.extend([
        number("RTT", "RTT", 8),
        number("JITTER", "JITTER", 8),
        number("LOSS%o/i", "LOSS", 11),
        number("OUT/s", "OUT", 8),
        number("IN/s", "IN", 8),
    ]);
    let (widths, room) = layout(&columns, area);
    let rows = rows::peers(&instance.snapshot, &instance.history, &app.choice());
    let seen = seen(app, rows, area, |row| (row.peer.name.clone(), String::new()));
    let look = app.look;
    let rows = seen.iter().map(|row| peer_row(look, row, wide, room));
    let table = Table::new(rows, widths).header(header(&columns, app));
    show(frame, app, table, area);
}

fn peer_row(look: Look, row: &PeerRow<'_>, wide: bool, room: usize) -> Row<'static> {
    let (peer, rates) = (row.peer, &row.track.rate);
    let state = if peer.state == "established" { "up" } else { &peer.state };
    let mut cells = vec![
        Cell::from(peer.name.clone()),
        Cell::from(state.to_owned()).style(look.tone(Tone::of_state(&peer.state))),
    ];
    if wide {
        cells.extend([
            Cell::from(peer.endpoint.clone().unwrap_or_default()),
            right(row.nics.to_string()),
            right(peer.datagram_bytes.map(|b| b.to_string()).unwrap_or_default()),
        ]);
    }
    let percent = |p: Option<f64>| p.map_or_else(|| "-".to_owned(), |p| format!("{p:.1}"));
    let (out, inn) = row.losses();
    let lossy = out.unwrap_or(0.0).max(inn.unwrap_or(0.0)) >= 1.0;
    let loss = right(format!("{}/{}", percent(out), percent(inn)));
    cells.extend([
        right(peer.rtt_us.map(micros).unwrap_or_default()),
        right(peer.jitter_us.map(micros).unwrap_or_default()),
        if lossy { loss.style(look.tone(Tone::Wary)) } else { loss },
        right(rate(rates.out_bytes)),
        right(rate(rates.in_bytes)),
        history(look, &row.track.both(), room),
    ]);
    Row::new(cells)
}
