//! `tap-rs demo`: a LAN, a client and a server on this machine, at work before the user's eyes, and gone again.
//!
//! ```text
//! stage (three namespaces, two cables) → cast (keys, two files, a script, two child processes of this program)
//!   → proof (ping, fetch, capture, transfer) → curtain (children stopped, everything removed)
//! ```
//!
//! The children are this same program, started as users start it; nothing here reaches into them. What is said is
//! measured from outside: answers that came, bytes that passed. Everything is held by guards: namespaces last as
//! long as their threads, children die with those threads, and the keys' directory is removed, on Ctrl-C too.
//! No other program is run, but `/bin/sh` by the client, for the script that the server pushes.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod cast;
mod proof;
mod screen;
mod stage;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use cast::Cast;
use proof::{Capture, Seen, Site};
use screen::{Screen, rate, span};
use stage::Stage;

use crate::sys::process::new_netns;

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No namespaces without root.
    #[error("the demo makes network namespaces, and only root may: run `sudo tap-rs demo`")]
    NeedsRoot,
    /// Ctrl-C, or another signal to stop.
    #[error("stopped; everything is taken down")]
    Stopped,
    /// Something did not work.
    #[error("{0}")]
    Failed(String),
}

impl DemoError {
    /// The status that the program ends with: 130 for Ctrl-C, as in a shell, else 1.
    pub fn status(&self) -> u8 {
        match self {
            Self::Stopped => 130,
            Self::NeedsRoot | Self::Failed(_) => 1,
        }
    }
}

type Result<T> = std::result::Result<T, DemoError>;

/// `f(…).or_fail("make the namespaces")?`
trait OrFail<T> {
    fn or_fail(self, what: &str) -> Result<T>;
}

impl<T, E: std::fmt::Display> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, what: &str) -> Result<T> {
        self.map_err(|e| DemoError::Failed(format!("cannot {what}: {e}")))
    }
}

/// A NIC that the demo projects.
#[derive(Clone, Copy)]
struct Nic {
    on_client: &'static str,
    on_server: &'static str,
    mac: &'static str,
    ip: Ipv4Addr,
}

const NICS: [Nic; 2] = [
    Nic { on_client: "mv0", on_server: "tap0", mac: "be:17:dd:5c:07:17", ip: Ipv4Addr::new(10, 77, 0, 150) },
    Nic { on_client: "mv1", on_server: "tap1", mac: "be:17:dd:5c:07:18", ip: Ipv4Addr::new(10, 77, 0, 151) },
];
const LAN_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const PORT: u16 = 1234;

/// How long anything may take that should take far less than a second.
const PATIENCE: Duration = Duration::from_secs(15);
const PINGS: usize = 20;
const TRANSFER: Duration = Duration::from_secs(3);

/// Runs the demo and prints to standard output. Needs root.
///
/// # Errors
/// [`DemoError`]; everything has been taken down then as well.
pub fn run() -> Result<()> {
    let stop = Stop::default();
    let (ended, mut end) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.or_fail("watch for signals")?;
    let story = stop.clone();
    let story = move || {
        // Dropped with the story, which ends the wait below.
        let _ended = ended;
        tell(&Screen::of_stdout(), &story)
    };
    // Before the first thing that would have to be cleaned up.
    let signals = runtime.block_on(async {
        let on = |kind| signal(kind).or_fail("watch for signals");
        Ok((on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?))
    });
    let (mut interrupt, mut terminate, mut hangup) = signals?;
    let thread = std::thread::Builder::new().spawn(story).or_fail("start a thread")?;
    runtime.block_on(async {
        tokio::select! {
            _ = &mut end => return,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        stop.0.store(true, Relaxed);
        let _ = end.await;
    });
    thread.join().unwrap_or_else(|_| Err(DemoError::Failed("the demo broke off".to_owned())))
}

/// Set when the user has had enough.
#[derive(Clone, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn check(&self) -> Result<()> {
        if self.0.load(Relaxed) { Err(DemoError::Stopped) } else { Ok(()) }
    }

    /// Asks `found` until it has something. `Ok(None)`: nothing came of it in time.
    fn until<T>(&self, mut found: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.check()?;
            if let Some(it) = found()? {
                return Ok(Some(it));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(None)
    }
}

fn tell(screen: &Screen, stop: &Stop) -> Result<()> {
    if !may_make_namespaces()? {
        return Err(DemoError::NeedsRoot);
    }
    screen.title("tap-rs demo: a LAN, a client and a server, in namespaces of their own");
    screen.drawing(DRAWING);
    let stage = Stage::build()?;
    screen.step("stage", "three network namespaces and the two cables between them; your own");
    screen.more("interfaces, routes and files are not touched");
    let mut cast = Cast::dress()?;
    let shown = play(screen, stop, &stage, &mut cast);
    if let Err(DemoError::Failed(_)) = shown {
        cast.last_words(screen);
    }
    let left = cast.curtain(&stage);
    drop(stage);
    shown?;
    left?;
    screen.done("curtain", "client and server ended with status 0 and took their NICs along;");
    screen.more("namespaces, cables and keys are gone too");
    Ok(())
}

