//! The client's handshake: HELLO until there is a COOKIE, INIT until there is a RESP, ever slower.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::{Client, SERVER};
use crate::metrics::DropReason;
use crate::proto::cookie::{equal, mac};
use crate::proto::index::{Tag, free_index};
use crate::proto::noise::{Initiator, Offerer, Seed};
use crate::proto::output::{Event, Output};
use crate::proto::timers::{BUSY_PING, DEAD_AFTER, HANDSHAKE_GAPS, INIT_TRIES, REKEY_AFTER};
use crate::wire::datagram::{COOKIE_LEN, Cookie, HELLO_LEN, HandshakePayload, Hello, INIT_LEN, Resp};

/// After this many unanswered handshake datagrams in a row the server's name is resolved again, and each time anew.
const RESOLVE_EVERY: u32 = 3;

/// How far it has come.
pub(super) enum Handshake {
    Resting,
    Hello { index: u32, hello: [u8; HELLO_LEN] },
    Init { initiator: Box<Initiator>, index: u32, cookie: [u8; COOKIE_LEN], init: [u8; INIT_LEN], tries: u32 },
}

impl Client {
    /// When the next handshake is to start. `None`: never; the session's age always gives a time.
    pub(super) fn handshake_due(&self) -> Option<Instant> {
        let Some(current) = &self.peer.current else { return Some(self.retry) };
        let dead = self.peer.activity.unanswered().map(|t| t + self.params.dead_after);
        // A session that the server has not used yet cannot be replaced: its own old one would be forgotten here.
        let old = current.used.then(|| match self.forced || self.peer.worn() {
            true => current.since,
            false => current.since + REKEY_AFTER,
        });
        [dead, old].into_iter().flatten().min()
    }

    pub(super) fn advance_handshake(&mut self, now: Instant) {
        if matches!(self.handshake, Handshake::Resting) {
            self.silence = 0;
            let unanswered = self.peer.activity.unanswered();
            if unanswered.is_some_and(|t| now >= t + self.params.dead_after) && !self.silent {
                self.silent = true;
                self.out.event(SERVER, Event::Silent);
            }
        } else {
            self.silence = self.silence.saturating_add(1);
            if self.silence.is_multiple_of(RESOLVE_EVERY) {
                let greeted = matches!(self.handshake, Handshake::Init { .. });
                self.out.event(SERVER, Event::Resolve { greeted });
            }
        }
        let Some(path) = self.server else { return };
        self.retry = now + self.gap();
        if let Handshake::Init { init, tries, .. } = &mut self.handshake
            && *tries < INIT_TRIES
        {
            *tries = tries.saturating_add(1);
            self.out.push(Output::Send { path, bytes: init.to_vec() });
            return;
        }
        let sender_index = free_index(&mut self.rng, Tag::default(), |index| self.peer.has(index));
        let hello = Hello { suite: self.params.suite, sender_index, nonce: self.rng.random() };
        let bytes = hello.encode(|signed| self.name.hello_mac(signed));
        self.handshake = Handshake::Hello { index: hello.sender_index, hello: bytes };
        self.out.push(Output::Send { path, bytes: bytes.to_vec() });
    }

    fn gap(&mut self) -> Duration {
        let step = HANDSHAKE_GAPS.get(self.silence as usize).or(HANDSHAKE_GAPS.last());
        step.copied().unwrap_or(DEAD_AFTER).mul_f64(self.rng.random_range(0.75..=1.0))
    }

    pub(super) fn handle_cookie(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DropReason> {
        let cookie = Cookie::decode(bytes.try_into().map_err(|_| DropReason::BadLength)?)?;
        let Handshake::Hello { index, hello } = &self.handshake else { return Err(DropReason::Unexpected) };
        if cookie.receiver_index != *index {
            return Err(DropReason::UnknownIndex);
        }
        if cookie.suite != self.params.suite {
            return Err(DropReason::BadSuite);
        }
        let index = *index;
        let cookie = self.name.open(hello, cookie.nonce, cookie.sealed).ok_or(DropReason::BadCookie)?;
        self.send_init(now, index, cookie)
    }

    fn send_init(&mut self, now: Instant, index: u32, cookie: [u8; COOKIE_LEN]) -> Result<(), DropReason> {
        let Some(path) = self.server else { return Err(DropReason::Unexpected) };
        let offer = Offerer {
            identity: &self.params.identity,
            server: &self.params.server,
            psk: self.params.psk.as_ref(),
            suite: self.params.suite,
            local_index: index,
            cookie: &cookie,
        };
        let payload = HandshakePayload { instance: self.params.instance, bound: 0 }.encode();
        let seed = Seed::new(self.rng.random());
        let (initiator, init) = Initiator::start(&offer, &payload, &seed).ok_or(DropReason::BadHandshake)?;
        let init = init.encode(|signed| mac(&cookie, signed));
        self.handshake = Handshake::Init { initiator: Box::new(initiator), index, cookie, init, tries: 1 };
        // The server is there: whatever is lost now is worth asking for again soon.
        self.silence = 0;
        self.retry = now + self.gap();
        self.out.push(Output::Send { path, bytes: init.to_vec() });
        Ok(())
    }

    pub(super) fn handle_resp(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DropReason> {
        let (resp, signed, sent_mac) = Resp::decode(bytes.try_into().map_err(|_| DropReason::BadLength)?)?;
        let (Handshake::Init { initiator, index, cookie, .. }, Some(path)) =
            (&mut self.handshake, self.server)
        else {
            return Err(DropReason::Unexpected);
        };
        if resp.receiver_index != *index {
            return Err(DropReason::UnknownIndex);
        }
        if resp.suite != self.params.suite {
            return Err(DropReason::BadSuite);
        }
        if !equal(&mac(cookie, signed), sent_mac) {
            return Err(DropReason::BadMac);
        }
        let (keys, payload) = initiator.finish(&resp.noise, resp.sender_index)?;
        let HandshakePayload { instance, bound } = HandshakePayload::decode(&payload);
        if bound as u32 != resp.sender_index {
            // The keys are right, the index is not: the header was changed on the way. The session would lead nowhere.
            self.handshake = Handshake::Resting;
            self.retry = now + BUSY_PING;
            return Err(DropReason::BadHandshake);
        }
        let slot = self.peer.install(now, &keys, instance, &mut self.out).ok_or(DropReason::BadHandshake)?;
        self.establish(now, slot, path);
        Ok(())
    }
}
