//! What the fuzzer runs, and what `tests/fuzz.rs` runs over the committed inputs: one function for each target.
//!
//! ```text
//! fuzz_targets/NAME.rs ──┐
//!                        ├──► NAME::run(bytes): panics where something is wrong
//! tests/fuzz.rs ─────────┘
//!   seeds/NAME/*        where the fuzzer begins
//!   regressions/NAME/*  what it once found
//! ```
//!
//! A target does no I/O (but `config`, whose key files are not there) and keeps nothing between two runs: an input
//! that fails once fails always.

pub mod config;
pub mod contract;
pub mod control;
pub mod datagram;
pub mod frames;
pub mod headers;
pub mod input;
pub mod join;
pub mod netlink;
pub mod offload;
pub mod oracle;
pub mod pull;
pub mod push;
pub mod replay;
pub mod text;
pub mod unpack;

/// A target: its name, and what runs it.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("unpack", unpack::run),
    ("offload", offload::run),
    ("join", join::run),
    ("contract", contract::run),
    ("headers", headers::run),
    ("datagram", datagram::run),
    ("control", control::run),
    ("push", push::run),
    ("pull", pull::run),
    ("replay", replay::run),
    ("config", config::run),
    ("text", text::run),
    ("netlink", netlink::run),
];
