//! Named network namespaces, as ip-netns(8) keeps them: files in `/run/netns` with a namespace mounted on each.
//!
//! What we make says so on its loopback interface: the alias that our macvtaps have too, with the process that made it.
//! So that others see it, it is mounted in the mount namespace of process 1: a service has one of its own. That, and
//! everything here, wants root, and is done in a process for the purpose.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::macvtap::{maker, mark};
use super::netlink::{Link, Netlink, NetlinkError};
use crate::sys::lock;
use crate::sys::process::{bind_mount, enter_mounts, enter_netns, new_netns, share_mounts, unmount};
use crate::types::NetnsName;

const FOLDER: &str = "/run/netns";

/// Interfaces that the kernel puts into every new namespace when their modules are loaded.
const FALLBACK: [&str; 9] =
    ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];

/// Does something in a network namespace, and comes back. Ends the process where there is no way back.
pub fn within<T>(netns: &File, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    enter_netns(netns)?;
    let done = work();
    if enter_netns(&home).is_err() {
        std::process::abort();
    }
    done
}

/// Has this process see and change the mounts that everybody sees. To be called in a process of one thread.
pub fn see_everybodys_mounts() {
    // Where that is not allowed, its own are what there is.
    let _ = File::open("/proc/1/ns/mnt").and_then(enter_mounts);
}

/// The namespace of this name.
pub fn open(name: &NetnsName) -> io::Result<File> {
    File::open(path(name))
}

/// The namespace of this name, made where there is none: then with its loopback interface up, and marked as made by the
/// process with this number. So is one that a process has left that runs no more. One that others have made is refused
/// unless it `may_be_others`.
///
/// To be called in a process for the purpose: it may be in another namespace afterwards.
pub fn open_or_make(
    name: &NetnsName,
    may_be_others: bool,
    process: u32,
    runs: impl Fn(u32) -> bool,
) -> io::Result<File> {
    make_folder()?;
    let turn = turn();
    let found = match File::open(path(name)) {
        Ok(file) if turn.is_some() && is_half(&file) => {
            fs::remove_file(path(name))?;
            None
        }
        Ok(netns) => Some(netns),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let netns = match found {
        Some(netns) => netns,
        None => {
            make(name)?;
            File::open(path(name))?
        }
    };
    let adopt = || {
        let mut netlink = Netlink::open()?;
        let Some(lo) = loopback(&mut netlink)? else { return Ok(()) };
        if maker(&lo).is_none() && !may_be_others {
            return Err(io::Error::other(
                "it is there already, and is not in the config that tap-rs has read; run `tap-rs reload`",
            ));
        }
        if maker(&lo).is_some_and(|pid| pid == NOBODY || !runs(pid)) {
            netlink.set_alias(lo.index, &mark(process)).map_err(refused)?;
            netlink.set_up(lo.index, true).map_err(refused)?;
        }
        Ok(())
    };
    within(&netns, adopt).map_err(|e| explain(name, e))?;
    Ok(netns)
}

/// Removes the namespace if it was made by this program, by a process that runs no more, and holds nothing else.
pub fn remove_if_done(name: &NetnsName, runs: impl Fn(u32) -> bool) -> io::Result<bool> {
    let _turn = turn();
    let Ok(netns) = File::open(path(name)) else { return Ok(false) };
    let is_done = || {
        let mut netlink = Netlink::open()?;
        let links = netlink.links().map_err(refused)?;
        let made = links.iter().filter(|l| is_loopback(l)).filter_map(maker).any(|pid| !runs(pid));
        Ok(made && links.iter().all(|l| is_loopback(l) || FALLBACK.contains(&l.name.as_str())))
    };
    if !within(&netns, is_done)? || is_lived_in(&netns)? {
        return Ok(false);
    }
    let path = path(name);
    unmount(&path)?;
    fs::remove_file(path)?;
    Ok(true)
}

/// Removes every such namespace. Gives their names.
pub fn sweep(runs: impl Fn(u32) -> bool) -> Vec<NetnsName> {
    let Ok(entries) = fs::read_dir(FOLDER) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<NetnsName>().ok());
    names.filter(|name| matches!(remove_if_done(name, &runs), Ok(true))).collect()
}

/// Between being made and being marked by its maker.
const NOBODY: u32 = 0;

/// Whoever has it is the only one that makes, takes over or removes a namespace: a killed program's keeper may be at
/// work when the next is started. iproute2 takes the same lock.
fn turn() -> Option<File> {
    lock::turn(Path::new(FOLDER))
}

/// What one of us has left who was killed before a namespace was mounted on it, or after it was taken off. That of
/// iproute2 has no permissions at all.
fn is_half(file: &File) -> bool {
    let (Ok(file), Ok(folder)) = (file.metadata(), fs::metadata(FOLDER)) else { return false };
    let ours = file.mode() & 0o7777 & !MODE == 0 && file.mode() & 0o400 != 0;
    file.is_file() && file.dev() == folder.dev() && file.len() == 0 && ours
}

/// Of the file that a namespace is mounted on.
const MODE: u32 = 0o444;

fn make_folder() -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(FOLDER)
}

/// As `ip netns add` does.
fn make(name: &NetnsName) -> io::Result<()> {
    let folder = Path::new(FOLDER);
    // A namespace that is removed is to go everywhere, so the folder is a mount that others share.
    if share_mounts(folder).is_err() {
        bind_mount(folder, folder)?;
        share_mounts(folder)?;
    }
    let path = path(name);
    File::options().read(true).write(true).create_new(true).mode(MODE).open(&path)?;
    let home = File::open("/proc/thread-self/ns/net")?;
    let made = new_netns().and_then(|()| {
        let mut netlink = Netlink::open()?;
        if let Some(lo) = loopback(&mut netlink)? {
            netlink.set_alias(lo.index, &mark(NOBODY)).map_err(refused)?;
        }
        bind_mount(Path::new("/proc/thread-self/ns/net"), &path)
    });
    let back = enter_netns(home);
    if made.is_err() {
        let _ = fs::remove_file(&path);
    }
    made.and(back)
}

fn path(name: &NetnsName) -> PathBuf {
    Path::new(FOLDER).join(name.as_str())
}

fn loopback(netlink: &mut Netlink) -> io::Result<Option<Link>> {
    Ok(netlink.links().map_err(refused)?.into_iter().find(is_loopback))
}

fn is_loopback(link: &Link) -> bool {
    link.flags & libc::IFF_LOOPBACK as u32 != 0
}

/// A process is in it.
fn is_lived_in(netns: &File) -> io::Result<bool> {
    let here = format!("net:[{}]", netns.metadata()?.ino());
    let is_here = |process: fs::DirEntry| {
        fs::read_link(process.path().join("ns/net")).is_ok_and(|to| to == Path::new(&here))
    };
    Ok(fs::read_dir("/proc")?.flatten().any(is_here))
}

fn refused(e: NetlinkError) -> io::Error {
    io::Error::other(e.to_string())
}

fn explain(name: &NetnsName, e: io::Error) -> io::Error {
    match e.raw_os_error() {
        Some(libc::EINVAL) => io::Error::other(format!(
            "{FOLDER}/{name} is not a network namespace; remove it with `ip netns del {name}`"
        )),
        _ => e,
    }
}
