//! `[hooks]`: programs of the user's that are run when something happens.

use std::fmt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::keys::shell_word;

use super::Role;
use super::check::Check;
use super::common::seconds;
use super::raw::{self, Text};

/// When a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// The NICs are set up.
    Up,
    /// They are put back, however it ended.
    Down,
    /// A session has begun.
    PeerUp,
    /// It has ended.
    PeerDown,
    /// A listed client wants a session (server): it gets one if the program ends with 0.
    Verify,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Up, Self::Down, Self::PeerUp, Self::PeerDown, Self::Verify];

    /// Its key under `[hooks]`, and `TAP_RS_EVENT`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::PeerUp => "peer_up",
            Self::PeerDown => "peer_down",
            Self::Verify => "verify",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// The programs, and how long each may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    programs: Vec<(Hook, PathBuf)>,
    /// 1 s to 1 min.
    pub timeout: Duration,
}

impl Hooks {
    /// The program that is run then.
    pub fn program(&self, hook: Hook) -> Option<&Path> {
        self.programs.iter().find(|(known, _)| *known == hook).map(|(_, path)| path.as_path())
    }
}

/// The checked table.
pub(super) fn hooks(check: &mut Check<'_>, table: Option<&raw::Hooks>, role: Role) -> Hooks {
    let empty = raw::Hooks::default();
    let table = table.unwrap_or(&empty);
    if role == Role::Client {
        let message = "`verify` is asked on a server; a client chooses its server by its key";
        check.misplaced(&table.verify, message);
    }
    let timeout = seconds(check, "timeout", &table.timeout, 60, 10);
    let written: [(Hook, &Text); 5] = [
        (Hook::Up, &table.up),
        (Hook::Down, &table.down),
        (Hook::PeerUp, &table.peer_up),
        (Hook::PeerDown, &table.peer_down),
        (Hook::Verify, &table.verify),
    ];
    let mut programs = Vec::new();
    for (hook, text) in written {
        let Some(path) = check.path(hook.key(), text) else { continue };
        if let (Err(why), Some(text)) = (may_run(&path), text) {
            check.notes.error(text.span(), format!("`{hook}`: {why}"));
        }
        programs.push((hook, path));
    }
    Hooks { programs, timeout }
}

/// Whether a file is one that root may run on somebody's word: nobody but root, or whoever runs this, can have written it.
///
/// # Errors
/// One sentence, with the command that mends it.
pub fn may_run(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|e| format!("cannot run {shown}: {e}"))?;
    let file = shell_word(path);
    if !meta.is_file() {
        return Err(format!("{shown} is no file"));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(format!("{shown} is not executable; run `chmod +x {file}`"));
    }
    // This process's own files have its own user.
    let own = std::fs::metadata("/proc/self").map_or(0, |own| own.uid());
    if meta.uid() != 0 && meta.uid() != own {
        return Err(format!(
            "{shown} belongs to another user, who could change what root runs; run `chown root {file}`"
        ));
    }
    if meta.permissions().mode() & 0o022 != 0 {
        return Err(format!("others may change {shown}; run `chmod go-w {file}`"));
    }
    Ok(())
}
