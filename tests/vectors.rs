//! Fixed inputs, fixed outputs: the worked example of `docs/PROTOCOL.md`, and the Noise vectors of others.
//!
//! The example is computed anew through the crate's own functions and held against `tests/vectors/worked-example.json`
//! and against the document. Where they differ, what was computed is left in `target/tmp`, as JSON and as Markdown.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2s256, Digest};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value};
use snow::{Builder, HandshakeState};
use tap_rs::keys::{PresharedKey, PrivateKey};
use tap_rs::proto::activity::Activity;
use tap_rs::proto::aead::AeadKey;
use tap_rs::proto::cookie::{CookieJar, ServerName, mac};
use tap_rs::proto::noise::{Answerer, Initiator, Offerer, Resolver, Seed, respond};
use tap_rs::proto::session::{Keys, Lane, Lanes, Opener, establish};
use tap_rs::types::{NicId, Suite};
use tap_rs::wire::control::Control;
use tap_rs::wire::datagram::{Cookie, Hello, Init, Resp};
use tap_rs::wire::record::{Gso, Offload, Record};

/// RFC 7748, section 6.1: Alice is the client, Bob the server.
const CLIENT: &str = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
const CLIENT_PUBLIC: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";

#[test]
fn the_worked_example_is_what_the_code_computes_and_what_the_document_says() {
    let example = Example::compute();
    let (file, computed) = (read("tests/vectors/worked-example.json"), example.json());
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let document: String = read("docs/PROTOCOL.md").split_whitespace().collect();
    let missing: Vec<_> =
        example.entries().filter(|(name, hex)| !document.contains(&format!("{name}{hex}"))).collect();
    if file.is_empty() || parse(&file) != parse(&computed) || !missing.is_empty() {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(folder.join("worked-example.json"), computed).unwrap();
        std::fs::write(folder.join("worked-example.md"), example.markdown()).unwrap();
        panic!("the vectors or the document differ from {}; not in it: {missing:#?}", folder.display());
    }
}

#[test]
fn snow_over_our_primitives_agrees_with_the_vectors_of_cacophony() {
    assert_eq!(published("tests/vectors/noise-cacophony.json"), 4);
}

#[test]
fn snow_over_our_primitives_agrees_with_the_vectors_of_snow() {
    assert_eq!(published("tests/vectors/noise-snow.json"), 2);
}

/// Runs every vector of a file; returns how many there were.
fn published(file: &str) -> usize {
    let json: Value = serde_json::from_str(&read(file)).unwrap();
    let vectors = json["vectors"].as_array().unwrap();
    for vector in vectors {
        let name = vector["protocol_name"].as_str().unwrap();
        let suite = Suite::ALL.into_iter().find(|s| s.noise_name() == name).unwrap();
        run(suite, vector);
    }
    vectors.len()
}

fn run(suite: Suite, vector: &Value) {
    let (mut client, mut server) = (side(vector, "init"), side(vector, "resp"));
    let mut messages = vector["messages"].as_array().unwrap().iter();
    let (mut sealed, mut plain) = ([0; 65_535], [0; 65_535]);
    for i in 0..2 {
        let message = messages.next().unwrap();
        let (from, to) = if i == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let n = from.write_message(&bytes(&message["payload"]), &mut sealed).unwrap();
        assert_eq!(hex(&sealed[..n]), message["ciphertext"], "{} message {i}", suite.noise_name());
        let n = to.read_message(&sealed[..n], &mut plain).unwrap();
        assert_eq!(hex(&plain[..n]), message["payload"]);
    }
    assert_eq!(client.get_handshake_hash(), server.get_handshake_hash());
    if let Some(hash) = vector.get("handshake_hash") {
        assert_eq!(&hex(client.get_handshake_hash()), hash);
    }
    // What follows goes through the AEAD of sessions, with the raw keys, once in each direction in turn.
    let keys = client.dangerously_get_raw_split();
    assert_eq!(keys, server.dangerously_get_raw_split());
    let keys = [keys.0, keys.1].map(|key| AeadKey::new(suite, &key).unwrap());
    for (i, message) in messages.enumerate() {
        let (key, counter) = (&keys[i % 2], i as u64 / 2);
        let mut text = bytes(&message["payload"]);
        let tag = key.seal(counter, &[], &mut text).unwrap();
        text.extend(tag);
        assert_eq!(hex(&text), message["ciphertext"], "{} transport message {i}", suite.noise_name());
        assert_eq!(hex(key.open(counter, &[], &mut text).unwrap()), message["payload"]);
    }
}

