//! Config files: whatever is in them, the answer is a config or a report that names lines of the file. The folder
//! that its key files would be in is not there.

use std::path::Path;

use tap_rs::config::{Overrides, Role, check_bytes};

/// Runs one input.
pub fn run(data: &[u8]) {
    let folder = Path::new("/proc/self/nowhere");
    let Some((first, text)) = data.split_first() else { return };
    let role = match first & 3 {
        1 => Some(Role::Client),
        2 => Some(Role::Server),
        _ => None,
    };
    // Absolute names would be opened.
    if text.windows(2).any(|w| matches!(w, b"\"/" | b"'/")) {
        return;
    }
    let overrides = Overrides { role, ..Overrides::default() };
    match check_bytes(&folder.join("tap.toml"), folder, text, &overrides) {
        Ok((config, warnings)) => {
            assert!(warnings.len() <= text.len());
            let _ = format!("{:?}", config.common());
        }
        Err(report) => {
            let said = report.to_string();
            assert!(said.contains("tap.toml"), "{said}");
        }
    }
}
