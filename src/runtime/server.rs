//! The server: the NICs of every client, a session with each.

mod advice;
mod enrol;
mod reload;
mod roster;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::rc::Rc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use self::advice::Advice;
use self::roster::Roster;
#[cfg(feature = "full")]
use super::capture;
use super::control::{self, LinkEvents, Signals, Sleeps, Wish, until};
use super::control_socket::{Asker, Listener, Request};
use super::daemon::Background;
use super::exporter::{Exporter, Scrape};
use super::hooks::{Hooks, Words};
use super::keeper::Keeper;
use super::load::Memory;
use super::notify::Supervisor;
use super::path::{any_like, ceiling};
use super::plane::{self, Plane, local_addr};
use super::ports::Ports;
use super::probe::{self, Probes};
use super::reload::Source;
use super::sandbox::{self, Sandbox};
use super::status::{Snapshot, model, snapshot};
use crate::commands::Failure;
use crate::config::{Hook, ServerConfig};
use crate::dataplane::Notice;
use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::nic::Side;
use crate::proto::output::{Event, PeerId};
use crate::proto::server::{Server, ServerParams};
use crate::sys::clock;
use crate::types::{Path, Suite};
use crate::wire::control::{Control, PushState, Report};
use crate::wire::datagram::{Header, Type};

/// Runs until a signal ends it. Returns the exit status.
pub async fn run(
    config: ServerConfig,
    file: Source,
    words: Words,
    keeper: Rc<Keeper>,
    daemon: &mut Option<Background>,
) -> Result<u8, Failure> {
    let mut host = Host::start(config, file, words, keeper)?;
    if let Some(daemon) = daemon {
        daemon.started();
    }
    host.tell_supervisor();
    host.supervisor.ready();
    host.hooks.up();
    host.live().await
}

struct Host {
    file: Source,
    config: ServerConfig,
    server: Server,
    plane: Plane,
    notices: mpsc::Receiver<Notice>,
    ports: Ports,
    keeper: Rc<Keeper>,
    roster: Roster,
    links: LinkEvents,
    signals: Signals,
    sleeps: Sleeps,
    local: SocketAddr,
    _sandbox: Sandbox,
    /// Both ends of each client's path, as long as it has a session.
    tunnels: BTreeMap<PeerId, (SocketAddr, SocketAddr)>,
    /// Where each client is, as long as it has a session.
    paths: BTreeMap<PeerId, SocketAddr>,
    advice: Advice,
    asked: Listener,
    exporter: Exporter,
    memory: Memory,
    supervisor: Supervisor,
    hooks: Hooks,
    /// Marked frames under way.
    proofs: Probes,
    started: Instant,
    /// The server's own public key.
    public: PublicKey,
    /// What each client has said of itself.
    heard: BTreeMap<PeerId, Heard>,
}

/// What a client has said of itself.
#[derive(Default)]
struct Heard {
    report: Option<(Instant, Report)>,
    push: Option<model::Push>,
    /// What the log has of that in this run of the client.
    logged: Option<model::Push>,
}

