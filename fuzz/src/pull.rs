//! GET and CHUNK: a client that pulls from a server that answers as it likes. What is delivered has the hash that was
//! offered; what is held is what was offered at the most.

use std::sync::OnceLock;
use std::time::Duration;

use tap_rs::metrics::DropReason;
use tap_rs::proto::pull::{Pull, chunk, hash_of, revision_of};
use tap_rs::wire::control::{CHUNK_LEN, Control};
use tap_rs::wire::push::MAX_LEN;

use super::input::{Input, epoch};

/// Mostly small: a large one costs time to make room for.
fn length(input: &mut Input<'_>) -> u32 {
    let n = input.u32();
    if n >> 24 == 0xff { n & 0x1f_ffff } else { n & 0x1fff }
}

/// Blobs of lengths around those of chunks, and their hashes.
fn blobs() -> &'static [(Vec<u8>, [u8; 32])] {
    static BLOBS: OnceLock<Vec<(Vec<u8>, [u8; 32])>> = OnceLock::new();
    BLOBS.get_or_init(|| {
        [1, 100, 1023, 1024, 1025, 2048, 2100]
            .map(|n| {
                let blob = vec![7; n];
                let hash = hash_of(&blob);
                (blob, hash)
            })
            .into()
    })
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut now = epoch();
    let mut pull = Pull::new(now);
    let blobs = blobs();
    let (blob, hash) = &blobs[usize::from(input.u8()) % blobs.len()];
    let revision = revision_of(hash);
    let mut delivered = false;
    while let Some(op) = input.next() {
        now += Duration::from_millis(u64::from(op >> 4) * 20);
        match op & 7 {
            0 => {
                let _ = pull.handle_offer(now, revision, blob.len() as u32, hash);
            }
            1 => {
                let _ = pull.handle_offer(now, input.u64(), length(&mut input), hash);
            }
            2 => pull.handle_revision(now, if op & 8 == 0 { revision } else { input.u64() }),
            3 => pull.restart(now),
            4 => {
                let (offset, n) = (input.u32(), input.u16());
                let got = pull.handle_chunk(now, revision, offset, &vec![9; usize::from(n) & 0x7ff]);
                check(got, blob, &mut delivered);
            }
            _ => {
                for message in pull.handle_timeout(now, Some(Duration::from_millis(1))) {
                    let Control::Get { revision: asked, offset } = message else { panic!("{message:?}") };
                    assert!(offset as usize <= MAX_LEN);
                    assert_eq!(message.encode().len(), 13);
                    if asked == revision
                        && op & 8 == 0
                        && let Some(Control::Chunk { offset, bytes, .. }) = chunk(blob, asked, offset)
                    {
                        assert!(bytes.len() <= CHUNK_LEN);
                        check(pull.handle_chunk(now, asked, offset, bytes), blob, &mut delivered);
                    }
                }
            }
        }
    }
}

fn check(got: Result<Option<(u64, Vec<u8>)>, DropReason>, blob: &[u8], delivered: &mut bool) {
    if let Ok(Some((_, got))) = got {
        assert!(got == blob, "what is delivered is what was offered");
        assert!(!std::mem::replace(delivered, true), "once");
    }
}
