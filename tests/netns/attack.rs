//! Whoever is on the path records, plays back, changes and makes up datagrams; and a LAN that is plugged into itself.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::Value;
use tap_rs::keys::PublicKey;
use tap_rs::proto::cookie::ServerName;
use tap_rs::sys::packet::Packet;
use tap_rs::wire::datagram::{Cookie, HELLO_LEN, Header, Resp};

use crate::common::capture::Capture;
use crate::common::frame::{BROADCAST, STRANGER, contains, ethernet};
use crate::common::lab::{Edit, Lab, SESSION, SOON};
use crate::common::ns::Ns;
use crate::common::program::Program;
use crate::common::relay::Way;
use crate::common::traces::until;
use crate::common::traffic::{MARKER, SetAtEnd, tcp, udp_echo};
use crate::faults::{BadPath, bad_path};
use crate::needs_root;
use crate::status::status;

/// What crossed an underlay of IPv4, as frames that any box on it can send again.
struct Recorded {
    to_server: Vec<Vec<u8>>,
    to_client: Vec<Vec<u8>>,
}

/// UDP over IPv4 without options.
const UDP: usize = 14 + 20;

fn recorded(packets: &[Packet]) -> Recorded {
    let tunnel = |p: &&Packet| p.bytes[12..15] == [8, 0, 0x45] && p.bytes[23] == 17;
    let again = |p: &Packet| {
        let mut frame = p.bytes.clone();
        // Without a checksum (RFC 768): the recorded one was to be filled in by the card.
        frame[UDP + 6..UDP + 8].fill(0);
        frame
    };
    let (out, back): (Vec<_>, Vec<_>) = packets.iter().filter(tunnel).partition(|p| p.outgoing);
    Recorded {
        to_server: out.into_iter().map(again).collect(),
        to_client: back.into_iter().map(again).collect(),
    }
}

fn play(ns: &Ns, frames: &[Vec<u8>]) {
    let wire = ns.packet_socket("wan0");
    for frame in frames {
        let _ = wire.send(frame);
    }
}

/// The same from another address of the underlay. Gives the socket, so that it can be seen what comes there.
fn play_from(ns: &Ns, from: IpAddr, to: SocketAddr, frames: &[Vec<u8>]) -> UdpSocket {
    let socket = ns.inside(|| UdpSocket::bind((from, 0)).unwrap());
    for frame in frames {
        let _ = socket.send_to(&frame[UDP + 8..], to);
    }
    socket
}

fn markers(packets: &[Packet]) -> usize {
    packets.iter().filter(|p| contains(&p.bytes, MARKER)).count()
}

fn runs(lab: &Lab) -> usize {
    fs::read_to_string(lab.dir().join("runs")).unwrap_or_default().lines().count()
}

/// A client that gets everything from the server, with a script that leaves a line each time it runs.
fn scripted(lab: &Lab) -> (Program, Program) {
    lab.write("script.sh", format!("echo ran >> {}", lab.dir().join("runs").display()));
    let server = Edit { server: "script_path = \"script.sh\"".into(), ..Edit::default() };
    lab.up(&server, &client_edit())
}

fn client_edit() -> Edit {
    Edit { remote: true, top: "script = \"any\"\nlog = \"debug\"".into(), ..Edit::default() }
}

