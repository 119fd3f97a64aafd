//! What the operator is told about clients that cannot get in. Seldom: whoever has the server's public key can be one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::keys::PublicKey;
use crate::types::{NicSpec, Path};

/// Shortest time between two pieces of advice of one kind.
const GAP: Duration = Duration::from_secs(10);
/// Shortest time between two looks at the routes.
const LOOK: Duration = Duration::from_secs(1);

/// What has been told, and what may have to be.
#[derive(Default)]
pub struct Advice {
    stranger: Option<Instant>,
    astray: Option<Instant>,
    looked: Option<Instant>,
    invite: Option<Instant>,
    /// Who greeted last.
    greeter: Option<IpAddr>,
}

impl Advice {
    /// Somebody has proven to have this key, which no client has: most often one that has yet to be configured.
    pub fn stranger(&mut self, now: Instant, path: Path, public_key: PublicKey) {
        if due(now, self.stranger, GAP) {
            self.stranger = Some(now);
            warn!(
                endpoint = %path.remote,
                %public_key,
                "refused: no client has this key; to let it in, write that as public_key under [[clients]] and reload"
            );
        }
    }

    /// An invite is tried that does not count. True where it is time to say so.
    pub fn invite(&mut self, now: Instant) -> bool {
        let due = due(now, self.invite, GAP);
        if due {
            self.invite = Some(now);
        }
        due
    }

    /// A HELLO has been answered. Who greets again has not got the answer: perhaps it went into one of our own NICs,
    /// whose subnet the client's box is in. `known`: a client that has a session is there.
    pub fn greeted<'a>(
        &mut self,
        now: Instant,
        path: Path,
        known: impl FnOnce() -> bool,
        nics: impl IntoIterator<Item = &'a NicSpec>,
    ) {
        let remote = path.remote.ip();
        let again = self.greeter.replace(remote) == Some(remote);
        if !again || !due(now, self.astray, GAP) || !due(now, self.looked, LOOK) || known() {
            return;
        }
        self.looked = Some(now);
        let Some(source) = source_towards(path) else { return };
        if let Some(nic) = nics.into_iter().find(|nic| nic.addrs.iter().any(|a| a.ip == source)) {
            self.astray = Some(now);
            warn!(
                client = %remote,
                nic = %nic.name,
                "answers to this client are routed into this NIC, whose subnet it is in, and not to it; \
                 run `ip route add {remote} via GATEWAY`, with the gateway that leads there"
            );
        }
    }
}

fn due(now: Instant, last: Option<Instant>, gap: Duration) -> bool {
    last.is_none_or(|t| now.saturating_duration_since(t) >= gap)
}

/// The address that the kernel would send from, which tells the interface. Nothing is sent.
fn source_towards(path: Path) -> Option<IpAddr> {
    let any: IpAddr = match path.remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(path.remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
