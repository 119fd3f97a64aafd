//! Programs that the kernel runs on each datagram which comes to a socket (classic BPF, linux/filter.h).

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use libc::{c_int, sock_filter, socklen_t};

use super::UdpSocket;
use crate::sys::check;

/// One instruction. The codes of classic BPF have 8 bits.
pub(super) fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

impl UdpSocket {
    /// Has the kernel run a program where the option `name` of `SOL_SOCKET` says.
    pub(super) fn attach(&self, name: c_int, program: &mut [sock_filter]) -> io::Result<()> {
        let len = u16::try_from(program.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
        let size = size_of::<libc::sock_fprog>() as socklen_t;
        // SAFETY: the kernel reads one `sock_fprog` and the instructions that it points to; both outlive the call.
        check(unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const program).cast(), size)
        })
        .map(drop)
    }
}
