//! The protocol as state machines without I/O: no sockets, no clock, randomness passed in.
//!
//! ```text
//!            datagrams, opened control records, first uses, a time
//!                              │ handle_*
//!                 ┌────────────▼───────────┐
//!                 │ client::Client         │  handshake, pull, status
//!                 │ server::Server         │  cookies, allow-list, offers
//!                 │   peer::Peer           │  key slots, PINGs, keepalive, path MTU
//!                 └────────────┬───────────┘
//!                              │ poll_output, poll_timeout
//!            output::Output: send, install, use, retire, tell
//! ```
//!
//! DATA datagrams never come here: workers open and seal them with what [`session`] gives them, and write down when in
//! [`activity`]. `docs/PROTOCOL.md` is the normative text.

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
pub mod budget;
pub mod client;
pub mod cookie;
mod flaps;
pub mod index;
pub mod invite;
pub mod noise;
pub mod output;
mod peer;
pub mod pmtu;
pub mod pull;
pub mod replay;
pub mod server;
pub mod session;
mod slot;
pub mod timers;
