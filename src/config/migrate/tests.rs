//! Files of the original, as its README had them and otherwise, and what becomes of them.

use proptest::prelude::*;

use super::*;
use crate::config::{Config, NicSource, Overrides, check_bytes};
use crate::keys::PrivateKey;

const CLIENT: &str = r#"
#is_daemon = true #可选 是否守护进程，默认false
tap_mode = "macvtap" #tap or macvtap
run_mode = "client"
#mtu = 1500  #可选 默认为1500

[server]
bind_addr = "192.168.1.100:1234" #服务器ip地址+端口

[[nics]]
ifname = "tap0"
ip = "18.8.80.150"
mac =  "be:17:dd:5c:07:17"

[[nics]]
ifname = "tap1"
ip = "18.8.80.151"
mac = "5e:56:56:13:23:a4"

# 客户端假如接受服务端的远程配置下发
#use_remote_config=true
"#;

const SERVER: &str = r#"
tap_mode = "Tap" #tap or macvtap
run_mode = "Server"
client_tap_mode = "MacvTap"

[server]
bind_addr = "192.168.1.100:1234" #服务器ip地址+端口

# the cameras
[[nics]]
ifname = "tap0"  #网卡名
ip = "18.8.80.150"  # 网卡绑定ip地址
mac =  "be:17:dd:5c:07:17" # 网卡的mac地址
"#;

fn wish() -> Wish<'static> {
    Wish { private_key: "own.key", name: "branch", ..Wish::default() }
}

fn migrate(text: &str, wish: &Wish<'_>) -> (String, Vec<Change>) {
    Old::read(text).unwrap().unwrap().migrate(wish)
}

/// What is said of lines with this deed: `LINE WHAT`.
fn said(changes: &[Change], deed: Deed) -> Vec<String> {
    let all = changes.iter().filter(|c| c.deed == deed);
    all.map(|c| format!("{} {}", c.line, c.what)).collect()
}

/// The config that it is, with keys that fit; it has no warnings.
#[track_caller]
fn checked(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    PrivateKey::generate(&mut rand::rng()).write_new(&folder.path().join("own.key")).unwrap();
    let other = PrivateKey::generate(&mut rand::rng()).public().to_string();
    let text = text.replace(SERVER_KEY, &other).replace(CLIENT_KEY, &other);
    match check_bytes(Path::new("f.toml"), folder.path(), text.as_bytes(), &Overrides::default()) {
        Ok((config, warnings)) => {
            assert!(warnings.is_empty(), "{warnings:?}\n{text}");
            config
        }
        Err(report) => panic!("{report}\n{text}"),
    }
}

#[test]
fn the_clients_example_gets_two_lines_and_keeps_the_rest() {
    let (new, changes) = migrate(CLIENT, &wish());
    let lines: Vec<&str> = new.lines().collect();
    assert_eq!((lines[4], lines[9]), ("private_key = \"own.key\"", "public_key = \"SERVER_PUBLIC_KEY\""));
    let without: String = new.lines().filter(|l| !l.contains("_key =")).map(|l| format!("{l}\n")).collect();
    assert_eq!(without, CLIENT);
    assert!(said(&changes, Deed::Added)[0].starts_with("5 private_key: "), "{changes:?}");
    assert!(said(&changes, Deed::Added)[1].starts_with("10 public_key: "), "{changes:?}");
    let notes = said(&changes, Deed::Noted);
    assert!(notes[0].starts_with("3 tap_mode") && notes[0].contains("--parent eth0"), "{notes:?}");
    assert!(notes[1].starts_with("12 ip = \"18.8.80.150\": ") && notes.len() == 2, "once: {notes:?}");
    assert!(
        matches!(checked(&new), Config::Client(c) if matches!(&c.nics, NicSource::Local(n) if n.len() == 2))
    );
}

