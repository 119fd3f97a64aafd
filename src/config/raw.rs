//! The file as it is written: the original's names, every value with its place, nothing checked but its type.
//!
//! [`parse`] reports unknown keys and wrong types, leaves them out, and goes on, so that one run shows everything that
//! is wrong. What it returns holds only known keys of the right types. The document is walked by hand rather than by
//! serde: it gives better messages, and a tenth of the code.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

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
        #[derive(Default)]
        pub(super) struct $name { $(pub(super) $key: $kind,)* }

        impl $name {
            pub(super) const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];
        }

        impl Read for $name {
            const WANTED: &'static str = "a table";

            fn read(_key: &str, value: &DeValue<'_>, notes: &mut Notes<'_>) -> Option<Self> {
                let DeValue::Table(table) = value else { return None };
                Some(Self { $($key: entry(table, stringify!($key), notes),)* })
            }
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
        hooks: Option<Spanned<Hooks>>,
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
    /// `[hooks]`.
    Hooks {
        up: Text,
        down: Text,
        peer_up: Text,
        peer_down: Text,
        verify: Text,
        timeout: Number,
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
pub(super) enum TextOrNumber {
    Text(String),
    Number(i64),
}

/// Every table of the file and its keys, as documentation names them.
pub const KEYS: &[(&str, &[&str])] = &[
    ("top level", File::KEYS),
    ("[server]", Server::KEYS),
    ("[limits]", Limits::KEYS),
    ("[hooks]", Hooks::KEYS),
    ("[[clients]]", Client::KEYS),
    ("[[nics]]", Nic::KEYS),
];

/// Reads the document. `None`: its syntax is broken, and the errors are noted.
pub(super) fn parse(text: &str, notes: &mut Notes<'_>) -> Option<File> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        syntax_errors(&errors, notes);
        return None;
    }
    let mut document = document.into_inner();
    suggest::take_unknown_keys(&mut document, notes);
    File::read("", &DeValue::Table(document), notes)
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

/// A type that a value of the file may have.
trait Read: Sized {
    /// What to write, in the words of the file.
    const WANTED: &'static str;

    /// The value of `key`. `None`: it is of another type. What is wrong further inside is noted, and left out.
    fn read(key: &str, value: &DeValue<'_>, notes: &mut Notes<'_>) -> Option<Self>;
}

/// The value of a key, with its place; what is wrong with it is noted.
fn entry<T: Read>(table: &DeTable<'_>, key: &str, notes: &mut Notes<'_>) -> Option<Spanned<T>> {
    table.get(key).and_then(|value| read(key, value, notes))
}

fn read<T: Read>(key: &str, value: &Spanned<DeValue<'_>>, notes: &mut Notes<'_>) -> Option<Spanned<T>> {
    let read = T::read(key, value.get_ref(), notes);
    if read.is_none() {
        notes.error(value.span(), wrong_type(key, value.get_ref(), T::WANTED));
        notes.spoil(key);
    }
    read.map(|it| Spanned::new(value.span(), it))
}

impl Read for String {
    const WANTED: &'static str = "text in quotes";

    fn read(_key: &str, value: &DeValue<'_>, _notes: &mut Notes<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Read for i64 {
    const WANTED: &'static str = "a whole number without quotes";

    fn read(_key: &str, value: &DeValue<'_>, _notes: &mut Notes<'_>) -> Option<Self> {
        value.as_integer().and_then(|n| Self::from_str_radix(n.as_str(), n.radix()).ok())
    }
}

impl Read for bool {
    const WANTED: &'static str = "true or false, without quotes";

    fn read(_key: &str, value: &DeValue<'_>, _notes: &mut Notes<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl<T: Read> Read for Vec<Spanned<T>> {
    const WANTED: &'static str = "a list in brackets, like [\"a\", \"b\"]";

    fn read(key: &str, value: &DeValue<'_>, notes: &mut Notes<'_>) -> Option<Self> {
        let DeValue::Array(items) = value else { return None };
        Some(items.iter().filter_map(|item| read(key, item, notes)).collect())
    }
}

impl Read for OneOrMany {
    const WANTED: &'static str = "text in quotes, or a list of them";

    fn read(_key: &str, value: &DeValue<'_>, _notes: &mut Notes<'_>) -> Option<Self> {
        let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
        match value {
            DeValue::Array(items) => {
                items.iter().map(|item| text(item.get_ref())).collect::<Option<_>>().map(Self::Many)
            }
            one => text(one).map(Self::One),
        }
    }
}

impl Read for TextOrNumber {
    const WANTED: &'static str = "text in quotes, or a whole number";

    fn read(key: &str, value: &DeValue<'_>, notes: &mut Notes<'_>) -> Option<Self> {
        match String::read(key, value, notes) {
            Some(text) => Some(Self::Text(text)),
            None => i64::read(key, value, notes).map(Self::Number),
        }
    }
}

fn wrong_type(key: &str, value: &DeValue<'_>, wanted: &str) -> String {
    match (key, value) {
        ("nics" | "clients", DeValue::Table(_)) => {
            format!("write [[{key}]], with two brackets: there may be several")
        }
        ("server" | "limits" | "hooks", DeValue::Array(_)) => {
            format!("write [{key}], with one pair of brackets: there is only one")
        }
        _ => format!("`{key}`: found {}, write {wanted}", found(value)),
    }
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("string {text:?}"),
        DeValue::Integer(n) => format!("integer {n}"),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Float(_) => "a number with a point".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
    }
}