#[test]
fn a_session_that_is_played_back_does_nothing_now_nor_after_a_restart_of_either_side() {
    needs_root!();
    let lab = Lab::plan().no_udp_offload().build();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let capture = Capture::on(&site.client, "wan0");
    let (mut server, mut client) = scripted(&lab);
    udp_echo(&site.lan, &lab.server, nic.ip, 1000);
    tcp(&site.lan, &lab.server, nic.ip, 100_000, 100_000);
    client.rekey();
    client.wait_for_log(&["renewed"], SOON);
    tcp(&site.lan, &lab.server, nic.ip, 100_000, 100_000);
    let tape = recorded(&capture.finish().packets);
    assert!(tape.to_server.len() > 100 && tape.to_client.len() > 100, "a session is on the tape");
    let endpoint = |server: &Program| {
        status(&lab, server, |v| v["peers"][0]["endpoint"].is_string())["peers"][0]["endpoint"].clone()
    };
    let replayed = |program: &Program, reasons: &[&str]| {
        status(&lab, program, |v| reasons.iter().all(|reason| v["plane"]["drops"][*reason].is_u64()))
    };

    // Live, from where it came from and from elsewhere.
    let (at, said) = (endpoint(&server), (client.count(&[SESSION]), server.count(&[SESSION]), runs(&lab)));
    assert_eq!(said, (1, 1, 1));
    let ears = [Capture::on(&lab.server, &nic.on_server), Capture::on(&site.lan, "eth0")];
    play(&site.client, &tape.to_server);
    play(&lab.server, &tape.to_client);
    site.client.ip("addr add 172.31.0.66/24 dev wan0");
    let thief = play_from(&site.client, [172, 31, 0, 66].into(), site.server_addr, &tape.to_server);
    for program in [&server, &client] {
        replayed(program, &["replayed"]);
    }
    site.lan.ping(nic.ip);
    for ear in ears {
        assert_eq!(markers(&ear.finish().packets), 0, "a frame was delivered a second time");
    }
    assert_eq!(endpoint(&server), at);
    thief.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2048];
    while let Ok(len) = thief.recv(&mut buffer) {
        // A HELLO is answered, whoever sends it, by what is no longer; nothing of a session is.
        assert_eq!(buffer[0], 2, "{:?}", &buffer[..len]);
    }
    assert_eq!((client.count(&[SESSION]), server.count(&[SESSION]), runs(&lab)), said);

    // The client alone, after a restart of its own; then the server.
    server.kill9();
    client.kill9();
    client = lab.start_client(0, &client_edit());
    client.wait_for_log(&["client started"], SOON);
    play(&lab.server, &tape.to_client);
    std::thread::sleep(Duration::from_millis(300));
    assert!(client.is_running());
    assert_eq!((client.count(&[SESSION]), runs(&lab)), (0, 1));
    client.kill9();
    server = lab.run_server();
    server.wait_for_log(&["server started"], SOON);
    let ear = Capture::on(&lab.server, &nic.on_server);
    play(&site.client, &tape.to_server);
    drop(play_from(&site.client, [172, 31, 0, 66].into(), site.server_addr, &tape.to_server));
    // By their index the kernel can tell that they are another server's; the second for INITs under another's cookies.
    let told = replayed(&server, &["unwanted", "bad_mac"]);
    assert_eq!((told["peers"][0]["state"].as_str(), server.count(&[SESSION])), (Some("none"), 0));
    assert_eq!(markers(&ear.finish().packets), 0);
    assert_eq!(runs(&lab), 1);
}

/// Every byte changed in one bit, every length, every other type, and what two datagrams make in one.
fn forgeries<'a>(sample: &'a [u8], other: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
    let flipped = (0..sample.len()).map(move |i| {
        let mut bytes = sample.to_vec();
        bytes[i] ^= 1 << (i % 8);
        bytes
    });
    let cut = (0..sample.len()).step_by(3).map(move |len| sample[..len].to_vec());
    let renamed = (0..=6).map(move |kind| [&[kind][..], &sample[1..]].concat());
    let joined = [[sample, sample].concat(), [sample, other].concat(), [other, sample].concat()];
    flipped.chain(cut).chain(renamed).chain(joined)
}

#[test]
fn a_man_in_the_middle_ends_no_session_and_is_counted() {
    needs_root!();
    let BadPath { lab, front, relay } = bad_path();
    let edit =
        Edit { server_addr: Some(front.to_string()), top: "log = \"debug\"".into(), ..Edit::default() };
    let (server, client) = lab.up(&Edit::default(), &edit);
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    client.rekey();
    client.wait_for_log(&["renewed"], SOON);
    udp_echo(&site.lan, &lab.server, nic.ip, 100);
    // The first and the last of each type and way.
    let mut samples: HashMap<(u8, bool), [Vec<u8>; 2]> = HashMap::new();
    for (way, bytes) in relay.record().into_iter().filter(|(_, bytes)| bytes.len() < 300) {
        let key = (bytes[0], way == Way::ToServer);
        let pair = samples.entry(key).or_insert_with(|| [bytes.clone(), bytes.clone()]);
        pair[1] = bytes;
    }
    let kinds: Vec<_> = (1..=5).filter(|k| samples.keys().any(|(kind, _)| kind == k)).collect();
    assert_eq!(kinds, [1, 2, 3, 4, 5], "a datagram of every type is at hand");
    let ears = [Capture::on(&lab.server, &nic.on_server), Capture::on(&site.lan, "eth0")];
    for pair in samples.values() {
        for (sample, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            // What was meant for the one end goes to the other as well.
            for bytes in forgeries(sample, other) {
                relay.inject(Way::ToServer, &bytes);
                relay.inject(Way::ToClient, &bytes);
            }
            relay.inject(Way::ToServer, sample);
            relay.inject(Way::ToClient, sample);
        }
        site.lan.ping(nic.ip);
    }
    for ear in ears {
        assert_eq!(markers(&ear.finish().packets), 0, "a frame was delivered a second time");
    }
    assert_eq!(
        (client.count(&[SESSION]), server.count(&[SESSION])),
        (1, 1),
        "the session is still the first one"
    );
    let counted = |program: &Program, reasons: &[&str]| {
        status(&lab, program, |v| reasons.iter().all(|reason| v["plane"]["drops"][*reason].is_u64()));
    };
    for program in [&server, &client] {
        counted(
            program,
            &[
                "bad_length",
                "unknown_type",
                "bad_version",
                "bad_suite",
                "unauthentic",
                "unknown_index",
                "unexpected",
            ],
        );
    }
    counted(&server, &["bad_mac"]);
    tcp(&site.lan, &lab.server, nic.ip, 1_000_000, 1_000_000);
}