#[test]
fn the_servers_example_gets_its_client_and_addresses_that_are_set() {
    let (new, changes) = migrate(SERVER, &Wish { prefix: Some(24), name: "north", ..wish() });
    let (_, client) = new.split_once("[[clients]]\n").unwrap();
    assert!(
        client.starts_with("name = \"north\"\npublic_key = \"CLIENT_PUBLIC_KEY\"\n\n# the cameras\n"),
        "{new}"
    );
    assert!(new.contains("ip = \"18.8.80.150/24\"  # 网卡绑定ip地址"), "{new}");
    assert!(said(&changes, Deed::Changed)[0].starts_with("12 ip = \"18.8.80.150\" is now"), "{changes:?}");
    assert!(said(&changes, Deed::Noted)[0].contains("close TCP port 1234"), "{changes:?}");
    assert!(said(&changes, Deed::Added)[1].starts_with("10 [[clients]]"), "{changes:?}");
    let Config::Server(server) = checked(&new) else { panic!() };
    assert_eq!(server.clients[0].nics[0].spec.addrs[0].to_string(), "18.8.80.150/24");
    let (new, changes) = migrate(SERVER, &wish());
    assert!(new.contains("ip = \"18.8.80.150\"  #"), "{new}");
    assert!(said(&changes, Deed::Noted)[1].contains("--prefix 24"), "{changes:?}");
}

#[test]
fn keys_that_are_gone_moved_or_of_another_form_are_each_told_with_their_line() {
    let top = "pid = \"/tmp/a/c.pid\"\nstdout = \"/tmp/out\"\nis_daemon = true\ntimeout = 120\nprotocol = \"Tcp\"\n\
               log = \"/var/log/x\"\nmtu = 65_000\ntap_mode = \"Tun\"\nrun_mode = \"client\"\n\
               client_tap_mode = \"tap\"\nfoo = 1 # unknown\n";
    let rest = "[server]\nbind_addr = \"192.0.2.1:1\"\nscript_path = \"x\"\nscript_content = \"\"\"\nexit 1\n\"\"\"\n\
                bar = 2\n[[nics]]\nifname = \"tap0\"\nip = \"18.8.80.150\"\nmac = \"be:17:dd:5c:07:17\"\n\
                use_remote_config = true\n[extra]\nx = 1\n";
    let (new, changes) = migrate(&format!("{top}{rest}"), &wish());
    let wanted = "pid = \"/run/c.pid\"\nstdout = \"/var/log/out\"\nis_daemon = true\nmtu = 9000\ntap_mode = \"macvtap\"\n\
                  run_mode = \"client\"\nprivate_key = \"own.key\"\n[server]\nbind_addr = \"192.0.2.1:1\"\n\
                  public_key = \"SERVER_PUBLIC_KEY\"\n[[nics]]\nifname = \"tap0\"\nip = \"18.8.80.150\"\n\
                  mac = \"be:17:dd:5c:07:17\"\n";
    assert_eq!(new, wanted);
    checked(&new);
    let lines = |deed| -> Vec<usize> { changes.iter().filter(|c| c.deed == deed).map(|c| c.line).collect() };
    assert_eq!(lines(Deed::Gone), [4, 5, 6, 10, 11, 14, 15, 18, 23, 24], "{changes:#?}");
    assert_eq!(lines(Deed::Changed), [1, 2, 7, 8], "{changes:#?}");
    let gone = said(&changes, Deed::Gone);
    assert!(gone[8].contains("below a [section]") && gone[9].starts_with("24 [extra]: "), "{gone:?}");
}

#[test]
fn placeholders_of_nics_from_the_server_go_and_no_script_runs_unasked() {
    let text = CLIENT.replace("run_mode = \"client\"", "run_mode = \"client\"\nuse_remote_config = true");
    let parent = "eth0".parse().unwrap();
    let (new, changes) = migrate(&text, &Wish { parent: Some(&parent), ..wish() });
    assert!(!new.contains("[[nics]]") && new.contains("#use_remote_config=true"), "{new}");
    assert!(new.contains("parent = \"eth0\"\nscript = \"never\"\n"), "{new}");
    assert_eq!(said(&changes, Deed::Gone).len(), 2);
    assert!(
        matches!(checked(&new), Config::Client(c) if matches!(c.nics, NicSource::Remote { parent: Some(_) }))
    );
}

