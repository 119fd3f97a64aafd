//! The server and the client: their keys and files, and the processes, which are this program.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::screen::Screen;
use super::stage::{Place, Stage};
use super::{DemoError, NICS, OrFail, PORT, Result, SERVER};
use crate::keys::{PrivateKey, PublicKey};
use crate::sys::process::{die_with_parent, signal_group};

const SCRIPT: &str = "#!/bin/sh\n\
    # Pushed by the server, run on the client before its NICs are there.\n\
    echo \"hello, I run as $(id -un) in $(pwd) on the client\"\n";

pub(super) struct Cast {
    dir: Dir,
    server_key: PublicKey,
    server: Option<Actor>,
    client: Option<Actor>,
}

impl Cast {
    /// Makes keys, files and the script in a directory that only root may enter.
    pub(super) fn dress() -> Result<Self> {
        let dir = Dir::new()?;
        let [server, client] = ["server.key", "client.key"].map(|name| {
            let key = PrivateKey::generate(&mut rand::rng());
            key.write_new(&dir.0.join(name)).map(|_| key.public())
        });
        let (server, client) = (server.or_fail("make the keys")?, client.or_fail("make the keys")?);
        dir.write("script.sh", SCRIPT)?;
        dir.write("server.toml", &server_toml(&client))?;
        dir.write("client.toml", &client_toml(&server))?;
        Ok(Self { dir, server_key: server, server: None, client: None })
    }

    pub(super) fn server_key(&self) -> &PublicKey {
        &self.server_key
    }

    /// Where the keys and files are.
    #[cfg(test)]
    pub(super) fn papers(&self) -> &Path {
        &self.dir.0
    }

    pub(super) fn start_server(&mut self, stage: &Stage) -> Result<()> {
        self.server = Some(Actor::start(&stage.server, "server", &self.dir.0.join("server.toml"))?);
        Ok(())
    }

    pub(super) fn start_client(&mut self, stage: &Stage) -> Result<()> {
        self.client = Some(Actor::start(&stage.client, "client", &self.dir.0.join("client.toml"))?);
        Ok(())
    }

    /// An error once one of those started has ended.
    pub(super) fn alive(&mut self) -> Result<()> {
        [&mut self.server, &mut self.client].into_iter().flatten().try_for_each(Actor::alive)
    }

    /// Removes the keys and the files.
    pub(super) fn burn_papers(&self) {
        self.dir.remove();
    }

    /// What the script printed, as the client logged it.
    pub(super) fn script_said(&self) -> Option<String> {
        let lines = self.client.as_ref()?.lines();
        lines.iter().find_map(|line| Some(line.split_once("script: ")?.1.trim().to_owned()))
    }

    /// Shows how far each got.
    pub(super) fn last_words(&self, screen: &Screen) {
        for actor in [&self.server, &self.client].into_iter().flatten() {
            let lines = actor.lines();
            screen.heading(&format!("The {}'s last lines", actor.name));
            lines.iter().skip(lines.len().saturating_sub(8)).for_each(|line| screen.raw(line));
        }
    }

    /// Stops both as a user would, the client first, and makes sure that they took their NICs along.
    pub(super) fn curtain(&mut self, stage: &Stage) -> Result<()> {
        let [client, server] =
            [self.client.take(), self.server.take()].map(|a| a.map_or(Ok(()), Actor::stop));
        client.and(server)?;
        if stage.is_bare()? {
            Ok(())
        } else {
            Err(DemoError::Failed("a NIC was left behind (and goes with its namespace now)".to_owned()))
        }
    }
}

fn server_toml(client: &PublicKey) -> String {
    let mut text = format!(
        "tap_mode = \"tap\"\nrun_mode = \"server\"\nprivate_key = \"server.key\"\nclient_tap_mode = \"macvtap\"\n\n\
         [server]\nbind_addr = \"{SERVER}:{PORT}\"\nscript_path = \"script.sh\"\n\n\
         [[clients]]\nname = \"branch\"\npublic_key = \"{client}\"\n"
    );
    for nic in &NICS {
        text.push_str(&format!(
            "\n[[nics]]\nifname = \"{}\"\nip = \"{}/24\"\nmac = \"{}\"\nclient_ifname = \"{}\"\n",
            nic.on_server, nic.ip, nic.mac, nic.on_client
        ));
    }
    text
}

fn client_toml(server: &PublicKey) -> String {
    let sum: String = Sha256::digest(SCRIPT).iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "run_mode = \"client\"\nprivate_key = \"client.key\"\nuse_remote_config = true\nparent = \"lan0\"\n\
         script = \"pinned\"\nscript_sha256 = [\"{sum}\"]\n\n\
         [server]\nbind_addr = \"{SERVER}:{PORT}\"\npublic_key = \"{server}\"\n"
    )
}

/// A directory for the keys; removed with its guard. In memory where the system has such a place.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("tap-rs-demo-{:016x}", rand::random::<u64>()));
        DirBuilder::new().mode(0o700).create(&path).or_fail("make a directory for the keys")?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).or_fail("write the config")
    }

    /// Once is enough, and not finding it is as good.
    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A running child. Killed with its guard.
struct Actor {
    name: &'static str,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Actor {
    fn start(place: &Place, name: &'static str, config: &Path) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("tap-rs").arg("-c").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Of a group of its own: Ctrl-C is for the demo, which then stops its children in order.
        command.process_group(0);
        die_with_parent(&mut command);
        let child = place.inside(move || command.spawn())?;
        let mut child = child.or_fail("start this program once more")?;
        let lines = Arc::default();
        child.stdout.take().into_iter().for_each(|out| keep(out, &lines));
        child.stderr.take().into_iter().for_each(|err| keep(err, &lines));
        Ok(Self { name, child, lines })
    }

    fn alive(&mut self) -> Result<()> {
        match self.child.try_wait().or_fail("watch a child")? {
            None => Ok(()),
            Some(status) => Err(DemoError::Failed(format!("the {} ended early: {status}", self.name))),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().map(|lines| lines.clone()).unwrap_or_default()
    }

    fn stop(mut self) -> Result<()> {
        // One that has ended by itself shows in its status.
        let _ = signal_group(self.child.id(), libc::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            match self.child.try_wait().or_fail("wait for a child")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(DemoError::Failed(format!("the {} ended with {status}", self.name)));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Err(DemoError::Failed(format!("the {} did not stop when told to, and was killed", self.name)))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = signal_group(self.child.id(), libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Lines of a child's log that are kept.
const KEPT: usize = 1000;

fn keep(from: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(std::result::Result::ok) {
            let Ok(mut lines) = lines.lock() else { return };
            if lines.len() < KEPT {
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
    });
}
