//! The tiny flavour lets nobody in by invite: its config refuses them, and nothing of it writes a config.

use std::io::{self, ErrorKind};

use crate::keys::PublicKey;
use crate::runtime::reload::Source;

/// Refused.
pub(super) fn enrol(_file: &Source, _invite: PublicKey, _key: PublicKey) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
