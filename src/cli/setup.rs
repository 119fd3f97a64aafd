//! Arguments of the commands that write configs: `init`, `migrate`, `invite`, `join`, `clients`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::{NicArg, ServerAddr, Span};
use crate::types::NicName;

/// A new pair of configs.
#[derive(Args, Clone, Debug, Default)]
pub struct InitArgs {
    /// Write into this folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,

    /// Where clients reach the server: HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<ServerAddr>,

    /// The server's config alone; clients come by `tap-rs invite`
    #[arg(long)]
    pub server_only: bool,

    /// The client's name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// The client's interface on the LAN
    #[arg(long, value_name = "IFNAME")]
    pub parent: Option<NicName>,

    /// A NIC to project, `ip=ADDRESS/PREFIX`; behind commas perhaps mac=, ifname=, client_ifname=, mtu=. May be
    /// repeated
    #[arg(long, value_name = "NIC")]
    pub nic: Vec<NicArg>,
}

/// A config of the original tap-rs, and what it cannot say.
#[derive(Args, Clone, Debug)]
pub struct MigrateArgs {
    /// The config of the original; it stays as it is
    #[arg(value_name = "OLD")]
    pub old: PathBuf,

    /// Write the new config here, instead of to standard output
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Write over FILE if it is there
    #[arg(long, requires = "out")]
    pub force: bool,

    /// Make this side's key in this folder: client.key or server.key. One that is there is used
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,

    /// The other side's public key, or a file that holds it, where it is known already
    #[arg(long, value_name = "KEY")]
    pub peer_key: Option<String>,

    /// What the server is to call the client
    #[arg(long, value_name = "NAME", default_value = "branch")]
    pub name: String,

    /// The client's interface on the LAN, for macvtaps that tap-rs makes
    #[arg(long, value_name = "IFNAME")]
    pub parent: Option<NicName>,

    /// The length of the LAN's prefix, for addresses that tap-rs sets on the server: 24 of 192.168.1.0/24
    #[arg(long, value_name = "LENGTH", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub prefix: Option<u8>,

    /// The same for IPv6 addresses: 64 of 2001:db8::/64
    #[arg(long, value_name = "LENGTH", value_parser = clap::value_parser!(u8).range(1..=128))]
    pub prefix6: Option<u8>,
}

/// A new client to come.
#[derive(Args, Clone, Debug)]
pub struct InviteArgs {
    /// The client's name; one that is there already gets another key
    pub name: String,

    /// The server's config [default: default_config.toml, if there is one]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How long it may be used: 90s, 30m, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub valid: Span,

    /// Where clients reach the server, instead of `public_addr`
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<ServerAddr>,

    /// A NIC for it, `ip=ADDRESS/PREFIX`; behind commas perhaps mac=, ifname=, client_ifname=, mtu=. May be repeated
    #[arg(long, value_name = "NIC")]
    pub nic: Vec<NicArg>,
}

/// An invite to be used.
#[derive(Args, Clone, Debug)]
pub struct JoinArgs {
    /// What `tap-rs invite` printed; `-` reads it from standard input [default: asks]
    pub string: Option<String>,

    /// Write client.toml and client.key into this folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,

    /// The interface on the LAN, which macvtaps are made on
    #[arg(long, value_name = "IFNAME")]
    pub parent: Option<NicName>,
}

/// What to do with a server's clients.
#[derive(Args, Clone, Debug)]
pub struct ClientsArgs {
    /// The server's config [default: default_config.toml, if there is one]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: ClientsCommand,
}

/// What to do with a server's clients.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientsCommand {
    /// Add a client whose public key is known
    Add {
        /// Its name
        name: String,
        /// Its public key, or a file that holds it
        #[arg(value_name = "KEY")]
        key: String,
        /// A NIC for it, `ip=ADDRESS/PREFIX`; behind commas perhaps mac=, ifname=, client_ifname=, mtu=. May be repeated
        #[arg(long, value_name = "NIC")]
        nic: Vec<NicArg>,
    },
    /// Remove a client; it is shut out at once
    Remove {
        /// Its name
        name: String,
    },
    /// Change a client's key: first both count, after `--finish` the new one alone
    Rotate {
        /// Its name
        name: String,
        /// Its new public key, or a file that holds it
        #[arg(value_name = "KEY", required_unless_present = "finish", conflicts_with = "finish")]
        key: Option<String>,
        /// Drop the old key
        #[arg(long)]
        finish: bool,
    },
    /// Say which clients there are
    List,
}
