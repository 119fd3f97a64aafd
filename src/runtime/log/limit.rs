//! No flood in the log, whatever others do.
//!
//! ```text
//!   event ──▶ (call site, client or NIC) ──▶ fewer than BURST in this WINDOW? ──▶ told
//!                                             else counted ──▶ after the window: "… 123 more in the last 10 s"
//! ```
//!
//! Clients and NICs are told apart, since one that misbehaves must not hide another, and since a server with many starts
//! with a line for each. Their names come from the config, which bounds them; what a stranger brings (an address, a key) is
//! not told apart.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::ASKED;

/// How long a count goes.
const WINDOW: Duration = Duration::from_secs(10);

/// Of each kind and subject in a window.
const BURST: u32 = 10;

/// Of each kind in a window, whatever the subjects.
const BURST_ALL: u32 = 1000;

/// Subjects that are told apart; more share one place.
const PLACES: usize = 8192;

/// An event, as far as it matters here.
pub(super) trait Told {
    /// Names its place in the code.
    fn site(&self) -> usize;

    /// It is neither asked for nor for those who look for something.
    fn is_bounded(&self) -> bool;

    /// It is worse than information.
    fn is_warning(&self) -> bool;

    /// Its message, under that name, and its fields.
    fn each(&self, take: &mut dyn FnMut(&str, &dyn Debug));
}

/// What is counted together: the place in the code, and the subject's hash, or [`ALL`].
type Key = (usize, u64);

/// No subject: the call site as a whole.
const ALL: u64 = 0;

/// A kind of message in its window.
struct Window {
    since: Instant,
    told: u32,
    hidden: Option<Hidden>,
}

/// What has not been told.
struct Hidden {
    is_warning: bool,
    /// What the first one said.
    said: String,
    count: u64,
    /// How long it was counted.
    age: Duration,
}

/// The counts of this process.
#[derive(Default)]
struct Counts {
    windows: Mutex<HashMap<Key, Window>>,
    /// Something has been hidden.
    hid: Notify,
}

/// May this be told? If not, it is counted.
pub(super) fn admits(event: &impl Told) -> bool {
    shared().admits(event)
}

fn shared() -> Arc<Counts> {
    static COUNTS: OnceLock<Arc<Counts>> = OnceLock::new();
    Arc::clone(COUNTS.get_or_init(Arc::default))
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, event: &impl Told) -> bool {
        !event.is_bounded() || self.admit(event, Instant::now())
    }

    fn admit(&self, event: &impl Told, now: Instant) -> bool {
        let (subject, mut windows) = (subject(event), self.lock());
        let own = subject.filter(|_| windows.len() < PLACES);
        // The subject's own first: what it hides does not count with the kind.
        let places = match own {
            Some(own) => &[(own, BURST), (ALL, BURST_ALL)][..],
            None => &[(ALL, BURST)],
        };
        for (subject, most) in places {
            let window = windows.entry((event.site(), *subject)).or_insert_with(|| Window::new(now));
            if !window.admits(now, *most) {
                window.hide(event);
                self.hid.notify_one();
                return false;
            }
        }
        true
    }

    /// What has been hidden in windows that are over, or in all, most of it first; forgets those.
    fn take(&self, now: Instant, all: bool) -> Vec<Hidden> {
        let mut taken = Vec::new();
        self.lock().retain(|_, window| {
            let age = now.saturating_duration_since(window.since);
            if !all && age < WINDOW {
                return true;
            }
            taken.extend(window.hidden.take().map(|hidden| Hidden { age, ..hidden }));
            false
        });
        taken.sort_by_key(|hidden| std::cmp::Reverse(hidden.count));
        taken
    }
}

impl Window {
    fn new(since: Instant) -> Self {
        Self { since, told: 0, hidden: None }
    }

    /// One more may be told. A window with something hidden stays until that has been told.
    fn admits(&mut self, now: Instant, most: u32) -> bool {
        if self.hidden.is_none() && now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        let admits = self.told < most;
        self.told = self.told.saturating_add(u32::from(admits));
        admits
    }

    fn hide(&mut self, event: &impl Told) {
        let new =
            || Hidden { is_warning: event.is_warning(), said: said(event), count: 0, age: Duration::ZERO };
        let hidden = self.hidden.get_or_insert_with(new);
        hidden.count = hidden.count.saturating_add(1);
    }
}

/// Tells what was hidden, when its window is over. Never ends; wakes only while there is something to tell.
pub async fn tell_hidden() {
    let counts = shared();
    loop {
        counts.hid.notified().await;
        tokio::time::sleep(WINDOW).await;
        tell(&counts, Instant::now(), false);
    }
}

