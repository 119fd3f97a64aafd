//! What the tunnel gives up before it listens to anybody.
//!
//! ```text
//!   keys read, port bound ─▶ confine: CAP_NET_ADMIN alone, landlock ─▶ threads, NICs ─▶ filter: seccomp ─▶ the network
//! ```
//!
//! What needs more is done by the [keeper](super::keeper). Each step that this kernel does not know is left out, with a
//! line in the log.

use std::io;
use std::path::{Path, PathBuf};

use libc::c_long;
use tracing::{debug, warn};

use crate::sys::landlock::{self, Access, Confined};
use crate::sys::privileges::{CAP_NET_ADMIN, dump_no_core, gain_nothing_by_exec, keep_capability};
use crate::sys::process::keep_memory_private;
use crate::sys::seccomp::{self, Verdict};

/// What stays in force as long as it is held.
#[derive(Debug)]
pub struct Sandbox(#[allow(dead_code)] Option<Confined>);

/// Keeps this process's memory to itself: no core, no debugger without privileges. Before it knows a secret.
pub fn keep_secrets() {
    note("keep its memory from debuggers", keep_memory_private());
    note("switch core dumps off", dump_no_core());
}

/// Gives up what this thread, and those that it will start, do not need: all capabilities but one, and all files but
/// what is below `folders`, to be read, and three in `/proc`.
pub fn confine(folders: &[PathBuf]) -> Sandbox {
    note("give up capabilities", keep_capability(CAP_NET_ADMIN));
    note("refuse new privileges", gain_nothing_by_exec());
    let own = [
        // How an interface answers ARP, and whether it has IPv6; what a client's report says.
        (Path::new("/proc/sys/net/ipv4/conf"), Access::Write),
        (Path::new("/proc/sys/net/ipv6/conf"), Access::Write),
        (Path::new("/proc/loadavg"), Access::Read),
        (Path::new("/proc/meminfo"), Access::Read),
    ];
    let folders = folders.iter().map(|folder| (folder.as_path(), Access::Read));
    match landlock::confine(&own.into_iter().chain(folders).collect::<Vec<_>>()) {
        Ok(confined) => {
            debug!(abi = confined.abi, "files are confined by landlock");
            Sandbox(Some(confined))
        }
        Err(e) => {
            warn!("this kernel has no landlock ({e}): tap-rs may open every file that root may");
            Sandbox(None)
        }
    }
}

/// Holds every thread to the system calls that forwarding takes. Threads can no longer be started.
pub fn filter() {
    match seccomp::filter(&rules()) {
        Ok(()) => debug!("system calls are confined by seccomp"),
        Err(e) => warn!("this kernel filters no system calls ({e}): tap-rs may make any"),
    }
}

fn note(what: &str, done: io::Result<()>) {
    if let Err(e) = done {
        warn!("cannot {what}: {e}");
    }
}

/// The calls that carry frames stand first.
const ALLOWED: &[c_long] = &[
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvmmsg,
    libc::SYS_sendmsg,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvmsg,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmmsg,
    libc::SYS_ppoll,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_memfd_create,
    // Files: which, landlock says.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    // Sockets: of which families, see below.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    // Memory: not to be executed, see below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Time, signals, threads that are there, the end.
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The older names of some, by which C libraries still call them.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Whoever tries these has taken the process over.
const KILLING: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_mount,
    libc::SYS_unshare,
    libc::SYS_setns,
];

/// What is asked of descriptors.
const REQUESTS: &[libc::Ioctl] = &[
    libc::TUNSETIFF,
    libc::TUNGETIFF,
    libc::TUNSETVNETHDRSZ,
    libc::TUNSETOFFLOAD,
    libc::TUNSETCARRIER,
    libc::FIONBIO as libc::Ioctl,
    libc::TCGETS as libc::Ioctl,
];

fn rules() -> Vec<(c_long, Verdict)> {
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let some = |argument, values: &[i32]| {
        Verdict::IfOneOf(argument, values.iter().map(|v| u32::from_ne_bytes(v.to_ne_bytes())).collect())
    };
    let no_code = || Verdict::Unless(2, libc::PROT_EXEC as u32);
    let mut rules: Vec<_> = OLDER.iter().chain(ALLOWED).map(|call| (*call, Verdict::Allow)).collect();
    rules.extend([
        (libc::SYS_ioctl, Verdict::IfOneOf(1, REQUESTS.iter().map(|r| *r as u32).collect())),
        (libc::SYS_socket, some(0, &families)),
        (libc::SYS_socketpair, some(0, &[libc::AF_UNIX])),
        (libc::SYS_mmap, no_code()),
        (libc::SYS_mprotect, no_code()),
        // To abort with.
        (libc::SYS_tgkill, Verdict::IfOneOf(0, vec![std::process::id()])),
    ]);
    rules.extend(KILLING.iter().map(|call| (*call, Verdict::Kill)));
    rules
}
