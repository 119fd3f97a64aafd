//! Three network namespaces and the cables between them.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{CLIENT, DemoError, LAN_HOST, NICS, Nic, OrFail, Result, SERVER, Stop};
use crate::nic::netlink::Netlink;
use crate::sys::packet::PacketSocket;
use crate::sys::process::new_netns;
use crate::types::NicName;

pub(super) struct Stage {
    pub(super) lan: Place,
    pub(super) client: Place,
    pub(super) server: Place,
}

impl Stage {
    pub(super) fn build() -> Result<Self> {
        let [lan, client, server] = [(); 3].map(|()| Place::new());
        let stage = Self { lan: lan?, client: client?, server: server? };
        stage.lan.cable("eth0", &stage.client, "lan0")?;
        stage.client.cable("wan0", &stage.server, "wan0")?;
        stage.lan.set_up("eth0", Some((LAN_HOST, 24)))?;
        stage.client.set_up("lan0", None)?;
        stage.client.set_up("wan0", Some((CLIENT, 24)))?;
        stage.server.set_up("wan0", Some((SERVER, 24)))?;
        Ok(stage)
    }

    /// Something once both taps are there with their addresses.
    pub(super) fn server_has_its_nics(&self) -> Result<Option<()>> {
        let mut netlink = self.server.netlink();
        for nic in &NICS {
            let Some(link) = netlink.link(nic.on_server).or_fail("look at the server's box")? else {
                return Ok(None);
            };
            let addresses = netlink.addresses(link.index).or_fail("look at the server's box")?;
            if !addresses.iter().any(|a| a.ip == IpAddr::V4(nic.ip)) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Something once both macvtaps are there.
    pub(super) fn client_has_its_nics(&self) -> Result<Option<()>> {
        let mut all = true;
        for nic in &NICS {
            all &= self.client.has_link(nic.on_client)?;
        }
        Ok(all.then_some(()))
    }

    /// True if no NIC is left on either box.
    pub(super) fn is_bare(&self) -> Result<bool> {
        let mut bare = true;
        for nic in &NICS {
            bare &= !self.client.has_link(nic.on_client)? && !self.server.has_link(nic.on_server)?;
        }
        Ok(bare)
    }

    /// Which MAC a NIC's address has on the LAN, as seen in an answer to an ARP request (RFC 826) that is sent now.
    pub(super) fn neighbour(&self, stop: &Stop, nic: &Nic) -> Result<String> {
        let mac = self.lan.netlink().link("eth0").or_fail("look at the LAN")?.and_then(|link| link.mac);
        let mac = mac.map(|m| m.0).unwrap_or_default();
        let socket = self.lan.inside(|| PacketSocket::open("eth0"))?;
        let mut socket = socket.or_fail("listen on the LAN")?;
        let host = if let IpAddr::V4(ip) = LAN_HOST { ip.octets() } else { [0; 4] };
        let target = nic.ip.octets();
        let head: &[u8] = &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
        let request = [&[0xff; 6], &mac[..], head, &mac, &host, &[0; 6], &target].concat();
        socket.send(&request).or_fail("ask on the LAN")?;
        let found = stop.until(|| {
            let packet = socket.recv(Duration::from_millis(100)).or_fail("listen on the LAN")?;
            Ok(packet.and_then(|p| sender_of_reply(&p.bytes, target)))
        })?;
        found.ok_or_else(|| DemoError::Failed(format!("nobody on the LAN says that {} is theirs", nic.ip)))
    }
}

/// The sender's MAC, if this is an ARP reply from `ip`.
fn sender_of_reply(frame: &[u8], ip: [u8; 4]) -> Option<String> {
    let (head, sender) = frame.get(12..)?.split_at_checked(10)?;
    let (mac, rest) = sender.split_first_chunk::<6>()?;
    let reply = head == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2] && rest.starts_with(&ip);
    reply.then(|| crate::types::MacAddr(*mac).to_string())
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, and the thread that lives in it. Both end with the guard; a child process that the thread
/// started should be one that dies with it.
pub(super) struct Place {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    netns: File,
    netlink: Mutex<Netlink>,
}

impl Place {
    fn new() -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (opened, arrived) = mpsc::channel();
        let live = move || {
            let open = || -> io::Result<_> {
                new_netns()?;
                Ok((File::open("/proc/thread-self/ns/net")?, Netlink::open()?))
            };
            let here = open();
            let works = here.is_ok();
            if opened.send(here).is_ok() && works {
                inbox.iter().for_each(|job| job());
            }
        };
        let thread = std::thread::Builder::new().spawn(live).or_fail("start a thread")?;
        let (netns, netlink) =
            arrived.recv().or_fail("start a thread")?.or_fail("make a network namespace")?;
        let place = Self { jobs: Some(jobs), thread: Some(thread), netns, netlink: Mutex::new(netlink) };
        place.set_up("lo", None)?;
        Ok(place)
    }

    /// Runs `f` in here and returns what it returns. Sockets that it makes stay in here.
    pub(super) fn inside<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || {
            let _ = done.send(f());
        });
        let gone = || DemoError::Failed("a thread of the demo ended early".to_owned());
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(gone)?;
        result.recv().map_err(|_| gone())
    }

    fn netlink(&self) -> std::sync::MutexGuard<'_, Netlink> {
        // A request that broke off half-way leaves nothing half-done in there.
        self.netlink.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn has_link(&self, name: &str) -> Result<bool> {
        Ok(self.netlink().link(name).or_fail("look for an interface")?.is_some())
    }

    fn cable(&self, name: &str, other: &Self, its_name: &str) -> Result<()> {
        let name = name.parse::<NicName>().or_fail("lay a cable")?;
        let peer = its_name.parse::<NicName>().or_fail("lay a cable")?;
        self.netlink().create_veth(&name, &peer, Some(other.netns.as_fd())).or_fail("lay a cable")
    }

    fn set_up(&self, name: &str, address: Option<(IpAddr, u8)>) -> Result<()> {
        let mut netlink = self.netlink();
        let link = netlink.link(name).or_fail("set up a namespace")?;
        let link = link.ok_or_else(|| DemoError::Failed(format!("{name} is not there")))?;
        if let Some((ip, prefix)) = address {
            netlink.add_address(link.index, ip, prefix).or_fail("set up a namespace")?;
        }
        netlink.set_up(link.index, true).or_fail("set up a namespace")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
