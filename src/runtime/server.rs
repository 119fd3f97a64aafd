//! The server: the NICs of every client, a session with each.

mod advice;
mod door;
mod enrol;
mod heard;
mod reload;
mod roster;

use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tracing::{debug, info, warn};

use self::advice::Advice;
use self::door::Door;
use self::heard::Heard;
use self::roster::Roster;
use super::control::Wish;
use super::control_socket::{Asker, Request};
use super::daemon::Background;
use super::hooks::Words;
use super::host::{Host, Start, Turn, cannot};
use super::path::{any_like, ceiling};
use super::sandbox;
use super::status::{Snapshot, model, snapshot};
use crate::commands::Failure;
use crate::config::{Hook, ServerConfig};
use crate::dataplane::Notice;
use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::nic::Side;
use crate::proto::output::{Event, PeerId};
use crate::proto::server::{Server, ServerParams};
use crate::sys::udp::UdpSocket;
use crate::sys::{clock, wipe};
use crate::types::{Path, Sorted, Suite};

/// Turns of sessions, timers and whoever asks that go before a batch of strangers' handshakes which waits.
const TURNS: u32 = 128;

/// Runs until a signal ends it. Returns the exit status.
pub async fn run(config: ServerConfig, start: Start, daemon: &mut Option<Background>) -> Result<u8, Failure> {
    let mut hub = Hub::start(config, start)?;
    hub.tell_supervisor();
    hub.host.stands(daemon);
    hub.live().await
}

struct Hub {
    config: ServerConfig,
    server: Server,
    host: Host,
    /// Handshakes of strangers; none where they come by the workers.
    door: Option<Door>,
    roster: Roster,
    /// Both ends of each client's path, as long as it has a session.
    tunnels: Sorted<PeerId, (SocketAddr, SocketAddr)>,
    /// Where each client is, as long as it has a session.
    paths: Sorted<PeerId, SocketAddr>,
    advice: Advice,
    /// The server's own public key.
    public: PublicKey,
    /// What each client has said of itself.
    heard: Sorted<PeerId, Heard>,
}

impl Hub {
    fn start(config: ServerConfig, start: Start) -> Result<Self, Failure> {
        let now = clock::now();
        let identity = PrivateKey::read(&config.common.private_key)?;
        let public = identity.public();
        let params = ServerParams { identity, suites: suites(&config), instance: rand::rng().random() };
        let server = Server::new(now, params, StdRng::from_rng(&mut rand::rng()))
            .ok_or_else(|| Failure::Refused("the cryptographic library refuses the key".into()))?;
        let workers = config.common.workers;
        let (sockets, door) =
            door::bind(config.bind, workers, server.index_tag()).map_err(|e| bind_failed(config.bind, &e))?;
        let open = sockets.iter().chain(&door).map(UdpSocket::try_clone).collect::<Result<_, _>>();
        let open = open.map_err(cannot("open the sockets twice"))?;
        let mut host = Host::start(now, start, &config.common, (Side::Server, sockets), files(&config))?;
        host.plane.watch(open);
        let door = door.map(Door::new).transpose().map_err(cannot("wait for handshakes"))?;
        let mut hub = Self {
            server,
            host,
            door,
            roster: Roster::default(),
            tunnels: Sorted::default(),
            paths: Sorted::default(),
            advice: Advice::default(),
            heard: Sorted::default(),
            config,
            public,
        };
        hub.server.ask_first(hub.host.hooks.has(Hook::Verify));
        let config = hub.config.clone();
        hub.host.ports.sweep();
        hub.adopt(now, &config, psks(&config)?)?;
        sandbox::filter();
        info!(bind = %hub.host.local, clients = config.clients.len(), "server started");
        Ok(hub)
    }

    async fn live(&mut self) -> Result<u8, Failure> {
        let mut turns = 0u32;
        loop {
            self.drain(clock::now());
            let due = self.server.poll_timeout();
            // Sessions before strangers, but not for ever.
            let turn = if turns < TURNS {
                tokio::select! { biased; turn = self.host.next(due) => Some(turn), () = door::knock(&mut self.door) => None }
            } else {
                tokio::select! { biased; () = door::knock(&mut self.door) => None, turn = self.host.next(due) => Some(turn) }
            };
            let Some(turn) = turn else {
                turns = 0;
                self.handle_callers(clock::now());
                continue;
            };
            turns = turns.saturating_add(1);
            if let Turn::Wish(Wish::Stop) = turn {
                return Ok(self.stop());
            }
            self.handle_turn(clock::now(), turn)?;
        }
    }