impl Host {
    fn start(config: ServerConfig, file: Source, words: Words, keeper: Rc<Keeper>) -> Result<Self, Failure> {
        let now = clock::now();
        let cannot = |what: String, e: std::io::Error| Failure::Refused(format!("cannot {what}: {e}"));
        let identity = PrivateKey::read(&config.common.private_key)?;
        let public = identity.public();
        let params = ServerParams { identity, suites: suites(&config), instance: rand::rng().random() };
        let server = Server::new(now, params, StdRng::from_rng(&mut rand::rng()))
            .ok_or_else(|| Failure::Refused("the cryptographic library refuses the key".into()))?;
        let workers = config.common.workers;
        let sockets = plane::bind(config.bind, workers).map_err(|e| bind_failed(config.bind, &e))?;
        let local = local_addr(&sockets).map_err(|e| cannot("read the socket's address".into(), e))?;
        let asked = Listener::open(&file.path);
        let exporter = Exporter::open(config.common.metrics)?;
        let memory = Memory::open();
        let supervisor = Supervisor::of_environment(now);
        let sandbox = sandbox::confine(&file.folders(files(&config)));
        let (plane, notices) =
            Plane::start(sockets, Side::Server).map_err(|e| cannot("start the data plane".into(), e))?;
        control::let_workers_first();
        let links = LinkEvents::new().map_err(|e| cannot("watch the interfaces".into(), e))?;
        let sleeps = Sleeps::new().map_err(|e| cannot("watch the clock".into(), e))?;
        let signals = Signals::new().map_err(|e| cannot("watch for signals".into(), e))?;
        let mut host = Self {
            server,
            plane,
            notices,
            ports: Ports::new(Rc::clone(&keeper)),
            hooks: Hooks::new(config.common.hooks.clone(), words, Rc::clone(&keeper)),
            keeper,
            roster: Roster::default(),
            links,
            signals,
            sleeps,
            local,
            _sandbox: sandbox,
            tunnels: BTreeMap::new(),
            paths: BTreeMap::new(),
            advice: Advice::default(),
            asked,
            exporter,
            memory,
            supervisor,
            proofs: Probes::default(),
            started: now,
            heard: BTreeMap::new(),
            file,
            config,
            public,
        };
        host.server.ask_first(host.hooks.has(Hook::Verify));
        let config = host.config.clone();
        host.ports.sweep();
        host.adopt(now, &config, psks(&config)?)?;
        sandbox::filter();
        info!(bind = %local, clients = config.clients.len(), "server started");
        Ok(host)
    }

    async fn live(&mut self) -> Result<u8, Failure> {
        loop {
            self.drain(clock::now());
            let (proofs, watchdog) = (self.proofs.poll_timeout(), self.supervisor.poll_timeout());
            let due = [self.server.poll_timeout(), self.ports.poll_timeout(), proofs, watchdog];
            let due = due.into_iter().flatten().min();
            // In any order: in a fixed one a flood of notices would keep the timers from ever having their turn.
            tokio::select! {
                wish = self.signals.next() => match wish {
                    Wish::Stop => return Ok(self.stop()),
                    Wish::Reload => {
                        // Whoever sent the signal reads the log.
                        let _ = self.reload(clock::now(), false);
                    }
                    Wish::Rekey => warn!("SIGUSR1 renews the session on a client; a server answers its clients"),
                },
                Some(notice) = self.notices.recv() => self.handle_notice(clock::now(), notice)?,
                events = self.links.next() => {
                    self.ports.handle_links(clock::now(), &mut self.plane, None, &events);
                }
                (peer, from, good) = self.hooks.next() => {
                    self.server.handle_verdict(clock::now(), peer, from, good);
                }
                (netns, events) = self.ports.next_events() => {
                    self.ports.handle_links(clock::now(), &mut self.plane, Some(&netns), &events);
                }
                asker = self.asked.next() => self.handle_asker(clock::now(), asker),
                scrape = self.exporter.next() => self.handle_scrape(clock::now(), scrape),
                slept = self.sleeps.next() => info!(seconds = slept.as_secs(), "the machine has slept"),
                () = until(due) => {
                    let now = clock::now();
                    self.server.handle_timeout(now);
                    self.ports.handle_timeout(now, &mut self.plane);
                    self.supervisor.handle_timeout(now);
                    self.probes(now, Probes::handle_timeout);
                }
            }
        }
    }

