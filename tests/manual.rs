//! `docs/tap-rs.1` says what the program takes: nothing is missing, and nothing is there that is gone.

use std::collections::BTreeSet;

use clap::{Arg, Command, CommandFactory as _};
use tap_rs::cli::{Cli, DEFAULT_CONFIG};

const PAGE: &str = include_str!("../docs/tap-rs.1");

/// The lines of a section, without fonts and escapes.
fn section(name: &str) -> Vec<String> {
    let start = format!(".SH {name}\n");
    let body = PAGE.split_once(&start).unwrap_or_else(|| panic!("there is no section {name}")).1;
    let body = body.split("\n.SH ").next().unwrap();
    body.lines().map(plain).collect()
}

fn plain(line: &str) -> String {
    ["\\fB", "\\fI", "\\fR"]
        .iter()
        .fold(line.to_owned(), |text, font| text.replace(font, ""))
        .replace("\\-", "-")
}

/// The program, and each of its commands.
fn commands() -> Vec<Command> {
    let mut program = Cli::command();
    program.build();
    let mut all = Vec::new();
    for command in program.get_subcommands() {
        // One that has commands of its own is told by those.
        let inner: Vec<Command> = command.get_subcommands().cloned().collect();
        if inner.is_empty() {
            all.push(command.clone());
        }
        all.extend(inner);
    }
    all.push(program);
    all
}

/// `tap-rs clients add`
fn full_name(command: &Command) -> String {
    command.get_bin_name().unwrap_or("tap-rs").to_owned()
}

fn value(arg: &Arg) -> Option<String> {
    let takes = arg.is_positional() || arg.get_action().takes_values();
    takes.then(|| arg.get_value_names().unwrap()[0].to_string())
}

/// `-c FILE`, `--json`, `NAME`
fn short(arg: &Arg) -> String {
    let name = match (arg.get_short(), arg.get_long()) {
        (Some(short), _) => Some(format!("-{short}")),
        (None, long) => long.map(|long| format!("--{long}")),
    };
    name.into_iter().chain(value(arg)).collect::<Vec<_>>().join(" ")
}

/// `-c, --config FILE`
fn long(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = value(arg).map(|value| format!(" {value}")).unwrap_or_default();
    format!("{short}--{}{value}", arg.get_long().unwrap())
}

/// Every command says `--help`, and the program its version; the page says that once.
fn is_own(arg: &Arg) -> bool {
    !["help", "version"].contains(&arg.get_id().as_str())
}

#[test]
fn the_synopsis_has_every_command_with_what_it_takes() {
    let line = |command: &Command| {
        let name = full_name(command);
        let order = |arg: &&Arg| arg.is_positional();
        let (positional, options): (Vec<&Arg>, Vec<&Arg>) =
            command.get_arguments().filter(|a| is_own(a)).partition(order);
        let words: String = options
            .iter()
            .chain(&positional)
            .map(|arg| {
                if arg.is_required_set() { format!(" {}", short(arg)) } else { format!(" [{}]", short(arg)) }
            })
            .collect();
        format!("{name}{words}")
    };
    let wanted: BTreeSet<String> = commands().iter().map(line).collect();
    let page: BTreeSet<String> =
        section("SYNOPSIS").into_iter().filter(|l| l.starts_with("tap-rs")).collect();
    assert_eq!(page, wanted);
}

/// What follows each `.TP`.
fn tags(name: &str) -> BTreeSet<String> {
    let lines = section(name);
    let tags = lines.windows(2).filter(|pair| pair[0] == ".TP").map(|pair| pair[1].clone());
    tags.map(|tag| tag.trim_start_matches(".B ").to_owned()).collect()
}

#[test]
fn every_option_and_every_command_is_explained() {
    let options = |command: &Command| {
        let options = command.get_arguments().filter(|arg| !arg.is_positional());
        options.map(long).collect::<Vec<_>>()
    };
    assert_eq!(tags("OPTIONS"), commands().iter().flat_map(options).collect());
    let names = commands().into_iter().map(|c| full_name(&c)).filter(|name| name != "tap-rs");
    let names = names.map(|name| name.trim_start_matches("tap-rs ").to_owned());
    assert_eq!(tags("COMMANDS"), names.collect());
}

#[test]
fn version_and_default_files_are_the_programs() {
    assert!(plain(PAGE.lines().nth(1).unwrap()).contains(concat!(
        "\"tap-rs ",
        env!("CARGO_PKG_VERSION"),
        "\""
    )));
    let files = section("FILES").join("\n");
    assert!(files.contains(DEFAULT_CONFIG), "{files}");
    let config = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIG.md")).unwrap();
    for path in ["/run/tap-rs.pid", "/var/log/tap-rs.out", "/var/log/tap-rs.err"] {
        assert!(files.contains(path) && config.contains(&format!("| `{path}` |")), "{path}");
    }
}

#[test]
fn the_page_is_well_formed() {
    for (number, line) in PAGE.lines().enumerate() {
        let fonts = line.matches("\\fB").count() + line.matches("\\fI").count();
        assert_eq!(line.matches("\\fR").count(), fonts, "line {}: {line}", number + 1);
        // A hyphen where the user is to type a minus cannot be copied from the page.
        let options = line.replace("\\-", "").contains("--");
        assert!(!options, "line {}: an option needs \\-\\-: {line}", number + 1);
        assert!(!line.trim().is_empty(), "line {}: an empty line; use .PP", number + 1);
    }
}
