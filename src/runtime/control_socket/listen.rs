//! The listening end.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tracing::warn;

use super::request::Refusal;
use super::{FOLDER, Request};
use crate::runtime::control::until;
use crate::runtime::keeper::Keeper;
use crate::sys::clock;
use crate::sys::poll::await_readable;

/// How long whoever asks may take to ask, and then to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest request, in bytes.
const LONGEST: u64 = 64 << 10;

/// Those who are served at a time; more wait in the kernel's backlog.
const PLACES: usize = 8;

/// How long a lost name is left alone: whoever removes its folder is to come to an end.
const PAUSE: Duration = Duration::from_secs(1);

/// How long it is left alone when it could not be made.
const RETRY: Duration = Duration::from_secs(60);

/// Listens under the name of the config file.
pub struct Listener {
    keeper: Rc<Keeper>,
    state: State,
    places: Arc<Semaphore>,
    /// Where those who have asked wait for the control loop, and how they get there.
    asked: mpsc::Receiver<Asker>,
    queue: mpsc::Sender<Asker>,
    /// The log says why nobody is answered.
    told: bool,
}

enum State {
    Open { listener: UnixListener, watch: Option<AsyncFd<OwnedFd>> },
    Closed { next: Instant },
}

impl Listener {
    /// Under the name that the keeper gives it ([`Place`](super::Place)). Without one the program runs all the same, the log
    /// says why, and it is tried again.
    pub fn open(now: Instant, keeper: Rc<Keeper>) -> Self {
        let (queue, asked) = mpsc::channel(PLACES);
        let (places, state) = (Arc::new(Semaphore::new(PLACES)), State::Closed { next: now });
        let mut listener = Self { keeper, state, places, asked, queue, told: false };
        listener.make(now);
        listener
    }

    /// Somebody has asked. Safe to drop and to call again.
    pub async fn next(&mut self) -> Asker {
        loop {
            let places = Arc::clone(&self.places);
            let happened = async {
                match &self.state {
                    State::Open { listener, watch } => tokio::select! {
                        came = async {
                            let place = places.acquire_owned().await;
                            (listener.accept().await, place)
                        } => Happened::Came(came.0, came.1),
                        Some(_) = lost(watch.as_ref()) => Happened::Lost,
                    },
                    State::Closed { next } => {
                        until(Some(*next)).await;
                        Happened::Due
                    }
                }
            };
            tokio::select! {
                Some(asker) = self.asked.recv() => return asker,
                happened = happened => match happened {
                    Happened::Came(Ok((stream, _)), Ok(place)) => {
                        self.told = false;
                        tokio::spawn(hear(stream, place, self.queue.clone()));
                    }
                    Happened::Came(Err(e), _) => {
                        self.tell(|| format!(
                            "cannot answer `tap-rs status`: {e}; where descriptors are too few, raise LimitNOFILE= of the \
                             unit, or `ulimit -n`"
                        ));
                        // What is closed meanwhile helps.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Happened::Came(Ok(_), Err(_)) => return std::future::pending().await,
                    Happened::Lost => {
                        warn!("the socket of `tap-rs status` has been removed from {FOLDER}, and is made again");
                        self.state = State::Closed { next: clock::now() + PAUSE };
                    }
                    Happened::Due => self.make(clock::now()),
                },
            }
        }
    }

    fn make(&mut self, now: Instant) {
        self.state = match self.keeper.listen().and_then(|(socket, watch)| open(socket, watch)) {
            Ok(state) => {
                self.told = false;
                state
            }
            Err(e) => {
                self.tell(|| {
                    format!(
                        "no `tap-rs status` for this process: cannot listen in {FOLDER}: {e}; it is tried every minute"
                    )
                });
                State::Closed { next: now + RETRY }
            }
        };
    }

    /// Says once why nobody is answered.
    fn tell(&mut self, why: impl FnOnce() -> String) {
        if !std::mem::replace(&mut self.told, true) {
            warn!("{}", why());
        }
    }
}

enum Happened {
    /// Somebody has connected, and has a place.
    Came(io::Result<(UnixStream, SocketAddr)>, Result<OwnedSemaphorePermit, AcquireError>),
    /// The name leads here no more.
    Lost,
    /// It is time to listen again.
    Due,
}

/// Comes to an end when the name is lost.
async fn lost(watch: Option<&AsyncFd<OwnedFd>>) -> Option<()> {
    watch?.readable().await.ok().map(drop)
}

fn open(socket: OwnedFd, watch: Option<OwnedFd>) -> io::Result<State> {
    let listener = UnixListener::from_std(socket.into())?;
    Ok(State::Open { listener, watch: watch.map(await_readable).transpose()? })
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
