//! Receiving trains of datagrams, several in one system call.

use std::io::{self, ErrorKind};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{c_long, c_uint};

use super::UdpSocket;
use super::ancillary::{Control, SockAddr};
use crate::types::Path;

/// Bytes of one slot: the largest train that UDP GRO makes fits.
pub const SLOT_LEN: usize = 65_536;

/// Most slots of a batch.
pub const MAX_SLOTS: usize = 32;

/// Room for the datagrams of one [`RecvBatch::recv`], used again for the next. The memory of a slot costs
/// nothing until a datagram has been in it.
pub struct RecvBatch {
    memory: Vec<u8>,
    slots: Vec<Slot>,
    filled: usize,
}

struct Slot {
    name: SockAddr,
    control: Control,
    len: usize,
}

/// One train of datagrams from one sender, all of `segment` bytes but the last, which may be shorter.
#[derive(Debug)]
pub struct Received<'a> {
    /// Who sent them, and to which of our addresses.
    pub path: Path,
    /// Bytes of each datagram but the last; at least 1.
    pub segment: usize,
    /// The datagrams, one after another: `bytes.chunks_mut(segment)` gives each.
    pub bytes: &'a mut [u8],
}

impl RecvBatch {
    /// A batch of `slots` trains, 1 to 32. 4 to 8 are enough for one queue.
    pub fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, MAX_SLOTS);
        let slot = || Slot { name: SockAddr::empty(), control: Control::empty(), len: 0 };
        // A zeroed vector of this size is fresh pages from the kernel, mapped when first touched.
        let memory = vec![0; slots.saturating_mul(SLOT_LEN)];
        Self { memory, slots: std::iter::repeat_with(slot).take(slots).collect(), filled: 0 }
    }

    /// Takes what the socket holds, up to `most` trains and not more than there are slots, without waiting. `Ok(0)`: it
    /// holds nothing. As many as it might have been: there may be more.
    pub fn recv(&mut self, socket: &UdpSocket, most: usize) -> io::Result<usize> {
        self.filled = 0;
        let most = most.min(self.slots.len());
        let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_SLOTS];
        let mut headers = [const { MaybeUninit::<MmsgHdr>::uninit() }; MAX_SLOTS];
        let places = self.memory.chunks_exact_mut(SLOT_LEN).zip(&mut self.slots).take(most);
        for (((memory, slot), iovec), header) in places.zip(&mut iovecs).zip(&mut headers) {
            let iov_base = memory.as_mut_ptr().cast();
            let iovec = iovec.write(libc::iovec { iov_base, iov_len: memory.len() });
            // SAFETY: `MmsgHdr` is plain data, for which all zero is a value (no room for anything).
            let header = header.write(unsafe { mem::zeroed() });
            header.msg.msg_name = slot.name.as_mut_ptr().cast();
            header.msg.msg_namelen = SockAddr::ROOM as _;
            header.msg.msg_iov = iovec;
            header.msg.msg_iovlen = 1;
            header.msg.msg_control = slot.control.as_mut_ptr();
            header.msg.msg_controllen = Control::ROOM as _;
        }
        // SAFETY: each of the first `most` headers points at a name, an iovec, that iovec's memory and
        // a control buffer of the lengths given, all apart from one another and alive and not otherwise
        // borrowed until the call has returned. `recvmmsg` goes through `syscall` because the libc crate has
        // no binding for musl; a null timeout never expires, and MSG_DONTWAIT never waits.
        let n = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                socket.as_fd().as_raw_fd() as c_long,
                headers.as_mut_ptr(),
                most as c_long,
                libc::MSG_DONTWAIT as c_long,
                ptr::null_mut::<libc::timespec>(),
            )
        };
        let Ok(n) = usize::try_from(n) else { return nothing_or(io::Error::last_os_error()) };
        for (slot, header) in self.slots.iter_mut().zip(&headers).take(n.min(most)) {
            // SAFETY: the first `most` were written above.
            let header = unsafe { header.assume_init_ref() };
            slot.len = (header.len as usize).min(SLOT_LEN);
            slot.control.set_len(header.msg.msg_controllen as _);
        }
        self.filled = n;
        Ok(n)
    }

    /// What the last [`Self::recv`] brought.
    pub fn received(&mut self) -> impl Iterator<Item = Received<'_>> {
        let places = self.memory.chunks_exact_mut(SLOT_LEN).zip(&self.slots);
        places.take(self.filled).filter_map(|(memory, slot)| slot.received(memory))
    }

    /// The train in slot `i`, from 0, if the last [`Self::recv`] filled it.
    pub fn slot(&mut self, i: usize) -> Option<Received<'_>> {
        let slot = self.slots.get(..self.filled)?.get(i)?;
        slot.received(self.memory.chunks_exact_mut(SLOT_LEN).nth(i)?)
    }

    /// How many trains one [`Self::recv`] takes at the most.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The bytes of slot `i`, to look at; empty where the last [`Self::recv`] did not fill it.
    pub fn bytes(&self, i: usize) -> &[u8] {
        let len = self.slots.get(..self.filled).and_then(|s| s.get(i)).map_or(0, |s| s.len);
        self.memory.chunks_exact(SLOT_LEN).nth(i).and_then(|m| m.get(..len)).unwrap_or_default()
    }
}

impl Slot {
    fn received<'a>(&self, memory: &'a mut [u8]) -> Option<Received<'a>> {
        let bytes = memory.get_mut(..self.len)?;
        let path = Path::new(self.name.decode()?, self.control.destination());
        let whole = bytes.len().max(1);
        let segment = self.control.segment().filter(|s| (1..whole).contains(s)).unwrap_or(whole);
        Some(Received { path, segment, bytes })
    }
}

/// `struct mmsghdr` (recvmmsg(2)).
#[repr(C)]
struct MmsgHdr {
    msg: libc::msghdr,
    len: c_uint,
}

fn nothing_or(e: io::Error) -> io::Result<usize> {
    match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(0),
        _ => Err(e),
    }
}
