//! What a running tap-rs says of itself, over a socket that only root can open.
//!
//! ```text
//!   tap-rs status ──connect──▶ /run/tap-rs/NAME.sock ──▶ the control loop takes a Snapshot
//!        ▲                                                         │
//!        └── text, or the JSON as it is ◀── one JSON document ◀────┘
//! ```
//!
//! Nothing is kept up for it: a snapshot is joined from the workers' counters and the state machines when somebody
//! asks. The JSON is documented in `docs/STATUS.md` and only ever grows.

mod ask;
mod command;
pub mod model;
pub mod paint;
pub mod snapshot;
mod socket;
mod text;

pub use ask::{AskError, ask};
pub use command::command;
pub use model::Snapshot;
pub use socket::{FOLDER, Listener};
pub use text::render;
