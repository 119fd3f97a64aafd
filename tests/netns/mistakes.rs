//! What a new user does wrong, on real interfaces: each time one sentence says what it is and how to mend it.

use std::fs;

use crate::common::lab::{Edit, Lab, NIC_READY, SESSION, SOON};
use crate::common::program::{Program, TAP_RS};
use crate::needs_root;

/// The one line of a program that does not start; its status is 1.
#[track_caller]
fn only_line(mut program: Program) -> String {
    assert_eq!(program.wait(SOON).code(), Some(1));
    // The line has been written; whoever follows the output may not have read it yet.
    let line = program.wait_for_log(&[""], SOON);
    assert_eq!(program.lines(), [line.as_str()]);
    line
}

#[track_caller]
fn assert_has(line: &str, words: &[&str]) {
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
}

#[test]
fn what_keeps_a_client_from_starting_is_said_in_one_line() {
    needs_root!();
    let lab = Lab::new();
    let plain = lab.client_toml(0, &Edit::default());
    for (from, to, words) in [
        ("parent = \"lan0\"", "parent = \"eth9\"", &["eth9", "does not exist; there are:", "lan0"][..]),
        ("parent = \"lan0\"", "", &["mv0 does not exist; give the NIC a parent"]),
        ("ifname = \"mv0\"", "ifname = \"wan0\"", &["wan0 is a veth interface, not a macvtap"]),
        ("mtu = 1500", "mtu = 9000", &["lan0, which it stands on, has 1500", "ip link set lan0 mtu 9000"]),
    ] {
        assert!(plain.contains(from), "{plain}");
        let file = lab.write("wrong.toml", plain.replace(from, to));
        let line = only_line(Program::start(&lab.sites[0].client, &["-c", file.to_str().unwrap()]));
        assert_has(&line, words);
    }
}

#[test]
fn a_port_or_a_tap_that_is_taken_is_named() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    assert_has(&only_line(lab.run_server()), &["cannot listen on 0.0.0.0:1234", "`ss -ulpn`"]);
    lab.write("server.toml", lab.server_toml(&Edit::default()).replace(":1234", ":1235"));
    assert_has(&only_line(lab.run_server()), &["tap0x0 is in use by another process"]);
}

#[test]
fn a_client_that_runs_keeps_its_macvtap_when_another_is_started() {
    needs_root!();
    let lab = Lab::new();
    let (_server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let second = lab.start_client(0, &Edit::default());
    assert_has(&only_line(second), &["mv0 is in use by another process"]);
    site.lan.ping(nic.ip);
    assert_eq!(client.count(&[SESSION]), 1);
}

#[test]
fn a_client_without_a_session_is_told_what_to_look_at() {
    needs_root!();
    let mut lab = Lab::new();
    let client = lab.start_client(0, &Edit::default());
    client.wait_for_log(&["no answer: is the server running"], SOON);
    let server = lab.start_server(&Edit::default());
    client.wait_for_log(&[SESSION], SOON);
    drop(client);

    lab.keygen("stranger");
    let stranger = lab.public_key("stranger").to_owned();
    let args = ["client", "-c", "client0.toml", "--private-key", "stranger.key"];
    let args = args.map(|a| if a.contains('.') { lab.dir().join(a).display().to_string() } else { a.into() });
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let client = Program::start(&lab.sites[0].client, &args);
    client.wait_for_log(&["does not let this client in", &stranger], SOON);
    server.wait_for_log(&["no client has this key", &stranger], SOON);
    let named = server.count(&["no client has this key"]);
    assert_eq!(
        (named, client.count(&["does not let this client in"])),
        (1, 1),
        "once, not with every attempt"
    );
}

/// Without NAT between them: the client's box has an address of the subnet that its NICs bring to the server.
#[test]
fn a_server_whose_answers_go_into_its_own_nic_says_so() {
    needs_root!();
    let lab = Lab::plan().router().build();
    let mut nic = lab.sites[0].nics[0].clone();
    nic.ip = [172, 30, 0, 100].into();
    let edit = Edit { nics: Some(vec![vec![nic]]), ipv4_only: true, ..Edit::default() };
    lab.write("server.toml", lab.server_toml(&edit).replace("100/24", "100/25"));
    let server = lab.run_server();
    let client = lab.start_client(0, &edit);
    let advice = server.wait_for_log(&["answers to this client are routed into this NIC", "tap0x0"], SOON);
    let command = advice.split('`').nth(1).unwrap().replace("GATEWAY", "172.31.0.2");
    assert_eq!(command, "ip route add 172.30.0.2 via 172.31.0.2");
    assert_eq!(client.count(&[SESSION]), 0);
    lab.server.exec(&command.split(' ').collect::<Vec<_>>());
    client.wait_for_log(&[SESSION], SOON);
}

#[test]
fn sides_that_disagree_about_a_nic_are_told() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let nic = &lab.sites[0].nics[0];
    let mut other = nic.clone();
    other.mac[5] ^= 0x10;
    let client = lab.start_client(0, &Edit { nics: Some(vec![vec![other]]), ..Edit::default() });
    client.wait_for_log(&["no NIC with this MAC", "the server's:", &nic.mac_text()], SOON);
    drop(client);
    let mut other = nic.clone();
    other.ip = [10, 80, 0, 77].into();
    let client = lab.start_client(0, &Edit { nics: Some(vec![vec![other]]), ..Edit::default() });
    let warned = client.wait_for_log(&["different addresses for this NIC"], SOON);
    assert_has(&warned, &["10.80.0.77", &nic.ip.to_string()]);
    client.wait_for_log(&[NIC_READY], SOON);
}

