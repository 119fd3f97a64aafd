//! Under a service manager: what it is told, the key that it hands over, and the stop action.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::lab::{Edit, Lab, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::program::{Program, TAP_RS};
use crate::common::traffic::uninterrupted;
use crate::needs_root;

/// The socket of a supervisor.
struct Ear(UnixDatagram);

impl Ear {
    fn new(lab: &Lab, name: &str) -> Self {
        let socket = UnixDatagram::bind(lab.dir().join(name)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self(socket)
    }

    /// Starts the program as a service manager does: with a socket, and a watchdog that bites after a second.
    fn supervise(&self, lab: &Lab, ns: &Ns, config: &str) -> Program {
        let mut command = ns.command(TAP_RS);
        command.args(["-c", lab.dir().join(config).to_str().unwrap()]);
        let socket = self.0.local_addr().unwrap();
        command.env("NOTIFY_SOCKET", socket.as_pathname().unwrap()).env("WATCHDOG_USEC", "1000000");
        Program::watch(command, config.to_owned())
    }

    /// Waits until exactly this is said.
    #[track_caller]
    fn hear(&self, wanted: &str) {
        let (end, mut heard) = (Instant::now() + SOON, Vec::new());
        while Instant::now() < end {
            let mut bytes = [0; 256];
            let Ok(n) = uninterrupted(|| self.0.recv(&mut bytes)) else { break };
            let said = String::from_utf8_lossy(&bytes[..n]).into_owned();
            if said == wanted {
                return;
            }
            heard.push(said);
        }
        panic!("{wanted:?} was not said, but {heard:?}");
    }
}

#[test]
fn a_supervisor_hears_of_start_life_reload_and_end() {
    needs_root!();
    let lab = Lab::new();
    lab.write("server.toml", lab.server_toml(&Edit::default()));
    lab.write("client0.toml", lab.client_toml(0, &Edit::default()));
    let (there, here) = (Ear::new(&lab, "server.notify"), Ear::new(&lab, "client.notify"));
    let mut server = there.supervise(&lab, &lab.server, "server.toml");
    there.hear("STATUS=0 of 1 clients have a session");
    there.hear("READY=1");
    let mut client = here.supervise(&lab, &lab.sites[0].client, "client0.toml");
    here.hear("READY=1");
    here.hear(&format!("STATUS=session with {0} at {0}", lab.sites[0].server_addr));
    there.hear("STATUS=1 of 1 clients have a session");
    for ear in [&there, &here] {
        ear.hear("WATCHDOG=1");
        ear.hear("WATCHDOG=1");
    }
    server.reload();
    there.hear("RELOADING=1");
    there.hear("READY=1");
    for (program, ear) in [(&mut server, &there), (&mut client, &here)] {
        assert_eq!(program.terminate().code(), Some(0));
        ear.hear("STOPPING=1");
    }
}

#[test]
fn a_daemon_stays_in_the_foreground_where_a_supervisor_waits_there() {
    needs_root!();
    let lab = Lab::new();
    let top = "is_daemon = true\npid = \"client.pid\"".to_owned();
    lab.write("client0.toml", lab.client_toml(0, &Edit { top, ..Edit::default() }));
    let ear = Ear::new(&lab, "notify");
    let mut client = ear.supervise(&lab, &lab.sites[0].client, "client0.toml");
    client.wait_for_log(&["is_daemon is passed over"], SOON);
    ear.hear("READY=1");
    assert!(client.is_running() && !lab.dir().join("client.pid").exists());
}

#[test]
fn a_key_that_the_service_manager_hands_over_is_taken_where_the_config_names_none() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let text = lab.client_toml(0, &Edit::default()).replace("private_key = \"client0.key\"\n", "");
    let path = lab.write("client0.toml", text);
    let credentials = lab.dir().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::rename(lab.dir().join("client0.key"), credentials.join("private_key")).unwrap();
    let mut command = lab.sites[0].client.command(TAP_RS);
    command.arg("-c").arg(path).env("CREDENTIALS_DIRECTORY", &credentials);
    let client = Program::watch(command, "client0.toml".to_owned());
    client.wait_for_log(&[SESSION], SOON);
}

#[test]
fn the_stop_action_takes_down_what_a_killed_group_has_left() {
    needs_root!();
    let lab = Lab::plan().nics(2).build();
    let site = &lab.sites[0];
    let [made, found] = [0, 1].map(|i| site.nics[i].on_client.as_str());
    site.client.ip(&format!("link add link lan0 name {found} type macvtap mode bridge"));
    let (_server, mut client) = lab.up_plain();
    site.nics.iter().for_each(|nic| site.lan.ping(nic.ip));
    let pid = client.pid();
    assert!(site.client.ip(&format!("link show {found}")).contains("held by tap-rs"));
    // First the keeper, which would clean up.
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let kill = format!("kill -STOP {pid}; kill -KILL {}", children.trim());
    assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    client.kill9();
    let is_up = |link| site.client.ip(&format!("link show {link}")).contains(",UP");
    assert!(is_up(made) && is_up(found));
    // As systemd does before its stop action.
    std::fs::remove_file(lab.dir().join("client0.key")).unwrap();
    let config = lab.dir().join("client0.toml");
    let said = site.client.exec(&[TAP_RS, "down", "-c", config.to_str().unwrap()]);
    assert_eq!(said, format!("{made} is removed\n{found} is set down\n"));
    assert!(!site.client.has_link(made) && !is_up(found));
    assert!(!site.lan.answers(site.nics[0].ip, Duration::from_millis(300)));
    assert_eq!(site.client.exec(&[TAP_RS, "down", "-c", config.to_str().unwrap()]), "");
    assert!(!site.client.ip(&format!("link show {found}")).contains("alias"));
}

#[test]
fn the_stop_action_finds_what_was_held_for_a_server_that_names_it_and_nothing_else() {
    needs_root!();
    let lab = Lab::new();
    let site = &lab.sites[0];
    let server = lab.start_server(&Edit::default());
    let live = format!("held by tap-rs, process {}", server.pid());
    for (name, alias) in
        [("held", "held by tap-rs, process 4194304"), ("own", "uplink"), ("live", live.as_str())]
    {
        site.client.ip(&format!("link add link lan0 name {name} type macvtap mode bridge"));
        site.client.exec(&["ip", "link", "set", name, "up", "alias", alias]);
    }
    let config =
        lab.write("remote.toml", "run_mode = \"client\"\nuse_remote_config = true\nno_such_key = 1\n");
    let said = site.client.try_exec(&[TAP_RS, "down", "-c", config.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&said.stdout).lines().any(|line| line == "held is set down"), "{said:?}");
    let is_up = |link| site.client.ip(&format!("link show {link}")).contains(",UP");
    assert!(!is_up("held") && is_up("own") && is_up("live"));
}
