//! The command line. The tiny flavour has one of its own, `cli/tiny.rs`, with the same names for what it has.

mod overrides;
mod setup;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::config::Level;

pub use overrides::{DEFAULT_CONFIG, Refusal};
pub use setup::{ClientsArgs, ClientsCommand, InitArgs, InviteArgs, JoinArgs, MigrateArgs};

const EXAMPLES: &str = "\
Examples:
  tap-rs demo                           see it work here, then all is gone again
  tap-rs init                           ask a little, write configs and keys
  tap-rs invite branch -c server.toml   let a new box in; prints a string
  tap-rs join STRING                    be that box
  tap-rs keygen --out keys/client.key   make a key pair; prints the public key
  tap-rs check -c client.toml           say what is wrong with it, and where
  tap-rs -c client.toml                 run it; run_mode in it says as what
  tap-rs server -c server.toml          run it as a server
  tap-rs status                         how the running ones are doing
  tap-rs top                            the same, live, for each NIC and peer
  tap-rs doctor                         what is wrong, and what mends it

Every key of a config: docs/CONFIG.md";

/// Projects network interfaces: a NIC on one LAN, answered by a host anywhere else, sealed with Noise IK.
#[derive(Debug, Parser)]
#[command(name = "tap-rs", version, after_help = EXAMPLES, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do; without it, what `run_mode` in the config says.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Options for a run that `run_mode` decides.
    #[command(flatten)]
    pub run: ClientArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a private key; the public key goes to standard output
    Keygen {
        /// Create this file (mode 0600), and the public key beside it in PATH.pub. Without it, the private key goes
        /// to standard output
        #[arg(long, value_name = "PATH")]
        out: Option<PathBuf>,
    },
    /// Read a private key from standard input and print its public key
    Pubkey,
    /// Make a pre-shared key
    Genpsk {
        /// Create this file (mode 0600) instead of printing the key
        #[arg(long, value_name = "PATH")]
        out: Option<PathBuf>,
    },
    /// Run as a client: own the NICs on this LAN
    Client(ClientArgs),
    /// Run as a server: answer for the NICs of the clients
    Server(FileArgs),
    /// Check a config, its keys and scripts; say what is wrong, and where
    Check(ClientArgs),
    /// What only the full flavour has.
    #[command(flatten)]
    More(More),
}

/// What only the full flavour does.
#[derive(Debug, Subcommand)]
pub enum More {
    /// Take down what a killed tap-rs has left up (as root, when it no longer runs)
    Down(FileArgs),
    /// Write a matching pair of configs, with keys; asks for what is not given
    Init(InitArgs),
    /// Turn a config of the original tap-rs into one of this; says what it changes
    Migrate(MigrateArgs),
    /// Let a new box become a client: prints a string for `tap-rs join` there
    Invite(InviteArgs),
    /// Become a client, with the string that `tap-rs invite` printed on the server
    Join(JoinArgs),
    /// Add, remove and list a server's clients, and change their keys
    Clients(ClientsArgs),
    /// Have a running tap-rs read its config again; says what changes (as root)
    Reload(ReloadArgs),
    /// Say how the tap-rs that run on this machine are doing (as root)
    Status(StatusArgs),
    /// Watch NICs and peers live, with their rates and drops (as root, on a terminal)
    Top(TopArgs),
    /// Examine a config, this machine and the tunnel; say what is wrong and what mends it (as root)
    Doctor(DoctorArgs),
    /// Show the frames of a NIC as they pass, and why those were dropped that were (as root)
    Capture(CaptureArgs),
    /// See a LAN, a client and a server at work on this machine (as root)
    Demo,
}

/// What to say of running programs, and how.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Which one: the name of its config file, without `.toml` [default: all of them]
    pub name: Option<String>,

    /// One JSON document a line instead of text
    #[arg(long)]
    pub json: bool,

    /// All that is known of each NIC, also where there are more than sixteen
    #[arg(long, short)]
    pub long: bool,

    /// Again every second, until it is interrupted
    #[arg(long, short)]
    pub watch: bool,
}

