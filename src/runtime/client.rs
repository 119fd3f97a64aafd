//! The client: NICs on this LAN, one session to its server.

mod advice;
mod params;
mod push;
mod reload;
mod resolve;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing::{debug, info, warn};

use self::advice::Advice;
#[cfg(feature = "full")]
pub use self::params::has_aes;
use self::params::{files, fingerprint, local_nics, params, suite};
use self::push::{Job, Pushes};
use self::resolve::Resolver;
use super::control::Wish;
use super::control_socket::{Asker, Request};
use super::daemon::Background;
use super::host::{Host, Start, Turn, cannot};
use super::load;
use super::path::{any_like, ceiling};
use super::plane;
use super::sandbox;
use super::status::{Snapshot, model, snapshot};
use crate::commands::Failure;
use crate::config::ClientConfig;
use crate::dataplane::Notice;
use crate::keys::PublicKey;
use crate::metrics::DropReason;
use crate::nic::Side;
use crate::nic::events::Event as LinkEvent;
use crate::proto::client::{Client, SERVER};
use crate::proto::output::Event;
use crate::sys::udp::UdpSocket;
use crate::sys::{clock, wipe};
use crate::types::{NetnsName, Path};
use crate::wire::control::{PushState, REPORT_NICS};

/// How often the server hears how this box is doing.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// How long a server may be silent, beyond the time in which a handshake starts, before the NICs go down.
const NICS_OUTLIVE: Duration = Duration::from_secs(3);

/// Runs until a signal or a pushed script ends it. Returns the exit status.
pub async fn run(config: ClientConfig, start: Start, daemon: &mut Option<Background>) -> Result<u8, Failure> {
    let mut session = Session::start(config, start)?;
    session.host.stands(daemon);
    session.live().await
}

struct Session {
    config: ClientConfig,
    client: Client,
    host: Host,
    resolver: Resolver,
    pushes: Pushes,
    advice: Advice,
    /// The last push, to be judged again when the config has changed.
    offered: Option<(u64, Vec<u8>)>,
    /// What became of the last push.
    pushed: Option<model::Push>,
    next_report: Option<Instant>,
    nics_down: Option<Instant>,
    server: Option<SocketAddr>,
    /// This client's own public key.
    public: PublicKey,
    /// Tells whether a pre-shared key is still the same without keeping it.
    psk: Option<[u8; 32]>,
}

impl Session {
    fn start(config: ClientConfig, start: Start) -> Result<Self, Failure> {
        let now = clock::now();
        let params = params(&config)?;
        let public = params.identity.public();
        let psk = params.psk.as_ref().map(fingerprint);
        let client = Client::new(now, params, StdRng::from_rng(&mut rand::rng()))
            .ok_or_else(|| Failure::Refused("the cryptographic library refuses the server's key".into()))?;
        let sockets = bind(config.common.workers).map_err(cannot("open a UDP socket"))?;
        let keeper = Rc::clone(&start.keeper);
        let mut host = Host::start(now, start, &config.common, (Side::Client, sockets), files(&config))?;
        host.supervisor.status(format!("no session with {} yet", config.server));
        host.plane.add_peer(SERVER);
        host.ports
            .set(now, &mut host.plane, local_nics(&config))
            .map_err(|e| Failure::Refused(e.to_string()))?;
        sandbox::filter();
        info!(server = %config.server, suite = suite(&config).noise_name(), "client started");
        Ok(Self {
            resolver: Resolver::new(config.server.clone(), Rc::clone(&keeper)),
            pushes: Pushes::new(keeper),
            advice: Advice::default(),
            config,
            client,
            host,
            offered: None,
            pushed: None,
            next_report: None,
            nics_down: None,
            server: None,
            public,
            psk,
        })
    }

