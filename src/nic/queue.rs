//! A queue of an interface: where frames are read and written.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::tun::{self, Offloads};

/// An open queue, nonblocking. Each read and each write is one frame, or one super-frame, behind a header of
/// [`VNET_HEADER_LEN`](super::VNET_HEADER_LEN) bytes. Belongs to one worker.
#[derive(Debug)]
pub struct Queue {
    file: File,
    offloads: Offloads,
}

impl Queue {
    pub(super) fn prepare(file: File, wanted: Offloads) -> io::Result<Self> {
        tun::set_vnet_header(&file)?;
        let offloads = tun::set_offloads(&file, wanted)?;
        Ok(Self { file, offloads })
    }

    /// A queue on anything that keeps one write apart from the next, as a pair of datagram sockets does.
    #[cfg(test)]
    pub(crate) fn stand_in(fd: std::os::fd::OwnedFd, offloads: Offloads) -> Self {
        Self { file: fd.into(), offloads }
    }

    /// Another handle on the same queue, for one that only writes.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, offloads: self.offloads })
    }

    /// Reads one frame and returns its length, header included. Room for 65,535 bytes and the header and tags is
    /// enough for any; what does not fit is cut off. `WouldBlock`: there is none.
    ///
    /// A macvtap whose interface is gone says `WouldBlock` for ever: only [`Self::is_attached`] and
    /// [`Events`](super::events::Events) tell. A tap then gives an error.
    pub fn read_vectored(&self, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&self.file).read_vectored(room)
    }

    /// Writes one frame. A macvtap whose interface is gone says that it was written.
    ///
    /// `InvalidInput` (`EINVAL`): the header contradicts the frame. `EIO`, while the interface is down.
    pub fn write_vectored(&self, frame: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(frame)
    }

    /// What the kernel may leave to us in what we read, and we to it in what we write.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Its interface is still there.
    pub fn is_attached(&self) -> bool {
        tun::interface(&self.file).is_ok()
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
