//! `tap-rs clients` and `tap-rs invite`: the list of a server's clients, edited in its config and taken over at once.
//!
//! ```text
//!   config ──edit──▶ checked as a whole ──▶ in the file's place, in one step ──▶ the server that runs with it reloads
//!                                                     ▲── taken back ── it refuses ──┘
//! ```
//!
//! This runs as whoever called it, beside the server: the file stays the truth, and its comments stay where they are.

use std::fs;
use std::path::{Path, PathBuf};

use rand::RngExt;
use zeroize::Zeroizing;

use super::control::wall_clock;
use super::reload::{Reloaded, Told, print, reload_named};
use crate::cli::{ClientsArgs, ClientsCommand, InviteArgs};
use crate::commands::init::nics;
use crate::commands::{Failure, config_path, eprintln_quietly, print_line};
use crate::config::edit::{EditError, NewClient, add_client, quoted, remove_client, replace, set};
use crate::config::{
    ClientEntry, Config, Host, InviteString, Moment, NicArg, Overrides, ServerAddr, ServerConfig, check_text,
};
use crate::keys::{PrivateKey, PublicKey, shell_word};
use crate::proto::invite;

impl From<EditError> for Failure {
    fn from(e: EditError) -> Self {
        Self::Refused(e.0)
    }
}

/// Adds, removes, changes or lists clients.
///
/// # Errors
/// One sentence; the file is then as it was.
pub fn command(args: &ClientsArgs) -> Result<(), Failure> {
    let book = Book::open(args.config.as_deref())?;
    match &args.command {
        ClientsCommand::Add { name, key, nic } => book.add(name, public_key(key)?, nic),
        ClientsCommand::Remove { name } => {
            book.client(name)?;
            let text = remove_client(&book.text, name)?;
            book.commit(&text, |after| after.clients.iter().all(|c| c.name != *name))
        }
        ClientsCommand::Rotate { name, key: Some(key), .. } => book.rotate(name, public_key(key)?),
        ClientsCommand::Rotate { name, .. } => book.finish(name),
        ClientsCommand::List => book.list(),
    }
}

/// Writes an invite into the config, and prints the string for the client.
///
/// # Errors
/// One sentence; the file is then as it was.
pub fn invite(args: &InviteArgs) -> Result<(), Failure> {
    let book = Book::open(args.config.as_deref())?;
    let server = book.address(args.server.as_ref())?;
    let server_key = PrivateKey::read(&book.config.common.private_key)?.public();
    let secret: Zeroizing<[u8; 16]> = Zeroizing::new(rand::rng().random());
    let key = invite::key_pair(&secret, &server_key).public();
    let until = Moment(wall_clock().0.saturating_add(args.valid.0.as_secs()));
    let keys = [("invite", quoted(&key.to_string())), ("invite_until", quoted(&until.to_string()))];
    let text = match book.client(&args.name) {
        Ok(_) if !args.nic.is_empty() => {
            return Err(Failure::Usage(format!(
                "client {} is there already, and its NICs are in {}; leave --nic out to give it another key",
                args.name,
                book.path.display()
            )));
        }
        Ok(_) => {
            keys.iter().try_fold(book.text.clone(), |text, (k, v)| set(&text, &args.name, k, Some(v)))?
        }
        Err(_) => {
            let keys = [("name", quoted(&args.name))].into_iter().chain(keys).collect();
            add_client(&book.text, &NewClient { keys, nics: nics(&args.nic, book.nic_names()) })
        }
    };
    let suites = book.config.suites.clone();
    let text_of = InviteString {
        server,
        server_key,
        secret,
        until,
        aes: suites.iter().any(|s| s.is_aes()),
        chacha: suites.iter().any(|s| !s.is_aes()),
    };
    let invited = |c: &ClientEntry| c.name == args.name && c.invite.is_some_and(|i| i.key == key);
    let running = book.store(&text, |after| after.clients.iter().any(invited))?;
    if running.is_none() {
        eprintln_quietly("no server runs with this config yet: start it before the invite is used");
    }
    eprintln_quietly(&format!(
        "valid until {until}, for one box; on it, run `tap-rs join` with this string:"
    ));
    print_line(&text_of.text())
}

fn public_key(text: &str) -> Result<PublicKey, Failure> {
    Ok(PublicKey::from_text_or_file(text, Path::new(""))?)
}

/// A server's config, opened to be edited.
struct Book {
    path: PathBuf,
    text: String,
    config: ServerConfig,
}

impl Book {
    fn open(named: Option<&Path>) -> Result<Self, Failure> {
        let path = config_path(named)?;
        let text = fs::read_to_string(&path)
            .map_err(|e| Failure::Refused(format!("cannot read {}: {e}", path.display())))?;
        let config = server(&path, &text)?;
        Ok(Self { path, text, config })
    }

    fn client(&self, name: &str) -> Result<&ClientEntry, Failure> {
        self.config.clients.iter().find(|c| c.name == name).ok_or_else(|| {
            let names: Vec<_> = self.config.clients.iter().map(|c| c.name.as_str()).collect();
            let known = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
            Failure::Refused(format!("{} has no client {name}; there are: {known}", self.path.display()))
        })
    }

