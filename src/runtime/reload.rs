//! A config read again: what is other than it was, said before it is done.
//!
//! ```text
//!   SIGHUP, `tap-rs reload` ──▶ the file, checked as at the start ──▶ Reloaded: line by line what differs
//!                                   │ mistakes: nothing changes          │ taken over as a whole, or not at all
//! ```
//!
//! Here is what both sides share: where the file is, and the comparison. How a side takes a config over is its own matter:
//! `server/reload.rs` and `client/reload.rs`.

mod client;
#[cfg(feature = "full")]
mod command;
mod server;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

pub use self::client::client_difference;
#[cfg(feature = "full")]
pub use self::command::{Told, command, print, reload_named};
pub use self::server::server_difference;
use super::log::ASKED;
use crate::config::{self, Common, Config, Overrides};
use crate::sys::wipe;

/// Where a config comes from, again at each reload.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file; absolute.
    pub path: PathBuf,
    /// What the command line says over it.
    pub overrides: Overrides,
}

impl Source {
    /// The config as it stands now, and what was noticed; else one line for each mistake.
    pub fn load(&self) -> Result<(Config, Vec<String>), String> {
        let (config, warnings) = config::load(&self.path, &self.overrides).map_err(|e| e.to_string())?;
        // The keys have been looked at.
        wipe::stack();
        Ok((config, warnings.iter().map(ToString::to_string).collect()))
    }

    /// The folders that a reload may read: that of the config file, and those of `files`.
    pub fn folders<'a>(&self, files: impl IntoIterator<Item = &'a Path>) -> Vec<PathBuf> {
        let folder = |file: &Path| match file.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut folders: Vec<_> = files.into_iter().map(folder).collect();
        folders.push(folder(&self.path));
        folders.sort_unstable();
        folders.dedup();
        folders
    }
}

/// What a reload does, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// It has been done.
    pub applied: bool,
    /// What is added (`+`), taken away (`-`) and changed (`~`).
    pub changes: Vec<String>,
    /// Keys that are other than they were and that count only from the next start.
    pub restart: Vec<String>,
    /// What was noticed in the file.
    pub warnings: Vec<String>,
}

impl Reloaded {
    /// Puts it into the log, before it is done.
    pub fn log(&self) {
        for warning in &self.warnings {
            warn!(target: ASKED, "{warning}");
        }
        for change in &self.changes {
            info!(target: ASKED, "reload: {change}");
        }
        for key in &self.restart {
            warn!(target: ASKED, "a changed {key} takes effect when tap-rs is restarted");
        }
    }

    fn changed(&mut self, what: impl Display) {
        self.changes.push(format!("~ {what}"));
    }

    /// Notes a key whose values differ.
    fn key<T: PartialEq>(&mut self, key: &str, old: &T, new: &T, show: impl Fn(&T) -> String) {
        if old != new {
            self.changed(format_args!("{key}: {} -> {}", show(old), show(new)));
        }
    }
}

/// Logs why a reload was refused, or would be.
pub fn log_refusal(why: &str, dry_run: bool) {
    if dry_run {
        info!("a reload would be refused:\n{why}");
    } else {
        error!("reload refused, nothing has changed:\n{why}");
    }
}

/// The new settings, but for those that count from the next start: what is different there is told again by the next
/// reload.
pub fn keep_until_restart(old: &mut Common, new: Common) -> Common {
    let (daemon, hooks) = (old.daemon.take(), std::mem::take(&mut old.hooks));
    Common { daemon, hooks, metrics: old.metrics, workers: old.workers, ..new }
}

/// What both sides have. The key's own bytes are compared by whoever has them.
fn common_difference(told: &mut Reloaded, old: &Common, new: &Common) {
    told.key("log", &old.log, &new.log, ToString::to_string);
    let seconds = |t: &std::time::Duration| format!("{} s", t.as_secs());
    told.key("timeout", &old.dead_peer, &new.dead_peer, seconds);
    told.key("offload", &old.offload, &new.offload, |o| format!("{o:?}").to_lowercase());
    if old.metrics != new.metrics {
        told.restart.push("metrics".to_owned());
    }
    if old.workers != new.workers {
        told.restart.push("workers".to_owned());
    }
    if old.hooks != new.hooks {
        told.restart.push("hooks".to_owned());
    }
    if old.daemon != new.daemon {
        told.restart.push("is_daemon, pid, stdout or stderr".to_owned());
    }
}

