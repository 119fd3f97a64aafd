//! How this box is doing: the client's report.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::wire::control::{NicReport, Report};

/// Load, memory and the NICs' counters, as /proc says (proc(5)). What cannot be read is 0.
pub fn report(uptime: Duration, nics: Vec<NicReport>) -> Report {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Report {
        load: hundredths(load.split_whitespace().next().unwrap_or_default()),
        uptime: u32::try_from(uptime.as_secs()).unwrap_or(u32::MAX),
        memory: (kilobytes(&memory, "MemTotal:"), kilobytes(&memory, "MemAvailable:")),
        nics,
    }
}

/// This process's own memory. Opened before the sandbox closes /proc, and then read through what is open.
pub struct Memory(Option<File>);

impl Memory {
    /// Of the process that calls this.
    pub fn open() -> Self {
        Self(File::open("/proc/self/status").ok())
    }

    /// What of it is resident, in kilobytes; 0 where /proc does not say.
    pub fn resident_kb(&self) -> u64 {
        let mut status = [0; 4096];
        let read = self.0.as_ref().and_then(|file| file.read_at(&mut status, 0).ok()).unwrap_or(0);
        kilobytes(&String::from_utf8_lossy(status.get(..read).unwrap_or_default()), "VmRSS:")
    }
}

/// A number with two places behind its point, which is how proc_loadavg(5) has it.
fn hundredths(text: &str) -> u32 {
    text.replace('.', "").parse().unwrap_or(0)
}

fn kilobytes(meminfo: &str, key: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(key));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        assert_eq!(hundredths("1.25"), 125);
        assert_eq!(hundredths(""), 0);
        assert_eq!(kilobytes("MemTotal:       100 kB\nMemAvailable:   50 kB\n", "MemAvailable:"), 50);
        assert!(Memory::open().resident_kb() > 0);
        assert!(report(Duration::ZERO, Vec::new()).memory.0 > 0);
    }
}
