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
//! own, of which there are few. Who may connect is decided by the file's mode (0600) and its folder's (0700).

#[cfg(feature = "full")]
mod ask;
#[cfg(feature = "full")]
mod listen;
#[cfg(not(feature = "full"))]
#[path = "control_socket/none.rs"]
mod listen;
mod request;

#[cfg(feature = "full")]
pub use ask::{AskError, ask, ask_all, ask_stream, names};
pub use listen::{Asker, FOLDER, Listener};
pub use request::Request;
