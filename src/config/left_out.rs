//! What the tiny flavour leaves out: a key that asks for it is refused, at its place, by `check` and at the start.

use toml::Spanned;

use super::check::Check;
use super::raw::File;

/// Refuses the keys of a file that only the full flavour can do something about.
pub(super) fn refuse(check: &mut Check<'_>, file: &File) {
    let sentence = |key: &str, lack: &str, instead: &str| {
        format!("`{key}`: this is the tiny flavour of tap-rs, which {lack}; {instead}, or run the full one")
    };
    check.misplaced(&file.metrics, &sentence("metrics", "gives out no metrics", "leave it out"));
    let lets_in =
        sentence("invite", "lets nobody in by invite", "write the client's public_key in its place");
    for client in file.clients.iter().flat_map(Spanned::get_ref) {
        check.misplaced(&client.get_ref().invite, &lets_in);
    }
    // No reason not to run, and what is left out shows itself.
    if file
        .log
        .as_ref()
        .is_some_and(|log| ["debug", "trace"].iter().any(|l| log.get_ref().eq_ignore_ascii_case(l)))
    {
        check.unused(
            &file.log,
            "this is the tiny flavour of tap-rs, which tells no more than `info`; the full one does",
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::raw;
    use crate::config::report::Notes;

    /// The errors and the warnings.
    fn noted(text: &str) -> [Vec<String>; 2] {
        let mut check =
            Check { notes: Notes::new(Path::new("f.toml"), text), folder: Path::new("."), files: Vec::new() };
        let file = raw::parse(text, &mut check.notes).unwrap();
        refuse(&mut check, &file);
        let (errors, warnings) = match check.notes.finish(Some(())) {
            Ok(((), warnings)) => (Vec::new(), warnings),
            Err(report) => (report.errors, report.warnings),
        };
        [errors.iter().map(ToString::to_string).collect(), warnings.iter().map(ToString::to_string).collect()]
    }

    #[test]
    fn what_is_not_in_the_tiny_flavour_is_named_with_its_place() {
        let text =
            "run_mode = \"server\"\nmetrics = 9095\n[[clients]]\nname = \"a\"\n[[clients]]\ninvite = \"x\"\n";
        let [errors, warnings] = noted(text);
        assert_eq!(warnings, [""; 0]);
        assert_eq!(
            errors,
            [
                "f.toml:2:11: `metrics`: this is the tiny flavour of tap-rs, which gives out no metrics; leave it out, or run \
                 the full one",
                "f.toml:6:10: `invite`: this is the tiny flavour of tap-rs, which lets nobody in by invite; write the \
                 client's public_key in its place, or run the full one"
            ]
        );
    }

    #[test]
    fn what_is_in_both_is_not_refused() {
        let text = "run_mode = \"server\"\nlog = \"warn\"\n[hooks]\nup = \"/bin/true\"\n[[clients]]\npublic_key = \"k\"\n";
        assert_eq!(noted(text), [[""; 0], [""; 0]]);
    }

    #[test]
    fn a_level_that_tells_more_is_warned_of() {
        let [errors, warnings] = noted("log = \"Debug\"\n");
        assert_eq!(errors, [""; 0]);
        assert_eq!(
            warnings,
            [
                "f.toml:1:7: this is the tiny flavour of tap-rs, which tells no more than `info`; the full one does"
            ]
        );
    }
}