    fn handle_turn(&mut self, now: Instant, turn: Turn) -> Result<(), Failure> {
        match turn {
            Turn::Wish(Wish::Stop) => {}
            Turn::Wish(Wish::Reload) => {
                // Whoever sent the signal reads the log.
                let _ = self.reload(now, false);
            }
            Turn::Wish(Wish::Rekey) => {
                warn!("SIGUSR1 renews the session on a client; a server answers its clients");
            }
            Turn::Notice(notice) => self.handle_notice(now, notice)?,
            Turn::Links(netns, events) => self.host.handle_links(now, netns.as_ref(), &events),
            Turn::Verdict(peer, from, good) => self.server.handle_verdict(now, peer, from, good),
            Turn::Asked(asker) => self.handle_asker(now, asker),
            Turn::Scraped(scrape) => {
                let snapshot = self.snapshot(now);
                self.host.handle_scrape(now, scrape, &snapshot);
            }
            Turn::Time => {
                self.server.handle_timeout(now);
                self.host.handle_timeout(now);
            }
        }
        Ok(())
    }

    /// Every client hears a good-bye. The workers end before the interfaces go.
    fn stop(&mut self) -> u8 {
        let now = clock::now();
        self.host.supervisor.stopping();
        self.server.shut_down(now);
        self.drain(now);
        self.host.log_drops();
        info!("server stopped");
        0
    }

