//! Whole files, right and wrong.

use proptest::prelude::*;

use super::*;
use crate::keys::PrivateKey;
use crate::types::{NicMode, NicRules, NicStack, OffloadMode, Suite};

#[path = "tests/mistakes.rs"]
mod mistakes;
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
fn configs_of_the_original_need_only_keys() {
    let fixture = Fixture::new();
    let nics = r#"
[[nics]]
ifname = "tap0"  #网卡名
ip = "18.8.80.150"  # 网卡绑定ip地址
mac =  "be:17:dd:5c:07:17" # 网卡的mac地址

[[nics]]
ifname = "tap1"
ip = "18.8.80.151"
mac = "5e:56:56:13:23:a4"
"#;
    let client = format!(
        r#"
#is_daemon = true #可选 是否守护进程，默认false
tap_mode = "macvtap" #tap or macvtap
run_mode = "client"
#mtu = 1500  #可选 默认为1500
private_key = "client.key"
[server]
bind_addr = "10.67.15.100:1234" #服务器ip地址+端口
public_key = "SERVER_KEY"
{nics}"#
    );
    let NicSource::Local(local) = fixture.client(&client).nics else { panic!() };
    assert_eq!(local.iter().map(|n| n.spec.name.as_str()).collect::<Vec<_>>(), ["tap0", "tap1"]);
    assert!(local.iter().all(|n| n.spec.addrs.iter().all(|a| a.prefix.is_none())));
    assert_eq!(fixture.warnings(&client), "");

    let every_key = r#"pid = "/tmp/a.pid"
is_daemon = true
stdout = "/tmp/a.out"
stderr = "a.err"
tap_mode = "Tap"
mtu = 1400
run_mode = "Server"
reply_arp = false
protocol = "Udp"
log = "/var/log/whatever"
timeout = 120
use_remote_config = false
client_tap_mode = "MacvTap"
private_key = "server.key"
[server]
bind_addr = "10.67.15.100:1234"
script_path = "hello.sh"
script_content = "echo"
[[clients]]
name = "branch"
public_key = "CLIENT_KEY"
"#;
    let s = fixture.server(&format!("{every_key}{nics}"));
    let daemon = s.common.daemon.unwrap();
    assert_eq!((daemon.pid, daemon.stderr), ("/tmp/a.pid".into(), fixture.folder.path().join("a.err")));
    assert_eq!(s.common.dead_peer.as_secs(), 120);
    assert_eq!(s.clients[0].client_mode, Some(NicMode::Macvtap));
    assert_eq!(s.clients[0].script.as_deref(), Some(&b"#!/bin/sh\n"[..]));
    assert!(s.clients[0].nics.iter().all(|n| n.spec.mtu.bytes() == 1400));
    let warnings = fixture.warnings(&format!("{every_key}{nics}"));
    assert!(warnings.contains("f.toml:10:7: \"/var/log/whatever\" is no log level"), "{warnings}");
}

#[test]
fn a_file_of_the_original_without_keys_is_told_the_command_that_migrates_it() {
    let fixture = Fixture::new();
    let old = |side: &str| {
        let text = format!("tap_mode = \"tap\"\nrun_mode = \"{side}\"\nprotocol = \"Tcp\"\n");
        format!("{text}[server]\nbind_addr = \"192.0.2.1:1234\"\n{NIC}")
    };
    for side in ["client", "server"] {
        let errors = fixture.errors(&old(side));
        assert!(errors.starts_with("f.toml: this is a config of the original tap-rs"), "{errors}");
        assert!(errors.contains("`tap-rs migrate f.toml -o new.toml --keys .`"), "{errors}");
        assert_eq!(errors.lines().count(), 1, "whatever else is wrong with it: {errors}");
        // One that somebody has begun to change is told what is missing, and wrong.
        let begun = fixture.errors(&at_top("private_key = \"client.key\"", &old(side)));
        assert!(!begun.contains("migrate") && begun.contains("no TCP transport"), "{begun}");
    }
    // Without keys in the file: they may be given on the command line.
    let overrides = Overrides {
        private_key: Some(fixture.folder.path().join("client.key")),
        server_key: Some(fixture.server_key.clone()),
        ..Overrides::default()
    };
    let wrong = fixture.load_with(&old("client"), &overrides).unwrap_err().to_string();
    assert!(!wrong.contains("migrate") && wrong.contains("no TCP transport"), "{wrong}");
    assert!(fixture.load_with(&old("client").replace("Tcp", "Udp"), &overrides).is_ok());
}