/// One end of a published vector, its ephemeral key fixed.
fn side(vector: &Value, who: &str) -> HandshakeState {
    let field = |name: &str| vector.get(format!("{who}_{name}")).map(bytes);
    let (own, ephemeral, prologue) =
        (field("static").unwrap(), field("ephemeral").unwrap(), field("prologue").unwrap());
    let (remote, psk) = (field("remote_static"), vector.get(format!("{who}_psks")));
    let params = vector["protocol_name"].as_str().unwrap().parse().unwrap();
    let mut builder = Builder::with_resolver(
        params,
        Box::new(Resolver::new(&Seed::new([0; 32]), &PrivateKey::from_bytes([1; 32].into()))),
    )
    .local_private_key(&own)
    .unwrap()
    .prologue(&prologue)
    .unwrap()
    .fixed_ephemeral_key_for_testing_only(&ephemeral);
    if let Some(remote) = &remote {
        builder = builder.remote_public_key(remote).unwrap();
    }
    let mut state = match who {
        "init" => builder.build_initiator(),
        _ => builder.build_responder(),
    }
    .unwrap();
    if let Some(psk) = psk.and_then(|p| p.get(0)) {
        let psk: [u8; 32] = bytes(psk).try_into().unwrap();
        state.set_psk(2, &psk).unwrap();
    }
    state
}

