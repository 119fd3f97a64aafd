//! Landlock: which files the calling thread, and what it starts, may still open (landlock(7)).

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;

use libc::{c_int, c_long};

use super::features;
use super::privileges::call;

/// What may be done below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read files, list folders.
    Read,
    /// Read and write files that are there.
    Write,
}

// linux/landlock.h
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// Rights to files, by ABI from 1: 13 at first, then moving, truncating, and device ioctls.
const FILES: [u64; 5] = [(1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1, (1 << 16) - 1];
/// Binding and connecting TCP sockets; from ABI 4.
const TCP: u64 = 0b11;
/// Abstract unix sockets and signals to processes outside; from ABI 6.
const SCOPES: u64 = 0b11;
const PATH_BENEATH: c_int = 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Attributes {
    files: u64,
    net: u64,
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: c_int,
}

/// The rules in force. They are for places in the file system; those of `/proc` last as long as they are held here.
#[derive(Debug)]
pub struct Confined {
    /// The kernel's version of landlock.
    pub abi: u32,
    _places: Vec<File>,
}

/// From now on the calling thread opens no file but those below these paths, uses no TCP, and signals nobody but
/// itself and its children, as far as the kernel knows how to see to it. What is open stays open. Paths that do not
/// exist are left out. Needs [`super::privileges::gain_nothing_by_exec`] before.
///
/// # Errors
/// `ENOSYS`, `EOPNOTSUPP`: this kernel has no landlock, or it is switched off.
pub fn confine(paths: &[(&Path, Access)]) -> io::Result<Confined> {
    let abi = features::landlock()?;
    let newest = usize::try_from(abi).unwrap_or(0).saturating_sub(1);
    let files = FILES.get(newest).or(FILES.last()).copied().unwrap_or(0);
    let attributes =
        Attributes { files, net: if abi >= 4 { TCP } else { 0 }, scopes: if abi >= 6 { SCOPES } else { 0 } };
    let rules = create(&attributes)?;
    let mut places = Vec::new();
    for (path, access) in paths {
        let Ok(place) = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path) else { continue };
        let wanted = match access {
            Access::Read => READ_FILE | READ_DIR,
            Access::Write => READ_FILE | READ_DIR | WRITE_FILE,
        };
        let fitting = if place.metadata()?.is_dir() { files } else { files & !READ_DIR };
        allow(&rules, &place, wanted & fitting)?;
        places.push(place);
    }
    // SAFETY: no pointers; the descriptor is ours.
    call(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0u32) })?;
    Ok(Confined { abi, _places: places })
}

fn create(attributes: &Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as it is told, all of them in `attributes`. Older kernels take a longer
    // struct whose tail is zero.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::from_ref(attributes),
            size_of::<Attributes>(),
            0u32,
        )
    };
    call(fd)?;
    let fd = c_int::try_from(fd as c_long).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made it, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn allow(rules: &OwnedFd, place: &File, allowed: u64) -> io::Result<()> {
    let beneath = Beneath { allowed, parent: place.as_raw_fd() };
    // SAFETY: the kernel reads one `Beneath`; both descriptors are open.
    call(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, &raw const beneath, 0u32)
    })
}
