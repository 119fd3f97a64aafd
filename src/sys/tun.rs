//! The ioctls of tap and macvtap descriptors (linux/if_tun.h). A macvtap's character device answers a subset
//! of them; each function says where the two differ.

use std::ffi::{c_int, c_short, c_uint, c_void};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::check;

/// Bytes of the virtio-net header before each frame: `struct virtio_net_hdr` without the number of buffers.
pub const VNET_HEADER_LEN: usize = 10;

/// What a queue does on the other side's behalf: with it, reads give super-frames and unfinished checksums, and
/// writes may hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(c_uint);

impl Offloads {
    /// Nothing: whole checksums and frames of at most the MTU.
    pub const NONE: Self = Self(0);
    /// Checksums may be left to the reader.
    pub const CHECKSUM: Self = Self(libc::TUN_F_CSUM);
    /// And TCP segmentation, over IPv4 and IPv6.
    pub const TCP: Self = Self(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6);
    /// And UDP segmentation (Linux 6.2).
    pub const TCP_UDP: Self = Self(Self::TCP.0 | libc::TUN_F_USO4 | libc::TUN_F_USO6);

    /// Reads give frames whose checksum is to be finished by whoever sends them on.
    pub const fn checksum(self) -> bool {
        self.0 & libc::TUN_F_CSUM != 0
    }

    /// Reads give TCP super-frames.
    pub const fn tcp(self) -> bool {
        self.0 & libc::TUN_F_TSO4 != 0
    }

    /// Reads give UDP super-frames.
    pub const fn udp(self) -> bool {
        self.0 & libc::TUN_F_USO4 != 0
    }
}

impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.checksum(), self.tcp(), self.udp()) {
            (false, ..) => "none",
            (true, false, _) => "checksum",
            (true, true, false) => "checksum, TCP",
            (true, true, true) => "checksum, TCP, UDP",
        })
    }
}

/// Opens a queue's device, `/dev/net/tun` or a macvtap's node, nonblocking.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Makes an open `/dev/net/tun` a queue of the tap `name`, which is created where it does not exist, and lives as
/// long as its queues unless it has been made persistent. Frames are behind a vnet header.
///
/// `EBUSY`: somebody else has its queue. `EINVAL`: an interface of another kind, or one that does not have
/// several queues where `multi_queue` asks for them, or has where it does not.
pub fn attach_tap(file: &File, name: &str, multi_queue: bool) -> io::Result<()> {
    let many = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    set_iff(file, name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | many)
}

/// Has an open macvtap node put a vnet header before its frames.
pub fn attach_macvtap(file: &File) -> io::Result<()> {
    match set_iff(file, "", libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) {
        // Some kernels say so of a descriptor that has its flags already.
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// The interface that a queue belongs to. Fails where the interface is gone: `ENOLINK` for a macvtap (whose reads
/// and writes do not tell), `EBADFD` for a tap.
pub fn interface(file: &File) -> io::Result<String> {
    let mut request = IfReq { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    // SAFETY: the kernel writes a `struct ifreq`, for which `request` has room.
    unsafe { ioctl(file, libc::TUNGETIFF, (&raw mut request).cast()) }?;
    let name = request.name.split(|b| *b == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Fixes the vnet header to [`VNET_HEADER_LEN`] bytes.
pub fn set_vnet_header(file: &File) -> io::Result<()> {
    let mut len = VNET_HEADER_LEN as c_int;
    // SAFETY: the kernel reads one `int`.
    unsafe { ioctl(file, libc::TUNSETVNETHDRSZ, (&raw mut len).cast()) }
}

/// Sets the offloads of a queue's whole interface: those in `wanted` that the kernel knows. Returns them.
pub fn set_offloads(file: &File, wanted: Offloads) -> io::Result<Offloads> {
    let mut error = io::Error::from(ErrorKind::Unsupported);
    for some in [Offloads::TCP_UDP, Offloads::TCP, Offloads::CHECKSUM, Offloads::NONE] {
        if some.0 & !wanted.0 != 0 {
            continue;
        }
        // SAFETY: this request's argument is a number, not a pointer.
        match unsafe { ioctl(file, libc::TUNSETOFFLOAD, some.0 as usize as *mut c_void) } {
            Ok(()) => return Ok(some),
            Err(e) => error = e,
        }
    }
    Err(error)
}

/// Has a tap say that its cable is in or out. A macvtap follows its parent instead.
pub fn set_carrier(file: &File, on: bool) -> io::Result<()> {
    let mut on = c_uint::from(on);
    // SAFETY: the kernel reads one `int`.
    unsafe { ioctl(file, libc::TUNSETCARRIER, (&raw mut on).cast()) }
}

/// Has a tap outlive its queues, or not.
pub fn set_persistent(file: &File, on: bool) -> io::Result<()> {
    // SAFETY: this request's argument is a number, not a pointer.
    unsafe { ioctl(file, libc::TUNSETPERSIST, usize::from(on) as *mut c_void) }
}

fn set_iff(file: &File, name: &str, flags: c_int) -> io::Result<()> {
    let mut request =
        IfReq { name: [0; libc::IFNAMSIZ], flags: (flags as c_uint as u16) as c_short, rest: [0; 22] };
    if name.len() >= request.name.len() {
        return Err(ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.name.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the kernel reads a `struct ifreq`, and writes the name back into it.
    unsafe { ioctl(file, libc::TUNSETIFF, (&raw mut request).cast()) }
}

/// `struct ifreq` (linux/if.h) as these ioctls use it.
#[repr(C, align(8))]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    flags: c_short,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<IfReq>() >= size_of::<libc::ifreq>());

/// # Safety
/// `argument` is what `request` takes: a number, or a pointer that is valid for what the kernel reads and
/// writes there.
unsafe fn ioctl(file: &File, request: libc::Ioctl, argument: *mut c_void) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed; the argument is the caller's promise.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, argument) }).map(drop)
}
