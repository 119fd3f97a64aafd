//! What the server pushed: judged, its script run, its NICs made.
//!
//! One push at a time. While a script runs the tunnel goes on; a newer push waits for its end.

use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tracing::{debug, info, warn};

use crate::config::{ClientConfig, Limits, NicSource};
use crate::nic::{NicRequest, Side};
use crate::proto::client::SERVER;
use crate::runtime::control::Waiting;
use crate::runtime::keeper::Keeper;
use crate::runtime::ports::Wanted;
use crate::runtime::script::{Outcome, Script, ScriptError, allowed};
use crate::types::{NicMode, NicSpec, NicStack};
use crate::wire::control::PushState;
use crate::wire::push::{Push, PushError, PushedNic};

/// What became of a push.
pub struct Job {
    /// Which.
    pub revision: u64,
    /// The NICs to have, or why not.
    pub verdict: Result<Nics, Refusal>,
}

/// Why a push is not followed.
pub struct Refusal {
    /// One sentence.
    pub why: String,
    /// What the server hears.
    pub state: PushState,
    /// The script's status, else 0.
    pub code: u8,
    /// The client ends with that status.
    pub ends: bool,
}

/// The NICs of a push that may be followed.
#[derive(Clone)]
pub struct Nics {
    mode: Option<NicMode>,
    nics: Vec<PushedNic>,
}

/// The pushes of this run.
pub struct Pushes {
    keeper: Rc<Keeper>,
    /// Scripts that have run to a good end, by hash: each runs once.
    done: HashSet<[u8; 32]>,
    running: Option<Running>,
    ready: Option<Job>,
    /// The newest push that came while a script ran.
    waiting: Option<(u64, Push, Policy)>,
}

struct Running {
    revision: u64,
    hash: [u8; 32],
    nics: Nics,
    ended: Waiting<Result<Outcome, ScriptError>>,
}

/// What of the client's config a script is held to.
#[derive(Clone)]
struct Policy {
    script: crate::config::ScriptPolicy,
    limit: std::time::Duration,
}

impl Pushes {
    /// None so far. Scripts are run by the keeper.
    pub fn new(keeper: Rc<Keeper>) -> Self {
        Self { keeper, done: HashSet::new(), running: None, ready: None, waiting: None }
    }

    /// A blob has come. What comes of it is told by [`Self::next`].
    pub fn take(&mut self, revision: u64, blob: &[u8], config: &ClientConfig) {
        let remote = matches!(config.nics, NicSource::Remote { .. });
        let judged = Push::decode(blob).map_err(|e| malformed(&e)).and_then(|mut push| {
            if remote {
                within(&push, &config.limits, config)?;
            } else if !push.script.is_empty() {
                info!("the server offers a script; it would run only with use_remote_config = true");
                push.script = Vec::new();
            }
            Ok(push)
        });
        let policy = Policy { script: config.script.clone(), limit: config.script_timeout };
        match judged {
            Ok(push) if self.running.is_some() => self.waiting = Some((revision, push, policy)),
            Ok(push) => self.begin(revision, push, &policy),
            Err(refusal) => self.ready = Some(Job { revision, verdict: Err(refusal) }),
        }
    }

    /// The next push that is through. Safe to drop and to call again.
    pub async fn next(&mut self) -> Job {
        loop {
            if let Some(job) = self.ready.take() {
                return job;
            }
            let Some(running) = &mut self.running else { return std::future::pending().await };
            let outcome = (&mut running.ended).await;
            let Some(Running { revision, hash, nics, .. }) = self.running.take() else { continue };
            let verdict = judge(outcome).map(|()| {
                self.done.insert(hash);
                nics
            });
            self.ready = Some(Job { revision, verdict });
            if let Some((revision, push, policy)) = self.waiting.take() {
                // The job that is ready is older: its NICs would be replaced at once.
                if self.ready.as_ref().is_some_and(|job| job.verdict.is_ok()) {
                    self.begin(revision, push, &policy);
                }
            }
        }
    }

