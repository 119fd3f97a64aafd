//! Who may import whom: the table of `docs/ARCHITECTURE.md`, held against every path in `src/`.
//!
//! ```text
//! file → without comments, strings and test code → every `crate::…` and `super::…` → the room it leads to → table
//! ```
//!
//! The check is of text: it knows no macros and no re-exports. A room that is not in the table fails, too.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A room of the house, and what it may import: whole rooms, or single modules of them.
type Row = (&'static str, &'static [&'static str]);

/// `metrics` is a leaf that everybody may import.
const TABLE: &[Row] = &[
    ("types", &[]),
    ("keys", &[]),
    ("metrics", &[]),
    ("events", &[]),
    ("sys", &["types"]),
    ("wire", &["types", "metrics"]),
    ("config", &["types", "keys", "metrics"]),
    ("policy", &["wire", "types", "metrics"]),
    ("proto", &["wire", "keys", "types", "metrics"]),
    ("nic", &["sys", "types", "wire::vnet", "metrics"]),
    ("dataplane", &["nic", "wire", "policy", "proto::session", "proto::activity", "types", "sys", "metrics"]),
    ("cli", &["config", "types", "metrics"]),
    ("commands", &["cli", "config", "keys", "types", "metrics"]),
    (
        "runtime",
        &[
            "types",
            "keys",
            "metrics",
            "events",
            "sys",
            "wire",
            "config",
            "policy",
            "proto",
            "nic",
            "dataplane",
            "cli",
            "commands",
        ],
    ),
    ("main", &["cli", "commands", "config", "runtime", "sys::wipe", "metrics"]),
];

#[test]
fn every_import_is_in_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&source);
    assert!(files.len() > 30, "only {} files in {}", files.len(), source.display());
    let files: Vec<_> = files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    let wrong = check(&files);
    assert!(wrong.is_empty(), "imports that docs/ARCHITECTURE.md forbids:\n{}", wrong.join("\n"));
}

#[test]
fn a_forbidden_import_is_found_at_its_line() {
    let found = |name: &str, text: &str| check(&[(name.to_owned(), text.to_owned())]);
    assert_eq!(
        found("wire/record.rs", "//! Doc.\n\nuse crate::types::NicId;\nuse crate::proto::session::Lane;\n"),
        ["src/wire/record.rs:4: wire may not import proto::session::Lane"]
    );
    assert_eq!(
        found("nic.rs", "use crate::{types::Mtu, wire::{vnet::VnetHeader, record}};"),
        ["src/nic.rs:1: nic may not import wire::record"]
    );
    assert_eq!(
        found("dataplane/unpack.rs", "fn f() {\n    let c: crate::proto::client::Client = make();\n}"),
        ["src/dataplane/unpack.rs:2: dataplane may not import proto::client::Client"]
    );
    assert_eq!(
        found("policy/arp.rs", "use super::owner::Owner;\nuse super::super::runtime;"),
        ["src/policy/arp.rs:2: policy may not import runtime"]
    );
    assert_eq!(
        found("main.rs", "use tap_rs::cli::Cli;\nuse tap_rs::dataplane;"),
        ["src/main.rs:2: main may not import dataplane"]
    );
    assert_eq!(found("attic.rs", "use crate::types;"), ["src/attic.rs:1: attic is not in the table"]);
    assert_eq!(
        found("keys.rs", "fn a<'a>(q: char) { let q = '\"'; }\nuse crate::sys;"),
        ["src/keys.rs:2: keys may not import sys"],
        "a quote in quotes, and a lifetime, do not hide what follows"
    );
}

#[test]
fn comments_strings_and_tests_may_name_anything() {
    let text = r##"
        //! [`Session`](crate::proto::session)
        /* crate::proto::a /* crate::proto::b */ crate::proto::c */
        const A: &str = "crate::proto::d \" crate::proto::e";
        const B: &str = r#"crate::proto::" crate::proto::f"#;
        #[cfg(test)]
        use crate::proto::g;
        #[cfg(test)]
        #[allow(dead_code)]
        mod tests { fn f() { crate::proto::h(); } }
        use crate::types::{self, Mtu};
        pub(crate) fn f() { my_crate::proto::i(); }
        macro_rules! m { () => { $crate::metrics::DropReason } }
    "##;
    assert_eq!(check(&[("wire/ip.rs".into(), text.into())]), [""; 0]);
    let parent = "pub mod ip;\n#[cfg(test)]\npub(crate) mod sample;\n";
    let sample = "use crate::proto::session::Lane;";
    assert_eq!(
        check(&[("wire.rs".into(), parent.into()), ("wire/sample.rs".into(), sample.into())]),
        [""; 0],
        "a file that is a module of tests only"
    );
}

#[test]
fn every_test_that_security_md_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [rust_files(&root.join("src")), rust_files(&root.join("tests"))].concat();
    let code: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    // Names of tests are sentences; those of keys and files are shorter.
    let named: Vec<_> = page.split('`').filter(|n| n.matches('_').count() > 2 && !n.contains(' ')).collect();
    assert!(named.len() > 40, "{}", named.len());
    let missing: Vec<_> = named.into_iter().filter(|n| !code.contains(&format!("fn {n}("))).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Every forbidden import in these files, each named by its path under `src/`.
fn check(files: &[(String, String)]) -> Vec<String> {
    let code: Vec<_> = files.iter().map(|(name, text)| (name, without_prose(text))).collect();
    let tests: Vec<Vec<String>> =
        code.iter().flat_map(|(name, text)| test_modules(&module_of(name), text)).collect();
    code.iter()
        .filter(|(name, _)| !tests.iter().any(|t| module_of(name).starts_with(t)))
        .flat_map(|(name, text)| check_file(name, &without_tests(text)))
        .collect()
}

