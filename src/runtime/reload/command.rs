//! `tap-rs reload`.

use std::path::Path;

use super::Reloaded;
use crate::cli::ReloadArgs;
use crate::commands::{Failure, print_line};
use crate::runtime::control_socket::{AskError, Request, ask, ask_all, names};
use crate::runtime::status::Snapshot;

/// Prints what differs, then has it done.
///
/// # Errors
/// The config's mistakes, a line each; or why nobody could be asked.
pub fn command(args: &ReloadArgs) -> Result<(), Failure> {
    let file = args.name.as_deref().map(Path::new).filter(|path| path.is_file());
    let name = match file {
        None => args.name.clone(),
        Some(file) => Some(running(file).map_err(|e| Failure::Refused(e.to_string()))?.ok_or_else(|| {
            Failure::Refused(format!(
                "no tap-rs runs with {}; start it with `tap-rs -c FILE`",
                file.display()
            ))
        })?),
    };
    let name = name.as_deref();
    let would = reload(name, true)?;
    print(&would)?;
    if args.dry_run {
        return Ok(());
    }
    let done = reload(name, false)?;
    if done.changes != would.changes {
        print_line("the file has changed meanwhile; this was done:")?;
        print(&done)?;
    }
    print_line("reloaded")
}

/// Prints what a reload does.
pub fn print(told: &Reloaded) -> Result<(), Failure> {
    for warning in &told.warnings {
        print_line(&format!("warning: {warning}"))?;
    }
    if told.changes.is_empty() && told.restart.is_empty() {
        return print_line("nothing has changed");
    }
    told.changes.iter().try_for_each(|change| print_line(change))?;
    told.restart.iter().try_for_each(|key| print_line(&format!("! {key}: counts from the next start on")))
}

/// What became of the wish that whoever runs with a config read it again.
pub enum Told {
    /// It has.
    Done(Reloaded),
    /// It will not.
    Refused(String),
    /// Nobody runs with it.
    Nobody,
    /// Nobody knows: it does not answer, or one may not ask.
    Unknown(String),
}

/// Has the one reload that runs with this config file, if there is one.
pub fn reload_named(config: &Path) -> Told {
    let name = match running(config) {
        Ok(Some(name)) => name,
        Ok(None) => return Told::Nobody,
        Err(e) => return Told::Unknown(e.to_string()),
    };
    match ask(Some(&name), &Request::Reload { dry_run: false }) {
        Ok(document) => {
            serde_json::from_slice(&document).map_or_else(|e| Told::Unknown(e.to_string()), Told::Done)
        }
        Err(AskError::Refused(_, why)) => Told::Refused(why),
        Err(e) => Told::Unknown(e.to_string()),
    }
}

/// The socket's name of whoever runs with this file: the file's own, or one with a number behind.
fn running(config: &Path) -> Result<Option<String>, AskError> {
    let (Ok(wanted), Some(stem)) =
        (std::fs::canonicalize(config), config.file_stem().and_then(|s| s.to_str()))
    else {
        return Ok(None);
    };
    let may_be =
        |name: &String| name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    Ok(names()?.into_iter().filter(may_be).find(|name| {
        let answer = ask_all(Some(name), &Request::Status {}).ok().and_then(|mut all| all.pop());
        let snapshot = answer.and_then(|(_, document)| serde_json::from_slice::<Snapshot>(&document).ok());
        snapshot.is_some_and(|s| std::fs::canonicalize(s.config).is_ok_and(|path| path == wanted))
    }))
}

fn reload(name: Option<&str>, dry_run: bool) -> Result<Reloaded, Failure> {
    let document = ask(name, &Request::Reload { dry_run }).map_err(|e| {
        Failure::Refused(match e {
            // A line for each mistake, each with the file's name in front.
            AskError::Refused(_, why) => why,
            other => other.to_string(),
        })
    })?;
    serde_json::from_slice(&document).map_err(|e| {
        Failure::Refused(format!("another version of tap-rs runs, whose answer is not understood: {e}"))
    })
}
