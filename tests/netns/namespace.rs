//! NICs of a server that live in network namespaces of their own.

use std::path::Path;
use std::process::Command;

use crate::common::lab::{Edit, Lab, NIC_GONE, NIC_READY, Nic, SOON};
use crate::common::program::{Program, TAP_RS};
use crate::common::traces::{gone, keeper_of, kill_both, until};
use crate::doctor::{doctor, finding};
use crate::needs_root;

/// The name of a namespace that tap-rs is to make; removed with its guard.
pub struct Named(String);

impl Named {
    pub fn beside(lab: &Lab) -> Self {
        Self(format!("{}-own", lab.server.name()))
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    pub fn exists(&self) -> bool {
        Path::new("/run/netns").join(&self.0).exists()
    }

    fn ip(&self, words: &str) -> String {
        let output = Command::new("ip").args(["-n", &self.0]).args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn has_link(&self, name: &str) -> bool {
        self.ip("link show").contains(name)
    }

    fn edit(&self) -> Edit {
        let nic = format!("netns = \"{}\"\ngateway = [\"10.80.0.2\", \"fd00:80::2\"]", self.0);
        Edit { nic, ..Edit::default() }
    }
}

/// Starts the server that is configured, with the mounts that this test has: `ip netns exec` would give it its own, and
/// nobody outside would see what it mounts there.
fn run(lab: &Lab) -> Program {
    run_file(lab, &lab.dir().join("server.toml"))
}

/// The same with another file.
pub fn run_file(lab: &Lab, file: &Path) -> Program {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", lab.server.name())).arg(TAP_RS);
    command.arg("-c").arg(file);
    Program::watch(command, "server.toml".to_owned())
}

fn start(lab: &Lab, edit: &Edit) -> Program {
    lab.write("server.toml", lab.server_toml(edit));
    let server = run(lab);
    for nic in &lab.sites[0].nics {
        server.wait_for_log(&[NIC_READY, &nic.on_server], SOON);
    }
    server
}

fn start_server(lab: &Lab, named: &Named) -> Program {
    start(lab, &named.edit())
}

fn up(lab: &Lab, named: &Named) -> (Program, Program) {
    let (server, client) = (start_server(lab, named), lab.start_client(0, &Edit::default()));
    for nic in &lab.sites[0].nics {
        client.wait_for_log(&[NIC_READY, &nic.on_client], SOON);
    }
    (server, client)
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

#[test]
fn a_nic_lives_in_a_namespace_that_is_made_for_it_and_goes_with_it() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let named = Named::beside(&lab);
    let rules = lab.server.ip("rule show");
    let (mut server, _client) = up(&lab, &named);
    site.lan.ping(nic.ip);
    site.lan.ping(nic.ip6);
    assert!(named.has_link(&nic.on_server) && !lab.server.has_link(&nic.on_server));
    assert_eq!(lab.server.ip("rule show"), rules, "nothing of the server's own stack is touched");
    assert!(named.ip("route show").contains("default via 10.80.0.2"), "{}", named.ip("route show"));
    assert!(named.ip("-6 route show").contains("default via fd00:80::2"));
    assert!(named.ip("link show lo").contains(",UP"));
    assert!(server.terminate().success());
    assert!(!named.exists());
}

#[test]
fn two_nics_share_a_namespace_and_each_answers_by_itself() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let named = Named::beside(&lab);
    let (_server, _client) = up(&lab, &named);
    let site = &lab.sites[0];
    for nic in &site.nics {
        site.lan.ping(nic.ip);
        assert_eq!(site.lan.neighbour(nic.ip), Some(nic.mac_text()));
    }
    assert_eq!(named.ip("rule show").matches("proto 116").count(), 2);
    assert_eq!(named.ip("route show").matches("default via").count(), 2);
}

#[test]
fn what_others_do_to_a_nic_in_its_namespace_is_mended() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let named = Named::beside(&lab);
    let (server, _client) = up(&lab, &named);
    site.lan.ping(nic.ip);
    named.ip(&format!("link del {}", nic.on_server));
    server.wait_for_nth(&[NIC_READY, &nic.on_server], 2, SOON);
    site.lan.ping(nic.ip);
    for (change, told) in [("link set NIC down", "its link"), ("addr flush dev NIC", "its address")] {
        let before = server.count(&["put right", told]);
        named.ip(&change.replace("NIC", &nic.on_server));
        server.wait_for_nth(&["put right", told], before + 1, SOON);
        site.lan.ping(nic.ip);
        site.lan.ping(nic.ip6);
    }
}

#[test]
fn kill_9_leaves_no_namespace() {
    needs_root!();
    let lab = Lab::new();
    let named = Named::beside(&lab);
    let (mut server, _client) = up(&lab, &named);
    let keeper = keeper_of(&server);
    server.kill9();
    until("the keeper has ended", SOON, || gone(keeper));
    assert!(!named.exists());

    let mut server = start_server(&lab, &named);
    kill_both(&mut server);
    // Any server that starts on this machine removes it, also one of another test.
    let _elsewhere = start(&lab, &Edit::default());
    assert!(!named.exists());
}

