//! The server's side of the config.

mod pushed;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;

use crate::keys::PublicKey;
use crate::types::{Mtu, NicMode, NicName, NicRules, NicSpec, NicStack, Routing, Suite};

use super::address::{ServerAddr, bind_address};
use super::check::{Check, Claims, span, switch};
use super::client::{Limits, NICS_MAX, server_section};
use super::common::{Common, common, mtu, nic_mode};
use super::moment::Moment;
use super::nic::{NicClaims, nic, parent};
use super::raw::{self, File, Nic, Text};
use super::stack::{routing, stack};
use super::{Overrides, Role};
use pushed::{default_script, refuse_what_is_too_long, script_file};

pub use pushed::PUSH_MAX;

/// Longest client name in bytes.
pub const CLIENT_NAME_MAX: usize = 64;

/// A server's config: checked, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// What both sides have.
    pub common: Common,
    /// Where it listens.
    pub bind: SocketAddr,
    /// The AEADs that it accepts, as the suites without a pre-shared key, the preferred one first; never empty.
    /// Which clients need a pre-shared key is the clients' own matter.
    pub suites: Vec<Suite>,
    /// Where clients find it, for invites.
    pub public_addr: Option<ServerAddr>,
    /// What carries the NICs here.
    pub mode: NicMode,
    /// Who may connect; names and keys all different.
    pub clients: Vec<ClientEntry>,
    /// The files that were read with it: keys and scripts.
    pub files: Vec<PathBuf>,
}

/// A client as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEntry {
    /// Its name in logs and in `status`.
    pub name: String,
    /// Who it is: whoever has one of these keys. None before an invite is used; two while one follows the other.
    pub keys: Vec<PublicKey>,
    /// What lets a new box become this client.
    pub invite: Option<Invite>,
    /// The file with its pre-shared key. `None`: it uses the suites without one.
    pub psk: Option<PathBuf>,
    /// Its NICs; a NIC's place in the list is its number in the session.
    pub nics: Vec<ServerNic>,
    /// The script that is pushed to it, never empty; it fits into [`PUSH_MAX`] together with the NICs.
    pub script: Option<Arc<[u8]>>,
    /// What is to carry its NICs there. `None`: what its own file says.
    pub client_mode: Option<NicMode>,
}

impl ClientEntry {
    /// Its keys and its invite, for people.
    pub fn says_who(&self) -> String {
        let keys: Vec<_> = self.keys.iter().map(ToString::to_string).collect();
        let invite = self.invite.and_then(|i| i.until).map(|until| format!("invited until {until}"));
        keys.into_iter().chain(invite).collect::<Vec<_>>().join(", ")
    }
}

/// An invite, as the server knows it: not its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invite {
    /// The public key that follows from its secret.
    pub key: PublicKey,
    /// Until when it may be used. `None`: it has been.
    pub until: Option<Moment>,
}

/// A NIC as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNic {
    /// Its name on the server, its MAC, addresses and MTU.
    pub spec: NicSpec,
    /// How strictly the contract is applied to it.
    pub rules: NicRules,
    /// What its macvtap on the server is created on.
    pub parent: Option<NicName>,
    /// Its name on the client.
    pub client_name: NicName,
    /// What its macvtap on the client is to be created on.
    pub client_parent: Option<NicName>,
    /// Whether MAC, addresses and MTU are applied to the server's interface.
    pub configure: bool,
    /// Its routes, and the namespace that it lives in.
    pub stack: NicStack,
}