#[test]
fn words_that_stand_for_keys_are_told_what_belongs_there() {
    let fixture = Fixture::new();
    let client = CLIENT.replace("SERVER_KEY", "SERVER_PUBLIC_KEY");
    let load = |text: &str| {
        check_bytes(Path::new("f.toml"), fixture.folder.path(), text.as_bytes(), &Overrides::default())
    };
    let why = load(&format!("{client}{NIC}")).unwrap_err().to_string();
    assert!(
        why.starts_with("f.toml:5:14: SERVER_PUBLIC_KEY stands for the public key of the server; write"),
        "{why}"
    );
    let server = SERVER.replace("CLIENT_KEY", "CLIENT_PUBLIC_KEY");
    let why = load(&format!("{server}{NIC}")).unwrap_err().to_string();
    assert!(
        why.starts_with("f.toml:7:14: CLIENT_PUBLIC_KEY stands for the public key of the client; write"),
        "{why}"
    );
}

#[test]
fn remote_nics_make_placeholders_of_the_local_ones() {
    let fixture = Fixture::new();
    let placeholder = "[[nics]]\nifname = \"what ever\"\nip = \"x\"\nmac = \"\"\n";
    let text = at_top("use_remote_config = true\nparent = \"eth0\"", &format!("{CLIENT}{placeholder}"));
    assert!(matches!(fixture.client(&text).nics, NicSource::Remote { parent: Some(_) }));
    assert!(fixture.warnings(&text).contains("f.toml:8:1: the NICs come from the server"));
    let none = at_top("use_remote_config = true", CLIENT);
    assert_eq!(fixture.client(&none).nics, NicSource::Remote { parent: None });
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
fn script_policy_is_complete_or_refused() {
    let fixture = Fixture::new();
    let remote = |key: &str| at_top(&format!("use_remote_config = true\n{key}"), CLIENT);
    let pinned = remote(&format!("script = \"pinned\"\nscript_sha256 = [\"{}\"]", "0a".repeat(32)));
    assert_eq!(fixture.client(&pinned).script, ScriptPolicy::Pinned(vec![[10; 32]]));
    assert!(fixture.warnings(&remote("script = \"any\"")).contains("is root on this client"));
    for (bad, words) in [
        ("script = \"pinned\"", "needs script_sha256"),
        ("script = \"pinned\"\nscript_sha256 = [\"00\"]", "64 hex digits"),
        ("script_sha256 = []", "write script = \"pinned\" too"),
        ("script = \"allways\"", "write \"never\" or \"pinned\" or \"any\""),
        ("script_timeout = 0", "1 to 3600"),
        ("script_timeout = 3601", "1 to 3600"),
    ] {
        let errors = fixture.errors(&remote(bad));
        assert!(errors.contains(words), "{bad}: {errors}");
    }
}

#[test]
fn scripts_are_files_that_fit() {
    let fixture = Fixture::new();
    let with = |script: &str| format!("{SERVER}script_path = \"{script}\"\n{NIC}");
    let file =
        |name: &str, size: usize| std::fs::write(fixture.folder.path().join(name), vec![b'x'; size]).unwrap();
    file("empty", 0);
    let room = PUSH_MAX - 8 - 43 - 18;
    file("fits", room);
    file("tight", room + 1);
    file("long", PUSH_MAX + 1);
    assert_eq!(fixture.server(&with("fits")).clients[0].script.as_ref().map(|s| s.len()), Some(room));
    for (name, words) in [
        ("empty", "is empty"),
        ("tight", "there is room for"),
        ("long", "longer than"),
        (".", "not a regular file"),
        ("none", "cannot read the script"),
    ] {
        let errors = fixture.errors(&with(name));
        assert!(errors.starts_with("f.toml:8:15: ") && errors.contains(words), "{errors}");
    }
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

#[test]
fn a_hook_is_a_program_that_nobody_else_can_change() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    let with = |line: &str| format!("{CLIENT}{NIC}[hooks]\n{line}\n");
    let path = fixture.folder.path().join("hook.sh");
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    let Config::Client(c) = fixture.load(&with("up = \"hook.sh\"\ntimeout = 5")).unwrap().0 else { panic!() };
    assert_eq!(c.common.hooks.program(Hook::Up), Some(path.as_path()));
    assert_eq!((c.common.hooks.program(Hook::Down), c.common.hooks.timeout.as_secs()), (None, 5));
    for (bad, line, why) in [
        (0o775, "up = \"hook.sh\"", "chmod go-w"),
        (0o644, "up = \"hook.sh\"", "chmod +x"),
        (0o755, "up = \"nowhere.sh\"", "No such file"),
        (0o755, "up = \"/\"", "is no file"),
        (0o755, "verify = \"hook.sh\"", "asked on a server"),
        (0o755, "timeout = 61", "1 to 60"),
    ] {
        mode(bad);
        let said = fixture.errors(&with(line));
        assert!(said.contains(why), "{line}: {said}");
    }
}