#[test]
fn a_namespace_that_others_made_or_use_stays() {
    needs_root!();
    let lab = Lab::new();
    let nic = &lab.sites[0].nics[0];
    let named = Named::beside(&lab);
    let status = Command::new("ip").args(["netns", "add", &named.0]).status().unwrap();
    assert!(status.success());
    let mut server = start_server(&lab, &named);
    assert!(named.has_link(&nic.on_server));
    server.terminate();
    assert!(named.exists() && !named.has_link(&nic.on_server), "it was there before");
    Command::new("ip").args(["netns", "del", &named.0]).status().unwrap();

    // Made by us, but somebody has moved in: an interface, then a process.
    let mut server = start_server(&lab, &named);
    named.ip("link add br0 type bridge");
    server.terminate();
    assert!(named.exists());
    let mut sleeper = Command::new("ip").args(["netns", "exec", &named.0, "sleep", "60"]).spawn().unwrap();
    let here = std::fs::metadata(Path::new("/run/netns").join(&named.0)).unwrap();
    let inside = std::os::unix::fs::MetadataExt::ino(&here);
    let its = format!("/proc/{}/ns/net", sleeper.id());
    until("it sleeps in there", SOON, || {
        std::fs::read_link(&its).is_ok_and(|to| to.to_string_lossy() == format!("net:[{inside}]"))
    });
    named.ip("link del br0");
    let mut server = start_server(&lab, &named);
    server.terminate();
    assert!(named.exists());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    // With nobody in it, it goes with the next that ends, or that starts.
    let mut server = start_server(&lab, &named);
    server.terminate();
    assert!(!named.exists());
}

#[test]
fn a_nic_moves_between_namespaces_with_a_reload() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let named = Named::beside(&lab);
    let server = start(&lab, &Edit::default());
    let client = lab.start_client(0, &Edit::default());
    client.wait_for_log(&[NIC_READY], SOON);
    site.lan.ping(nic.ip);
    for (edit, inside, ready) in [(named.edit(), true, 2), (Edit::default(), false, 3)] {
        lab.write("server.toml", lab.server_toml(&edit));
        server.reload();
        server.wait_for_nth(&[NIC_GONE, &nic.on_server], ready - 1, SOON);
        server.wait_for_nth(&[NIC_READY, &nic.on_server], ready, SOON);
        assert_eq!(lab.server.has_link(&nic.on_server), !inside);
        until("the namespace is there, or not", SOON, || named.exists() == inside);
        site.lan.ping(nic.ip);
    }
}

#[test]
fn a_file_that_is_no_namespace_is_told_with_what_mends_it() {
    needs_root!();
    let lab = Lab::new();
    let named = Named::beside(&lab);
    let file = Path::new("/run/netns").join(&named.0);
    std::fs::write(&file, "").unwrap();
    lab.write("server.toml", lab.server_toml(&named.edit()));
    let mut server = run(&lab);
    server.wait_for_log(&["not a network namespace", "ip netns del", &named.0], SOON);
    assert!(!server.wait(SOON).success());
    assert!(file.exists());
    std::fs::remove_file(file).unwrap();
}

#[test]
fn what_a_start_or_an_end_that_was_killed_has_left_of_a_namespace_is_in_nobodys_way() {
    needs_root!();
    let lab = Lab::new();
    let named = Named::beside(&lab);
    let file = Path::new("/run/netns").join(&named.0);
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    let (mut server, _client) = up(&lab, &named);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    assert!(server.terminate().success());
    assert!(!named.exists());
}

#[test]
fn a_server_that_is_started_while_the_last_ones_keeper_takes_its_namespace_away_has_its_own() {
    needs_root!();
    let lab = Lab::new();
    let named = Named::beside(&lab);
    let mut server = start_server(&lab, &named);
    for _ in 0..20 {
        server.kill9();
        server = start_server(&lab, &named);
        assert!(named.has_link(&lab.sites[0].nics[0].on_server));
    }
}

#[test]
fn a_nic_moves_into_a_namespace_of_others_and_back_when_the_config_is_refused() {
    needs_root!();
    let lab = Lab::new();
    let nic = &lab.sites[0].nics[0];
    let named = Named::beside(&lab);
    assert!(Command::new("ip").args(["netns", "add", &named.0]).status().unwrap().success());
    let mut server = start(&lab, &Edit::default());
    lab.write("server.toml", lab.server_toml(&named.edit()));
    server.reload();
    until("the NIC is in there", SOON, || named.has_link(&nic.on_server));
    // A config that names it no more cannot be followed.
    let blocked = Nic::new(0, 7);
    lab.server.ip(&format!("link add {} type veth peer name other", blocked.on_server));
    let nics = Some(vec![vec![Nic::new(0, 0), blocked]]);
    lab.write("server.toml", lab.server_toml(&Edit { nics, ..Edit::default() }));
    server.reload();
    server.wait_for_log(&["reload refused, nothing has changed"], SOON);
    until("the NIC is in there again", SOON, || named.has_link(&nic.on_server));
    assert_eq!(server.count(&["not all there again"]), 0);
    server.terminate();
    assert!(named.exists() && !named.has_link(&nic.on_server), "it is not ours to remove");
}

