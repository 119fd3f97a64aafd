//! One NIC: all that is known of it, both histories, and why frames of it were dropped.

use ratatui_core::layout::{Constraint, Layout, Rect};
use ratatui_core::style::Modifier;
use ratatui_core::terminal::Frame;
use ratatui_core::text::{Line, Span};
use ratatui_widgets::paragraph::Paragraph;
use ratatui_widgets::sparkline::Sparkline;

use super::{LEAST, bits};
use crate::runtime::status::model::{Flow, Nic};
use crate::runtime::status::paint::{Tone, bytes, count, short_span};
use crate::runtime::top::app::{App, Instance};
use crate::runtime::top::history::key;

pub(super) fn draw(
    frame: &mut Frame<'_>,
    app: &mut App,
    instance: &Instance,
    which: (String, String),
    area: Rect,
) {
    let Some(nic) = instance.snapshot.nics.iter().find(|nic| key(nic) == which) else {
        let gone = format!("\n  {} of {} is not there any more; esc goes back", which.1, which.0);
        return frame.render_widget(Paragraph::new(gone), area);
    };
    let graph = if area.height >= 30 { 6 } else { 3 };
    let [facts, out, inn, drops] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(graph),
        Constraint::Length(graph),
        Constraint::Min(2),
    ])
    .areas(area);
    draw_facts(frame, app, nic, facts);
    if let Some(track) = instance.history.nics.get(&which) {
        let (o, i) = (&track.rate.out_bytes, &track.rate.in_bytes);
        draw_way(frame, app, ("to the peer", &nic.uplink, *o), &track.out, out);
        draw_way(frame, app, ("from the peer", &nic.downlink, *i), &track.inn, inn);
    }
    draw_drops(frame, app, instance, nic, drops);
}

fn draw_facts(frame: &mut Frame<'_>, app: &App, nic: &Nic, area: Rect) {
    let netns = nic.netns.as_ref().map(|netns| format!(", in {netns}")).unwrap_or_default();
    let last = nic.uplink.last_s.into_iter().chain(nic.downlink.last_s).min();
    let last = last.map(|s| format!("  last frame {} ago", short_span(s))).unwrap_or_default();
    let lines = vec![
        Line::from(vec![
            Span::styled(nic.name.clone(), app.look.tone(Tone::Head)),
            Span::raw(format!(" of {}: ", nic.peer)),
            Span::styled(nic.state.clone(), app.look.tone(Tone::of_state(&nic.state))),
            Span::raw(format!("  {}{last}", nic.mac)),
        ]),
        match &nic.conflict {
            Some(conflict) => Line::styled(conflict.clone(), app.look.tone(Tone::Bad)),
            None => Line::from(nic.addrs.join("  ")),
        },
        Line::from(format!("{} mtu {}, offload {}{netns}", nic.mode, nic.mtu, nic.offload)),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_way(
    frame: &mut Frame<'_>,
    app: &App,
    (name, flow, now): (&str, &Flow, u64),
    values: &std::collections::VecDeque<u64>,
    area: Rect,
) {
    let [head, graph] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let room = usize::from(graph.width);
    let shown: Vec<u64> = values.iter().copied().skip(values.len().saturating_sub(room)).collect();
    let peak = shown.iter().copied().max().unwrap_or(0);
    let told = format!(
        "{name}: {}, peak {}; {} frames, {}",
        bits(now),
        bits(peak),
        count(flow.frames),
        bytes(flow.bytes)
    );
    frame.render_widget(Paragraph::new(told), head);
    // The newest at the right edge.
    let blank = room.saturating_sub(shown.len());
    let data: Vec<u64> = std::iter::repeat_n(0, blank).chain(shown).collect();
    let bars =
        Sparkline::default().data(&data).max(peak.max(LEAST)).bar_set(app.look.bars()).style(app.look.line());
    frame.render_widget(bars, graph);
}

/// The reasons, those that count now first. They are the rows that can be scrolled.
fn draw_drops(frame: &mut Frame<'_>, app: &mut App, instance: &Instance, nic: &Nic, area: Rect) {
    let now = instance.history.reasons.get(&key(nic));
    let rate = |reason: &str| now.and_then(|rates| rates.get(reason)).copied().unwrap_or(0);
    let mut drops: Vec<_> = nic.drops.iter().map(|(reason, n)| (rate(reason), *n, reason)).collect();
    drops.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then_with(|| a.2.cmp(b.2)));
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let heading = match drops.len() {
        0 => Line::styled("no frame of it has been dropped", app.look.faint()),
        _ => Line::styled(
            format!("{:<22}{:>12}{:>12}", "DROPPED", "NOW/s", "IN ALL"),
            app.look.tone(Tone::Head),
        ),
    };
    frame.render_widget(Paragraph::new(heading), head);
    let which = key(nic);
    app.settle(vec![which; drops.len()], body.height.into());
    let line = |(at, (rate, n, reason)): (usize, &(u64, u64, &String))| {
        let rate = if *rate == 0 { String::new() } else { count(*rate) };
        let tone = if rate.is_empty() { app.look.tone(Tone::Good) } else { app.look.tone(Tone::Wary) };
        let tone = if rate.is_empty() { tone.remove_modifier(Modifier::all()) } else { tone };
        let line = Line::styled(format!("{reason:<22}{rate:>12}{:>12}", count(*n)), tone);
        if at == app.marked { line.patch_style(Modifier::REVERSED) } else { line }
    };
    let lines: Vec<_> = drops.iter().enumerate().skip(app.first).take(body.height.into()).map(line).collect();
    frame.render_widget(Paragraph::new(lines), body);
}
