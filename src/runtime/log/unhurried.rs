//! A writer that waits for nobody: lines that do not fit into a pipe that nobody empties, or on a full disk, are left out, and
//! the next that fits says how many they were.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::sys::poll::has_room;

/// Lines that were left out since the last one that was not.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// What a pipe takes without waiting once it has room at all (pipe(7), `PIPE_BUF`).
const AT_ONCE: usize = 4096;

/// A writer of whole lines that never waits for its reader.
pub(super) struct Unhurried<W>(pub(super) W);

impl<W: Write + AsFd> Unhurried<W> {
    /// All of the line, or what fits.
    fn put(&mut self, mut line: &[u8]) -> io::Result<()> {
        while !line.is_empty() {
            if !has_room(&self.0) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let (part, rest) = line.split_at(line.len().min(AT_ONCE));
            self.0.write_all(part)?;
            line = rest;
        }
        Ok(())
    }
}

impl<W: Write + AsFd> Write for Unhurried<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let left_out = LEFT_OUT.swap(0, Relaxed);
        let note = match left_out {
            0 => Ok(()),
            n => {
                self.put(format!("tap-rs: {n} lines of the log were left out: nobody took them\n").as_bytes())
            }
        };
        if note.is_err() {
            LEFT_OUT.fetch_add(left_out.saturating_add(1), Relaxed);
        } else if self.put(line).is_err() {
            LEFT_OUT.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for_and_hears_how_much_it_has_missed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = Unhurried(writer);
        let line = format!("{}\n", "x".repeat(999));
        // More than any pipe holds.
        for _ in 0..5000 {
            assert_eq!(log.write(line.as_bytes()).unwrap(), line.len());
        }
        let mut buffer = vec![0; 4 << 20];
        let held = reader.read(&mut buffer).unwrap();
        assert!(held < 4_000_000, "{held}");
        log.write_all(b"again\n").unwrap();
        let len = reader.read(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(text.ends_with("again\n") && text.contains("lines of the log were left out"), "{text}");
        drop(reader);
        assert_eq!(log.write(b"to nobody\n").unwrap(), 10);
    }
}
