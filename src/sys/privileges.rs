//! Giving privileges up: capabilities (capabilities(7)), core dumps, gaining new ones by exec.

use std::io;
use std::ptr;

use libc::{c_int, c_ulong};

use super::check;

/// Configure interfaces, addresses, routes (linux/capability.h).
pub const CAP_NET_ADMIN: u32 = 12;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct`; two of them, for 64 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability of the calling thread but `keep` (of the first 32), also for what it starts later.
pub fn keep_capability(keep: u32) -> io::Result<()> {
    let mut capability: c_ulong = 0;
    // SAFETY: no pointers. Fails at the first number that the kernel does not know, and without CAP_SETPCAP.
    while unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } == 0 {
        capability = capability.saturating_add(1);
    }
    // SAFETY: no pointers. Kernels before 4.3 have no ambient set.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0, 0, 0) };
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: the kernel reads the header and writes two sets.
    call(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    let [low, _] = sets;
    let kept = low.permitted & 1u32.checked_shl(keep).unwrap_or(0);
    let sets = [Sets { effective: kept, permitted: kept, inheritable: 0 }, Sets::default()];
    // SAFETY: the kernel reads the header and two sets.
    call(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) })
}

/// No program that this thread starts gets more than it has itself (`PR_SET_NO_NEW_PRIVS`).
pub fn gain_nothing_by_exec() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as c_ulong, 0, 0, 0) }).map(drop)
}

/// No core file, whatever happens.
pub fn dump_no_core() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads one `rlimit`.
    check(unsafe { libc::prlimit(0, libc::RLIMIT_CORE, &raw const none, ptr::null_mut()) }).map(drop)
}

/// The result of `syscall`.
pub(super) fn call(ret: libc::c_long) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
