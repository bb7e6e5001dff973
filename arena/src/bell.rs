//! How slow paths wake the purge thread, and how it goes to sleep without missing one.
//!
//! | state | the purge thread | a ring |
//! |---|---|---|
//! | absent | is not there | makes it *rung*, and the ringer starts it |
//! | asleep | waits on the word | makes it *rung*, and the ringer wakes it |
//! | awake | is looking at the heap | makes it *rung* |
//! | rung | will look again before it sleeps | nothing: one load |
//! | failed | cannot be started | nothing |
//!
//! It goes to sleep by exchanging *awake* for *asleep*, which fails when somebody rang
//! since it began to look. So whoever changes the heap and then rings is seen: either by
//! the look that is going to begin, or because the exchange fails.

use crate::sync::{AtomicU32, Ordering, seqcst_fence};

const ABSENT: u32 = 0;
const ASLEEP: u32 = 1;
const AWAKE: u32 = 2;
const RUNG: u32 = 3;
const FAILED: u32 = 4;

/// What the ringer has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Nothing.
    None,
    /// Wake the thread that waits on [`Bell::word`].
    Wake,
    /// Start the thread, and say [`Bell::fail`] if that cannot be.
    Start,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Bell(AtomicU32);

impl Bell {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(ABSENT))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(ABSENT))
    }

    /// Says that the heap changed; `start` says whether to start a thread for it.
    pub(crate) fn ring(&self, start: bool) -> Duty {
        seqcst_fence();
        // SeqCst: after what the caller changed. If it reads RUNG, the SeqCst exchange in
        // `begin` comes later and sees the change.
        match self.0.load(Ordering::SeqCst) {
            RUNG | FAILED => Duty::None,
            ABSENT => {
                // Relaxed on failure: another thread starts it, and looks then.
                let won = start
                    && self
                        .0
                        .compare_exchange(ABSENT, RUNG, Ordering::SeqCst, Ordering::Relaxed)
                        .is_ok();
                if won { Duty::Start } else { Duty::None }
            }
            // SeqCst: as above, against `begin` and `sleep`.
            _ => match self.0.swap(RUNG, Ordering::SeqCst) {
                ASLEEP => Duty::Wake,
                _ => Duty::None,
            },
        }
    }

    /// The thread could not be started.
    #[cfg(not(loom))]
    pub(crate) fn fail(&self) {
        // Relaxed: a state only.
        self.0.store(FAILED, Ordering::Relaxed);
    }

    /// The thread is not there any more: it ends, or this is the child of a fork.
    #[cfg(not(loom))]
    pub(crate) fn forget(&self) {
        // Relaxed: a state only. A ring that this overwrites is one for which the thread
        // that ends looked, or that finds none in the child.
        self.0.store(ABSENT, Ordering::Relaxed);
    }

    /// The purge thread begins to look at the heap.
    pub(crate) fn begin(&self) {
        // SeqCst: before it looks; pairs with the load in `ring`.
        self.0.swap(AWAKE, Ordering::SeqCst);
        seqcst_fence();
    }

    /// The purge thread has found nothing to do; `true` if it may wait until the word is
    /// not [`Self::ASLEEP`] any more.
    pub(crate) fn sleep(&self) -> bool {
        // SeqCst: after its look; fails when somebody rang since `begin`. Relaxed on
        // failure: `begin` comes next.
        self.0
            .compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether nobody has rung since [`Self::sleep`].
    #[cfg(not(loom))]
    pub(crate) fn is_silent(&self) -> bool {
        // Relaxed: `begin` comes next.
        self.0.load(Ordering::Relaxed) == ASLEEP
    }

    /// For waiting while it holds [`Self::ASLEEP`].
    #[cfg(not(loom))]
    pub(crate) fn word(&self) -> *const u32 {
        self.0.as_ptr()
    }

    /// See [`Self::word`].
    pub(crate) const ASLEEP: u32 = ASLEEP;
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::AtomicUsize;
    use loom::sync::Arc;

    /// A thread changes the heap and rings, while the purge thread looks and goes to
    /// sleep. At the end the change was seen, or the purge thread was woken.
    fn model(sleep: fn(&Bell) -> bool, ring: fn(&Bell, &AtomicUsize) -> Duty) {
        loom::model(move || {
            let world = Arc::new((Bell::new(), AtomicUsize::new(0)));
            world.0.begin();
            let ringer = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || ring(&world.0, &world.1))
            };
            let mut seen = 0;
            let mut asleep = false;
            for _ in 0..2 {
                world.0.begin();
                // Relaxed: what the bell orders is what is tested.
                seen = world.1.load(Ordering::Relaxed);
                if sleep(&world.0) {
                    asleep = true;
                    break;
                }
            }
            let duty = ringer.join().unwrap();
            assert!(
                seen == 1 || !asleep || duty == Duty::Wake,
                "a change is seen or wakes"
            );
        });
    }

    fn change_and_ring(bell: &Bell, heap: &AtomicUsize) -> Duty {
        // Relaxed: as above.
        heap.store(1, Ordering::Relaxed);
        bell.ring(true)
    }

    #[test]
    fn loom_a_ring_is_never_missed() {
        model(Bell::sleep, change_and_ring);
    }

    /// The same with a thread that goes to sleep whatever the state is.
    #[test]
    #[should_panic(expected = "seen or wakes")]
    fn loom_sleeping_without_a_look_at_the_bell_is_caught() {
        model(
            |bell| {
                bell.0.store(ASLEEP, Ordering::SeqCst);
                true
            },
            change_and_ring,
        );
    }

    /// The same with a ring before the change.
    #[test]
    #[should_panic(expected = "seen or wakes")]
    fn loom_ringing_before_the_change_is_caught() {
        model(Bell::sleep, |bell, heap| {
            let duty = bell.ring(true);
            heap.store(1, Ordering::Relaxed);
            duty
        });
    }
}
