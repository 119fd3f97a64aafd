//! tap-rs projects network interfaces: Ethernet frames between a NIC on one LAN and its twin on a far host,
//! through a UDP session that a Noise IK handshake opens and an AEAD seals.
//!
//! ```text
//!   LAN host          client box                              server box
//!  ┌────────┐      ┌───────────────┐                       ┌──────────────┐
//!  │        │──────│ eth0 ── mv0   │═══ UDP: sealed ═══════│ tap0         │
//!  └────────┘ LAN  └───────────────┘     datagrams         └──────────────┘
//!   talks to .150    has .150's MAC,                         is .150
//!                    and no address
//! ```
//!
//! # The two straight lines
//!
//! A frame goes down one of two lines. Each verb is one function, and they stand in this order in their files:
//!
//! ```text
//! uplink     read → check → pack → seal → send          a NIC's frames to the peer
//! downlink   recv → open → check → unpack → write       the peer's frames into a NIC
//! ```
//!
//! [`dataplane`] workers run them, one thread each, and know nothing of handshakes, timers or configs. Everything that
//! is decided is decided in one control loop ([`runtime`]), by state machines that do no I/O ([`proto`]), from a
//! config that was checked once ([`config`]). Control hands ownership to workers by commands; workers tell control by
//! bounded notices. A packet that is not right is counted under a [`metrics::DropReason`] and is no error.
//!
//! # Where to look
//!
//! - the bytes: [`wire`], and `docs/PROTOCOL.md`, which is normative
//! - what may pass: [`policy`], and `docs/FRAMES.md`
//! - interfaces of the kernel: [`nic`] over [`sys`], the only `unsafe` of the project
//! - who may import whom, threads, buffers, choices: `docs/ARCHITECTURE.md`
//!
//! # Words
//!
//! - *frame*: Ethernet. *super-frame*: a frame with GSO metadata, which the kernel cuts into packets.
//! - *record*: a unit inside a datagram's plaintext. *datagram*: a UDP payload. *train*: datagrams sent or received
//!   by one system call with GSO or GRO.
//! - *message*: control. *push*: the config and script that a server gives its client.
//! - *initiator, responder, session, rekey*: as in Noise and WireGuard. *sender_index*, *receiver_index*: the numbers
//!   by which the two ends name a session. *lane*: the right to seal under a session with one range of counters.
//! - *path*: a remote address, and the local one that it is spoken to from.

#[cfg(feature = "full")]
pub mod cli;
#[cfg(not(feature = "full"))]
#[path = "cli/tiny.rs"]
pub mod cli;
pub mod commands;
pub mod config;
pub mod dataplane;
#[cfg(not(feature = "full"))]
pub mod events;
pub mod keys;
pub mod metrics;
pub mod nic;
pub mod policy;
pub mod proto;
pub mod runtime;
pub mod sys;
pub mod types;
pub mod wire;

// What the full flavour has of the crate of this name, this one has of itself: `use tracing::info` is right in both.
#[cfg(not(feature = "full"))]
extern crate self as tracing;
#[cfg(not(feature = "full"))]
pub(crate) use events::{debug, error, info, warn};
