//! Somebody has used an invite: the key goes into the config, and its holder is a client from then on.

use std::time::Instant;

use tracing::{info, warn};

use super::{Hub, psks};
use crate::config::{ClientEntry, Invite};
use crate::keys::PublicKey;
use crate::proto::output::PeerId;
use crate::runtime::control::wall_clock;
use crate::wire::control::Enrolment;

impl Hub {
    /// Whoever has the invite `peer` wants to be known by `key`.
    pub(super) fn enrol(&mut self, now: Instant, peer: PeerId, key: PublicKey) {
        let Some(name) = self.roster.invited(peer).map(str::to_owned) else { return };
        let state = self.judge(now, &name, key);
        let why = match state {
            // Said where they happened.
            Enrolment::Accepted | Enrolment::Failed => None,
            Enrolment::Used => Some("this invite has been used"),
            Enrolment::Late => Some("this invite is no longer valid"),
            Enrolment::KeyTaken => Some("this key is a client's already"),
        };
        // Whoever has an invite can try it as often as he likes.
        if let Some(why) = why.filter(|_| self.advice.invite(now)) {
            warn!(client = %name, "refused: {why}");
        }
        self.server.answer_enrolment(now, peer, state);
    }

    fn judge(&mut self, now: Instant, name: &str, key: PublicKey) -> Enrolment {
        let has = |client: &&ClientEntry| client.keys.contains(&key);
        let holder = self.config.clients.iter().find(has).map(|c| c.name.as_str());
        let invite = self.config.clients.iter().find(|c| c.name == name).and_then(|c| c.invite);
        match (invite, holder) {
            // The same box asks again: the answer was lost on the way.
            (Some(invite), Some(holder)) if invite.until.is_none() && holder == name => Enrolment::Accepted,
            (None, _) => Enrolment::Used,
            (Some(invite), holder) => match invite.until {
                None => Enrolment::Used,
                Some(until) if until <= wall_clock() => Enrolment::Late,
                Some(_) if holder.is_some() => Enrolment::KeyTaken,
                Some(_) => self.accept(now, name, invite.key, key),
            },
        }
    }

    /// Has it written down, and lets the key in.
    fn accept(&mut self, now: Instant, name: &str, invite: PublicKey, key: PublicKey) -> Enrolment {
        if let Err(e) = self.host.keeper.enrol(invite, key) {
            if self.advice.invite(now) {
                warn!(client = %name, "cannot enrol: {e}");
            }
            return Enrolment::Failed;
        }
        let mut config = self.config.clone();
        if let Some(client) = config.clients.iter_mut().find(|c| c.name == name) {
            client.keys = vec![key];
            client.invite = client.invite.map(|invite| Invite { until: None, ..invite });
        }
        let adopted = psks(&config).and_then(|psks| self.adopt_or_keep(now, &config, psks));
        match adopted {
            Ok(()) => {
                info!(client = %name, public_key = %key, "enrolled");
                self.config = config;
                Enrolment::Accepted
            }
            Err(e) => {
                warn!(client = %name, "enrolled in the config, and cannot be let in before a restart: {e}");
                Enrolment::Failed
            }
        }
    }
}
