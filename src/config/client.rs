//! The client's side of the config.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use crate::keys::PublicKey;
use crate::types::{Mtu, NicMode, NicName, NicRules, NicSpec};

use super::address::ServerAddr;
use super::check::{Check, span, switch};
use super::common::{Common, common, mtu, nic_mode, seconds};
use super::nic::{NicClaims, nic, parent, rules};
use super::raw::{self, File, Nic, Server};
use super::stack::misplaced_on_client;
use super::{Overrides, Role};

/// Most NICs that one client may ever have.
pub const NICS_MAX: u16 = 1024;

/// A client's config: checked, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// What both sides have.
    pub common: Common,
    /// Where the server is.
    pub server: ServerAddr,
    /// Who the server is.
    pub server_key: PublicKey,
    /// The file with the pre-shared key, if the server wants one of this client.
    pub psk: Option<PathBuf>,
    /// Which AEAD to offer.
    pub suite: SuiteChoice,
    /// What carries the NICs, unless the server says otherwise under `NicSource::Remote`.
    pub mode: NicMode,
    /// Where the list of NICs comes from.
    pub nics: NicSource,
    /// Whether the client answers ARP requests for its NICs by itself.
    pub reply_arp: bool,
    /// Whether a NIC from the server first asks the LAN who else has its addresses.
    pub probe: bool,
    /// Which scripts of the server's may run here, as root.
    pub script: ScriptPolicy,
    /// How long a script may run: 1 s to 1 h.
    pub script_timeout: Duration,
    /// What the server may set here.
    pub limits: Limits,
    /// How often an idle session is kept alive through a NAT: 1 s to 1 min.
    pub keepalive: Duration,
    /// The files that were read with it: keys.
    pub files: Vec<PathBuf>,
}

/// Where the client's NICs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NicSource {
    /// The client's own file: at least one, at most [`NICS_MAX`].
    Local(Vec<ClientNic>),
    /// The server.
    Remote {
        /// What macvtaps are created on where the server names nothing else.
        parent: Option<NicName>,
    },
}

/// A NIC of the client's own file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientNic {
    /// Its name here, its MAC, addresses and MTU.
    pub spec: NicSpec,
    /// How strictly the contract is applied to it.
    pub rules: NicRules,
    /// What its macvtap is created on if there is none of that name.
    pub parent: Option<NicName>,
    /// Whether it first asks the LAN who else has its addresses.
    pub probe: bool,
}

/// Which AEAD the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuiteChoice {
    /// AES-256-GCM where the processor has instructions for it, ChaCha20-Poly1305 elsewhere.
    Auto,
    /// AES-256-GCM.
    Aes,
    /// ChaCha20-Poly1305.
    ChaCha,
}

/// Which pushed scripts may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptPolicy {
    /// None.
    Never,
    /// Those with one of these SHA-256 hashes; never empty.
    Pinned(Vec<[u8; 32]>),
    /// Every one: whoever has the server's private key is root here.
    Any,
}

/// What the server may set on this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most NICs at a time: 1 to [`NICS_MAX`].
    pub max_nics: u16,
    /// Interfaces that the server may have macvtaps created on. The client's own `parent` is always allowed.
    pub parents: Vec<NicName>,
    /// Which MTUs it may set, in bytes: within 576 to 9000.
    pub mtu: RangeInclusive<u16>,
    /// How strictly the contract is applied here to the NICs that come from it, which say nothing of that themselves.
    pub rules: NicRules,
}

impl Limits {
    /// The MTUs that a server may set where the client says nothing else.
    pub const MTU: RangeInclusive<u16> = 576..=Mtu::MAX;
}

/// Checks a file as a client's.
pub(super) fn client(check: &mut Check<'_>, file: &File, overrides: &Overrides) -> Option<ClientConfig> {
    note_server_keys(check, file);
    let common = common(check, file, overrides, Role::Client);
    let remote = switch(&file.use_remote_config, false);
    let own_mtu = mtu(check, &file.mtu, Mtu::DEFAULT);
    let mode = nic_mode(check, "tap_mode", &file.tap_mode).unwrap_or(NicMode::Macvtap);
    let nics = if remote { remote_nics(check, file) } else { local_nics(check, file, mode, own_mtu) };
    let suites = [("auto", SuiteChoice::Auto), ("aes", SuiteChoice::Aes), ("chacha", SuiteChoice::ChaCha)];
    let suite = check.choice("suite", &file.suite, &suites).unwrap_or(SuiteChoice::Auto);
    let script = script_policy(check, file, remote);
    let script_timeout = seconds(check, "script_timeout", &file.script_timeout, 3600, 60);
    let keepalive = seconds(check, "keepalive", &file.keepalive, 60, 10);
    let limits = limits(check, file);
    let psk = psk(check, file, overrides);
    let server = server_address(check, file);
    let server_key = server_key(check, file, overrides);
    let (common, own_key) = common?;
    if own_key.is_some() && own_key == server_key {
        let at = file.server.as_ref().and_then(|s| span(&s.get_ref().public_key));
        let message = "this is the public key of this client's own private key; write the server's, which `tap-rs keygen` printed on the server";
        check.notes.error(at, message);
    }
    Some(ClientConfig {
        common,
        server: server?,
        server_key: server_key?,
        psk,
        suite,
        mode,
        nics,
        reply_arp: switch(&file.reply_arp, false),
        probe: switch(&file.probe, true),
        script,
        script_timeout,
        limits,
        keepalive,
        files: std::mem::take(&mut check.files),
    })
}

