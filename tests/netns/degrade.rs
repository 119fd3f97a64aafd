//! What the box runs out of: disk, a reader of the log, the folder of the control socket, descriptors, memory. Frames go on.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::lab::{Edit, Lab, NIC_READY, SESSION, SOON};
use crate::common::program::{Program, TAP_RS};
use crate::common::traces::until;
use crate::common::traffic::tcp;
use crate::fair::heard_apart;
use crate::needs_root;
use crate::status::status;

/// Frames cross, also over a new session, and after a reload of either side's config.
fn goes_on(lab: &Lab, client: &Program) {
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    for _ in 0..3 {
        client.rekey();
        client.reload();
        site.lan.ping(nic.ip);
        tcp(&site.lan, &lab.server, nic.ip, 100_000, 100_000);
    }
}

/// Processor time of a process so far.
fn worked(program: &Program) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime, in hundredths of a second (proc_pid_stat(5)).
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[track_caller]
fn does_not_spin(program: &Program) {
    let (before, start) = (worked(program), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let share = (worked(program) - before).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(share < 0.2, "{share} of a processor for nothing");
}

fn descriptors(program: &Program) -> usize {
    fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap().count()
}

/// prlimit(1): a limit of a process that runs, both soft and hard.
fn limit(program: &Program, what: &str, value: impl std::fmt::Display) {
    let pid = program.pid().to_string();
    let status =
        Command::new("prlimit").args(["--pid", &pid, &format!("--{what}={value}:")]).status().unwrap();
    assert!(status.success());
}

/// A file as that process sees it.
fn inside(program: &Program, path: &str) -> PathBuf {
    format!("/proc/{}/root{path}", program.pid()).into()
}

#[test]
fn a_full_disk_below_the_log_stops_no_frame() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let edit = Edit { top: "log = \"trace\"".into(), ..Edit::default() };
    let file = lab.write("client0.toml", lab.client_toml(0, &edit));
    let line = "mount -t tmpfs -o size=16k tmpfs /mnt; exec >/mnt/log 2>&1";
    let mut client = Program::start_after(&lab.sites[0].client, line, &["-c", file.to_str().unwrap()]);
    lab.sites[0].lan.ping(lab.sites[0].nics[0].ip);
    let log = inside(&client, "/mnt/log");
    let full = || {
        client.rekey();
        fs::metadata(&log).is_ok_and(|m| m.len() >= 12 << 10)
    };
    until("the log has filled the disk", SOON * 3, full);
    goes_on(&lab, &client);
    does_not_spin(&client);
    assert!(client.terminate().success());
}

