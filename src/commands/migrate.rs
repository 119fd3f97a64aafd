//! `tap-rs migrate`: a config of the original tap-rs, turned into one of this, with its key where that is asked for.
//!
//! The new config goes to standard output or into a file, what was done to standard error: a line for each change, with its
//! number in the old file (in the new one for what was added), and a line for everything that is left to do.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::{Failure, WIDTH, eprintln_quietly, print_line, wrapped};
use crate::cli::MigrateArgs;
use crate::config::edit::{replace, write_new};
use crate::config::migrate::{Change, Deed, Old, Wish};
use crate::config::{self, Overrides, Report, Role};
use crate::keys::{PrivateKey, PublicKey, shell_word};

/// Writes the new config and says what is other than it was.
///
/// # Errors
/// The old file cannot be read or is no config; the new one is there already, or cannot be written.
pub fn migrate(args: &MigrateArgs) -> Result<(), Failure> {
    let shown = args.old.display();
    let text = read(&args.old)?;
    let Some(old) = Old::read(&text).map_err(|e| Failure::Refused(format!("{shown}: {e}")))? else {
        eprintln_quietly(&format!(
            "{shown} is a config of this tap-rs already; `tap-rs check -c {}` says whether it is right",
            shell_word(&args.old)
        ));
        return Ok(());
    };
    refuse_to_overwrite(args)?;
    let peer_key = match &args.peer_key {
        Some(text) => Some(PublicKey::from_text_or_file(text, Path::new(""))?.to_string()),
        None => None,
    };
    let folder = folder_of(args.out.as_ref().unwrap_or(&args.old));
    let keys = args.keys.as_deref().filter(|_| !old.names_its_key());
    let key = keys.map(|keys| own_key(keys, old.role)).transpose()?;
    let private_key = match &key {
        Some((path, _)) => as_written(path, &folder, args.out.is_some()),
        None => file_name(old.role).to_owned(),
    };
    let from = folder_of(&args.old);
    let (new, changes) = old.migrate(&Wish {
        private_key: &private_key,
        peer_key: peer_key.as_deref(),
        name: &args.name,
        parent: args.parent.as_ref(),
        prefix: args.prefix,
        prefix6: args.prefix6,
        from: Some(from.as_path()).filter(|from| *from != folder),
    });
    write(args, &new)?;
    say(args, &new, &changes);
    if let Some((path, public)) = key {
        let side =
            if old.role == Role::Client { "[[clients]] of the server" } else { "[server] of each client" };
        tell('!', &format!("this side's key is in {}; its public key, for {side}: {public}", path.display()));
    }
    Ok(())
}

/// A text that is TOML, at least.
fn read(path: &Path) -> Result<String, Failure> {
    let refused = |e: std::io::Error| Failure::Refused(format!("cannot read {}: {e}", path.display()));
    let bytes = fs::read(path).map_err(refused)?;
    let is_toml = |text: &str| toml::de::DeTable::parse(text).is_ok();
    match String::from_utf8(bytes) {
        Ok(text) if is_toml(&text) => Ok(text),
        // What is wrong with it, and where, as `check` says it.
        Ok(text) => Err(config::check_text(path, &text, &Overrides::default()).err().map_or_else(
            || Failure::Refused(format!("{} is not valid TOML", path.display())),
            Failure::from,
        )),
        Err(e) => {
            let report = config::check_bytes(path, Path::new(""), e.as_bytes(), &Overrides::default());
            Err(report.err().map_or_else(|| Failure::Refused("it is not UTF-8".to_owned()), Failure::from))
        }
    }
}

fn refuse_to_overwrite(args: &MigrateArgs) -> Result<(), Failure> {
    match &args.out {
        Some(out) if !args.force && out.symlink_metadata().is_ok() => Err(Failure::Refused(format!(
            "{} exists, and nothing is overwritten; choose another name, or say `--force`",
            out.display()
        ))),
        _ => Ok(()),
    }
}

/// The key in this folder, made where there is none.
fn own_key(folder: &Path, role: Role) -> Result<(PathBuf, PublicKey), Failure> {
    fs::create_dir_all(folder)
        .map_err(|e| Failure::Refused(format!("cannot make the folder {}: {e}", folder.display())))?;
    let path = super::init::beside(folder, file_name(role));
    let key = match path.symlink_metadata() {
        Ok(_) => PrivateKey::read(&path)?,
        Err(_) => {
            let key = PrivateKey::generate(&mut rand::rng());
            key.write_new(&path)?;
            key
        }
    };
    Ok((path, key.public()))
}

const fn file_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client.key",
        Role::Server => "server.key",
    }
}

/// A path as a config in `folder` names it: without the folder where it is below, if it is known that the config is there.
fn as_written(path: &Path, folder: &Path, known: bool) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // `.` and `..` of the command line.
    let absolute = absolute.canonicalize().unwrap_or(absolute);
    let below = folder.canonicalize().ok().and_then(|f| absolute.strip_prefix(f).ok().map(Path::to_owned));
    below.filter(|_| known).unwrap_or(absolute).to_string_lossy().into_owned()
}

/// The absolute folder of a file.
fn folder_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}

fn write(args: &MigrateArgs, new: &str) -> Result<(), Failure> {
    let Some(out) = &args.out else {
        return print_line(new.strip_suffix('\n').unwrap_or(new));
    };
    let written = match fs::read_to_string(out) {
        Ok(there) if args.force => replace(out, &there, new),
        _ => write_new(out, new),
    };
    written.map_err(|e| Failure::Refused(format!("cannot write {}: {e}", out.display())))
}

/// What was done, and what is left to do.
fn say(args: &MigrateArgs, new: &str, changes: &[Change]) {
    let old = args.old.display();
    let shown = args.out.as_deref().unwrap_or(Path::new("new"));
    for Change { deed, line, what } in changes {
        match deed {
            Deed::Gone => tell('-', &format!("{old}:{line}: {what}")),
            Deed::Changed => tell('~', &format!("{old}:{line}: {what}")),
            Deed::Added => tell('+', &format!("{}:{line}: {what}", shown.display())),
            Deed::Noted => tell('!', &format!("{old}:{line}: {what}")),
        }
    }
    let folder = folder_of(args.out.as_ref().unwrap_or(&args.old));
    let checked = config::check_bytes(shown, &folder, new.as_bytes(), &Overrides::default());
    let (errors, warnings) = match checked {
        Ok((_, warnings)) => (Vec::new(), warnings),
        Err(Report { errors, warnings }) => (errors, warnings),
    };
    for left in errors.iter().chain(warnings.iter().map(|w| &w.0)) {
        tell('!', &left.to_string());
    }
}

/// One line; on a terminal as many as it takes.
fn tell(mark: char, sentence: &str) {
    let width = if std::io::stderr().is_terminal() { WIDTH } else { usize::MAX };
    eprintln_quietly(&wrapped(&mark.to_string(), sentence, width));
}
