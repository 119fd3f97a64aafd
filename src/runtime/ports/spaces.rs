//! What happens in the network namespaces that NICs live in.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tracing::warn;

use crate::nic::events::Event;
use crate::runtime::control::LinkEvents;
use crate::runtime::keeper::Keeper;
use crate::types::NetnsName;

/// Every namespace with a NIC of ours, and its events.
#[derive(Default)]
pub(super) struct Spaces(Vec<(NetnsName, LinkEvents)>);

impl Spaces {
    /// Watches these namespaces and no others. Gives those that are new: what has happened there before is not heard of.
    pub(super) fn follow<'a>(
        &mut self,
        keeper: &Keeper,
        names: impl Iterator<Item = &'a NetnsName> + Clone,
    ) -> Vec<NetnsName> {
        self.keep(names.clone());
        let mut new = Vec::new();
        for name in names {
            if self.0.iter().any(|(n, _)| n == name) {
                continue;
            }
            match keeper.events(name).and_then(LinkEvents::of) {
                Ok(events) => {
                    self.0.push((name.clone(), events));
                    new.push(name.clone());
                }
                Err(e) => warn!("nothing is heard of what happens in the network namespace {name}: {e}"),
            }
        }
        new
    }

    /// Forgets all others: the next namespace of such a name is another one.
    pub(super) fn keep<'a>(&mut self, names: impl Iterator<Item = &'a NetnsName> + Clone) {
        self.0.retain(|(name, _)| names.clone().any(|n| n == name));
    }

    /// What has happened in one of them. Safe to drop and to call again.
    pub(super) async fn next(&mut self) -> (NetnsName, Vec<Event>) {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(NetnsName, Vec<Event>)> {
        for (name, events) in &mut self.0 {
            if let Poll::Ready(events) = events.poll(cx) {
                return Poll::Ready((name.clone(), events));
            }
        }
        Poll::Pending
    }
}
