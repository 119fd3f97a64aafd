//! A new config for a client that runs: all of it, or nothing.
//!
//! What does not concern the session leaves it alone. Another server's key, private key, pre-shared key or suite ends it,
//! and a new one is made; another address moves it there.

use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing::{error, info};

use super::advice::Advice;
use super::push::Nics;
use super::{NICS_OUTLIVE, Session, ceiling, fingerprint, local_nics, params, suite};
use crate::config::{ClientConfig, Config, NicSource};
use crate::proto::client::{Client, ClientParams};
use crate::runtime::log;
use crate::runtime::ports::Wanted;
use crate::runtime::reload::{Reloaded, client_difference, keep_until_restart};
use crate::types::Path;

impl Session {
    /// Reads the config again and takes it over; with `dry_run`, only says what would change.
    pub(super) fn reload(&mut self, now: Instant, dry_run: bool) -> Result<Reloaded, String> {
        self.host.begin_reload(dry_run);
        let done = self.try_reload(now, dry_run);
        self.host.end_reload(dry_run, &done);
        done
    }

    fn try_reload(&mut self, now: Instant, dry_run: bool) -> Result<Reloaded, String> {
        let (config, warnings) = self.host.file.load()?;
        let Config::Client(config) = config else {
            return Err("run_mode cannot change while the program runs; restart it".to_owned());
        };
        let params = params(&config).map_err(|e| e.to_string())?;
        let rekeyed =
            params.identity.public() != self.public || params.psk.as_ref().map(fingerprint) != self.psk;
        let (told, fresh) = client_difference(&self.config, &config, rekeyed);
        let mut told = Reloaded { warnings, ..told };
        if dry_run {
            return Ok(told);
        }
        let client = fresh.then(|| self.another(now, params)).transpose()?;
        told.log();
        self.host.keeper.follow().map_err(|e| e.to_string())?;
        self.take_nics(now, &config)?;
        self.take_session(now, &config, client);
        log::set(config.common.log);
        let common = keep_until_restart(&mut self.config.common, config.common);
        let config = ClientConfig { common, ..config };
        let before = std::mem::replace(&mut self.config, config);
        self.judge_again(&before);
        told.applied = true;
        info!("config reloaded");
        Ok(told)
    }

    /// A state machine with other keys, and who that is.
    fn another(&self, now: Instant, params: ClientParams) -> Result<Fresh, String> {
        let (public, psk) = (params.identity.public(), params.psk.as_ref().map(fingerprint));
        let client = Client::new(now, params, StdRng::from_rng(&mut rand::rng()))
            .ok_or("the cryptographic library refuses the server's key")?;
        Ok(Fresh { client, public, psk })
    }

    /// The NICs of the file; those that a server pushed are judged when the config is there.
    fn take_nics(&mut self, now: Instant, config: &ClientConfig) -> Result<(), String> {
        let wanted = match (&config.nics, &self.config.nics) {
            (NicSource::Local(_), _) => self.own_nics(config),
            (NicSource::Remote { .. }, NicSource::Local(_)) => Vec::new(),
            (NicSource::Remote { .. }, NicSource::Remote { .. }) => return Ok(()),
        };
        let before = self.host.ports.wanted();
        let Err(e) = self.host.ports.set(now, &mut self.host.plane, wanted) else { return Ok(()) };
        if let Err(e) = self.host.ports.set(now, &mut self.host.plane, before) {
            error!("what was there before the reload is not all there again, and tried until it is: {e}");
        }
        Err(e.to_string())
    }

    /// With the numbers that the server gave them.
    fn own_nics(&self, config: &ClientConfig) -> Vec<Wanted> {
        let nics = self.offered.as_ref().and_then(|(_, blob)| Nics::of(blob));
        nics.map_or_else(|| local_nics(config), |nics| nics.wanted(config))
    }

    fn take_session(&mut self, now: Instant, config: &ClientConfig, fresh: Option<Fresh>) {
        if let Some(Fresh { client, public, psk }) = fresh {
            self.client.shut_down(now);
            self.drain(now);
            (self.client, self.public, self.psk, self.advice) = (client, public, psk, Advice::default());
            self.next_report = None;
            self.nics_down = Some(now + NICS_OUTLIVE);
            info!(suite = suite(config).noise_name(), "a new session, with other keys");
            if let Some(server) = self.server {
                let path = Path::new(server, None);
                self.client.handle_address(now, path, ceiling(&path));
            }
        }
        self.client.set_times(config.common.dead_peer, config.keepalive);
        if config.server != self.config.server {
            self.resolver.set_server(config.server.clone());
        }
    }

    /// What the server pushed may be allowed now and forbidden before, or the other way round.
    fn judge_again(&mut self, before: &ClientConfig) {
        let c = &self.config;
        let remote = matches!(c.nics, NicSource::Remote { .. });
        let same = (&c.nics, &c.limits, &c.script, c.mode, c.reply_arp, c.probe, c.common.offload)
            == (
                &before.nics,
                &before.limits,
                &before.script,
                before.mode,
                before.reply_arp,
                before.probe,
                before.common.offload,
            );
        if let (true, false, Some((revision, blob))) = (remote, same, &self.offered) {
            self.pushes.take(*revision, blob, &self.config);
        }
    }
}

struct Fresh {
    client: Client,
    public: crate::keys::PublicKey,
    psk: Option<[u8; 32]>,
}
