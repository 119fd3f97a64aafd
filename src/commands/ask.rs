//! Questions on a terminal. Where there is none nobody is asked, and nothing waits.

use std::io::{self, BufRead, IsTerminal, Write};

use super::Failure;

/// The value that was given, or else the answer of whoever sits at the terminal; an empty answer is the default.
///
/// # Errors
/// Without a terminal: which option to give.
pub fn or_ask<T: std::str::FromStr<Err: std::fmt::Display>>(
    given: Option<T>,
    option: &str,
    question: &str,
    default: Option<&str>,
) -> Result<T, Failure> {
    if let Some(value) = given {
        return Ok(value);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(format!(
            "nobody is here to be asked; give {option}, or run it on a terminal"
        )));
    }
    loop {
        let answer = line(question, default)?;
        match answer.parse() {
            Ok(value) => return Ok(value),
            Err(e) => writeln!(io::stderr(), "{e}").map_err(|_| Failure::OutputClosed)?,
        }
    }
}

fn line(question: &str, default: Option<&str>) -> Result<String, Failure> {
    let shown = default.map(|d| format!(" [{d}]")).unwrap_or_default();
    let mut answer = String::new();
    let ask = || -> io::Result<usize> {
        let mut out = io::stderr();
        write!(out, "{question}{shown}: ")?;
        out.flush()?;
        io::stdin().lock().read_line(&mut answer)
    };
    match { ask }() {
        Ok(1..) => {}
        Ok(0) => {
            return Err(Failure::Refused("nothing was written: the questions were not answered".to_owned()));
        }
        Err(e) => return Err(Failure::Refused(format!("cannot ask on this terminal: {e}"))),
    }
    let answer = answer.trim();
    Ok(if answer.is_empty() { default.unwrap_or_default() } else { answer }.to_owned())
}

/// The interface that leads to the rest of the world: a good guess at the LAN's.
pub fn default_interface() -> Option<String> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let mut defaults = routes.lines().map(fields).filter(|f| f.get(1).is_some_and(|to| to == "00000000"));
    defaults.next()?.into_iter().next()
}
