//! The tiny flavour gives out no metrics.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use super::status::Snapshot;
use crate::commands::Failure;

/// Nothing.
pub struct Exporter;

/// Who asked: nobody.
pub struct Scrape(Infallible);

impl Exporter {
    /// One that nobody can reach.
    ///
    /// # Errors
    /// The config wants one that can be reached.
    pub fn open(address: Option<SocketAddr>) -> Result<Self, Failure> {
        match address {
            None => Ok(Self),
            Some(_) => Err(Failure::Refused(
                "this is the tiny flavour, which gives out no metrics; leave `metrics` out, or run the full one".into(),
            )),
        }
    }

    /// Pending for ever.
    pub async fn next(&mut self) -> Scrape {
        std::future::pending().await
    }

    /// Never called.
    pub fn answer(&mut self, _now: Instant, scrape: Scrape, _snapshot: &Snapshot) {
        match scrape.0 {}
    }
}
