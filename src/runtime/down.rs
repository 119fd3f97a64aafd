//! `tap-rs down`: what must not stay up when nobody runs any more, not even the keeper.
//!
//! A supervisor that kills the whole group leaves nobody to clean up. Its stop action runs this: macvtaps that a process
//! which is gone has made are removed, and those of a client's config that were there before are set down.

use std::path::Path;

use crate::commands::Failure;
use crate::config::{self, Config, NicSource, Overrides};
use crate::nic;

/// Takes down what is left, and says on standard output what that was.
///
/// # Errors
/// An interface could not be taken down, or the config cannot be read; everything else has been done then.
pub fn command(path: &Path, overrides: &Overrides) -> Result<(), Failure> {
    let swept = nic::sweep();
    let set_down = named(path, overrides);
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
fn named(path: &Path, overrides: &Overrides) -> Result<Vec<String>, Failure> {
    let (config, _) = config::load(path, overrides)?;
    let Config::Client(client) = config else { return Ok(Vec::new()) };
    let NicSource::Local(nics) = &client.nics else { return Ok(Vec::new()) };
    let mut done = Vec::new();
    for nic in nics {
        done.extend(nic::set_down(&nic.spec.name).map_err(|e| Failure::Refused(e.to_string()))?);
    }
    Ok(done)
}

fn println_quietly(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}
