//! What cannot be meant for us is dropped by the kernel before it is queued: nobody wakes up, nothing is copied
//! (`SO_ATTACH_FILTER`, socket(7)).
//!
//! The kernel may have joined datagrams of one sender into a train (UDP GRO), which passes or is dropped as a whole. What a
//! train begins with is looked at, and where that is shorter than the train, the start of what follows. So whoever
//! receives checks all of it again; what is dropped here is only what it would have dropped.

use std::io;
use std::mem::size_of_val;
use std::os::fd::AsRawFd;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_LEN, BPF_RET, BPF_W,
    sock_filter, socklen_t,
};

use super::UdpSocket;
use super::bpf::op;
use crate::sys::check;

/// The datagrams that may come to a socket.
#[derive(Clone, Debug)]
pub struct Admission<'a> {
    /// Each of them, and each that the kernel has joined to it, has these bits.
    pub begins: Bits,
    /// The third byte is one of these, at most 100.
    pub thirds: &'a [u8],
    /// The first byte says what the rest is.
    pub kinds: &'a [Kind<'a>],
}

/// Datagrams of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    /// Their first byte.
    pub first: u8,
    /// Their length in bytes.
    pub length: Length,
    /// What else they have, at most 10 of it.
    pub has: &'a [Bits],
}

/// How long a datagram is, in bytes.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// So long.
    Exactly(u16),
    /// So long or longer.
    AtLeast(u16),
}

/// Four bytes of a datagram, in network order, of which some bits are known.
#[derive(Clone, Copy, Debug)]
pub struct Bits {
    /// Where they are.
    pub at: u16,
    /// Which bits.
    pub mask: u32,
    /// What they are.
    pub value: u32,
}

/// The kernel shows a filter the UDP header, too.
const UDP_HEADER: u32 = 8;

/// What a filter returns is how many bytes pass.
const ALL: u32 = u32::MAX;
const NONE: u32 = 0;

/// `SK_MEMINFO_DROPS` and `SK_MEMINFO_VARS` (linux/sock_diag.h).
const DROPS: usize = 8;
const VARS: usize = 9;

impl UdpSocket {
    /// From now on only these come in. The rest is counted by [`Self::dropped`].
    ///
    /// # Errors
    /// The kernel takes no filter; everything comes in.
    pub fn admit(&self, admission: &Admission<'_>) -> io::Result<()> {
        self.attach(libc::SO_ATTACH_FILTER, &mut program(admission))
    }

    /// How many datagrams, or trains of them, the kernel has dropped at this socket, modulo 2^32: those that were not admitted,
    /// those whose checksum was wrong, and those that found its buffer full. It does not tell them apart.
    ///
    /// # Errors
    /// The kernel (before Linux 4.12) does not say.
    pub fn dropped(&self) -> io::Result<u32> {
        let mut info = [0u32; VARS];
        let mut size = size_of_val(&info) as socklen_t;
        // SAFETY: the kernel writes at most `size` bytes into `info`; both outlive the call.
        check(unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &mut size,
            )
        })?;
        Ok(info.get(DROPS).copied().unwrap_or(0))
    }
}

/// A load from behind the end of a datagram drops it.
fn program(admission: &Admission<'_>) -> Vec<sock_filter> {
    let mut program = Vec::new();
    demand(&mut program, admission.begins);
    program.push(load(BPF_B, 2));
    for (i, third) in admission.thirds.iter().enumerate() {
        let left = admission.thirds.len().saturating_sub(i);
        program.push(op(BPF_JMP | BPF_JEQ | BPF_K, (*third).into(), u8::try_from(left).unwrap_or(0), 0));
    }
    program.push(end(NONE));
    program.push(load(BPF_B, 0));
    for kind in admission.kinds {
        let body = body(kind, admission.begins);
        let over = u8::try_from(body.len()).unwrap_or(0);
        program.push(op(BPF_JMP | BPF_JEQ | BPF_K, kind.first.into(), 0, over));
        program.extend(body);
    }
    program.push(end(NONE));
    program
}

/// What is asked of one kind; it always comes to an end.
fn body(kind: &Kind<'_>, begins: Bits) -> Vec<sock_filter> {
    let mut body = Vec::new();
    kind.has.iter().for_each(|bits| demand(&mut body, *bits));
    body.push(op(BPF_LD | BPF_W | BPF_LEN, 0, 0, 0));
    match kind.length {
        Length::Exactly(n) => {
            let len = UDP_HEADER.saturating_add(n.into());
            body.extend([op(BPF_JMP | BPF_JEQ | BPF_K, len, 0, 1), end(ALL)]);
            demand(&mut body, Bits { at: begins.at.saturating_add(n), ..begins });
        }
        Length::AtLeast(n) => {
            let len = UDP_HEADER.saturating_add(n.into());
            body.extend([op(BPF_JMP | BPF_JGE | BPF_K, len, 1, 0), end(NONE)]);
        }
    }
    body.push(end(ALL));
    body
}

