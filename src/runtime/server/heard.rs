//! What a client has said of itself: how its box is doing, and what became of its config.

use std::time::Instant;

use tracing::{info, warn};

use crate::runtime::status::{model, snapshot};
use crate::wire::control::{NicReport, PushState, Report};

/// All that one client has said.
#[derive(Default)]
pub struct Heard {
    report: Option<(Instant, Report)>,
    push: Option<model::Push>,
    /// What the log has of that in this run of the client.
    logged: Option<model::Push>,
}

impl Heard {
    /// The client has been started again.
    pub fn begin_run(&mut self) {
        self.logged = None;
    }

    /// What became of its config. `state`: that of `push`.
    pub fn take_push(&mut self, client: &str, push: model::Push, state: PushState) {
        self.push = Some(push.clone());
        // A client repeats it until it has heard that we have.
        if self.logged.replace(push.clone()).as_ref() == Some(&push) {
            return;
        }
        let model::Push { revision, state: name, code } = &push;
        match state {
            PushState::Applied => info!(%client, revision, "the client follows its config"),
            _ => {
                warn!(%client, revision, state = name, code, "the client refuses its config; its own log says why");
            }
        }
    }

    /// How its box is doing.
    pub fn take_report(&mut self, client: &str, now: Instant, report: Report) {
        log(client, &report);
        self.report = Some((now, report));
    }

    /// Puts it where whoever asks finds it.
    pub fn show(&self, now: Instant, peer: &mut model::Peer) {
        peer.report = self.report.as_ref().map(|(at, report)| snapshot::report(now, *at, report));
        peer.push = self.push.clone();
    }
}

fn log(client: &str, report: &Report) {
    let load = format_args!("{}.{:02}", report.load / 100, report.load % 100);
    let (total, available) = report.memory;
    let frames = |pick: fn(&NicReport) -> u64| report.nics.iter().map(pick).sum::<u64>();
    let (up, down) = (frames(|n| n.uplink.0), frames(|n| n.downlink.0));
    info!(
        %client,
        %load,
        memory_kb = total,
        available_kb = available,
        frames_up = up,
        frames_down = down,
        "client report"
    );
}
