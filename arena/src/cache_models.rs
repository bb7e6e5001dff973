//! loom models of the harvest (`thread_cache/freeze.rs`): a magazine with the steps of `pop` and
//! `push` in their order, its owner, and a thread that takes its blocks.
//!
//! loom knows no `membarrier`. A barrier that is passed wherever the owner happens to be
//! is a `SeqCst` fence between any two of its steps, so the owner has one before each
//! ([`everywhere`]), which costs nothing in the real thing.

use std::vec::Vec;

use loom::sync::Arc;

use crate::sync::{AtomicBool, AtomicUsize, Ordering, UnsafeCell, seqcst_fence};

/// Slot 0 is the one below the base, so a top of 1 is an empty magazine.
const SLOTS: usize = 5;

/// One magazine, and the owner's pointer to it (here: whether it is null).
struct World {
    pointer: AtomicBool,
    lock: AtomicBool,
    busy: AtomicBool,
    stop: AtomicBool,
    top: AtomicUsize,
    slots: [UnsafeCell<u32>; SLOTS],
}

// SAFETY: the slots are what loom watches; the rest is atomic.
unsafe impl Sync for World {}

/// Where the barrier of [`World::freeze`] may fall.
fn everywhere() {
    seqcst_fence();
}

impl World {
    /// A magazine with blocks 1, 2 and 3.
    fn new() -> Self {
        Self {
            pointer: AtomicBool::new(true),
            lock: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            top: AtomicUsize::new(4),
            slots: core::array::from_fn(|slot| {
                UnsafeCell::new(if slot < 4 {
                    u32::try_from(slot).unwrap()
                } else {
                    0
                })
            }),
        }
    }

    fn read(&self, slot: usize) -> u32 {
        // SAFETY: loom checks that nobody writes at the same time.
        self.slots[slot].with(|slot| unsafe { *slot })
    }

    fn write(&self, slot: usize, block: u32) {
        // SAFETY: loom checks that nobody else is there.
        self.slots[slot].with_mut(|slot| unsafe { *slot = block });
    }

    fn acquire(&self) {
        // Acquire / Relaxed: as in `RawLock`.
        while self
            .lock
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            loom::thread::yield_now();
        }
    }

    fn release(&self) {
        // Release: as in `RawLock`.
        self.lock.store(false, Ordering::Release);
    }

    /// The owner's pointer is there; waits for the lock as `own_cache` does if it is not.
    fn load_pointer(&self) {
        everywhere();
        // Relaxed: as on the fast path.
        while !self.pointer.load(Ordering::Relaxed) {
            self.acquire();
            self.release();
        }
        everywhere();
    }

    /// One `pop` of the owner; 0 when it finds the magazine empty.
    fn pop(&self) -> u32 {
        self.load_pointer();
        self.pop_with_pointer()
    }

    fn pop_with_pointer(&self) -> u32 {
        // Relaxed, here and below: the owner's own.
        let top = self.top.load(Ordering::Relaxed);
        everywhere();
        let block = self.read(top - 1);
        everywhere();
        if block != 0 {
            self.top.store(top - 1, Ordering::Relaxed);
        }
        everywhere();
        block
    }

    /// One `push` of the owner.
    fn push(&self, block: u32) {
        self.load_pointer();
        let top = self.top.load(Ordering::Relaxed);
        everywhere();
        assert_ne!(self.read(top - 1), block, "a block is pushed twice");
        self.write(top, block);
        everywhere();
        self.top.store(top + 1, Ordering::Relaxed);
        everywhere();
    }

    /// A slow path of the owner: takes all blocks, as a flush does.
    fn flush(&self) -> Vec<u32> {
        // Relaxed: as in `ThreadCache::alone`.
        self.busy.store(true, Ordering::Relaxed);
        everywhere();
        // Acquire: as there.
        while self.stop.load(Ordering::Acquire) {
            self.busy.store(false, Ordering::Release);
            self.acquire();
            self.release();
            self.busy.store(true, Ordering::Relaxed);
            everywhere();
        }
        let taken = self.take(0);
        self.top.store(1, Ordering::Relaxed);
        everywhere();
        // Release: as there.
        self.busy.store(false, Ordering::Release);
        taken
    }

    /// A short way of the owner of an exclusive cache: the same, or nothing while there is a
    /// harvest, if `looks`.
    fn flush_unless_stopped(&self, looks: bool) -> Vec<u32> {
        // Relaxed: as in `ThreadCache::unless_stopped`.
        self.busy.store(true, Ordering::Relaxed);
        everywhere();
        let mut taken = Vec::new();
        // Acquire: as there.
        if !looks || !self.stop.load(Ordering::Acquire) {
            taken = self.take(0);
            self.top.store(1, Ordering::Relaxed);
        }
        everywhere();
        // Release: as there.
        self.busy.store(false, Ordering::Release);
        taken
    }

    /// Steps 1 and 2; whether the owner was busy then.
    fn freeze(&self) -> bool {
        self.acquire();
        self.stop.store(true, Ordering::SeqCst);
        self.pointer.store(false, Ordering::SeqCst);
        seqcst_fence();
        // Acquire: as in `ThreadCache::is_busy`.
        self.busy.load(Ordering::Acquire)
    }

    /// Step 3: all but the newest.
    fn take(&self, keep: usize) -> Vec<u32> {
        let top = self.top.load(Ordering::Relaxed);
        let mut taken = Vec::new();
        for slot in 1..top.saturating_sub(keep) {
            let block = self.read(slot);
            if block != 0 {
                taken.push(block);
                self.write(slot, 0);
            }
        }
        taken
    }

    /// Step 4.
    fn thaw(&self) {
        // Release, both: as in `ThreadCache::thaw`.
        self.stop.store(false, Ordering::Release);
        self.pointer.store(true, Ordering::Release);
        self.release();
    }
}