fn demand(program: &mut Vec<sock_filter>, Bits { at, mask, value }: Bits) {
    program.extend([
        load(BPF_W, at),
        op(BPF_ALU | BPF_AND | BPF_K, mask, 0, 0),
        op(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0),
        end(NONE),
    ]);
}

fn load(size: u32, at: u16) -> sock_filter {
    op(BPF_LD | size | BPF_ABS, UDP_HEADER.saturating_add(at.into()), 0, 0)
}

fn end(bytes: u32) -> sock_filter {
    op(BPF_RET | BPF_K, bytes, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::udp::RecvBatch;
    use crate::types::Path;

    const ADMISSION: Admission<'_> = Admission {
        begins: Bits { at: 0, mask: 0x00ff_00ff, value: 0x0001_0000 },
        thirds: &[2, 0x11],
        kinds: &[
            Kind { first: 1, length: Length::Exactly(12), has: &[Bits { at: 8, mask: u32::MAX, value: 0 }] },
            Kind {
                first: 5,
                length: Length::AtLeast(16),
                has: &[Bits { at: 4, mask: 0xff00_0000, value: 0x7700_0000 }],
            },
        ],
    };
    const FIRST: [u8; 12] = [1, 1, 2, 0, 9, 9, 9, 9, 0, 0, 0, 0];
    const FIFTH: [u8; 16] = [5, 1, 0x11, 0, 0x77, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];

    fn socket(addr: &str) -> UdpSocket {
        UdpSocket::bind(addr.parse().unwrap(), false).unwrap()
    }

    fn got(socket: &UdpSocket) -> usize {
        let mut batch = RecvBatch::new(8);
        // A datagram over the loopback device is there when `send` returns.
        batch.recv(socket, 8).unwrap();
        batch.received().map(|train| train.bytes.len()).sum()
    }

    fn changed(bytes: &[u8], at: usize, to: u8) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[at] = to;
        bytes
    }

    #[test]
    fn what_is_not_admitted_is_dropped_and_counted() {
        for (any, ip) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")] {
            let here = socket(any);
            here.admit(&ADMISSION).unwrap();
            let sender = std::net::UdpSocket::bind((ip, 0)).unwrap();
            sender.connect((ip, here.local_addr().unwrap().port())).unwrap();
            let longer = [&FIFTH[..], &[0; 1400]].concat();
            for bytes in [&FIRST[..], &FIFTH, &longer, &changed(&FIFTH, 15, 1), &changed(&FIRST, 7, 1)] {
                sender.send(bytes).unwrap();
                assert_eq!(got(&here), bytes.len(), "{any} {bytes:?}");
            }
            assert_eq!(here.dropped().unwrap(), 0);
            let wrong = [
                vec![],
                b"nothing of ours".to_vec(),
                changed(&FIRST, 0, 2),
                changed(&FIRST, 1, 2),
                changed(&FIRST, 2, 1),
                changed(&FIRST, 3, 1),
                changed(&FIRST, 11, 1),
                FIRST[..11].to_vec(),
                [&FIRST[..], &[0]].concat(),
                [&FIRST[..], &[1, 0, 2, 0]].concat(),
                changed(&FIFTH, 4, 0x76),
                FIFTH[..15].to_vec(),
            ];
            for bytes in &wrong {
                sender.send(bytes).unwrap();
                assert_eq!(got(&here), 0, "{any} {bytes:?}");
            }
            assert_eq!(here.dropped().unwrap() as usize, wrong.len());
        }
    }

    #[test]
    fn a_train_passes_by_what_it_begins_with() {
        let (from, here) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        here.admit(&ADMISSION).unwrap();
        let to = Path::new(here.local_addr().unwrap(), None);
        let send = |train: &[u8], segment| {
            from.send_segments(&to, train, segment).unwrap();
            got(&here)
        };
        let data = [FIFTH; 20].concat();
        assert_eq!(send(&data, FIFTH.len()), data.len(), "one kind");
        let mixed = [&FIFTH[..], &FIRST].concat();
        assert_eq!(send(&mixed, FIFTH.len()), mixed.len(), "another behind it");
        let questions = [FIRST; 3].concat();
        assert_eq!(send(&questions, FIRST.len()), questions.len(), "several of an exact length");
        let garbage = [[0xee; 16]; 20].concat();
        assert_eq!((here.dropped().unwrap(), send(&garbage, 16)), (0, 0));
        assert!(here.dropped().unwrap() > 0);
    }
}
