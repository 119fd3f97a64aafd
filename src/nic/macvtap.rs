//! Macvtaps: interfaces with a MAC of their own on top of another one, and a character device for their frames.
//!
//! The device is `/dev/tap<number>`, with the interface's number. That file may be missing (a container), and in
//! a network namespace it may be another interface's, for numbers repeat between namespaces and `/dev` is shared.
//! `/sys` tells the right device, if it shows our namespace; if it does not, one is mounted that does, where
//! nobody else sees it. A file that is missing or another's is then made in a directory of our own, for as long as
//! opening takes.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tracing::info;

use super::netlink::{Link, MacvlanMode, Netlink, NetlinkError};
use super::{Devices, Nic, NicError, NicRequest, Side, TRIES};
use crate::sys::{process, tun};
use crate::types::{NicMode, NicName};

pub(super) fn open(
    mut netlink: Netlink,
    devices: &dyn Devices,
    request: &NicRequest,
    queues: usize,
) -> Result<(Nic, Vec<File>, Link), NicError> {
    let mut tries = 0..TRIES;
    loop {
        let (link, created) = find_or_make(&mut netlink, devices, request)?;
        match claim(&mut netlink, devices, request, (&link, created), queues) {
            Ok(files) => return Ok((Nic::new(netlink, request, &link, created), files, link)),
            // A killed process had left it, and that one's keeper has just removed it.
            Err(_) if tries.next().is_some() && netlink.link(link.index)?.is_none() => {}
            Err(e) => {
                if created {
                    let _ = netlink.delete_link(link.index);
                }
                return Err(e);
            }
        }
    }
}

/// What is there under that name, or a new one; and whether it is ours to remove.
fn find_or_make(
    netlink: &mut Netlink,
    devices: &dyn Devices,
    request: &NicRequest,
) -> Result<(Link, bool), NicError> {
    let name = &request.spec.name;
    let before = netlink.link(name)?;
    if let Some(kind) = before.as_ref().map(Link::kind_name).filter(|kind| *kind != "macvtap") {
        return Err(NicError::WrongKind { name: name.clone(), kind: kind.into(), wanted: NicMode::Macvtap });
    }
    match before {
        Some(link) => match maker(&link) {
            None => Ok((link, false)),
            Some(pid) if pid != std::process::id() && devices.runs(pid) => Err(NicError::Busy(name.clone())),
            Some(_) => Ok((take_over(netlink, request, link)?, true)),
        },
        None => Ok((create(netlink, request)?, true)),
    }
}

/// Marks it where it is ours, and opens its queues.
fn claim(
    netlink: &mut Netlink,
    devices: &dyn Devices,
    request: &NicRequest,
    (link, created): (&Link, bool),
    queues: usize,
) -> Result<Vec<File>, NicError> {
    let name = &request.spec.name;
    if created {
        netlink.set_alias(link.index, &mark(std::process::id()))?;
    }
    let files = (0..queues).map(|_| attach(devices, name, link.index));
    files
        .collect::<io::Result<Vec<_>>>()
        .map_err(|e| NicError::queue(name, "open the character device of", e))
}

/// How the alias of a macvtap that we made begins: unlike a tap it outlives a process that was killed. That one's
/// number follows.
const OURS: &str = "made by tap-rs, process ";

/// The process that made a macvtap, if it was one of us.
pub fn maker(link: &Link) -> Option<u32> {
    link.alias.as_deref()?.strip_prefix(OURS)?.parse().ok()
}

/// How the alias of an interface begins that was there before, while one of us has it. That one's number follows.
const HELD: &str = "held by tap-rs, process ";

/// The process that has an interface which was there before.
pub(super) fn holder(link: &Link) -> Option<u32> {
    link.alias.as_deref()?.strip_prefix(HELD)?.parse().ok()
}

/// The alias of an interface that this process has, and has not made.
pub(super) fn hold() -> String {
    format!("{HELD}{}", std::process::id())
}

/// The alias of a macvtap that the process of this number has made, or taken over.
pub(super) fn mark(process: u32) -> String {
    format!("{OURS}{process}")
}

/// Goes on with what a killed process left, or makes it anew where it is on another parent than it should.
fn take_over(netlink: &mut Netlink, request: &NicRequest, link: Link) -> Result<Link, NicError> {
    info!(nic = %link.name, "left by an earlier run: taken over");
    let Some(parent) = &request.parent else { return Ok(link) };
    if netlink.link(parent)?.is_some_and(|parent| link.parent == Some(parent.index)) {
        return Ok(link);
    }
    match netlink.delete_link(link.index) {
        // Its keeper was faster.
        Err(e) if e.errno() == Some(libc::ENODEV) => {}
        other => other?,
    }
    create(netlink, request)
}

