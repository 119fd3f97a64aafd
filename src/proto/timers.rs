//! Every interval of the protocol. All run on the boot-time monotonic clock: wall-clock jumps change nothing.

use std::time::Duration;

/// A session this old is replaced by a new handshake, which the client starts.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);

/// A session this old is forgotten, replaced or not.
pub const REJECT_AFTER: Duration = Duration::from_secs(180);

/// Bytes, either way, after which the client replaces a session.
pub const REKEY_AFTER_BYTES: u64 = 1 << 38;

/// Who has heard frames and said nothing for this long sends a keepalive.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(1);

/// Default time of sending without hearing anything, after which the client starts a handshake.
pub const DEAD_AFTER: Duration = Duration::from_secs(3);

/// Default longest time between PINGs on an idle tunnel: keeps NAT mappings, which live 30 s and more (RFC 4787, REQ-5).
pub const IDLE_PING: Duration = Duration::from_secs(10);

/// Shortest time between PINGs; just after traffic, so that a peer that dies with it is soon missed.
pub const BUSY_PING: Duration = Duration::from_secs(1);

/// Gaps between the datagrams of a handshake that nothing answers; the last one repeats for ever.
/// Each is shortened by up to a quarter at random. The longest is under the 5 s in which a returned server must be found.
pub const HANDSHAKE_GAPS: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
    Duration::from_millis(4000),
];

/// How often an INIT is sent before the client asks for a new cookie.
pub const INIT_TRIES: u32 = 3;

/// A path challenge that is not answered in this time is forgotten.
pub const CHALLENGE_LIFE: Duration = Duration::from_secs(3);

/// A server's client that is silent for this many idle-PING intervals is called silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(25);
