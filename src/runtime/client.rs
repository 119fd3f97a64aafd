//! The client: NICs on this LAN, one session to its server.

mod params;
mod push;
mod reload;
mod resolve;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

#[cfg(feature = "full")]
pub use self::params::has_aes;
use self::params::{files, fingerprint, params, suite};
use self::push::{Job, Pushes};
use self::resolve::Resolver;
#[cfg(feature = "full")]
use super::capture;
use super::control::{self, LinkEvents, Signals, Sleeps, Wish, until};
use super::control_socket::{Asker, Listener, Request};
use super::daemon::Background;
use super::exporter::{Exporter, Scrape};
use super::hooks::{Hooks, Words};
use super::keeper::Keeper;
use super::load::{self, Memory};
use super::notify::Supervisor;
use super::path::{any_like, ceiling};
use super::plane::{self, Plane, local_addr};
use super::ports::{Ports, Wanted};
use super::probe::{self, Probes};
use super::reload::Source;
use super::sandbox::{self, Sandbox};
use super::status::{Snapshot, model, snapshot};
use crate::commands::Failure;
use crate::config::{ClientConfig, NicSource};
use crate::dataplane::Notice;
use crate::keys::PublicKey;
use crate::nic::events::Event as LinkEvent;
use crate::nic::{NicRequest, Side};
use crate::proto::client::{Client, SERVER};
use crate::proto::output::Event;
use crate::sys::clock;
use crate::sys::udp::UdpSocket;
use crate::types::{NicStack, Path};
use crate::wire::control::{Control, PushState, REPORT_NICS};

/// How often the server hears how this box is doing.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// How long a server may be silent, beyond the time in which a handshake starts, before the NICs go down.
const NICS_OUTLIVE: Duration = Duration::from_secs(3);

/// Runs until a signal or a pushed script ends it. Returns the exit status.
pub async fn run(
    config: ClientConfig,
    file: Source,
    words: Words,
    keeper: Rc<Keeper>,
    daemon: &mut Option<Background>,
) -> Result<u8, Failure> {
    let mut session = Session::start(config, file, words, keeper)?;
    if let Some(daemon) = daemon {
        daemon.started();
    }
    session.supervisor.ready();
    session.hooks.up();
    session.live().await
}

struct Session {
    config: ClientConfig,
    client: Client,
    plane: Plane,
    notices: mpsc::Receiver<Notice>,
    ports: Ports,
    links: LinkEvents,
    signals: Signals,
    sleeps: Sleeps,
    resolver: Resolver,
    pushes: Pushes,
    _sandbox: Sandbox,
    asked: Listener,
    exporter: Exporter,
    memory: Memory,
    supervisor: Supervisor,
    hooks: Hooks,
    /// Marked frames under way.
    proofs: Probes,
    /// Where the config comes from.
    file: Source,
    keeper: Rc<Keeper>,
    /// The last push, to be judged again when the config has changed.
    offered: Option<(u64, Vec<u8>)>,
    /// What became of the last push.
    pushed: Option<model::Push>,
    started: Instant,
    next_report: Option<Instant>,
    nics_down: Option<Instant>,
    local: SocketAddr,
    server: Option<SocketAddr>,
    /// This client's own public key.
    public: PublicKey,
    /// Tells whether a pre-shared key is still the same without keeping it.
    psk: Option<[u8; 32]>,
    /// Which advice was last given.
    advised: Option<bool>,
    /// Why the server's name could not be resolved the last time.
    unresolved: Option<String>,
}

