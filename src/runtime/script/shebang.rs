//! Which program interprets a script.

/// A program and the one option that a `#!` line may give it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpreter {
    pub(super) path: &'static str,
    pub(super) argument: Option<String>,
}

/// The first line names a program that is not on the list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the script's first line is {0:?}, which is not run here; begin it with #!/bin/sh, #!/bin/bash, \
     #!/usr/bin/python3 or #!/usr/bin/perl, and end its lines as Unix does"
)]
pub struct BadInterpreter(String);

const INTERPRETERS: [&str; 8] = [
    "/bin/sh",
    "/usr/bin/sh",
    "/bin/bash",
    "/usr/bin/bash",
    "/bin/python3",
    "/usr/bin/python3",
    "/bin/perl",
    "/usr/bin/perl",
];
const ENV: [&str; 2] = ["/usr/bin/env", "/bin/env"];
const BY_ENV: [&str; 3] = ["sh", "bash", "python3"];
/// How much of a first line is looked at, in bytes, as in the kernel (`BINPRM_BUF_SIZE`, linux/binfmts.h).
const LINE: usize = 256;

impl Interpreter {
    /// The one that the first line asks for, `/bin/sh` where it asks for none.
    pub(super) fn of(script: &[u8]) -> Result<Self, BadInterpreter> {
        let Some(rest) = script.strip_prefix(b"#!") else {
            return Ok(Self { path: "/bin/sh", argument: None });
        };
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        let shown = String::from_utf8_lossy(line.get(..LINE).unwrap_or(line));
        let refused = || BadInterpreter(format!("#!{shown}"));
        let Some(line) = std::str::from_utf8(line).ok().filter(|l| l.len() <= LINE) else {
            return Err(refused());
        };
        let mut words = line.split([' ', '\t']).filter(|w| !w.is_empty());
        let (path, argument, None) = (words.next().unwrap_or_default(), words.next(), words.next()) else {
            return Err(refused());
        };
        let known = |list: &[&'static str]| list.iter().copied().find(|p| *p == path);
        if let Some(path) = known(&INTERPRETERS)
            && argument.is_none_or(is_option)
        {
            return Ok(Self { path, argument: argument.map(str::to_owned) });
        }
        if let (Some(path), Some(program)) = (known(&ENV), argument)
            && BY_ENV.contains(&program)
        {
            return Ok(Self { path, argument: Some(program.to_owned()) });
        }
        Err(refused())
    }
}

/// Letters behind a dash, like `-eu`.
fn is_option(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str) -> Option<(&'static str, Option<String>)> {
        Interpreter::of(script.as_bytes()).ok().map(|i| (i.path, i.argument))
    }

    #[test]
    fn a_script_without_a_first_line_of_its_own_is_for_sh() {
        for text in ["", "exit 3\n", "\u{7f}ELF\0\0", " #!/bin/evil\n", "#\n!/bin/evil"] {
            assert_eq!(of(text), Some(("/bin/sh", None)), "{text:?}");
        }
    }

    #[test]
    fn the_list_and_one_option_are_honoured() {
        assert_eq!(of("#!/bin/sh -e\nfalse"), Some(("/bin/sh", Some("-e".into()))));
        assert_eq!(of("#! /usr/bin/bash\n"), Some(("/usr/bin/bash", None)));
        assert_eq!(of("#!/usr/bin/env python3"), Some(("/usr/bin/env", Some("python3".into()))));
        assert_eq!(of("#!/bin/env\tbash \n"), Some(("/bin/env", Some("bash".into()))));
        assert_eq!(of("#!/usr/bin/perl -w\n"), Some(("/usr/bin/perl", Some("-w".into()))));
    }

    #[test]
    fn everything_else_is_refused() {
        let long = format!("#!/bin/sh{}-e\n", " ".repeat(LINE));
        for text in [
            "#!\n",
            "#!/tmp/evil\n",
            "#!/bin/../tmp/evil\n",
            "#!//bin/sh\n",
            "#!sh\n",
            "#!/bin/sh\r\n",
            "#!/bin/sh\0-e\n",
            "#!/bin/sh -e -u\n",
            "#!/bin/sh /tmp/evil\n",
            "#!/bin/sh --rcfile=/tmp/evil\n",
            "#!/usr/bin/env\n",
            "#!/usr/bin/env -S sh\n",
            "#!/usr/bin/env LD_PRELOAD=/tmp/evil\n",
            "#!/usr/bin/env perl5\n",
            "#!/usr/bin/env ../../tmp/sh\n",
            &long,
        ] {
            assert_eq!(of(text), None, "{text:?}");
        }
        assert!(Interpreter::of(b"#!/bin/sh\xff\n").is_err());
    }
}