#[test]
fn a_log_that_nobody_reads_or_empties_stops_no_frame() {
    needs_root!();
    for closed in [true, false] {
        let lab = Lab::new();
        let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
        let _server = lab.start_server(&Edit::default());
        let edit = Edit { top: "log = \"trace\"".into(), ..Edit::default() };
        let file = lab.write("client0.toml", lab.client_toml(0, &edit));
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = if closed {
            drop(reader);
            None
        } else {
            // As full as a pipe gets without anybody waiting (pipe(7)).
            writer.write_all(&[b'x'; 65_536]).unwrap();
            Some(reader)
        };
        let mut command = site.client.command(TAP_RS);
        command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        let mut child = command.spawn().unwrap();
        drop(command);
        site.lan.ping(nic.ip);
        let tell = |name: &str| signal(child.id(), name);
        for _ in 0..3 {
            tell("USR1");
            tell("HUP");
            site.lan.ping(nic.ip);
            tcp(&site.lan, &lab.server, nic.ip, 100_000, 100_000);
        }
        tell("TERM");
        assert!(child.wait().unwrap().success(), "closed: {closed}");
        drop(reader);
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

#[test]
fn without_a_folder_for_its_control_socket_it_says_so_and_makes_another() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let file = lab.write("client0.toml", lab.client_toml(0, &Edit::default()));
    let args = ["-c", file.to_str().unwrap()];
    // From the start ...
    let client = Program::start_after(&lab.sites[0].client, "mount -t tmpfs -o ro tmpfs /run", &args);
    client.wait_for_log(&["no `tap-rs status` for this process"], SOON);
    client.wait_for_log(&[NIC_READY], SOON);
    goes_on(&lab, &client);
    drop(client);
    // ... and taken away under it.
    let mut client = Program::start_after(&lab.sites[0].client, "mount -t tmpfs tmpfs /run", &args);
    client.wait_for_log(&[NIC_READY], SOON);
    let folder = inside(&client, "/run/tap-rs");
    assert!(folder.join("client0.sock").exists());
    let pid = client.pid().to_string();
    let ask = || Command::new("nsenter").args(["-m", "-t", &pid, TAP_RS, "status"]).output().unwrap();
    for lost in 1..=3 {
        match lost {
            1 => fs::remove_dir_all(&folder).unwrap(),
            2 => fs::rename(folder.join("client0.sock"), folder.join("elsewhere")).unwrap(),
            _ => fs::remove_file(folder.join("client0.sock")).unwrap(),
        }
        goes_on(&lab, &client);
        client.wait_for_nth(&["has been removed from /run/tap-rs"], lost, SOON);
        until("status finds it again", SOON, || ask().status.success());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "and nothing else is there");
        assert_eq!(fs::metadata(folder.join("client0.sock")).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(client.count(&["has been removed from /run/tap-rs"]), 3);
    // Where it cannot be made again either that is said, once, and tried in a while.
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    client.wait_for_log(&["no `tap-rs status` for this process", "tried every minute"], SOON);
    goes_on(&lab, &client);
    does_not_spin(&client);
    assert!(!ask().status.success());
    assert_eq!(client.count(&["no `tap-rs status` for this process"]), 1);
    assert!(client.terminate().success());
}

#[test]
fn a_killed_tunnel_leaves_no_control_socket() {
    needs_root!();
    let lab = Lab::new();
    let file = lab.write("client0.toml", lab.client_toml(0, &Edit::default()));
    let args = ["-c", file.to_str().unwrap()];
    let mut client = Program::start_after(&lab.sites[0].client, "mount -t tmpfs tmpfs /run", &args);
    let name = format!("/proc/{}/comm", client.pid());
    until("its own /run is mounted", SOON, || fs::read_to_string(&name).unwrap() == "tap-rs\n");
    let run = fs::File::open(inside(&client, "/run")).unwrap();
    let socket = PathBuf::from(format!("/proc/self/fd/{}/tap-rs/client0.sock", run.as_raw_fd()));
    until("the socket is there", SOON, || socket.exists());
    client.kill9();
    until("the socket is gone", SOON, || !socket.exists());
}

#[test]
fn without_descriptors_nobody_is_answered_and_frames_go_on() {
    needs_root!();
    let lab = Lab::new();
    let (mut server, client) = lab.up_plain();
    // The socket that the client is heard on apart is among them.
    until("the client is heard apart", SOON, || !heard_apart(&lab.server).is_empty());
    let open = descriptors(&server);
    limit(&server, "nofile", open);
    let _asking = std::thread::spawn({
        let mut command = lab.server.command(TAP_RS);
        command.args(["status", "--json"]).stdout(Stdio::null()).stderr(Stdio::null());
        move || command.status()
    });
    goes_on(&lab, &client);
    does_not_spin(&server);
    server.wait_for_log(&["descriptors"], SOON);
    limit(&server, "nofile", 1024);
    status(&lab, &server, |_| true);
    until("what was waited for is closed again", SOON, || descriptors(&server) <= open);
    assert!(server.is_running());
}

#[test]
fn too_few_descriptors_for_its_nics_are_told_in_one_sentence_and_enough_are_enough() {
    needs_root!();
    let lab = Lab::plan().nics(8).build();
    let (site, nics) = (&lab.sites[0], &lab.sites[0].nics);
    for workers in [1, 3] {
        let needed = 8 * (workers + 2) + 48;
        let edit = Edit { top: format!("workers = {workers}"), ..Edit::default() };
        lab.write("server.toml", lab.server_toml(&edit));
        let file = lab.dir().join("server.toml");
        let start = |limit: usize| {
            Program::start_after(&lab.server, &format!("ulimit -n {limit}"), &["-c", file.to_str().unwrap()])
        };
        for limit in [12, needed - 1] {
            let mut server = start(limit);
            assert!(!server.wait(SOON).success());
            let said = format!(
                "8 NICs take {needed} descriptors, and this system allows {limit}; raise LimitNOFILE="
            );
            server.wait_for_log(&[&said], SOON);
            assert_eq!(server.lines().len(), 1, "{:#?}", server.lines());
        }
        let server = start(needed);
        let client = lab.start_client(0, &Edit::default());
        nics.iter().for_each(|nic| drop(client.wait_for_log(&[NIC_READY, &nic.on_client], SOON)));
        nics.iter().for_each(|nic| site.lan.ping(nic.ip));
        status(&lab, &server, |_| true);
        println!("{workers} workers: {} of {needed} descriptors", descriptors(&server));
    }
    let left = || nics.iter().any(|nic| lab.server.has_link(&nic.on_server));
    until("no interface is left", SOON, || !left());
}

/// What a peer, a stranger and root can make it remember fits into what it has.
#[test]
fn with_hardly_any_memory_to_spare_it_goes_on() {
    needs_root!();
    let lab = Lab::new();
    let (mut server, client) = lab.up_plain();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    tcp(&site.lan, &lab.server, nic.ip, 1_000_000, 1_000_000);
    let vm = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let vm = vm.lines().find_map(|l| l.strip_prefix("VmSize:")).unwrap();
    let kb: u64 = vm.trim().trim_end_matches(" kB").parse().unwrap();
    limit(&server, "as", (kb + 1024) << 10);
    flood(site.client.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap()), site.server_addr.ip());
    goes_on(&lab, &client);
    status(&lab, &server, |_| true);
    server.reload();
    goes_on(&lab, &client);
    assert!(server.is_running());
    assert_eq!(client.count(&[SESSION]), 1);
}

fn flood(socket: UdpSocket, server: IpAddr) {
    socket.connect((server, crate::common::lab::PORT)).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        for n in 0..=255u8 {
            let _ = socket.send(&[&[n % 6, 1, 1, 0][..], &[n; 132]].concat());
        }
    }
}
