//! The `tap-rs` program.

fn main() {}