/// Checks a file as a server's.
pub(super) fn server(check: &mut Check<'_>, file: &File, overrides: &Overrides) -> Option<ServerConfig> {
    note_client_keys(check, file, overrides);
    let common = common(check, file, overrides, Role::Server);
    let mode = nic_mode(check, "tap_mode", &file.tap_mode).unwrap_or(NicMode::Tap);
    let all = [("aes", Suite::Aes), ("chacha", Suite::ChaCha)];
    let suites =
        check.choices("suites", &file.suites, &all).unwrap_or_else(|| all.map(|(_, suite)| suite).to_vec());
    let bind = bind(check, file);
    let defaults = Defaults {
        mode,
        routing: routing(check, file, mode),
        mtu: mtu(check, &file.mtu, Mtu::DEFAULT),
        parent: check.parse(&file.parent),
        client_mode: nic_mode(check, "client_tap_mode", &file.client_tap_mode),
        script: file.server.as_ref().and_then(|s| default_script(check, s.get_ref())),
    };
    if mode == NicMode::Tap {
        check.unused(
            &file.parent,
            "`parent` has no use with tap_mode = \"tap\"; for the client's side write `client_parent`",
        );
    }
    let public_addr = file.server.as_ref().and_then(|s| check.parse(&s.get_ref().public_addr));
    let (common, own_key) = common.unzip();
    let clients = clients(check, file, &defaults, own_key.flatten());
    let files = std::mem::take(&mut check.files);
    Some(ServerConfig { common: common?, bind: bind?, suites, public_addr, mode, clients, files })
}

const PROBE: &str = "`probe` is for the client's file: it is the client that asks the LAN";

/// What a client has where it says nothing else.
struct Defaults {
    mode: NicMode,
    routing: Routing,
    mtu: Mtu,
    parent: Option<NicName>,
    client_mode: Option<NicMode>,
    script: Option<Arc<[u8]>>,
}

/// The original had one struct for both sides, so its keys are only warned about on the wrong one.
fn note_client_keys(check: &mut Check<'_>, file: &File, overrides: &Overrides) {
    check.misplaced(
        &file.psk,
        "a server has one `psk` for each client; move it into that client's [[clients]]",
    );
    check.misplaced(&file.suite, "`suite` is the client's; a server writes suites = [\"aes\", \"chacha\"]");
    let message = "this is for the client's file: it says what the server may do there";
    check.misplaced(&file.script, message);
    check.misplaced(&file.script_sha256, message);
    check.misplaced(&file.script_timeout, message);
    check.misplaced(&file.limits, message);
    check.misplaced(
        &file.keepalive,
        "`keepalive` is for the client's file, since it is the client that keeps a NAT open",
    );
    check.unused(
        &file.use_remote_config,
        "`use_remote_config` is for the client's file; the server always offers its config",
    );
    check.unused(&file.reply_arp, "`reply_arp` is for the client's file; not used here");
    check.misplaced(&file.probe, PROBE);
    if let Some(server) = file.server.as_ref().map(Spanned::get_ref) {
        let message = "in the server's file this would be its own key, which `private_key` gives already; remove the line";
        check.misplaced(&server.public_key, message);
    }
    if overrides.server_key.is_some() || overrides.psk.is_some() {
        check.notes.error(
            None,
            "--server-key and --psk are for clients, and this is a server's file; leave them out",
        );
    }
}

fn bind(check: &mut Check<'_>, file: &File) -> Option<SocketAddr> {
    let server = server_section(check, file, "0.0.0.0:1234")?;
    let Some(written) = &server.get_ref().bind_addr else {
        check.notes.missing(
            "bind_addr",
            server.span(),
            "no `bind_addr`; add bind_addr = \"0.0.0.0:1234\", where the server listens",
        );
        return None;
    };
    bind_address(written.get_ref()).map_err(|e| check.notes.error(written.span(), e.0)).ok()
}

