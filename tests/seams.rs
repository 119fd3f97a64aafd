//! The seams between control's thread and the workers', through every order of steps that matters: `src/dataplane/seam.rs`
//! itself, over queues and a bell that loom can see into.
//!
//! A wake-up that is lost is a thread that waits for ever, which loom reports.

use std::ops::ControlFlow;

#[allow(dead_code)]
#[path = "../src/dataplane/seam.rs"]
mod seam;

/// The models: as much of std's and tokio's channels and of eventfd(2) as the seams use.
mod sync {
    use std::collections::VecDeque;
    use std::io;
    // A model that has found something is over: its locks cannot be taken any more.
    use std::thread::panicking;

    use loom::sync::{Arc, Condvar, Mutex};

    pub use std::sync::mpsc::{SendError, TryRecvError, TrySendError};

    struct State<T> {
        waiting: VecDeque<T>,
        room: usize,
        sender: bool,
        receiver: bool,
    }

    type Shared<T> = Arc<(Mutex<State<T>>, Condvar)>;

    pub struct SyncSender<T>(Shared<T>);
    pub struct Receiver<T>(Shared<T>);

    pub fn sync_channel<T>(room: usize) -> (SyncSender<T>, Receiver<T>) {
        let state = State { waiting: VecDeque::new(), room, sender: true, receiver: true };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        (SyncSender(Arc::clone(&shared)), Receiver(shared))
    }

    impl<T> SyncSender<T> {
        pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
            let mut state = self.0.0.lock().unwrap();
            if !state.receiver {
                return Err(TrySendError::Disconnected(value));
            }
            if state.waiting.len() >= state.room {
                return Err(TrySendError::Full(value));
            }
            state.waiting.push_back(value);
            Ok(())
        }

        pub fn send(&self, value: T) -> Result<(), SendError<T>> {
            let mut state = self.0.0.lock().unwrap();
            while state.receiver && state.waiting.len() >= state.room {
                state = self.0.1.wait(state).unwrap();
            }
            if !state.receiver {
                return Err(SendError(value));
            }
            state.waiting.push_back(value);
            Ok(())
        }
    }

    impl<T> Drop for SyncSender<T> {
        fn drop(&mut self) {
            if !panicking() {
                self.0.0.lock().unwrap().sender = false;
            }
        }
    }

    impl<T> Receiver<T> {
        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            let mut state = self.0.0.lock().unwrap();
            let taken = state.waiting.pop_front();
            self.0.1.notify_all();
            match taken {
                Some(value) => Ok(value),
                None if state.sender => Err(TryRecvError::Empty),
                None => Err(TryRecvError::Disconnected),
            }
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            if !panicking() {
                self.0.0.lock().unwrap().receiver = false;
                self.0.1.notify_all();
            }
        }
    }

    /// Readable while it is true; epoll is level-triggered.
    #[derive(Clone)]
    pub struct EventFd(Arc<(Mutex<bool>, Condvar)>);

    impl EventFd {
        pub fn new() -> io::Result<Self> {
            Ok(Self(Arc::new((Mutex::new(false), Condvar::new()))))
        }

        pub fn try_clone(&self) -> io::Result<Self> {
            Ok(self.clone())
        }

        pub fn notify(&self) -> io::Result<()> {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_all();
            Ok(())
        }

        pub fn drain(&self) -> io::Result<bool> {
            Ok(std::mem::take(&mut *self.0.0.lock().unwrap()))
        }

        /// As epoll_wait(2) without a time-out.
        pub fn wait(&self) {
            let mut rung = self.0.0.lock().unwrap();
            while !*rung {
                rung = self.0.1.wait(rung).unwrap();
            }
        }
    }

    /// Places free, and what has been sent.
    pub struct Sender<T>(pub Arc<Mutex<(usize, Vec<T>)>>, pub usize);
    pub struct Permit<'a, T>(&'a Sender<T>, bool);

    impl<T> Sender<T> {
        pub fn try_reserve(&self) -> Result<Permit<'_, T>, ()> {
            let mut state = self.0.lock().unwrap();
            state.0 = state.0.checked_sub(1).ok_or(())?;
            Ok(Permit(self, true))
        }

        pub fn capacity(&self) -> usize {
            self.0.lock().unwrap().0
        }

        pub fn max_capacity(&self) -> usize {
            self.1
        }
    }

    impl<T> Permit<'_, T> {
        pub fn send(mut self, value: T) {
            self.1 = false;
            self.0.0.lock().unwrap().1.push(value);
        }
    }

    impl<T> Drop for Permit<'_, T> {
        fn drop(&mut self) {
            if self.1 && !panicking() {
                self.0.0.lock().unwrap().0 += 1;
            }
        }
    }
}

