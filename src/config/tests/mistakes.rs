//! What is wrong with a config is told with its place and what mends it.

use std::os::unix::fs::OpenOptionsExt;

use super::*;

#[test]
fn a_top_level_key_below_a_section_is_told_where_to_go() {
    let fixture = Fixture::new();
    let errors = fixture.errors(&format!("{CLIENT}{NIC}\nuse_remote_config=true\n"));
    assert_eq!(
        errors,
        "f.toml:11:1: `use_remote_config` belongs at the top level, but this line is in [[nics]]; \
         move it above the first [section]"
    );
}

#[test]
fn every_mistake_is_reported_in_one_run() {
    let fixture = Fixture::new();
    let text = r#"run_mode = "client"
private_key = "client.key"
tap_mode = "tun"
mtu = "1500"
moo = 1
protocol = "tcp"
suites = ["aes"]
[server]
bind_addr = "10.67.15.1000:1234"
public_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
[[nics]]
ifnam = "tap0"
ip = "18.8.80.150/24"
mac = "be:17:dd:5c:07:17"
[[nics]]
ifname = "tap1"
ip = ["18.8.80.150", "fe80::1"]
mac = "be:17:dd:5c:07:17"
mtu = 1000
client_ifname = "x"
[[nics]]
ifname = "a-name-that-is-too-long"
ip = 5
mac = "01:00:5e:00:00:01"
mtu = 9001
"#;
    let errors = fixture.errors(text);
    let expected = [
        (3, 12, "tun"),
        (4, 7, "`mtu`: found string \"1500\", write a whole number without quotes"),
        (5, 1, "there is no key \"moo\" at the top level"),
        (6, 12, "no TCP transport"),
        (7, 10, "`suites` is the server's"),
        (9, 13, "neither an address nor a DNS name"),
        (10, 14, "protect nothing"),
        (12, 1, "did you mean `ifname`?"),
        (17, 6, "the address 18.8.80.150 is already taken on line 13"),
        (17, 6, "an IPv6 address needs an MTU of at least 1280"),
        (18, 7, "the MAC be:17:dd:5c:07:17 is already taken on line 14"),
        (20, 17, "`client_ifname` is for the server's file"),
        (22, 10, "1 to 15 characters"),
        (23, 6, "text in quotes, or a list of them"),
        (24, 7, "cannot belong to an interface"),
        (25, 7, "`mtu` is 68 to 9000, not 9001"),
    ];
    assert_eq!(errors.lines().count(), expected.len(), "{errors}");
    for (line, (row, column, words)) in errors.lines().zip(expected) {
        assert!(
            line.starts_with(&format!("f.toml:{row}:{column}: ")) && line.contains(words),
            "{line} / {words}"
        );
    }
}

#[test]
fn one_bracket_or_two_is_explained() {
    let fixture = Fixture::new();
    let nics = fixture.errors(&format!("{CLIENT}{}", NIC.replace("[[nics]]", "[nics]")));
    assert_eq!(nics, "f.toml:6:1: write [[nics]], with two brackets: there may be several");
    let server = fixture.errors(&format!("{}{NIC}", CLIENT.replace("[server]", "[[server]]")));
    assert_eq!(server, "f.toml:3:1: write [server], with one pair of brackets: there is only one");
}

#[test]
fn missing_parts_are_named_with_what_to_add() {
    let fixture = Fixture::new();
    let empty = fixture.errors("");
    assert!(empty.contains("no `run_mode`"), "{empty}");
    let client = fixture.errors("run_mode = \"client\"");
    for words in ["tap-rs keygen --out", "no [server] section", "no NICs"] {
        assert!(client.contains(words), "{client}");
    }
    let server = fixture.errors("run_mode = \"server\"\n[server]\n[[clients]]\n");
    for words in ["2:1: no `bind_addr`", "3:1: this client has no name", "3:1: this client has no key"] {
        assert!(server.contains(words), "{server}");
    }
    let no_clients = SERVER.split_once("[[clients]]").unwrap().0;
    assert!(fixture.warnings(no_clients).contains("no clients yet; `tap-rs invite NAME`"));
    let no_owner = fixture.errors(&format!("{no_clients}{NIC}"));
    assert!(no_owner.contains("no clients; add [[clients]]"), "{no_owner}");
}

#[test]
fn a_key_in_the_config_is_refused() {
    let fixture = Fixture::new();
    for key in ["private_key = \"CLIENT_KEY\"", "private_key = \"client.key\"\npsk = \"CLIENT_KEY\""] {
        let errors = fixture.errors(&CLIENT.replace("private_key = \"client.key\"", key));
        assert!(errors.contains("a config file is no place for one"), "{errors}");
        assert!(!errors.contains(&fixture.client_key), "{errors}");
    }
}

#[test]
fn broken_toml_and_foreign_encodings_have_a_place() {
    let fixture = Fixture::new();
    assert!(fixture.errors("run_mode = client\nx = = 2\n").starts_with("f.toml:1:12: "));
    assert_eq!(fixture.errors("run_mode = client\nx = = 2\n").lines().count(), 2);
    let gbk = b"a = 1 # \xcd\xf8\xbf\xa8";
    let report = check_bytes(Path::new("f.toml"), Path::new("/"), gbk, &Overrides::default()).unwrap_err();
    assert!(report.to_string().starts_with("f.toml:1:9: this is not UTF-8"), "{report}");
}

#[test]
fn a_config_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(&folder.path().join("none.toml"), &Overrides::default()).unwrap_err().to_string();
    assert!(missing.contains("none.toml: cannot read the config: No such file"), "{missing}");
    assert!(missing.contains("`tap-rs init` makes a matching pair"), "{missing}");
    let here = load(folder.path(), &Overrides::default()).unwrap_err().to_string();
    assert!(here.contains("name the file in it"), "{here}");
    let path = folder.path().join("large.toml");
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.set_len(FILE_MAX as u64 + 1).unwrap();
    let large = load(&path, &Overrides::default()).unwrap_err().to_string();
    assert!(large.contains("longer than"), "{large}");
}
