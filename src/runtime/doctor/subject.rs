//! What is examined: a config file, the tap-rs that runs with it, or both.

use std::fs;
use std::io::{Write, stderr};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::finding::Findings;
use crate::cli::{DEFAULT_CONFIG, DoctorArgs};
use crate::commands::Failure;
use crate::config::{self, ClientConfig, Config, NicSource, Overrides, ServerConfig};
use crate::nic::Side;
use crate::runtime::control_socket::{AskError, Request, ask_all};
use crate::runtime::status::Snapshot;
use crate::types::NicMode;

/// The folder of configs that are known by name.
const CONFIGS: &str = "/etc/tap-rs";

/// What is examined.
pub struct Subject {
    /// By which name the running one is asked.
    pub name: Option<String>,
    /// The config file.
    pub path: Option<PathBuf>,
    /// What the file says, and what is to be said of it; or what is wrong with it.
    pub config: Option<Checked>,
    /// How the running one is doing.
    pub running: Option<Snapshot>,
}

/// A file as it was read.
pub type Checked = Result<(Config, Vec<String>), Vec<String>>;

/// A NIC as it should be here.
pub struct View {
    /// Its name.
    pub name: String,
    /// Its addresses, with their subnets' lengths where they are known.
    pub addrs: Vec<(IpAddr, Option<u8>)>,
    /// Its MTU.
    pub mtu: u16,
    /// Tap or macvtap.
    pub mode: NicMode,
    /// What its macvtap stands on, where the file says so.
    pub parent: Option<String>,
    /// The network namespace that it is in, where that is one of its own.
    pub netns: Option<String>,
}

impl Subject {
    /// What the command line means.
    pub fn find(args: &DoctorArgs) -> Result<Self, Failure> {
        let refused = |e: AskError| Failure::Refused(e.to_string());
        let all = match ask_all(args.name.as_deref(), &Request::Status {}) {
            Ok(all) => all,
            Err(AskError::Nobody | AskError::Forbidden) => Vec::new(),
            // Of whom nothing was asked by name.
            Err(e @ AskError::Mute(..)) if args.config.is_some() => {
                let _ = writeln!(stderr(), "{e}");
                Vec::new()
            }
            // A name that nobody has may yet be a config's.
            Err(AskError::Unknown(name, _)) if named(&name).exists() => Vec::new(),
            Err(e) => return Err(refused(e)),
        };
        let parse = |(name, document): (String, Vec<u8>)| {
            serde_json::from_slice::<Snapshot>(&document).ok().map(|snapshot| (name, snapshot))
        };
        let mut all: Vec<(String, Snapshot)> = all.into_iter().filter_map(parse).collect();
        if let Some(path) = &args.config {
            let wanted = path.canonicalize().ok();
            let at =
                all.iter().position(|(_, s)| wanted.is_some() && file_of(s).canonicalize().ok() == wanted);
            return Ok(Self::new(Some(path.clone()), at.map(|at| all.swap_remove(at))));
        }
        if all.len() > 1 {
            let names = all.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
            return Err(refused(AskError::Several(names)));
        }
        if let Some((name, snapshot)) = all.pop() {
            return Ok(Self::new(Some(file_of(&snapshot)), Some((name, snapshot))));
        }
        let default = Path::new(DEFAULT_CONFIG);
        let path = match &args.name {
            Some(name) => Some(named(name)),
            None => default.exists().then(|| default.to_owned()),
        };
        Ok(Self::new(path, None))
    }

    fn new(path: Option<PathBuf>, running: Option<(String, Snapshot)>) -> Self {
        let config = path.as_deref().map(|path| {
            config::load(path, &Overrides::default())
                .map(|(config, warnings)| (config, warnings.iter().map(ToString::to_string).collect()))
                .map_err(|report| report.to_string().lines().map(str::to_owned).collect())
        });
        let (name, running) = running.unzip();
        Self { name, path, config, running }
    }

    /// The config file, as a word of a command.
    pub fn file(&self) -> String {
        self.path.as_deref().map_or_else(|| "FILE".to_owned(), crate::keys::shell_word)
    }

