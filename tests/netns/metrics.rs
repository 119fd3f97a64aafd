//! The metrics, scraped from real programs, and what those must bear who may scrape.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::lab::{Edit, Lab, SOON};
use crate::common::ns::Ns;
use crate::needs_root;

const PORT: u16 = 9095;

fn with_metrics() -> Edit {
    Edit { top: format!("metrics = {PORT}\n"), ..Edit::default() }
}

/// A connection to the exporter in a namespace.
fn connect(ns: &Ns) -> TcpStream {
    let stream = ns.inside(|| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], PORT))).unwrap());
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// What comes back for these bytes, until the end; nothing where the connection is reset.
fn exchange(ns: &Ns, request: &[u8]) -> String {
    let mut stream = connect(ns);
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn scrape(ns: &Ns) -> String {
    exchange(ns, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The number of a series.
fn number(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn both_sides_are_scraped() {
    needs_root!();
    let lab = Lab::new();
    let (_server, _client) = lab.up(&with_metrics(), &with_metrics());
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    site.lan.ping(nic.ip);
    let series = |direction: &str| {
        format!(
            "tap_rs_nic_frames_total{{peer=\"site0\",nic=\"{}\",direction=\"{direction}\"}}",
            nic.on_server
        )
    };
    let end = Instant::now() + SOON;
    let text = loop {
        let text = scrape(&lab.server);
        if number(&text, &series("to_peer")).is_some_and(|n| n > 0.0) && text.contains("tap_rs_client_load") {
            break text;
        }
        assert!(Instant::now() < end, "{text}");
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert_eq!(number(body, "tap_rs_peer_up{peer=\"site0\"}"), Some(1.0));
    assert_eq!(number(body, "tap_rs_dropped_packets_total{reason=\"bad_mac\"}"), Some(0.0));
    assert!(number(body, "tap_rs_resident_memory_bytes").is_some_and(|n| n > 100_000.0));

    let peer = format!("tap_rs_peer_up{{peer=\"{}\"}}", site.server_addr);
    let open = exchange(
        &site.client,
        b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n",
    );
    assert!(
        open.contains("Content-Type: application/openmetrics-text") && open.ends_with("# EOF\n"),
        "{open}"
    );
    assert_eq!(number(&open, &peer), Some(1.0));
}

#[test]
fn without_the_key_nobody_listens() {
    needs_root!();
    let lab = Lab::new();
    let _server = lab.start_server(&Edit::default());
    let listening = lab.server.exec(&["ss", "-Hltn"]);
    assert_eq!(listening.trim(), "", "{listening}");
}

#[test]
fn an_address_that_is_taken_is_said_with_how_to_mend_it() {
    needs_root!();
    let lab = Lab::new();
    let _taken = lab.server.inside(|| std::net::TcpListener::bind(("127.0.0.1", PORT)).unwrap());
    lab.write("server.toml", lab.server_toml(&with_metrics()));
    let mut server = lab.run_server();
    assert_eq!(server.wait(SOON).code(), Some(1));
    server.wait_for_log(&["cannot give out metrics on 127.0.0.1:9095", "ss -tlpn"], SOON);
}

#[test]
fn whoever_misbehaves_at_the_exporter_is_left_and_holds_nobody_up() {
    needs_root!();
    let lab = Lab::new();
    let (server, _client) = lab.up(&with_metrics(), &Edit::default());
    let (site, nic) = (&lab.sites[0], &lab.sites[0].nics[0]);
    let before = server.own_kb();

    for (request, status) in [
        (&b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"[..], "405"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 garbage \xff\xfe\r\n\r\n", "400"),
        (&[b"GET /metrics HTTP/1.1\r\n".to_vec(), b"X: y\r\n".repeat(20_000)].concat(), "431"),
        (&[b'a'; 100_000], "431"),
    ] {
        let told = exchange(&lab.server, request);
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {told}");
        assert!(told.len() < 400, "{told}");
    }

    // Slow ones: a byte, then nothing. More of them than there are places, and some that never read.
    let mut slow: Vec<_> = (0..40).map(|_| connect(&lab.server)).collect();
    for (i, stream) in slow.iter_mut().enumerate() {
        let request: &[u8] = if i % 4 == 0 { b"GET /metrics HTTP/1.1\r\n\r\n" } else { b"G" };
        stream.write_all(request).unwrap();
    }
    // Frames pass meanwhile, the session is answered for, and the control socket answers.
    let begun = Instant::now();
    site.lan.exec(&["ping", "-q", "-c", "200", "-i", "0.002", "-W", "2", &nic.ip.to_string()]);
    let text = lab.server.exec(&[crate::common::program::TAP_RS, "status", &server.name()]);
    assert!(text.contains("established"), "{text}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // They are left one after the other, and then it is the next one's turn.
    let text = scrape_in(&lab.server, Duration::from_secs(60));
    assert_eq!(number(&text, "tap_rs_peer_up{peer=\"site0\"}"), Some(1.0));
    drop(slow);
    let grown = server.own_kb().saturating_sub(before);
    assert!(grown < 2000, "{grown} kB more");
}

#[test]
fn a_flood_of_scrapes_is_slowed_to_what_the_exporter_allows() {
    needs_root!();
    let lab = Lab::new();
    let server = lab.start_server(&with_metrics());
    let (begun, before) = (Instant::now(), server.cpu());
    let span = Duration::from_secs(2);
    let served: usize = std::thread::scope(|scope| {
        let one = || {
            let mut n = 0;
            while begun.elapsed() < span {
                n += usize::from(scrape(&lab.server).starts_with("HTTP/1.1 200"));
            }
            n
        };
        let all: Vec<_> = (0..32).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let elapsed = begun.elapsed().as_secs_f64();
    assert!(served > 0);
    assert!((served as f64) < 16.0 / 0.1 * (elapsed + 1.0), "{served} in {elapsed} s");
    // In a debug build.
    let used = (server.cpu() - before).as_secs_f64();
    assert!(used < elapsed / 2.0, "{used} s in {elapsed} s");
}

/// The metrics, however long others are served first.
fn scrape_in(ns: &Ns, patience: Duration) -> String {
    let mut stream = connect(ns);
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
