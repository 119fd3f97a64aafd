//! The protocol as state machines without I/O.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod activity;
pub mod aead;
pub mod client;
pub mod cookie;
pub mod noise;
pub mod output;
mod peer;
pub mod pmtu;
pub mod pull;
pub mod replay;
pub mod server;
pub mod session;
pub mod timers;
