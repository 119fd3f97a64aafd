//! A running `tap-rs`, its log, and ways to end it. Killed with its guard.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

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

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// How many of its two outputs have ended.
    ended: usize,
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
        follow(child.stdout.take().unwrap(), &log);
        follow(child.stderr.take().unwrap(), &log);
        Self { child, what, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn lines(&self) -> Vec<String> {
        self.log.said.lock().unwrap().lines.clone()
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
        let wait = |said: &mut Said| nth(said).is_none() && said.ended < 2;
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
        self.wait(Duration::from_secs(5))
    }

    /// SIGINT, and waits for the end.
    #[track_caller]
    pub fn interrupt(&mut self) -> ExitStatus {
        self.signal("INT");
        self.wait(Duration::from_secs(5))
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

fn follow(from: impl Read + Send + 'static, log: &Arc<Log>) {
    let log = log.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            log.said.lock().unwrap().lines.push(String::from_utf8_lossy(&line).into_owned());
            log.grew.notify_all();
        }
        log.said.lock().unwrap().ended += 1;
        log.grew.notify_all();
    });
}

fn has(line: &str, words: &[&str]) -> bool {
    words.iter().all(|word| line.contains(word))
}