/// A service has mounts of its own, and what it mounts there nobody else sees.
#[test]
fn a_namespace_is_made_where_process_1_sees_it() {
    needs_root!();
    let lab = Lab::new();
    let named = Named::beside(&lab);
    lab.write("server.toml", lab.server_toml(&named.edit()));
    let mut command = Command::new("unshare");
    let own_mounts = "unshare --mount --propagation slave \"$0\" -c \"$1\" & wait $!";
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "nsenter"]);
    command.arg(format!("--net=/run/netns/{}", lab.server.name()));
    command.args(["sh", "-c", own_mounts, TAP_RS]).arg(lab.dir().join("server.toml"));
    let mut program = Program::watch(command, "process 1".to_owned());
    program.wait_for_log(&[NIC_READY], SOON);
    let child = |pid: u32| -> u32 {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    };
    let first = child(program.pid());
    let seen = || {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{first}/ns/mnt")).args(["ip", "-n", &named.0, "link"]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(seen().contains(&lab.sites[0].nics[0].on_server), "{}", seen());
    let line = format!("kill -TERM {}", child(first));
    assert!(Command::new("/bin/sh").args(["-c", &line]).status().unwrap().success());
    assert!(program.wait(SOON).success());
    assert!(!named.exists());
}

/// Does what a finding says.
fn mend(said: &str) {
    let mut words = said.split('`').nth(1).unwrap().split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{said}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_doctor_looks_into_the_namespace_and_mends_from_outside() {
    needs_root!();
    let lab = Lab::new();
    let named = Named::beside(&lab);
    let (server, _client) = up(&lab, &named);
    let (name, nic) = (server.name(), &lab.sites[0].nics[0]);
    let (found, status) = doctor(&lab.server, &[&name]);
    assert!([0, 3].contains(&status), "{found:#}");
    let own = format!("{} in {}", nic.on_server, named.name());
    finding(&found, "ok", &[&format!("{own}: there, with MTU 1500")]);
    finding(&found, "ok", &[&format!("{}: 1514 bytes to the NIC at site0 and back", nic.on_server)]);

    let (found, _) = doctor(&lab.sites[0].lan, &[&name]);
    finding(&found, "ok", &[&format!("{own}: there, with MTU 1500")]);

    named.ip(&format!("addr add 10.80.0.77/24 dev {}", nic.on_server));
    let (found, _) = doctor(&lab.server, &[&name]);
    let said = finding(&found, "warning", &[&own, "10.80.0.77", "which its config does not name"]);
    server.wait_for_log(&[&format!("`ip -n {} addr del 10.80.0.77/24", named.name())], SOON);
    mend(&said);
    let off = format!("sysctl -w net.ipv6.conf.{}.disable_ipv6=1", nic.on_server);
    let words: Vec<&str> = ["ip", "netns", "exec", named.name()].into_iter().chain(off.split(' ')).collect();
    assert!(Command::new(words[0]).args(&words[1..]).output().unwrap().status.success());
    let (found, status) = doctor(&lab.server, &[&name]);
    assert_eq!(status, 4, "{found:#}");
    mend(&finding(&found, "broken", &[&own, "IPv6 is off on it"]));
    until("all is well again", SOON, || doctor(&lab.server, &[&name]).1 < 4);

    assert!(Command::new("ip").args(["netns", "del", named.name()]).status().unwrap().success());
    let (found, status) = doctor(&lab.server, &[&name]);
    assert_eq!(status, 4);
    finding(&found, "broken", &["has lost its name", &nic.on_server, "restart tap-rs"]);
    finding(&found, "ok", &["1514 bytes to the NIC at site0 and back"]);
}

#[test]
fn the_doctor_sees_before_the_start_what_is_in_the_way_in_there() {
    needs_root!();
    let lab = Lab::new();
    let named = Named::beside(&lab);
    let file = lab.write("server.toml", lab.server_toml(&named.edit()));
    let look = || doctor(&lab.server, &["-c", file.to_str().unwrap()]).0;
    let in_the_way = |found: &serde_json::Value| {
        found["findings"].as_array().unwrap().iter().filter(|f| f["check"] == "interface").count()
    };
    assert_eq!(in_the_way(&look()), 0, "it will be made");
    assert!(!named.exists(), "by the start, and not by looking");
    assert!(Command::new("ip").args(["netns", "add", named.name()]).status().unwrap().success());
    let nic = &lab.sites[0].nics[0].on_server;
    named.ip(&format!("link add {nic} type bridge"));
    finding(&look(), "broken", &[&format!("{nic} in {} is a bridge interface", named.name())]);
    named.ip(&format!("link del {nic}"));
    assert_eq!(in_the_way(&look()), 0);
}