/// The original had one struct for both sides, so its keys are only warned about on the wrong one.
fn note_server_keys(check: &mut Check<'_>, file: &File) {
    check.misplaced(
        &file.suites,
        "`suites` is the server's; a client writes suite = \"auto\", \"aes\" or \"chacha\"",
    );
    check.misplaced(
        &file.routing,
        "`routing` is for the server's file: the client's interfaces have no addresses, and route nothing",
    );
    check.misplaced(
        &file.clients,
        "`clients` is for the server's file; if this is the server, write run_mode = \"server\"",
    );
    check.unused(
        &file.client_tap_mode,
        "`client_tap_mode` is for the server's file; a client uses `tap_mode`",
    );
    if let Some(server) = file.server.as_ref().map(Spanned::get_ref) {
        check.misplaced(
            &server.public_addr,
            "`public_addr` is for the server's file; a client writes the server's address as `bind_addr`",
        );
        check.unused(&server.script_path, "`script_path` is for the server's file; not used here");
        check.unused(&server.script_content, "`script_content` is for the server's file; not used here");
    }
}

fn remote_nics(check: &mut Check<'_>, file: &File) -> NicSource {
    check.unused(
        &file.nics,
        "the NICs come from the server (use_remote_config = true); these are placeholders",
    );
    NicSource::Remote { parent: check.parse(&file.parent) }
}

fn local_nics(check: &mut Check<'_>, file: &File, mode: NicMode, mtu: Mtu) -> NicSource {
    let default_parent: Option<NicName> = check.parse(&file.parent);
    if mode == NicMode::Tap {
        check.unused(&file.parent, "`parent` has no use with tap_mode = \"tap\"");
    }
    let tables = file.nics.as_ref().map(|nics| nics.get_ref().as_slice()).unwrap_or_default();
    if tables.is_empty() {
        let message =
            "no NICs; add a [[nics]] section with ifname, ip and mac, or write use_remote_config = true";
        check.notes.missing("nics", span(&file.nics).unwrap_or(0..0), message);
    }
    if let Some(first_too_many) = tables.get(usize::from(NICS_MAX)) {
        let message = format!("a client has at most {NICS_MAX} NICs; give the rest to another client");
        check.notes.error(first_too_many.span(), message);
    }
    let mut claims = NicClaims::default();
    let nics = tables.iter().filter_map(|table| {
        note_server_nic_keys(check, table.get_ref());
        let (spec, rules) = nic(check, &mut claims, table, mtu)?;
        let parent = parent(check, table.get_ref(), default_parent.as_ref(), &spec.name);
        let probe = switch(&table.get_ref().probe, switch(&file.probe, true));
        Some(ClientNic { spec, rules, parent, probe })
    });
    NicSource::Local(nics.collect())
}

fn note_server_nic_keys(check: &mut Check<'_>, raw: &Nic) {
    misplaced_on_client(check, raw);
    check.misplaced(
        &raw.client_ifname,
        "`client_ifname` is for the server's file; on the client write `ifname`",
    );
    check.misplaced(
        &raw.client_parent,
        "`client_parent` is for the server's file; on the client write `parent`",
    );
    check.misplaced(
        &raw.configure,
        "`configure` is for the server's file; a client never puts addresses on its NICs",
    );
}

fn server_address(check: &mut Check<'_>, file: &File) -> Option<ServerAddr> {
    let server = server_section(check, file, "tunnel.example.net:1234")?;
    if server.get_ref().bind_addr.is_none() {
        let message =
            "no `bind_addr`; add bind_addr = \"tunnel.example.net:1234\", the server's address or DNS name";
        check.notes.missing("bind_addr", server.span(), message);
    }
    check.parse(&server.get_ref().bind_addr)
}

