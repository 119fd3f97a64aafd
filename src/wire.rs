//! Every byte on the wire and every limit. `docs/PROTOCOL.md` is the normative text; names here are its names.
//!
//! Parsing never panics and never allocates more than a stated bound; what does not parse is a
//! [`DropReason`](crate::metrics::DropReason), never an answer.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod announce;
pub mod checksum;
pub mod control;
pub mod datagram;
pub mod ether;
pub mod ip;
pub mod join;
pub mod neighbour;
pub mod probe;
pub mod push;
pub mod record;
#[cfg(test)]
pub(crate) mod sample;
pub mod segment;
pub mod shape;
pub mod vnet;
