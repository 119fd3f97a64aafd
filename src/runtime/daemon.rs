//! Life in the background: `is_daemon`, `pid`, `stdout` and `stderr` of the config.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use crate::commands::Failure;
use crate::config::Daemon;
use crate::sys::process::{Foreground, daemonize, replace_stdio};

/// A process in the background whose starter still waits. Its pid file is removed by the keeper.
pub struct Background(Foreground);

impl Background {
    /// Goes into the background and takes the configured files. Only while there is one thread.
    pub fn enter(config: &Daemon) -> Result<Self, Failure> {
        // Opened in the foreground, where what is wrong can still be said.
        let output = append(&config.stdout, "stdout")?;
        let errors = append(&config.stderr, "stderr")?;
        let nothing = File::open("/dev/null").map_err(|e| refuse("open", Path::new("/dev/null"), &e))?;
        let mut pid = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&config.pid)
            .map_err(|e| refuse("write `pid`", &config.pid, &e))?;
        let foreground =
            daemonize().map_err(|e| Failure::Refused(format!("cannot go into the background: {e}")))?;
        writeln!(pid, "{}", std::process::id()).map_err(|e| refuse("write `pid`", &config.pid, &e))?;
        for (number, file) in [(0, &nothing), (1, &output), (2, &errors)] {
            replace_stdio(file.as_fd(), number)
                .map_err(|e| Failure::Refused(format!("cannot leave the terminal: {e}")))?;
        }
        Ok(Self(foreground))
    }

    /// Everything stands: the command that started us may end.
    pub fn started(self) {
        if let Err(e) = self.0.release(0) {
            tracing::debug!("nobody waits for this daemon to start: {e}");
        }
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
    Failure::Refused(format!("cannot {what} {}: {e}", path.display()))
}