/// The `[server]` section, which either side must have.
pub(super) fn server_section<'a>(
    check: &mut Check<'_>,
    file: &'a File,
    example: &str,
) -> Option<&'a Spanned<Server>> {
    if file.server.is_none() {
        check.notes.missing(
            "server",
            0..0,
            format!("no [server] section; add [server] and below it bind_addr = \"{example}\""),
        );
    }
    file.server.as_ref()
}

fn server_key(check: &mut Check<'_>, file: &File, overrides: &Overrides) -> Option<PublicKey> {
    if let Some(text) = &overrides.server_key {
        let key = PublicKey::from_text_or_file(text, std::path::Path::new(""));
        return check.key(None, key);
    }
    let server = file.server.as_ref()?;
    if server.get_ref().public_key.is_none() {
        let message =
            "no `public_key`; add the server's, which `tap-rs keygen` printed there: public_key = \"…=\"";
        check.notes.missing("public_key", server.span(), message);
    }
    check.public_key(&server.get_ref().public_key)
}

fn psk(check: &mut Check<'_>, file: &File, overrides: &Overrides) -> Option<PathBuf> {
    let (path, at) = match &overrides.psk {
        Some(path) => (path.clone(), None),
        None => (check.secret_path("psk", &file.psk)?, span(&file.psk)),
    };
    check.preshared_key(at, &path);
    Some(path)
}

fn script_policy(check: &mut Check<'_>, file: &File, remote: bool) -> ScriptPolicy {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        Never,
        Pinned,
        Any,
    }
    let words = [("never", Word::Never), ("pinned", Word::Pinned), ("any", Word::Any)];
    let word = check.choice("script", &file.script, &words);
    if !remote && word.is_some_and(|w| w != Word::Never) {
        check.unused(
            &file.script,
            "scripts come with the server's config only; without use_remote_config = true none is run",
        );
    }
    match word {
        Some(Word::Pinned) => ScriptPolicy::Pinned(pinned(check, file)),
        Some(Word::Any) => {
            check.unused(
                &file.script,
                "script = \"any\": whoever has the server's private key is root on this client",
            );
            ScriptPolicy::Any
        }
        Some(Word::Never) | None => {
            check.misplaced(
                &file.script_sha256,
                "`script_sha256` says which scripts may run; write script = \"pinned\" too",
            );
            ScriptPolicy::Never
        }
    }
}

fn pinned(check: &mut Check<'_>, file: &File) -> Vec<[u8; 32]> {
    let hashes = file.script_sha256.as_ref().map(|list| list.get_ref().as_slice()).unwrap_or_default();
    if hashes.is_empty() {
        let at = span(&file.script_sha256).or(span(&file.script));
        let message = "script = \"pinned\" needs script_sha256 = [\"…\"]; `tap-rs check` on the server prints it, and so does `sha256sum FILE`";
        check.notes.error(at, message);
    }
    let mut parsed = Vec::new();
    for text in hashes {
        match sha256(text.get_ref()) {
            Some(hash) => parsed.push(hash),
            None => check.notes.error(
                text.span(),
                format!(
                    "{:?} is no SHA-256; write the 64 hex digits that `sha256sum FILE` prints",
                    text.get_ref()
                ),
            ),
        }
    }
    parsed
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let byte = |&[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    bytes.filter(|_| rest.is_empty())?.try_into().ok()
}

fn limits(check: &mut Check<'_>, file: &File) -> Limits {
    let empty = raw::Limits::default();
    let raw = file.limits.as_ref().map_or(&empty, Spanned::get_ref);
    let max_nics = check.number("max_nics", &raw.max_nics, 1..=NICS_MAX, 64);
    let least = check.number("min_mtu", &raw.min_mtu, Limits::MTU, *Limits::MTU.start());
    let most = check.number("max_mtu", &raw.max_mtu, Limits::MTU, *Limits::MTU.end());
    if least > most {
        let at = span(&raw.min_mtu).or(span(&raw.max_mtu));
        check.notes.error(at, format!("`min_mtu` {least} is above `max_mtu` {most}; swap them"));
    }
    let mut parents = Vec::new();
    for text in raw.parents.as_ref().map(|p| p.get_ref().as_slice()).unwrap_or_default() {
        match text.get_ref().parse::<NicName>() {
            Ok(name) => parents.push(name),
            Err(e) => check.notes.error(text.span(), e.to_string()),
        }
    }
    let rules = rules(check, &raw.bridge, &raw.vlan, &raw.strict, &raw.broadcast_pps);
    Limits { max_nics, parents, mtu: least..=most, rules }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_64_hex_digits() {
        assert_eq!(sha256(&"aF".repeat(32)), Some([0xaf; 32]));
        for bad in ["", "a", &"af".repeat(31), &"af".repeat(33), &"+f".repeat(32), &"é".repeat(32)] {
            assert_eq!(sha256(bad), None, "{bad}");
        }
    }
}
