//! The `tap-rs` program: parse the command line, do what it says, turn the result into an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tap_rs::cli::{Cli, Command, FileArgs};
use tap_rs::commands::{self, Failure};
use tap_rs::config::{Overrides, Role};
use tap_rs::runtime::{self, capture, clients, demo, doctor, join, reload, status, top};
use tap_rs::sys::wipe::Wiping;

#[global_allocator]
static ALLOCATOR: Wiping = Wiping;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return explain(&e),
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
        Some(Command::Init(args)) => commands::init::init(&args)?,
        Some(Command::Invite(args)) => clients::invite(&args)?,
        Some(Command::Join(args)) => join::command(&args)?,
        Some(Command::Clients(args)) => clients::command(&args)?,
        Some(Command::Reload(args)) => reload::command(&args)?,
        Some(Command::Status(args)) => status::command(&args)?,
        Some(Command::Top(args)) => top::command(&args)?,
        Some(Command::Doctor(args)) => return doctor::command(&args).map(ExitCode::from),
        Some(Command::Capture(args)) => capture::command(&args)?,
        Some(Command::Demo) => return Ok(show()),
        None => return start(&cli.run.file, &cli.run.overrides(None)),
    }
    Ok(ExitCode::SUCCESS)
}

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

/// Help and version as clap prints them; a mistake as one line.
fn explain(e: &clap::Error) -> ExitCode {
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is no failure of ours: whoever asked for help has read enough.
        let _ = e.print();
        return ExitCode::SUCCESS;
    }
    let text = e.render().to_string();
    let paragraphs = text.split("\n\n").take_while(|p| !p.starts_with("Usage:"));
    let sentences: Vec<String> = paragraphs
        .map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "))
        .map(|p| p.trim_start_matches("error: ").trim_start_matches("tip: ").to_owned())
        .filter(|p| !p.starts_with("For more information"))
        .collect();
    say(&format!("tap-rs: {}; see `tap-rs --help`", sentences.join("; ")), 2)
}

fn say(line: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(code)
}
