//! What both sides run on: workers, NICs, signals, and whoever asks from outside. A side adds its state machine and what
//! it alone waits for.
//!
//! ```text
//!   workers · signals · links · hooks · askers · timers ──▶ Host::next ──Turn──▶ the side ──▶ its state machine
//!                                                             ▲                   │
//!                                                             └─ what is alike ◀──┘
//! ```
//!
//! A side's loop takes a [`Turn`] at a time, does what is its own of it and hands the rest back. Messages to peers that
//! come of that wait for [`Host::poll_message`].

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{debug, info};

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
use super::plane::{Plane, local_addr};
use super::ports::Ports;
use super::probe::{self, Probes};
use super::reload::{Reloaded, Source, log_refusal};
use super::sandbox::{self, Sandbox};
use super::status::{Snapshot, model, snapshot};
use crate::commands::Failure;
use crate::config::Common;
use crate::dataplane::Notice;
use crate::nic::Side;
use crate::nic::events::Event as LinkEvent;
use crate::proto::output::PeerId;
use crate::sys::udp::UdpSocket;
use crate::types::{NetnsName, NicId};
use crate::wire::control::Control;
use crate::wire::probe::Probed;

/// What a run of the program begins with, besides its config.
pub struct Start {
    /// Where the config comes from.
    pub file: Source,
    /// What the user's programs are told.
    pub words: Words,
    /// Does what this process may not.
    pub keeper: Rc<Keeper>,
}

/// This box, as the control loop has it. The workers end before the interfaces go.
pub struct Host {
    /// The workers.
    pub plane: Plane,
    notices: mpsc::Receiver<Notice>,
    /// The NICs.
    pub ports: Ports,
    /// The user's programs.
    pub hooks: Hooks,
    /// Does what this process may not.
    pub keeper: Rc<Keeper>,
    /// Whoever has started us.
    pub supervisor: Supervisor,
    /// Where the config comes from.
    pub file: Source,
    /// Where the workers receive.
    pub local: SocketAddr,
    /// When this run began.
    pub started: Instant,
    links: LinkEvents,
    signals: Signals,
    sleeps: Sleeps,
    asked: Listener,
    exporter: Exporter,
    memory: Memory,
    /// Marked frames under way.
    proofs: Probes,
    /// What peers are to be told.
    says: VecDeque<(PeerId, Control<'static>)>,
    _sandbox: Sandbox,
}

/// What a control loop is woken for.
pub enum Turn {
    /// A signal has come.
    Wish(Wish),
    /// A worker hands something on.
    Notice(Notice),
    /// Something happened to interfaces, in the program's own namespace or in this one.
    Links(Option<NetnsName>, Vec<LinkEvent>),
    /// The user's program has judged a peer that wants in from there.
    Verdict(PeerId, IpAddr, bool),
    /// Somebody at the control socket wants something.
    Asked(Asker),
    /// Somebody wants the metrics.
    Scraped(Scrape),
    /// It may be time for what was due.
    Time,
}

impl Host {
    /// Opens what is opened once, gives up what is not needed afterwards, and starts a worker on each socket. `files`: what
    /// a reload reads besides the config. There are no NICs yet, and system calls are not filtered.
    ///
    /// # Errors
    /// One sentence that says what the system refuses.
    pub fn start<'a>(
        now: Instant,
        Start { file, words, keeper }: Start,
        common: &Common,
        (side, sockets): (Side, Vec<UdpSocket>),
        files: impl Iterator<Item = &'a Path>,
    ) -> Result<Self, Failure> {
        let local = local_addr(&sockets).map_err(cannot("read the socket's address"))?;
        let asked = Listener::open(now, Rc::clone(&keeper));
        let exporter = Exporter::open(common.metrics)?;
        let memory = Memory::open();
        let supervisor = Supervisor::of_environment(now);
        let sandbox = sandbox::confine(&file.folders(files));
        let (plane, notices) = Plane::start(sockets, side).map_err(cannot("start the data plane"))?;
        control::let_workers_first();
        Ok(Self {
            plane,
            notices,
            ports: Ports::new(Rc::clone(&keeper)),
            hooks: Hooks::new(common.hooks.clone(), words, Rc::clone(&keeper)),
            keeper,
            supervisor,
            file,
            local,
            started: now,
            links: LinkEvents::new().map_err(cannot("watch the interfaces"))?,
            signals: Signals::new().map_err(cannot("watch for signals"))?,
            sleeps: Sleeps::new().map_err(cannot("watch the clock"))?,
            asked,
            exporter,
            memory,
            proofs: Probes::default(),
            says: VecDeque::new(),
            _sandbox: sandbox,
        })
    }

    /// Everything stands: whoever waits for that hears of it.
    pub fn stands(&mut self, daemon: &mut Option<Background>) {
        daemon.iter_mut().for_each(Background::started);
        self.supervisor.ready();
        self.hooks.up();
    }

    /// The next thing to do. `due`: when the side has something to do of itself. Safe to drop and to call again.
    pub async fn next(&mut self, due: Option<Instant>) -> Turn {
        let own = [self.ports.poll_timeout(), self.proofs.poll_timeout(), self.supervisor.poll_timeout()];
        let due = own.into_iter().chain([due]).flatten().min();
        // In any order: in a fixed one a flood of notices would keep the timers from ever having their turn.
        tokio::select! {
            wish = self.signals.next() => Turn::Wish(wish),
            Some(notice) = self.notices.recv() => Turn::Notice(notice),
            events = self.links.next() => Turn::Links(None, events),
            (netns, events) = self.ports.next_events() => Turn::Links(Some(netns), events),
            (peer, from, good) = self.hooks.next() => Turn::Verdict(peer, from, good),
            asker = self.asked.next() => Turn::Asked(asker),
            scrape = self.exporter.next() => Turn::Scraped(scrape),
            slept = self.sleeps.next() => {
                info!(seconds = slept.as_secs(), "the machine has slept");
                Turn::Time
            }
            () = until(due) => Turn::Time,
        }
    }