/// What to watch.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Which one: the name of its config file, without `.toml` [default: all of them, one at a time]
    pub name: Option<String>,
}

/// What to examine.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// A running tap-rs: the name of its config file, without `.toml` [default: the one that runs]
    #[arg(value_name = "NAME", conflicts_with = "config")]
    pub name: Option<String>,

    /// A config file, whether or not it is running
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// One JSON document instead of text
    #[arg(long)]
    pub json: bool,
}

/// Which frames to show, and how.
#[derive(Args, Clone, Debug)]
pub struct CaptureArgs {
    /// The NIC, by its name on this machine
    #[arg(value_name = "NIC")]
    pub nic: String,

    /// Of which tap-rs: the name of its config file, without `.toml` [default: the one that has the NIC]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Write a pcapng file for Wireshark instead of text; `-` for standard output
    #[arg(long, short, value_name = "FILE")]
    pub write: Option<PathBuf>,

    /// End after so many frames
    #[arg(long, short, value_name = "COUNT")]
    pub count: Option<u64>,

    /// Keep so many bytes of each frame [default: all of it with `-w`]
    #[arg(long, value_name = "BYTES")]
    pub snaplen: Option<u32>,

    /// Only frames that were dropped
    #[arg(long)]
    pub dropped: bool,
}

/// Whose config to read again.
#[derive(Args, Clone, Debug)]
pub struct ReloadArgs {
    /// Which one: its config file, or that file's name without `.toml` [default: the only one that runs]
    pub name: Option<String>,

    /// Say what would change, and change nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
}

/// A config file, and what may be said over it on either side.
#[derive(Args, Clone, Debug)]
pub struct FileArgs {
    /// The config file; NAME alone is /etc/tap-rs/NAME.toml [default: default_config.toml, if there is one]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The file with the private key, instead of `private_key`
    #[arg(long, value_name = "PATH")]
    pub private_key: Option<PathBuf>,

    /// How much to log, instead of `log`: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<Level>,
}

/// A config file, and what may be said over it on a client.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// What either side takes.
    #[command(flatten)]
    pub file: FileArgs,

    /// The server's public key, or a file with it, instead of `public_key` (client)
    #[arg(long, value_name = "BASE64|PATH")]
    pub server_key: Option<String>,

    /// The file with the pre-shared key, instead of `psk` (client)
    #[arg(long, value_name = "PATH")]
    pub psk: Option<PathBuf>,
}

impl Cli {
    /// The command line of this process.
    ///
    /// # Errors
    /// There is nothing to do but to say something.
    pub fn of_process() -> Result<Self, Refusal> {
        Self::try_parse().map_err(|e| explain(&e))
    }
}

/// Help and version as clap has them; a mistake as one line.
fn explain(e: &clap::Error) -> Refusal {
    let text = e.render().to_string();
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Refusal::Asked(text);
    }
    let paragraphs = text.split("\n\n").take_while(|p| !p.starts_with("Usage:"));
    let sentences: Vec<String> = paragraphs
        .map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "))
        .map(|p| p.trim_start_matches("error: ").trim_start_matches("tip: ").to_owned())
        .filter(|p| !p.starts_with("For more information"))
        .collect();
    Refusal::Senseless(format!("{}; see `tap-rs --help`", sentences.join("; ")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_fits_80_columns() {
        let mut program = Cli::command().term_width(80);
        program.build();
        let helps =
            program.get_subcommands().map(|c| c.clone().term_width(80).render_long_help().to_string());
        let helps: Vec<String> = helps.chain([program.clone().render_long_help().to_string()]).collect();
        for line in helps.iter().flat_map(|help| help.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let examples = helps.iter().filter(|help| help.contains(EXAMPLES)).count();
        assert_eq!(examples, 1, "the examples stand there as they were written: {helps:?}");
    }
}
