//! Pushed configs: every value that is read is one that could have been written.

use tap_rs::wire::push::Push;

/// Runs one input.
pub fn run(data: &[u8]) {
    match Push::decode(data) {
        Ok(push) => {
            let written = push.encode().expect("what was read fits");
            assert_eq!(Push::decode(&written), Ok(push));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