/// Tells what was hidden, at the end.
pub fn tell_last_hidden() {
    tell(&shared(), Instant::now(), true);
}

/// Lines of one telling; the rest is one number.
const LINES: usize = 20;

fn tell(counts: &Counts, now: Instant, all: bool) {
    let taken = counts.take(now, all);
    for Hidden { is_warning, said, count, age } in taken.iter().take(LINES) {
        let seconds = age.as_secs().max(1);
        match is_warning {
            false => info!(target: ASKED, "... {count} more in the last {seconds} s: {said}"),
            true => warn!(target: ASKED, "... {count} more in the last {seconds} s: {said}"),
        }
    }
    let rest: u64 = taken.iter().skip(LINES).map(|hidden| hidden.count).sum();
    if rest > 0 {
        info!(target: ASKED, "... {rest} more of other kinds");
    }
    // Windows that began meanwhile, and may have hidden something before they could say so.
    if !counts.lock().is_empty() {
        counts.hid.notify_one();
    }
}

/// The names of the config that an event is about, as one number, where there are any.
fn subject(event: &impl Told) -> Option<u64> {
    let (mut hasher, mut any) = (DefaultHasher::new(), false);
    event.each(&mut |name, value| {
        if ["client", "nic", "reason"].contains(&name) {
            format!("{value:?}").hash(&mut hasher);
            any = true;
        }
    });
    any.then(|| hasher.finish().max(ALL.saturating_add(1)))
}

/// The message and the fields of an event, as a short line.
fn said(event: &impl Told) -> String {
    let mut line = String::new();
    event.each(&mut |name, value| {
        let between = if line.is_empty() { "" } else { " " };
        let _ = match name {
            "message" => write!(line, "{between}{value:?}"),
            name => write!(line, "{between}{name}={value:?}"),
        };
    });
    line.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tracing::Event;
    use tracing_subscriber::layer::Context;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{Layer, fmt, registry};

    use super::*;

    struct Limit(Arc<Counts>);

    impl<S: tracing::Subscriber> Layer<S> for Limit {
        fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
            self.0.admits(&event)
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn count(&self, words: &str) -> usize {
            self.text().lines().filter(|line| line.contains(words)).count()
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Runs `f` with a log of its own, and gives what was logged.
    fn logged(f: impl FnOnce(&Arc<Counts>)) -> Lines {
        let (counts, lines) = (Arc::<Counts>::default(), Lines::default());
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
        let log = registry().with(Limit(Arc::clone(&counts))).with(layer);
        tracing::subscriber::with_default(log, || f(&counts));
        lines
    }

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let lines = logged(|counts| {
            for n in 0..100_000 {
                warn!(endpoint = n, "refused");
            }
            tell(counts, Instant::now() + WINDOW, false);
        });
        assert_eq!(lines.count("refused endpoint"), BURST as usize + 1);
        assert_eq!(lines.count("... 99990 more in the last "), 1);
        assert_eq!(lines.count(" s: refused endpoint=10"), 1);
        assert_eq!(lines.text().lines().count(), BURST as usize + 1);
    }

    #[test]
    fn one_that_floods_hides_no_other() {
        let lines = logged(|_| {
            let flaps = |client: &str, times: usize| {
                (0..times).for_each(|_| info!(client, "session established"));
            };
            flaps("loud", 100_000);
            (0..500).for_each(|n| flaps(&format!("site{n}"), 1));
            warn!("another kind");
        });
        assert_eq!(lines.count("loud"), BURST as usize);
        assert_eq!(lines.count("site"), 500);
        assert_eq!(lines.count("another kind"), 1);
    }

    #[test]
    fn many_subjects_together_are_bounded_as_well() {
        let lines = logged(|counts| {
            for n in 0..20_000 {
                info!(nic = format!("nic{n}"), "nic ready");
            }
            assert!(counts.lock().len() <= PLACES + 1);
        });
        assert!(lines.count("nic ready") <= BURST_ALL as usize);
    }

    #[test]
    fn after_its_window_a_kind_is_told_again() {
        let lines = logged(|counts| {
            let flood = || (0..50).for_each(|_| warn!("again"));
            flood();
            tell(counts, Instant::now() + WINDOW, false);
            flood();
            tell(counts, Instant::now(), true);
        });
        assert_eq!(lines.count("more in the last"), 2);
        assert_eq!(lines.count("again"), 2 * BURST as usize + 2);
    }

    #[test]
    fn what_is_asked_for_is_always_told() {
        let lines = logged(|_| (0..200).for_each(|n| info!(target: ASKED, n, "script")));
        assert_eq!(lines.count("script"), 200);
    }
}
