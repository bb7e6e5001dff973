//! The thread that makes checkpoints: whoever asks is heard, and close ends it (`worker`).

use loom::thread::JoinHandle;

use super::leaked;
use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, Step, wait, without};
use crate::worker::Bell;

struct World {
    bell: Bell,
    /// The last checkpoint that somebody wanted.
    wanted: AtomicU64,
    /// The last one that was made.
    made: Mutex<u64>,
    wake: Condvar,
}

impl World {
    fn new() -> &'static Self {
        leaked(Self {
            bell: Bell::new(),
            wanted: AtomicU64::new(0),
            made: Mutex::new(0),
            wake: Condvar::new(),
        })
    }

    /// The thread. `late`: it forgets what it was asked after its work, and not before.
    fn cleaner(&'static self, late: bool) -> JoinHandle<()> {
        loom::thread::spawn(move || {
            while self.bell.wait() {
                // Acquire: pairs with the store in `want`.
                let wanted = self.wanted.load(Ordering::Acquire);
                *self.made.lock() = wanted;
                self.wake.notify_all();
                if late {
                    self.bell.forget();
                }
            }
        })
    }

    fn want(&self, checkpoint: u64) {
        // Release: pairs with the load of the thread.
        self.wanted.store(checkpoint, Ordering::Release);
        self.bell.ring();
    }
}

/// Two commits find that a checkpoint is due.
fn commits_ask(late: bool) {
    loom::model(move || {
        let world = World::new();
        let thread = world.cleaner(late);
        world.want(1);
        world.want(2);
        let mut made = world.made.lock();
        while *made < 2 {
            made = wait(&world.wake, made);
        }
        drop(made);
        world.bell.end();
        thread.join().unwrap();
    });
}

/// What is asked for while the thread is at work, or before it began, is done.
#[test]
fn loom_a_checkpoint_that_is_due_is_made() {
    commits_ask(false);
}

/// The same with a thread that forgets after its work what it was asked.
#[test]
#[should_panic(expected = "deadlock")]
fn loom_a_thread_that_forgets_too_late_is_caught() {
    commits_ask(true);
}

/// The same with nobody who wakes the thread.
#[test]
#[should_panic(expected = "deadlock")]
fn loom_a_bell_that_wakes_nobody_is_caught() {
    without(Step::WakeCleaner, || commits_ask(false));
}

/// The store is closed.
fn close_comes() {
    loom::model(|| {
        let world = World::new();
        let thread = world.cleaner(false);
        world.want(1);
        world.bell.end();
        thread.join().unwrap();
    });
}

/// Close ends the thread, whether it has begun, works, or waits.
#[test]
fn loom_close_ends_the_thread_for_checkpoints() {
    close_comes();
}

/// The same with a close that wakes nobody.
#[test]
#[should_panic(expected = "deadlock")]
fn loom_a_close_that_wakes_nobody_is_caught() {
    without(Step::WakeCleaner, close_comes);
}
