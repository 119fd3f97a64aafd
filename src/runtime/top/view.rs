//! One frame: a heading, a table or a NIC, the keys. It is cut to whatever size the terminal has.

mod detail;
mod tables;

use ratatui_core::layout::{Constraint, Layout, Rect};
use ratatui_core::style::Modifier;
use ratatui_core::terminal::Frame;
use ratatui_core::text::{Line, Span};
use ratatui_widgets::paragraph::{Paragraph, Wrap};

use super::app::{App, Instance, View};
use super::keys::{HELP, HELP_LINE};
use crate::runtime::status::paint::{Tone, bytes, count, scaled, short_span};

/// Bytes a second that a history's highest bar stands for at the least: the odd ARP is no peak.
const LEAST: u64 = 1000;

/// Draws everything there is to see, and has the app know which rows there were.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    draw_head(frame, app, head);
    draw_foot(frame, app, foot);
    if app.help {
        return draw_help(frame, app, body);
    }
    // Taken out, so that the rows may look at it while the app is told of them.
    let Some(instance) = take(app) else {
        return draw_trouble(frame, app, body);
    };
    match app.view.clone() {
        View::Nics { .. } => tables::nics(frame, app, &instance, body),
        View::Peers => tables::peers(frame, app, &instance, body),
        View::Nic { peer, name } => detail::draw(frame, app, &instance, (peer, name), body),
    }
    put(app, instance);
}

fn take(app: &mut App) -> Option<Instance> {
    (app.shown < app.instances.len()).then(|| app.instances.remove(app.shown))
}

fn put(app: &mut App, instance: Instance) {
    app.instances.insert(app.shown, instance);
}

/// Who it is, how it is; what passes in all.
fn draw_head(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let Some(instance) = app.instance() else { return };
    let (s, look) = (&instance.snapshot, app.look);
    let up = |state: &str| state == "established" || state == "up";
    let peers = s.peers.iter().filter(|p| up(&p.state)).count();
    let nics = s.nics.iter().filter(|n| up(&n.state)).count();
    let mut first = vec![Span::styled(instance.name.clone(), look.tone(Tone::Head))];
    if app.instances.len() > 1 {
        first.push(Span::raw(format!(" ({} of {}, tab)", app.shown.saturating_add(1), app.instances.len())));
    }
    first.push(Span::raw(format!(
        "  {} {}  up {}  {}  ",
        s.role,
        s.pid,
        short_span(s.uptime_s),
        bytes(s.memory_kb.saturating_mul(1024))
    )));
    let tone = |of: usize, all: usize| look.tone(if of == all { Tone::Good } else { Tone::Wary });
    first.push(Span::styled(format!("{peers}/{} peers", s.peers.len()), tone(peers, s.peers.len())));
    first.push(Span::raw("  "));
    first.push(Span::styled(format!("{nics}/{} NICs", s.nics.len()), tone(nics, s.nics.len())));

    let all = &instance.history.all;
    let told = format!(
        "out {}  in {}  {} frames/s  ",
        bits(all.rate.out_bytes),
        bits(all.rate.in_bytes),
        count(all.rate.out_frames.saturating_add(all.rate.in_frames))
    );
    let dropped = format!("{} dropped/s", count(all.rate.drops));
    let used = told.chars().count().saturating_add(dropped.len()).saturating_add(2);
    let room = usize::from(area.width).saturating_sub(used);
    let drops = if all.rate.drops > 0 { look.tone(Tone::Wary) } else { look.faint() };
    let second = vec![
        Span::raw(told),
        Span::styled(dropped, drops),
        Span::raw("  "),
        Span::styled(look.sparkline(&all.both(), room, LEAST), look.line()),
    ];
    frame.render_widget(Paragraph::new(vec![Line::from(first), Line::from(second)]), area);
}

/// The keys; or what is being typed, or what is the matter.
fn draw_foot(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let look = app.look;
    let gone = app.instance().filter(|i| i.gone.is_some()).map(|i| format!("{} has ended", i.name));
    let line = if app.typing {
        Line::from(vec![
            Span::styled(format!("/{}", app.filter), look.tone(Tone::Head)),
            Span::styled(" ", look.tone(Tone::Head).add_modifier(Modifier::REVERSED)),
            Span::styled("  enter keeps it, esc clears it", look.faint()),
        ])
    } else if let Some(trouble) = app.trouble.clone().or(gone) {
        Line::styled(trouble, look.tone(Tone::Bad))
    } else if app.paused {
        Line::styled("PAUSED; space goes on", look.tone(Tone::Wary).add_modifier(Modifier::REVERSED))
    } else if !app.filter.is_empty() {
        Line::styled(format!("only what has \"{}\"; esc shows all", app.filter), look.tone(Tone::Wary))
    } else {
        Line::styled(HELP_LINE, look.faint())
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_help(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let line = |(keys, what): &(&'static str, &'static str)| {
        Line::from(vec![Span::styled(format!("  {keys:<31}"), app.look.tone(Tone::Head)), Span::raw(*what)])
    };
    let mut lines = vec![Line::default()];
    lines.extend(HELP.iter().map(line));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn draw_trouble(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let text = app.trouble.clone().unwrap_or_else(|| "asking ...".to_owned());
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
}

/// `12.3 Mbit/s`
fn bits(bytes_a_second: u64) -> String {
    scaled(bytes_a_second as f64 * 8.0, "bit/s")
}

/// `12.3 M`, for a column that says what it is.
fn rate(bytes_a_second: u64) -> String {
    count(bytes_a_second.saturating_mul(8))
}

#[cfg(test)]
mod tests;
