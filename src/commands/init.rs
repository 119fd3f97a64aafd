//! `tap-rs init`: a server's and a client's config that match, with their keys.

use std::fs;
use std::path::{Path, PathBuf};

use rand::RngExt;

use super::ask::{default_interface, or_ask};
use super::{Failure, print_line};
use crate::cli::InitArgs;
use crate::config::edit::{NewClient, add_client, quoted, write_new};
use crate::config::{self, Host, NicArg, Overrides, ServerAddr};
use crate::keys::{PrivateKey, PublicKey, shell_word};
use crate::types::{MacAddr, NicName};

/// Asks what was not given, writes the files, and says what comes next.
///
/// # Errors
/// A file is there already, or cannot be written; nothing is left behind then.
pub fn init(args: &InitArgs) -> Result<(), Failure> {
    let mut names = vec!["server.toml", "server.key", "server.key.pub"];
    if !args.server_only {
        names.extend(["client.toml", "client.key", "client.key.pub"]);
    }
    refuse_to_overwrite(&args.out, &names)?;
    let plan = Plan::ask(args)?;
    fs::create_dir_all(&args.out)
        .map_err(|e| Failure::Refused(format!("cannot make the folder {}: {e}", args.out.display())))?;
    if let Err(e) = plan.write(&args.out) {
        for name in names {
            let _ = fs::remove_file(args.out.join(name));
        }
        return Err(e);
    }
    print_line(&plan.next(&args.out))
}

/// A MAC that no manufacturer gives: locally administered, of one host.
pub fn random_mac() -> MacAddr {
    let mut mac: [u8; 6] = rand::rng().random();
    if let Some(first) = mac.first_mut() {
        *first = (*first & 0xfc) | 0x02;
    }
    MacAddr(mac)
}

/// The keys of NICs for a client: names and MACs that were not given are made up. `taken`: names on the server.
pub fn nics(args: &[NicArg], mut taken: Vec<NicName>) -> Vec<Vec<(&'static str, String)>> {
    let mut made = Vec::new();
    for (n, arg) in args.iter().enumerate() {
        let free =
            (0..=u16::MAX).filter_map(|i| format!("tap{i}").parse().ok()).find(|name| !taken.contains(name));
        let Some(name) = arg.ifname.clone().or(free) else { continue };
        let mut arg = arg.clone();
        arg.client_ifname = arg.client_ifname.or_else(|| format!("mv{n}").parse().ok());
        made.push(arg.keys(&name, random_mac()));
        taken.push(name);
    }
    made
}

/// What was asked.
struct Plan {
    server: ServerAddr,
    client: Option<Client>,
}

struct Client {
    name: String,
    parent: NicName,
    nics: Vec<NicArg>,
}

impl Plan {
    fn ask(args: &InitArgs) -> Result<Self, Failure> {
        let question = "Where clients reach the server, HOST:PORT (like tunnel.example.net:1234)";
        let server = or_ask(args.server.clone(), "--server HOST:PORT", question, None)?;
        if args.server_only {
            return Ok(Self { server, client: None });
        }
        let (interface, guess) = ("The client's interface on its LAN", default_interface());
        let parent = or_ask(args.parent.clone(), "--parent IFNAME", interface, guess.as_deref())?;
        let nics = if args.nic.is_empty() {
            let question = "The address to project from that LAN, with its prefix (like 192.168.1.150/24)";
            vec![or_ask(None, "--nic ip=ADDRESS/PREFIX", question, None)?]
        } else {
            args.nic.clone()
        };
        let name = args.name.clone().unwrap_or_else(|| "branch".to_owned());
        Ok(Self { server, client: Some(Client { name, parent, nics }) })
    }

    fn write(&self, folder: &Path) -> Result<(), Failure> {
        let key = |name: &str| -> Result<PublicKey, Failure> {
            let key = PrivateKey::generate(&mut rand::rng());
            key.write_new(&folder.join(name))?;
            Ok(key.public())
        };
        let server_key = key("server.key")?;
        let any = match self.server.host {
            Host::Ip(ip) if ip.is_ipv6() => "[::]",
            _ => "0.0.0.0",
        };
        let mut text = format!(
            "# The server. What else can be written here: docs/CONFIG.md\n\
             run_mode = \"server\"\nprivate_key = \"server.key\"\n\n\
             [server]\nbind_addr = \"{any}:{}\"\npublic_addr = \"{}\"      # where clients reach it\n",
            self.server.port, self.server
        );
        if let Some(client) = &self.client {
            let public = key("client.key")?.to_string();
            let keys = vec![("name", quoted(&client.name)), ("public_key", quoted(&public))];
            text = add_client(&text, &NewClient { keys, nics: nics(&client.nics, Vec::new()) });
            let (server, parent) = (&self.server, &client.parent);
            put(&folder.join("client.toml"), &client_toml(server, &server_key, parent, None))?;
        }
        put(&folder.join("server.toml"), &text)
    }

    fn next(&self, folder: &Path) -> String {
        let at = |name: &str| shell_word(&beside(folder, name));
        let server = at("server.toml");
        if self.client.is_none() {
            return format!(
                "wrote {server} and {}\n\n\
                 on the server:   tap-rs -c {server}\n\
                 for each client: tap-rs invite NAME -c {server} --nic ip=ADDRESS/PREFIX",
                at("server.key")
            );
        }
        format!(
            "wrote {server} and {}, {} and {}\n\n\
             on the server: tap-rs -c {server}\n\
             on the client: tap-rs -c client.toml\n\n\
             Move client.toml and client.key to the client's box by a way that nobody reads\n\
             along, like scp, and remove them here. Or let the client make its own key:\n\
             `tap-rs init --server-only`, then `tap-rs invite`.",
            at("server.key"),
            at("client.toml"),
            at("client.key")
        )
    }
}

/// A file in a folder, as one writes it.
pub fn beside(folder: &Path, name: &str) -> PathBuf {
    if folder == Path::new(".") { PathBuf::from(name) } else { folder.join(name) }
}

/// A client that has its NICs from the server.
pub fn client_toml(server: &ServerAddr, key: &PublicKey, parent: &NicName, suite: Option<&str>) -> String {
    let suite = suite.map(|s| format!("suite = \"{s}\"\n")).unwrap_or_default();
    format!(
        "# The client; its NICs come from the server. What else can be written here: docs/CONFIG.md\n\
         run_mode = \"client\"\nuse_remote_config = true\nprivate_key = \"client.key\"\n\
         parent = \"{parent}\"      # on the LAN\n{suite}\n\
         [server]\nbind_addr = \"{server}\"\npublic_key = \"{key}\"\n"
    )
}

/// Writes a config that did not exist, and checks it.
pub fn put(path: &Path, text: &str) -> Result<(), Failure> {
    write_new(path, text).map_err(|e| Failure::Refused(format!("cannot write {}: {e}", path.display())))?;
    config::load(path, &Overrides::default())?;
    Ok(())
}

/// One sentence where any of these is there.
pub fn refuse_to_overwrite(folder: &Path, names: &[&str]) -> Result<(), Failure> {
    let there: Vec<PathBuf> = names
        .iter()
        .map(|name| beside(folder, name))
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    match there.first() {
        None => Ok(()),
        Some(path) => Err(Failure::Refused(format!(
            "{} exists, and nothing is overwritten; choose another folder with `--out DIR`, or move it away first",
            path.display()
        ))),
    }
}
