//! Taps: `/dev/net/tun` makes them, and a tap that is not persistent goes with its last queue.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::netlink::{Link, Netlink};
use super::{Devices, Nic, NicError, NicRequest};
use crate::sys::tun;
use crate::types::{NicMode, NicName};

pub(super) fn open(
    mut netlink: Netlink,
    devices: &dyn Devices,
    request: &NicRequest,
    queues: usize,
) -> Result<(Nic, Vec<File>, Link), NicError> {
    let name = &request.spec.name;
    let before = netlink.link(name)?;
    if let Some(kind) = before.as_ref().map(Link::kind_name).filter(|kind| *kind != "tun") {
        return Err(NicError::WrongKind { name: name.clone(), kind: kind.into(), wanted: NicMode::Tap });
    }
    let files = attach(devices, request, queues, before.is_some()).map_err(|e| explain(name, e))?;
    let link = match netlink.link(name)? {
        Some(link) => link,
        None => return Err(NicError::queue(name, "find", ErrorKind::NotFound.into())),
    };
    let mut nic = Nic::new(netlink, request, &link, before.is_none());
    let first = files.first().map(File::try_clone).transpose();
    nic.tap = first.map_err(|e| NicError::queue(name, "duplicate a queue of", e))?;
    Ok((nic, files, link))
}

pub(super) fn open_device() -> io::Result<File> {
    tun::open(Path::new("/dev/net/tun"))
}

/// As many queues as are wanted; one of a tap that was made with one.
fn attach(devices: &dyn Devices, request: &NicRequest, queues: usize, exists: bool) -> io::Result<Vec<File>> {
    let (name, netns) = (&request.spec.name, request.stack.netns.as_ref());
    let mut many = queues > 1;
    let first = devices.tun(netns)?;
    match tun::attach_tap(&first, name.as_str(), many) {
        // It was made with one queue and we want several, or for several of which we take one.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) && exists => {
            many = !many;
            tun::attach_tap(&first, name.as_str(), many)?;
        }
        other => other?,
    }
    let mut files = vec![first];
    while many && files.len() < queues {
        let file = devices.tun(netns)?;
        tun::attach_tap(&file, name.as_str(), true)?;
        files.push(file);
    }
    Ok(files)
}

fn explain(name: &NicName, error: io::Error) -> NicError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV) => NicError::NoTunDevice,
        Some(libc::EBUSY) => NicError::Busy(name.clone()),
        // The kernel's word for a tun interface, which carries packets, not frames.
        Some(libc::EINVAL) => {
            NicError::WrongKind { name: name.clone(), kind: "tun".into(), wanted: NicMode::Tap }
        }
        _ => NicError::queue(name, "open the tap", error),
    }
}