impl Session {
    fn start(config: ClientConfig, file: Source, words: Words, keeper: Rc<Keeper>) -> Result<Self, Failure> {
        let now = clock::now();
        let params = params(&config)?;
        let public = params.identity.public();
        let psk = params.psk.as_ref().map(fingerprint);
        let rng = StdRng::from_rng(&mut rand::rng());
        let cannot = |what: &str, e: std::io::Error| Failure::Refused(format!("cannot {what}: {e}"));
        let client = Client::new(now, params, rng)
            .ok_or_else(|| Failure::Refused("the cryptographic library refuses the server's key".into()))?;
        let workers = config.common.workers;
        let sockets = bind(workers).map_err(|e| cannot("open a UDP socket", e))?;
        let local = local_addr(&sockets).map_err(|e| cannot("read the socket's address", e))?;
        let asked = Listener::open(&file.path);
        let exporter = Exporter::open(config.common.metrics)?;
        let memory = Memory::open();
        let mut supervisor = Supervisor::of_environment(now);
        supervisor.status(format!("no session with {} yet", config.server));
        let sandbox = sandbox::confine(&file.folders(files(&config)));
        let (mut plane, notices) =
            Plane::start(sockets, Side::Client).map_err(|e| cannot("start the data plane", e))?;
        plane.add_peer(SERVER);
        control::let_workers_first();
        let links = LinkEvents::new().map_err(|e| cannot("watch the interfaces", e))?;
        let sleeps = Sleeps::new().map_err(|e| cannot("watch the clock", e))?;
        let signals = Signals::new().map_err(|e| cannot("watch for signals", e))?;
        let mut ports = Ports::new(Rc::clone(&keeper));
        ports.set(now, &mut plane, local_nics(&config)).map_err(|e| Failure::Refused(e.to_string()))?;
        sandbox::filter();
        info!(server = %config.server, suite = suite(&config).noise_name(), "client started");
        Ok(Self {
            resolver: Resolver::new(config.server.clone(), Rc::clone(&keeper)),
            pushes: Pushes::new(Rc::clone(&keeper)),
            hooks: Hooks::new(config.common.hooks.clone(), words, Rc::clone(&keeper)),
            keeper,
            config,
            client,
            plane,
            notices,
            ports,
            links,
            signals,
            sleeps,
            _sandbox: sandbox,
            asked,
            exporter,
            memory,
            supervisor,
            proofs: Probes::default(),
            file,
            offered: None,
            pushed: None,
            started: now,
            next_report: None,
            nics_down: None,
            local,
            server: None,
            public,
            psk,
            advised: None,
            unresolved: None,
        })
    }

    async fn live(&mut self) -> Result<u8, Failure> {
        loop {
            self.drain(clock::now());
            let due = self.due();
            // In any order: in a fixed one a flood of notices would keep the timers from ever having their turn.
            tokio::select! {
                wish = self.signals.next() => match wish {
                    Wish::Stop => return Ok(self.stop(0)),
                    Wish::Reload => {
                        // Whoever sent the signal reads the log.
                        let _ = self.reload(clock::now(), false);
                    }
                    Wish::Rekey => self.client.rekey(),
                },
                Some(notice) = self.notices.recv() => self.handle_notice(clock::now(), notice)?,
                events = self.links.next() => self.handle_links(clock::now(), &events),
                address = self.resolver.next() => self.handle_address(clock::now(), address),
                job = self.pushes.next() => {
                    if let Some(status) = self.handle_job(clock::now(), job) {
                        return Ok(self.stop(status));
                    }
                }
                // A client verifies nobody.
                _ = self.hooks.next() => {}
                asker = self.asked.next() => self.handle_asker(clock::now(), asker),
                scrape = self.exporter.next() => self.handle_scrape(clock::now(), scrape),
                slept = self.sleeps.next() => info!(seconds = slept.as_secs(), "the machine has slept"),
                () = until(due) => self.handle_timeout(clock::now()),
            }
        }
    }

    /// Everything is put back; the server hears a good-bye. The workers end before the interfaces go.
    fn stop(&mut self, status: u8) -> u8 {
        let now = clock::now();
        self.supervisor.stopping();
        let established = self.client.is_established();
        self.client.shut_down(now);
        self.drain(now);
        self.ports.log_drops();
        self.plane.log_drops();
        if established {
            info!(server = %self.config.server, "session ended");
        }
        info!(status, "client stopped");
        status
    }

