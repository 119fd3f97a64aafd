//! When a NIC is live: a server's cable is in, a client's link up, while there is a session and nobody else on the LAN has
//! its addresses.

use std::time::Instant;

use tracing::{error, info, warn};

use super::Wanted;
use super::port::{Port, State};
use super::probe::{Holder, Probe, Step, Who};
use crate::nic::Side;
use crate::runtime::plane::Plane;
use crate::wire::announce::{announcement, question};

impl Port {
    /// A client's link follows the session. A server's carrier does.
    pub(super) fn set_up(&mut self, now: Instant, plane: &Plane, up: bool) {
        let State::Here { nic, key: Some(_), .. } = &mut self.state else { return };
        match self.wanted.request.side {
            Side::Server => {
                if std::mem::replace(&mut self.up, up) != up
                    && self.wanted.request.configure
                    && let Err(e) = nic.set_carrier(up)
                {
                    self.up = !up;
                    warn!(nic = %nic.name(), "{e}");
                }
            }
            Side::Client if !up => self.go_down(plane),
            Side::Client if self.up || self.probe != Probe::Idle => {}
            Side::Client if self.asks() => self.begin_to_ask(now, plane),
            Side::Client => self.go_up(plane),
        }
    }

    /// Its LAN is asked about its addresses first.
    pub(super) fn asks(&self) -> bool {
        let Wanted { request, rules, probe, .. } = &self.wanted;
        // A bridge stands for a whole segment, where others may have any address.
        *probe && request.side == Side::Client && !rules.bridge && !request.spec.addrs.is_empty()
    }

    pub(super) fn set_link(&mut self, up: bool) -> bool {
        let State::Here { nic, .. } = &mut self.state else { return false };
        nic.set_up(up).map_err(|e| warn!(nic = %nic.name(), "{e}")).is_ok()
    }

    pub(super) fn go_up(&mut self, plane: &Plane) {
        if self.set_link(true) {
            self.go_live(plane);
        }
    }

    /// Its link is up, and from now on it is the host.
    pub(super) fn go_live(&mut self, plane: &Plane) {
        let State::Here { nic, key: Some(key), .. } = &self.state else { return };
        let spec = &self.wanted.request.spec;
        plane.hold(*key, false);
        // Whoever had another MAC for these addresses is to know at once, and switches the new place.
        plane.announce(*key, spec.addrs.iter().map(|a| announcement(spec.mac, a.ip)).collect());
        info!(nic = %nic.name(), mac = %spec.mac, mode = %nic.mode(), "nic ready");
        (self.up, self.told) = (true, None);
    }

    pub(super) fn go_down(&mut self, plane: &Plane) {
        let was_up = self.up;
        if (was_up || self.probe.is_asking()) && self.set_link(false) {
            self.up = false;
            self.hold_back(plane);
            if was_up {
                info!(nic = %self.name(), "nic down until there is a session");
            }
        }
        self.probe = Probe::Idle;
    }

    pub(super) fn hold_back(&self, plane: &Plane) {
        if let (true, Some(key)) = (self.asks(), self.key()) {
            plane.hold(key, true);
        }
    }

    pub(super) fn begin_to_ask(&mut self, now: Instant, plane: &Plane) {
        let spec = &self.wanted.request.spec;
        let State::Here { nic, .. } = &mut self.state else { return };
        if let Ok(Some((ip, interface))) = nic.address_elsewhere(&spec.addrs) {
            return self.yield_to(now, plane, Holder { ip, who: Who::Here(interface) });
        }
        self.hold_back(plane);
        if self.set_link(true) {
            self.ask(plane);
            self.probe = Probe::begun(now);
        } else {
            self.probe = Probe::Idle;
        }
    }

    pub(super) fn ask(&self, plane: &Plane) {
        let spec = &self.wanted.request.spec;
        if let Some(key) = self.key() {
            plane.announce(key, spec.addrs.iter().map(|a| question(spec.mac, a.ip)).collect());
        }
    }

    pub(super) fn go_on_asking(&mut self, now: Instant, plane: &Plane) {
        match self.probe.handle_timeout(now) {
            Some(Step::Begin) => self.begin_to_ask(now, plane),
            Some(Step::Ask) => self.ask(plane),
            Some(Step::Up) => self.go_live(plane),
            None => {}
        }
    }

    /// Somebody else has one of its addresses.
    pub(super) fn yield_to(&mut self, now: Instant, plane: &Plane, by: Holder) {
        if self.up {
            return;
        }
        if self.probe.is_asking() {
            self.set_link(false);
            self.hold_back(plane);
        }
        if self.told.replace(by.clone()) != Some(by.clone()) {
            let mend = match &by.who {
                Who::Lan(_) => "give that host or this NIC another address".to_owned(),
                Who::Here(interface) => format!("run `ip addr flush dev {interface} to {}`", by.ip),
            };
            error!(
                nic = %self.name(),
                "{by}, and this NIC is to have it: the NIC stays down and asks again every 5 s; {mend} (or write \
                 probe = false, and nobody is asked)"
            );
        }
        self.probe = Probe::taken(now, by);
    }
}
