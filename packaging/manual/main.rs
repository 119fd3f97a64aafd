//! Writes what a package brings for people beside the program: manual pages and completions.
//!
//! ```text
//! cargo run --example manual -- DIR
//!
//! docs/tap-rs.1 ──────────────────────► man1/tap-rs.1
//!     └─ its texts, and cli.rs ───────► man1/tap-rs-COMMAND.1
//! docs/CONFIG.md ─────────────────────► man5/tap-rs.toml.5
//! cli.rs ─────────────────────────────► bash/tap-rs, zsh/_tap-rs, fish/tap-rs.fish
//! ```
//!
//! Nothing is written twice: `tests/manual.rs` holds docs/tap-rs.1 against the command line, `tests/configs.rs` holds
//! docs/CONFIG.md against the keys of a config, and all the rest is made of these.

mod commands;
mod completions;
mod markdown;
mod page;

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: cargo run --example manual -- DIR");
        std::process::exit(2);
    };
    for (path, text) in commands::pages().into_iter().chain([markdown::page()]).chain(completions::all()) {
        let path = Path::new(&folder).join(path);
        fs::create_dir_all(path.parent().expect("each has a folder"))?;
        fs::write(&path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}
