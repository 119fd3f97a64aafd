//! The tiny flavour listens to nobody.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Instant;

use super::Request;
use crate::runtime::keeper::Keeper;

/// Hears nothing.
pub struct Listener;

impl Listener {
    /// One that has no socket.
    pub fn open(_now: Instant, _keeper: Rc<Keeper>) -> Self {
        Self
    }

    /// Pending for ever.
    pub async fn next(&mut self) -> Asker {
        std::future::pending().await
    }
}

/// Who asked, and what: nobody.
pub struct Asker {
    /// What is wanted.
    pub request: Request,
    nobody: Infallible,
}

impl Asker {
    /// Never called.
    pub fn answer<T>(self, _document: &T) {
        match self.nobody {}
    }

    /// Never called.
    pub fn conclude<T>(self, _done: Result<T, String>) {
        match self.nobody {}
    }

    /// Never called.
    pub fn refuse(self, _why: impl Into<String>) {
        match self.nobody {}
    }
}
