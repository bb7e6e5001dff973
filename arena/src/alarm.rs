//! Whether the program is to be told that the soft limit is passed.
//!
//! The limit is about *committed* memory. But what a program frees when it is told stays committed
//! for a while, free inside the heap; whether it has shrunk shows in what is *in use*: blocks that are
//! not free in their spans, and large blocks.
//!
//! ```text
//!    committed above the limit, also after giving back: tell
//!   Armed ───────────────────────────────────────────────> Told
//!     ^  ^                                                  │ ^
//!     │  └─ committed below 7/8 ────────────────────────────┤ │
//!     │                              in use below 7/8: give back
//!     │                                                     v │ in use above the limit: tell
//!     └─ committed below 7/8 ────────────────────────────  Fallen
//! ```
//!
//! So a program that cannot shrink is told once, however much it grows; one that shrinks is told
//! at most once for each eighth of the limit that it freed; and in a heap whose free memory cannot go
//! back, it is told when it really uses as much again.

use crate::sync::{AtomicU8, AtomicUsize, Ordering};

/// Nobody was told since committed memory was below 7/8 of the limit.
const ARMED: u8 = 0;
/// The program was told, and has not shrunk since.
const TOLD: u8 = 1;
/// It has, and the heap has not.
const FALLEN: u8 = 2;
/// A thread gives back, or calls the program; others, and what it calls, do nothing.
const BUSY: u8 = 3;

/// Looks after which small blocks are counted anew: it costs a visit to each class.
const SMALL_EVERY: usize = 16;

/// See the module. Any thread may touch each field.
#[derive(Debug)]
pub(crate) struct Alarm {
    state: AtomicU8,
    /// Looks that were not in the state `ARMED`.
    looks: AtomicUsize,
    /// Granules of small blocks that were in use when they were counted last.
    small: AtomicUsize,
}

/// A heap in numbers: granules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) committed: usize,
    pub(crate) large: usize,
    /// The soft limit.
    pub(crate) soft: usize,
}

impl Figures {
    /// The level below which the alarm is armed again.
    fn low(self) -> usize {
        self.soft - self.soft / 8
    }
}

/// What the thread that looked is to do. But for `Nothing`, it alone has to, and then says
/// [`Alarm::told`] or [`Alarm::rest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Nothing,
    /// Give back what is free.
    GiveBack(Rest),
    /// Give back what is free, and tell the program if that was not enough.
    Tell(Rest),
}

/// The state after a task in which the program was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest(u8);

