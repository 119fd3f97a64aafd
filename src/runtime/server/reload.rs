//! A new config for a server that runs: all of it, or nothing.

use std::time::Instant;

use tracing::{error, info};

use super::{Hub, psks, suites};
use crate::commands::Failure;
use crate::config::{Config, ServerConfig};
use crate::keys::{PresharedKey, PrivateKey};
use crate::runtime::log;
use crate::runtime::reload::{Reloaded, keep_until_restart, server_difference};

impl Hub {
    /// Reads the config again and takes it over; with `dry_run`, only says what would change.
    pub(super) fn reload(&mut self, now: Instant, dry_run: bool) -> Result<Reloaded, String> {
        self.host.begin_reload(dry_run);
        let done = self.try_reload(now, dry_run);
        self.host.end_reload(dry_run, &done);
        done
    }

    fn try_reload(&mut self, now: Instant, dry_run: bool) -> Result<Reloaded, String> {
        let (config, warnings) = self.host.file.load()?;
        let Config::Server(config) = config else {
            return Err("run_mode cannot change while the program runs; restart it".to_owned());
        };
        let psks = psks(&config).map_err(|e| e.to_string())?;
        let rekeyed: Vec<_> = config.clients.iter().zip(&psks).collect();
        let rekeyed = |name: &str| {
            rekeyed.iter().any(|(c, psk)| c.name == name && self.roster.has_other_psk(name, psk.as_ref()))
        };
        let mut told = Reloaded { warnings, ..server_difference(&self.config, &config, rekeyed) };
        let identity = PrivateKey::read(&config.common.private_key).map_err(|e| e.to_string())?;
        if identity.public() != self.public {
            told.restart.push("private_key".to_owned());
        }
        if dry_run {
            return Ok(told);
        }
        told.log();
        self.host.keeper.follow().map_err(|e| e.to_string())?;
        self.adopt_or_keep(now, &config, psks).map_err(|e| e.to_string())?;
        self.server.set_suites(suites(&config));
        log::set(config.common.log);
        let common = keep_until_restart(&mut self.config.common, config.common);
        self.config = ServerConfig { bind: self.config.bind, common, ..config };
        told.applied = true;
        info!(clients = self.config.clients.len(), "config reloaded");
        Ok(told)
    }

    /// Has the clients and NICs of a config, and no others. After an error it has those that it had.
    pub(super) fn adopt_or_keep(
        &mut self,
        now: Instant,
        config: &ServerConfig,
        psks: Vec<Option<PresharedKey>>,
    ) -> Result<(), Failure> {
        let before = self.host.ports.wanted();
        let adopted = self.adopt(now, config, psks);
        if adopted.is_err()
            && let Err(e) = self.host.ports.set(now, &mut self.host.plane, before)
        {
            error!("what was there before the reload is not all there again, and tried until it is: {e}");
        }
        adopted
    }

    /// The same for a server that has none. After an error its NICs are of either config.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        config: &ServerConfig,
        psks: Vec<Option<PresharedKey>>,
    ) -> Result<(), Failure> {
        let change = self.roster.change(config, psks)?;
        // NICs first: they alone can fail, and sessions that have ended do not come back.
        change.added.iter().for_each(|(id, _)| self.host.plane.add_peer(*id));
        if let Err(e) = self.host.ports.set(now, &mut self.host.plane, change.nics) {
            change.added.iter().for_each(|(id, _)| self.host.plane.remove_peer(*id));
            return Err(Failure::Refused(e.to_string()));
        }
        for id in &change.removed {
            self.server.remove_client(now, *id);
            self.drain(now);
            self.host.plane.remove_peer(*id);
            self.paths.remove(id);
            self.tunnels.remove(id);
            self.heard.remove(id);
            self.host.set_live(now, *id, None);
        }
        for (id, spec, same_psk) in change.rekeyed {
            self.server.set_spec(now, id, spec, same_psk);
        }
        for (id, spec) in change.added {
            self.server.add_client(now, id, spec);
        }
        self.roster = change.roster;
        // A config that a client could not follow yet is offered all the same: its NICs here are tried again.
        for (id, blob) in change.pushes {
            self.server.set_push(now, id, blob);
        }
        Ok(())
    }
}
