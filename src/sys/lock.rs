//! Taking turns with other processes (flock(2)).

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use super::check;

/// How often, so long apart, it is tried to get a turn: 2 s in all.
const TRIES: u32 = 400;
const PAUSE: Duration = Duration::from_millis(5);

/// The calling process's turn with a folder, for as long as what is given is kept; it ends with the process, too. None
/// where there is no such folder, or somebody has had the turn for all of 2 s.
pub fn turn(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    for _ in 0..TRIES {
        if lock_now(&folder).ok()? {
            return Some(folder);
        }
        std::thread::sleep(PAUSE);
    }
    None
}

/// Takes the lock of what `file` is open on, for as long as `file` is; false where somebody else has it.
fn lock_now(file: &File) -> io::Result<bool> {
    // SAFETY: no pointers; the descriptor is borrowed.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_its_turn_and_the_next_waits_for_it_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let one = turn(folder.path()).unwrap();
        assert!(!lock_now(&File::open(folder.path()).unwrap()).unwrap());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| turn(folder.path()).is_some());
            drop(one);
            assert!(other.join().unwrap());
        });
        assert!(turn(&folder.path().join("nothing")).is_none());
    }
}
