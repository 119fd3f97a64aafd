//! The `tap-rs` program: parse the command line, do what it says, turn the result into an exit code.

use std::io::Write;
use std::process::ExitCode;

#[cfg(feature = "full")]
use tap_rs::cli::More;
use tap_rs::cli::{Cli, Command, FileArgs, Refusal};
use tap_rs::commands::{self, Failure};
use tap_rs::config::{Overrides, Role};
use tap_rs::runtime;
#[cfg(feature = "full")]
use tap_rs::runtime::{capture, clients, demo, doctor, down, join, reload, status, top};
use tap_rs::sys::wipe::Wiping;

#[global_allocator]
static ALLOCATOR: Wiping = Wiping;

fn main() -> ExitCode {
    let cli = match Cli::of_process() {
        Ok(cli) => cli,
        Err(Refusal::Asked(text)) => {
            // A closed pipe is no failure of ours: whoever asked for help has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Refusal::Senseless(why)) => return say(&format!("tap-rs: {why}"), 2),
    };
    match run(cli) {
        Ok(code) => code,
        Err(failure) => fail(&failure),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Some(Command::Keygen { out }) => commands::keygen(out.as_deref())?,
        Some(Command::Pubkey) => commands::pubkey()?,
        Some(Command::Genpsk { out }) => commands::genpsk(out.as_deref())?,
        Some(Command::Check(args)) => commands::check(&args.file, &args.overrides(None))?,
        Some(Command::Client(args)) => return start(&args.file, &args.overrides(Some(Role::Client))),
        Some(Command::Server(args)) => return start(&args, &args.overrides(Some(Role::Server))),
        #[cfg(feature = "full")]
        Some(Command::More(more)) => return run_more(more),
        None => return start(&cli.run.file, &cli.run.overrides(None)),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "full")]
fn run_more(more: More) -> Result<ExitCode, Failure> {
    match more {
        More::Init(args) => commands::init::init(&args)?,
        More::Migrate(args) => commands::migrate::migrate(&args)?,
        More::Invite(args) => clients::invite(&args)?,
        More::Join(args) => join::command(&args)?,
        More::Clients(args) => clients::command(&args)?,
        More::Reload(args) => reload::command(&args)?,
        More::Down(args) => {
            down::command(&commands::config_path(args.config.as_deref())?)?;
        }
        More::Status(args) => status::command(&args)?,
        More::Top(args) => return top::command(&args).map(ExitCode::from),
        More::Doctor(args) => return doctor::command(&args).map(ExitCode::from),
        More::Capture(args) => capture::command(&args)?,
        More::Demo => return Ok(show()),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "full")]
fn show() -> ExitCode {
    match demo::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => say(&format!("tap-rs: {e}"), e.status()),
    }
}

fn start(file: &FileArgs, overrides: &Overrides) -> Result<ExitCode, Failure> {
    let path = commands::config_path(file.config.as_deref())?;
    runtime::run(&path, overrides).map(ExitCode::from)
}

/// 2 for a command line that makes no sense, 1 for everything else.
fn fail(failure: &Failure) -> ExitCode {
    match failure {
        Failure::OutputClosed => ExitCode::from(1),
        Failure::Usage(message) => say(&format!("tap-rs: {message}"), 2),
        Failure::Refused(message) => say(message, 1),
    }
}

fn say(line: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(code)
}
