//! Control messages: what is read is written as it was and read again as the same.

use tap_rs::wire::control::{Control, MAX_LEN, REPORT_NICS};

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(message) = Control::decode(data) else { return };
    let written = message.encode();
    assert!(written.len() <= data.len(), "nothing is made up");
    assert!(written.len() <= MAX_LEN);
    assert_eq!(Control::decode(&written).as_ref(), Ok(&message));
    match &message {
        Control::Ping { .. } => assert!(data.starts_with(&written), "a probe is padded"),
        Control::Report(report) => assert!(report.nics.len() <= REPORT_NICS),
        // Why it ends is for later versions to say.
        Control::Bye => assert_eq!(written.len(), data.len()),
        _ => assert_eq!(written, data),
    }
}
