//! `tap-rs capture`: the frames of one NIC, shown as they pass.
//!
//! ```text
//! worker ── dataplane::capture ──► serve ── control socket ──► command ─┬─► line      text, for people
//!                                                                       └─► pcapng    for Wireshark
//! ```
//!
//! The running tap-rs hands frames over as they are, with the time, the way and what became of each; all form is given by
//! the program that asked. Nothing is written into files by the running one, which could not.

mod begin;
mod command;
mod line;
mod pcapng;
mod stream;

pub use begin::begin;
pub use command::command;