    /// Every client hears a good-bye. The workers end before the interfaces go.
    fn stop(&mut self) -> u8 {
        let now = clock::now();
        self.supervisor.stopping();
        self.server.shut_down(now);
        self.drain(now);
        self.ports.log_drops();
        self.plane.log_drops();
        info!("server stopped");
        0
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.server.poll_output() {
            if let Some((peer, event)) = self.plane.apply(output) {
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
                    self.heard.entry(peer).or_default().logged = None;
                    info!(%client, endpoint = %path.remote, suite = suite.noise_name(), "session established");
                } else {
                    debug!(%client, endpoint = %path.remote, "session renewed");
                }
                let told = self.of_peer(peer);
                self.hooks.peer_up(peer, |words| told(words).with("ENDPOINT", path.remote));
                self.go_live(now, peer, path);
            }
            Event::Verify(path) => {
                let told = self.of_peer(peer);
                let from = path.remote.ip();
                self.hooks.verify(peer, from, |words| told(words).with("ENDPOINT", path.remote));
            }
            Event::Moved(path) => {
                info!(%client, endpoint = %path.remote, "client moved");
                self.go_live(now, peer, path);
            }
            Event::Silent => {
                info!(%client, "the client is silent");
                self.ports.set_live(now, &mut self.plane, peer, None);
            }
            Event::Answers => {
                info!(%client, "the client answers again");
                self.ports.set_live(now, &mut self.plane, peer, self.tunnels.get(&peer).copied());
            }
            Event::Bye => info!(%client, "session ended: the client has stopped"),
            Event::Lost => {
                info!(%client, "no session");
                let told = self.of_peer(peer);
                self.hooks.peer_down(peer, told);
                self.paths.remove(&peer);
                self.tunnels.remove(&peer);
                self.ports.set_live(now, &mut self.plane, peer, None);
            }
            Event::Status { revision, state, code } => {
                let push = snapshot::push(revision, state, code);
                let heard = self.heard.entry(peer).or_default();
                heard.push = Some(push.clone());
                // A client repeats it until it has heard that we have.
                if heard.logged.replace(push.clone()).as_ref() == Some(&push) {
                    return;
                }
                let revision = &push.revision;
                match state {
                    PushState::Applied => info!(%client, revision, "the client follows its config"),
                    _ => {
                        let state = &push.state;
                        warn!(%client, revision, state, code, "the client refuses its config; its own log says why");
                    }
                }
            }
            Event::Report(report) => {
                log_report(client, &report);
                self.heard.entry(peer).or_default().report = Some((now, report));
            }
            Event::Flapping => {
                warn!(
                    %client,
                    "two boxes use this client's key in turn; give each its own with `tap-rs keygen`"
                );
            }
            Event::Probe { token, nic } => {
                let mut taken = Ok(());
                self.probes(now, |probes, cx| taken = probes.handle_probe(peer, (token, nic), cx));
                if let Err(reason) = taken {
                    self.plane.refuse(reason);
                }
            }
            Event::Probed(probed) => {
                self.probes(now, |probes, cx| probes.handle_probed(peer, &probed, cx));
            }
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
        self.supervisor.status(format!("{connected} of {all} clients have a session"));
    }

    fn handle_asker(&mut self, now: Instant, asker: Asker) {
        match asker.request.clone() {
            Request::Status {} => asker.answer(&self.snapshot(now)),
            Request::Reload { dry_run } => match self.reload(now, dry_run) {
                Ok(told) => asker.answer(&told),
                Err(why) => asker.refuse(why),
            },
            #[cfg(feature = "full")]
            Request::Capture { nic, snaplen } => {
                let name = |id| self.roster.name(id).to_owned();
                capture::begin(asker, (&nic, snaplen), &self.ports, &self.plane, name);
            }
            Request::Probe { nic, bytes } => {
                let Self { server, plane, ports, proofs, roster, .. } = self;
                let mut tell = |id, message: &Control<'_>| server.tell(now, id, message);
                let mut cx = probe::Context { now, plane, ports, tell: &mut tell };
                let name = |id| roster.name(id).to_owned();
                proofs.start(asker, (&nic, bytes), rand::rng().random(), &mut cx, name);
            }
        }
    }

