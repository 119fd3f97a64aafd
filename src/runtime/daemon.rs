//! Life in the background: `is_daemon`, `pid`, `stdout` and `stderr` of the config.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::commands::Failure;
use crate::config::Daemon;
use crate::sys::process::{Foreground, daemonize, replace_stdio};

/// A process in the background whose starter still waits. Removes its pid file when dropped.
pub struct Background {
    foreground: Option<Foreground>,
    pid: PathBuf,
}

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
        let background = Self { foreground: Some(foreground), pid: config.pid.clone() };
        for (number, file) in [(0, &nothing), (1, &output), (2, &errors)] {
            replace_stdio(file.as_fd(), number)
                .map_err(|e| Failure::Refused(format!("cannot leave the terminal: {e}")))?;
        }
        Ok(background)
    }

    /// Everything stands: the command that started us may end.
    pub fn started(&mut self) {
        if let Some(Err(e)) = self.foreground.take().map(|f| f.release(0)) {
            tracing::debug!("nobody waits for this daemon to start: {e}");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.pid) {
            tracing::debug!(pid = %self.pid.display(), "the pid file could not be removed: {e}");
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
