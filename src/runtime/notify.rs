//! What a supervisor hears, as sd_notify(3) has it: ready, reloading, stopping, a line of status, and signs of life.
//!
//! The socket is opened and connected at start, for later the tunnel may open none. The signs of life come from the
//! control loop's own timer: a loop that no longer turns gives none, and systemd starts the program anew. Without a
//! supervisor all of this does nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use tracing::warn;

/// A supervisor waits for our word.
pub fn is_expected() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Whoever has started us, if they want to hear of us.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// From one sign of life to the next.
    every: Option<Duration>,
    due: Option<Instant>,
    status: String,
}

impl Supervisor {
    /// As the environment says. Before the tunnel gives up opening sockets.
    pub fn of_environment(now: Instant) -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let socket = connect(&address)
            .inspect_err(|e| warn!("cannot reach the supervisor at {}: {e}", address.display()))
            .ok();
        let every = socket.as_ref().and_then(|_| patience()).map(|patience| patience / 2);
        Self { socket, every, due: every.map(|_| now), status: String::new() }
    }

    /// The NICs are set up, and what is received is answered.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// A new config is being taken; [`Self::ready`] follows.
    pub fn reloading(&self) {
        self.say("RELOADING=1");
    }

    /// Everything is being put back.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// One line for `systemctl status`, said when it has changed.
    pub fn status(&mut self, status: String) {
        if self.socket.is_some() && self.status != status {
            self.say(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    /// When the next sign of life is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Gives it, where its time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_some_and(|due| now >= due) {
            self.say("WATCHDOG=1");
            self.due = self.every.and_then(|every| now.checked_add(every));
        }
    }

    fn say(&self, words: &str) {
        // A supervisor that has gone, or whose queue is full, keeps nothing from working.
        let _ = self.socket.as_ref().map(|socket| socket.send(words.as_bytes()));
    }
}

/// `/a/path`, or `@` and a name that is in no file system.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let to = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How long this process may give no sign of life (sd_watchdog_enabled(3)).
fn patience() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let n = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    #[test]
    fn a_supervisor_hears_every_change_once_and_a_sign_of_life_when_it_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let now = Instant::now();
        let every = Some(Duration::from_secs(5));
        let connected = Some(connect(path.as_os_str()).unwrap());
        let mut us = Supervisor { socket: connected, every, due: Some(now), status: String::new() };
        us.ready();
        assert_eq!(heard(&socket), "READY=1");
        us.status("a".into());
        us.status("a".into());
        us.status("b".into());
        assert_eq!([heard(&socket), heard(&socket)], ["STATUS=a", "STATUS=b"]);
        us.handle_timeout(now);
        us.handle_timeout(now + Duration::from_secs(4));
        us.handle_timeout(now + Duration::from_secs(5));
        assert_eq!([heard(&socket), heard(&socket)], ["WATCHDOG=1", "WATCHDOG=1"]);
        assert_eq!(us.poll_timeout(), Some(now + Duration::from_secs(10)));
        assert!(socket.recv(&mut [0; 1]).is_err());
    }

    #[test]
    fn a_name_behind_an_at_sign_is_in_no_file_system() {
        let name = format!("tap-rs-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        connect(OsStr::new(&format!("@{name}"))).unwrap().send(b"x").unwrap();
        assert_eq!(heard(&socket), "x");
    }
}
