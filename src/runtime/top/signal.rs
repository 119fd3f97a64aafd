//! Signals that end it. The terminal is given back first: whoever sits at it goes on with a shell.
//!
//! ```text
//!   thread: waits for a signal ──▶ seen ──▶ the loop ends, the terminal is given back, the program ends
//!                └── two seconds later, where the loop hangs: the same from here
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the loop has to see it: it may be writing to a terminal that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether one has come.
pub(super) struct Signals {
    /// Its number, or 0.
    seen: Arc<AtomicU8>,
}

impl Signals {
    /// From now on SIGHUP, SIGINT, SIGQUIT and SIGTERM are seen instead of ending the program; one that is not heeded gives
    /// the terminal back by itself and ends it.
    pub(super) fn watch(give_back: fn()) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let all = {
            let _inside = runtime.enter();
            let kinds =
                [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()];
            kinds.map(|kind| signal(kind).map(|signal| (kind, signal)))
        };
        let [hangup, interrupt, quit, terminate] = all;
        let mut all = [hangup?, interrupt?, quit?, terminate?];
        let seen = Arc::<AtomicU8>::default();
        let tell = seen.clone();
        std::thread::spawn(move || {
            let number = runtime.block_on(first(&mut all));
            tell.store(number, Relaxed);
            std::thread::sleep(PATIENCE);
            give_back();
            std::process::exit(i32::from(number.saturating_add(128)));
        });
        Ok(Self { seen })
    }

    /// The number of the one that has come.
    pub(super) fn seen(&self) -> Option<u8> {
        Some(self.seen.load(Relaxed)).filter(|number| *number != 0)
    }
}

async fn first([a, b, c, d]: &mut [(SignalKind, Signal); 4]) -> u8 {
    let kind = tokio::select! {
        _ = a.1.recv() => a.0,
        _ = b.1.recv() => b.0,
        _ = c.1.recv() => c.0,
        _ = d.1.recv() => d.0,
    };
    u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX)
}