/// Runs `owner` beside `harvest`; afterwards every block is at one place.
fn model(owner: fn(&World) -> Vec<u32>, harvest: fn(&World) -> Vec<u32>) {
    let mut builder = loom::model::Builder::new();
    // The fences make many steps; two preemptions reach every pair of them.
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let world = Arc::new(World::new());
        let thread = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || harvest(&world))
        };
        let mut all = owner(&world);
        all.extend(thread.join().unwrap());
        loop {
            match world.pop() {
                0 => break,
                block => all.push(block),
            }
        }
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3], "every block has one holder");
    });
}

fn harvest(world: &World) -> Vec<u32> {
    let busy = world.freeze();
    let taken = if busy { Vec::new() } else { world.take(1) };
    world.thaw();
    taken
}

fn pop_and_flush(world: &World) -> Vec<u32> {
    let mut taken = Vec::from([world.pop()]);
    taken.extend(world.flush());
    taken.retain(|&block| block != 0);
    taken
}

fn pop_twice(world: &World) -> Vec<u32> {
    [world.pop(), world.pop()]
        .into_iter()
        .filter(|&block| block != 0)
        .collect()
}

fn pop_and_push(world: &World) -> Vec<u32> {
    let block = world.pop();
    world.push(block);
    Vec::new()
}

/// The owner pops while its blocks are taken: none goes to both, none is lost, and no
/// slot is touched by both at once.
#[test]
fn loom_a_harvest_leaves_what_the_owner_may_take() {
    model(pop_twice, harvest);
}

/// The owner pops and pushes meanwhile.
#[test]
fn loom_a_harvest_leaves_room_for_what_the_owner_pushes() {
    model(pop_and_push, harvest);
}

/// The owner empties the magazine meanwhile.
#[test]
fn loom_a_harvest_leaves_an_owner_alone_that_is_busy() {
    model(pop_and_flush, harvest);
}

/// The same with a harvest that does not look whether the owner is busy.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_harvest_of_a_busy_owner_is_caught() {
    model(pop_and_flush, |world| {
        world.freeze();
        let taken = world.take(1);
        world.thaw();
        taken
    });
}

/// All operations of an exclusive cache are like a flush, inside `alone`; there is no pointer.
fn flush_twice(world: &World) -> Vec<u32> {
    let mut taken = world.flush();
    taken.extend(world.flush());
    taken
}

/// A harvest of it takes the newest block, too, and moves the top.
fn harvest_all(world: &World) -> Vec<u32> {
    let busy = world.freeze();
    let mut taken = Vec::new();
    if !busy {
        taken = world.take(0);
        world.top.store(1, Ordering::Relaxed);
    }
    world.thaw();
    taken
}

/// The owner works in a cache all of whose operations are exclusive, while it is harvested.
#[test]
fn loom_a_harvest_of_an_exclusive_cache_takes_all() {
    model(flush_twice, harvest_all);
}

/// The owner of such a cache tries the short way first, which does not wait.
#[test]
fn loom_a_short_way_does_nothing_during_a_harvest() {
    model(
        |world| {
            let mut taken = world.flush_unless_stopped(true);
            taken.extend(world.flush());
            taken
        },
        harvest_all,
    );
}

/// The same with a short way that does not look whether there is a harvest.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_short_way_during_a_harvest_is_caught() {
    model(|world| world.flush_unless_stopped(false), harvest_all);
}

/// The same with an owner that does a single pop outside.
#[test]
#[should_panic(expected = "one holder")]
fn loom_an_operation_that_is_not_exclusive_is_caught() {
    model(
        |world| {
            let block = world.pop_with_pointer();
            Vec::from_iter((block != 0).then_some(block))
        },
        harvest_all,
    );
}

/// Two harvests while one operation is under way.
#[test]
fn loom_a_second_harvest_finds_the_holes_of_the_first() {
    model(pop_twice, |world| {
        let mut taken = harvest(world);
        taken.extend(harvest(world));
        taken
    });
}

/// A harvest that takes the newest block too.
#[test]
#[should_panic(expected = "one holder")]
fn loom_taking_the_newest_block_is_caught() {
    model(pop_twice, |world| {
        world.freeze();
        let taken = world.take(0);
        world.thaw();
        taken
    });
}

/// A harvest that does not freeze.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_harvest_without_a_freeze_is_caught() {
    model(pop_twice, |world| {
        world.acquire();
        let taken = world.take(1);
        world.release();
        taken
    });
}

/// A harvest that freezes and does not wait for the barrier.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_harvest_without_the_barrier_is_caught() {
    model(pop_twice, |world| {
        world.acquire();
        world.pointer.store(false, Ordering::Relaxed);
        let taken = world.take(1);
        world.thaw();
        taken
    });
}

/// A harvest that lowers the top instead of leaving holes.
#[test]
#[should_panic(expected = "one holder")]
fn loom_a_harvest_that_moves_the_top_is_caught() {
    model(pop_twice, |world| {
        world.freeze();
        let taken = world.take(1);
        world.top.store(1, Ordering::Relaxed);
        world.thaw();
        taken
    });
}

/// An owner that does two operations with one load of its pointer (T5).
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_two_operations_with_one_pointer_are_caught() {
    model(
        |world| {
            world.load_pointer();
            [world.pop_with_pointer(), world.pop_with_pointer()]
                .into_iter()
                .filter(|&block| block != 0)
                .collect()
        },
        harvest,
    );
}
