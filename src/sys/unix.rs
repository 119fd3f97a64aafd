//! Unix sockets (unix(7)): a pair of joined ones between two processes, over which messages and open descriptors pass; and
//! a connection that is there at once or not at all.

use std::io::{self, ErrorKind};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use libc::c_int;

use super::check;

/// Most descriptors in one message.
pub const MAX_FDS: usize = 2;

/// One end of a pair. Each message is received as it was sent; an empty one means that the other end is closed.
#[derive(Debug)]
pub struct Messages(OwnedFd);

/// Room for the control message of [`MAX_FDS`] descriptors, aligned for its header.
#[repr(C, align(8))]
struct Control([u8; 64]);

const FDS_LEN: usize = MAX_FDS.saturating_mul(size_of::<RawFd>());
// SAFETY: computes with a number only.
const _: () = assert!(unsafe { libc::CMSG_SPACE(FDS_LEN as u32) } as usize <= size_of::<Control>());

impl Messages {
    /// Two ends that are joined (`SOCK_SEQPACKET`), blocking.
    pub fn pair() -> io::Result<(Self, Self)> {
        let [a, b] = socketpair(libc::SOCK_SEQPACKET)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends a message, which must not be empty, with copies of at most [`MAX_FDS`] descriptors.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.is_empty() || fds.len() > MAX_FDS {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = Control([0; 64]);
        // SAFETY: msghdr is integers and pointers, for which zero is a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            let len = size_of_val(fds) as u32;
            message.msg_control = (&raw mut control).cast();
            // SAFETY: computes with a number only.
            message.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as _;
            // SAFETY: the control buffer has room for one header and `fds`, as asserted above; both places written
            // to lie in it, and are aligned for the header.
            unsafe {
                let head = libc::CMSG_FIRSTHDR(&raw const message);
                (*head).cmsg_level = libc::SOL_SOCKET;
                (*head).cmsg_type = libc::SCM_RIGHTS;
                (*head).cmsg_len = libc::CMSG_LEN(len) as _;
                let data = libc::CMSG_DATA(head).cast::<RawFd>();
                for (i, fd) in fds.iter().enumerate() {
                    data.add(i).write_unaligned(fd.as_raw_fd());
                }
            }
        }
        // SAFETY: every pointer of the message is to something above, with its true length.
        let sent = unsafe { libc::sendmsg(self.0.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for the next message, and gives its bytes and the descriptors that came with it.
    pub fn recv<'a>(&self, room: &'a mut [u8]) -> io::Result<(&'a [u8], Vec<OwnedFd>)> {
        let mut part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let mut control = Control([0; 64]);
        // SAFETY: msghdr is integers and pointers, for which zero is a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        let got = loop {
            // SAFETY: every pointer of the message is to something above, with its true length.
            let got = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
            match usize::try_from(got) {
                Ok(got) => break got,
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        };
        let fds = descriptors(&message);
        if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok((room.get(..got).unwrap_or_default(), fds))
    }
}

/// Takes the descriptors of a received message over.
// The length is a `usize` with glibc, and a `u32` with musl.
#[allow(clippy::unnecessary_cast)]
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled the control buffer, which `message` describes and which is still there; the
    // macros stay in it. Each descriptor in an SCM_RIGHTS message is new, and nobody else's.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while let Some(h) = head.as_ref() {
            if (h.cmsg_level, h.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let bytes = (h.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(head).cast::<RawFd>();
                for i in 0..bytes.div_euclid(size_of::<RawFd>()) {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            head = libc::CMSG_NXTHDR(message, head);
        }
    }
    fds
}

impl AsFd for Messages {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Connects to the socket at `path`, without waiting where more wait there than its queue takes.
///
/// # Errors
/// `ConnectionRefused`: nobody listens there any more. `WouldBlock`: whoever listens has not accepted for long.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    // SAFETY: sockaddr_un is an integer and bytes, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = path.as_os_str().as_bytes();
    // A zero ends it.
    if name.is_empty() || name.contains(&0) || name.len() >= address.sun_path.len() {
        return Err(ErrorKind::InvalidInput.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = from.cast_signed() as _;
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the kernel has just made it, and nothing else knows it.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the pointer and the size describe `address`, which outlives the call; the descriptor is ours.
    check(unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), size) })?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn socketpair(kind: c_int) -> io::Result<[OwnedFd; 2]> {
    let mut fds: [c_int; 2] = [-1; 2];
    // SAFETY: the kernel writes two descriptors into `fds`.
    check(unsafe {
        libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, (&raw mut fds).cast::<c_int>())
    })?;
    // SAFETY: the kernel has just made them, and nothing else knows them.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn messages_stay_apart_and_bring_descriptors() {
        let (a, b) = Messages::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        a.send(b"one", &[]).unwrap();
        a.send(b"two", &[writer.as_fd(), writer.as_fd()]).unwrap();
        drop(writer);
        let mut room = [0; 16];
        let (bytes, fds) = b.recv(&mut room).unwrap();
        assert_eq!((bytes, fds.len()), (&b"one"[..], 0));
        let (bytes, mut fds) = b.recv(&mut room).unwrap();
        assert_eq!((bytes, fds.len()), (&b"two"[..], 2));
        File::from(fds.pop().unwrap()).write_all(b"through").unwrap();
        drop(fds);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn a_closed_end_is_an_empty_message_and_an_error() {
        let (a, b) = Messages::pair().unwrap();
        drop(a);
        assert_eq!(b.recv(&mut [0; 4]).unwrap().0, b"");
        assert_eq!(b.send(b"x", &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_connection_reads_and_writes_and_waits_as_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert_eq!(connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        let mut ours = connect(&path).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let echo = std::thread::spawn(move || {
            let mut byte = [0];
            ours.read_exact(&mut byte).map(|()| byte[0])
        });
        theirs.write_all(b"x").unwrap();
        assert_eq!(echo.join().unwrap().unwrap(), b'x');
        drop(listener);
        assert_eq!(connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        for bad in ["", "a\0b", &"x".repeat(108)] {
            assert_eq!(connect(Path::new(bad)).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (a, b) = Messages::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        assert!(a.send(b"", &[]).is_err());
        assert!(a.send(b"x", &[null.as_fd(); 3]).is_err());
        a.send(b"12345", &[null.as_fd()]).unwrap();
        assert_eq!(b.recv(&mut [0; 4]).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