    /// What the file says, where it can be read.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()?.as_ref().ok().map(|(config, _)| config)
    }

    /// The client's config.
    pub fn client(&self) -> Option<&ClientConfig> {
        match self.config()? {
            Config::Client(config) => Some(config),
            Config::Server(_) => None,
        }
    }

    /// The server's config.
    pub fn server(&self) -> Option<&ServerConfig> {
        match self.config()? {
            Config::Server(config) => Some(config),
            Config::Client(_) => None,
        }
    }

    /// Which end it is.
    pub fn side(&self) -> Option<Side> {
        match (&self.running, self.config()) {
            (Some(s), _) if s.role == "client" => Some(Side::Client),
            (Some(_), _) => Some(Side::Server),
            (None, Some(Config::Client(_))) => Some(Side::Client),
            (None, Some(Config::Server(_))) => Some(Side::Server),
            (None, None) => None,
        }
    }

    /// The server's port.
    pub fn port(&self) -> Option<u16> {
        match self.config() {
            Some(Config::Client(c)) => Some(c.server.port),
            Some(Config::Server(s)) => Some(s.bind.port()),
            None => self.running.as_ref()?.local.parse::<SocketAddr>().ok().map(|a| a.port()),
        }
    }

    /// Every NIC of this end: those that there are, or those that there should be.
    pub fn nics(&self) -> Vec<View> {
        let planned = self.planned();
        let Some(running) = &self.running else { return planned };
        let view = |nic: &crate::runtime::status::model::Nic| View {
            name: nic.name.clone(),
            addrs: nic
                .addrs
                .iter()
                .filter_map(|a| a.parse::<crate::types::NicAddr>().ok())
                .map(|a| (a.ip, a.prefix))
                .collect(),
            mtu: nic.mtu,
            mode: if nic.mode == "tap" { NicMode::Tap } else { NicMode::Macvtap },
            netns: nic.netns.clone(),
            parent: planned.iter().find(|p| p.name == nic.name).and_then(|p| p.parent.clone()),
        };
        running.nics.iter().map(view).collect()
    }

    fn planned(&self) -> Vec<View> {
        let view = |spec: &crate::types::NicSpec, mode, parent: Option<&crate::types::NicName>| View {
            name: spec.name.to_string(),
            addrs: spec.addrs.iter().map(|a| (a.ip, a.prefix)).collect(),
            mtu: spec.mtu.bytes(),
            mode,
            parent: parent.map(ToString::to_string),
            netns: None,
        };
        match self.config() {
            Some(Config::Client(c)) => match &c.nics {
                NicSource::Local(nics) => {
                    nics.iter().map(|n| view(&n.spec, c.mode, n.parent.as_ref())).collect()
                }
                NicSource::Remote { .. } => Vec::new(),
            },
            Some(Config::Server(s)) => s
                .clients
                .iter()
                .flat_map(|c| &c.nics)
                .map(|n| View {
                    netns: n.stack.netns.as_ref().map(ToString::to_string),
                    ..view(&n.spec, s.mode, n.parent.as_ref())
                })
                .collect(),
            None => Vec::new(),
        }
    }

    /// False where this program and the running one do not see the same interfaces.
    pub fn is_here(&self, findings: &mut Findings) -> Result<bool, Failure> {
        let Some(pid) = self.running.as_ref().map(|s| s.pid) else { return Ok(true) };
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let (ours, theirs) = (of("self"), of(&pid.to_string()));
        if theirs.is_none() || ours == theirs {
            return Ok(true);
        }
        let name = self.name.as_deref().unwrap_or_default();
        findings.warn(
            "namespace",
            "tap-rs runs in another network namespace, so its interfaces, ports and routes cannot be seen from here",
            format!("look from there: `nsenter -t {pid} -n tap-rs doctor {name}`"),
        )?;
        Ok(false)
    }
}

/// The config of a name.
fn named(name: &str) -> PathBuf {
    Path::new(CONFIGS).join(format!("{name}.toml"))
}

/// The running one's config file, whose path is relative to its own folder.
fn file_of(snapshot: &Snapshot) -> PathBuf {
    let folder = fs::read_link(format!("/proc/{}/cwd", snapshot.pid)).unwrap_or_default();
    folder.join(&snapshot.config)
}