    /// A message that a peer is to be told.
    pub fn poll_message(&mut self) -> Option<(PeerId, Control<'static>)> {
        self.says.pop_front()
    }

    /// Does what is due of what both sides have.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ports.handle_timeout(now, &mut self.plane);
        self.supervisor.handle_timeout(now);
        self.probes(now, Probes::handle_timeout);
    }

    /// Something happened to interfaces.
    pub fn handle_links(&mut self, now: Instant, netns: Option<&NetnsName>, events: &[LinkEvent]) {
        self.ports.handle_links(now, &mut self.plane, netns, events);
    }

    /// What a worker hands on and means the same on both sides.
    ///
    /// # Errors
    /// It was the worker's last word.
    pub fn handle_notice(&mut self, now: Instant, notice: Notice) -> Result<(), Failure> {
        match notice {
            Notice::NicDead { key, error } => {
                debug!("a NIC's descriptor died: {error}");
                self.ports.handle_dead(now, &self.plane, key);
            }
            Notice::Storm { key } => self.ports.handle_storm(now, key),
            Notice::Probe { key, token, step, at } => {
                self.probes(now, |probes, cx| probes.handle_step((key, token), step, at, cx));
            }
            Notice::WorkerDead { error } => {
                return Err(Failure::Refused(format!("the data plane has ended: {error}")));
            }
            // Each side does what is to be done with these.
            Notice::Datagram { .. }
            | Notice::Control { .. }
            | Notice::FirstUse { .. }
            | Notice::DatagramTooBig { .. }
            | Notice::Claimed { .. }
            | Notice::Moved { .. }
            | Notice::Wake { .. }
            | Notice::RekeyWanted { .. } => {}
        }
        Ok(())
    }

    /// A peer announces a marked frame.
    pub fn handle_probe(&mut self, now: Instant, peer: PeerId, asked: (u64, NicId)) {
        let mut taken = Ok(());
        self.probes(now, |probes, cx| taken = probes.handle_probe(peer, asked, cx));
        if let Err(reason) = taken {
            self.plane.refuse(reason);
        }
    }

    /// A peer says how far a marked frame of ours has come.
    pub fn handle_probed(&mut self, now: Instant, peer: PeerId, probed: &Probed) {
        self.probes(now, |probes, cx| probes.handle_probed(peer, probed, cx));
    }

    /// Somebody wants something that takes no more than this box. `name`: what a peer is called.
    pub fn handle_asker(&mut self, now: Instant, asker: Asker, name: impl Fn(PeerId) -> String) {
        match asker.request.clone() {
            #[cfg(feature = "full")]
            Request::Capture { nic, snaplen } => {
                capture::begin(asker, (&nic, snaplen), &self.ports, &self.plane, name);
            }
            Request::Probe { nic, bytes } => self.probes(now, |probes, cx| {
                probes.start(asker, (&nic, bytes), rand::random(), cx, name);
            }),
            // Each side answers these.
            Request::Status {} | Request::Reload { .. } => {}
        }
    }

    /// Answers whoever wants the metrics.
    pub fn handle_scrape(&mut self, now: Instant, scrape: Scrape, snapshot: &Snapshot) {
        self.exporter.answer(now, scrape, snapshot);
    }

    /// A peer is there and may be reached so, or not. `tunnel`: where its datagrams go from and to.
    pub fn set_live(&mut self, now: Instant, peer: PeerId, tunnel: Option<(SocketAddr, SocketAddr)>) {
        self.ports.set_live(now, &mut self.plane, peer, tunnel);
    }

    /// This box and those peers, as they stand. `name`: what a peer is called.
    pub fn snapshot(
        &self,
        now: Instant,
        role: &str,
        peers: Vec<model::Peer>,
        name: impl Fn(PeerId) -> String,
    ) -> Snapshot {
        let config = self.file.path.display().to_string();
        Snapshot {
            role: role.to_owned(),
            peers,
            nics: self.ports.snapshot(now, name),
            plane: self.plane.snapshot(),
            ..snapshot::frame(now, self.started, &config, self.local, &self.memory)
        }
    }

    /// The config is about to be read again.
    pub fn begin_reload(&self, dry_run: bool) {
        if !dry_run {
            self.supervisor.reloading();
        }
    }

    /// It has been taken over, or not.
    pub fn end_reload(&self, dry_run: bool, done: &Result<Reloaded, String>) {
        if !dry_run {
            self.supervisor.ready();
        }
        if let Err(why) = done {
            log_refusal(why, dry_run);
        }
    }

    /// Logs what was dropped in this run.
    pub fn log_drops(&self) {
        self.ports.log_drops();
        self.plane.log_drops();
    }

    fn probes(&mut self, now: Instant, work: impl FnOnce(&mut Probes, &mut probe::Context<'_>)) {
        let Self { plane, ports, proofs, says, .. } = self;
        work(proofs, &mut probe::Context { now, plane, ports, says });
    }
}

/// Words for what the system refuses.
pub fn cannot(what: &str) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |e| Failure::Refused(format!("cannot {what}: {e}"))
}
