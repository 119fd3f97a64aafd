//! Files of the original, with and without what they lack here.

use super::*;

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
