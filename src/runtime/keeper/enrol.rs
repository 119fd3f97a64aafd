//! The keeper writes a key into the config: the only file that it ever writes, and only where that file asks for it.

use std::fs;
use std::io;

use crate::config::edit::{quoted, replace, set};
use crate::config::{Config, ServerConfig, check_text};
use crate::keys::PublicKey;
use crate::runtime::control::wall_clock;
use crate::runtime::reload::Source;

/// Gives the client with this invite its key. The invite itself stays, as one that has been used.
pub(super) fn enrol(file: &Source, invite: PublicKey, key: PublicKey) -> io::Result<()> {
    let text = fs::read_to_string(&file.path)?;
    let config = server(file, &text)?;
    let valid = |c: &&crate::config::ClientEntry| {
        c.invite.is_some_and(|i| i.key == invite && i.until.is_some_and(|until| wall_clock() < until))
    };
    let client = config.clients.iter().find(valid).ok_or_else(|| {
        io::Error::other(format!(
            "{} has no such invite any more; make a new one with `tap-rs invite`",
            file.path.display()
        ))
    })?;
    let name = &client.name;
    let edited = set(&text, name, "public_key", Some(&quoted(&key.to_string())))
        .and_then(|text| set(&text, name, "next_public_key", None))
        .and_then(|text| set(&text, name, "invite_until", None))
        .map_err(io::Error::other)?;
    let after = server(file, &edited)?;
    let entry = after.clients.iter().find(|c| c.name == *name);
    if entry.is_none_or(|c| c.keys != [key]) {
        return Err(io::Error::other("the config is laid out in a way that cannot be edited"));
    }
    replace(&file.path, &text, &edited)
}

fn server(file: &Source, text: &str) -> io::Result<ServerConfig> {
    match check_text(&file.path, text, &file.overrides) {
        Ok((Config::Server(config), _)) => Ok(config),
        Ok((Config::Client(_), _)) => Err(io::Error::other("this is a client's config")),
        Err(report) => Err(io::Error::other(report)),
    }
}
