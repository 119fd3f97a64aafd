//! What a running tap-rs says of itself when [asked](super::control_socket).
//!
//! Nothing is kept up for it: a snapshot is joined from the workers' counters and the state machines when somebody
//! asks. The JSON is documented in `docs/STATUS.md` and only ever grows.

#[cfg(feature = "full")]
mod command;
pub mod model;
pub mod paint;
pub mod snapshot;
#[cfg(feature = "full")]
mod text;

#[cfg(feature = "full")]
pub use command::command;
pub use model::Snapshot;
#[cfg(feature = "full")]
pub use text::render;
