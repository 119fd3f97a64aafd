//! The protocol as state machines without I/O.

pub mod activity;
pub mod aead;
pub mod cookie;
pub mod noise;
pub mod pmtu;
pub mod replay;
pub mod session;
