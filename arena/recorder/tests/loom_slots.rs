//! loom models of the slots in which a replay's threads hand blocks on
//! (`benches/src/replay/slot.rs`).
//!
//! The package of that file does not build under loom, so it is compiled here:
//! `RUSTFLAGS="--cfg loom" cargo test --profile loom -p brickyard-recorder --test loom_slots`
#![cfg(loom)]

#[path = "../../../benches/src/replay/slot.rs"]
mod slot;
#[path = "../../../benches/src/replay/sync.rs"]
mod sync;

use core::ptr;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

use slot::Slot;
use sync::Ordering;

/// Two slots, and cells in the place of the contents of two blocks.
struct World {
    slots: [Slot; 2],
    contents: [UnsafeCell<u64>; 2],
    /// Threads that are not done with the first epoch.
    running: Mutex<usize>,
}

// SAFETY: the cells are what loom watches.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new(running: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: [Slot::new(), Slot::new()],
            contents: [UnsafeCell::new(0), UnsafeCell::new(0)],
            running: Mutex::new(running),
        })
    }

    /// Puts block `number` into the slot, after writing into it. Its layout is its number plus 10.
    fn fill(&self, slot: usize, number: usize, ordering: Ordering) {
        // SAFETY: loom checks that nobody else is there.
        self.contents[number].with_mut(|content| unsafe { *content += 1 });
        let address = ptr::without_provenance_mut(number + 1);
        self.slots[slot].fill_with(address, number as u64 + 10, ordering);
    }

    /// Takes the block out, uses it as its owner may, and returns its number.
    fn empty(&self, slot: usize) -> usize {
        let wait = || {
            thread::yield_now();
            true
        };
        let (address, layout) = self.slots[slot].empty(wait).expect("waits for ever");
        let number = address.addr() - 1;
        assert_eq!(layout, number as u64 + 10, "the layout of another block");
        // SAFETY: loom checks that nobody else is there.
        self.contents[number].with_mut(|content| unsafe { *content += 1 });
        number
    }

    /// As `Machine::run_thread` at the end of an epoch.
    fn done(&self) {
        *self.running.lock().unwrap() -= 1;
    }

    /// As `Machine::wait_for_all`, and `open` for the thread that calls it.
    fn wait_for_all(&self) {
        while *self.running.lock().unwrap() > 0 {
            thread::yield_now();
        }
    }
}

/// One thread fills a slot; another empties it, and hands the block on in a second slot, as
/// `realloc` does.
fn a_block_is_handed_on(ordering: Ordering) {
    loom::model(move || {
        let world = World::new(0);
        let filler = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.fill(0, 0, ordering))
        };
        let grower = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let number = world.empty(0);
                world.fill(1, number, ordering);
            })
        };
        filler.join().unwrap();
        grower.join().unwrap();
        assert_eq!(world.empty(1), 0);
        assert!(world.slots.iter().all(|slot| slot.layout().is_none()));
    });
}

#[test]
fn loom_a_block_is_handed_on_with_its_layout() {
    a_block_is_handed_on(Ordering::Release);
}

#[test]
#[should_panic(expected = "the layout of another block")]
fn loom_twin_a_block_that_is_not_published() {
    a_block_is_handed_on(Ordering::Relaxed);
}

/// In one epoch a thread empties a slot, in the next another fills it again: that block stays.
fn the_next_epoch_fills(begin: fn(&World)) {
    loom::model(move || {
        let world = World::new(1);
        world.fill(0, 0, Ordering::Release);
        let emptier = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let number = world.empty(0);
                world.done();
                number
            })
        };
        begin(&world);
        world.fill(0, 1, Ordering::Release);
        assert_eq!(emptier.join().unwrap(), 0, "a block of a later epoch");
        assert_eq!(world.slots[0].layout(), Some(11), "a block is lost");
    });
}

#[test]
fn loom_a_slot_is_filled_again_in_the_next_epoch() {
    the_next_epoch_fills(World::wait_for_all);
}

#[test]
#[should_panic(expected = "a block")]
fn loom_twin_an_epoch_that_does_not_wait() {
    the_next_epoch_fills(|_| {});
}
