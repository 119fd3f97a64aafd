//! What becomes of each key of the original.

use std::path::Path;

use super::super::common::Level;
use super::super::edit::layout::unquoted;
use super::super::edit::quoted;
use super::super::raw::{File, Nic, Server};
use super::{Old, Role, Table, Wish};
use crate::types::{Mtu, NicAddr};

/// What becomes of a line.
pub(super) enum Fate {
    /// It means what it meant.
    Keep,
    /// It goes; why.
    Gone(String),
    /// It gets this value; why.
    Value(String, String),
    /// It stays, and has another effect, or wants something done elsewhere.
    Means(String),
}

use Fate::{Gone, Keep, Means, Value};

/// What becomes of a key with this value, as it is written.
pub(super) fn fate(old: &Old<'_>, table: Table, name: &str, written: &str, wish: &Wish<'_>) -> Fate {
    let value = unquoted(written);
    let known = match table {
        Table::Top => File::KEYS,
        Table::Server => Server::KEYS,
        Table::Nics => Nic::KEYS,
        Table::New | Table::Other => return Keep,
    };
    // `limits.mtu` is a key of `limits`.
    if !name.split('.').next().is_some_and(|first| known.contains(&first)) {
        return unknown(table, name);
    }
    match table {
        Table::Top => top(old, name, value, wish),
        Table::Server => server(old, name, value, wish),
        _ => nic(old, name, value, wish),
    }
}

fn unknown(table: Table, name: &str) -> Fate {
    let misplaced = table != Table::Top && File::KEYS.contains(&name);
    Gone(match misplaced {
        true => {
            "the original passed over it here, below a [section]; write it above the first one if it is meant"
                .to_owned()
        }
        false => "the original passed over it, and here a key that is not known is an error".to_owned(),
    })
}

fn top(old: &Old<'_>, name: &str, value: &str, wish: &Wish<'_>) -> Fate {
    match name {
        "timeout" => Gone(
            "the original never used it; here it is how long a peer may be silent until it counts as dead, 3 s unless said"
                .to_owned(),
        ),
        "protocol" if !value.eq_ignore_ascii_case("udp") => {
            Gone("the original never used it, and here everything goes over UDP".to_owned())
        }
        "log" if value.parse::<Level>().is_err() => {
            Gone("the original never used it, and this is no log level; the log goes to standard error".to_owned())
        }
        "tap_mode" if value.eq_ignore_ascii_case("tun") => {
            let mode = if old.role == Role::Client { "macvtap" } else { "tap" };
            Value(quoted(mode), "tun carries no Ethernet frames, and the original could not run it either".to_owned())
        }
        "tap_mode" => tap_mode(old, value, wish),
        "client_tap_mode" if old.role == Role::Client => Gone("it is for the server's file".to_owned()),
        "client_tap_mode" if value.eq_ignore_ascii_case("tun") => {
            Gone("tun carries no Ethernet frames, and the original could not run it either".to_owned())
        }
        "use_remote_config" | "reply_arp" if old.role == Role::Server => {
            Gone("it is for the client's file".to_owned())
        }
        "mtu" => mtu(value),
        "pid" | "stdout" | "stderr" => file(name, value, wish),
        "is_daemon" if value == "true" && old.value("pid").is_none() => Means(
            "unless said otherwise, its files are /run/tap-rs.pid, /var/log/tap-rs.out and /var/log/tap-rs.err now, and no \
             longer in /tmp"
                .to_owned(),
        ),
        "nics" if old.is_remote() => {
            Gone("with use_remote_config the NICs come from the server, and this was a placeholder".to_owned())
        }
        _ => Keep,
    }
}

fn tap_mode(old: &Old<'_>, value: &str, wish: &Wish<'_>) -> Fate {
    let by_hand = old.role == Role::Client
        && value.eq_ignore_ascii_case("macvtap")
        && wish.parent.is_none()
        && old.value("parent").is_none();
    match by_hand {
        true => Means(
            "make the macvtaps by hand before the start, as before; or write parent = \"eth0\", the interface on the \
             LAN, and tap-rs makes them (here: `--parent eth0`)"
                .to_owned(),
        ),
        false => Keep,
    }
}

fn mtu(value: &str) -> Fate {
    let Ok(bytes) = value.replace('_', "").parse::<i64>() else { return Keep };
    let bounded = bytes.clamp(i64::from(Mtu::MIN), i64::from(Mtu::MAX));
    match bounded == bytes {
        true => Keep,
        false => Value(bounded.to_string(), format!("an MTU is {} to {}", Mtu::MIN, Mtu::MAX)),
    }
}

/// A file of the program's in the background.
fn file(name: &str, value: &str, wish: &Wish<'_>) -> Fate {
    let Some(rest) = value.strip_prefix("/tmp/") else { return path(value, wish) };
    let file = Path::new(rest).file_name().unwrap_or_default().to_string_lossy();
    let folder = if name == "pid" { "/run" } else { "/var/log" };
    Value(
        quoted(&format!("{folder}/{file}")),
        "in /tmp any user can plant a link in its place; change what looks for it there".to_owned(),
    )
}

/// A path that starts from the folder of the config file.
fn path(value: &str, wish: &Wish<'_>) -> Fate {
    match wish.from {
        Some(from) if !value.starts_with('/') => Value(
            quoted(&from.join(value).to_string_lossy()),
            "paths start from the folder of the config file, and the new one is in another".to_owned(),
        ),
        _ => Keep,
    }
}

fn server(old: &Old<'_>, name: &str, value: &str, wish: &Wish<'_>) -> Fate {
    match name {
        "bind_addr" if old.role == Role::Server => Means(format!(
            "only UDP is used now; close TCP port {} in the firewall",
            value.rsplit(':').next().unwrap_or_default()
        )),
        "script_path" | "script_content" if old.role == Role::Client => {
            Gone("it is for the server's file".to_owned())
        }
        "script_content" if old.has(Table::Server, "script_path") => {
            Gone("`script_path` goes before it".to_owned())
        }
        "script_path" => match path(value, wish) {
            Keep => script(),
            other => other,
        },
        "script_content" => script(),
        _ => Keep,
    }
}

fn script() -> Fate {
    Means(
        "bash ran it on every client; now its #! line says what runs it (sh where it has none), and a client runs it only \
         where its file says script = \"pinned\" with the script_sha256 that `tap-rs check` prints for this file"
            .to_owned(),
    )
}

fn nic(old: &Old<'_>, name: &str, value: &str, wish: &Wish<'_>) -> Fate {
    let bare = || value.parse::<NicAddr>().is_ok_and(|addr| addr.prefix.is_none());
    if name != "ip" || !bare() {
        return Keep;
    }
    let (prefix, option, usual) = match value.contains(':') {
        true => (wish.prefix6, "--prefix6", 64),
        false => (wish.prefix, "--prefix", 24),
    };
    match (old.role, prefix) {
        (Role::Client, _) => Means(
            "the client's interface must not have this address any more: take `ip addr add`, and its routes and rules, out \
             of your scripts here"
                .to_owned(),
        ),
        (Role::Server, Some(prefix)) => Value(
            quoted(&format!("{value}/{prefix}")),
            "tap-rs sets it, with its routes and rules; take those out of your scripts".to_owned(),
        ),
        (Role::Server, None) => Means(format!(
            "without a prefix length the address, its routes and rules stay yours to set; with \"{value}/{usual}\" tap-rs sets \
             them (here: `{option} {usual}`)"
        )),
    }
}
