//! Can the other side be reached: the server's name, its answer to a HELLO, the server's own port.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::finding::Findings;
use super::subject::Subject;
use crate::commands::Failure;
use crate::config::{ClientConfig, Host, ServerConfig, SuiteChoice};
use crate::proto::cookie::ServerName;
use crate::runtime::ping::Pinger;
use crate::types::Suite;
use crate::wire::datagram::{Cookie, Hello};

/// How long a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(6);

/// How often a HELLO is said, and how long each is waited for.
const HELLOS: u32 = 3;
const HELLO_GAP: Duration = Duration::from_millis(400);

/// A path that carries less than this in a datagram is narrower than Ethernet with any common tunnel round it.
const NARROW: u16 = 1380;

/// Looks from this end.
pub fn examine(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    paths(subject, findings)?;
    if let Some(client) = subject.client() {
        return server_answers(subject, client, findings);
    }
    if let Some(server) = subject.server() {
        return port_is_ours(subject, server, findings);
    }
    Ok(())
}

/// How much the paths carry that there are.
fn paths(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    for peer in subject.running.iter().flat_map(|s| &s.peers) {
        let settled = peer.handshake_age_s.is_some_and(|age| age > 5);
        if let Some(bytes) = peer.datagram_bytes.filter(|bytes| settled && *bytes < NARROW) {
            let what = format!(
                "the path to {} carries datagrams of {bytes} bytes only: frames cross whole all the same, in more parts",
                peer.name
            );
            findings.note(
                "path",
                what,
                "look for a link with a small MTU on the way: `tracepath` names it",
            )?;
        }
    }
    Ok(())
}

fn server_answers(subject: &Subject, client: &ClientConfig, findings: &mut Findings) -> Result<(), Failure> {
    let peer = subject.running.as_ref().and_then(|s| s.peers.first());
    let Some(address) = resolved(client, findings)? else { return Ok(()) };
    if let Some(peer) = peer.filter(|peer| peer.state == "established") {
        return findings
            .ok("server", format!("a session with {}", peer.endpoint.as_deref().unwrap_or(&peer.name)));
    }
    let suites = suites(client);
    let greeted = suites.iter().map(|suite| (*suite, greet(address, client, *suite)));
    let mut silence = None;
    for (suite, greeting) in greeted {
        match greeting {
            Greeting::Cookie if suite == suites[0] => return let_in(subject, client, findings),
            Greeting::Cookie => {
                let (ours, theirs) = if suite.is_aes() { ("chacha", "aes") } else { ("aes", "chacha") };
                let what = format!("the server at {address} answers with suite {theirs} and not with {ours}");
                return findings.broken(
                    "server",
                    what,
                    format!("write suite = \"{theirs}\" here, or add \"{ours}\" to `suites` there"),
                );
            }
            Greeting::Refused => {
                let what = format!(
                    "the box at {} says that nobody listens on UDP port {}",
                    address.ip(),
                    address.port()
                );
                return findings.broken(
                    "server",
                    what,
                    "start the server there, or write its own port in [server] bind_addr",
                );
            }
            Greeting::Failed(e) => {
                let what = format!("nothing can be sent to {address}: {e}");
                return findings.broken(
                    "server",
                    what,
                    format!("`ip route get {}` shows what way there is", address.ip()),
                );
            }
            Greeting::Silence => silence = Some(()),
        }
    }
    let Some(()) = silence else { return Ok(()) };
    let up = Pinger::new(address.ip())
        .and_then(|mut p| p.once(Duration::from_secs(1)))
        .is_ok_and(|trip| trip.is_some());
    let host = if up { "the box itself answers" } else { "nor does the box answer an echo request" };
    let what = format!("no answer from UDP port {} of {}, {host}", address.port(), address.ip());
    let mend = format!(
        "there: start the server, let the port in (`nft insert rule inet filter input udp dport {} accept`), and compare [server] public_key here with `tap-rs pubkey < server.key`",
        address.port()
    );
    findings.broken("server", what, mend)
}

/// It answers those who know its key. Whether it has a session with us is another matter.
fn let_in(subject: &Subject, client: &ClientConfig, findings: &mut Findings) -> Result<(), Failure> {
    let running = subject.running.is_some();
    if !running {
        return findings.ok("server", "the server answers, and its public key is right");
    }
    let own = crate::keys::PrivateKey::read(&client.common.private_key).map(|key| key.public().to_string());
    let own = own.unwrap_or_else(|_| "that `tap-rs pubkey` gives".into());
    let what = "the server answers, its public key is right, and it does not let this client in";
    let mend = format!(
        "list public_key = \"{own}\" under [[clients]] there, and see that psk is the same on both sides, or on neither"
    );
    findings.broken("server", what, mend)
}