    async fn live(&mut self) -> Result<u8, Failure> {
        loop {
            self.drain(clock::now());
            let due = [self.client.poll_timeout(), self.next_report, self.nics_down];
            let due = due.into_iter().flatten().min();
            let end = tokio::select! {
                turn = self.host.next(due) => self.handle_turn(clock::now(), turn)?,
                address = self.resolver.next() => {
                    self.handle_address(clock::now(), address);
                    None
                }
                job = self.pushes.next() => self.handle_job(clock::now(), job),
            };
            if let Some(status) = end {
                return Ok(self.stop(status));
            }
        }
    }

    /// Some: the client ends with this status.
    fn handle_turn(&mut self, now: Instant, turn: Turn) -> Result<Option<u8>, Failure> {
        match turn {
            Turn::Wish(Wish::Stop) => return Ok(Some(0)),
            Turn::Wish(Wish::Reload) => {
                // Whoever sent the signal reads the log.
                let _ = self.reload(now, false);
            }
            Turn::Wish(Wish::Rekey) => self.client.rekey(),
            Turn::Notice(notice) => self.handle_notice(now, notice)?,
            Turn::Links(netns, events) => self.handle_links(now, netns.as_ref(), &events),
            Turn::Asked(asker) => self.handle_asker(now, asker),
            Turn::Scraped(scrape) => {
                let snapshot = self.snapshot(now);
                self.host.handle_scrape(now, scrape, &snapshot);
            }
            Turn::Time => self.handle_timeout(now),
            // A client verifies nobody.
            Turn::Verdict(..) => {}
        }
        Ok(None)
    }

    /// Everything is put back; the server hears a good-bye. The workers end before the interfaces go.
    fn stop(&mut self, status: u8) -> u8 {
        let now = clock::now();
        self.host.supervisor.stopping();
        let established = self.client.is_established();
        self.client.shut_down(now);
        self.drain(now);
        self.host.log_drops();
        if established {
            info!(server = %self.config.server, "session ended");
        }
        info!(status, "client stopped");
        status
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.client.poll_timeout().is_some_and(|t| now >= t) {
            self.client.handle_timeout(now);
        }
        self.host.handle_timeout(now);
        if self.next_report.take_if(|t| now >= *t).is_some() {
            self.report(now);
        }
        if self.nics_down.take_if(|t| now >= *t).is_some() {
            warn!("the server does not answer: NICs down");
            self.host.set_live(now, SERVER, None);
        }
    }

