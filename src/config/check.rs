//! From written values to checked ones: each helper gives the value, or notes what is wrong with it.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;

use crate::keys::{self, KeyError, PresharedKey, PrivateKey, PublicKey};

use super::raw::{Number, Switch, Text, Texts};
use super::report::Notes;
use super::suggest::closest;

/// What stands in configs where the server's public key is to be written.
pub(super) const SERVER_KEY: &str = "SERVER_PUBLIC_KEY";
/// What stands in configs where the client's public key is to be written.
pub(super) const CLIENT_KEY: &str = "CLIENT_PUBLIC_KEY";

/// One run over one file.
pub(super) struct Check<'a> {
    pub(super) notes: Notes<'a>,
    /// The file's folder, which relative paths start from.
    pub(super) folder: &'a Path,
    /// Files that the config names and that are read with it.
    pub(super) files: Vec<PathBuf>,
}

impl Check<'_> {
    /// A text that one of our own types reads.
    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, text: &Text) -> Option<T> {
        let text = text.as_ref()?;
        let parsed = text.get_ref().parse();
        parsed.map_err(|e: T::Err| self.notes.error(text.span(), e.to_string())).ok()
    }

    /// A number within `range`, or `default` where none is written.
    pub(super) fn number<T>(&mut self, key: &str, n: &Number, range: RangeInclusive<T>, default: T) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let Some(n) = n else { return default };
        match T::try_from(*n.get_ref()) {
            Ok(good) if range.contains(&good) => good,
            _ => {
                let (least, most) = (range.start(), range.end());
                let message = format!("`{key}` is {least} to {most}, not {}", n.get_ref());
                self.notes.error(n.span(), message);
                default
            }
        }
    }

    /// One of a few words, in any case.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, text: &Text, choices: &[(&str, T)]) -> Option<T> {
        let text = text.as_ref()?;
        self.word(key, text, choices)
    }

    /// A list of a few words, in any case; none twice.
    pub(super) fn choices<T: Copy + PartialEq>(
        &mut self,
        key: &str,
        texts: &Texts,
        choices: &[(&str, T)],
    ) -> Option<Vec<T>> {
        let texts = texts.as_ref()?;
        if texts.get_ref().is_empty() {
            self.notes.error(texts.span(), format!("`{key}` is empty; leave the line out to allow all"));
        }
        let mut chosen = Vec::new();
        for text in texts.get_ref() {
            match self.word(key, text, choices) {
                Some(word) if !chosen.contains(&word) => chosen.push(word),
                _ => {}
            }
        }
        Some(chosen)
    }

    fn word<T: Copy>(&mut self, key: &str, text: &Spanned<String>, choices: &[(&str, T)]) -> Option<T> {
        let typed = text.get_ref();
        let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(typed));
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let hint = match closest(typed, &words) {
                Some(word) => format!("did you mean \"{word}\"?"),
                None => format!("write \"{}\"", words.join("\" or \"")),
            };
            self.notes.error(text.span(), format!("`{key}` cannot be {typed:?}; {hint}"));
        }
        found.map(|(_, value)| *value)
    }

    /// A path, taken from the file's folder where it is relative.
    pub(super) fn path(&mut self, key: &str, text: &Text) -> Option<PathBuf> {
        let text = text.as_ref()?;
        if text.get_ref().is_empty() || text.get_ref().contains('\0') {
            self.notes.error(text.span(), format!("`{key}` is the path of a file, not {:?}", text.get_ref()));
            return None;
        }
        Some(self.folder.join(text.get_ref()))
    }

    /// The path of a secret's file. A secret that stands in the config itself is refused.
    pub(super) fn secret_path(&mut self, key: &str, text: &Text) -> Option<PathBuf> {
        let written = text.as_ref()?;
        if keys::looks_like_key(written.get_ref()) {
            let message = format!(
                "`{key}` holds a key, and a config file is no place for one; write the path of a file with the key \
                 in it (mode 0600), and make a new key, since others may have read this one"
            );
            self.notes.error(written.span(), message);
            return None;
        }
        self.file(key, text)
    }

    /// The path of a file that is read with the config.
    pub(super) fn file(&mut self, key: &str, text: &Text) -> Option<PathBuf> {
        let path = self.path(key, text)?;
        self.files.push(path.clone());
        Some(path)
    }

    /// Reads a private key to see that it can be used, and gives its public half.
    pub(super) fn private_key(&mut self, at: Option<Range<usize>>, path: &Path) -> Option<PublicKey> {
        let key = PrivateKey::read(path);
        self.key(at, key).map(|key| key.public())
    }

    /// Reads a pre-shared key to see that it can be used.
    pub(super) fn preshared_key(&mut self, at: Option<Range<usize>>, path: &Path) {
        let key = PresharedKey::read(path);
        self.key(at, key);
    }

    /// A public key in base64, or a file that holds one.
    pub(super) fn public_key(&mut self, text: &Text) -> Option<PublicKey> {
        let text = text.as_ref()?;
        let whose =
            [(SERVER_KEY, "server"), (CLIENT_KEY, "client")].into_iter().find(|w| w.0 == text.get_ref());
        if let Some((word, side)) = whose {
            let message = format!(
                "{word} stands for the public key of the {side}; write that key, which `tap-rs keygen` printed there: it is \
                 the line in the file beside the {side}'s private key whose name ends in .pub"
            );
            self.notes.error(text.span(), message);
            return None;
        }
        // It may as well be the key itself.
        self.files.extend(Some(self.folder.join(text.get_ref())).filter(|path| path.is_file()));
        let key = PublicKey::from_text_or_file(text.get_ref(), self.folder);
        self.key(Some(text.span()), key)
    }

    pub(super) fn key<T>(&mut self, at: Option<Range<usize>>, key: Result<T, KeyError>) -> Option<T> {
        key.map_err(|e| self.notes.error(at, e.0)).ok()
    }

    /// Notes an error where a key is written that means nothing in this place.
    pub(super) fn misplaced<T>(&mut self, value: &Option<Spanned<T>>, message: &str) {
        if let Some(value) = value {
            self.notes.error(value.span(), message);
        }
    }

    /// Notes a warning where a key of the original is written that this side has no use for.
    pub(super) fn unused<T>(&mut self, value: &Option<Spanned<T>>, message: &str) {
        if let Some(value) = value {
            self.notes.warn(value.span(), message);
        }
    }

    /// Notes an error where another entry of the file has the same value.
    pub(super) fn claim(&mut self, claims: &mut Claims, what: &str, value: &str, at: Range<usize>) {
        match claims.0.get(value) {
            Some(first) => {
                let line = self.notes.line(first);
                self.notes
                    .error(at, format!("{what} {value} is already taken on line {line}; each must differ"));
            }
            None => {
                claims.0.insert(value.to_owned(), at);
            }
        }
    }
}

/// Values that must not occur twice, and where each was first written.
#[derive(Default)]
pub(super) struct Claims(HashMap<String, Range<usize>>);

/// What a switch says, `default` where it is not written.
pub(super) fn switch(value: &Switch, default: bool) -> bool {
    value.as_ref().map_or(default, |v| *v.get_ref())
}

/// Where a value is written.
pub(super) fn span<T>(value: &Option<Spanned<T>>) -> Option<Range<usize>> {
    value.as_ref().map(Spanned::span)
}