    fn begin(&mut self, revision: u64, push: Push, policy: &Policy) {
        let nics = Nics { mode: push.mode, nics: push.nics };
        let done = |verdict| Some(Job { revision, verdict });
        if push.script.is_empty() {
            self.ready = done(Ok(nics));
            return;
        }
        match allowed(&policy.script, &push.script) {
            Ok(hash) if self.done.contains(&hash) => {
                debug!("the pushed script has run before");
                self.ready = done(Ok(nics));
            }
            Ok(hash) => {
                info!(bytes = push.script.len(), "running the pushed script");
                let (bytes, limit): (Arc<[u8]>, _) = (push.script.into(), policy.limit);
                let keeper = Rc::clone(&self.keeper);
                let ended = Box::pin(async move { keeper.run(Script { bytes: &bytes, limit }).await });
                self.running = Some(Running { revision, hash, nics, ended });
            }
            Err(e) => {
                let (why, state) = (e.to_string(), PushState::ScriptRefused);
                self.ready = done(Err(Refusal { why, state, code: 0, ends: false }));
            }
        }
    }
}

impl Nics {
    /// Those of a blob that was judged before.
    pub fn of(blob: &[u8]) -> Option<Self> {
        Push::decode(blob).ok().map(|push| Self { mode: push.mode, nics: push.nics })
    }

    /// Those that this client is to have.
    pub fn wanted(self, config: &ClientConfig) -> Vec<Wanted> {
        match &config.nics {
            NicSource::Local(_) => self.numbers(config),
            NicSource::Remote { parent } => {
                let mode = self.mode.unwrap_or(config.mode);
                self.nics
                    .into_iter()
                    .map(|nic| Wanted {
                        peer: SERVER,
                        id: Some(nic.id),
                        request: NicRequest {
                            spec: nic.spec,
                            mode,
                            parent: nic.parent.or_else(|| parent.clone()),
                            side: Side::Client,
                            configure: true,
                            offload: config.common.offload,
                            stack: NicStack::default(),
                        },
                        rules: config.limits.rules,
                        reply_arp: config.reply_arp,
                        probe: config.probe,
                    })
                    .collect()
            }
        }
    }

    /// The client's own NICs, with the numbers that the server gave them.
    fn numbers(&self, config: &ClientConfig) -> Vec<Wanted> {
        let mut wanted = super::local_nics(config);
        for w in &mut wanted {
            let same = self.nics.iter().find(|n| n.spec.mac == w.request.spec.mac);
            w.id = same.map(|n| n.id);
            let (name, ours) = (&w.request.spec.name, &w.request.spec);
            let Some(theirs) = same.map(|n| &n.spec) else {
                let (mac, known) = (ours.mac, listed(self.nics.iter().map(|n| n.spec.mac)));
                warn!(
                    nic = %name, %mac,
                    "the server has no NIC with this MAC for this client, so it stays down; the server's: {known}"
                );
                continue;
            };
            if theirs.mtu != ours.mtu {
                let (ours, theirs) = (ours.mtu, theirs.mtu);
                warn!(nic = %name, %ours, servers = %theirs, "the two sides have different MTUs for this NIC");
            }
            if addresses(ours) != addresses(theirs) {
                let (ours, servers) = (listed(addresses(ours)), listed(addresses(theirs)));
                warn!(
                    nic = %name, ours, servers,
                    "the two sides have different addresses for this NIC, so ARP or neighbour discovery for them fails; \
                     write the same ip on both"
                );
            }
        }
        wanted
    }
}