/// What the user is to see at once.
const DRAWING: &str = "   a LAN               the client's box               the server's box
 +-----------+       +-------------------+          +------------------------+
 |  a host   |       |   mv0  mv1        |          |  tap0    10.77.0.150   |
 | 10.77.0.2 |       |    |    |         |          |  tap1    10.77.0.151   |
 |           |  the  |    +-+--+         |  sealed  |                        |
 |      eth0 +-------+ lan0-+       wan0 +==========+ wan0                   |
 +-----------+  LAN  +-------------------+   UDP    +------------------------+
                     no address on the LAN   192.0.2.0/24, MTU 1500

 The host on the LAN talks to 10.77.0.150 and .151. It finds them on its LAN,
 where the client's box holds two NICs; who answers is the server, far away.";

fn may_make_namespaces() -> Result<bool> {
    match std::thread::spawn(new_netns).join() {
        Ok(Ok(())) => Ok(true),
        Ok(Err(e)) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Ok(Err(e)) => Err(e).or_fail("make a network namespace"),
        Err(_) => Err(DemoError::Failed("cannot start a thread".to_owned())),
    }
}

fn play(screen: &Screen, stop: &Stop, stage: &Stage, cast: &mut Cast) -> Result<()> {
    screen.step("keys", "a key pair for each, made now; the server's public key is");
    screen.more(&cast.server_key().to_string());
    cast.start_server(stage)?;
    let nics = stop.until(|| cast.alive().and(stage.server_has_its_nics()))?;
    nics.or_none("the server did not set up tap0 and tap1")?;
    screen.step("server", "started; tap0 and tap1 have their MACs and addresses");

    let start = Instant::now();
    cast.start_client(stage)?;
    screen.step("client", "started with nothing but its key, the server's key and its address");
    let nics = stop.until(|| cast.alive().and(stage.client_has_its_nics()))?;
    nics.or_none("the client did not set up mv0 and mv1")?;
    let site = Site::new(stage)?;
    let answered = stop.until(|| cast.alive().and(site.first_answer()))?;
    answered.or_none("nothing answered on the LAN")?;
    // Both have read what they need; nothing secret stays around, however the demo ends.
    cast.burn_papers();
    screen.step("pushed", "the server sent the client two NICs, and a script whose SHA-256 is");
    screen.more(&format!("on the client's list; {} from start to first answer", span(start.elapsed())));
    if let Some(said) = cast.script_said() {
        screen.more(&format!("the script said: {said}"));
    }
    prove(screen, stop, stage, &site)
}

fn prove(screen: &Screen, stop: &Stop, stage: &Stage, site: &Site<'_>) -> Result<()> {
    screen.heading("Proof, seen from the host on the LAN");
    for nic in &NICS {
        let trips = site.ping(stop, nic)?;
        let [least, median, most] = proof::spread(&trips);
        let text = format!("{} of {PINGS}, round trip {median} ({least} to {most})", trips.len());
        screen.result(trips.len() == PINGS, "ping", &format!("{:12} {text}", nic.ip));
        let owner = stage.neighbour(stop, nic)?;
        screen.more(&format!("{:12} the LAN finds it at its own MAC, {owner}", ""));
    }

    let (wire, lan) = (Capture::start(&stage.server, "wan0")?, Capture::start(&stage.lan, "eth0")?);
    for nic in &NICS {
        stop.check()?;
        let page = site.fetch(nic)?;
        screen.result(
            true,
            "fetch",
            &format!("{:12} {}, {} bytes in {}", nic.ip, page.status, page.bytes, span(page.time)),
        );
        screen.more(&format!("{:12} \"{}\"", "", page.first_line));
    }
    let (wire, lan) = (wire.finish(site.marker())?, lan.finish(site.marker())?);
    sealed(screen, &wire, &lan)?;

    for (label, up) in [("to server", true), ("to LAN", false)] {
        let live = |bits| screen.live("transfer", &format!("{label:12} {}", rate(bits)));
        let bits = site.transfer(stop, up, TRANSFER, live)?;
        let text = format!("{label:12} {} over {} s of TCP", rate(bits), TRANSFER.as_secs());
        screen.result(bits > 0.0, "transfer", &text);
    }
    Ok(())
}

/// What the captures of the fetches showed.
fn sealed(screen: &Screen, wire: &Seen, lan: &Seen) -> Result<()> {
    let clean = wire.hits == 0 && wire.missed == 0 && wire.datagrams > 0 && lan.hits > 0;
    let text = format!("all {} packets of the tunnel were looked at ({} bytes):", wire.datagrams, wire.bytes);
    screen.result(clean, "capture", &text);
    screen.more(&format!(
        "the pages' secret: {} times on the underlay, {} times on the LAN",
        wire.hits, lan.hits
    ));
    if clean {
        Ok(())
    } else {
        Err(DemoError::Failed("the capture does not show a sealed tunnel".to_owned()))
    }
}

/// `None` is a failure with these words.
trait OrNone<T> {
    fn or_none(self, what: &str) -> Result<T>;
}

impl<T> OrNone<T> for Option<T> {
    fn or_none(self, what: &str) -> Result<T> {
        self.ok_or_else(|| DemoError::Failed(format!("{what} within {} s", PATIENCE.as_secs())))
    }
}

#[cfg(test)]
mod tests;