    fn handle_scrape(&mut self, now: Instant, scrape: Scrape) {
        if self.exporter.is_stale(now, &scrape) {
            let snapshot = self.snapshot(now);
            self.exporter.renew(now, &scrape, &snapshot);
        }
        self.exporter.answer(scrape);
    }

    fn probes(&mut self, now: Instant, work: impl FnOnce(&mut Probes, &mut probe::Context<'_>)) {
        let Self { server, plane, ports, proofs, .. } = self;
        let mut tell = |id, message: &Control<'_>| server.tell(now, id, message);
        work(proofs, &mut probe::Context { now, plane, ports, tell: &mut tell });
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
                peer.report = heard.report.as_ref().map(|(at, report)| snapshot::report(now, *at, report));
                peer.push = heard.push.clone();
            }
            peer
        };
        Snapshot {
            role: "server".to_owned(),
            peers: self.roster.names().map(peer).collect(),
            nics: self.ports.snapshot(now, |id| self.roster.name(id).to_owned()),
            plane: self.plane.snapshot(),
            ..snapshot::frame(
                now,
                self.started,
                &self.file.path.display().to_string(),
                self.local,
                &self.memory,
            )
        }
    }

    fn go_live(&mut self, now: Instant, peer: PeerId, path: Path) {
        self.server.set_ceiling(now, peer, ceiling(&path));
        self.paths.insert(peer, path.remote);
        let local = path
            .local
            .map_or_else(|| any_like(path.remote, self.local.port()), |ip| (ip, self.local.port()).into());
        self.tunnels.insert(peer, (local, path.remote));
        self.ports.set_live(now, &mut self.plane, peer, Some((local, path.remote)));
    }

    fn handle_notice(&mut self, now: Instant, notice: Notice) -> Result<(), Failure> {
        let taken = match notice {
            Notice::Datagram { path, bytes } => {
                let taken = self.server.handle_datagram(now, path, &bytes);
                let hello = Header::decode(&bytes).is_ok_and(|header| header.kind == Type::Hello);
                self.advise(now, path, hello && taken.is_ok());
                taken
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
            Notice::NicDead { key, error } => {
                debug!("a NIC's descriptor died: {error}");
                self.ports.handle_dead(now, &self.plane, key);
                Ok(())
            }
            Notice::Storm { key } => {
                self.ports.handle_storm(now, key);
                Ok(())
            }
            Notice::Probe { key, token, step, at } => {
                self.probes(now, |probes, cx| probes.handle_step((key, token), step, at, cx));
                Ok(())
            }
            Notice::WorkerDead { error } => {
                return Err(Failure::Refused(format!("the data plane has ended: {error}")));
            }
            // The client starts every handshake, and asks its LAN.
            Notice::RekeyWanted { .. } | Notice::Claimed { .. } => Ok(()),
        };
        if let Err(reason) = taken {
            self.plane.refuse(reason);
        }
        Ok(())
    }

    /// Tells of who cannot get in, and why that may be.
    fn advise(&mut self, now: Instant, path: Path, hello: bool) {
        if let Some(key) = self.server.take_stranger() {
            self.advice.stranger(now, path, key);
        }
        if hello && !self.paths.values().any(|known| *known == path.remote) {
            let nics = self.config.clients.iter().flat_map(|client| &client.nics);
            self.advice.greeted(now, path, nics.map(|nic| &nic.spec));
        }
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

fn log_report(client: &str, report: &Report) {
    let load = f64::from(report.load) / 100.0;
    let (total, available) = report.memory;
    let frames =
        |pick: fn(&crate::wire::control::NicReport) -> u64| report.nics.iter().map(pick).sum::<u64>();
    let (up, down) = (frames(|n| n.uplink.0), frames(|n| n.downlink.0));
    info!(
        %client,
        load,
        memory_kb = total,
        available_kb = available,
        frames_up = up,
        frames_down = down,
        "client report"
    );
}
