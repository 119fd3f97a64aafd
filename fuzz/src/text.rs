//! Small texts: keys, names, MACs, addresses, the lines of the keeper's children, the first lines of scripts.

use std::path::Path;
use std::str::FromStr;

use tap_rs::keys::{PrivateKey, PublicKey, looks_like_key, shell_word};
use tap_rs::runtime::keeper::Said;
use tap_rs::runtime::script;
use tap_rs::types::{MacAddr, NicAddr, NicName};

/// Runs one input: which parser, then its text.
pub fn run(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    if which % 8 == 0 {
        if let Ok(key) = PrivateKey::from_text(bytes) {
            assert!(bytes.starts_with(key.to_base64().as_bytes()), "base64 has one form for each key");
        }
        return;
    }
    if which % 8 == 1 {
        let refused = script::check(bytes).is_err();
        assert!(!refused || bytes.starts_with(b"#!"));
        return;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match which % 8 {
        2 => reads_back::<PublicKey>(text, true),
        3 => reads_back::<MacAddr>(text, false),
        4 => reads_back::<NicName>(text, true),
        5 => reads_back::<NicAddr>(text, false),
        6 => {
            if let Some(said) = Said::parse(text).filter(|_| !text.contains('\n')) {
                let line = said.text();
                assert_eq!(Said::parse(line.trim_end_matches('\n')), Some(said));
            }
        }
        _ => {
            let word = shell_word(Path::new(text));
            assert!(!word.is_empty());
            if let Some(inner) = word.strip_prefix('\'').and_then(|w| w.strip_suffix('\'')) {
                let inner = inner.strip_prefix("./").filter(|_| text.starts_with('-')).unwrap_or(inner);
                assert_eq!(inner.replace(r"'\''", "'"), text);
            } else {
                assert_eq!(word, text);
            }
            let _ = looks_like_key(text);
        }
    }
}

fn reads_back<T: FromStr + ToString + PartialEq>(text: &str, same: bool) {
    let Ok(value) = text.parse::<T>() else { return };
    let written = value.to_string();
    assert!(written.parse::<T>().is_ok_and(|again| again == value), "{written}");
    assert!(!same || written == text.trim_end_matches(['\r', '\n']), "{written} for {text:?}");
}
