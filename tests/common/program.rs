//! A running `tap-rs`, its log, and ways to end it. Killed with its guard.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tap_rs::sys::poll::{Epoll, Events, Interest};

use super::lab::SOON;
use super::ns::Ns;

/// The program under test: cargo's, or that of `TAP_RS_PROGRAM` when the tests were compiled, a static one say.
pub const TAP_RS: &str = match OTHER {
    Some(path) => path,
    None => env!("CARGO_BIN_EXE_tap-rs"),
};
const OTHER: Option<&str> = option_env!("TAP_RS_PROGRAM");

pub struct Program {
    child: Child,
    what: String,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    said: Mutex<Said>,
    grew: Condvar,
}

/// Up to the moment that it is looked at: what the program has written is read by whoever wants to know, who would
/// otherwise race the thread that follows it.
#[derive(Default)]
struct Said {
    lines: Vec<String>,
    outputs: Vec<Output>,
}

impl Said {
    fn read(&mut self) -> &Self {
        for output in &mut self.outputs {
            output.read(&mut self.lines);
        }
        self
    }

    fn has_ended(&self) -> bool {
        self.outputs.iter().all(|output| output.pipe.is_none())
    }
}

/// One of its two outputs.
struct Output {
    /// None at its end.
    pipe: Option<File>,
    /// A line without its end.
    rest: Vec<u8>,
}

impl Output {
    fn read(&mut self, lines: &mut Vec<String>) {
        let mut room = [0; 8192];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut room) {
                Ok(0) => self.pipe = None,
                Ok(len) => self.rest.extend_from_slice(&room[..len]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.pipe.is_none() && !self.rest.is_empty() {
                lines.push(String::from_utf8_lossy(&self.rest).into_owned());
            }
        }
    }
}

impl Program {
    /// Starts `tap-rs` with these arguments in a namespace.
    pub fn start(ns: &Ns, args: &[&str]) -> Self {
        let mut command = ns.command(TAP_RS);
        command.args(args);
        Self::watch(command, args.join(" "))
    }

    /// The same after this line of shell, in a room with mounts of its own.
    pub fn start_after(ns: &Ns, line: &str, args: &[&str]) -> Self {
        let mut command = ns.command("/bin/sh");
        command.args(["-ec", &format!("{line}\nexec {TAP_RS} {}", args.join(" "))]);
        Self::watch(command, args.join(" "))
    }

    pub fn watch(mut command: Command, what: String) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Log>::default();
        follow(child.stdout.take().unwrap().into(), &log);
        follow(child.stderr.take().unwrap().into(), &log);
        Self { child, what, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn lines(&self) -> Vec<String> {
        self.log.said.lock().unwrap().read().lines.clone()
    }

    /// How many lines have all of these words.
    pub fn count(&self, words: &[&str]) -> usize {
        self.lines().iter().filter(|line| has(line, words)).count()
    }

    /// Waits until a line has all of these words; panics with the log if none has in time.
    #[track_caller]
    pub fn wait_for_log(&self, words: &[&str], patience: Duration) -> String {
        self.wait_for_nth(words, 1, patience)
    }

    /// The same for the n-th such line.
    #[track_caller]
    pub fn wait_for_nth(&self, words: &[&str], n: usize, patience: Duration) -> String {
        let said = self.log.said.lock().unwrap();
        let nth = |said: &Said| said.lines.iter().filter(|l| has(l, words)).nth(n - 1).cloned();
        let wait = |said: &mut Said| nth(said.read()).is_none() && !said.has_ended();
        let (said, _) = self.log.grew.wait_timeout_while(said, patience, wait).unwrap();
        let found = nth(&said);
        drop(said);
        found.unwrap_or_else(|| panic!("{}: no {n}. line with {words:?} within {patience:?}", self.what))
    }

    fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.pid());
        assert!(Command::new("/bin/sh").args(["-c", &line]).status().unwrap().success(), "{line}");
    }

    /// By which name it is asked: its config file's, and its number behind that where another had the name.
    pub fn name(&self) -> String {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid())).unwrap();
        let file = line.split(|b| *b == 0).find(|word| word.ends_with(b".toml")).unwrap();
        let file = std::path::Path::new(std::str::from_utf8(file).unwrap());
        let name = file.file_stem().unwrap().to_str().unwrap();
        let own = format!("{name}-{}", self.pid());
        if std::path::Path::new(&format!("/run/tap-rs/{own}.sock")).exists() { own } else { name.to_owned() }
    }

    /// SIGHUP: read the config again.
    pub fn reload(&self) {
        self.signal("HUP");
    }

    /// SIGUSR1: a new session now.
    pub fn rekey(&self) {
        self.signal("USR1");
    }

    /// SIGKILL, and waits.
    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait(SOON)
    }

    /// SIGINT, and waits for the end.
    #[track_caller]
    pub fn interrupt(&mut self) -> ExitStatus {
        self.signal("INT");
        self.wait(SOON)
    }

    /// Waits for the end; panics if it does not come in time.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "{} has not ended within {patience:?}", self.what);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Time of a processor that it has used, to the hundredth of a second.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// Resident memory in kB, now.
    pub fn rss_kb(&self) -> u64 {
        status_kb(self.pid(), "VmRSS:")
    }

    /// Resident memory in kB at its most.
    pub fn peak_kb(&self) -> u64 {
        status_kb(self.pid(), "VmHWM:")
    }

    /// Memory in kB that is the program's own, now: as [`Self::own_peak_kb`].
    pub fn own_kb(&self) -> u64 {
        own_kb(self.pid())
    }

    /// Memory in kB that is the program's own, at its most: without the pages of its file, which a debug build
    /// has many of. A release build is measured with everything.
    pub fn own_peak_kb(&self) -> u64 {
        if has_large_file() { status_kb(self.pid(), "RssAnon:") } else { self.peak_kb() }
    }
}

/// The same of one of its processes, now.
pub fn own_kb(pid: u32) -> u64 {
    status_kb(pid, if has_large_file() { "RssAnon:" } else { "VmRSS:" })
}

fn has_large_file() -> bool {
    cfg!(debug_assertions) && OTHER.is_none()
}

fn status_kb(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.log.said.lock().unwrap_or_else(|e| e.into_inner());
            eprintln!("---- {} ({} lines)\n{}\n----", self.what, said.lines.len(), said.lines.join("\n"));
        }
    }
}

/// Adds an output, and wakes whoever waits when there is more of it. A program never waits for its log to be read.
fn follow(pipe: OwnedFd, log: &Arc<Log>) {
    // What sets this of a socket sets it of any descriptor.
    let pipe = UnixStream::from(pipe);
    pipe.set_nonblocking(true).unwrap();
    let (pipe, epoll) = (File::from(OwnedFd::from(pipe)), Epoll::new().unwrap());
    epoll.add(&pipe, 0, Interest::READ).unwrap();
    let log = log.clone();
    let at = {
        let outputs = &mut log.said.lock().unwrap().outputs;
        outputs.push(Output { pipe: Some(pipe), rest: Vec::new() });
        outputs.len() - 1
    };
    std::thread::spawn(move || {
        let mut events = Events::with_capacity(1);
        loop {
            // Also where somebody else has read it, and there is no event any more.
            epoll.wait(&mut events, Some(Duration::from_millis(100))).unwrap();
            let Ok(mut said) = log.said.lock() else { return };
            let ended = said.read().outputs[at].pipe.is_none();
            log.grew.notify_all();
            if ended {
                return;
            }
        }
    });
}

fn has(line: &str, words: &[&str]) -> bool {
    words.iter().all(|word| line.contains(word))
}
