//! What a server pushes to a client: the script, and how much of it there may be beside the NICs.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::super::check::{Check, span};
use super::super::client::NICS_MAX;
use super::super::nic::ADDRS_MAX;
use super::super::raw::{Server, Text};
use super::super::read;
use super::ServerNic;

/// Longest message of NICs and script that can be pushed to a client, in bytes.
pub const PUSH_MAX: usize = 1 << 20;

/// What a NIC, an address and the rest take of [`PUSH_MAX`] at the most (docs/PROTOCOL.md has the layout).
const PUSHED_NIC: usize = 43;
const PUSHED_ADDR: usize = 18;
const PUSHED_HEADER: usize = 8;
const _: () = assert!(NICS_MAX as usize * (PUSHED_NIC + ADDRS_MAX * PUSHED_ADDR) + PUSHED_HEADER < PUSH_MAX);

/// The script of `[server]`, which every client gets that has none of its own. As in the original, a file
/// goes before a text.
pub(super) fn default_script(check: &mut Check<'_>, server: &Server) -> Option<Arc<[u8]>> {
    if server.script_path.is_some() {
        check.unused(&server.script_content, "`script_path` is used instead; remove one of the two");
        return script_file(check, &server.script_path);
    }
    let content = server.script_content.as_ref()?;
    checked_script(check, content.span(), content.get_ref().as_bytes().into())
}

pub(super) fn script_file(check: &mut Check<'_>, text: &Text) -> Option<Arc<[u8]>> {
    let at = span(text)?;
    let path = check.file("script_path", text)?;
    match read_script(&path) {
        Ok(bytes) => checked_script(check, at, bytes.into()),
        Err(e) => {
            check.notes.error(at, format!("cannot read the script {}: {e}", path.display()));
            None
        }
    }
}

fn read_script(path: &Path) -> std::io::Result<Vec<u8>> {
    // Asked before the file is opened, since opening a FIFO would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    read(path, PUSH_MAX)
}

fn checked_script(check: &mut Check<'_>, at: Range<usize>, script: Arc<[u8]>) -> Option<Arc<[u8]>> {
    if script.is_empty() {
        check.notes.error(at, "the script is empty; leave the line out to push none");
        return None;
    }
    Some(script)
}

pub(super) fn refuse_what_is_too_long(
    check: &mut Check<'_>,
    script: &[u8],
    nics: &[ServerNic],
    at: Range<usize>,
) {
    let addrs: usize = nics.iter().map(|n| n.spec.addrs.len()).sum();
    let list = nics.len().saturating_mul(PUSHED_NIC).saturating_add(addrs.saturating_mul(PUSHED_ADDR));
    let room = PUSH_MAX.saturating_sub(PUSHED_HEADER).saturating_sub(list);
    if script.len() > room {
        let message = format!(
            "the script has {} bytes, and beside this client's NICs there is room for {room}; have it fetch what is large",
            script.len()
        );
        check.notes.error(at, message);
    }
}
