//! tap-rs.toml(5) from docs/CONFIG.md: what of Markdown that file uses, and nothing else.

use std::iter::Peekable;
use std::str::Lines;

const CONFIG: &str = include_str!("../../docs/CONFIG.md");

/// The page: its path and its text.
pub fn page() -> (String, String) {
    let version = env!("CARGO_PKG_VERSION");
    let head = format!(
        "'\\\" t\n.\\\" Made from docs/CONFIG.md by packaging/manual.\n\
         .TH TAP-RS.TOML 5 \"\" \"tap-rs {version}\" \"File Formats Manual\"\n.nh\n.ad l\n\
         .SH NAME\ntap\\-rs.toml \\- the config file of tap\\-rs\n\
         .SH SYNOPSIS\n.I /etc/tap\\-rs/NAME.toml\n.SH DESCRIPTION\n"
    );
    let foot = ".SH SEE ALSO\n.BR tap\\-rs (1),\n.BR tap\\-rs\\-check (1)\n.PP\nThe other documents are in\n\
                .IR /usr/share/doc/tap\\-rs .\n";
    ("man5/tap-rs.toml.5".to_owned(), format!("{head}{}{foot}", roff(CONFIG)))
}

/// Blocks one after the other. A paragraph, an item and a block of code end at an empty line or where another begins.
fn roff(text: &str) -> String {
    let mut lines = text.lines().peekable();
    let mut page = String::new();
    while let Some(line) = lines.next() {
        let block = if line.is_empty() || line.starts_with("# ") || line.starts_with("<a id=") {
            continue;
        } else if let Some(heading) = line.strip_prefix("## ") {
            format!(".SH {}", heading.replace('`', "").to_uppercase())
        } else if line.starts_with("```") {
            code(&mut lines)
        } else if line.starts_with('|') {
            table(line, &mut lines)
        } else if let Some(item) = line.strip_prefix("- ") {
            format!(".IP \\(bu 2\n{}", inline(&prose(item, &mut lines)))
        } else {
            format!(".PP\n{}", inline(&prose(line, &mut lines)))
        };
        page.push_str(&block);
        page.push('\n');
    }
    page
}

fn prose(first: &str, lines: &mut Peekable<Lines<'_>>) -> String {
    let mut words = vec![first.trim()];
    while let Some(line) = lines.next_if(|line| !line.is_empty() && !line.starts_with(['-', '|', '#', '`'])) {
        words.push(line.trim());
    }
    words.join(" ")
}

fn code(lines: &mut Peekable<Lines<'_>>) -> String {
    let block: Vec<String> =
        lines.by_ref().take_while(|line| !line.starts_with("```")).map(verbatim).collect();
    format!(".PP\n.RS 4\n.nf\n{}\n.fi\n.RE", block.join("\n"))
}

/// Keys have an entry each; what else is a table stays one.
fn table(head: &str, lines: &mut Peekable<Lines<'_>>) -> String {
    let head = cells(head);
    let mut rows = Vec::new();
    while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
        rows.push(cells(line));
    }
    // The rule below the head.
    rows.remove(0);
    match head.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["key", "type", "default", "range", "side", "meaning"] => {
            rows.iter().map(|row| key(row)).collect::<Vec<_>>().join("\n")
        }
        _ => columns(&head, &rows),
    }
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn key(row: &[String]) -> String {
    let [key, kind, default, range, side, meaning] = row else { panic!("not six cells: {row:?}") };
    let colon = if range.is_empty() { "" } else { ": " };
    let mut facts = vec![format!("{}{colon}{}", inline(kind), inline(range))];
    match default.as_str() {
        "" => {}
        required if required.contains("**") => facts.push(inline(required)),
        default => facts.push(format!("default {}", inline(default))),
    }
    facts.extend((side != "both").then(|| format!("{side} only")));
    format!(".TP\n{} ({})\n{}", inline(key), facts.join("; "), inline(meaning))
}

fn columns(head: &[String], rows: &[Vec<String>]) -> String {
    let form: Vec<&str> = head.iter().enumerate().map(|(i, _)| if i == 0 { "l" } else { "lx" }).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().map(|cell| format!("T{{\n{}\nT}}", inline(cell)));
        cells.collect::<Vec<_>>().join("\t")
    };
    let rows: Vec<String> = rows.iter().map(|row| line(row)).collect();
    format!(".PP\n.TS\n{}.\n{}\n_\n{}\n.TE", form.join(" "), line(head), rows.join("\n"))
}

/// Code and what is strong in bold, emphasis in italics, links as their text.
fn inline(text: &str) -> String {
    let mut pieces = text.split('`');
    let mut out = prose_fonts(pieces.next().unwrap_or_default());
    while let Some(code) = pieces.next() {
        out.push_str(&format!("\\fB{}\\fR", escaped(code)));
        out.push_str(&prose_fonts(pieces.next().unwrap_or_default()));
    }
    at_line_start(out)
}

fn prose_fonts(text: &str) -> String {
    let text = escaped(&without_links(text));
    let strong = alternate(&text, "**", "\\fB");
    alternate(&strong, "*", "\\fI")
}

/// Every other piece in this font.
fn alternate(text: &str, mark: &str, font: &str) -> String {
    let pieces = text.split(mark).enumerate();
    pieces
        .map(|(i, piece)| if i % 2 == 1 { format!("{font}{piece}\\fR") } else { piece.to_owned() })
        .collect()
}

/// `[text](target)` to `text`; a link whose text is code is cut into pieces, which this puts together.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        out.push_str(&before.replacen('[', "", 1));
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest.strip_suffix('[').unwrap_or(rest));
    out
}

fn verbatim(line: &str) -> String {
    at_line_start(escaped(line))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// A full stop or an apostrophe there would be a request.
fn at_line_start(line: String) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}
