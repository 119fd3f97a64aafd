//! Keys that do not exist, and what was probably meant.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::raw::{Client, File, Hooks, Limits, Nic, Server};
use super::report::Notes;

/// Reports every unknown key of the document and takes it out.
pub(super) fn take_unknown_keys(document: &mut DeTable<'_>, notes: &mut Notes<'_>) {
    Section::TOP.sweep(document, notes);
}

/// Words that other programs use for what we have.
const SYNONYMS: &[(&str, &str)] = &[
    ("name", "ifname"),
    ("interface", "ifname"),
    ("address", "ip"),
    ("addresses", "ip"),
    ("ips", "ip"),
    ("link", "parent"),
    ("dev", "parent"),
    ("endpoint", "bind_addr"),
    ("address", "bind_addr"),
    ("listen", "bind_addr"),
    ("daemon", "is_daemon"),
    ("log_level", "log"),
    ("gw", "gateway"),
    ("router", "gateway"),
    ("namespace", "netns"),
    ("dad", "probe"),
    ("preshared_key", "psk"),
    ("key", "private_key"),
    ("key", "public_key"),
];

/// A kind of table of the file.
struct Section {
    /// As a user writes it.
    header: &'static str,
    keys: &'static [&'static str],
    /// The tables inside it, by their keys.
    inner: &'static [(&'static str, &'static Section)],
}

impl Section {
    const TOP: Self = Self {
        header: "at the top level",
        keys: File::KEYS,
        inner: &[
            ("server", &Self::SERVER),
            ("limits", &Self::LIMITS),
            ("hooks", &Self::HOOKS),
            ("clients", &Self::CLIENTS),
            ("nics", &Self::NICS),
        ],
    };
    const SERVER: Self = Self { header: "in [server]", keys: Server::KEYS, inner: &[] };
    const LIMITS: Self = Self { header: "in [limits]", keys: Limits::KEYS, inner: &[] };
    const HOOKS: Self = Self { header: "in [hooks]", keys: Hooks::KEYS, inner: &[] };
    const CLIENTS: Self =
        Self { header: "in [[clients]]", keys: Client::KEYS, inner: &[("nics", &Self::NICS)] };
    const NICS: Self = Self { header: "in [[nics]]", keys: Nic::KEYS, inner: &[] };
    const ALL: &'static [&'static Self] =
        &[&Self::TOP, &Self::SERVER, &Self::LIMITS, &Self::HOOKS, &Self::CLIENTS, &Self::NICS];

    fn sweep(&self, table: &mut DeTable<'_>, notes: &mut Notes<'_>) {
        let known = |key: &Spanned<_>| self.keys.contains(&AsRef::<str>::as_ref(key.get_ref()));
        let unknown: Vec<_> = table.keys().filter(|k| !known(k)).cloned().collect();
        for key in unknown {
            notes.error(key.span(), self.unknown_key(key.get_ref()));
            notes.spoil(self.meant(key.get_ref()).unwrap_or(key.get_ref()));
            table.remove(&key);
        }
        for (name, section) in self.inner {
            match table.get_mut(*name).map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => section.sweep(inner, notes),
                Some(DeValue::Array(items)) => items.iter_mut().for_each(|item| {
                    if let DeValue::Table(inner) = item.get_mut() {
                        section.sweep(inner, notes);
                    }
                }),
                _ => {}
            }
        }
    }

    fn unknown_key(&self, key: &str) -> String {
        let here = self.header;
        if File::KEYS.contains(&key) && self.header != Self::TOP.header {
            return format!(
                "`{key}` belongs at the top level, but this line is {here}; move it above the first [section]"
            );
        }
        if let Some(meant) = self.meant(key) {
            return format!("there is no key {key:?} {here}; did you mean `{meant}`?");
        }
        if let Some(owner) = Self::ALL.iter().find(|s| s.keys.contains(&key)) {
            return format!("`{key}` belongs {}, but this line is {here}; move it there", owner.header);
        }
        format!("there is no key {key:?} {here}; the keys are {}", self.keys.join(", "))
    }

    /// The key of this section that `key` stands for.
    fn meant(&self, key: &str) -> Option<&'static str> {
        let synonym = SYNONYMS.iter().find(|(word, meant)| *word == key && self.keys.contains(meant));
        if let Some((_, meant)) = synonym {
            return Some(meant);
        }
        let elsewhere = Self::ALL.iter().any(|s| s.keys.contains(&key));
        if elsewhere { None } else { closest(key, self.keys) }
    }
}

/// The word of `words` that `typed` is a slip of.
pub(super) fn closest<'a>(typed: &str, words: &[&'a str]) -> Option<&'a str> {
    // Beyond this no word of ours is close, and the distance costs the square of the length.
    if typed.len() > 40 {
        return None;
    }
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    let score = |word: &&'a str| (strsim::jaro_winkler(&typed, word) * 1000.0) as u32;
    words.iter().copied().max_by_key(score).filter(|word| score(word) >= 800)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word_and_other_words_do_not() {
        assert_eq!(closest("ifnam", Nic::KEYS), Some("ifname"));
        assert_eq!(closest("tap-mode", File::KEYS), Some("tap_mode"));
        assert_eq!(closest("privatekey", File::KEYS), Some("private_key"));
        assert_eq!(closest("zzz", File::KEYS), None);
    }
}
