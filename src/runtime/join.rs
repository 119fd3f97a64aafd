//! `tap-rs join`: a box that has an invite makes a key and becomes a client.
//!
//! ```text
//!   string ──▶ secret ──▶ the invite's key pair ──▶ a session by it ──▶ ENROL(our new key) ──▶ ENROLLED ──▶ client.toml
//! ```
//!
//! One socket, one session, no thread, no NIC, no privileges. The new private key is in its file before the server hears
//! of it: where the answer is lost, the same command again goes on with the same key.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::client::has_aes;
use super::control::wall_clock;
use crate::cli::JoinArgs;
use crate::commands::ask::{default_interface, or_ask};
use crate::commands::init::{beside, client_toml, put, refuse_to_overwrite};
use crate::commands::{Failure, print_line};
use crate::config::{Host, InviteString};
use crate::keys::{PrivateKey, shell_word};
use crate::proto::client::{Client, ClientParams};
use crate::proto::invite;
use crate::proto::output::{Event, Output};
use crate::proto::session::Opener;
use crate::types::{Path, Suite};
use crate::wire::control::Enrolment;
use crate::wire::datagram::{DataHeader, Header, Type};
use crate::wire::record::Record;

/// How long the server may take to answer: some handshakes on a bad line.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that has answered a HELLO and then so many times none of three INITs does not know the invite.
const IGNORED: u32 = 2;

/// What every path carries (docs/PROTOCOL.md, section 13).
const DATAGRAM: u16 = 1232;

/// Uses an invite, and writes the config and key of the client that this box is then.
///
/// # Errors
/// One sentence for each thing that can be wrong with an invite, or with the way to the server.
pub fn command(args: &JoinArgs) -> Result<(), Failure> {
    let given = match args.string.as_deref() {
        Some("-") => Some(first_line()?),
        other => other.map(str::to_owned),
    };
    let text = or_ask(given, "the string that `tap-rs invite` printed", "Invite", None)?;
    let invite: InviteString = text.parse().map_err(|e: crate::types::ParseError| Failure::Refused(e.0))?;
    let at = |name: &str| beside(&args.out, name);
    refuse_to_overwrite(&args.out, &["client.toml"])?;
    let guess = default_interface();
    let question = "The interface on the LAN";
    let parent = or_ask(args.parent.clone(), "--parent IFNAME", question, guess.as_deref())?;
    std::fs::create_dir_all(&args.out)
        .map_err(|e| Failure::Refused(format!("cannot make the folder {}: {e}", args.out.display())))?;
    let (key, made) = own_key(&at("client.key"))?;
    let asked = enrol(&invite, &key);
    if let (true, Err(Refusal { asked: false, .. })) = (made, &asked) {
        // Nobody has heard of it.
        for name in ["client.key", "client.key.pub"] {
            let _ = std::fs::remove_file(at(name));
        }
    }
    asked.map_err(|refusal| Failure::Refused(refusal.why))?;
    let suite = (!(invite.aes && invite.chacha)).then_some(if invite.aes { "aes" } else { "chacha" });
    put(&at("client.toml"), &client_toml(&invite.server, &invite.server_key, &parent, suite))?;
    let (config, key) = (shell_word(&at("client.toml")), shell_word(&at("client.key")));
    print_line(&format!("wrote {config} and {key}\n\nnow run: tap-rs -c {config}"))
}

/// The string from standard input, which no list of processes shows.
fn first_line() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(|e| Failure::Refused(format!("cannot read standard input: {e}")))?;
    Ok(line)
}

/// The key that an earlier try has left, or a new one; and whether it is new.
fn own_key(path: &FilePath) -> Result<(PrivateKey, bool), Failure> {
    if path.exists() {
        return Ok((PrivateKey::read(path)?, false));
    }
    let key = PrivateKey::generate(&mut rand::rng());
    key.write_new(path)?;
    Ok((key, true))
}

/// Why this box is no client.
struct Refusal {
    why: String,
    /// The server may have heard of the key, and may have taken it.
    asked: bool,
}

fn enrol(invite: &InviteString, key: &PrivateKey) -> Result<(), Refusal> {
    let refuse = |why: String| Refusal { why, asked: false };
    let server = invite.server.to_string();
    let mut line = Line::open(invite, key).map_err(|e| refuse(format!("cannot talk to {server}: {e}")))?;
    let again = "ask for a new one: `tap-rs invite NAME` on the server";
    let old = if invite.until <= wall_clock() {
        format!("; by this box's clock the invite was valid until {}, and that is over", invite.until)
    } else {
        String::new()
    };
    match line.run(Instant::now() + PATIENCE) {
        Ok(Some(Enrolment::Accepted)) => Ok(()),
        Ok(Some(Enrolment::Used)) => Err(refuse(format!("this invite has been used; {again}"))),
        Ok(Some(Enrolment::Late)) => {
            Err(refuse(format!("this invite was valid until {}, and that is over; {again}", invite.until)))
        }
        Ok(Some(Enrolment::KeyTaken)) => Err(refuse(
            "the server has a client with this box's key already; remove client.key, and try again"
                .to_owned(),
        )),
        Ok(Some(Enrolment::Failed)) => {
            Err(refuse("the server could not write the key into its config; its log says why".to_owned()))
        }
        Ok(None) if line.established => Err(Refusal {
            why: format!(
                "{server} stopped answering; run the same command again, it goes on with the same key"
            ),
            asked: true,
        }),
        Ok(None) if line.greeted => Err(refuse(format!(
            "{server} is there and does not know this invite: it was taken back, or never made there; {again}{old}"
        ))),
        Ok(None) => Err(refuse(format!(
            "no answer from {server}: is the server running there, and does its firewall let this UDP port in?{old}"
        ))),
        Err(e) => Err(refuse(format!("cannot talk to {server}: {e}"))),
    }
}

