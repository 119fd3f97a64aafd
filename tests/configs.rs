//! Every example config parses, and every key is documented.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use tap_rs::config::{self, ADDRS_MAX, Config, KEYS, NICS_MAX, Overrides, PUSH_MAX};
use tap_rs::keys::{PresharedKey, PrivateKey};
use tap_rs::types::{NicId, NicSpec};
use tap_rs::wire::push::{self, Push, PushedNic};

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
fn what_a_config_allows_can_be_pushed() {
    let copy = Copy::new();
    let mut text = "run_mode = \"server\"\nprivate_key = \"keys/server.key\"\n[server]\nbind_addr = \"[::]:1\"\n\
                    script_path = \"script\"\n[[clients]]\nname = \"x\"\npublic_key = \"keys/client.key.pub\"\n"
        .to_owned();
    for nic in 0..NICS_MAX {
        let addrs: Vec<String> = (0..ADDRS_MAX).map(|a| format!("\"2001:db8::{nic:x}:{a:x}/64\"")).collect();
        text.push_str(&format!(
            "[[nics]]\nifname = \"interface-{nic:05}\"\nclient_parent = \"parent-12345678\"\n\
             mac = \"02:00:00:00:{:02x}:{:02x}\"\nip = [{}]\n",
            nic >> 8,
            nic & 0xff,
            addrs.join(", ")
        ));
    }
    let path = copy.config("large.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::write(copy.config("script"), vec![b'#'; PUSH_MAX]).unwrap();
    let refused = config::load(&path, &Overrides::default()).unwrap_err().to_string();
    let room = refused.split("room for ").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    std::fs::write(copy.config("script"), vec![b'#'; room]).unwrap();
    let Config::Server(server) = load(&path) else { panic!() };
    let client = &server.clients[0];
    let nics = client.nics.iter().zip(0..).map(|(nic, id)| PushedNic {
        id: NicId(id),
        spec: NicSpec { name: nic.client_name.clone(), ..nic.spec.clone() },
        parent: nic.client_parent.clone(),
    });
    let push = Push { mode: None, nics: nics.collect(), script: client.script.as_deref().unwrap().to_vec() };
    assert_eq!(push.encode().unwrap().len(), PUSH_MAX);
    assert_eq!(
        (PUSH_MAX, usize::from(NICS_MAX), ADDRS_MAX),
        (push::MAX_LEN, push::MAX_NICS, push::MAX_ADDRS)
    );
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