impl Alarm {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU8::new(ARMED),
            looks: AtomicUsize::new(0),
            small: AtomicUsize::new(0),
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            state: AtomicU8::new(ARMED),
            looks: AtomicUsize::new(0),
            small: AtomicUsize::new(0),
        }
    }

    /// Whether nothing is to be looked at below the limit.
    pub(crate) fn is_armed(&self) -> bool {
        // Relaxed, here and below: the states elect threads; nothing is read through them.
        self.state.load(Ordering::Relaxed) == ARMED
    }

    /// Looks at the heap. `small` counts granules of small blocks in use.
    pub(crate) fn look(&self, now: Figures, small: impl Fn() -> usize) -> Task {
        let state = self.state.load(Ordering::Relaxed);
        match state {
            ARMED if now.committed > now.soft => self.elect(state, Task::Tell(Rest(state))),
            TOLD | FALLEN if now.committed < now.low() => {
                let _ = self.swap(state, ARMED);
                Task::Nothing
            }
            TOLD if self.in_use(now, &small) < now.low() => {
                self.elect(state, Task::GiveBack(Rest(FALLEN)))
            }
            FALLEN if now.committed > now.soft && self.in_use(now, &small) > now.soft => {
                self.elect(state, Task::Tell(Rest(state)))
            }
            _ => Task::Nothing,
        }
    }

    /// The task is done, and the program was told.
    pub(crate) fn told(&self) {
        // What it has freed since is counted at the next look.
        self.looks.store(0, Ordering::Relaxed);
        self.state.store(TOLD, Ordering::Relaxed);
    }

    /// The task is done, and the program was not told.
    pub(crate) fn rest(&self, rest: Rest) {
        self.state.store(rest.0, Ordering::Relaxed);
    }

    /// A child of `fork` has not the thread that was busy, or is within what that called.
    pub(crate) fn forget_others(&self) {
        let _ = self.swap(BUSY, TOLD);
    }

    fn in_use(&self, now: Figures, small: &impl Fn() -> usize) -> usize {
        if self.looks.fetch_add(1, Ordering::Relaxed) % SMALL_EVERY == 0 {
            self.small.store(small(), Ordering::Relaxed);
        }
        self.small.load(Ordering::Relaxed) + now.large
    }

    fn elect(&self, state: u8, task: Task) -> Task {
        if self.swap(state, BUSY) {
            task
        } else {
            Task::Nothing
        }
    }

    fn swap(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SOFT: usize = 8000;
    const LOW: usize = 7000;

    /// A heap in which nothing can go back beyond `pinned` granules.
    struct Heap {
        alarm: Alarm,
        in_use: usize,
        committed: usize,
        pinned: usize,
        told: usize,
    }

    impl Heap {
        fn new() -> Self {
            Self {
                alarm: Alarm::new(),
                in_use: 0,
                committed: 0,
                pinned: 0,
                told: 0,
            }
        }

        /// The program uses `in_use` granules; it takes as many looks as count small blocks anew.
        fn uses(&mut self, in_use: usize) -> usize {
            for _ in 0..SMALL_EVERY {
                self.in_use = in_use;
                self.committed = self.committed.max(in_use);
                let now = Figures {
                    committed: self.committed,
                    large: 0,
                    soft: SOFT,
                };
                let task = self.alarm.look(now, || self.in_use);
                if task == Task::Nothing {
                    continue;
                }
                let again = self.alarm.look(now, || self.in_use);
                assert_eq!(again, Task::Nothing, "two threads have the task");
                self.committed = self.in_use.max(self.pinned);
                match task {
                    Task::Tell(_) if self.committed > SOFT => {
                        self.told += 1;
                        self.alarm.told();
                    }
                    Task::Tell(rest) | Task::GiveBack(rest) => self.alarm.rest(rest),
                    Task::Nothing => {}
                }
            }
            self.told
        }
    }

    #[test]
    fn a_program_that_shrinks_is_told_each_time_it_passes_the_limit() {
        let mut heap = Heap::new();
        for round in 1..10 {
            assert_eq!(heap.uses(SOFT), round - 1);
            assert_eq!(heap.uses(SOFT + 1), round);
            // Committed stays until the heap gives back.
            heap.uses(LOW - 1);
            heap.uses(0);
        }
    }

    #[test]
    fn a_program_that_cannot_shrink_is_told_once() {
        let mut heap = Heap::new();
        for in_use in (0..20 * SOFT).step_by(100) {
            heap.uses(in_use);
        }
        for _ in 0..100 {
            heap.uses(12 * SOFT);
            heap.uses(LOW);
        }
        assert_eq!(heap.told, 1);
    }

    #[test]
    fn a_heap_that_cannot_give_back_does_not_tell_for_ever() {
        let mut heap = Heap::new();
        heap.uses(SOFT + 1);
        heap.pinned = SOFT + 1;
        for _ in 0..100 {
            heap.uses(LOW - 1000);
            heap.uses(LOW + 500);
        }
        assert_eq!(heap.told, 1);
        // But when as much is in use again.
        assert_eq!(heap.uses(SOFT + 1), 2);
        // And as ever when it could.
        heap.pinned = 0;
        heap.uses(0);
        heap.committed = 0;
        heap.uses(0);
        assert_eq!(heap.uses(SOFT + 1), 3);
    }

    #[test]
    fn what_goes_back_in_time_is_not_told() {
        let mut heap = Heap::new();
        for _ in 0..10 {
            heap.committed = 2 * SOFT;
            assert_eq!(heap.uses(SOFT), 0);
            assert!(heap.alarm.is_armed());
        }
    }

    #[test]
    fn a_child_of_fork_is_not_busy_for_ever() {
        let mut heap = Heap::new();
        let now = Figures {
            committed: SOFT + 1,
            large: 0,
            soft: SOFT,
        };
        assert_ne!(heap.alarm.look(now, || SOFT + 1), Task::Nothing);
        heap.alarm.forget_others();
        heap.uses(0);
        assert_eq!(heap.uses(SOFT + 1), 1);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::UnsafeCell;
    use loom::sync::Arc;

    /// An alarm, and the program that it tells.
    struct World {
        alarm: Alarm,
        told: UnsafeCell<u32>,
    }

    // SAFETY: the cell is what loom watches.
    unsafe impl Sync for World {}

    /// Two threads find the limit passed; `elect` says which of them is to tell.
    fn passed(elect: fn(&Alarm) -> bool) {
        loom::model(move || {
            let world = Arc::new(World {
                alarm: Alarm::new(),
                told: UnsafeCell::new(0),
            });
            let find = move |world: &World| {
                if elect(&world.alarm) {
                    // SAFETY: loom checks that nobody else is there.
                    world.told.with_mut(|count| unsafe { *count += 1 });
                    world.alarm.told();
                }
            };
            let other = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || find(&world))
            };
            find(&world);
            other.join().unwrap();
            // SAFETY: the other thread has ended.
            let told = world.told.with(|count| unsafe { *count });
            assert_eq!(told, 1, "the program is told once");
        });
    }

    #[test]
    fn loom_of_two_that_find_the_limit_passed_one_tells() {
        passed(|alarm| {
            let now = Figures {
                committed: 9,
                large: 9,
                soft: 8,
            };
            matches!(alarm.look(now, || 0), Task::Tell(_))
        });
    }

    /// The same with a thread that looks and then writes.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_an_election_without_exchange_is_caught() {
        passed(|alarm| {
            let is_armed = alarm.is_armed();
            if is_armed {
                alarm.state.store(BUSY, Ordering::Relaxed);
            }
            is_armed
        });
    }
}
