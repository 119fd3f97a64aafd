//! What can be asked.

use serde::{Deserialize, Serialize};

/// One request; a line of JSON, `{"ask":"status"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How is it doing? The answer is a [`Snapshot`](crate::runtime::status::Snapshot).
    Status {},
    /// Show a NIC's frames as they pass. The answer is a [`capture`](crate::runtime::capture) stream.
    #[cfg(feature = "full")]
    Capture {
        /// Its name here.
        nic: String,
        /// How many bytes of each frame.
        snaplen: u32,
    },
    /// Send a marked frame to the other end of a NIC and back. The answer is a
    /// [`Proof`](crate::runtime::probe::Proof).
    Probe {
        /// The NIC's name here.
        nic: String,
        /// The frame's length in bytes; 0: the longest that the NIC takes.
        bytes: u16,
    },
    /// Read the config again. The answer is a [`Reloaded`](crate::runtime::reload::Reloaded).
    Reload {
        /// Say only what would change.
        dry_run: bool,
    },
}

/// The answer to what cannot be done.
#[cfg(feature = "full")]
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refusal {
    /// One sentence: why not, and how to mend it.
    pub error: String,
}

#[cfg(all(test, feature = "full"))]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_line_of_json() {
        let line = serde_json::to_string(&Request::Reload { dry_run: true }).unwrap();
        assert_eq!(line, r#"{"ask":"reload","dry_run":true}"#);
        let line = serde_json::to_string(&Request::Status {}).unwrap();
        assert_eq!(line, r#"{"ask":"status"}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), Request::Status {});
    }

    #[test]
    fn what_is_not_known_is_no_request() {
        for bad in ["", "{}", "status", r#"{"ask":"sudo"}"#, r#"{"ask":"status","more":1}"#] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }
}
