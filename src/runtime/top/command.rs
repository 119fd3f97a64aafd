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
use super::signal::Signals;
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

/// Shows what runs here until a key or a signal ends it. Gives the exit status: 0, or 128 and the signal's number.
///
/// # Errors
/// This is no terminal, nobody runs here, or the terminal has gone.
pub fn command(args: &TopArgs) -> Result<u8, Failure> {
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
    let signals = Signals::watch(give_back).map_err(lost)?;
    let screen = Screen::take().map_err(lost)?;
    let ended = live(&mut app, &told, &signals);
    drop(screen);
    ended.map_err(lost)
}

fn live(app: &mut App, told: &Receiver<Told>, signals: &Signals) -> io::Result<u8> {
    let mut terminal = Terminal::new(CrosstermBackend::<Stdout>::new(stdout()))?;
    let mut changed = true;
    loop {
        if let Some(signal) = signals.seen() {
            return Ok(signal.saturating_add(128));
        }
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| draw(frame, app))?;
        }
        if event::poll(KEY)? {
            // Another size is an event as well, and is seen when the next frame is drawn.
            changed = true;
            match event::read()? {
                Event::Key(key) if press(app, key) == After::Ended => return Ok(0),
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

/// The terminal while it is ours. Given back when dropped, where the program panics, and by [`Signals`].
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Says to the process that a test starts on a terminal what it is to do there.
    const ORDER: &str = "TAP_RS_TEST_SCREEN";

    #[test]
    fn a_panic_gives_the_terminal_back() {
        if std::env::var_os(ORDER).is_some() {
            let _screen = Screen::take().unwrap();
            panic!("as it is meant");
        }
        let program = std::env::current_exe().unwrap();
        let this = "runtime::top::command::tests::a_panic_gives_the_terminal_back";
        let line = format!("stty -g; {ORDER}=1 {} --exact {this} --nocapture; stty -g", program.display());
        let output = Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.first(), lines.last(), "the settings are what they were: {shown}");
        let (taken, given) = (shown.find("\x1b[?1049h"), shown.find("\x1b[?1049l"));
        let told = shown.find("as it is meant");
        assert!(
            taken.is_some() && taken < given && given < told,
            "it is told where one can read it: {shown}"
        );
    }
}
