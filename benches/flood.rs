//! Datagrams that a server does not want, at a steady rate: what `benches/peers.py --flood` holds a tunnel against.
//!
//! ```text
//! flood garbage|handshakes RATE SECONDS SERVER:PORT SERVER_KEY TARGET:PORT SOURCE...
//! ```
//!
//! `garbage` is of all lengths and looks like each type in turn. `handshakes` are the worst that somebody can send who
//! knows the server's public key and really is at each SOURCE: HELLOs that the server answers, and INITs with a good
//! cookie, from keys that it does not know, which it finds out by computing. They are computed before the flood starts,
//! and sent again and again, to the TARGET.

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use tap_rs::keys::{PrivateKey, PublicKey};
use tap_rs::proto::client::{Client, ClientParams};
use tap_rs::proto::output::Output;
use tap_rs::types::{Path, Suite};

/// How often a part of the rate is sent.
const TICK: Duration = Duration::from_millis(1);

/// A socket, and what it sends in turn.
struct Source {
    socket: UdpSocket,
    datagrams: Vec<Vec<u8>>,
}

fn main() {
    if let Err(e) = run() {
        eprintln!("flood: {e}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, rate, seconds, server, key, target, addresses @ ..] = words.as_slice() else {
        return Err(
            "flood garbage|handshakes RATE SECONDS SERVER:PORT SERVER_KEY TARGET:PORT SOURCE...".into()
        );
    };
    let (rate, seconds) = (rate.parse::<f64>()?, Duration::from_secs_f64(seconds.parse()?));
    let (server, key) = (server.parse::<SocketAddr>()?, key.parse::<PublicKey>()?);
    let mut sources = Vec::new();
    for address in addresses {
        let socket = UdpSocket::bind((address.as_str(), 0))?;
        socket.connect(server)?;
        let datagrams = match kind.as_str() {
            "garbage" => garbage(),
            "handshakes" => handshakes(&socket, server, &key)?,
            _ => return Err("the first word is garbage or handshakes".into()),
        };
        socket.connect(target.parse::<SocketAddr>()?)?;
        sources.push(Source { socket, datagrams });
    }
    println!("ready");
    println!("{}", flood(&sources, rate, seconds));
    Ok(())
}

/// Sends at this rate, and returns how many a second it came to.
fn flood(sources: &[Source], rate: f64, time: Duration) -> u64 {
    let start = Instant::now();
    let mut sent = 0usize;
    while start.elapsed() < time {
        let due = start.elapsed().as_secs_f64() * rate;
        while (sent as f64) < due {
            let source = &sources[sent % sources.len()];
            let datagram = &source.datagrams[sent / sources.len() % source.datagrams.len()];
            // An answer that said no comes back as an error of the next one.
            let _ = source.socket.send(datagram);
            sent += 1;
        }
        std::thread::sleep(TICK);
    }
    (sent as f64 / start.elapsed().as_secs_f64()) as u64
}

fn garbage() -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(1);
    let one = |n: usize| {
        let mut bytes: Vec<u8> = (0..rng.random_range(1..1400)).map(|_| rng.random()).collect();
        for (to, from) in bytes.iter_mut().zip([(n % 6) as u8, 1, 1, 0]) {
            *to = from;
        }
        bytes
    };
    (0..1024).map(one).collect()
}

/// A HELLO, and an INIT if the server gives a cookie, of somebody whom it does not know.
fn handshakes(
    socket: &UdpSocket,
    server: SocketAddr,
    key: &PublicKey,
) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (mut rng, now) = (StdRng::from_rng(&mut rand::rng()), Instant::now());
    let stranger = PrivateKey::generate(&mut rng);
    let params = ClientParams::new(stranger, *key, Suite::Aes, rng.random());
    let mut client = Client::new(now, params, rng).ok_or("the key is refused")?;
    client.handle_address(now, Path::new(server, None), 1472);
    client.handle_timeout(now);
    let mut datagrams = said(&mut client);
    for datagram in &datagrams {
        socket.send(datagram)?;
    }
    let mut answer = [0; 2048];
    if let Ok(len) = socket.recv(&mut answer) {
        // What is no cookie brings no INIT.
        let _ = client.handle_datagram(now, &answer[..len]);
        datagrams.extend(said(&mut client));
    }
    Ok(datagrams)
}

fn said(client: &mut Client) -> Vec<Vec<u8>> {
    let outputs = std::iter::from_fn(|| client.poll_output());
    outputs.filter_map(|o| if let Output::Send { bytes, .. } = o { Some(bytes) } else { None }).collect()
}