    fn drain(&mut self, now: Instant) {
        loop {
            while let Some((peer, message)) = self.host.poll_message() {
                self.server.tell(now, peer, &message);
            }
            let Some(output) = self.server.poll_output() else { return };
            if let Some((peer, event)) = self.host.plane.apply(output) {
                self.handle_event(now, peer, event);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, peer: PeerId, event: Event) {
        if self.roster.invited(peer).is_some() {
            // It is no client yet, and its session is none that anybody waits for.
            if let Event::Enrol(key) = event {
                self.enrol(now, peer, key);
            }
            return;
        }
        let client = self.roster.name(peer);
        match event {
            Event::Established { suite, path, first } => {
                if first {
                    self.heard.or_default(peer).begin_run();
                    info!(%client, endpoint = %path.remote, suite = suite.noise_name(), "session established");
                } else {
                    debug!(%client, endpoint = %path.remote, "session renewed");
                }
                let told = self.of_peer(peer);
                self.host.hooks.peer_up(peer, |words| told(words).with("ENDPOINT", path.remote));
                self.go_live(now, peer, path);
            }
            Event::Verify(path) => {
                let told = self.of_peer(peer);
                let from = path.remote.ip();
                self.host.hooks.verify(peer, from, |words| told(words).with("ENDPOINT", path.remote));
            }
            Event::Moved(path) => {
                info!(%client, endpoint = %path.remote, "client moved");
                self.go_live(now, peer, path);
            }
            Event::Silent => {
                info!(%client, "the client is silent");
                self.host.set_live(now, peer, None);
            }
            Event::Answers => {
                info!(%client, "the client answers again");
                self.host.set_live(now, peer, self.tunnels.get(&peer).copied());
            }
            Event::Bye => info!(%client, "session ended: the client has stopped"),
            Event::Lost => {
                info!(%client, "no session");
                let told = self.of_peer(peer);
                self.host.hooks.peer_down(peer, told);
                self.paths.remove(&peer);
                self.tunnels.remove(&peer);
                self.host.set_live(now, peer, None);
            }
            Event::Status { revision, state, code } => {
                let push = snapshot::push(revision, state, code);
                self.heard.or_default(peer).take_push(client, push, state);
            }
            Event::Report(report) => {
                self.heard.or_default(peer).take_report(client, now, report);
            }
            Event::Flapping => {
                warn!(
                    %client,
                    "two boxes use this client's key in turn; give each its own with `tap-rs keygen`"
                );
            }
            Event::Probe { token, nic } => self.host.handle_probe(now, peer, (token, nic)),
            Event::Probed(probed) => self.host.handle_probed(now, peer, &probed),
            Event::Enrol(_) | Event::Enrolled(_) | Event::Resolve { .. } | Event::Push { .. } => {}
        }
        self.tell_supervisor();
    }

    /// Says of a peer who it is.
    fn of_peer(&self, peer: PeerId) -> impl FnOnce(Words) -> Words + use<> {
        let name = self.roster.name(peer).to_owned();
        let client = self.config.clients.iter().find(|client| client.name == name);
        let keys = client.map_or(&[][..], |client| &client.keys).iter().map(ToString::to_string);
        let keys = keys.collect::<Vec<_>>().join(" ");
        move |words| words.with("PEER", name).with("PEER_KEY", keys)
    }

    fn tell_supervisor(&mut self) {
        let (connected, all) = (self.paths.len(), self.config.clients.len());
        self.host.supervisor.status(format!("{connected} of {all} clients have a session"));
    }

    fn handle_asker(&mut self, now: Instant, asker: Asker) {
        match asker.request.clone() {
            Request::Status {} => asker.answer(&self.snapshot(now)),
            Request::Reload { dry_run } => asker.conclude(self.reload(now, dry_run)),
            _ => self.host.handle_asker(now, asker, |id| self.roster.name(id).to_owned()),
        }
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let peer = |(id, name): (PeerId, &str)| {
            let mut peer = match self.server.session(id) {
                Some((info, silent)) => snapshot::peer(now, name.to_owned(), &info, silent),
                None => {
                    model::Peer { name: name.to_owned(), state: "none".to_owned(), ..model::Peer::default() }
                }
            };
            if let Some(heard) = self.heard.get(&id) {
                heard.show(now, &mut peer);
            }
            peer
        };
        let peers = self.roster.names().map(peer).collect();
        self.host.snapshot(now, "server", peers, |id| self.roster.name(id).to_owned())
    }

    fn go_live(&mut self, now: Instant, peer: PeerId, path: Path) {
        self.server.set_ceiling(now, peer, ceiling(&path));
        self.paths.insert(peer, path.remote);
        let local = path.local.map_or_else(
            || any_like(path.remote, self.host.local.port()),
            |ip| (ip, self.host.local.port()).into(),
        );
        self.tunnels.insert(peer, (local, path.remote));
        self.host.set_live(now, peer, Some((local, path.remote)));
    }

    fn handle_notice(&mut self, now: Instant, notice: Notice) -> Result<(), Failure> {
        let taken = match notice {
            Notice::Datagram { path, bytes } => {
                if self.handle_datagram(now, path, &bytes) {
                    wipe::stack();
                }
                Ok(())
            }
            Notice::Control { index, path, bytes, .. } => {
                self.server.handle_control(now, index, path, &bytes)
            }
            Notice::FirstUse { index, .. } => {
                self.server.handle_first_use(now, index);
                Ok(())
            }
            Notice::Moved { index, path } => {
                self.server.handle_moved(now, index, path);
                Ok(())
            }
            Notice::Wake { peer } => {
                self.server.handle_wake(PeerId(peer.0));
                Ok(())
            }
            Notice::DatagramTooBig { peer } => {
                self.server.handle_too_big(now, PeerId(peer.0));
                Ok(())
            }
            // The client starts every handshake, and asks its LAN.
            Notice::RekeyWanted { .. } | Notice::Claimed { .. } => Ok(()),
            notice => return self.host.handle_notice(now, notice),
        };
        if let Err(reason) = taken {
            self.host.plane.refuse(reason);
        }
        Ok(())
    }
}

/// The files that a reload reads besides the config.
fn files(config: &ServerConfig) -> impl Iterator<Item = &FilePath> {
    let own = [config.common.private_key.as_path()];
    own.into_iter().chain(config.files.iter().map(|file| file.as_path()))
}

/// The pre-shared keys of the clients, in order.
fn psks(config: &ServerConfig) -> Result<Vec<Option<PresharedKey>>, Failure> {
    let read = |path: Option<&FilePath>| path.map(PresharedKey::read).transpose();
    Ok(config.clients.iter().map(|c| read(c.psk.as_deref())).collect::<Result<_, _>>()?)
}

/// Each allowed AEAD, with a pre-shared key and without: which it is to be depends on the client.
fn suites(config: &ServerConfig) -> Vec<Suite> {
    config.suites.iter().flat_map(|s| [s.with_psk(false), s.with_psk(true)]).collect()
}

fn bind_failed(bind: SocketAddr, e: &std::io::Error) -> Failure {
    let hint = match e.kind() {
        std::io::ErrorKind::AddrInUse => "; another program has this port: `ss -ulpn` shows which",
        std::io::ErrorKind::AddrNotAvailable => {
            "; this box has no such address: `ip addr` shows those it has"
        }
        std::io::ErrorKind::PermissionDenied => "; run as root, or choose a port from 1024 up",
        _ => "",
    };
    Failure::Refused(format!("cannot listen on {bind}: {e}{hint}"))
}