#[test]
fn a_server_loses_what_is_a_clients_and_one_of_two_scripts() {
    let text = SERVER
        .replace("client_tap_mode = \"MacvTap\"", "use_remote_config = false\nreply_arp = true")
        .replace("#服务器", "\nscript_content = 'exit 0'\nscript_path = 's.sh' #");
    let (new, changes) = migrate(&text, &Wish { from: Some(Path::new("/old")), ..wish() });
    assert!(new.contains("script_path = \"/old/s.sh\" #") && !new.contains("script_content"), "{new}");
    assert_eq!(said(&changes, Deed::Gone).len(), 3, "{changes:?}");
    let (_, changes) = migrate(&text, &wish());
    assert!(said(&changes, Deed::Noted)[1].contains("script_sha256"), "{changes:?}");
}

#[test]
fn tables_may_be_written_in_a_line_or_with_points() {
    let nics = "nics = [{ ifname = \"tap0\", ip = \"18.8.80.150\", mac = \"be:17:dd:5c:07:17\" }]\n";
    for server in ["server = { bind_addr = \"192.0.2.1:1\" }\n", "server.bind_addr = \"192.0.2.1:1\"\n"] {
        for side in ["client", "server"] {
            let text =
                format!("run_mode = \"{side}\"\ntap_mode = \"tap\"\n{nics}{server}").trim_end().to_owned();
            let (new, _) = migrate(&text, &wish());
            checked(&new);
            assert!(Old::read(&new).unwrap().is_none(), "{new}");
        }
    }
}

#[test]
fn what_stands_in_a_line_is_looked_at_key_by_key() {
    let nic = |n: u8| {
        format!(
            "{{ foo = [1, {{ ip = 2 }}], ifname = \"tap{n}\", ip = \"18.8.80.{n}\", mac = \"be:17:dd:5c:07:1{n}\" }}"
        )
    };
    let text = format!(
        "run_mode = \"server\"\ntap_mode = \"tap\"\nserver = {{ bar = 1, bind_addr = \"192.0.2.1:1\", script_content = 'exit', \
         script_path = 's.sh', baz = 2 }}\nnics = [\n  {}, # one\n  {}\n]\n",
        nic(1),
        nic(2)
    );
    let wish = Wish { prefix: Some(24), from: Some(Path::new("/old")), ..wish() };
    let (new, changes) = migrate(&text, &wish);
    assert!(new.contains("server = { bind_addr = \"192.0.2.1:1\", script_path = \"/old/s.sh\" }\n"), "{new}");
    let wanted =
        |n| format!("{{ ifname = \"tap{n}\", ip = \"18.8.80.{n}/24\", mac = \"be:17:dd:5c:07:1{n}\" }}");
    assert!(new.contains(&format!("nics = [\n  {}, # one\n  {}\n]\n", wanted(1), wanted(2))), "{new}");
    let lines = |deed| -> Vec<usize> { changes.iter().filter(|c| c.deed == deed).map(|c| c.line).collect() };
    assert_eq!(lines(Deed::Gone), [3, 3, 3, 5, 6], "{changes:#?}");
    assert_eq!(lines(Deed::Changed), [3, 5, 6], "{changes:#?}");
    // With points, and of a client: its address is told of.
    let text = "run_mode = \"client\"\nserver.bind_addr = \"192.0.2.1:1\"\nserver.bar = 1\nserver.script_path = \"x\"\n\
                nics = [{ ifname = \"tap0\", ip = \"18.8.80.1\", mac = \"be:17:dd:5c:07:17\", foo = 1 }]\n";
    let (new, changes) = migrate(text, &wish);
    checked(&new);
    assert!(new.contains("mac = \"be:17:dd:5c:07:17\" }]"), "{new}");
    assert!(said(&changes, Deed::Noted)[0].starts_with("5 ip = \"18.8.80.1\": "), "{changes:?}");
    assert_eq!(said(&changes, Deed::Gone).len(), 3, "{changes:?}");
}

