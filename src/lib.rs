//! tap-rs projects network interfaces: Ethernet frames between a NIC on one LAN and its twin on a far host,
//! through a UDP session that a Noise IK handshake opens and an AEAD seals.

pub mod cli;
pub mod commands;
pub mod config;
pub mod dataplane;
pub mod keys;
pub mod metrics;
pub mod nic;
pub mod policy;
pub mod proto;
pub mod runtime;
pub mod sys;
pub mod types;
pub mod wire;