/// A client without NICs, as long as it takes to ask one thing.
struct Line {
    socket: UdpSocket,
    client: Client,
    openers: HashMap<u32, Arc<Opener>>,
    answer: Option<Enrolment>,
    /// The server has answered a HELLO.
    greeted: bool,
    /// How often it has then not answered an INIT, whatever was tried.
    ignored: u32,
    established: bool,
}

impl Line {
    fn open(invite: &InviteString, key: &PrivateKey) -> io::Result<Self> {
        let now = Instant::now();
        let server = resolve(invite)?;
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        let suite = if invite.aes && (has_aes() || !invite.chacha) { Suite::Aes } else { Suite::ChaCha };
        let identity = invite::key_pair(&invite.secret, &invite.server_key);
        let params = ClientParams::new(identity, invite.server_key, suite, rand::rng().random());
        let mut client = Client::new(now, params, StdRng::from_rng(&mut rand::rng()))
            .ok_or_else(|| io::Error::other("the cryptographic library refuses the server's key"))?;
        client.handle_address(now, Path::new(server, None), DATAGRAM);
        client.enrol(now, key);
        let openers = HashMap::new();
        Ok(Self { socket, client, openers, answer: None, greeted: false, ignored: 0, established: false })
    }

    /// The server's answer; `None` where there was none in time.
    fn run(&mut self, end: Instant) -> io::Result<Option<Enrolment>> {
        loop {
            let now = Instant::now();
            self.client.handle_timeout(now);
            self.drain()?;
            if self.answer.is_some() || self.ignored >= IGNORED || now >= end {
                self.client.shut_down(now);
                self.drain()?;
                return Ok(self.answer);
            }
            let due = self.client.poll_timeout().map_or(end, |t| t.min(end));
            let wait = due.saturating_duration_since(now).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait))?;
            let mut bytes = [0; 2048];
            match self.socket.recv_from(&mut bytes) {
                Ok((length, from)) => self.take(from, bytes.get_mut(..length).unwrap_or_default()),
                // Nothing came in time; or an earlier datagram could not be delivered, and is sent again.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                            | io::ErrorKind::ConnectionRefused
                    ) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// What is not for us, or not right, is forgotten: the right one may follow.
    fn take(&mut self, from: SocketAddr, bytes: &mut [u8]) {
        let now = Instant::now();
        match Header::decode(bytes).map(|header| header.kind) {
            Ok(Type::Data) => {}
            Ok(kind) => {
                let taken = self.client.handle_datagram(now, bytes);
                self.greeted |= kind == Type::Cookie && taken.is_ok();
                return;
            }
            Err(_) => return,
        }
        let opener = DataHeader::receiver_index(bytes).ok().and_then(|index| self.openers.get(&index));
        let Some(opener) = opener.cloned() else { return };
        let Ok(opened) = opener.open(bytes) else { return };
        opener.volume().count_received(1, 1);
        opener.activity().note_received(now, false);
        self.client.handle_first_use(opener.index());
        let mut rest = &*opened.plaintext;
        while let Ok(Some((record, body, tail))) = Record::decode(rest) {
            if matches!(record, Record::Control) {
                let _ = self.client.handle_control(now, opener.index(), Path::new(from, None), body);
            }
            rest = tail;
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Send { path, bytes } => {
                    // Whatever it was will be said again.
                    let _ = self.socket.send_to(&bytes, path.remote);
                }
                Output::Install { opener, .. } => drop(self.openers.insert(opener.index(), opener)),
                Output::Retire { index } => drop(self.openers.remove(&index)),
                Output::Event { event: Event::Enrolled(state), .. } => self.answer = Some(state),
                Output::Event { event: Event::Resolve { greeted: true }, .. } => {
                    self.ignored = self.ignored.saturating_add(1);
                }
                Output::Event { event: Event::Established { .. }, .. } => self.established = true,
                _ => {}
            }
        }
        Ok(())
    }
}

fn resolve(invite: &InviteString) -> io::Result<SocketAddr> {
    let port = invite.server.port;
    let found = match &invite.server.host {
        Host::Ip(ip) => Some((*ip, port).into()),
        Host::Name(name) => (name.as_str(), port).to_socket_addrs()?.next(),
    };
    found.ok_or_else(|| io::Error::other("the name has no address"))
}
