//! The terminal: taken, drawn on, given back.

use std::io::{self, IsTerminal, Stdout, stdin, stdout};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::cursor::{Hide, Show};
use ratatui_crossterm::crossterm::event::{self, Event};
use ratatui_crossterm::crossterm::execute;
use ratatui_crossterm::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::app::App;
use super::keys::{After, press};
use super::style::Look;
use super::view::draw;
use crate::cli::TopArgs;
use crate::commands::Failure;
use crate::runtime::control_socket::{Request, ask_all};
use crate::runtime::status::Snapshot;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// How long a key is waited for before it is seen whether an answer has come.
const KEY: Duration = Duration::from_millis(200);

/// What all that run have said, or why nobody has.
type Told = (Instant, Result<Vec<(String, Snapshot)>, String>);

/// Shows what runs here until a key ends it.
///
/// # Errors
/// This is no terminal, nobody runs here, or the terminal has gone.
pub fn command(args: &TopArgs) -> Result<(), Failure> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if dumb || !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Failure::Refused(
            "`tap-rs top` needs a terminal that it can draw on; for scripts there is `tap-rs status --json`"
                .into(),
        ));
    }
    let mut app = App::new(Look::of_environment());
    // Nobody there, no permission, an unknown name: said where one reads it, not on a screen that goes away.
    app.take(Instant::now(), look(args.name.as_deref()).map_err(Failure::Refused)?);
    let (tell, told) = sync_channel(1);
    let name = args.name.clone();
    std::thread::spawn(move || watch(name.as_deref(), &tell));
    let lost = |e: io::Error| Failure::Refused(format!("the terminal cannot be used: {e}"));
    let screen = Screen::take().map_err(lost)?;
    let ended = live(&mut app, &told);
    drop(screen);
    ended.map_err(lost)
}

fn live(app: &mut App, told: &Receiver<Told>) -> io::Result<()> {
    let mut terminal = Terminal::new(CrosstermBackend::<Stdout>::new(stdout()))?;
    let mut changed = true;
    loop {
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| draw(frame, app))?;
        }
        if event::poll(KEY)? {
            // Another size is an event as well, and is seen when the next frame is drawn.
            changed = true;
            match event::read()? {
                Event::Key(key) if press(app, key) == After::Ended => return Ok(()),
                _ => {}
            }
        }
        let Ok((at, answers)) = told.try_recv() else { continue };
        changed = true;
        match answers {
            Ok(all) => app.take(at, all),
            Err(why) => app.fail(at, why),
        }
    }
}

/// Asks again and again, beside the screen: one that answers late does not keep the keys waiting.
fn watch(name: Option<&str>, tell: &SyncSender<Told>) {
    loop {
        std::thread::sleep(EVERY);
        let told = look(name);
        if tell.send((Instant::now(), told)).is_err() {
            return;
        }
    }
}

fn look(name: Option<&str>) -> Result<Vec<(String, Snapshot)>, String> {
    let answers = ask_all(name, &Request::Status {}).map_err(|e| e.to_string())?;
    let read = |(name, document): (String, Vec<u8>)| {
        let snapshot = serde_json::from_slice(&document).map_err(|e| {
            format!("{name} runs another version of tap-rs, whose status is not understood: {e}")
        })?;
        Ok((name, snapshot))
    };
    answers.into_iter().map(read).collect()
}

/// The terminal while it is ours. Given back when dropped, and where the program panics.
struct Screen;

impl Screen {
    fn take() -> io::Result<Self> {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
        }));
        enable_raw_mode()?;
        let screen = Self;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}