/// What somebody who knows the server's public key can say in its place.
fn answer(name: &ServerName, question: &[u8]) -> Option<Vec<u8>> {
    let suite = Header::decode(question).ok()?.suite;
    let index = u32::from_le_bytes(*question.get(4..)?.first_chunk()?);
    match question.first()? {
        1 => {
            let hello: &[u8; HELLO_LEN] = question.try_into().ok()?;
            let sealed = name.seal(hello, [7; 12], &[8; 16])?;
            Some(Cookie { suite, receiver_index: index, nonce: [7; 12], sealed }.encode().to_vec())
        }
        3 => {
            let resp = Resp { suite, sender_index: 9, receiver_index: index, noise: [5; 64] };
            // Its cookie was ours, so that even the MAC is right.
            Some(resp.encode(|signed| tap_rs::proto::cookie::mac(&[8; 16], signed)).to_vec())
        }
        _ => None,
    }
}

#[test]
fn forged_answers_delay_a_handshake_and_never_make_one() {
    needs_root!();
    let BadPath { lab, front, relay } = bad_path();
    let server = lab.start_server(&Edit::default());
    let name = ServerName::new(&lab.public_key("server").parse::<PublicKey>().unwrap()).unwrap();
    let (stop, forged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    std::thread::scope(|scope| {
        let _end = SetAtEnd(&stop);
        scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(Relaxed) {
                let record = relay.record();
                for (_, question) in record[seen..].iter().filter(|(way, _)| *way == Way::ToServer) {
                    if let Some(bytes) = answer(&name, question) {
                        relay.inject(Way::ToClient, &bytes);
                        forged.fetch_add(1, Relaxed);
                    }
                }
                seen = record.len();
            }
        });
        let edit = Edit { server_addr: Some(front.to_string()), ..Edit::default() };
        let client = lab.start_client(0, &edit);
        until("there is somebody to lie to", SOON, || forged.load(Relaxed) > 0);
        std::thread::sleep(Duration::from_secs(3));
        stop.store(true, Relaxed);
        client.wait_for_log(&[SESSION], SOON);
        site.lan.ping(nic.ip);
        assert_eq!((client.count(&[SESSION]), server.count(&[SESSION])), (1, 1));
    });
}

#[test]
fn a_loop_between_the_two_lans_is_damped_and_told() {
    needs_root!();
    let lab = Lab::new();
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let edit = Edit { nic: "bridge = true\nbroadcast_pps = 100".into(), ..Edit::default() };
    let (server, client) = lab.up(&edit, &edit);
    // The tap and the LAN are ports of bridges, and a cable goes from the one to the other.
    lab.server.ip(&format!("link add lan1 type veth peer name eth1 netns {}", site.lan.name()));
    site.lan.ip("link set eth1 up");
    lab.server.ip("link set lan1 up");
    crate::forward::bridge(&lab.server, "lan1", &nic.on_server);
    crate::forward::bridge(&site.lan, "eth0", "eth1");
    let ear = Capture::on(&lab.server, "lan1");
    let wire = site.lan.packet_socket("eth0");
    let spell = Duration::from_secs(4);
    let start = std::time::Instant::now();
    while start.elapsed() < spell {
        wire.send(&ethernet(BROADCAST, STRANGER, 0x88b5, b"round and round")).unwrap();
        std::thread::sleep(Duration::from_millis(3));
    }
    let heard = ear.finish().packets.iter().filter(|p| contains(&p.bytes, b"round and round")).count();
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 3;
    assert!((100..100 * 2 * seconds).contains(&heard), "{heard} in {seconds} s");
    let line = client.wait_for_log(&["a storm is damped", &nic.on_client, "dropped="], SOON);
    let going_on = |v: &Value| v["nics"][0]["storm"].as_u64() > Some(10);
    status(&lab, &client, going_on);
    println!("{line}");
    site.lan.ip("link set eth1 down");
    client.wait_for_log(&["the storm is over", &nic.on_client], Duration::from_secs(40));
    status(&lab, &client, |v| v["nics"][0]["storm"].is_null());
    assert_eq!(client.count(&["a storm is damped"]), 1, "once");
    until("the session goes on", SOON, || server.count(&[SESSION]) == 1);
}