fn clients(
    check: &mut Check<'_>,
    file: &File,
    defaults: &Defaults,
    own_key: Option<PublicKey>,
) -> Vec<ClientEntry> {
    let tables = file.clients.as_ref().map(|c| c.get_ref().as_slice()).unwrap_or_default();
    let shared = file.nics.as_ref().map(|n| n.get_ref().as_slice()).unwrap_or_default();
    match shared.first() {
        _ if !tables.is_empty() => {}
        Some(_) => {
            let message = "no clients; add [[clients]] and below it name = \"branch\" and public_key = \"…=\", which `tap-rs keygen` printed on the client";
            check.notes.missing("clients", span(&file.clients).unwrap_or(0..0), message);
        }
        None => check
            .notes
            .warn(None, "no clients yet; `tap-rs invite NAME` or `tap-rs clients add NAME KEY` lets one in"),
    }
    if let (Some(nic), true) = (shared.first(), tables.len() > 1) {
        let message = "with several [[clients]] a [[nics]] at the top level belongs to none of them; write [[clients.nics]] below its client";
        check.notes.error(nic.span(), message);
    }
    let mut claims = ServerClaims::default();
    let entry = |table| client_entry(check, &mut claims, table, shared, defaults, own_key);
    tables.iter().filter_map(entry).collect()
}

/// What must not occur twice on a server.
#[derive(Default)]
struct ServerClaims {
    names: Claims,
    keys: Claims,
    nics: NicClaims,
}

fn client_entry(
    check: &mut Check<'_>,
    claims: &mut ServerClaims,
    table: &Spanned<raw::Client>,
    shared: &[Spanned<Nic>],
    defaults: &Defaults,
    own_key: Option<PublicKey>,
) -> Option<ClientEntry> {
    let raw = table.get_ref();
    let name = client_name(check, claims, table);
    let invite = invite(check, claims, table);
    let keys = client_keys(check, claims, table, own_key);
    let psk = check.secret_path("psk", &raw.psk);
    if let Some(path) = &psk {
        check.preshared_key(span(&raw.psk), path);
        if invite.is_some_and(|i| i.until.is_some()) {
            let message = "an invite hands over no pre-shared key; remove `psk` or `invite`";
            check.notes.error(span(&raw.invite), message);
        }
    }
    let own_script = script_file(check, &raw.script_path);
    let script = if raw.script_path.is_some() { own_script } else { defaults.script.clone() };
    let client_mode = nic_mode(check, "client_tap_mode", &raw.client_tap_mode).or(defaults.client_mode);
    let client_mtu = mtu(check, &raw.mtu, defaults.mtu);
    let own = raw.nics.as_ref().map(|n| n.get_ref().as_slice()).unwrap_or_default();
    let nics: Vec<_> = shared.iter().chain(own).collect();
    if nics.is_empty() {
        check
            .notes
            .warn(table.span(), "this client has no NICs; add [[clients.nics]] with ifname, ip and mac");
    }
    if let Some(first_too_many) = nics.get(usize::from(NICS_MAX)) {
        let message = format!("a client has at most {NICS_MAX} NICs; give the rest to another client");
        check.notes.error(first_too_many.span(), message);
    }
    let mut client_names = Claims::default();
    let nic = |table| server_nic(check, &mut claims.nics, &mut client_names, table, defaults, client_mtu);
    let nics: Vec<_> = nics.into_iter().filter_map(nic).collect();
    if let Some(script) = &script {
        let at = span(&raw.script_path).unwrap_or_else(|| table.span());
        refuse_what_is_too_long(check, script, &nics, at);
    }
    Some(ClientEntry { name: name?, keys: keys?, invite, psk, nics, script, client_mode })
}

fn client_name(
    check: &mut Check<'_>,
    claims: &mut ServerClaims,
    table: &Spanned<raw::Client>,
) -> Option<String> {
    let Some(name) = &table.get_ref().name else {
        check.notes.missing(
            "name",
            table.span(),
            "this client has no name; add name = \"branch\", for the log",
        );
        return None;
    };
    let text = name.get_ref();
    let good = |c: char| c.is_alphanumeric() || "_.-".contains(c);
    if text.is_empty() || text.len() > CLIENT_NAME_MAX || !text.chars().all(good) {
        let message = format!(
            "{text:?} cannot be a client's name; use 1 to {CLIENT_NAME_MAX} letters, digits, '_', '.' and '-'"
        );
        check.notes.error(name.span(), message);
        return None;
    }
    check.claim(&mut claims.names, "the client name", text, name.span());
    Some(text.clone())
}