/// Every order in which threads are interrupted three times at the most: more finds nothing that fewer do not, and
/// takes minutes.
fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

const STOP: u32 = u32::MAX;

/// A worker that sleeps until the bell rings, and does as it is told until it is told to stop.
fn work(inbox: &seam::Inbox<u32>) -> Vec<u32> {
    let mut done = Vec::new();
    loop {
        inbox.bell().wait();
        let told = inbox.take_all(|command| {
            if command == STOP {
                return ControlFlow::Break(());
            }
            done.push(command);
            ControlFlow::Continue(())
        });
        if told.unwrap().is_break() {
            return done;
        }
    }
}

#[test]
fn every_command_wakes_the_worker_and_is_carried_out_in_order() {
    for room in [1, 8] {
        model(move || {
            let (orders, inbox) = seam::orders(room).unwrap();
            let worker = loom::thread::spawn(move || work(&inbox));
            for command in [1, 2, STOP] {
                orders.send(command).unwrap();
            }
            assert_eq!(worker.join().unwrap(), [1, 2]);
        });
    }
}

#[test]
fn control_that_waits_for_room_is_told_when_the_worker_ends() {
    model(|| {
        let (orders, inbox) = seam::orders(1).unwrap();
        let worker = loom::thread::spawn(move || drop(inbox));
        // The first may still find its place; nobody takes it out, so that the second does not.
        let told = [orders.send(1), orders.send(2)];
        assert_eq!(told[1], Err(seam::WorkerGone));
        worker.join().unwrap();
    });
}

/// One turn of the worker while two commands come: what it has not done by then rings.
fn one_turn(after: fn(&seam::Inbox<u32>)) {
    model(move || {
        let (orders, inbox) = seam::orders(2).unwrap();
        let worker = loom::thread::spawn(move || {
            let mut done = 0;
            inbox.bell().wait();
            let told = inbox.take_all(|_| {
                done += 1;
                ControlFlow::Continue(())
            });
            assert_eq!(told.unwrap(), ControlFlow::Continue(()));
            after(&inbox);
            (done, inbox)
        });
        orders.send(1).unwrap();
        orders.send(2).unwrap();
        let (done, inbox) = worker.join().unwrap();
        let rings = inbox.bell().drain().unwrap();
        assert!(done == 2 || rings, "a command is slept through");
    });
}

#[test]
fn what_comes_while_the_worker_looks_rings_anew() {
    one_turn(|_| {});
}

#[test]
#[should_panic(expected = "slept through")]
fn silencing_the_bell_after_the_look_would_lose_a_command() {
    one_turn(|inbox| drop(inbox.bell().drain()));
}

const ROOM: usize = 4;

/// How many notices of strangers get in, of two workers that have two each; and whether two of peers still do.
fn flood(tell: fn(&sync::Sender<u32>, u32) -> bool) {
    model(move || {
        let shared = loom::sync::Arc::new(loom::sync::Mutex::new((ROOM, Vec::new())));
        let line = || sync::Sender(loom::sync::Arc::clone(&shared), ROOM);
        let (one, other) = (line(), line());
        let worker =
            loom::thread::spawn(move || (0..2).map(|n| tell(&one, n)).map(usize::from).sum::<usize>());
        let told: usize = (0..2).map(|n| usize::from(tell(&other, n))).sum();
        let told = told + worker.join().unwrap();
        let inside = shared.lock().unwrap().1.len();
        assert_eq!(inside, told);
        assert!((1..=ROOM / 2).contains(&inside), "{inside} of strangers");
        assert!(seam::tell(&other, 9) && seam::tell(&other, 9), "peers are kept out");
    });
}

#[test]
fn strangers_get_half_of_the_queue_however_many_workers_they_come_by() {
    flood(seam::tell_of_stranger);
}

#[test]
#[should_panic(expected = "of strangers")]
fn measuring_the_queue_before_a_place_is_taken_would_let_more_in() {
    flood(|line, n| line.capacity() * 2 > ROOM && seam::tell(line, n));
}