fn resolved(client: &ClientConfig, findings: &mut Findings) -> Result<Option<SocketAddr>, Failure> {
    let name = match &client.server.host {
        Host::Ip(ip) => return Ok(Some((*ip, client.server.port).into())),
        Host::Name(name) => name.clone(),
    };
    let (asked, port) = (name.clone(), client.server.port);
    let (tell, told) = mpsc::channel();
    // The resolver has a patience of its own, which may be long.
    std::thread::spawn(move || {
        let found = (asked.as_str(), port).to_socket_addrs().map(|mut a| a.next());
        let _ = tell.send(found);
    });
    let why = match told.recv_timeout(RESOLVE) {
        Ok(Ok(Some(address))) => {
            findings.ok("dns", format!("{name} is {}", address.ip()))?;
            return Ok(Some(address));
        }
        Ok(Ok(None)) => "it has no address".to_owned(),
        Ok(Err(e)) => e.to_string(),
        Err(_) => format!("no answer within {} s", RESOLVE.as_secs()),
    };
    let what = format!("the server's name {name} cannot be resolved: {why}");
    findings.broken("dns", what, "see that /etc/resolv.conf names a DNS server that answers (`getent hosts NAME`), or write the server's address in [server] bind_addr")?;
    Ok(None)
}

/// The client's own suite first, then the one with the other cipher.
fn suites(client: &ClientConfig) -> [Suite; 2] {
    let both = [Suite::Aes, Suite::ChaCha].map(|s| s.with_psk(client.psk.is_some()));
    if client.suite == SuiteChoice::ChaCha { [both[1], both[0]] } else { both }
}

enum Greeting {
    Cookie,
    Refused,
    Failed(io::Error),
    Silence,
}

/// Says HELLO, as a client that starts a handshake does, and goes no further.
fn greet(address: SocketAddr, client: &ClientConfig, suite: Suite) -> Greeting {
    match try_greet(address, client, suite) {
        Ok(true) => Greeting::Cookie,
        Ok(false) => Greeting::Silence,
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Greeting::Refused,
        Err(e) => Greeting::Failed(e),
    }
}

fn try_greet(address: SocketAddr, client: &ClientConfig, suite: Suite) -> io::Result<bool> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    let name = ServerName::new(&client.server_key).ok_or(ErrorKind::InvalidInput)?;
    let mut room = [0; 2048];
    for _ in 0..HELLOS {
        let hello = Hello { suite, sender_index: rand::random(), nonce: rand::random() };
        let bytes = hello.encode(|signed| name.hello_mac(signed));
        socket.send(&bytes)?;
        let end = Instant::now() + HELLO_GAP;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            let n = match socket.recv(&mut room) {
                Ok(n) => n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let cookie = room.get(..n).and_then(|b| b.try_into().ok()).and_then(|b| Cookie::decode(b).ok());
            let is_ours = |c: &Cookie| c.receiver_index == hello.sender_index;
            if cookie.filter(is_ours).is_some_and(|c| name.open(&bytes, c.nonce, c.sealed).is_some()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn port_is_ours(subject: &Subject, server: &ServerConfig, findings: &mut Findings) -> Result<(), Failure> {
    let port = server.bind.port();
    let bound = bound(port);
    let who = format!("`ss -ulpn 'sport = :{port}'` shows which");
    match (subject.running.is_some(), bound.len()) {
        (true, 0) => findings.broken(
            "port",
            format!("tap-rs runs, and nobody listens on UDP port {port} here"),
            "restart it: a changed bind_addr takes effect at the start",
        ),
        (true, 1) => findings.ok("port", format!("UDP port {port} is tap-rs's")),
        (true, n) => {
            let what = format!(
                "{n} sockets have UDP port {port}: one with an address of its own takes what comes for that"
            );
            findings.warn("port", what, format!("end the others; {who}"))
        }
        (false, 0) => findings.warn(
            "port",
            format!("the server does not run: nobody listens on UDP port {port}"),
            format!("start it: `tap-rs -c {}`", subject.file()),
        ),
        (false, _) => findings.broken(
            "port",
            format!("another program has UDP port {port}"),
            format!("end it, or choose another bind_addr on both sides; {who}"),
        ),
    }
}

/// The local addresses of the sockets with this port in this network namespace, as the kernel lists them.
fn bound(port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| {
            text.lines().filter_map(|l| l.split_whitespace().nth(1).map(str::to_owned)).collect::<Vec<_>>()
        })
        .filter(|local| local.ends_with(&wanted))
        .collect()
}
