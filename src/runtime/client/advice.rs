//! What the operator is told of a server that cannot be reached: once, and again when it turns out to be something else.

use std::io;

use tracing::warn;

use crate::config::ServerAddr;
use crate::keys::PublicKey;

/// What has been told.
#[derive(Default)]
pub struct Advice {
    /// Whether the server was there, when it was last told that there is no session.
    greeted: Option<bool>,
    /// Why the server's name could not be resolved the last time.
    unresolved: Option<String>,
}

impl Advice {
    /// There has been a session. From now on a server that does not answer is down, and that is told as it is.
    pub fn answered(&mut self) {
        self.greeted = Some(false);
    }

    /// What may keep the first session from coming about. `greeted`: the server is there. `public_key`: this client's.
    pub fn unanswered(&mut self, greeted: bool, server: &ServerAddr, public_key: &PublicKey) {
        if self.greeted.replace(greeted) == Some(greeted) {
            return;
        }
        if greeted {
            warn!(
                %server,
                %public_key,
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

    /// The server's name has an address.
    pub fn resolved(&mut self) {
        self.unresolved = None;
    }

    /// It has none, which is tried every few seconds, and said when it is new.
    pub fn unresolved(&mut self, server: &ServerAddr, e: &io::Error) {
        let why = e.to_string();
        if self.unresolved.as_ref() != Some(&why) {
            warn!(
                %server,
                "cannot resolve the server's name: {why}; see that /etc/resolv.conf names a DNS server that answers, \
                 or write the server's address in bind_addr"
            );
            self.unresolved = Some(why);
        }
    }
}
