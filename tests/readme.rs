//! The documents do what they say: the quick start is followed word for word, every config in the READMEs is one, both
//! languages have the same commands, and every link leads somewhere.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::lab::{NIC_READY, SOON};
use common::ns::Ns;
use common::program::{Program, TAP_RS};
use sha2::{Digest, Sha256};
use tap_rs::config::{self, Overrides};

const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];
const SECRETS: [&str; 2] = ["server", "client"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    kind: String,
    lines: Vec<String>,
}

impl Block {
    /// What is done, without what is said about it.
    fn without_comments(&self) -> Self {
        let lines =
            self.lines.iter().map(|line| line.split_once('#').map_or(line.as_str(), |(l, _)| l).trim_end());
        Self { kind: self.kind.clone(), lines: lines.filter(|l| !l.is_empty()).map(str::to_owned).collect() }
    }

    /// `# on the server` of the first line.
    fn title(&self) -> &str {
        self.lines[0].strip_prefix("# ").unwrap_or_default()
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(kind) if !inside => blocks.push(Block { kind: kind.to_owned(), lines: Vec::new() }),
            Some(_) => {}
            None if inside => blocks.last_mut().unwrap().lines.push(line.to_owned()),
            None => continue,
        }
        inside ^= line.starts_with("```");
    }
    assert!(!inside, "a block does not end");
    blocks
}

#[test]
fn both_languages_have_the_same_commands_configs_and_output() {
    let [english, chinese] = READMES.map(|file| {
        let blocks =
            blocks(&text_of(file)).into_iter().filter(|b| ["sh", "toml", "text"].contains(&b.kind.as_str()));
        // Drawings speak the reader's language.
        blocks
            .filter(|b| !b.lines.iter().any(|l| l.contains("+---")))
            .map(|b| b.without_comments())
            .collect::<Vec<_>>()
    });
    assert!(english.len() > 10);
    for (english, chinese) in english.iter().zip(&chinese) {
        assert_eq!(english, chinese);
    }
    assert_eq!(english.len(), chinese.len());
}

#[test]
fn every_config_in_the_readmes_is_one_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = HashMap::new();
    for name in SECRETS {
        let key = tap_rs::keys::PrivateKey::generate(&mut rand::rng());
        key.write_new(&folder.path().join(format!("{name}.key"))).unwrap();
        keys.insert(name, key.public().to_string());
    }
    fs::copy(root().join("configs/client-setup.sh"), folder.path().join("client-setup.sh")).unwrap();
    for file in READMES {
        let configs: Vec<_> = blocks(&text_of(file)).into_iter().filter(|b| b.kind == "toml").collect();
        assert!(configs.len() >= 2, "{file}");
        for block in configs {
            let path = folder.path().join("c.toml");
            fs::write(&path, with_keys(&block, &keys)).unwrap();
            match config::load(&path, &Overrides::default()) {
                Ok((_, warnings)) => assert!(warnings.is_empty(), "{file}: {warnings:?} in {block:?}"),
                Err(report) => panic!("{file}: {report} in {block:?}"),
            }
        }
    }
}

#[test]
fn captures_in_the_readmes_are_parts_of_those_that_the_script_made() {
    for file in READMES {
        let text = text_of(file);
        let mut shown = 0;
        for part in text.split("<!-- docs/captures/").skip(1) {
            let (name, rest) = part.split_once(" -->\n```text\n").unwrap_or_else(|| panic!("{file}: {part}"));
            let block = rest.split("```").next().unwrap();
            assert!(block.lines().count() >= 4, "{file}: {name}: run docs/captures.sh");
            let whole = text_of(&format!("docs/captures/{name}"));
            assert!(whole.contains(block), "{file} shows another {name}: run docs/captures.sh");
            shown += 1;
        }
        assert_eq!(shown, 2, "{file}");
    }
}

/// The configs of documents that are no README, with the scripts that stand beside them there.
#[test]
fn every_config_in_the_cookbook_is_one_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = HashMap::new();
    for name in ["server", "client", "south"] {
        let key = tap_rs::keys::PrivateKey::generate(&mut rand::rng());
        key.write_new(&folder.path().join(format!("{name}.key"))).unwrap();
        keys.insert(name, key.public().to_string());
    }
    let all = blocks(&text_of("docs/COOKBOOK.md"));
    for script in all.iter().filter(|b| b.kind == "sh") {
        if let Some((file, _)) = script.title().split_once(", on the ") {
            let path = folder.path().join(file);
            fs::write(&path, script.lines.join("\n")).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        }
    }
    let configs: Vec<_> = all.iter().filter(|b| b.kind == "toml").collect();
    assert!(configs.len() >= 12);
    for block in configs {
        let path = folder.path().join(block.title());
        fs::write(&path, with_keys(block, &keys)).unwrap();
        match config::load(&path, &Overrides::default()) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{warnings:?} in {block:?}"),
            Err(report) => panic!("{report} in {block:?}"),
        }
    }
}

