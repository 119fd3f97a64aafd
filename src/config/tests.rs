//! Whole files, right and wrong.

use proptest::prelude::*;

use super::*;
use crate::keys::PrivateKey;
use crate::types::{NicMode, NicRules, NicStack, OffloadMode, Suite};

#[path = "tests/mistakes.rs"]
mod mistakes;
#[path = "tests/original.rs"]
mod original;
#[path = "tests/programs.rs"]
mod programs;
#[path = "tests/stack.rs"]
mod stack;

/// A folder with the keys that the files below name, and the placeholders that stand for them.
struct Fixture {
    folder: tempfile::TempDir,
    server_key: String,
    client_key: String,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let key = PrivateKey::generate(&mut rand::rng());
            key.write_new(&folder.path().join(name)).unwrap();
            key.public().to_string()
        };
        let (server_key, client_key) = (make("server.key"), make("client.key"));
        std::fs::write(folder.path().join("hello.sh"), "#!/bin/sh\n").unwrap();
        Self { folder, server_key, client_key }
    }

    fn load(&self, text: &str) -> Result<(Config, Vec<Warning>), Report> {
        self.load_with(text, &Overrides::default())
    }

    fn load_with(&self, text: &str, overrides: &Overrides) -> Result<(Config, Vec<Warning>), Report> {
        let text = text.replace("SERVER_KEY", &self.server_key).replace("CLIENT_KEY", &self.client_key);
        check_bytes(Path::new("f.toml"), self.folder.path(), text.as_bytes(), overrides)
    }

    fn client(&self, text: &str) -> ClientConfig {
        match self.load(text) {
            Ok((Config::Client(c), _)) => c,
            other => panic!("{other:#?}"),
        }
    }

    fn server(&self, text: &str) -> ServerConfig {
        match self.load(text) {
            Ok((Config::Server(s), _)) => s,
            other => panic!("{other:#?}"),
        }
    }

    /// The errors of `text`, one a line.
    fn errors(&self, text: &str) -> String {
        self.load(text).expect_err(text).to_string()
    }

    fn warnings(&self, text: &str) -> String {
        let (_, warnings) = self.load(text).unwrap_or_else(|e| panic!("{e}"));
        warnings.iter().map(|w| format!("{w}\n")).collect()
    }
}

const CLIENT: &str = r#"run_mode = "client"
private_key = "client.key"
[server]
bind_addr = "tunnel.example.net:1234"
public_key = "SERVER_KEY"
"#;

const SERVER: &str = r#"run_mode = "server"
private_key = "server.key"
[server]
bind_addr = "[::]:1234"
[[clients]]
name = "branch"
public_key = "CLIENT_KEY"
"#;

const NIC: &str = r#"[[nics]]
ifname = "tap0"
ip = "18.8.80.150/24"
mac = "be:17:dd:5c:07:17"
"#;

fn at_top(key: &str, text: &str) -> String {
    format!("{key}\n{text}")
}

#[test]
fn a_small_client_gets_the_defaults() {
    let fixture = Fixture::new();
    let c = fixture.client(&format!("{CLIENT}{NIC}parent = \"eth0\"\n"));
    assert_eq!(c.mode, NicMode::Macvtap);
    assert_eq!(c.server.to_string(), "tunnel.example.net:1234");
    assert_eq!(c.common.private_key, fixture.folder.path().join("client.key"));
    assert_eq!((c.common.log, c.common.daemon, c.common.offload), (Level::Info, None, OffloadMode::Auto));
    assert_eq!(
        (c.common.dead_peer.as_secs(), c.keepalive.as_secs(), c.script_timeout.as_secs()),
        (3, 10, 60)
    );
    assert_eq!((c.suite, c.script, c.reply_arp), (SuiteChoice::Auto, ScriptPolicy::Never, false));
    assert_eq!(
        c.limits,
        Limits { max_nics: 64, parents: vec![], mtu: 576..=9000, rules: NicRules::default() }
    );
    let NicSource::Local(nics) = c.nics else { panic!() };
    assert_eq!(nics.len(), 1);
    assert_eq!(nics[0].spec.mtu.bytes(), 1500);
    assert_eq!(nics[0].parent.as_ref().map(|p| p.as_str()), Some("eth0"));
}