fn check_file(name: &str, text: &str) -> Vec<String> {
    let module = module_of(name);
    let Some(room) = module.first() else { return Vec::new() };
    let Some((_, allowed)) = TABLE.iter().find(|(own, _)| own == room) else {
        return vec![format!("src/{name}:1: {room} is not in the table")];
    };
    let mut wrong = Vec::new();
    for (at, path) in imports(&module, text) {
        let leads_to = |entry: &str| {
            let entry: Vec<_> = entry.split("::").collect();
            path.len() >= entry.len() && path.iter().zip(&entry).all(|(a, b)| a == b)
        };
        let Some(target) = path.first().filter(|target| *target != room) else { continue };
        if !allowed.iter().any(|entry| leads_to(entry)) {
            let line = text[..at].matches('\n').count() + 1;
            let known = TABLE.iter().any(|(own, _)| own == target);
            let why = if known { "may not import" } else { "may not import, as it is not in the table," };
            wrong.push(format!("src/{name}:{line}: {room} {why} {}", path.join("::")));
        }
    }
    wrong
}

/// The path of the module that a file is; of `main.rs` it is `main`, of `lib.rs` nothing.
fn module_of(name: &str) -> Vec<String> {
    let name = name.strip_suffix(".rs").unwrap_or(name);
    let name = name.strip_suffix("/mod").unwrap_or(name);
    name.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

/// Every path from the crate's root that `text` names, with where it stands.
fn imports(module: &[String], text: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = next_word(text, at) {
        at = word.end;
        let start = word.start;
        let mut path = match &text[word] {
            "crate" | "tap_rs" => Vec::new(),
            "super" => module[..module.len() - 1].to_vec(),
            _ => continue,
        };
        let Some(mut behind) = behind_colons(text, at) else { continue };
        while let Some(word) =
            next_word(text, behind).filter(|w| w.start == behind && &text[w.clone()] == "super")
        {
            path.pop();
            let Some(next) = behind_colons(text, word.end) else { break };
            behind = next;
        }
        let mut paths = Vec::new();
        at = branches(text, behind, &path, &mut paths).max(at);
        found.extend(paths.into_iter().map(|path| (start, path)));
    }
    found
}

/// Reads what follows `prefix::` at `at`: a name, a path, or a group of them. Returns where it ends.
fn branches(text: &str, at: usize, prefix: &[String], out: &mut Vec<Vec<String>>) -> usize {
    if text[at..].starts_with('{') {
        let mut at = at + 1;
        loop {
            at += text[at..].len() - text[at..].trim_start_matches([' ', '\n', '\t', ',']).len();
            if at >= text.len() || text[at..].starts_with('}') {
                return at + 1;
            }
            at = branches(text, at, prefix, out);
        }
    }
    let Some(word) = next_word(text, at).filter(|w| w.start == at) else {
        out.push(prefix.to_vec());
        return at + 1;
    };
    let mut path = prefix.to_vec();
    if &text[word.clone()] != "self" {
        path.push(text[word.clone()].to_owned());
    }
    let end = match behind_colons(text, word.end) {
        Some(behind) => branches(text, behind, &path, out),
        None => {
            out.push(path);
            word.end
        }
    };
    // `as another_name`
    match text[end..].strip_prefix(" as ").and_then(|_| next_word(text, end + 4)) {
        Some(alias) => alias.end,
        None => end,
    }
}

fn next_word(text: &str, from: usize) -> Option<Range<usize>> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let start = from + text.get(from..)?.find(part)?;
    let len = text[start..].find(|c| !part(c)).unwrap_or(text.len() - start);
    Some(start..start + len)
}

fn behind_colons(text: &str, at: usize) -> Option<usize> {
    text[at..].starts_with("::").then_some(at + 2)
}

/// The text with spaces for comments and for what stands in quotes; lines stay where they are.
fn without_prose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word_before = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let prose = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            'r' if !word_before => raw_string(rest).unwrap_or(0),
            '\'' => char_literal(rest).unwrap_or(0),
            _ => 0,
        };
        if prose == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..prose].chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = &rest[prose..];
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(text.len(), |i| hashes + 2 + i + end.len()))
}

/// `None` for a lifetime.
fn char_literal(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        return text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map(|(i, _)| i + 3);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(i, _)| i + 1)
}

const TEST: &str = "#[cfg(test)]";

/// The text with spaces for every item under `#[cfg(test)]`.
fn without_tests(text: &str) -> String {
    let mut out = text.to_owned();
    for item in test_items(text) {
        let blank = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
        let blank: String = text[item.clone()].chars().map(blank).collect();
        out.replace_range(item, &blank);
    }
    out
}

/// Modules that are files of their own and exist in tests only.
fn test_modules(module: &[String], text: &str) -> Vec<Vec<String>> {
    let name = |item: Range<usize>| {
        let item = text[item].trim_end().strip_suffix(';')?;
        let (_, name) = item.rsplit_once("mod ")?;
        Some([module, &[name.trim().to_owned()]].concat())
    };
    test_items(text).into_iter().filter_map(name).collect()
}

fn test_items(text: &str) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(TEST) {
        let start = at + found;
        at = item_end(text, start + TEST.len());
        items.push(start..at);
    }
    items
}

/// Where the item that begins at `at` ends: at its `;`, or at the brace that closes its body.
fn item_end(text: &str, at: usize) -> usize {
    let is_use = text[at..].trim_start().trim_start_matches("pub ").starts_with("use ");
    let mut depth = 0;
    for (i, c) in text[at..].char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => {
                depth -= 1;
                if depth == 0 && c == '}' && !is_use {
                    return at + i + 1;
                }
            }
            ';' if depth == 0 => return at + i + 1,
            _ => {}
        }
    }
    text.len()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