fn create(netlink: &mut Netlink, request: &NicRequest) -> Result<Link, NicError> {
    let name = &request.spec.name;
    let Some(parent) = &request.parent else { return Err(NicError::NoParent(name.clone())) };
    let Some(on) = netlink.link(parent)? else {
        let mut known: Vec<_> = netlink.links()?.into_iter().map(|l| l.name).collect();
        known.sort_unstable();
        let known = known.join(", ");
        return Err(NicError::ParentMissing { name: name.clone(), parent: parent.clone(), known });
    };
    if let Some(bridge) = netlink.master_of(&on)? {
        let (name, parent) = (name.clone(), parent.clone());
        return Err(NicError::ParentInBridge { name, parent, bridge: bridge.name });
    }
    if request.configure && u32::from(request.spec.mtu.bytes()) > on.mtu {
        return Err(mtu_too_large(request, &on));
    }
    match request.side {
        // It is the NIC on this LAN.
        Side::Client => {
            let mac = request.configure.then_some(request.spec.mac);
            netlink.create_macvtap(name, on.index, MacvlanMode::Bridge, mac)?;
        }
        // The NIC is a machine on its parent; this stands in for everyone whom that machine talks to.
        Side::Server => netlink.create_macvtap(name, on.index, MacvlanMode::Passthru, None)?,
    }
    match netlink.link(name)? {
        Some(link) => Ok(link),
        None => Err(NicError::queue(name, "find", ErrorKind::NotFound.into())),
    }
}

pub(super) fn mtu_too_large(request: &NicRequest, parent: &Link) -> NicError {
    NicError::MtuTooLarge {
        name: request.spec.name.clone(),
        mtu: request.spec.mtu,
        parent: parent.name.clone(),
        parent_mtu: parent.mtu,
    }
}

impl Netlink {
    /// The bridge that has taken a link's frames, if one has.
    fn master_of(&mut self, link: &Link) -> Result<Option<Link>, NetlinkError> {
        let Some(master) = link.master else { return Ok(None) };
        Ok(self.link(master)?.filter(|m| m.kind.as_deref() == Some("bridge")))
    }
}

/// The numbers of a character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Device {
    major: u32,
    minor: u32,
}

pub(super) fn open_device(name: &NicName, index: u32) -> io::Result<File> {
    let device = find_device(name, index)?;
    let usual = PathBuf::from(format!("/dev/tap{index}"));
    let file = if device.is_at(&usual) {
        tun::open(&usual)?
    } else {
        tun::open(&PrivateNode::make(device, index)?.path())?
    };
    if tun::interface(&file)? != name.as_str() {
        return Err(io::Error::other("it belongs to another interface"));
    }
    Ok(file)
}

fn attach(devices: &dyn Devices, name: &NicName, index: u32) -> io::Result<File> {
    let file = devices.macvtap(name, index)?;
    tun::attach_macvtap(&file)?;
    Ok(file)
}

fn find_device(name: &NicName, index: u32) -> io::Result<Device> {
    if let Some(device) = read_device(name, index) {
        return Ok(device);
    }
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            process::new_mounts()?;
            process::mount_sysfs(Path::new("/sys"))?;
            read_device(name, index).ok_or_else(|| io::Error::other("/sys does not show it"))
        });
        elsewhere.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()))
    })
}

/// What `/sys` says, if it speaks of this interface and not of one of the same name elsewhere.
fn read_device(name: &NicName, index: u32) -> Option<Device> {
    let sys = Path::new("/sys/class/net").join(name.as_str());
    let shown: u32 = fs::read_to_string(sys.join("ifindex")).ok()?.trim().parse().ok()?;
    if shown != index {
        return None;
    }
    let at = |folder: &str| fs::read_to_string(sys.join(format!("{folder}tap{index}/dev"))).ok();
    let text = at("").or_else(|| at("macvtap/"))?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

impl Device {
    fn is_at(self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|m| {
            m.file_type().is_char_device() && m.rdev() == libc::makedev(self.major, self.minor)
        })
    }
}

/// A device file in a directory that only we can enter; both go when it is dropped.
struct PrivateNode {
    folder: PathBuf,
}

impl PrivateNode {
    /// `/run` and `/tmp` are often mounted so that devices in them cannot be opened; then the next is tried.
    fn make(device: Device, index: u32) -> io::Result<Self> {
        let mut error = io::Error::from(ErrorKind::NotFound);
        for place in ["/dev", "/run", "/tmp"] {
            match Self::make_in(Path::new(place), device, index) {
                Ok(node) => return Ok(node),
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    fn make_in(place: &Path, device: Device, index: u32) -> io::Result<Self> {
        let folder =
            place.join(format!(".tap-rs-{}-{index}-{:08x}", std::process::id(), rand::random::<u32>()));
        // Fails where there is something of that name, a link of somebody else's for one.
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let node = Self { folder };
        process::make_char_device(&node.path(), device.major, device.minor)?;
        tun::open(&node.path())?;
        Ok(node)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("tap")
    }
}

impl Drop for PrivateNode {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
        let _ = fs::remove_dir(&self.folder);
    }
}
