//! Life in the background: `is_daemon`, `pid`, `stdout` and `stderr` of the config.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write, stderr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::commands::Failure;
use crate::config::Daemon;
use crate::sys::process::{Foreground, daemonize, is_like_us, replace_stdio};

/// A process in the background whose starter still waits. Tells whoever still waits when it is dropped where to look;
/// its pid file is removed by the keeper.
pub struct Background {
    /// The starter, and its standard error; kept no longer than it waits, for a pipe there would stay open.
    starter: Option<(Foreground, File)>,
    /// Where our words go.
    log: PathBuf,
}

impl Background {
    /// Goes into the background and takes the configured files. Only while there is one thread.
    pub fn enter(config: &Daemon) -> Result<Self, Failure> {
        // All in the foreground, where what is wrong can still be said.
        refuse_a_second(&config.pid)?;
        let output = append(&config.stdout, "stdout")?;
        let errors = append(&config.stderr, "stderr")?;
        let nothing = File::open("/dev/null").map_err(|e| refuse("open", Path::new("/dev/null"), &e))?;
        let mut pid = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&config.pid)
            .map_err(|e| refuse("write `pid`", &config.pid, &e))?;
        let terminal = stderr().as_fd().try_clone_to_owned().map(File::from);
        let terminal = terminal.map_err(|e| refuse("keep", Path::new("standard error"), &e))?;
        let foreground =
            daemonize().map_err(|e| Failure::Refused(format!("cannot go into the background: {e}")))?;
        writeln!(pid, "{}", std::process::id()).map_err(|e| refuse("write `pid`", &config.pid, &e))?;
        let background = Self { starter: Some((foreground, terminal)), log: config.stderr.clone() };
        for (number, file) in [(0, &nothing), (1, &output), (2, &errors)] {
            replace_stdio(file.as_fd(), number)
                .map_err(|e| Failure::Refused(format!("cannot leave the terminal: {e}")))?;
        }
        Ok(background)
    }

    /// Everything stands: the command that started us may end.
    pub fn started(&mut self) {
        if let Some(Err(e)) = self.starter.take().map(|(f, _)| f.release(0)) {
            tracing::debug!("nobody waits for this daemon to start: {e}");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some((_, terminal)) = &mut self.starter {
            let log = self.log.display();
            // Whoever started us may be gone, and that is no reason to end otherwise.
            let _ = writeln!(terminal, "tap-rs: it did not start; the last line of {log} says why");
        }
    }
}

/// A pid file of a program that runs is neither overwritten nor removed.
fn refuse_a_second(file: &Path) -> Result<(), Failure> {
    let pid = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    match pid.filter(|pid| is_like_us(*pid)) {
        Some(pid) => Err(Failure::Refused(format!(
            "it runs already, as process {pid} of {}; stop that with `kill {pid}`, or give this one a `pid` of its own",
            file.display()
        ))),
        None => Ok(()),
    }
}

fn append(path: &Path, key: &str) -> Result<File, Failure> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| refuse(&format!("write `{key}`"), path, &e))
}

fn refuse(what: &str, path: &Path, e: &std::io::Error) -> Failure {
    let hint = match e.kind() {
        ErrorKind::PermissionDenied => "; run as root, or name another file in the config",
        ErrorKind::NotFound => "; make its folder first, or name another file in the config",
        _ => "",
    };
    Failure::Refused(format!("cannot {what} {}: {e}{hint}", path.display()))
}