/// A NIC's addresses, whatever the prefixes that one side may leave out.
fn addresses(spec: &NicSpec) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = spec.addrs.iter().map(|a| a.ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

fn malformed(e: &PushError) -> Refusal {
    Refusal { why: e.to_string(), state: PushState::ConfigRefused, code: 0, ends: false }
}

/// Is this within what the client lets its server set?
fn within(push: &Push, limits: &Limits, config: &ClientConfig) -> Result<(), Refusal> {
    let refuse = |why: String| Refusal { why, state: PushState::ConfigRefused, code: 0, ends: false };
    let own = match &config.nics {
        NicSource::Remote { parent } => parent.as_ref(),
        NicSource::Local(_) => None,
    };
    if push.nics.len() > usize::from(limits.max_nics) {
        return Err(refuse(format!(
            "the server wants {} NICs here, this client's limit is max_nics = {}",
            push.nics.len(),
            limits.max_nics
        )));
    }
    for nic in &push.nics {
        let spec = &nic.spec;
        if !limits.mtu.contains(&spec.mtu.bytes()) {
            return Err(refuse(format!(
                "the server wants MTU {} for {}, this client's limits are min_mtu = {} and max_mtu = {}",
                spec.mtu,
                spec.name,
                limits.mtu.start(),
                limits.mtu.end()
            )));
        }
        if let Some(parent) = &nic.parent
            && Some(parent) != own
            && !limits.parents.contains(parent)
        {
            return Err(refuse(format!(
                "the server wants {} made on {parent}, which is not among this client's parents; to allow it, write \
                 parents = [\"{parent}\"] under [limits]",
                spec.name
            )));
        }
    }
    let unique = |of: fn(&PushedNic) -> String| push.nics.iter().map(of).collect::<HashSet<_>>().len();
    if [unique(|n| n.id.to_string()), unique(|n| n.spec.name.to_string()), unique(|n| n.spec.mac.to_string())]
        .iter()
        .any(|n| *n != push.nics.len())
    {
        return Err(refuse("the server gives two NICs the same number, name or MAC".into()));
    }
    Ok(())
}

fn judge(outcome: Result<Outcome, ScriptError>) -> Result<(), Refusal> {
    let failed = |why: String, code: u8| Refusal { why, state: PushState::ScriptFailed, code, ends: true };
    match outcome {
        Ok(Outcome::Exited(0)) => Ok(()),
        Ok(Outcome::Exited(n)) => Err(failed(format!("the pushed script ended with status {n}"), n)),
        Ok(o @ Outcome::Signaled(s)) => Err(failed(format!("signal {s} ended the pushed script"), o.code())),
        Ok(o @ Outcome::TimedOut) => {
            Err(failed("the pushed script ran longer than script_timeout and was stopped".into(), o.code()))
        }
        Err(e) => {
            let ends = !matches!(e, ScriptError::Interpreter(_));
            Err(Refusal { why: e.to_string(), state: PushState::ScriptRefused, code: 1, ends })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides, load};
    use crate::keys::PrivateKey;
    use crate::types::{MacAddr, NicId};

    fn config() -> ClientConfig {
        let folder = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate(&mut rand::rng());
        key.write_new(&folder.path().join("client.key")).unwrap();
        let text = format!(
            "run_mode = \"client\"\nprivate_key = \"client.key\"\nuse_remote_config = true\nparent = \"eth0\"\n\
             [server]\nbind_addr = \"192.0.2.1:1234\"\npublic_key = \"{}\"\n\
             [limits]\nmax_nics = 2\nparents = [\"eth1\"]\nmin_mtu = 1280\nmax_mtu = 1500\n",
            PrivateKey::generate(&mut rand::rng()).public()
        );
        let file = folder.path().join("client.toml");
        std::fs::write(&file, text).unwrap();
        match load(&file, &Overrides::default()) {
            Ok((Config::Client(config), _)) => config,
            other => panic!("{other:?}"),
        }
    }

    fn nic(n: u8, mtu: u32, parent: &str) -> PushedNic {
        let (name, addrs) = (format!("mv{n}").parse().unwrap(), Vec::new());
        let spec = NicSpec { name, mac: MacAddr([2, 0, 0, 0, 0, n]), addrs, mtu: mtu.try_into().unwrap() };
        PushedNic { id: NicId(n.into()), spec, parent: Some(parent.parse().unwrap()) }
    }

    #[test]
    fn what_the_limits_forbid_is_refused_and_named() {
        let config = config();
        let twin = |change: fn(&mut PushedNic)| {
            let mut second = nic(2, 1500, "eth0");
            change(&mut second);
            vec![nic(1, 1500, "eth0"), second]
        };
        for (nics, word) in [
            (vec![nic(1, 1500, "eth0"), nic(2, 1500, "eth0"), nic(3, 1500, "eth0")], "max_nics = 2"),
            (vec![nic(1, 1279, "eth0")], "min_mtu = 1280"),
            (vec![nic(1, 1501, "eth0")], "max_mtu = 1500"),
            (vec![nic(1, 1500, "eth2")], "parents = [\"eth2\"]"),
            (twin(|n| n.id = NicId(1)), "the same number"),
            (twin(|n| n.spec.name = "mv1".parse().unwrap()), "name"),
            (twin(|n| n.spec.mac = MacAddr([2, 0, 0, 0, 0, 1])), "MAC"),
        ] {
            let push = Push { nics, ..Push::default() };
            let Err(refusal) = within(&push, &config.limits, &config) else { panic!("{word}: followed") };
            assert!(refusal.why.contains(word) && !refusal.ends, "{}", refusal.why);
            assert_eq!(refusal.state, PushState::ConfigRefused);
        }
        let allowed = Push { nics: vec![nic(1, 1280, "eth0"), nic(2, 1500, "eth1")], ..Push::default() };
        assert!(within(&allowed, &config.limits, &config).is_ok());
    }
}