/// Named values in groups, in the order in which they are computed.
struct Example(Vec<(String, Vec<(&'static str, String)>)>);

impl Example {
    fn compute() -> Self {
        let mut example = Self(Vec::new());
        let fixed = Fixed::new();
        example.group("common");
        fixed.describe(&mut example);
        for suite in Suite::ALL {
            example.group(format!("suite 0x{:02x}", suite as u8));
            fixed.run(suite, &mut example);
        }
        example
    }

    fn group(&mut self, name: impl Into<String>) {
        self.0.push((name.into(), Vec::new()));
    }

    fn add(&mut self, name: &'static str, value: impl AsRef<[u8]>) {
        self.0.last_mut().unwrap().1.push((name, hex(value.as_ref())));
    }

    fn entries(&self) -> impl Iterator<Item = &(&'static str, String)> {
        self.0.iter().flat_map(|(_, group)| group)
    }

    fn json(&self) -> String {
        let mut groups = Map::new();
        groups.insert("origin".into(), "The worked example of docs/PROTOCOL.md; all values are hex.".into());
        for (name, group) in &self.0 {
            let values = group.iter().map(|(name, hex)| ((*name).to_owned(), hex.as_str().into()));
            groups.insert(name.clone(), Value::Object(values.collect()));
        }
        serde_json::to_string_pretty(&groups).unwrap() + "\n"
    }

    /// The groups as they stand in the document.
    fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, group) in &self.0 {
            writeln!(text, "### {name}\n\n```text").unwrap();
            for (name, hex) in group {
                writeln!(text, "{name}").unwrap();
                for line in hex.as_bytes().chunks(96) {
                    writeln!(text, "    {}", std::str::from_utf8(line).unwrap()).unwrap();
                }
            }
            writeln!(text, "```\n").unwrap();
        }
        text
    }
}

/// What the example starts from.
struct Fixed {
    client: PrivateKey,
    server: PrivateKey,
    psk: PresharedKey,
    address: SocketAddr,
    jar: CookieJar,
    cookie_secret: [u8; 32],
    client_index: u32,
    server_index: u32,
    instances: (u64, u64),
    hello_nonce: [u8; 16],
    cookie_nonce: [u8; 12],
    seeds: (Seed, Seed),
    up: Vec<u8>,
    down: Vec<u8>,
}

impl Fixed {
    fn new() -> Self {
        let private = |hex: &str| PrivateKey::from_text(STANDARD.encode(unhex(hex)).as_bytes()).unwrap();
        let rng = |n: u8| StdRng::from_seed([n; 32]);
        let (nic, host) = ([0xbe, 0x17, 0xdd, 0x5c, 0x07, 0x17], [0x02, 0, 0, 0, 0, 0x01]);
        let (nic_ip, host_ip) = ([18, 8, 80, 150], [18, 8, 80, 1]);
        Self {
            client: private(CLIENT),
            server: private("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"),
            psk: PresharedKey::generate(&mut rng(0x50)),
            address: ([192, 0, 2, 1], 5000).into(),
            jar: CookieJar::new(Instant::now(), &mut rng(0x51)),
            cookie_secret: first_bytes([0x51; 32]),
            client_index: 0x0102_0304,
            server_index: 0x1112_1314,
            instances: (0x2122_2324_2526_2728, 0x3132_3334_3536_3738),
            hello_nonce: std::array::from_fn(|i| 0x40 + i as u8),
            cookie_nonce: std::array::from_fn(|i| 0x60 + i as u8),
            seeds: (Seed::new([0x52; 32]), Seed::new([0x53; 32])),
            up: arp([0xff; 6], host, 1, (host, host_ip), ([0; 6], nic_ip)),
            down: arp(host, nic, 2, (nic, nic_ip), (host, host_ip)),
        }
    }

    fn describe(&self, example: &mut Example) {
        let (client, server) = (self.client.public(), self.server.public());
        assert_eq!(hex(client.as_bytes()), CLIENT_PUBLIC);
        let ephemerals = (first_bytes(*self.seeds.0), first_bytes(*self.seeds.1));
        let publics = (public(ephemerals.0), public(ephemerals.1));
        example.add("client_private", self.client.as_bytes());
        example.add("client_public", client.as_bytes());
        example.add("server_private", self.server.as_bytes());
        example.add("server_public", server.as_bytes());
        example.add("psk", self.psk.as_bytes());
        example.add("client_ephemeral_private", ephemerals.0);
        example.add("client_ephemeral_public", publics.0);
        example.add("server_ephemeral_private", ephemerals.1);
        example.add("server_ephemeral_public", publics.1);
        example.add("dh_es", dh(ephemerals.0, *server.as_bytes()));
        example.add("dh_ss", dh(*self.client.as_bytes(), *server.as_bytes()));
        example.add("dh_ee", dh(ephemerals.0, publics.1));
        example.add("dh_se", dh(*self.client.as_bytes(), publics.1));
        example.add("hello_key", derive("tap-rs v1 hello", server.as_bytes()));
        example.add("cookie_key", derive("tap-rs v1 cookie", server.as_bytes()));
        example.add("cookie_secret", self.cookie_secret);
        let address = unhex("00000000000000000000ffffc00002018813");
        assert_eq!(mac(&self.cookie_secret, &address), self.jar.bake(self.address));
        example.add("cookie_address", address);
        example.add("cookie", self.jar.bake(self.address));
        example.add("payload_1", self.payloads().0);
        example.add("payload_2", self.payloads().1);
        example.add("plain_ping", control(&Control::Ping { token: 0x4142_4344_4546_4748, tally: None }));
        example.add(
            "plain_pong",
            control(&Control::Pong { token: 0x4142_4344_4546_4748, revision: 0, tally: None }),
        );
        example.add("frame_up", &self.up);
        example.add("plain_up", whole(&self.up));
        example.add("frame_down", &self.down);
        example.add("plain_down", whole(&self.down));
        let offload = Offload { needs_checksum: true, gso: Some(Gso::Tcp(1448)) };
        let first = Record::First { nic: NicId(2), frame: 7, total: 4410, offload };
        example.add("header_first", first.encode(1172));
        example.add("header_next", Record::Next { nic: NicId(2), frame: 7, offset: 1172 }.encode(1188));
    }

    fn payloads(&self) -> ([u8; 16], [u8; 16]) {
        let ((client, server), index) = (self.instances, u64::from(self.server_index));
        let join = |a: u64, b: u64| [a.to_le_bytes(), b.to_le_bytes()].concat().try_into().unwrap();
        (join(client, 0), join(server, index))
    }

    /// From HELLO to frames, in one suite.
    fn run(&self, suite: Suite, example: &mut Example) {
        let name = ServerName::new(&self.server.public()).unwrap();
        let hello = Hello { suite, sender_index: self.client_index, nonce: self.hello_nonce };
        let hello = hello.encode(|signed| name.hello_mac(signed));
        let key = derive("tap-rs v1 hello", self.server.public().as_bytes());
        assert_eq!(mac(&key, &hello[..36]), hello[36..]);
        example.add("hello", hello);
        let cookie = self.jar.bake(self.address);
        let sealed = name.seal(&hello, self.cookie_nonce, &cookie).unwrap();
        let answer =
            Cookie { suite, receiver_index: self.client_index, nonce: self.cookie_nonce, sealed }.encode();
        example.add("cookie_datagram", answer);

        let psk = suite.has_psk().then_some(&self.psk);
        let prologue = [&b"tap-rs v1 "[..], &Init::header(suite, self.client_index), &cookie].concat();
        example.add("prologue", &prologue);
        let (initiator, init, resp, keys) = self.shake(suite, cookie, psk);
        self.noise_alone(suite, &prologue, &init, &resp, example);
        example.add("noise_1", init.noise);
        example.add("init", init.encode(|signed| mac(&cookie, signed)));
        example.add("noise_2", resp.noise);
        example.add("resp", resp.encode(|signed| mac(&cookie, signed)));
        assert!(keys.send == initiator.receive && keys.receive == initiator.send);
        example.add("key_client_to_server", *initiator.send);
        example.add("key_server_to_client", *initiator.receive);

        let (mut client, client_opens) = session(&initiator);
        let (mut server, server_opens) = session(&keys);
        let (mut client, mut control_lane) = (client.take().unwrap(), server.take().unwrap());
        let ping = control(&Control::Ping { token: 0x4142_4344_4546_4748, tally: None });
        let pong = control(&Control::Pong { token: 0x4142_4344_4546_4748, revision: 0, tally: None });
        example.add("data_ping", datagram(&mut client, &ping, &server_opens));
        example.add("data_pong", datagram(&mut control_lane, &pong, &client_opens));
        example.add("data_up", datagram(&mut client, &whole(&self.up), &server_opens));
        let mut worker_lane = server.take().unwrap();
        example.add("data_down", datagram(&mut worker_lane, &whole(&self.down), &client_opens));
    }

    /// The handshake through our own functions: both messages, the client's keys and the server's.
    fn shake(&self, suite: Suite, cookie: [u8; 16], psk: Option<&PresharedKey>) -> (Keys, Init, Resp, Keys) {
        let (server, payloads) = (self.server.public(), self.payloads());
        let offer = Offerer {
            identity: &self.client,
            server: &server,
            psk,
            suite,
            local_index: self.client_index,
            cookie: &cookie,
        };
        let (mut initiator, init) = Initiator::start(&offer, &payloads.0, &self.seeds.0).unwrap();
        let answerer = Answerer {
            identity: &self.server,
            known: Arc::new(|_| true),
            cookie: &cookie,
            local_index: self.server_index,
        };
        let (who, answer) =
            respond(&answerer, &init, &payloads.1, &self.seeds.1, |key, _| Ok((*key, psk))).unwrap();
        assert_eq!((&who, answer.payload), (self.client.public().as_bytes(), payloads.0));
        let (sender_index, receiver_index) = (self.server_index, self.client_index);
        let resp = Resp { suite, sender_index, receiver_index, noise: answer.noise };
        let (keys, payload) = initiator.finish(&resp.noise, sender_index).unwrap();
        assert_eq!(payload, payloads.1);
        (keys, init, resp, answer.keys)
    }

    /// The same handshake by snow alone, which also tells its hash.
    fn noise_alone(&self, suite: Suite, prologue: &[u8], init: &Init, resp: &Resp, example: &mut Example) {
        let builder = |seed| {
            let params = suite.noise_name().parse().unwrap();
            Builder::with_resolver(params, Box::new(Resolver::new(seed, &self.server)))
                .prologue(prologue)
                .unwrap()
        };
        let server = self.server.public();
        let client = builder(&self.seeds.0).local_private_key(self.client.as_bytes()).unwrap();
        let mut client = client.remote_public_key(server.as_bytes()).unwrap().build_initiator().unwrap();
        if suite.has_psk() {
            client.set_psk(2, self.psk.as_bytes()).unwrap();
        }
        let mut out = [0; 200];
        let n = client.write_message(&self.payloads().0, &mut out).unwrap();
        assert_eq!(out[..n], init.noise);
        example.add("hash_after_message_1", client.get_handshake_hash());
        client.read_message(&resp.noise, &mut out).unwrap();
        example.add("hash_after_message_2", client.get_handshake_hash());
    }
}

fn session(keys: &Keys) -> (Lanes, Arc<Opener>) {
    establish(keys, Arc::new(Activity::new(Instant::now()))).unwrap()
}

/// A sealed datagram, once the other side has opened it.
fn datagram(lane: &mut Lane, plaintext: &[u8], opener: &Opener) -> Vec<u8> {
    let mut d = [&[0; 16], plaintext, &[0; 16]].concat();
    lane.seal(&mut d).unwrap();
    assert_eq!(opener.open(&mut d.clone()).unwrap().plaintext, plaintext);
    d
}

fn control(message: &Control<'_>) -> Vec<u8> {
    let body = message.encode();
    [&Record::Control.encode(body.len() as u16)[..], &body].concat()
}

fn whole(frame: &[u8]) -> Vec<u8> {
    let header = Record::Whole { nic: NicId(0), offload: Offload::default() }.encode(frame.len() as u16);
    [&header[..], frame].concat()
}

type Station = ([u8; 6], [u8; 4]);

fn arp(to: [u8; 6], from: [u8; 6], operation: u8, sender: Station, target: Station) -> Vec<u8> {
    let fixed = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation];
    [&to[..], &from, &fixed, &sender.0, &sender.1, &target.0, &target.1].concat()
}

fn derive(label: &str, key: &[u8; 32]) -> [u8; 32] {
    Blake2s256::new().chain_update(label).chain_update(key).finalize().into()
}

/// What a generator with this seed gives first.
fn first_bytes(seed: [u8; 32]) -> [u8; 32] {
    let mut bytes = [0; 32];
    StdRng::from_seed(seed).fill_bytes(&mut bytes);
    bytes
}

fn public(private: [u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(private, x25519_dalek::X25519_BASEPOINT_BYTES)
}

fn dh(private: [u8; 32], public: [u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(private, public)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap())
}

/// The text of a file of the repository; empty where there is none.
fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default()
}
