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
    /// One that nobody can reach: a config that wants another has been refused.
    pub fn open(_address: Option<SocketAddr>) -> Result<Self, Failure> {
        Ok(Self)
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
