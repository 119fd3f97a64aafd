//! The listening end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use super::Snapshot;

/// Where the sockets are (FHS 3.0, 3.15).
pub const FOLDER: &str = "/run/tap-rs";

/// How long a reader may take for its document.
const PATIENCE: Duration = Duration::from_secs(5);

/// Readers served at a time; more wait in the kernel's backlog.
const READERS: usize = 8;

/// Listens under the name of the config file. Removes its socket when dropped.
pub struct Listener {
    socket: Option<(UnixListener, PathBuf)>,
    slots: std::sync::Arc<tokio::sync::Semaphore>,
}

impl Listener {
    /// `/run/tap-rs/NAME.sock`, where NAME is the config file's; with the process number behind it where another
    /// process has that. Without a socket the program runs all the same, and the log says why.
    pub fn open(config: &Path) -> Self {
        let name = config.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let socket = open(&name)
            .inspect_err(|e| warn!("no `tap-rs status` for this process: cannot listen in {FOLDER}: {e}"))
            .ok();
        Self { socket, slots: std::sync::Arc::new(tokio::sync::Semaphore::new(READERS)) }
    }

    /// Somebody asks. Pending for ever where there is no socket. Safe to drop and to call again.
    pub async fn next(&mut self) -> Asker {
        let Some((listener, _)) = &self.socket else { return std::future::pending().await };
        loop {
            let Ok(slot) = std::sync::Arc::clone(&self.slots).acquire_owned().await else {
                return std::future::pending().await;
            };
            match listener.accept().await {
                Ok((stream, _)) => return Asker { stream, _slot: slot },
                // Out of descriptors, most likely: what is closed meanwhile helps.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.socket {
            let _ = fs::remove_file(path);
        }
    }
}

/// Who asked.
pub struct Asker {
    stream: UnixStream,
    _slot: tokio::sync::OwnedSemaphorePermit,
}

impl Asker {
    /// Answers, while the control loop goes on.
    pub fn answer(mut self, snapshot: &Snapshot) {
        let Ok(document) = serde_json::to_vec(snapshot) else { return };
        tokio::spawn(async move {
            let write = async {
                self.stream.write_all(&document).await?;
                self.stream.shutdown().await
            };
            // Whoever does not read what it asked for gets nothing more.
            let _ = tokio::time::timeout(PATIENCE, write).await;
        });
    }
}

fn open(name: &str) -> io::Result<(UnixListener, PathBuf)> {
    let folder = Path::new(FOLDER);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    sweep(folder);
    let pid = std::process::id();
    for file in [format!("{name}.sock"), format!("{name}-{pid}.sock")] {
        let path = folder.join(file);
        if path.exists() {
            continue;
        }
        // Bound where nobody looks and then moved: nobody can connect before only root can.
        let unfinished = folder.join(format!(".{name}-{pid}"));
        let _ = fs::remove_file(&unfinished);
        let listener = UnixListener::bind(&unfinished)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))?;
        fs::rename(&unfinished, &path)?;
        return Ok((listener, path));
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Removes what killed processes left. Best effort: another process may do the same just now.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
        if StdStream::connect(&path).is_err_and(|e| refused(&e)) {
            let _ = fs::remove_file(&path);
        }
    }
}