    fn nic_names(&self) -> Vec<crate::types::NicName> {
        self.config.clients.iter().flat_map(|c| c.nics.iter().map(|n| n.spec.name.clone())).collect()
    }

    /// Where clients reach the server.
    fn address(&self, given: Option<&ServerAddr>) -> Result<ServerAddr, Failure> {
        let bound = Some(self.config.bind).filter(|bind| !bind.ip().is_unspecified());
        let bound = || bound.map(|bind| ServerAddr { host: Host::Ip(bind.ip()), port: bind.port() });
        given.cloned().or_else(|| self.config.public_addr.clone()).or_else(bound).ok_or_else(|| {
            Failure::Usage(format!(
                "where do clients reach this server? Give --server HOST:PORT, or write public_addr = \"HOST:PORT\" \
                 under [server] in {}",
                self.path.display()
            ))
        })
    }

    fn add(self, name: &str, key: PublicKey, args: &[NicArg]) -> Result<(), Failure> {
        let keys = vec![("name", quoted(name)), ("public_key", quoted(&key.to_string()))];
        let text = add_client(&self.text, &NewClient { keys, nics: nics(args, self.nic_names()) });
        self.commit(&text, |after| after.clients.iter().any(|c| c.name == name && c.keys == [key]))
    }

    /// From now on both keys are this client's.
    fn rotate(self, name: &str, key: PublicKey) -> Result<(), Failure> {
        let now = match self.client(name)?.keys.as_slice() {
            [] => return Err(Failure::Refused(format!("client {name} has no key yet: its invite waits"))),
            [only] => *only,
            _ => {
                return Err(Failure::Refused(format!(
                    "client {name} has two keys already; drop the old one first: `tap-rs clients rotate {name} --finish -c {}`",
                    shell_word(&self.path)
                )));
            }
        };
        let text = set(&self.text, name, "next_public_key", Some(&quoted(&key.to_string())))?;
        self.commit(&text, |after| after.clients.iter().any(|c| c.name == name && c.keys == [now, key]))
    }

    /// The new key alone is this client's.
    fn finish(self, name: &str) -> Result<(), Failure> {
        let [_, next] = self.client(name)?.keys.as_slice() else {
            return Err(Failure::Refused(format!(
                "client {name} has no second key; give it one first: `tap-rs clients rotate {name} KEY -c {}`",
                shell_word(&self.path)
            )));
        };
        let key = *next;
        let text = set(&self.text, name, "public_key", Some(&quoted(&key.to_string())))?;
        let text = set(&text, name, "next_public_key", None)?;
        self.commit(&text, |after| after.clients.iter().any(|c| c.name == name && c.keys == [key]))
    }

    fn list(&self) -> Result<(), Failure> {
        for client in &self.config.clients {
            let nics = client.nics.len();
            let plural = if nics == 1 { "" } else { "s" };
            print_line(&format!("{}: {}; {nics} NIC{plural}", client.name, client.says_who()))?;
        }
        Ok(())
    }

    /// Stores the new text and says what came of it.
    fn commit(self, text: &str, right: impl FnOnce(&ServerConfig) -> bool) -> Result<(), Failure> {
        match self.store(text, right)? {
            Some(told) => print(&told),
            None => print_line(&format!("written; no server runs with {} now", self.path.display())),
        }
    }

    /// Puts the new text in the file's place, and has the server that runs with it take it over; `None` where none does.
    /// `right`: whether the text says what it is to say.
    fn store(
        &self,
        text: &str,
        right: impl FnOnce(&ServerConfig) -> bool,
    ) -> Result<Option<Reloaded>, Failure> {
        let (path, shown) = (&self.path, self.path.display());
        if !right(&server(path, text)?) {
            return Err(Failure::Refused(format!(
                "{shown} is laid out in a way that this command cannot edit; write [[clients]] sections, or edit it by hand"
            )));
        }
        let write = |old: &str, new: &str| {
            replace(path, old, new).map_err(|e| Failure::Refused(format!("cannot write {shown}: {e}")))
        };
        write(&self.text, text)?;
        match reload_named(path) {
            Told::Done(told) => Ok(Some(told)),
            Told::Nobody => Ok(None),
            Told::Refused(why) => {
                write(text, &self.text)?;
                Err(Failure::Refused(format!(
                    "the running server refuses this, and {shown} is as it was: {why}"
                )))
            }
            Told::Unknown(why) => Err(Failure::Refused(format!(
                "{shown} is written, and whether the running server has taken it over is not known: {why}; \
                 `tap-rs reload` tries again"
            ))),
        }
    }
}

fn server(path: &Path, text: &str) -> Result<ServerConfig, Failure> {
    match check_text(path, text, &Overrides::default())? {
        (Config::Server(config), _) => Ok(config),
        (Config::Client(_), _) => Err(Failure::Refused(format!(
            "{} is a client's config, and clients are listed on the server; name the server's with `-c FILE`",
            path.display()
        ))),
    }
}