    fn drain(&mut self, now: Instant) {
        loop {
            while let Some((_, message)) = self.host.poll_message() {
                self.client.tell(now, &message);
            }
            let Some(output) = self.client.poll_output() else { return };
            if let Some((_, event)) = self.host.plane.apply(output) {
                self.handle_event(now, event);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Established { suite, path, first } => {
                // From now on a server that does not answer is down, and that is told as it is.
                self.advice.answered();
                if first {
                    info!(server = %path.remote, suite = suite.noise_name(), "session established");
                } else {
                    debug!("session renewed");
                }
                self.host
                    .supervisor
                    .status(format!("session with {} at {}", self.config.server, path.remote));
                let (server, key) = (&self.config.server, &self.config.server_key);
                self.host.hooks.peer_up(SERVER, |words| {
                    words.with("PEER", server).with("PEER_KEY", key).with("ENDPOINT", path.remote)
                });
                self.go_live(now, path.remote);
                self.next_report.get_or_insert(now);
            }
            Event::Silent => {
                info!(server = %self.config.server, "the server does not answer");
                self.host.supervisor.status(format!("{} does not answer", self.config.server));
                self.nics_down = Some(now + NICS_OUTLIVE);
            }
            Event::Answers => {
                info!(server = %self.config.server, "the server answers again");
                if let Some(server) = self.server {
                    self.host.supervisor.status(format!("session with {} at {server}", self.config.server));
                    self.go_live(now, server);
                }
            }
            Event::Bye => info!(server = %self.config.server, "session ended: the server has stopped"),
            Event::Lost => {
                warn!(server = %self.config.server, "no session");
                self.host.supervisor.status(format!("no session with {}", self.config.server));
                let (server, key) = (&self.config.server, &self.config.server_key);
                self.host.hooks.peer_down(SERVER, |words| words.with("PEER", server).with("PEER_KEY", key));
                (self.nics_down, self.next_report) = (None, None);
                self.host.set_live(now, SERVER, None);
            }
            Event::Resolve { greeted } => {
                self.advice.unanswered(greeted, &self.config.server, &self.public);
                self.resolver.again();
            }
            Event::Probe { token, nic } => self.host.handle_probe(now, SERVER, (token, nic)),
            Event::Probed(probed) => self.host.handle_probed(now, SERVER, &probed),
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

    fn go_live(&mut self, now: Instant, server: SocketAddr) {
        self.nics_down = None;
        self.server = Some(server);
        self.client.set_ceiling(now, ceiling(&Path::new(server, None)));
        let local = any_like(server, self.host.local.port());
        self.host.set_live(now, SERVER, Some((local, server)));
    }

    fn handle_notice(&mut self, now: Instant, notice: Notice) -> Result<(), Failure> {
        let taken = match notice {
            Notice::Datagram { bytes, .. } => {
                let taken = self.client.handle_datagram(now, &bytes);
                // Noise has had the private key; what is refused before it has another reason.
                if matches!(taken, Ok(()) | Err(DropReason::BadHandshake)) {
                    wipe::stack();
                }
                taken
            }
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
            Notice::Claimed { key, ip, mac } => {
                self.host.ports.handle_claim(now, &self.host.plane, key, (ip, mac));
                Ok(())
            }
            // The server is known by its address, and the loop asks the client for its next time anyway.
            Notice::Moved { .. } | Notice::Wake { .. } | Notice::RekeyWanted { .. } => Ok(()),
            notice => return self.host.handle_notice(now, notice),
        };
        if let Err(reason) = taken {
            self.host.plane.refuse(reason);
        }
        Ok(())
    }

    fn handle_links(&mut self, now: Instant, netns: Option<&NetnsName>, events: &[LinkEvent]) {
        let route = |e: &LinkEvent| !matches!(e, LinkEvent::LinkNew(_));
        if events.iter().any(route) {
            if let Some(server) = self.server {
                let path = Path::new(server, None);
                self.client.handle_address(now, path, ceiling(&path));
            }
            self.client.handle_network_change(now);
        }
        self.host.handle_links(now, netns, events);
    }

    fn handle_address(&mut self, now: Instant, address: std::io::Result<SocketAddr>) {
        match address {
            Ok(address) => {
                self.advice.resolved();
                let path = Path::new(address, None);
                if self.server.replace(path.remote) != Some(path.remote) {
                    info!(server = %self.config.server, address = %path.remote, "trying to reach the server");
                }
                self.client.handle_address(now, path, ceiling(&path));
            }
            Err(e) => self.advice.unresolved(&self.config.server, &e),
        }
    }

    /// A push has been judged, or its script has ended. Some: the client ends with this status.
    fn handle_job(&mut self, now: Instant, job: Job) -> Option<u8> {
        let Job { revision, verdict } = job;
        match verdict {
            Ok(nics) => {
                if let Err(e) = self.host.ports.set(now, &mut self.host.plane, nics.wanted(&self.config)) {
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
            Request::Reload { dry_run } => asker.conclude(self.reload(now, dry_run)),
            _ => self.host.handle_asker(now, asker, |_| self.config.server.to_string()),
        }
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let name = self.config.server.to_string();
        let mut peer = match (self.client.session(), self.client.is_silent()) {
            (Some(info), silent) => snapshot::peer(now, name, &info, silent),
            (None, _) => model::Peer { name, state: "none".to_owned(), ..model::Peer::default() },
        };
        peer.push = self.pushed.clone();
        self.host.snapshot(now, "client", vec![peer], |_| self.config.server.to_string())
    }

    fn report(&mut self, now: Instant) {
        let uptime = now.saturating_duration_since(self.host.started);
        let nics = self.host.ports.reports();
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
    plane::bind((Ipv6Addr::UNSPECIFIED, 0).into(), workers, false)
        .or_else(|_| plane::bind((Ipv4Addr::UNSPECIFIED, 0).into(), workers, false))
}