#[test]
fn top_level_nics_belong_to_the_one_client() {
    let fixture = Fixture::new();
    let s = fixture.server(&format!("{SERVER}{NIC}"));
    assert_eq!((s.mode, s.suites.as_slice()), (NicMode::Tap, &[Suite::Aes, Suite::ChaCha][..]));
    let [client] = s.clients.as_slice() else { panic!() };
    assert_eq!((client.name.as_str(), client.keys[0].to_string()), ("branch", fixture.client_key.clone()));
    let [nic] = client.nics.as_slice() else { panic!() };
    assert_eq!((nic.client_name.as_str(), nic.configure), ("tap0", true));
    let two = SERVER.replace("branch", "other").replace("CLIENT_KEY", "SERVER_KEY");
    let second = two.split_once("[[clients]]").map(|(_, rest)| format!("[[clients]]{rest}")).unwrap();
    let errors = fixture.errors(&format!("{SERVER}{second}{NIC}"));
    assert!(errors.contains("f.toml:11:1: with several [[clients]]"), "{errors}");
    assert!(errors.contains("f.toml:10:14: this is the public key of the server's own"), "{errors}");
}

#[test]
fn key_files_are_read_and_swapped_keys_are_noticed() {
    let fixture = Fixture::new();
    let missing = fixture.errors(&format!("{CLIENT}{NIC}").replace("client.key", "none.key"));
    assert!(missing.starts_with("f.toml:2:15: there is no key file"), "{missing}");
    let own = fixture.errors(&format!("{CLIENT}{NIC}").replace("SERVER_KEY", "CLIENT_KEY"));
    assert!(own.starts_with("f.toml:5:14: this is the public key of this client's own"), "{own}");
    let from_file = fixture.client(&format!("{CLIENT}{NIC}").replace("SERVER_KEY", "server.key.pub"));
    assert_eq!(from_file.server_key.to_string(), fixture.server_key);
    let psk = fixture.errors(&at_top("psk = \"server.key.pub\"", &format!("{CLIENT}{NIC}")));
    assert!(psk.starts_with("f.toml:1:7:") && psk.contains("is a public key's file"), "{psk}");
    std::fs::write(fixture.folder.path().join("open"), "").unwrap();
    let psk = fixture.errors(&at_top("psk = \"open\"", &format!("{CLIENT}{NIC}")));
    assert!(psk.contains("f.toml:1:7: others may open") && psk.contains("chmod 600"), "{psk}");
}

#[test]
fn the_command_line_goes_over_the_file() {
    let fixture = Fixture::new();
    let path = |name: &str| fixture.folder.path().join(name);
    let overrides = Overrides {
        role: Some(Role::Client),
        log: Some(Level::Trace),
        private_key: Some(path("client.key")),
        server_key: Some(path("server.key.pub").to_string_lossy().into_owned()),
        credential: Some(path("nowhere")),
        psk: None,
    };
    let bare = format!("[server]\nbind_addr = \"192.0.2.1:1\"\n{NIC}");
    let Ok((Config::Client(c), _)) = fixture.load_with(&bare, &overrides) else { panic!() };
    assert_eq!((c.common.log, c.server_key.to_string()), (Level::Trace, fixture.server_key.clone()));
    let wrong_side = fixture.load_with(&format!("{SERVER}{NIC}"), &overrides).unwrap_err().to_string();
    assert!(wrong_side.contains("f.toml:1:12: this is a server's file"), "{wrong_side}");
}

