//! docs/tap-rs.1, taken apart.

/// The page.
pub const PAGE: &str = include_str!("../../docs/tap-rs.1");

/// The lines of a section, as they stand there.
pub fn section(name: &str) -> Vec<&'static str> {
    let start = format!(".SH {name}\n");
    let body = PAGE.split_once(&start).unwrap_or_else(|| panic!("there is no section {name}")).1;
    body.split("\n.SH ").next().unwrap_or_default().lines().collect()
}

/// What follows each `.TP`: its tag without fonts, and its text.
pub fn entries(name: &str) -> Vec<(String, String)> {
    let lines = section(name);
    let entries = lines.split(|line| *line == ".TP").skip(1);
    entries
        .map(|lines| (plain(lines[0]).trim_start_matches(".B ").to_owned(), lines[1..].join("\n")))
        .collect()
}

/// A line without fonts and escapes.
pub fn plain(line: &str) -> String {
    ["\\fB", "\\fI", "\\fR"]
        .iter()
        .fold(line.to_owned(), |text, font| text.replace(font, ""))
        .replace("\\-", "-")
}

/// The tag of an option as the page has it: `-c, --config FILE`.
pub fn tag(arg: &clap::Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = value(arg).map(|value| format!(" {value}")).unwrap_or_default();
    format!("{short}--{}{value}", arg.get_long().unwrap_or_default())
}

/// What an option or an argument takes: `FILE`.
pub fn value(arg: &clap::Arg) -> Option<String> {
    let takes = arg.is_positional() || arg.get_action().takes_values();
    let names = arg.get_value_names().filter(|_| takes)?;
    names.first().map(ToString::to_string)
}

/// `tap-rs clients add`
pub fn full_name(command: &clap::Command) -> String {
    command.get_bin_name().unwrap_or("tap-rs").to_owned()
}