/// One thing among several of its kind: added, taken away, or changed in some of its properties.
fn listed<T>(
    told: &mut Reloaded,
    (old, new): (&[T], &[T]),
    name: impl Fn(&T) -> String,
    differs: impl Fn(&T, &T) -> Vec<String>,
) {
    for gone in old.iter().filter(|o| !new.iter().any(|n| name(n) == name(o))) {
        told.changes.push(format!("- {}", name(gone)));
    }
    for entry in new {
        match old.iter().find(|o| name(o) == name(entry)) {
            None => told.changes.push(format!("+ {}", name(entry))),
            Some(before) => {
                let what = differs(before, entry);
                if !what.is_empty() {
                    told.changed(format_args!("{}: {}", name(entry), what.join(", ")));
                }
            }
        }
    }
}

/// The properties whose values differ, each with both.
fn properties(all: &[(&str, String, String)]) -> Vec<String> {
    let differing = all.iter().filter(|(_, old, new)| old != new);
    differing.map(|(key, old, new)| format!("{key} {old} -> {new}")).collect()
}

fn or_none<T: Display>(value: Option<&T>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn list<T: Display>(values: &[T]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    if values.is_empty() { "none".to_owned() } else { values.join(" ") }
}

/// A NIC's properties that both sides have.
fn nic_properties(
    (old, old_rules): (&crate::types::NicSpec, &crate::types::NicRules),
    (new, new_rules): (&crate::types::NicSpec, &crate::types::NicRules),
) -> Vec<(&'static str, String, String)> {
    [
        ("mac", old.mac.to_string(), new.mac.to_string()),
        ("ip", list(&old.addrs), list(&new.addrs)),
        ("mtu", old.mtu.to_string(), new.mtu.to_string()),
    ]
    .into_iter()
    .chain(rules(old_rules).into_iter().zip(rules(new_rules)).map(|((key, old), (_, new))| (key, old, new)))
    .collect()
}

/// How strictly the contract is applied.
fn rules(rules: &crate::types::NicRules) -> [(&'static str, String); 4] {
    [
        ("bridge", rules.bridge.to_string()),
        ("vlan", rules.vlan.to_string()),
        ("strict", rules.strict.to_string()),
        ("broadcast_pps", rules.broadcast_pps.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Daemon;

    #[test]
    fn what_counts_from_the_next_start_is_told_by_each_reload_until_then() {
        let common = |text: &str| {
            let folder = tempfile::tempdir().unwrap();
            let (path, key) = (folder.path().join("c.toml"), folder.path().join("c.key"));
            crate::keys::PrivateKey::generate(&mut rand::rng()).write_new(&key).unwrap();
            let server = "[server]\nbind_addr = \"0.0.0.0:1\"";
            let text = format!("run_mode = \"server\"\nprivate_key = \"c.key\"\n{text}\n{server}\n");
            std::fs::write(&path, text).unwrap();
            config::load(&path, &Overrides::default()).unwrap().0.common().clone()
        };
        let new = Common {
            daemon: Some(Daemon { pid: "/p".into(), stdout: "/o".into(), stderr: "/e".into() }),
            ..common(
                "workers = 3\nmetrics = \"127.0.0.1:9000\"\nlog = \"debug\"\n[hooks]\ndown = \"/bin/true\"",
            )
        };
        let mut running = common("");
        for _ in 0..3 {
            let mut told = Reloaded::default();
            common_difference(&mut told, &running, &new);
            let restart = ["metrics", "workers", "hooks", "is_daemon, pid, stdout or stderr"];
            assert_eq!(told.restart, restart);
            running = keep_until_restart(&mut running, new.clone());
            assert_eq!(running.log, new.log, "this one is followed");
        }
    }
}
