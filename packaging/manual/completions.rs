//! What a shell knows about the command line.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};
use tap_rs::cli::Cli;

/// Completions for bash, zsh and fish: paths and texts.
pub fn all() -> Vec<(String, String)> {
    let shells =
        [(Shell::Bash, "bash/tap-rs"), (Shell::Zsh, "zsh/_tap-rs"), (Shell::Fish, "fish/tap-rs.fish")];
    shells.map(|(shell, path)| (path.to_owned(), completion(shell))).into()
}

fn completion(shell: Shell) -> String {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "tap-rs", &mut text);
    let text = String::from_utf8(text).expect("the command line is text");
    // clap_complete 4.6 calls a program with a hyphen by two names in the script for bash, and finds no command below it.
    text.replace("tap__subcmd__rs", "tap__rs")
}
