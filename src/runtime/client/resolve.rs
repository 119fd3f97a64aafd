//! The server's name, resolved when it is needed and again when the server cannot be reached.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{Host, ServerAddr};
use crate::runtime::control::Waiting;
use crate::runtime::keeper::Keeper;

/// How long a name that does not resolve is left alone.
const PAUSE: Duration = Duration::from_secs(2);

/// More addresses of one name than this are not told apart.
const MOST: usize = 64;

/// Resolves one name, again and again. Several addresses are tried in turn.
pub struct Resolver {
    keeper: Rc<Keeper>,
    server: ServerAddr,
    /// Which of the addresses comes next.
    turn: usize,
    waiting: Option<Waiting<io::Result<Vec<SocketAddr>>>>,
}

impl Resolver {
    /// Starts with the first look-up. The keeper does the work.
    pub fn new(server: ServerAddr, keeper: Rc<Keeper>) -> Self {
        let mut resolver = Self { keeper, server, turn: 0, waiting: None };
        resolver.start(Duration::ZERO);
        resolver
    }

    /// The server is somewhere else from now on.
    pub fn set_server(&mut self, server: ServerAddr) {
        (self.server, self.turn) = (server, 0);
        self.start(Duration::ZERO);
    }

    /// The server cannot be reached where it was last.
    pub fn again(&mut self) {
        if self.waiting.is_none() && matches!(self.server.host, Host::Name(_)) {
            self.start(Duration::ZERO);
        }
    }

    /// The next address to try; pending while nobody asks. Safe to drop and to call again.
    pub async fn next(&mut self) -> io::Result<SocketAddr> {
        let Some(waiting) = &mut self.waiting else { return std::future::pending().await };
        let found = waiting.await;
        self.waiting = None;
        let addresses = match found {
            Ok(addresses) if !addresses.is_empty() => addresses,
            other => {
                self.start(PAUSE);
                let nothing = || io::Error::other("the name has no address");
                return Err(other.err().unwrap_or_else(nothing));
            }
        };
        let address = addresses.iter().cycle().nth(self.turn % MOST).copied();
        self.turn = self.turn.wrapping_add(1);
        address.ok_or_else(|| io::Error::other("the name has no address"))
    }

    fn start(&mut self, after: Duration) {
        let (server, keeper) = (self.server.clone(), Rc::clone(&self.keeper));
        self.waiting = Some(Box::pin(async move {
            tokio::time::sleep(after).await;
            match &server.host {
                Host::Ip(ip) => Ok(vec![(*ip, server.port).into()]),
                Host::Name(name) => keeper.look_up(name, server.port).await,
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: Host) -> ServerAddr {
        ServerAddr { host, port: 7 }
    }

    #[tokio::test]
    async fn an_address_is_its_own_answer_and_asked_once() {
        let mut resolver = Resolver::new(server(Host::Ip([192, 0, 2, 1].into())), Keeper::absent().into());
        assert_eq!(resolver.next().await.unwrap(), ([192, 0, 2, 1], 7).into());
        resolver.again();
        assert!(resolver.waiting.is_none());
    }

    #[tokio::test]
    async fn without_a_keeper_a_name_is_tried_again_later() {
        let name = Host::Name("tunnel.example.net".into());
        let mut resolver = Resolver::new(server(name), Keeper::absent().into());
        assert!(resolver.next().await.unwrap_err().to_string().contains("restart"));
        assert!(resolver.waiting.is_some());
    }
}
