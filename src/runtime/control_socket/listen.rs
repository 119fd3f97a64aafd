//! The listening end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tracing::warn;

use super::Request;
use super::request::Refusal;

/// Where the sockets are (FHS 3.0, 3.15).
pub const FOLDER: &str = "/run/tap-rs";

/// How long whoever asks may take to ask, and then to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest request, in bytes.
const LONGEST: u64 = 64 << 10;

/// Those who are served at a time; more wait in the kernel's backlog.
const PLACES: usize = 8;

/// Listens under the name of the config file. Removes its socket when dropped.
pub struct Listener {
    socket: Option<(UnixListener, PathBuf)>,
    places: Arc<Semaphore>,
    /// Where those who have asked wait for the control loop, and how they get there.
    asked: mpsc::Receiver<Asker>,
    queue: mpsc::Sender<Asker>,
    /// The log says why nobody is answered.
    told: bool,
}

impl Listener {
    /// `/run/tap-rs/NAME.sock`, where NAME is the config file's; with the process number behind it where another
    /// process has that. Without a socket the program runs all the same, and the log says why.
    pub fn open(config: &Path) -> Self {
        let name = config.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let socket = open(&name)
            .inspect_err(|e| warn!("no `tap-rs status` for this process: cannot listen in {FOLDER}: {e}"))
            .ok();
        let (queue, asked) = mpsc::channel(PLACES);
        Self { socket, places: Arc::new(Semaphore::new(PLACES)), asked, queue, told: false }
    }

    /// Somebody has asked. Pending for ever where there is no socket. Safe to drop and to call again.
    pub async fn next(&mut self) -> Asker {
        let Some((listener, _)) = &self.socket else { return std::future::pending().await };
        loop {
            let (asked, places) = (&mut self.asked, Arc::clone(&self.places));
            let came = async {
                let place = places.acquire_owned().await;
                (listener.accept().await, place)
            };
            tokio::select! {
                Some(asker) = asked.recv() => return asker,
                (came, place) = came => match (came, place) {
                    (Ok((stream, _)), Ok(place)) => {
                        self.told = false;
                        tokio::spawn(hear(stream, place, self.queue.clone()));
                    }
                    (Err(e), _) => {
                        if !std::mem::replace(&mut self.told, true) {
                            warn!(
                                "cannot answer `tap-rs status`: {e}; where descriptors are too few, raise LimitNOFILE= of \
                                 the unit, or `ulimit -n`"
                            );
                        }
                        // What is closed meanwhile helps.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    (Ok(_), Err(_)) => return std::future::pending().await,
                },
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

/// Who asked, and what. Dropped without an answer, it sees the connection close.
pub struct Asker {
    /// What is wanted.
    pub request: Request,
    stream: UnixStream,
    place: OwnedSemaphorePermit,
}

impl Asker {
    /// Answers, while the control loop goes on.
    pub fn answer(self, document: &impl Serialize) {
        let Ok(document) = serde_json::to_vec(document) else { return };
        let Self { mut stream, place, .. } = self;
        tokio::spawn(async move {
            let write = async {
                stream.write_all(&document).await?;
                stream.shutdown().await
            };
            // Whoever does not read what it asked for gets nothing more.
            let _ = timeout(PATIENCE, write).await;
            drop(place);
        });
    }

    /// Answers with what came of it, or says why nothing did.
    pub fn conclude(self, done: Result<impl Serialize, String>) {
        match done {
            Ok(document) => self.answer(&document),
            Err(why) => self.refuse(why),
        }
    }

    /// Hands the connection over to `write`, which goes on beside the control loop for as long as it likes. It keeps its
    /// place among those who are served.
    pub fn stream<F>(self, write: impl FnOnce(UnixStream) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { stream, place, .. } = self;
        let write = write(stream);
        tokio::spawn(async move {
            write.await;
            drop(place);
        });
    }

    /// Says in one sentence why it is not done.
    pub fn refuse(self, why: impl Into<String>) {
        self.answer(&Refusal { error: why.into() });
    }
}

/// Reads the request of one that has connected, and queues it. One that says nothing in time is sent away.
async fn hear(stream: UnixStream, place: OwnedSemaphorePermit, queue: mpsc::Sender<Asker>) {
    let mut reader = BufReader::new(stream.take(LONGEST));
    let mut line = String::new();
    if !matches!(timeout(PATIENCE, reader.read_line(&mut line)).await, Ok(Ok(1..))) {
        return;
    }
    let (stream, request) = (reader.into_inner().into_inner(), serde_json::from_str(&line));
    match request {
        Ok(request) => drop(queue.send(Asker { request, stream, place }).await),
        Err(e) => Asker { request: Request::Status {}, stream, place }.refuse(format!(
            "tap-rs {} runs here and does not understand the request ({e}); restart it if it has been upgraded",
            env!("CARGO_PKG_VERSION")
        )),
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
