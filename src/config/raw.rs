//! The file as it is written: the original's names, every value with its place, nothing checked but its type.
//!
//! [`parse`] reports unknown keys and wrong types itself, takes them out of the document, and goes on, so
//! that one run shows everything that is wrong. What it returns holds only known keys of the right types.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::report::Notes;
use super::suggest;

/// A text in quotes, where given.
pub(super) type Text = Option<Spanned<String>>;
/// A whole number, where given.
pub(super) type Number = Option<Spanned<i64>>;
/// `true` or `false`, where given.
pub(super) type Switch = Option<Spanned<bool>>;
/// A list of texts, where given.
pub(super) type Texts = Option<Spanned<Vec<Spanned<String>>>>;
/// Tables written as `[[name]]`.
pub(super) type Tables<T> = Option<Spanned<Vec<Spanned<T>>>>;

/// Declares a table of the file: the struct, and the list of its keys for suggestions and documentation.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name { $(pub(super) $key: $kind,)* }

        impl $name {
            pub(super) const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];
        }
    };
}

table! {
    /// The top level.
    File {
        // the original's
        pid: Text,
        is_daemon: Switch,
        stdout: Text,
        stderr: Text,
        tap_mode: Text,
        mtu: Number,
        nics: Tables<Nic>,
        run_mode: Text,
        reply_arp: Switch,
        server: Option<Spanned<Server>>,
        protocol: Text,
        log: Text,
        timeout: Number,
        use_remote_config: Switch,
        client_tap_mode: Text,
        // new, both sides
        private_key: Text,
        parent: Text,
        offload: Text,
        metrics: Option<Spanned<TextOrNumber>>,
        workers: Number,
        keepalive: Number,
        // new, client
        psk: Text,
        suite: Text,
        script: Text,
        script_sha256: Texts,
        script_timeout: Number,
        probe: Switch,
        limits: Option<Spanned<Limits>>,
        // new, server
        suites: Texts,
        routing: Text,
        clients: Tables<Client>,
    }
}

table! {
    /// `[server]`.
    Server {
        bind_addr: Text,
        script_path: Text,
        script_content: Text,
        public_key: Text,
        public_addr: Text,
    }
}

table! {
    /// `[limits]`: what the client lets the server set.
    Limits {
        max_nics: Number,
        parents: Texts,
        min_mtu: Number,
        max_mtu: Number,
        bridge: Switch,
        vlan: Switch,
        strict: Switch,
        broadcast_pps: Number,
    }
}

table! {
    /// `[[clients]]`.
    Client {
        name: Text,
        public_key: Text,
        next_public_key: Text,
        invite: Text,
        invite_until: Text,
        psk: Text,
        script_path: Text,
        client_tap_mode: Text,
        mtu: Number,
        nics: Tables<Nic>,
    }
}

table! {
    /// `[[nics]]` and `[[clients.nics]]`.
    Nic {
        ifname: Text,
        ip: Option<Spanned<OneOrMany>>,
        mac: Text,
        mtu: Number,
        parent: Text,
        client_ifname: Text,
        client_parent: Text,
        configure: Switch,
        gateway: Option<Spanned<OneOrMany>>,
        netns: Text,
        probe: Switch,
        bridge: Switch,
        vlan: Switch,
        strict: Switch,
        broadcast_pps: Number,
    }
}

/// `"a"` or `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "text in quotes, or a list of them")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// `"a"` or `1`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "text in quotes, or a whole number")]
pub(super) enum TextOrNumber {
    Text(String),
    Number(i64),
}

/// Every table of the file and its keys, as documentation names them.
pub const KEYS: &[(&str, &[&str])] = &[
    ("top level", File::KEYS),
    ("[server]", Server::KEYS),
    ("[limits]", Limits::KEYS),
    ("[[clients]]", Client::KEYS),
    ("[[nics]]", Nic::KEYS),
];

/// Reads the document. `None`: its syntax is broken, and the errors are noted.
pub(super) fn parse(text: &str, notes: &mut Notes<'_>) -> Option<File> {
    let (mut document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        syntax_errors(&errors, notes);
        return None;
    }
    suggest::take_unknown_keys(document.get_mut(), notes);
    // Each round takes one value of the wrong type out of the document; nobody reads more errors than this.
    for _ in 0..50 {
        match File::deserialize(Deserializer::from(document.clone())) {
            Ok(file) => return Some(file),
            Err(e) => {
                let at = e.span().unwrap_or(0..0);
                let Some(taken) = take_value(document.get_mut(), at.start) else {
                    notes.error(at, e.message());
                    return None;
                };
                notes.error(at, wrong_type(e.message(), &taken));
                notes.spoil(&taken.key);
            }
        }
    }
    None
}

/// One error a line: what follows on the same line is mostly the same mistake seen again.
fn syntax_errors(errors: &[toml::de::Error], notes: &mut Notes<'_>) {
    let mut last_line = None;
    for e in errors {
        let at = e.span().unwrap_or(0..0);
        let line = notes.line(&at);
        if last_line != Some(line) {
            notes.error(at, format!("{}; the file is not valid TOML here", e.message()));
        }
        last_line = Some(line);
    }
}

/// A value that was taken out of the document.
struct Taken {
    key: String,
    is_table: bool,
}

/// Takes out the innermost key whose value is at this byte.
fn take_value(table: &mut DeTable<'_>, byte: usize) -> Option<Taken> {
    for (_, value) in table.iter_mut() {
        let inner = match value.get_mut() {
            DeValue::Table(inner) => take_value(inner, byte),
            DeValue::Array(items) => items.iter_mut().find_map(|item| match item.get_mut() {
                DeValue::Table(inner) => take_value(inner, byte),
                _ => None,
            }),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
    }
    let here = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        value.span().contains(&byte).then(|| key.clone())
    };
    let key = table.iter().find_map(here)?;
    let value = table.remove(&key)?;
    Some(Taken {
        key: key.into_inner().into_owned(),
        is_table: matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)),
    })
}

/// The library's message in the words of the file.
fn wrong_type(message: &str, taken: &Taken) -> String {
    let key = &taken.key;
    if taken.is_table {
        match key.as_str() {
            "nics" | "clients" => {
                return format!("write [[{key}]], with two brackets: there may be several");
            }
            "server" | "limits" => {
                return format!("write [{key}], with one pair of brackets: there is only one");
            }
            _ => {}
        }
    }
    let found = message
        .strip_prefix("invalid type: ")
        .and_then(|m| m.split_once(", expected "))
        .map(|(found, expected)| format!("found {found}, write {}", in_words(expected)));
    format!("`{key}`: {}", found.as_deref().unwrap_or(message))
}

fn in_words(expected: &str) -> &str {
    match expected {
        "a string" => "text in quotes",
        "i64" => "a whole number without quotes",
        "a boolean" => "true or false, without quotes",
        "a sequence" => "a list in brackets, like [\"a\", \"b\"]",
        other => other,
    }
}
