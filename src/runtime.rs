//! The shell around the protocol: sockets, clock, signals, scripts. Everything that waits lives here, and
//! nothing but `main` imports it.

pub mod ping;
pub mod script;
