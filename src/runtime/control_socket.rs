//! The control socket: what root may ask a running tap-rs, and have it do.
//!
//! ```text
//!   tap-rs status ──connect──▶ /run/tap-rs/NAME.sock ──▶ the control loop
//!        │                                                   │
//!        ├── one line of JSON: a Request ───────────────────▶│ takes its turn between packets and timers
//!        ◀── one JSON document: the answer, or {"error": …} ─┘
//! ```
//!
//! A request is read, and an answer written, beside the control loop: whoever asks slowly keeps only a place of its
//! own, of which there are few. Who may connect is decided by the file's mode (0600) and its folder's (0700). The keeper makes
//! the file, again where somebody removes it, and takes it away in the end.

#[cfg(feature = "full")]
mod ask;
#[cfg(feature = "full")]
mod listen;
#[cfg(not(feature = "full"))]
#[path = "control_socket/none.rs"]
mod listen;
#[cfg(feature = "full")]
mod place;
mod request;

#[cfg(feature = "full")]
pub use ask::{AskError, ask, ask_all, ask_stream, names};
pub use listen::{Asker, Listener};
#[cfg(feature = "full")]
pub use place::{Name, Place};
pub use request::Request;

/// Where the sockets are (FHS 3.0, 3.15).
#[cfg(feature = "full")]
pub const FOLDER: &str = "/run/tap-rs";
