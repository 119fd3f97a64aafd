//! What the kernel says of links, addresses and routes. It is no enemy, but its messages grow from release to release.

use tap_rs::nic::events::{Event, read};

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut count = 0;
    for event in read(data) {
        count += 1;
        if let Event::LinkNew(link) = event {
            assert!(link.name.len() <= data.len() * 3);
        }
    }
    assert!(count <= data.len() / 16 + 1);
}
