//! As much of HTTP/1.1 as a scrape takes (RFC 9112): one GET, one answer, the connection closed.
//!
//! Anybody may connect. So there are [`PLACES`] connections, each for at least [`HOLD`], which bounds how many there are in
//! a second; a head comes within [`PATIENCE`] and has [`HEAD`] bytes, or its sender is left; and nothing that a sender
//! writes is kept, logged or sent back.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, sleep_until, timeout};

use super::text::Form;

/// Connections served at a time; more wait in the kernel's backlog.
const PLACES: usize = 16;

/// The shortest time for which a connection has its place: 160 connections a second are the most that there can be.
const HOLD: Duration = Duration::from_millis(100);

/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer may take to be read.
const READING: Duration = Duration::from_secs(10);

/// The longest request, in bytes; Prometheus' own has under 500.
const HEAD: usize = 8 << 10;

/// What is read and thrown away of a request that is longer, so that its sender sees the answer and not a reset.
const REST: usize = 64 << 10;

/// The listening end.
pub(super) struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    /// Where those who have asked wait for the control loop, and how they get there.
    asked: mpsc::Receiver<Scrape>,
    queue: mpsc::Sender<Scrape>,
}

impl Door {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let (queue, asked) = mpsc::channel(PLACES);
        let (listener, places) = (TcpListener::from_std(listener)?, Arc::new(Semaphore::new(PLACES)));
        Ok(Self { listener, places, asked, queue })
    }

    pub(super) async fn next(&mut self) -> Scrape {
        loop {
            let (listener, places) = (&self.listener, Arc::clone(&self.places));
            let came = async {
                let place = places.acquire_owned().await;
                (listener.accept().await, place)
            };
            tokio::select! {
                Some(scrape) = self.asked.recv() => return scrape,
                (came, place) = came => match (came, place) {
                    (Ok((stream, _)), Ok(place)) => {
                        tokio::spawn(hear(stream, place, self.queue.clone()));
                    }
                    // Out of descriptors, most likely: what is closed meanwhile helps.
                    _ => sleep(HOLD).await,
                },
            }
        }
    }
}

/// Who asked for the metrics.
pub struct Scrape {
    /// In which form.
    pub form: Form,
    stream: TcpStream,
    /// Without its body.
    head_only: bool,
    place: Place,
}

/// A place, and since when.
struct Place {
    permit: OwnedSemaphorePermit,
    since: tokio::time::Instant,
}

impl Place {
    async fn leave(self) {
        sleep_until(self.since + HOLD).await;
        drop(self.permit);
    }
}

impl Scrape {
    /// Sends the metrics, while the control loop goes on.
    pub(super) fn answer(self, text: Arc<str>) {
        let Self { form, mut stream, head_only, place } = self;
        tokio::spawn(async move {
            let body = if head_only { "" } else { &*text };
            send(&mut stream, "200 OK", form.content_type(), text.len(), body).await;
            place.leave().await;
        });
    }
}

/// Reads a request and queues it, or says what is wrong with it.
async fn hear(mut stream: TcpStream, permit: OwnedSemaphorePermit, queue: mpsc::Sender<Scrape>) {
    let place = Place { permit, since: tokio::time::Instant::now() };
    let Ok(head) = timeout(PATIENCE, read_head(&mut stream)).await else { return place.leave().await };
    match judge(&head) {
        Ok((form, head_only)) => drop(queue.send(Scrape { form, stream, head_only, place }).await),
        Err(None) => place.leave().await,
        Err(Some(status)) => {
            let body = format!("{status}\nThe metrics are at /metrics.\n");
            send(&mut stream, status, "text/plain; charset=utf-8", body.len(), &body).await;
            place.leave().await;
        }
    }
}

/// The bytes up to the empty line that ends a head, or up to [`HEAD`], or to where the sender stopped.
async fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    let mut limited = stream.take(HEAD as u64);
    while !ends(&head) {
        if !matches!(limited.read_buf(&mut head).await, Ok(1..)) {
            break;
        }
    }
    head
}

fn ends(head: &[u8]) -> bool {
    head.windows(4).any(|w| w == b"\r\n\r\n")
}

/// What is asked for, and whether only the head of the answer; or the status that refuses it, if it deserves one.
fn judge(head: &[u8]) -> Result<(Form, bool), Option<&'static str>> {
    if !ends(head) {
        return Err((head.len() >= HEAD).then_some("431 Request Header Fields Too Large"));
    }
    let head = std::str::from_utf8(head).map_err(|_| Some("400 Bad Request"))?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (method, target, version, words.next())
    else {
        return Err(Some("400 Bad Request"));
    };
    if !matches!(method, "GET" | "HEAD") {
        return Err(Some("405 Method Not Allowed"));
    }
    if target.split('?').next() != Some("/metrics") {
        return Err(Some("404 Not Found"));
    }
    let accepts = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_default();
        name.eq_ignore_ascii_case("accept") && value.contains("application/openmetrics-text")
    };
    let form = if lines.any(accepts) { Form::OpenMetrics } else { Form::Prometheus };
    Ok((form, method == "HEAD"))
}

/// Sends an answer and ends the connection. Whoever does not read it gets nothing more.
async fn send(stream: &mut TcpStream, status: &str, kind: &str, length: usize, body: &str) {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    );
    let write = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(REST as u64);
        let mut scrap = [0; 1024];
        while rest.read(&mut scrap).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(READING, write).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_a_get_of_its_path() {
        let ask = |head: &str| judge(head.as_bytes());
        assert_eq!(ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Ok((Form::Prometheus, false)));
        assert_eq!(ask("HEAD /metrics?x=1 HTTP/1.0\r\n\r\n"), Ok((Form::Prometheus, true)));
        let open =
            "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n\r\n";
        assert_eq!(ask(open), Ok((Form::OpenMetrics, false)));
    }

    #[test]
    fn anything_else_is_refused_with_its_status() {
        for (head, status) in [
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", "404"),
            ("GET http://x/metrics HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics HTTP/2.0\r\n\r\n", "400"),
            ("GET /metrics\r\n\r\n", "400"),
            ("GET  /metrics HTTP/1.1\r\n\r\n", "400"),
            ("\r\n\r\n", "400"),
            ("\u{0}\u{1}\r\n\r\n", "400"),
        ] {
            let told = judge(head.as_bytes()).unwrap_err().unwrap();
            assert!(told.starts_with(status), "{head:?}: {told}");
        }
        assert_eq!(judge(b"\xff\xfe\r\n\r\n"), Err(Some("400 Bad Request")));
        assert_eq!(judge(b"GET /metrics HTTP/1.1\r\n"), Err(None), "a head that stopped deserves no answer");
        assert!(judge(&[b'a'; HEAD]).is_err_and(|s| s.unwrap().starts_with("431")));
    }
}
