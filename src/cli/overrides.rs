//! What the options say over a config file; the same in both flavours.

use std::path::PathBuf;

use super::{ClientArgs, FileArgs};
use crate::config::{Overrides, Role};

/// The config file of the original, used where none is named.
pub const DEFAULT_CONFIG: &str = "default_config.toml";

/// A command line that starts nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Help or a version was asked for: this is it.
    Asked(String),
    /// It makes no sense; one sentence.
    Senseless(String),
}

impl FileArgs {
    /// What these say over the file of a server.
    pub fn overrides(&self, role: Option<Role>) -> Overrides {
        Overrides {
            role,
            log: self.log,
            private_key: self.private_key.clone(),
            credential: credential(),
            ..Overrides::default()
        }
    }
}

/// The private key that a service manager hands over (systemd.exec(5), `LoadCredential=`), where it does.
fn credential() -> Option<PathBuf> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    Some(PathBuf::from(folder).join("private_key")).filter(|path| path.exists())
}

impl ClientArgs {
    /// What these say over the file.
    pub fn overrides(&self, role: Option<Role>) -> Overrides {
        Overrides { server_key: self.server_key.clone(), psk: self.psk.clone(), ..self.file.overrides(role) }
    }
}
