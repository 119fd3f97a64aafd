//! Edits of a server's `[[clients]]` that leave every other byte of the file as it is.
//!
//! ```text
//!   text ──events of the TOML parser──▶ where each [[clients]] begins and ends, where its keys stand ──▶ new text
//!   path, text ──beside it, synced, renamed──▶ the file, with the mode and owner that it had
//! ```
//!
//! The result is for the caller to check, with [`super::check_text`]: a file may be laid out in ways that are not
//! understood here (an inline list of clients, a name with escapes), and then an edit says so or makes what is no config.
//! toml_edit would do the same for 80 kB more of program.

#[cfg(feature = "full")]
pub(super) mod inline;
pub(super) mod layout;
mod replace;

use std::ops::Range;

use layout::{Item, Key, behind_empty_lines, comment_above, cut, items, line_end, line_start, unquoted};

pub use replace::{replace, write_new};

/// Why a file is not edited: one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EditError(pub String);

/// A client to be added: keys with their values as TOML has them, and its NICs likewise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewClient {
    /// Of the client itself; `name` among them.
    pub keys: Vec<(&'static str, String)>,
    /// Of each of its NICs.
    pub nics: Vec<Vec<(&'static str, String)>>,
}

/// A text as a TOML value.
pub fn quoted(text: &str) -> String {
    let plain = text.chars().all(|c| !c.is_control() && c != '"' && c != '\\');
    if plain { format!("\"{text}\"") } else { format!("\"{}\"", text.escape_default()) }
}

/// Adds a client at the end of the file.
pub fn add_client(text: &str, client: &NewClient) -> String {
    let lines =
        |keys: &[(&str, String)]| -> String { keys.iter().map(|(k, v)| format!("{k} = {v}\n")).collect() };
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut added = format!("{text}{end}\n[[clients]]\n{}", lines(&client.keys));
    for nic in &client.nics {
        added.push_str(&format!("\n[[clients.nics]]\n{}", lines(nic)));
    }
    added
}

/// Takes a client out, with the comment that stands right above it.
pub fn remove_client(text: &str, name: &str) -> Result<String, EditError> {
    let section = find(text, name)?;
    Ok(cut(text, section.whole, ""))
}

/// Gives a key of a client this value, as TOML has it; `None` takes the key out.
pub fn set(text: &str, name: &str, key: &str, value: Option<&str>) -> Result<String, EditError> {
    let section = find(text, name)?;
    let there = section.keys.iter().find(|k| k.name == key);
    Ok(match (there, value) {
        (Some(k), Some(value)) => cut(text, k.value.clone(), value),
        (Some(k), None) => cut(text, line_start(text, k.start)..line_end(text, k.value.end), ""),
        (None, None) => text.to_owned(),
        (None, Some(value)) => {
            let after =
                ["public_key", "name"].iter().find_map(|n| section.keys.iter().find(|k| k.name == *n));
            let at = after.map_or(section.header_end, |k| line_end(text, k.value.end));
            let newline = if text.get(..at).is_some_and(|t| t.ends_with('\n')) { "" } else { "\n" };
            cut(text, at..at, &format!("{newline}{key} = {value}\n"))
        }
    })
}

/// A `[[clients]]` with all that is below it.
#[derive(Clone, Debug)]
struct Section {
    /// From the comment right above it to the last line of its last value, and the empty lines behind that.
    whole: Range<usize>,
    /// The start of the line behind `[[clients]]`.
    header_end: usize,
    /// Its own keys.
    keys: Vec<Key>,
}

fn find(text: &str, name: &str) -> Result<Section, EditError> {
    let is_it = |section: &Section| {
        let mut names = section.keys.iter().filter(|k| k.name == "name");
        names.any(|k| text.get(k.value.clone()).is_some_and(|v| unquoted(v) == name))
    };
    sections(text).into_iter().find(is_it).ok_or_else(|| {
        EditError(format!(
            "no [[clients]] named {name:?} was found to edit; `tap-rs clients list` shows those there are"
        ))
    })
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    // Which of its own keys come next: only those behind its own header are a client's.
    let (mut inside, mut own) = (false, false);
    for item in items(text) {
        match item {
            Item::Header { path, many, at } => {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                own = many && path == ["clients"];
                inside = own || inside && path.first() == Some(&"clients") && path.len() > 1;
                let end = line_end(text, at.end);
                if own {
                    let whole = comment_above(text, at.start)..end;
                    sections.push(Section { whole, header_end: end, keys: Vec::new() });
                } else if let (true, Some(section)) = (inside, sections.last_mut()) {
                    section.whole.end = end;
                }
            }
            Item::Key(key) => {
                if let (true, Some(section)) = (inside, sections.last_mut()) {
                    section.whole.end = line_end(text, key.value.end);
                    if own {
                        section.keys.push(key);
                    }
                }
            }
        }
    }
    for section in &mut sections {
        section.whole.end = behind_empty_lines(text, section.whole.end);
    }
    sections
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FILE: &str = r#"# the gateway
run_mode = "server" # of all places
private_key = "server.key"

[server]
bind_addr = "[::]:1234"

# the branch office
# in the north
[[clients]]
name = "branch"      # ours
public_key = "A="    # from the box itself

# its camera
[[clients.nics]]
ifname = "cam0"
ip = [
  "10.0.0.1/24", # [[clients]]
  "fd00::1/64",
]

# kept: nobody's
["clients".extra]
x = """
[[clients]]
name = "fake"
"""

# the lab

[[ clients ]]  # here
'name' = 'lab'
public_key = "B="
"#;

    #[test]
    fn a_client_goes_with_all_that_is_its_own_and_nothing_else() {
        let text = remove_client(FILE, "branch").unwrap();
        let (head, _) = FILE.split_once("# the branch office").unwrap();
        let (_, tail) = FILE.split_once("\"\"\"\n\n").unwrap();
        assert_eq!(text, [head, tail.split_once("\"\"\"\n\n").map_or(tail, |(_, t)| t)].concat());
        assert!(text.contains("# the lab\n\n[[ clients ]]"), "{text}");
        let rest = remove_client(&text, "lab").unwrap();
        assert_eq!(rest, format!("{head}# the lab\n\n"));
        assert!(remove_client(&text, "branch").unwrap_err().0.contains("tap-rs clients list"));
        assert!(remove_client(FILE, "fake").is_err(), "what stands in a text is no client");
    }

    #[test]
    fn a_value_changes_where_it_stands_and_its_comment_stays() {
        let text = set(FILE, "branch", "public_key", Some("\"C=\"")).unwrap();
        assert_eq!(text, FILE.replace("\"A=\"", "\"C=\""));
        let text = set(FILE, "lab", "public_key", Some("\"C=\"")).unwrap();
        assert_eq!(text, FILE.replace("\"B=\"", "\"C=\""));
    }

    #[test]
    fn a_new_key_stands_behind_the_old_one_and_goes_without_a_trace() {
        for name in ["branch", "lab"] {
            let text = set(FILE, name, "next_public_key", Some("\"C=\"")).unwrap();
            let (before, _) = text.split_once("next_public_key = \"C=\"\n").unwrap();
            assert!(before.lines().last().unwrap().starts_with("public_key"), "{text}");
            assert_eq!(set(&text, name, "next_public_key", None).unwrap(), FILE);
        }
        let bare = "[[clients]]\nname = \"x\"";
        assert_eq!(set(bare, "x", "psk", Some("\"p\"")).unwrap(), "[[clients]]\nname = \"x\"\npsk = \"p\"\n");
    }

    #[test]
    fn a_client_is_added_at_the_end() {
        let client = NewClient {
            keys: vec![("name", quoted("x")), ("public_key", quoted("D="))],
            nics: vec![vec![("ifname", quoted("tap9"))]],
        };
        let text = add_client("a = 1", &client);
        let added = "[[clients]]\nname = \"x\"\npublic_key = \"D=\"\n\n[[clients.nics]]\nifname = \"tap9\"\n";
        assert_eq!(text, format!("a = 1\n\n{added}"));
        assert_eq!(remove_client(&text, "x").unwrap(), "a = 1\n\n");
    }
}
