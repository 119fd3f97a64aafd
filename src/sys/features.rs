//! What this kernel has, asked without changing anything.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;

use super::privileges::call;
use super::{check, option};

/// The `IFF_*` flags that an open `/dev/net/tun` knows.
///
/// # Errors
/// It is no such device.
pub fn tun_flags(tun: &File) -> io::Result<u32> {
    let mut flags: u32 = 0;
    // SAFETY: the kernel writes one `unsigned int`.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETFEATURES, &raw mut flags) })?;
    Ok(flags)
}

/// The version of landlock, from 1.
///
/// # Errors
/// `ENOSYS`, `EOPNOTSUPP`: there is none, or it is switched off.
pub fn landlock() -> io::Result<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag there is no pointer.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    call(abi)?;
    Ok(u32::try_from(abi).unwrap_or(0))
}

/// Whether a UDP socket can send and receive trains (`UDP_SEGMENT`, `UDP_GRO`).
pub fn udp_trains(socket: &UdpSocket) -> (bool, bool) {
    let knows = |name: c_int| option(socket.as_fd(), libc::SOL_UDP, name).is_ok();
    (knows(libc::UDP_SEGMENT), knows(libc::UDP_GRO))
}

/// Something keeps the clock right (NTP, PTP); `None`: the kernel does not say.
pub fn clock_is_kept() -> Option<bool> {
    // SAFETY: timex is plain integers, for which zero is a value; with no modes set nothing is changed.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `struct timex`.
    let state = check(unsafe { libc::adjtimex(&raw mut timex) }).ok()?;
    Some(state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_changes_nothing_and_does_not_fail() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(udp_trains(&socket), udp_trains(&socket));
        let _ = clock_is_kept();
        let _ = landlock();
        assert!(tun_flags(&File::open("/dev/null").unwrap()).is_err());
    }
}
