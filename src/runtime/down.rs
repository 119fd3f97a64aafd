//! `tap-rs down`: what must not stay up when nobody runs any more, not even the keeper.
//!
//! A supervisor that kills the whole group leaves nobody to clean up. Its stop action runs this: macvtaps that a process
//! which is gone has made are removed, and what it held that was there before is set down. Both say so themselves, so
//! that it takes neither keys, which the supervisor may have taken back, nor a config that is right; what the config
//! of a client names goes down in any case.

use std::path::Path;

use crate::commands::Failure;
use crate::config;
use crate::nic;

/// Takes down what is left, and says on standard output what that was.
///
/// # Errors
/// An interface could not be taken down, or the config cannot be read; everything else has been done then.
pub fn command(path: &Path) -> Result<(), Failure> {
    let swept = nic::sweep();
    let set_down = named(path);
    let mut failed = None;
    for done in [swept.map_err(|e| Failure::Refused(e.to_string())), set_down] {
        match done {
            Ok(lines) => lines.iter().for_each(|line| println_quietly(line)),
            Err(e) => failed = Some(e),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The interfaces of a client's own file.
fn named(path: &Path) -> Result<Vec<String>, Failure> {
    let mut done = Vec::new();
    for name in config::client_interfaces(path)? {
        done.extend(nic::set_down(&name).map_err(|e| Failure::Refused(e.to_string()))?);
    }
    Ok(done)
}

fn println_quietly(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}
