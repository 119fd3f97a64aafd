//! The system calls that std does not wrap: the only `unsafe` of the project.
//!
//! One file per noun. Each gives safe types over owned descriptors; what can be done in safe code (building
//! and reading control messages, socket addresses, netlink messages) is done in safe code, so that an `unsafe`
//! block is one call and the reason why its pointers hold. Nothing here knows what a NIC or a session is.

#![allow(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::undocumented_unsafe_blocks
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod clock;
pub mod features;
#[cfg(feature = "full")]
pub mod hold;
#[cfg(feature = "full")]
pub mod inotify;
pub mod landlock;
pub mod limits;
pub mod lock;
pub mod netlink;
pub mod packet;
pub mod poll;
pub mod privileges;
pub mod process;
pub mod script;
pub mod seccomp;
pub mod terminal;
pub mod tun;
pub mod udp;
pub mod unix;
pub mod wipe;

use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_int, socklen_t};

/// The result of a system call that says −1 and `errno` for failure.
fn check(ret: c_int) -> io::Result<c_int> {
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// The name of a file as the kernel reads it.
fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| ErrorKind::InvalidInput.into())
}

/// `setsockopt` with an `int`.
fn set_option(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let size = mem::size_of::<c_int>() as socklen_t;
    // SAFETY: the pointer and the size describe `value`, which outlives the call; the descriptor is borrowed.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) }).map(drop)
}

/// `getsockopt` of an `int`.
fn option(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut size = mem::size_of::<c_int>() as socklen_t;
    // SAFETY: the kernel writes at most `size` bytes into `value`; both outlive the call.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &mut size) })?;
    Ok(value)
}