    fn due(&self) -> Option<Instant> {
        let own = [
            self.client.poll_timeout(),
            self.ports.poll_timeout(),
            self.proofs.poll_timeout(),
            self.supervisor.poll_timeout(),
            self.next_report,
            self.nics_down,
        ];
        own.into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.client.poll_timeout().is_some_and(|t| now >= t) {
            self.client.handle_timeout(now);
        }
        self.ports.handle_timeout(now, &mut self.plane);
        self.supervisor.handle_timeout(now);
        self.probes(now, Probes::handle_timeout);
        if self.next_report.take_if(|t| now >= *t).is_some() {
            self.report(now);
        }
        if self.nics_down.take_if(|t| now >= *t).is_some() {
            warn!("the server does not answer: NICs down");
            self.ports.set_live(now, &mut self.plane, SERVER, None);
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.client.poll_output() {
            if let Some((_, event)) = self.plane.apply(output) {
                self.handle_event(now, event);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Established { suite, path, first } => {
                // From now on a server that does not answer is down, and that is told as it is.
                self.advised = Some(false);
                if first {
                    info!(server = %path.remote, suite = suite.noise_name(), "session established");
                } else {
                    debug!("session renewed");
                }
                self.supervisor.status(format!("session with {} at {}", self.config.server, path.remote));
                let (server, key) = (&self.config.server, &self.config.server_key);
                self.hooks.peer_up(SERVER, |words| {
                    words.with("PEER", server).with("PEER_KEY", key).with("ENDPOINT", path.remote)
                });
                self.go_live(now, path.remote);
                self.next_report.get_or_insert(now);
            }
            Event::Silent => {
                info!(server = %self.config.server, "the server does not answer");
                self.supervisor.status(format!("{} does not answer", self.config.server));
                self.nics_down = Some(now + NICS_OUTLIVE);
            }
            Event::Answers => {
                info!(server = %self.config.server, "the server answers again");
                if let Some(server) = self.server {
                    self.supervisor.status(format!("session with {} at {server}", self.config.server));
                    self.go_live(now, server);
                }
            }
            Event::Bye => info!(server = %self.config.server, "session ended: the server has stopped"),
            Event::Lost => {
                warn!(server = %self.config.server, "no session");
                self.supervisor.status(format!("no session with {}", self.config.server));
                let (server, key) = (&self.config.server, &self.config.server_key);
                self.hooks.peer_down(SERVER, |words| words.with("PEER", server).with("PEER_KEY", key));
                (self.nics_down, self.next_report) = (None, None);
                self.ports.set_live(now, &mut self.plane, SERVER, None);
            }
            Event::Resolve { greeted } => {
                self.advise(greeted);
                self.resolver.again();
            }
            Event::Probe { token, nic } => {
                let mut taken = Ok(());
                self.probes(now, |probes, cx| taken = probes.handle_probe(SERVER, (token, nic), cx));
                if let Err(reason) = taken {
                    self.plane.refuse(reason);
                }
            }
            Event::Probed(probed) => {
                self.probes(now, |probes, cx| probes.handle_probed(SERVER, &probed, cx));
            }
            Event::Push { revision, blob } => {
                self.pushes.take(revision, &blob, &self.config);
                self.offered = Some((revision, blob));
            }
            Event::Flapping => warn!(
                server = %self.config.server,
                "another run of the server answers each time: it is restarted again and again, or two servers have one \
                 key; give each its own with `tap-rs keygen`"
            ),
            Event::Enrol(_)
            | Event::Enrolled(_)
            | Event::Moved(_)
            | Event::Status { .. }
            | Event::Report(_)
            | Event::Verify(_) => {}
        }
    }

    /// What may keep the first session from coming about; once, and again when it turns out to be something else.
    fn advise(&mut self, greeted: bool) {
        if self.advised.replace(greeted) == Some(greeted) {
            return;
        }
        let server = &self.config.server;
        if greeted {
            warn!(
                %server,
                public_key = %self.public,
                "the server is there and does not let this client in: is this public_key listed under [[clients]] \
                 there, and is psk the same on both sides?"
            );
        } else {
            let look = if cfg!(feature = "full") { " `tap-rs doctor` looks which it is" } else { "" };
            warn!(
                %server,
                "no answer: is the server running, does its firewall let this UDP port in, is public_key the server's \
                 own, and is suite one of its suites?{look}"
            );
        }
    }

    fn go_live(&mut self, now: Instant, server: SocketAddr) {
        self.nics_down = None;
        self.server = Some(server);
        self.ports.set_live(
            now,
            &mut self.plane,
            SERVER,
            Some((any_like(server, self.local.port()), server)),
        );
    }

    fn handle_notice(&mut self, now: Instant, notice: Notice) -> Result<(), Failure> {
        let taken = match notice {
            Notice::Datagram { bytes, .. } => self.client.handle_datagram(now, &bytes),
            Notice::Control { index, path, bytes, .. } => {
                self.client.handle_control(now, index, path, &bytes)
            }
            Notice::FirstUse { index, .. } => {
                self.client.handle_first_use(index);
                Ok(())
            }
            Notice::DatagramTooBig { .. } => {
                self.client.handle_too_big(now);
                Ok(())
            }
            Notice::NicDead { key, error } => {
                debug!("a NIC's descriptor died: {error}");
                self.ports.handle_dead(now, &self.plane, key);
                Ok(())
            }
            Notice::Probe { key, token, step, at } => {
                self.probes(now, |probes, cx| probes.handle_step((key, token), step, at, cx));
                Ok(())
            }
            Notice::Claimed { key, ip, mac } => {
                self.ports.handle_claim(now, &self.plane, key, (ip, mac));
                Ok(())
            }
            Notice::Storm { key } => {
                self.ports.handle_storm(now, key);
                Ok(())
            }
            Notice::WorkerDead { error } => {
                return Err(Failure::Refused(format!("the data plane has ended: {error}")));
            }
            // The server is known by its address, and the loop asks the client for its next time anyway.
            Notice::Moved { .. } | Notice::Wake { .. } | Notice::RekeyWanted { .. } => Ok(()),
        };
        if let Err(reason) = taken {
            self.plane.refuse(reason);
        }
        Ok(())
    }

    fn handle_links(&mut self, now: Instant, events: &[LinkEvent]) {
        let route = |e: &LinkEvent| !matches!(e, LinkEvent::LinkNew(_));
        if events.iter().any(route) {
            if let Some(server) = self.server {
                let path = Path::new(server, None);
                self.client.handle_address(now, path, ceiling(&path));
            }
            self.client.handle_network_change(now);
        }
        self.ports.handle_links(now, &mut self.plane, None, events);
    }

    fn handle_address(&mut self, now: Instant, address: std::io::Result<SocketAddr>) {
        match address {
            Ok(address) => {
                self.unresolved = None;
                let path = Path::new(address, None);
                if self.server.replace(path.remote) != Some(path.remote) {
                    info!(server = %self.config.server, address = %path.remote, "trying to reach the server");
                }
                self.client.handle_address(now, path, ceiling(&path));
            }
            Err(e) => {
                let why = e.to_string();
                // Tried every few seconds, and said when it is new.
                if self.unresolved.as_ref() != Some(&why) {
                    warn!(
                        server = %self.config.server,
                        "cannot resolve the server's name: {why}; see that /etc/resolv.conf names a DNS server that \
                         answers, or write the server's address in bind_addr"
                    );
                    self.unresolved = Some(why);
                }
            }
        }
    }

    /// A push has been judged, or its script has ended. Some: the client ends with this status.
    fn handle_job(&mut self, now: Instant, job: Job) -> Option<u8> {
        let Job { revision, verdict } = job;
        match verdict {
            Ok(nics) => {
                if let Err(e) = self.ports.set(now, &mut self.plane, nics.wanted(&self.config)) {
                    warn!("{e}");
                    self.conclude(now, revision, PushState::NicFailed, 0);
                    return None;
                }
                self.conclude(now, revision, PushState::Applied, 0);
                None
            }
            Err(refusal) => {
                warn!("{}", refusal.why);
                self.conclude(now, revision, refusal.state, refusal.code);
                if !refusal.ends {
                    return None;
                }
                // The server hears why before it hears the good-bye.
                self.client.handle_timeout(now);
                Some(refusal.code)
            }
        }
    }

    /// The server hears what became of a push, and so does whoever asks here.
    fn conclude(&mut self, now: Instant, revision: u64, state: PushState, code: u8) {
        self.client.report_status(now, revision, state, code);
        self.pushed = Some(snapshot::push(revision, state, code));
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
                let name = |_| self.config.server.to_string();
                capture::begin(asker, (&nic, snaplen), &self.ports, &self.plane, name);
            }
            Request::Probe { nic, bytes } => {
                let (server, token) = (self.config.server.to_string(), rand::random());
                self.probes(now, |probes, cx| {
                    probes.start(asker, (&nic, bytes), token, cx, |_| server.clone());
                });
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
        let Self { client, plane, ports, proofs, .. } = self;
        let mut tell = |_, message: &Control<'_>| client.tell(now, message);
        work(proofs, &mut probe::Context { now, plane, ports, tell: &mut tell });
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let name = self.config.server.to_string();
        let mut peer = match (self.client.session(), self.client.is_silent()) {
            (Some(info), silent) => snapshot::peer(now, name, &info, silent),
            (None, _) => model::Peer { name, state: "none".to_owned(), ..model::Peer::default() },
        };
        peer.push = self.pushed.clone();
        Snapshot {
            role: "client".to_owned(),
            peers: vec![peer],
            nics: self.ports.snapshot(now, |_| self.config.server.to_string()),
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

    fn report(&mut self, now: Instant) {
        let uptime = now.saturating_duration_since(self.started);
        let nics = self.ports.reports();
        let mut parts: Vec<_> = nics.chunks(REPORT_NICS).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        for part in parts {
            self.client.report(now, load::report(uptime, part));
        }
        self.next_report = Some(now + REPORT_EVERY);
    }
}

/// A socket for IPv6 and IPv4; for IPv4 alone where the kernel has no IPv6.
fn bind(workers: NonZeroU8) -> std::io::Result<Vec<UdpSocket>> {
    plane::bind((Ipv6Addr::UNSPECIFIED, 0).into(), workers)
        .or_else(|_| plane::bind((Ipv4Addr::UNSPECIFIED, 0).into(), workers))
}

/// The NICs of the client's own file, whose numbers the server will tell.
fn local_nics(config: &ClientConfig) -> Vec<Wanted> {
    let NicSource::Local(nics) = &config.nics else { return Vec::new() };
    nics.iter()
        .map(|nic| Wanted {
            peer: SERVER,
            id: None,
            request: NicRequest {
                spec: nic.spec.clone(),
                mode: config.mode,
                parent: nic.parent.clone(),
                side: Side::Client,
                configure: true,
                offload: config.common.offload,
                stack: NicStack::default(),
            },
            rules: nic.rules,
            reply_arp: config.reply_arp,
            probe: nic.probe,
        })
        .collect()
}

/// A future that is polled across loop turns.
pub(super) type Waiting<T> = Pin<Box<dyn Future<Output = T>>>;

/// A script's bytes, shared with the future that runs it.
type Bytes = Arc<[u8]>;