/// `public_key`, then `next_public_key`.
fn client_keys(
    check: &mut Check<'_>,
    claims: &mut ServerClaims,
    table: &Spanned<raw::Client>,
    own_key: Option<PublicKey>,
) -> Option<Vec<PublicKey>> {
    let raw = table.get_ref();
    if raw.public_key.is_none() {
        let message = if raw.next_public_key.is_some() {
            "this client has only a `next_public_key`; call it public_key"
        } else if raw.invite_until.is_some() {
            return Some(Vec::new());
        } else {
            "this client has no key; add public_key = \"…=\", which `tap-rs keygen` printed on the client"
        };
        check.notes.missing("public_key", table.span(), message);
        return None;
    }
    let mut keys = Vec::new();
    for text in [&raw.public_key, &raw.next_public_key] {
        let Some(written) = text else { continue };
        keys.push(client_key(check, claims, text, written.span(), own_key)?);
    }
    Some(keys)
}

fn client_key(
    check: &mut Check<'_>,
    claims: &mut ServerClaims,
    text: &Text,
    at: Range<usize>,
    own_key: Option<PublicKey>,
) -> Option<PublicKey> {
    let key = check.public_key(text)?;
    if own_key == Some(key) {
        let message = "this is the public key of the server's own private key; write the client's, which `tap-rs keygen` printed on the client";
        check.notes.error(at.clone(), message);
    }
    check.claim(&mut claims.keys, "the key", &key.to_string(), at);
    Some(key)
}

/// `invite` and `invite_until`, which `tap-rs invite` writes.
fn invite(check: &mut Check<'_>, claims: &mut ServerClaims, table: &Spanned<raw::Client>) -> Option<Invite> {
    let raw = table.get_ref();
    let until = check.parse(&raw.invite_until);
    let Some(written) = &raw.invite else {
        let message = "`invite_until` without `invite`; `tap-rs invite NAME` writes both";
        check.misplaced(&raw.invite_until, message);
        return None;
    };
    let key = check.public_key(&raw.invite)?;
    check.claim(&mut claims.keys, "the key", &key.to_string(), written.span());
    Some(Invite { key, until })
}

fn server_nic(
    check: &mut Check<'_>,
    claims: &mut NicClaims,
    client_names: &mut Claims,
    table: &Spanned<Nic>,
    defaults: &Defaults,
    client_mtu: Mtu,
) -> Option<ServerNic> {
    let raw = table.get_ref();
    let checked = nic(check, claims, table, client_mtu);
    let client_ifname: Option<NicName> = check.parse(&raw.client_ifname);
    let client_parent = check.parse(&raw.client_parent);
    let (spec, rules) = checked?;
    if !Limits::MTU.contains(&spec.mtu.bytes()) {
        let least = Limits::MTU.start();
        let at = span(&raw.mtu).unwrap_or_else(|| table.span());
        let message = format!("a client with use_remote_config = true refuses an MTU below {least}");
        check.notes.warn(at, message);
    }
    if defaults.mode == NicMode::Tap {
        check.unused(
            &raw.parent,
            "`parent` has no use with tap_mode = \"tap\"; for the client's side write `client_parent`",
        );
    }
    let parent = parent(check, raw, defaults.parent.as_ref(), &spec.name);
    let client_name = client_ifname.unwrap_or_else(|| spec.name.clone());
    let at = span(&raw.client_ifname).or(span(&raw.ifname)).unwrap_or_else(|| table.span());
    check.claim(client_names, "on the client, the interface name", client_name.as_str(), at);
    let configure = switch(&raw.configure, true);
    check.misplaced(&raw.probe, PROBE);
    let stack = stack(check, raw, &spec, (defaults.mode, defaults.routing));
    Some(ServerNic { spec, rules, parent, client_name, client_parent, configure, stack })
}
