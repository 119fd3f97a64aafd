//! The command line of the tiny flavour: the same words for what it has, read by lexopt.

mod overrides;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use crate::config::Level;

pub use overrides::{DEFAULT_CONFIG, Refusal};

const HELP: &str = "\
Projects network interfaces: a NIC on one LAN, answered by a host anywhere else, sealed with Noise IK.
This is the tiny flavour: it forwards, on either side, and makes keys.

Usage: tap-rs [OPTIONS]            what run_mode in the config says
       tap-rs client [OPTIONS]     own the NICs on this LAN
       tap-rs server [-c FILE] [--private-key PATH] [--log LEVEL]
                                   answer for the NICs of the clients
       tap-rs check [OPTIONS]      check a config, its keys and scripts
       tap-rs keygen [--out PATH]  make a private key
       tap-rs pubkey               read a private key, print its public key
       tap-rs genpsk [--out PATH]  make a pre-shared key

Options:
  -c, --config FILE         the config file [default: default_config.toml]
      --private-key PATH    instead of `private_key`
      --server-key KEY      the server's public key, instead of `public_key`
      --psk PATH            instead of `psk`
      --log LEVEL           off, error, warn, info, debug or trace
  -h, --help                this
  -V, --version             the version";

/// A command line.
#[derive(Debug)]
pub struct Cli {
    /// What to do; without it, what `run_mode` in the config says.
    pub command: Option<Command>,
    /// Options for a run that `run_mode` decides.
    pub run: ClientArgs,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Make a private key.
    Keygen {
        /// Into this file.
        out: Option<PathBuf>,
    },
    /// Read a private key from standard input and print its public key.
    Pubkey,
    /// Make a pre-shared key.
    Genpsk {
        /// Into this file.
        out: Option<PathBuf>,
    },
    /// Run as a client.
    Client(ClientArgs),
    /// Run as a server.
    Server(FileArgs),
    /// Check a config.
    Check(ClientArgs),
}

/// A config file, and what may be said over it on either side.
#[derive(Clone, Debug, Default)]
pub struct FileArgs {
    /// The config file.
    pub config: Option<PathBuf>,
    /// The file with the private key.
    pub private_key: Option<PathBuf>,
    /// How much to log.
    pub log: Option<Level>,
}

/// A config file, and what may be said over it on a client.
#[derive(Clone, Debug, Default)]
pub struct ClientArgs {
    /// What either side takes.
    pub file: FileArgs,
    /// The server's public key, or a file with it.
    pub server_key: Option<String>,
    /// The file with the pre-shared key.
    pub psk: Option<PathBuf>,
}

impl Cli {
    /// The command line of this process.
    ///
    /// # Errors
    /// There is nothing to do but to say something.
    pub fn of_process() -> Result<Self, Refusal> {
        Self::from(std::env::args_os())
    }

    /// A command line, the program's own name first.
    fn from(words: impl IntoIterator<Item = OsString, IntoIter: 'static>) -> Result<Self, Refusal> {
        read(&mut Parser::from_iter(words)).unwrap_or_else(|e| {
            Err(Refusal::Senseless(format!("{}; see `tap-rs --help`", e.to_string().replace('\n', " "))))
        })
    }
}

type Read = Result<Result<Cli, Refusal>, lexopt::Error>;

fn read(words: &mut Parser) -> Read {
    let (mut command, mut run, mut out) = (None, ClientArgs::default(), None);
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => return Ok(Err(Refusal::Asked(format!("{HELP}\n")))),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Err(Refusal::Asked(
                    concat!("tap-rs ", env!("CARGO_PKG_VERSION"), " (tiny)\n").into(),
                )));
            }
            Arg::Value(name) if command.is_none() => command = Some(name.string()?),
            Arg::Short('c') | Arg::Long("config") => run.file.config = Some(words.value()?.into()),
            Arg::Long("private-key") => run.file.private_key = Some(words.value()?.into()),
            Arg::Long("log") => run.file.log = Some(words.value()?.parse()?),
            Arg::Long("server-key") => run.server_key = Some(words.value()?.string()?),
            Arg::Long("psk") => run.psk = Some(words.value()?.into()),
            Arg::Long("out") => out = Some(words.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    let command = match command.as_deref() {
        None => None,
        Some("keygen") => Some(Command::Keygen { out }),
        Some("genpsk") => Some(Command::Genpsk { out }),
        Some("pubkey") => Some(Command::Pubkey),
        Some("client") => Some(Command::Client(run.clone())),
        Some("server") => Some(Command::Server(run.file.clone())),
        Some("check") => Some(Command::Check(run.clone())),
        Some(other) => {
            return Err(format!("the tiny flavour has no command {other:?}").into());
        }
    };
    Ok(Ok(Cli { command, run }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, Refusal> {
        Cli::from(line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn commands_and_options_are_those_of_the_full_flavour() {
        let cli = read("tap-rs client -c a.toml --log debug --psk p --server-key k --private-key q").unwrap();
        let Some(Command::Client(args)) = cli.command else { panic!("{cli:?}") };
        assert_eq!(args.file.config, Some("a.toml".into()));
        assert_eq!((args.server_key.as_deref(), args.psk), (Some("k"), Some("p".into())));
        assert_eq!((args.file.private_key, args.file.log), (Some("q".into()), Some(Level::Debug)));
        let cli = read("tap-rs --config=b.toml").unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.file.config, Some("b.toml".into()));
    }

    #[test]
    fn what_it_does_not_know_is_one_sentence() {
        for bad in ["tap-rs demo", "tap-rs client x", "tap-rs --colour", "tap-rs --log loud", "tap-rs -c"] {
            let Err(Refusal::Senseless(why)) = read(bad) else { panic!("{bad}") };
            assert!(why.lines().count() == 1 && why.contains("--help"), "{why}");
        }
    }
}
