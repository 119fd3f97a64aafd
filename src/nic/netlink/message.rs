//! Netlink messages and attributes as bytes (`struct nlmsghdr`, `nlattr`, `nlmsgerr`: linux/netlink.h).
//!
//! ```text
//! length(4) type(2) flags(2) sequence(4) port(4) | fixed body | attributes: length(2) type(2) value, padded to 4
//! ```
//! All numbers are in host order. Parsing skips what it does not know and ends at what is broken.

/// A request being built.
pub(super) struct Message {
    flags: u16,
    bytes: Vec<u8>,
}

const HEADER: usize = 16;

impl Message {
    /// A request of type `kind` (`RTM_*`) with the flags that the type needs (`NLM_F_CREATE`, `NLM_F_DUMP` …).
    pub(super) fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(body);
        pad(&mut bytes);
        Self { flags: u16::try_from(flags).unwrap_or(0), bytes }
    }

    /// Adds an attribute.
    #[must_use]
    pub(super) fn attr(self, kind: u16, value: &[u8]) -> Self {
        self.nested(kind, |m| m.raw(value))
    }

    /// Adds an attribute, if there is a value.
    #[must_use]
    pub(super) fn maybe(self, kind: u16, value: Option<impl AsRef<[u8]>>) -> Self {
        match value {
            Some(value) => self.attr(kind, value.as_ref()),
            None => self,
        }
    }

    /// Adds a number of 32 bits.
    #[must_use]
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds a text with the zero byte that ends it.
    #[must_use]
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.nested(kind, |m| m.raw(value.as_bytes()).raw(&[0]))
    }

    /// Adds an attribute whose value `fill` adds.
    #[must_use]
    pub(super) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        let mut this = fill(self);
        // Names, addresses and a few numbers: nothing near 64 KiB.
        let len = u16::try_from(this.bytes.len().saturating_sub(start)).unwrap_or(u16::MAX);
        this.put(start, &len.to_ne_bytes());
        pad(&mut this.bytes);
        this
    }

    /// Adds bytes as they are: a fixed body within an attribute.
    #[must_use]
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The whole message.
    pub(super) fn finish(mut self, flags: u16, sequence: u32) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.put(0, &len.to_ne_bytes());
        self.put(6, &(self.flags | flags).to_ne_bytes());
        self.put(8, &sequence.to_ne_bytes());
        self.bytes
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A message of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parsed<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    flags: u16,
    /// What comes after the header: a fixed body, then attributes.
    pub(crate) body: &'a [u8],
}

/// The messages in what was received at once.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Parsed<'_>> {
    std::iter::from_fn(move || {
        let (message, rest) = Parsed::split(bytes)?;
        bytes = rest;
        Some(message)
    })
}

impl<'a> Parsed<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let (flags, rest) = rest.split_first_chunk::<2>()?;
        let (sequence, _) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_ne_bytes(*len)).ok()?;
        let message = Self {
            kind: u16::from_ne_bytes(*kind),
            flags: u16::from_ne_bytes(*flags),
            sequence: u32::from_ne_bytes(*sequence),
            body: bytes.get(HEADER..len)?,
        };
        Some((message, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
    }

    /// Reads `NLMSG_ERROR` or `NLMSG_DONE`: success, or an error number with the kernel's words.
    pub(super) fn outcome(&self) -> Result<(), (i32, Option<String>)> {
        /// The attributes are there (`NLM_F_ACK_TLVS`).
        const WORDS: u16 = 0x200;
        /// The request is not echoed before them (`NLM_F_CAPPED`).
        const CAPPED: u16 = 0x100;
        const MSG: u16 = 1;
        let Some((code, rest)) = self.body.split_first_chunk::<4>() else { return Ok(()) };
        let code = i32::from_ne_bytes(*code);
        if code == 0 {
            return Ok(());
        }
        // `struct nlmsgerr` repeats the request's header; the end of a list does not.
        let skip = if libc::c_int::from(self.kind) == libc::NLMSG_ERROR { HEADER } else { 0 };
        let readable = self.flags & WORDS != 0 && (skip == 0 || self.flags & CAPPED != 0);
        let words = rest.get(skip..).filter(|_| readable).unwrap_or_default();
        let words = attributes(words).find(|a| a.kind == MSG).map(|a| a.text());
        Err((code.saturating_neg(), words))
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

/// The attributes in the rest of a message, or in an attribute.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (kind, _) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        // The two top bits are flags: nested, network byte order.
        Some(Attribute { kind: u16::from_ne_bytes(*kind) & 0x3fff, value })
    })
}

impl Attribute<'_> {
    pub(crate) fn number(&self) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.value.first_chunk()?))
    }

    pub(crate) fn text(&self) -> String {
        let end = self.value.iter().position(|b| *b == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(self.value.get(..end).unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_reads_back_as_it_was_built() {
        let bytes = Message::new(18, 1, &[9; 8])
            .text(3, "tap0")
            .nested(18, |m| m.text(1, "macvtap").nested(2, |m| m.number(1, 4)))
            .attr(1, &[1, 2, 3, 4, 5, 6])
            .finish(4, 77);
        assert_eq!(bytes.len() % 4, 0);
        let all: Vec<_> = messages(&bytes).collect();
        let [m] = all[..] else { panic!("{all:?}") };
        assert_eq!((m.kind, m.flags, m.sequence), (18, 5, 77));
        let found: Vec<_> = attributes(&m.body[8..]).collect();
        assert_eq!(found.iter().map(|a| a.kind).collect::<Vec<_>>(), [3, 18, 1]);
        assert_eq!(found[0].text(), "tap0");
        assert_eq!(found[2].value, [1, 2, 3, 4, 5, 6]);
        let inner: Vec<_> = attributes(found[1].value).collect();
        assert_eq!(inner[0].text(), "macvtap");
        assert_eq!(attributes(inner[1].value).next().unwrap().number(), Some(4));
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for m in messages(&bytes) {
                let _ = m.outcome();
                prop_assert!(attributes(m.body).count() <= bytes.len());
            }
        }
    }
}
