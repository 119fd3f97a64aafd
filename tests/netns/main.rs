//! The program on real interfaces: macvtap and tap in network namespaces, started as users start it.
//!
//! Needs root, `ip`, `nft` and `ethtool`. Without root every test says that it was skipped.

#[path = "../common/mod.rs"]
mod common;

mod attack;
mod capture;
mod churn;
mod clients;
mod contract;
mod cookbook;
mod degrade;
mod demo;
mod doctor;
mod duplicate;
mod enrol;
mod fair;
mod faults;
mod flood;
mod forward;
mod hooks;
mod identity;
mod keeper;
mod log;
mod many;
mod metrics;
mod migrate;
mod mistakes;
mod namespace;
mod newcomer;
mod path;
mod push;
mod rekey;
mod reload;
mod routing;
mod running;
mod service;
mod stage;
mod status;
mod top;
mod workers;
