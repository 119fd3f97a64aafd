//! Who gets a session, and whose NICs it carries.

use std::time::Duration;

use crate::common::capture::Capture;
use crate::common::lab::{Edit, Lab, Nic, SESSION, SOON};
use crate::common::program::Program;
use crate::needs_root;

const WHILE: Duration = Duration::from_secs(3);

/// A server as it should be and a client's file changed by `change`: no session comes about, and this many
/// datagrams at least went to the server.
fn shut_out(lab: &Lab, server: &Edit, change: impl Fn(String) -> String) {
    let server = lab.start_server(server);
    let capture = Capture::on(&lab.server, "wan0");
    let path = lab.write("client0.toml", change(lab.client_toml(0, &Edit::default())));
    let client = Program::start(&lab.sites[0].client, &["-c", path.to_str().unwrap()]);
    client.wait_for_log(&["trying to reach the server"], SOON);
    assert!(!lab.sites[0].lan.answers(lab.sites[0].nics[0].ip, WHILE));
    assert_eq!((client.count(&[SESSION]), server.count(&[SESSION])), (0, 0));
    let seen = capture.finish();
    assert!(seen.packets.iter().any(|p| !p.outgoing && p.bytes[12..14] == [8, 0]), "the client did try");
}

#[test]
fn a_client_that_is_not_on_the_list_gets_no_session() {
    needs_root!();
    let mut lab = Lab::new();
    lab.keygen("stranger");
    shut_out(&lab, &Edit::default(), |text| text.replace("client0.key", "stranger.key"));
}

#[test]
fn who_does_not_know_the_servers_key_hears_nothing_from_it() {
    needs_root!();
    let mut lab = Lab::new();
    lab.keygen("stranger");
    let (right, wrong) = (lab.public_key("server").to_owned(), lab.public_key("stranger").to_owned());
    let server = lab.start_server(&Edit::default());
    let capture = Capture::on(&lab.server, "wan0");
    let text = lab.client_toml(0, &Edit::default()).replace(&right, &wrong);
    let path = lab.write("client0.toml", text);
    let client = Program::start(&lab.sites[0].client, &["-c", path.to_str().unwrap()]);
    client.wait_for_log(&["trying to reach the server"], SOON);
    std::thread::sleep(WHILE);
    let seen = capture.finish();
    let udp = |p: &&tap_rs::sys::packet::Packet| p.bytes[12..14] == [8, 0] && p.bytes[23] == 17;
    assert!(seen.packets.iter().filter(udp).any(|p| !p.outgoing), "the client did try");
    assert_eq!(seen.packets.iter().filter(udp).find(|p| p.outgoing), None);
    assert_eq!((client.count(&[SESSION]), server.count(&[SESSION])), (0, 0));
}

#[test]
fn a_missing_or_wrong_pre_shared_key_gets_no_session() {
    needs_root!();
    std::thread::scope(|scope| {
        for on_client in ["", "psk = \"other\"\n"] {
            scope.spawn(move || {
                let lab = Lab::new();
                lab.write("psk", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
                lab.write("other", "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
                let server = Edit { client: "psk = \"psk\"".into(), ..Edit::default() };
                shut_out(&lab, &server, |text| on_client.to_owned() + &text);
            });
        }
    });
}

#[test]
fn a_suite_that_the_server_does_not_allow_gets_no_session() {
    needs_root!();
    let server = Edit { top: "suites = [\"chacha\"]".into(), ..Edit::default() };
    shut_out(&Lab::new(), &server, |text| "suite = \"aes\"\n".to_owned() + &text);
}

#[test]
fn a_nic_that_the_server_did_not_give_this_client_carries_nothing() {
    needs_root!();
    let lab = Lab::plan().sites(2).build();
    let _server = lab.start_server(&Edit::default());
    // The second client has the NIC of the first in its own file, beside its own.
    let stolen = Nic { on_client: "mv9".into(), ..lab.sites[0].nics[0].clone() };
    let nics = vec![vec![], vec![lab.sites[1].nics[0].clone(), stolen.clone()]];
    let client = lab.start_client(1, &Edit { nics: Some(nics), ..Edit::default() });
    client.wait_for_log(&[SESSION], SOON);
    lab.sites[1].lan.ping(lab.sites[1].nics[0].ip);
    client.wait_for_log(&[&stolen.mac_text()], SOON);
    lab.sites[1].lan.ip("addr add 10.80.0.2/24 dev eth0");
    assert!(!lab.sites[1].lan.answers(stolen.ip, Duration::from_secs(1)));
}
