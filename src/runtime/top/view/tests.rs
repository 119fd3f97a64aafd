//! Frames, drawn for terminals of two sizes.

use std::time::{Duration, Instant};

use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw;
use crate::runtime::status::Snapshot;
use crate::runtime::status::model::{Flow, Loss, Nic, Peer};
use crate::runtime::top::app::App;
use crate::runtime::top::keys::{After, press};
use crate::runtime::top::style::Look;

const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];

fn nic(peer: usize, n: usize, second: u64) -> Nic {
    let flow = |bytes: u64| Flow { frames: bytes / 500, bytes, last_s: Some(n as u64) };
    Nic {
        name: format!("decoy{peer}x{n}"),
        peer: format!("site{peer}"),
        mode: "tap".into(),
        state: if n == 7 { "gone" } else { "up" }.into(),
        mac: format!("02:00:00:00:{peer:02x}:{n:02x}"),
        addrs: vec![format!("10.{peer}.0.{n}/24")],
        mtu: 1500,
        offload: "checksum, TCP, UDP".into(),
        uplink: flow(second * (peer * 10 + n) as u64 * 100_000),
        downlink: flow(second * n as u64 * 1000),
        drops: if n == 3 { [("storm".into(), second * 40), ("loop".into(), 2)].into() } else { [].into() },
        ..Nic::default()
    }
}

/// A server with fifty clients of ten NICs each.
fn server(pid: u32, second: u64) -> Snapshot {
    let loss = |p: f64| Some(Loss { expected: 1000, arrived: 985, recent_percent: Some(p) });
    let peer = |n: usize| Peer {
        name: format!("site{n}"),
        state: if n == 13 { "silent" } else { "established" }.into(),
        endpoint: Some(format!("192.0.2.{n}:40000")),
        rtt_us: Some(1000 + n as u64 * 100),
        jitter_us: Some(50),
        loss_in: loss(0.0),
        loss_out: loss(if n == 20 { 12.5 } else { 0.0 }),
        datagram_bytes: Some(1472),
        ..Peer::default()
    };
    Snapshot {
        role: "server".into(),
        pid,
        uptime_s: 3000 + second,
        memory_kb: 5000,
        peers: (0..50).map(peer).collect(),
        nics: (0..500).map(|n| nic(n / 10, n % 10, second)).collect(),
        ..Snapshot::default()
    }
}

fn app() -> App {
    let mut app = App::new(Look { colour: true, unicode: true });
    let now = Instant::now();
    for second in 0..30 {
        let told = vec![("server".to_owned(), server(1, second)), ("lab".to_owned(), server(2, 0))];
        app.take(now + Duration::from_secs(second), told);
    }
    app
}

fn screen(app: &mut App, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

fn type_keys(app: &mut App, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            c => KeyCode::Char(c),
        };
        assert_eq!(press(app, KeyEvent::new(code, KeyModifiers::NONE)), After::Going);
    }
}

#[test]
fn the_busiest_nics_are_on_top_with_their_history() {
    for size in SIZES {
        let screen = screen(&mut app(), size);
        let lines: Vec<_> = screen.lines().collect();
        assert!(lines[0].starts_with("server (1 of 2, tab)  server 1  up 50 min"), "{screen}");
        assert!(lines[0].contains("49/50 peers") && lines[0].contains("450/500 NICs"), "{screen}");
        assert!(lines[1].starts_with("out 99.8 Gbit/s  in 18.0 Mbit/s"), "{screen}");
        assert!(lines[2].contains("OUT/s▼"), "{screen}");
        assert!(lines[3].starts_with("decoy49x9"), "{screen}");
        assert!(lines[3].contains("399.2 M") && lines[3].contains('█'), "{screen}");
        assert!(lines.last().unwrap().starts_with("q quit"), "{screen}");
        assert_eq!(lines.len(), usize::from(size.1));
    }
}

#[test]
fn a_wide_terminal_shows_more_of_each() {
    let screen = screen(&mut app(), SIZES[1]);
    assert!(screen.contains("02:00:00:00:31:09") && screen.contains("10.49.0.9/24"), "{screen}");
}

