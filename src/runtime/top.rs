//! `tap-rs top`: what passes through every NIC and peer, live, on a terminal.
//!
//! ```text
//!   thread: asks every second ──▶ App: instances, history, what is shown ──▶ view: one frame
//!                                   ▲
//!                                 keys
//! ```
//!
//! It asks for the same snapshot as `tap-rs status`; rates and histories are made here, from one snapshot to the next, so
//! that a process that nobody watches keeps none.

mod app;
mod command;
mod history;
mod keys;
mod rows;
mod signal;
mod style;
mod view;

pub use command::command;
