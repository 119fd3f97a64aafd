//! The config file, and the keys that it names.

use super::finding::Findings;
use super::subject::Subject;
use crate::commands::Failure;
use crate::config::Config;

/// Says what a run would say of the file.
pub fn examine(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    let check = format!("`tap-rs check -c {}` says when it is right", subject.file());
    let Some(config) = &subject.config else {
        return findings.warn(
            "config",
            "no tap-rs runs here, and no config was named: only the machine is examined",
            "name one: `tap-rs doctor -c FILE`",
        );
    };
    match config {
        Err(errors) if subject.running.is_some() => {
            for error in errors {
                let what = format!("the file has become wrong since tap-rs was started with it: {error}");
                findings.warn("config", what, "mend it before the next start or reload")?;
            }
            Ok(())
        }
        Err(errors) => {
            for error in errors {
                findings.broken("config", error, check.as_str())?;
            }
            Ok(())
        }
        Ok((config, warnings)) => {
            for warning in warnings {
                findings.warn("config", warning, check.as_str())?;
            }
            let what = match config {
                Config::Client(c) => format!(
                    "a client of {}; its keys are there, closed to others, and not mixed up",
                    c.server
                ),
                Config::Server(s) => format!(
                    "a server, clients: {}; its keys are there, closed to others, and not mixed up",
                    s.clients.len()
                ),
            };
            findings.ok("config", what)
        }
    }
}