/// With the printed keys in the place of the words in capitals.
fn with_keys(block: &Block, keys: &HashMap<&str, String>) -> String {
    keys.iter().fold(block.lines.join("\n"), |text, (side, key)| {
        text.replace(&format!("{}_PUBLIC_KEY", side.to_uppercase()), key)
    })
}

#[test]
fn the_readmes_pin_the_script_that_is_there() {
    let script = fs::read(root().join("configs/client-setup.sh")).unwrap();
    let hash: String = Sha256::digest(&script).iter().map(|byte| format!("{byte:02x}")).collect();
    for file in READMES {
        assert!(text_of(file).contains(&format!("script_sha256 = [\"{hash}\"]")), "{file} must pin {hash}");
    }
}

/// The boxes of the quick start, on the addresses that it uses.
struct Boxes {
    host: Ns,
    client: Ns,
    server: Ns,
}

impl Boxes {
    fn new() -> Self {
        let (host, client, server) = (Ns::new(), Ns::new(), Ns::new());
        host.ip(&format!("link add eth0 type veth peer name eth0 netns {}", client.name()));
        client.ip(&format!("link add wan0 type veth peer name eth0 netns {}", server.name()));
        let links = [
            (&host, "eth0", "192.168.1.2"),
            (&client, "eth0", "192.168.1.20"),
            (&client, "wan0", "203.0.113.20"),
            (&server, "eth0", "203.0.113.10"),
        ];
        for (ns, link, address) in links {
            ns.ip(&format!("addr add {address}/24 dev {link}"));
            ns.ip(&format!("link set {link} up"));
        }
        Self { host, client, server }
    }

    fn named(&self, title: &str) -> Option<&Ns> {
        match title {
            "on the server" => Some(&self.server),
            "on the client" => Some(&self.client),
            "on another host of the LAN" => Some(&self.host),
            _ => None,
        }
    }
}

#[test]
fn the_quick_start_works_word_for_word() {
    needs_root!();
    let text = text_of("README.md");
    let quick_start = text.split("\n## ").find(|s| s.starts_with("Quick start")).unwrap();
    let (boxes, folder) = (Boxes::new(), tempfile::tempdir().unwrap());
    let (mut invite, mut running, mut pinged) = (String::new(), Vec::new(), false);
    let mut said = Vec::new();
    for block in blocks(quick_start) {
        if block.kind == "text" {
            said.extend(block.lines.iter().filter(|line| line.starts_with("INFO ")).cloned());
        }
        let Some(ns) = boxes.named(block.title()).filter(|_| block.kind == "sh") else { continue };
        for line in block.without_comments().lines {
            let typed = line.replace("INVITE", &invite);
            let words: Vec<&str> = typed.split(' ').collect();
            let program = if words[0] == "tap-rs" { TAP_RS } else { words[0] };
            let mut command = ns.command(program);
            command.args(&words[1..]).current_dir(folder.path());
            if let ["tap-rs", "-c", _] = words[..] {
                let program = Program::watch(command, line.clone());
                // The server has no NIC before it has a client.
                program.wait_for_log(&[if running.is_empty() { "server started" } else { NIC_READY }], SOON);
                running.push(program);
                continue;
            }
            let printed = run(command);
            if words[1] == "invite" {
                invite = printed.trim().to_owned();
            }
            pinged |= words[0] == "ping" && printed.contains(" 0% packet loss");
        }
    }
    assert_eq!((running.len(), pinged), (2, true));
    assert!(invite.len() > 80);
    // Which cipher it is depends on the processor.
    let client = running[1].lines().join("\n");
    for line in &said {
        let line = line.split(" suite=").next().unwrap();
        assert!(client.contains(line), "{line:?} in {client}");
    }
    assert!(said.len() >= 4, "{said:?}");
    for mut program in running {
        assert_eq!(program.interrupt().code(), Some(0), "Ctrl-C");
    }
    assert!(!boxes.server.has_link("tap0") && !boxes.client.has_link("mv0"));
}

#[track_caller]
fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let files = markdown_files();
    assert!(files.len() >= 10, "{files:?}");
    let mut checked = 0;
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for target in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let there = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            assert!(there.exists(), "{}: ({target})", file.display());
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&there).unwrap());
                assert!(anchors.contains(anchor), "{}: ({target}) not among {anchors:?}", file.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

/// Every Markdown file of the repository.
fn markdown_files() -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                let ours = name != "target" && (name == ".ci" || !name.to_string_lossy().starts_with('.'));
                folders.extend(ours.then_some(path));
            } else if path.extension().is_some_and(|e| e == "md") {
                files.push(path);
            }
        }
    }
    files
}

/// `[text](target)` outside of blocks and of `code`.
fn links(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut prose = String::new();
    for line in text.lines() {
        inside ^= line.starts_with("```");
        if !inside {
            // Every other piece is code.
            line.split('`').step_by(2).for_each(|piece| prose.push_str(&format!("{piece}`")));
            prose.push('\n');
        }
    }
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// Where `#…` can lead: headings, by the rule that hosts of repositories use, and `<a id="…">`.
fn anchors(text: &str) -> BTreeSet<String> {
    let ids = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    });
    ids.chain(headings).collect()
}