#[test]
fn five_hundred_nics_are_scrolled_to_the_last() {
    for size in SIZES {
        let mut app = app();
        screen(&mut app, size);
        press(&mut app, KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
        assert!(screen(&mut app, size).contains("decoy0x0"));
        press(&mut app, KeyEvent::new(KeyCode::PageUp, KeyModifiers::NONE));
        screen(&mut app, size);
        type_keys(&mut app, "g");
        assert!(screen(&mut app, size).contains("decoy49x9"));
    }
}

#[test]
fn rows_are_sorted_by_what_the_keys_choose() {
    let mut app = app();
    let row = |app: &mut App, n: usize| screen(app, SIZES[0]).lines().nth(2 + n).unwrap().to_owned();
    type_keys(&mut app, "sss");
    assert!(row(&mut app, 0).contains("DROP/s▼") && row(&mut app, 1).starts_with("decoy0x3"));
    type_keys(&mut app, "ss");
    assert!(row(&mut app, 0).starts_with("NIC▲") && row(&mut app, 1).starts_with("decoy0x0"));
    type_keys(&mut app, "r");
    assert!(row(&mut app, 0).starts_with("NIC▼") && row(&mut app, 1).starts_with("decoy9x9"));
}

#[test]
fn a_filter_leaves_what_has_its_text() {
    let mut app = app();
    type_keys(&mut app, "/10.42.0.3/");
    assert!(screen(&mut app, SIZES[0]).lines().last().unwrap().starts_with("/10.42.0.3/"));
    type_keys(&mut app, "\n");
    let shown = screen(&mut app, SIZES[0]);
    assert!(shown.contains("decoy42x3") && !shown.contains("decoy49x9"), "{shown}");
    type_keys(&mut app, "\u{1b}");
    assert!(screen(&mut app, SIZES[0]).contains("decoy49x9"));
}

#[test]
fn a_nic_is_opened_down_to_its_drops() {
    for size in SIZES {
        let mut app = app();
        type_keys(&mut app, "sss");
        screen(&mut app, size);
        type_keys(&mut app, "\n");
        let shown = screen(&mut app, size);
        for words in ["decoy0x3 of site0", "02:00:00:00:00:03", "to the peer: 2.4 Mbit/s", "storm", "loop"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        let storm = shown.lines().find(|line| line.starts_with("storm")).unwrap();
        assert!(storm.split_whitespace().eq(["storm", "40", "1.2", "k"]), "{storm}");
        type_keys(&mut app, "\u{1b}");
        assert!(screen(&mut app, size).contains("DROP/s▼"));
    }
}

#[test]
fn peers_are_shown_with_their_losses_and_opened_to_their_nics() {
    for size in SIZES {
        let mut app = app();
        type_keys(&mut app, "pssss");
        let shown = screen(&mut app, size);
        let first = shown.lines().nth(3).unwrap();
        assert!(
            first.starts_with("site20") && first.contains("12.5/0.0") && first.contains("3.0 ms"),
            "{shown}"
        );
        type_keys(&mut app, "\n");
        let shown = screen(&mut app, size);
        assert!(shown.contains("decoy20x9") && !shown.contains("decoy49x9"), "{shown}");
        type_keys(&mut app, "\u{1b}");
        assert!(screen(&mut app, size).contains("LOSS"));
    }
}

#[test]
fn a_pause_holds_everything_still() {
    let mut app = app();
    let before = screen(&mut app, SIZES[0]);
    type_keys(&mut app, " ");
    app.take(Instant::now() + Duration::from_secs(60), vec![("server".into(), server(1, 60))]);
    let after = screen(&mut app, SIZES[0]);
    assert!(after.contains("PAUSED"));
    assert_eq!(before.lines().take(23).collect::<Vec<_>>(), after.lines().take(23).collect::<Vec<_>>());
}

#[test]
fn instances_are_turned_through_and_one_that_ends_is_told() {
    let mut app = app();
    type_keys(&mut app, "\t");
    assert!(screen(&mut app, SIZES[0]).starts_with("lab (2 of 2, tab)"));
    app.take(Instant::now() + Duration::from_secs(31), vec![("server".into(), server(1, 31))]);
    assert!(screen(&mut app, SIZES[0]).contains("lab has ended"));
    type_keys(&mut app, "\t");
    app.take(Instant::now() + Duration::from_secs(32), vec![("server".into(), server(1, 32))]);
    assert!(screen(&mut app, SIZES[0]).starts_with("server  server 1"));
    app.fail(Instant::now(), "no tap-rs is running here".into());
    assert!(screen(&mut app, SIZES[0]).contains("no tap-rs is running here"));
}

#[test]
fn one_that_was_restarted_begins_anew() {
    let mut app = app();
    app.take(Instant::now() + Duration::from_secs(40), vec![("server".into(), server(9, 0))]);
    assert!(screen(&mut app, SIZES[0]).contains("out 0 bit/s"));
}

#[test]
fn no_size_of_a_terminal_is_too_small_and_no_view_too_large() {
    for size in [(1, 1), (5, 2), (20, 3), (40, 8), (79, 23), (500, 200)] {
        let mut app = app();
        for keys in ["", "?", "\u{1b}\n", "\u{1b}p", "\n", "/x"] {
            type_keys(&mut app, keys);
            screen(&mut app, size);
        }
    }
}

#[test]
fn without_colour_nothing_is_lost() {
    let mut plain = app();
    plain.look = Look { colour: false, unicode: true };
    assert_eq!(screen(&mut plain, SIZES[0]), screen(&mut app(), SIZES[0]));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &mut plain)).unwrap();
    let buffer = terminal.backend().buffer();
    assert!(buffer.content().iter().all(|cell| cell.fg == ratatui_core::style::Color::Reset));
    plain.look.unicode = false;
    assert!(screen(&mut plain, SIZES[0]).is_ascii());
}

#[test]
fn the_help_fits_the_smaller_terminal() {
    let mut app = app();
    type_keys(&mut app, "?");
    let shown = screen(&mut app, SIZES[0]);
    for (_, what) in crate::runtime::top::keys::HELP {
        assert!(shown.contains(what), "on one line: {what}: {shown}");
    }
    assert!(crate::runtime::top::keys::HELP_LINE.len() <= 80);
}
