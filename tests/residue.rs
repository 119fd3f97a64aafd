//! No key is left on a process's heap once it has been dropped.
//!
//! The stack is left out: what is moved leaves a copy there until the next call writes over it.
//!
//! Without the usual harness: this program runs itself as the process that is looked at. That one has the
//! program's allocator, reads keys from files, does handshakes with them and drops everything. The keys of a session it
//! says masked, so that the saying is no residue.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path as FilePath;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tap_rs::keys::{PresharedKey, PrivateKey};
use tap_rs::proto::activity::Activity;
use tap_rs::proto::client::{Client, ClientParams};
use tap_rs::proto::noise::{Answerer, Initiator, Offerer, Seed, respond};
use tap_rs::proto::output::{Output, PeerId};
use tap_rs::proto::server::{ClientSpec, Server, ServerParams};
use tap_rs::proto::session::{Lanes, Opener, establish};
use tap_rs::sys::wipe::Wiping;
use tap_rs::types::{Path, Suite};

#[global_allocator]
static ALLOCATOR: Wiping = Wiping;

const ROLE: &str = "TAP_RS_TEST_RESIDUE";
const FILES: [&str; 3] = ["client.key", "server.key", "client.psk"];

fn main() {
    if let Some(folder) = env::var_os(ROLE) {
        return be_looked_at(FilePath::new(&folder));
    }
    no_key_stays_on_the_heap();
}

fn no_key_stays_on_the_heap() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &&str| ((*name).to_owned(), make(&folder.path().join(name)));
    let mut secrets: Vec<(String, [u8; 32])> = FILES.iter().map(file).collect();
    let mut child = Command::new(env::current_exe().unwrap())
        .env(ROLE, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = said.next().unwrap().unwrap();
    let masked = line.strip_prefix("the keys are in use: ").unwrap();
    secrets.extend(masked.split(' ').map(|text| ("a session's key".to_owned(), unmask(text))));
    let found = |child| search(child, &secrets);
    let used = found(child.id());
    writeln!(child.stdin.as_mut().unwrap()).unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "the keys are dropped");
    let left = found(child.id());
    drop(child.stdin.take());
    child.wait().unwrap();
    let (Some(used), Some(left)) = (used, left) else {
        println!("SKIPPED (may not read another process's memory): no_key_stays_on_the_heap");
        return;
    };
    for (name, _) in &secrets {
        assert!(
            used.iter().any(|hit| hit.starts_with(name)),
            "the search finds keys that are there: {used:?}"
        );
    }
    assert!(left.is_empty(), "left in memory: {left:#?}");
    println!("test no_key_stays_on_the_heap ... ok");
}

fn make(path: &FilePath) -> [u8; 32] {
    let secret: [u8; 32] = rand::random();
    fs::write(path, format!("{}\n", STANDARD.encode(secret))).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    secret
}

/// Where a process has any of these, as they are, as X25519 clamps them, or as text. `None`: it may not be read.
fn search(pid: u32, secrets: &[(String, [u8; 32])]) -> Option<Vec<String>> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut hits = Vec::new();
    for line in maps.lines().filter(|l| l.split_whitespace().nth(1).is_some_and(|p| p.starts_with("rw"))) {
        if line.ends_with("[stack]") {
            continue;
        }
        let (from, to) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|n| u64::from_str_radix(n, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        for (name, secret) in secrets {
            let text = STANDARD.encode(secret);
            // The middle is the same when clamped.
            for (form, needle) in [("bytes", &secret[1..31]), ("text", &text.as_bytes()[..40])] {
                if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) {
                    hits.push(format!("{name} as {form} at {at} of {line}"));
                }
            }
        }
    }
    Some(hits)
}

fn be_looked_at(folder: &FilePath) {
    let hold = |said: &str| {
        println!("{said}");
        let _ = std::io::stdin().read(&mut [0]);
    };
    let mut boxes = handshake(folder);
    let (mut session, masked) = session(folder);
    hold(&format!("the keys are in use: {masked}"));
    boxes.take();
    session.take();
    hold("the keys are dropped");
}

#[inline(never)]
fn handshake(folder: &FilePath) -> Option<Box<(Client, Server)>> {
    let now = Instant::now();
    let rng = |seed| StdRng::seed_from_u64(seed);
    let read = |name: &str| PrivateKey::read(&folder.join(name)).unwrap();
    let psk = || Some(PresharedKey::read(&folder.join("client.psk")).unwrap());
    let (mine, theirs) = (read("client.key"), read("server.key"));
    let (public, suite) = (theirs.public(), Suite::Aes.with_psk(true));
    let params = ServerParams { identity: theirs, suites: vec![suite], instance: 1 };
    let mut server = Server::new(now, params, rng(1)).unwrap();
    server.add_client(now, PeerId(0), ClientSpec { keys: vec![mine.public()], psk: psk(), invite: false });
    let mut params = ClientParams::new(mine, public, suite, 2);
    params.psk = psk();
    let mut client = Client::new(now, params, rng(2)).unwrap();
    let [here, there] = [1, 2].map(|host| Path::new(SocketAddr::from(([192, 0, 2, host], 7)), None));
    client.handle_address(now, there, 1472);
    client.handle_timeout(now);
    for _ in 0..4 {
        let sent = |output| match output {
            Output::Send { bytes, .. } => Some(bytes),
            _ => None,
        };
        while let Some(output) = client.poll_output() {
            sent(output).map(|bytes| server.handle_datagram(now, here, &bytes).or(Err(())));
        }
        while let Some(output) = server.poll_output() {
            // What comes after the handshake is sealed, and for the data path.
            sent(output).map(|bytes| client.handle_datagram(now, &bytes).or(Err(())));
        }
    }
    assert!(client.is_established());
    Some(Box::new((client, server)))
}

const MASK: u8 = 0xa5;

fn unmask(text: &str) -> [u8; 32] {
    let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap() ^ MASK;
    std::array::from_fn(byte)
}

/// What both ends of a session hold while it lasts.
type Held = Option<Box<[(Lanes, Arc<Opener>); 2]>>;

/// A session of its own, and its two keys as nobody stumbles over them.
#[inline(never)]
fn session(folder: &FilePath) -> (Held, String) {
    let read = |name: &str| PrivateKey::read(&folder.join(name)).unwrap();
    let (mine, theirs) = (read("client.key"), read("server.key"));
    let (cookie, server, suite) = ([7; 16], theirs.public(), Suite::ChaCha);
    let offer =
        Offerer { identity: &mine, server: &server, psk: None, suite, local_index: 1, cookie: &cookie };
    let seeds = [1, 2].map(|n| Seed::new([n; 32]));
    let (mut initiator, init) = Initiator::start(&offer, &[0; 16], &seeds[0]).unwrap();
    let answerer = Answerer { identity: &theirs, known: Arc::new(|_| true), cookie: &cookie, local_index: 2 };
    let ((), answer) = respond(&answerer, &init, &[0; 16], &seeds[1], |_, _| Ok(((), None))).unwrap();
    let (keys, _) = initiator.finish(&answer.noise, 2).unwrap();
    let hex = |key: &[u8; 32]| key.iter().map(|b| format!("{:02x}", b ^ MASK)).collect::<String>();
    let masked = format!("{} {}", hex(&keys.send), hex(&keys.receive));
    let held =
        [&keys, &answer.keys].map(|keys| establish(keys, Arc::new(Activity::new(Instant::now()))).unwrap());
    (Some(Box::new(held)), masked)
}
