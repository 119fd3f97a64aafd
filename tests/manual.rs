//! `docs/tap-rs.1` says what the program takes: nothing is missing, and nothing is there that is gone. The pages and the
//! completions that packaging makes of it, of the command line and of `docs/CONFIG.md` hold what they should.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command as Process, Stdio};

use clap::{Arg, Command, CommandFactory as _};
use tap_rs::cli::{Cli, DEFAULT_CONFIG};
use tap_rs::config::KEYS;

#[path = "../packaging/manual/completions.rs"]
mod completions;
#[path = "../packaging/manual/commands.rs"]
mod made;
#[path = "../packaging/manual/markdown.rs"]
mod markdown;
#[path = "../packaging/manual/page.rs"]
mod page;

use page::{PAGE, full_name, plain, tag, value};

/// The lines of a section, without fonts and escapes.
fn section(name: &str) -> Vec<String> {
    page::section(name).into_iter().map(plain).collect()
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

/// `-c FILE`, `--json`, `NAME`
fn short(arg: &Arg) -> String {
    let name = match (arg.get_short(), arg.get_long()) {
        (Some(short), _) => Some(format!("-{short}")),
        (None, long) => long.map(|long| format!("--{long}")),
    };
    name.into_iter().chain(value(arg)).collect::<Vec<_>>().join(" ")
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
    page::entries(name).into_iter().map(|(tag, _)| tag).collect()
}

#[test]
fn every_option_and_every_command_is_explained() {
    let options = |command: &Command| {
        let options = command.get_arguments().filter(|arg| !arg.is_positional());
        options.map(tag).collect::<Vec<_>>()
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

#[test]
fn every_command_has_a_page_with_what_it_takes() {
    let pages = made::pages();
    for command in commands() {
        let name = full_name(&command).replace(' ', "-");
        let path = format!("man1/{name}.1");
        let (_, text) = pages.iter().find(|(p, _)| *p == path).unwrap_or_else(|| panic!("no {path}"));
        let lines: Vec<String> = text.lines().map(plain).collect();
        for arg in command.get_arguments() {
            let wanted = if arg.is_positional() { value(arg).unwrap() } else { tag(arg) };
            // tap-rs(1) has arguments in its synopsis alone.
            let there = lines.windows(2).any(|pair| pair[0] == ".TP" && pair[1] == wanted);
            assert!(there || name == "tap-rs", "{path} has no {wanted}");
        }
    }
    assert!(pages.iter().any(|(path, _)| path == "man1/tap-rs-clients.1"));
}

#[test]
fn every_key_of_a_config_is_in_its_section_of_the_page() {
    let (_, text) = markdown::page();
    for (table, keys) in KEYS {
        let heading = format!("\n.SH {}\n", table.to_uppercase());
        let section = text.split_once(&heading).unwrap_or_else(|| panic!("no section {table}")).1;
        let section = section.split("\n.SH ").next().unwrap();
        for key in *keys {
            assert!(section.contains(&format!(".TP\n\\fB{key}\\fR (")), "{table} {key}");
        }
    }
}

#[test]
fn no_page_has_marks_of_markdown() {
    for (path, text) in made::pages().into_iter().chain([markdown::page()]) {
        let mut code = false;
        for line in text.lines() {
            code = line == ".nf" || (code && line != ".fi");
            let marks = ["`", "**", "](", "<a "].iter().any(|mark| line.contains(mark));
            assert!(code || !marks, "{path}: {line}");
        }
    }
}

#[test]
fn groff_warns_of_nothing_on_any_page() {
    if Process::new("groff").arg("--version").output().is_err() {
        println!("SKIPPED (needs groff): groff_warns_of_nothing_on_any_page");
        return;
    }
    for (path, text) in made::pages().into_iter().chain([markdown::page()]) {
        let mut groff = Process::new("groff")
            .args(["-t", "-k", "-man", "-Tutf8", "-ww", "-z"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        groff.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let said = groff.wait_with_output().unwrap();
        assert!(
            said.status.success() && said.stderr.is_empty(),
            "{path}: {}",
            String::from_utf8_lossy(&said.stderr)
        );
    }
}

/// What bash offers for the last of these words, by the function that it was told of.
fn completed(words: &str) -> BTreeSet<String> {
    let (_, script) = completions::all().into_iter().find(|(path, _)| path.starts_with("bash/")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tap-rs");
    std::fs::write(&file, script).unwrap();
    let line = "source $1; COMP_WORDS=($2 $3); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
                function=$(complete -p tap-rs | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
                $function tap-rs \"$3\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
                printf '%s\\n' \"${COMPREPLY[@]}\"";
    let (before, last) = words.rsplit_once(' ').unwrap();
    let mut bash = Process::new("bash");
    bash.args(["--norc", "-euc", line, "bash"]).arg(file).args([before, last]);
    let said = bash.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let set = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(completed("tap-rs cl"), set(&["client", "clients"]));
    assert_eq!(completed("tap-rs clients ro"), set(&["rotate"]));
    assert_eq!(completed("tap-rs reload --d"), set(&["--dry-run"]));
    assert_eq!(completed("tap-rs invite --s"), set(&["--server"]));
    assert_eq!(completed("tap-rs clients rotate --f"), set(&["--finish"]));
}