#[test]
fn a_daemon_that_does_not_start_says_where_to_look() {
    needs_root!();
    let lab = Lab::new();
    let top = "is_daemon = true\npid = \"c.pid\"\nstdout = \"c.out\"\nstderr = \"c.err\"".to_owned();
    let plain = lab.client_toml(0, &Edit { top, ..Edit::default() });
    let file = lab.write("daemon.toml", plain.replace("lan0", "eth9"));
    let start = || Program::start(&lab.sites[0].client, &["-c", file.to_str().unwrap()]);
    assert_has(&only_line(start()), &["it did not start", "c.err says why"]);
    let log = fs::read_to_string(lab.dir().join("c.err")).unwrap();
    assert_has(&log, &["eth9, on which mv0 is to be made, does not exist"]);
    let end = std::time::Instant::now() + SOON;
    while lab.dir().join("c.pid").exists() {
        assert!(std::time::Instant::now() < end, "its pid file stays");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    // A tap-rs that runs has this number.
    let holder = lab.start_server(&Edit::default());
    let pid = holder.pid().to_string();
    fs::write(lab.dir().join("c.pid"), &pid).unwrap();
    assert_has(&only_line(start()), &["it runs already, as process", &format!("`kill {pid}`")]);
    assert_eq!(fs::read_to_string(lab.dir().join("c.pid")).unwrap(), pid, "its file is left to it");
}

#[test]
fn without_root_it_is_said_who_may() {
    needs_root!();
    let lab = Lab::new();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    // What nobody may read: the program, the folder, the files.
    let program = lab.dir().join("tap-rs");
    fs::copy(TAP_RS, &program).unwrap();
    let all = |path: &std::path::Path| std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    for (name, text) in
        [("s.toml", lab.server_toml(&Edit::default())), ("c.toml", lab.client_toml(0, &Edit::default()))]
    {
        lab.write(name, text);
    }
    fs::read_dir(lab.dir()).unwrap().for_each(|entry| all(&entry.unwrap().path()));
    all(lab.dir());
    let run = |ns: &crate::common::ns::Ns, args: &[&str]| {
        let mut command = ns.command(nobody[0]);
        command.args(&nobody[1..]).arg(&program).args(args).current_dir(lab.dir());
        let mut program = Program::watch(command, args.join(" "));
        assert_eq!(program.wait(SOON).code(), Some(1));
        program.wait_for_log(&["root"], SOON)
    };
    assert_has(&run(&lab.server, &["-c", "s.toml"]), &["tap0x0", "run as root"]);
    assert_has(&run(&lab.sites[0].client, &["-c", "c.toml"]), &["mv0", "run as root"]);
    assert_has(&run(&lab.server, &["status"]), &["only root may ask", "put `sudo` before the command"]);
    assert_has(&run(&lab.server, &["demo"]), &["only root may", "`sudo tap-rs demo`"]);
    assert_has(
        &run(&lab.server, &["keygen", "--out", "/etc/x.key"]),
        &["may not create /etc/x.key", "as root"],
    );
}
