//! Every example config parses, and every key is documented.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use tap_rs::config::{self, Config, KEYS, Overrides};
use tap_rs::keys::{PresharedKey, PrivateKey};

/// A copy of `configs/` beside a `keys/` with every key that the examples name.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("keys")).unwrap();
        std::fs::create_dir(at("configs")).unwrap();
        for name in ["server", "client", "lab"] {
            let key = PrivateKey::generate(&mut rand::rng());
            key.write_new(&at(&format!("keys/{name}.key"))).unwrap();
        }
        PresharedKey::generate(&mut rand::rng()).write_new(&at("keys/client.psk")).unwrap();
        for path in files("configs") {
            std::fs::copy(&path, at("configs").join(path.file_name().unwrap())).unwrap();
        }
        Self(folder)
    }

    fn config(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str) -> Vec<PathBuf> {
    std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn load(path: &Path) -> Config {
    match config::load(path, &Overrides::default()) {
        Ok((config, warnings)) => {
            assert!(warnings.is_empty(), "{warnings:#?}");
            config
        }
        Err(report) => panic!("{report}"),
    }
}

#[test]
fn every_example_is_a_config_without_warnings() {
    let copy = Copy::new();
    let examples: Vec<_> =
        files("configs").into_iter().filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    assert!(examples.len() >= 4, "{examples:?}");
    for path in examples {
        load(&copy.config("configs").join(path.file_name().unwrap()));
    }
}

#[test]
fn every_example_in_the_documentation_is_a_config_without_warnings() {
    let copy = Copy::new();
    let text = std::fs::read_to_string(root().join("docs/CONFIG.md")).unwrap();
    let blocks: Vec<&str> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 4);
    for (i, block) in blocks.iter().enumerate() {
        let path = copy.config(&format!("example-{i}.toml"));
        std::fs::write(&path, block).unwrap();
        load(&path);
    }
}

#[test]
fn commented_lines_of_the_examples_are_keys_too() {
    let copy = Copy::new();
    for name in ["client.toml", "server.toml"] {
        let path = copy.config("configs").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        // `#key = …` is an offer to uncomment; `# text` is a comment.
        let offered = text.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ") => rest,
            _ => line,
        });
        let text: Vec<&str> = offered.collect();
        assert_ne!(text.join("\n"), std::fs::read_to_string(&path).unwrap());
        std::fs::write(&path, text.join("\n")).unwrap();
        load(&path);
    }
}

#[test]
fn the_pinned_hash_is_that_of_the_example_script() {
    let script = std::fs::read(root().join("configs/client-setup.sh")).unwrap();
    let hash: String = Sha256::digest(&script).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = std::fs::read_to_string(root().join("configs/client-remote.toml")).unwrap();
    assert!(config.contains(&hash), "configs/client-remote.toml must pin {hash}");
}

#[test]
fn example_scripts_are_shell() {
    for path in files("configs").into_iter().filter(|p| p.extension().is_some_and(|e| e == "sh")) {
        assert!(Command::new("sh").arg("-n").arg(&path).status().unwrap().success(), "{}", path.display());
    }
}

#[test]
fn every_key_is_documented_in_its_section() {
    let text = std::fs::read_to_string(root().join("docs/CONFIG.md")).unwrap();
    for (table, keys) in KEYS {
        let heading = match *table {
            "top level" => "\n## Top level\n".to_owned(),
            table => format!("\n## `{table}`\n"),
        };
        let section = text.split(&heading).nth(1).unwrap_or_else(|| panic!("no section {table}"));
        let section = section.split("\n## ").next().unwrap();
        let documented: Vec<&str> =
            section.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
        for key in *keys {
            assert!(documented.contains(key), "{table} {key} is not in docs/CONFIG.md");
        }
        for key in documented {
            assert!(keys.contains(&key), "docs/CONFIG.md has {table} {key}, which does not exist");
        }
    }
}

#[test]
fn no_key_can_be_committed() {
    let ignored = std::fs::read_to_string(root().join("keys/.gitignore")).unwrap();
    let rules: Vec<&str> = ignored.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    assert_eq!(rules, ["*", "!.gitignore", "!README.md"]);
}