#[test]
fn an_ipv6_address_has_a_prefix_length_of_its_own() {
    let text = SERVER.replace("18.8.80.150", "2001:db8::150");
    let (new, changes) = migrate(&text, &Wish { prefix: Some(24), ..wish() });
    assert!(new.contains("ip = \"2001:db8::150\"  #"), "{new}");
    let note = said(&changes, Deed::Noted).pop().unwrap();
    assert!(note.contains("2001:db8::150/64") && note.contains("`--prefix6 64`"), "{note}");
    let (new, _) = migrate(&text, &Wish { prefix: Some(24), prefix6: Some(48), ..wish() });
    assert!(new.contains("ip = \"2001:db8::150/48\"  #"), "{new}");
    checked(&new);
}

#[test]
fn what_is_new_already_is_told_from_what_is_not() {
    for text in [CLIENT, SERVER] {
        let (new, _) = migrate(text, &wish());
        assert!(Old::read(&new).unwrap().is_none(), "{new}");
        // Somebody had begun by hand.
        let begun = text.replace("\n[server]", "private_key = \"k\"\n[server]");
        let (new, _) = migrate(&begun, &wish());
        assert!(new.contains("private_key = \"k\"\n") && !new.contains("own.key"), "{new}");
    }
    let fresh = "run_mode = \"server\"\nprivate_key = \"k\"\n[server]\nbind_addr = \"[::]:1\"\n";
    assert!(Old::read(fresh).unwrap().is_none());
    assert!(Old::read("[server]\nrun_mode = \"client\"\n").unwrap_err().0.contains("which side"));
}

/// Lines as people write them, and as nobody should.
const LINES: &[&str] = &[
    "run_mode = \"client\"",
    "run_mode = 'Server' # x",
    "tap_mode = \"Tun\"",
    "timeout = 120",
    "use_remote_config = true",
    "  protocol = \"Tcp\"\t# why",
    "mtu = 0",
    "pid = \"/tmp/é/x\"",
    "nics = [ { ip = \"1.2.3.4\" },\n]",
    "server = {}",
    "server = { x = 1, bind_addr = \"1.2.3.4:5\", y = [{}] }",
    "nics = [{ a = 1, ip = \"1.2.3.4\", b.c = { d = 2 } }, { x = 1 }]",
    "server.bind_addr = \"1.2.3.4:5\"",
    "[server]",
    "[[nics]]\r",
    "[other.thing]",
    "[[clients]]",
    "bind_addr = \"1.2.3.4:5\"",
    "script_content = \"\"\"\n[[nics]]\n\"\"\"",
    "ip = \"18.8.80.150\"",
    "ifname = \"网\"",
    "\"quoted key\" = { a = [1, 2] }",
    "# comment",
    "",
];

proptest! {
    #[test]
    fn what_was_toml_still_is_and_is_never_migrated_twice(
        lines in proptest::collection::vec(proptest::sample::select(LINES), 0..14),
        end in proptest::bool::ANY,
    ) {
        let text = lines.join("\n") + if end { "\n" } else { "" };
        let is_toml = |text: &str| toml::de::DeTable::parse(text).is_ok();
        if is_toml(&text) && let Ok(Some(old)) = Old::read(&text) {
            let (new, changes) = old.migrate(&Wish { prefix: Some(24), ..wish() });
            prop_assert!(is_toml(&new), "{text}\n----\n{new}");
            prop_assert!(!changes.is_empty());
            let again = Old::read(&new).unwrap();
            let has_server = new.contains("SERVER_PUBLIC_KEY");
            prop_assert!(again.is_none() || old.role == Role::Client && !has_server, "{text}\n----\n{new}");
        }
    }
}
