//! Metrics for Prometheus, over HTTP, where the config names an address for them.
//!
//! ```text
//!   GET /metrics ──▶ http: a place of few, so many bytes, so many seconds ──▶ the control loop: one Snapshot
//!        ◀──────────────────── text, the same one for all who ask within FRESH ◀──── families × text
//! ```
//!
//! Whoever can reach the address may ask, and need not be friendly: nothing here touches the workers, a request is
//! read and answered beside the control loop, and all of them together cost it two renderings a second at the most.
//! What is exported is one table, [`families::FAMILIES`]; `docs/METRICS.md` and the dashboard are held against it.

pub mod families;
mod http;
pub mod text;

pub use self::http::Scrape;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::http::Door;
use self::text::Form;
use super::status::Snapshot;
use crate::commands::Failure;
use crate::sys::clock;

/// How long a rendering serves.
const FRESH: Duration = Duration::from_millis(500);

/// The exporter of one process; without an address it never has anything to do.
pub struct Exporter {
    door: Option<Door>,
    rendered: BTreeMap<Form, (Instant, Arc<str>)>,
}

impl Exporter {
    /// Listens, before privileges are given up: the port may be one of the lower ones.
    ///
    /// # Errors
    /// The address cannot be listened on; a sentence that says how to mend it.
    pub fn open(address: Option<SocketAddr>) -> Result<Self, Failure> {
        let open = |address| Door::open(address).map_err(|e| cannot_listen(address, &e));
        Ok(Self { door: address.map(open).transpose()?, rendered: BTreeMap::new() })
    }

    /// Somebody wants the metrics, and the last rendering will not do: [`Self::answer`] it. Pending for ever where there
    /// is no address. Safe to drop and to call again.
    pub async fn next(&mut self) -> Scrape {
        let Some(door) = &mut self.door else { return std::future::pending().await };
        loop {
            let (scrape, now) = (door.next().await, clock::now());
            match self.rendered.get(&scrape.form) {
                Some((at, text)) if now.saturating_duration_since(*at) < FRESH => {
                    scrape.answer(Arc::clone(text));
                }
                _ => return scrape,
            }
        }
    }

    /// Answers with `snapshot`, and so those who ask soon.
    pub fn answer(&mut self, now: Instant, scrape: Scrape, snapshot: &Snapshot) {
        let text: Arc<str> = text::render(snapshot, scrape.form).into();
        self.rendered.insert(scrape.form, (now, Arc::clone(&text)));
        scrape.answer(text);
    }
}

fn cannot_listen(address: SocketAddr, e: &io::Error) -> Failure {
    let hint = match e.kind() {
        io::ErrorKind::AddrInUse => "; another program has this port: `ss -tlpn` shows which",
        io::ErrorKind::AddrNotAvailable => "; this box has no such address: `ip addr` shows those it has",
        io::ErrorKind::PermissionDenied => "; run as root, or choose a port from 1024 up",
        _ => "",
    };
    Failure::Refused(format!("cannot give out metrics on {address}: {e}{hint}"))
}
