//! What the [`seam`](super::seam) is made of.

pub(super) use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

pub(super) use tokio::sync::mpsc::Sender;

pub(super) use crate::sys::poll::EventFd;
