//! A page for each command: what there is says the command line, what it means says docs/tap-rs.1.

use clap::{Command, CommandFactory as _};
use tap_rs::cli::Cli;

use crate::page::{PAGE, entries, full_name, plain, section, tag, value};

/// tap-rs(1) and the pages of its commands: paths and texts.
pub fn pages() -> Vec<(String, String)> {
    let mut program = Cli::command();
    program.build();
    let mut pages = vec![("man1/tap-rs.1".to_owned(), PAGE.to_owned())];
    for command in program.get_subcommands() {
        pages.push(page(command, &[]));
        let beside: Vec<String> = command.get_subcommands().map(page_name).collect();
        pages.extend(command.get_subcommands().map(|inner| page(inner, &beside)));
    }
    pages
}

/// `tap-rs-clients-add`
fn page_name(command: &Command) -> String {
    full_name(command).replace(' ', "-")
}

fn page(command: &Command, beside: &[String]) -> (String, String) {
    let name = page_name(command);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(
        ".\\\" Made from docs/tap-rs.1 and src/cli.rs by packaging/manual.\n\
         .TH {} 1 \"\" \"tap-rs {}\" \"User Commands\"\n\
         .nh\n.ad l\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n{}\n.SH DESCRIPTION\n{}\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        escaped(&name),
        fonts(&about),
        synopsis(command),
        description(command, &about),
    );
    text.push_str(&arguments(command));
    text.push_str(&options(command));
    text.push_str(".SH EXIT STATUS\nAs in\n.BR tap\\-rs (1).\n.SH SEE ALSO\n");
    let mut others = vec!["tap-rs(1)".to_owned(), "tap-rs.toml(5)".to_owned()];
    others.extend(command.get_subcommands().map(page_name).map(|page| format!("{page}(1)")));
    others.extend(beside.iter().filter(|other| **other != name).map(|other| format!("{other}(1)")));
    text.push_str(&see_also(&others));
    (format!("man1/{name}.1"), text)
}

/// The line of the synopsis, of which no option parts from its value; for a command of commands one line each.
fn synopsis(command: &Command) -> String {
    let name = full_name(command);
    let wanted = |line: &&&str| {
        let line = plain(line);
        line == name || line.starts_with(&format!("{name} "))
    };
    let lines: Vec<String> = section("SYNOPSIS").iter().filter(wanted).map(|line| unbroken(line)).collect();
    assert!(!lines.is_empty(), "no synopsis of {name}");
    lines.join("\n.br\n")
}

/// With spaces inside of brackets, and within the name, that do not break.
fn unbroken(line: &str) -> String {
    let mut depth = 0;
    let pieces = line.chars().map(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if c == ' ' && depth > 0 { "\\ ".to_owned() } else { c.to_string() }
    });
    pieces.collect()
}

fn description(command: &Command, about: &str) -> String {
    let name = full_name(command);
    let inner = entries("COMMANDS").into_iter().find(|(tag, _)| name.strip_prefix("tap-rs ") == Some(tag));
    inner.map_or_else(|| format!("{}.", fonts(about)), |(_, text)| text)
}

fn arguments(command: &Command) -> String {
    let arguments = command.get_positionals().map(|arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        format!(".TP\n\\fI{}\\fR\n{}.\n", value(arg).unwrap_or_default(), fonts(&help))
    });
    headed("ARGUMENTS", arguments.collect())
}

/// In the order of the command line, with what the page says.
fn options(command: &Command) -> String {
    let (page, entries) = (section("OPTIONS"), entries("OPTIONS"));
    let options = command.get_arguments().filter(|arg| !arg.is_positional()).map(|arg| {
        let tag = tag(arg);
        let raw = page.iter().find(|line| plain(line) == tag);
        let text = entries.iter().find(|(known, _)| *known == tag);
        let (Some(raw), Some((_, text))) = (raw, text) else { panic!("docs/tap-rs.1 has no {tag}") };
        format!(".TP\n{raw}\n{text}\n")
    });
    headed("OPTIONS", options.collect())
}

fn headed(name: &str, body: String) -> String {
    if body.is_empty() { body } else { format!(".SH {name}\n{body}") }
}

fn see_also(pages: &[String]) -> String {
    let lines = pages.iter().map(|page| page.replace('(', " ("));
    let lines: Vec<String> = lines.map(|page| format!(".BR {}", escaped(&page))).collect();
    format!("{}\n", lines.join(",\n"))
}

/// What clap shows: `words in backticks` are bold.
fn fonts(text: &str) -> String {
    let pieces = escaped(text);
    let pieces = pieces.split('`').enumerate();
    pieces.map(|(i, piece)| if i % 2 == 1 { format!("\\fB{piece}\\fR") } else { piece.to_owned() }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
