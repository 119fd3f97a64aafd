//! The shell around the protocol: sockets, clock, signals, scripts. Everything that waits lives here, and
//! nothing but `main` imports it.
//!
//! ```text
//!   config ──▶ run ──▶ client / server: one loop on one thread
//!                        │  notices from the workers, signals, link events, timers
//!                        ▼
//!                      proto::{Client, Server} ──outputs──▶ Plane ──commands──▶ workers
//!                        │                                   ▲
//!                        └──events──▶ Ports: the NICs ───────┘ queues
//! ```
//!
//! The loop owns the state machines, the NICs and the workers' handles. It is the only place that reads the clock for
//! them. It never touches a frame.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(feature = "full")]
pub mod capture;
mod client;
#[cfg(feature = "full")]
pub mod clients;
mod control;
pub mod control_socket;
mod daemon;
#[cfg(feature = "full")]
pub mod demo;
#[cfg(feature = "full")]
pub mod doctor;
#[cfg(feature = "full")]
pub mod down;
#[cfg_attr(not(feature = "full"), path = "runtime/exporter/none.rs")]
pub mod exporter;
pub mod hooks;
mod host;
#[cfg(feature = "full")]
pub mod join;
pub mod keeper;
mod load;
#[cfg_attr(not(feature = "full"), path = "runtime/log/tiny.rs")]
mod log;
mod notify;
mod path;
#[cfg(feature = "full")]
pub mod ping;
mod plane;
mod ports;
pub mod probe;
pub mod reload;
pub mod sandbox;
pub mod script;
mod server;
pub mod status;
#[cfg(feature = "full")]
pub mod top;

use std::path::Path;
use std::rc::Rc;

use self::hooks::Words;
use crate::commands::Failure;
use crate::config::{self, Config, Hook, Level, Overrides, ScriptPolicy};
use crate::sys::{limits, wipe};
use crate::types::NetnsName;

/// Runs what the config at `path` says, until a signal or a script ends it. Returns the exit status.
///
/// # Errors
/// One sentence that says what keeps it from running, and how to mend it, where that does not stand in the log yet.
pub fn run(path: &Path, overrides: &Overrides) -> Result<u8, Failure> {
    let (config, warnings) = config::load(path, overrides)?;
    // The keys have been looked at, and the keeper, which is about to be forked off, is not to know them.
    wipe::stack();
    refuse_too_few_descriptors(&config)?;
    // In the background the working directory is another one.
    let file = reload::Source {
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        overrides: overrides.clone().absolute(),
    };
    let common = config.common().clone();
    // Before anything starts a thread.
    let supervised = notify::is_expected();
    let background = common.daemon.as_ref().filter(|_| !supervised);
    let mut daemon = background.map(daemon::Background::enter).transpose()?;
    log::start(common.log);
    if supervised && common.daemon.is_some() {
        tracing::warn!(
            "is_daemon is passed over: the supervisor that started this waits for it in the foreground"
        );
    }
    for warning in warnings {
        tracing::warn!(target: log::ASKED, "{warning}");
    }
    let words = Words::of(&config, &file.path);
    let keeper = keeper::start(rules(&config, &file, &words, daemon.is_some()))
        .map(Rc::new)
        .map_err(|e| Failure::Refused(format!("cannot start the keeper: {e}")))?;
    sandbox::keep_secrets();
    if let Err(e) = limits::raise_descriptors() {
        tracing::warn!("cannot raise the limit of open descriptors: {e}; many NICs may be too many");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Refused(format!("cannot start: {e}")))?;
    let start = host::Start { file, words, keeper };
    let ended = runtime.block_on(async {
        tokio::spawn(log::tell_hidden());
        match config {
            Config::Client(config) => client::run(config, start, &mut daemon).await,
            Config::Server(config) => server::run(config, start, &mut daemon).await,
        }
    });
    log::tell_last_hidden();
    // A name that is still being resolved does not keep the program.
    runtime.shutdown_background();
    ended.or_else(|failure| {
        if common.log == Level::Off {
            return Err(failure);
        }
        tracing::error!("{failure}");
        Ok(1)
    })
}

/// What this process opens besides its NICs, at the most.
const OTHER_DESCRIPTORS: usize = 48;

/// Refuses to begin what has to fail: a NIC takes a queue for every worker, a socket to configure it by, and a tap one more.
fn refuse_too_few_descriptors(config: &Config) -> Result<(), Failure> {
    let workers = config.common().workers;
    let nics = match config {
        Config::Server(server) => server.clients.iter().map(|client| client.nics.len()).sum(),
        Config::Client(client) => match &client.nics {
            config::NicSource::Local(nics) => nics.len(),
            config::NicSource::Remote { .. } => 0,
        },
    };
    let each = usize::from(workers.get()).saturating_add(2);
    let needed = nics.saturating_mul(each).saturating_add(OTHER_DESCRIPTORS);
    match limits::most_descriptors() {
        Ok(limit) if (needed as u64) > limit => Err(Failure::Refused(format!(
            "{nics} NICs take {needed} descriptors, and this system allows {limit}; raise LimitNOFILE= of the unit, or \
             `ulimit -n`"
        ))),
        // Where it does not say, what cannot be opened is told by itself.
        _ => Ok(()),
    }
}

/// What the keeper goes by.
fn rules(config: &Config, file: &reload::Source, words: &Words, in_background: bool) -> keeper::Rules {
    let daemon = config.common().daemon.as_ref().filter(|_| in_background);
    keeper::Rules {
        script: script_policy(config),
        netns: netns(config),
        hooks: config.common().hooks.clone(),
        words: words.clone().with("EVENT", Hook::Down),
        config: file.clone(),
        pid: daemon.map(|d| d.pid.clone()),
    }
}

/// Which scripts may run on this side.
fn script_policy(config: &Config) -> ScriptPolicy {
    match config {
        Config::Client(client) => client.script.clone(),
        Config::Server(_) => ScriptPolicy::Never,
    }
}

/// Which network namespaces the NICs of this side are in.
fn netns(config: &Config) -> Vec<NetnsName> {
    let Config::Server(server) = config else { return Vec::new() };
    let nics = server.clients.iter().flat_map(|client| &client.nics);
    nics.filter_map(|nic| nic.stack.netns.clone()).collect()
}