#[test]
fn several_clients_have_their_own_settings() {
    let fixture = Fixture::new();
    let text = format!(
        r#"{SERVER}script_path = "hello.sh"
client_tap_mode = "tap"
mtu = 1400
[[clients.nics]]
ifname = "b0"
client_ifname = "mv0"
client_parent = "eth1"
ip = ["10.0.0.2/8", "2001:db8::2/64"]
mac = "be:17:dd:5c:07:17"
configure = false
bridge = true
vlan = true
strict = true
broadcast_pps = 7
[[clients.nics]]
ifname = "b1"
ip = "10.0.0.3"
mac = "be:17:dd:5c:07:18"
mtu = 9000
"#
    );
    let s = fixture.server(&text);
    let [client] = s.clients.as_slice() else { panic!() };
    assert_eq!(client.client_mode, Some(NicMode::Tap));
    assert!(client.script.is_some());
    let [first, second] = client.nics.as_slice() else { panic!() };
    assert_eq!((first.client_name.as_str(), first.spec.mtu.bytes()), ("mv0", 1400));
    assert_eq!((first.spec.addrs.len(), first.configure), (2, false));
    assert!(first.rules.bridge && first.rules.vlan && first.rules.strict && first.rules.broadcast_pps == 7);
    assert_eq!(second.spec.mtu.bytes(), 9000);
}

#[test]
fn the_reader_and_the_list_of_keys_agree() {
    // The list and the structs come from one macro; this holds the nesting of the tables.
    let fixture = Fixture::new();
    for (table, keys) in KEYS {
        let header = match *table {
            "top level" => "",
            table => table,
        };
        for key in *keys {
            let errors = fixture.load(&format!("{header}\n{key} = 1979-05-27\n")).unwrap_err().to_string();
            assert!(!errors.contains("there is no key"), "{table} {key}: {errors}");
            assert!(
                errors.contains(&format!("`{key}`")) || errors.contains("brackets"),
                "{table} {key}: {errors}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = check_bytes(Path::new("f"), Path::new("/nonexistent"), &bytes, &Overrides::default());
    }

    #[test]
    fn no_mix_of_keys_and_values_panics(
        lines in proptest::collection::vec((0..60usize, 0..12usize), 0..30),
        server in any::<bool>(),
    ) {
        let keys: Vec<&str> = KEYS.iter().flat_map(|(_, keys)| keys.iter().copied())
            .chain(["[server]", "[[nics]]", "[[clients]]", "[[clients.nics]]", "[limits]", "[nics]", "\"\"", "a.b"])
            .collect();
        let values = ["1", "-9223372036854775808", "true", "\"\"", "\"tap\"", "[]", "[\"x\", 1]", "{}", "{a=1}",
            "\"10.0.0.1/8\"", "[{ifname=1}]", "1.5"];
        let mut text = format!("run_mode = {:?}\n", if server { "server" } else { "client" });
        for (key, value) in lines {
            let key = keys[key % keys.len()];
            let line = if key.starts_with('[') { key.to_owned() } else { format!("{key} = {}", values[value]) };
            text.push_str(&line);
            text.push('\n');
        }
        let _ = check_bytes(Path::new("f"), Path::new("/nonexistent"), text.as_bytes(), &Overrides::default());
    }
}

#[test]
fn metrics_are_given_out_where_the_file_says_and_on_loopback_by_a_port_alone() {
    let fixture = Fixture::new();
    let whole = format!("{CLIENT}{NIC}");
    let at = |value: &str| at_top(&format!("metrics = {value}"), &whole);
    assert_eq!(fixture.client(&whole).common.metrics, None);
    for (written, address) in [
        ("9095", "127.0.0.1:9095"),
        ("\"9095\"", "127.0.0.1:9095"),
        ("\"[::1]:80\"", "[::1]:80"),
        ("\"192.0.2.1:65535\"", "192.0.2.1:65535"),
    ] {
        assert_eq!(fixture.client(&at(written)).common.metrics, Some(address.parse().unwrap()), "{written}");
    }
    assert!(fixture.warnings(&at("\"0.0.0.0:9095\"")).contains("whoever can reach this address"));
    for bad in ["0", "65536", "-1", "\"\"", "\"localhost:9095\"", "\"127.0.0.1\"", "\"127.0.0.1:0\""] {
        let errors = fixture.errors(&at(bad));
        assert!(
            errors.contains("`metrics` cannot be") && errors.contains("127.0.0.1:9095"),
            "{bad}: {errors}"
        );
    }
    assert!(fixture.errors(&at("true")).contains("metrics"));
}
