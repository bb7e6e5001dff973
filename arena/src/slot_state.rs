//! The state of a slot of guarded blocks (`guard` has the table): what tells threads that free, and the
//! handler of a signal, whether the slot's fields and pages are theirs to look at.
//!
//! ```text
//!            set(LIVE)             close()             set(FREED)
//! EMPTY, FREED ─────────► LIVE ─────────────► CLOSING ──────────► FREED
//!            under the lock    who frees it,         under the lock,
//!            fields first      one of several        pages shut first
//! ```

use crate::sync::{AtomicU8, Ordering};

/// No block was here.
pub(crate) const EMPTY: u8 = 0;
/// The block is in use.
pub(crate) const LIVE: u8 = 1;
/// The block is being freed.
pub(crate) const CLOSING: u8 = 2;
/// The block was freed, and its pages are shut.
pub(crate) const FREED: u8 = 3;

/// See the module. All zeroes is [`EMPTY`].
#[derive(Debug)]
pub(crate) struct SlotState(AtomicU8);

impl SlotState {
    #[cfg(loom)]
    fn new() -> Self {
        Self(AtomicU8::new(EMPTY))
    }

    pub(crate) fn get(&self) -> u8 {
        // Acquire: pairs with the Release in `set`, so that the fields are seen that were written
        // before.
        self.0.load(Ordering::Acquire)
    }

    /// The lock of the slots is held; the fields were written, or the pages shut.
    pub(crate) fn set(&self, state: u8) {
        // Release: pairs with the Acquire in `get` and `close`.
        self.0.store(state, Ordering::Release);
    }

    /// The block is being freed, by the caller alone if `true`: of several threads one gets that.
    pub(crate) fn close(&self) -> bool {
        // Acquire on success: pairs with the Release in `set`: we see the fields of the block that is
        // closed. Relaxed on failure: somebody else frees it, which is all that we need to know.
        let closed = self
            .0
            .compare_exchange(LIVE, CLOSING, Ordering::Acquire, Ordering::Relaxed);
        closed.is_ok()
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::{AtomicUsize, Lock, UnsafeCell};
    use loom::sync::Arc;

    /// One slot, and the lock of all.
    struct World {
        state: SlotState,
        /// The block's size; 0 before there was one.
        size: AtomicUsize,
        /// The pages: what is written there, and opening and shutting them.
        pages: UnsafeCell<usize>,
        lock: Lock<()>,
    }

    // SAFETY: the pages are what loom watches; the rest is atomic or `Sync`.
    unsafe impl Sync for World {}

    impl World {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                state: SlotState::new(),
                size: AtomicUsize::new(0),
                pages: UnsafeCell::new(0),
                lock: Lock::new(()),
            })
        }

        fn write_pages(&self, value: usize) {
            // SAFETY: loom checks that nobody else is there.
            self.pages.with_mut(|pages| unsafe { *pages = value });
        }

        /// The steps of `Guards::take`; `set` makes the slot live. Whether the slot could be had.
        fn take(&self, size: usize, set: fn(&Self)) -> bool {
            self.lock.with(|()| {
                let is_free = matches!(self.state.get(), EMPTY | FREED);
                if is_free {
                    // SAFETY: as in `write_pages`.
                    let left = self.pages.with(|pages| unsafe { *pages });
                    assert_eq!(left, 0, "pages are opened zeroed");
                    self.write_pages(size);
                    // Relaxed: published by the state.
                    self.size.store(size, Ordering::Relaxed);
                    set(self);
                }
                is_free
            })
        }

        /// The steps of `Guards::give`; `close` elects who does it, `shut` shuts the pages and makes
        /// the slot free. Whether it freed the block.
        fn give(&self, close: fn(&Self) -> bool, shut: fn(&Self)) -> bool {
            if self.state.get() == EMPTY || !close(self) {
                return false;
            }
            // Relaxed: as in `Slot::block`.
            assert_ne!(self.size.load(Ordering::Relaxed), 0, "the size is seen");
            shut(self);
            true
        }
    }

    fn live(world: &World) {
        world.state.set(LIVE);
    }

    fn close(world: &World) -> bool {
        world.state.close()
    }

    fn shut(world: &World) {
        world.lock.with(|()| {
            world.write_pages(0);
            world.state.set(FREED);
        });
    }

    /// A block comes to be while another thread looks at the slot, as `find` and the handler of the
    /// signal do, and frees what it finds there.
    fn appears(set: fn(&World)) {
        loom::model(move || {
            let world = World::new();
            let other = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || {
                    if world.state.get() != EMPTY {
                        // Relaxed: as in `Slot::block`.
                        let size = world.size.load(Ordering::Relaxed);
                        assert_ne!(size, 0, "the size is seen");
                    }
                    world.give(close, shut)
                })
            };
            assert!(world.take(24, set));
            other.join().unwrap();
        });
    }

    #[test]
    fn loom_a_slot_that_is_not_empty_shows_its_block() {
        appears(live);
    }

    /// The same with a state that publishes nothing.
    #[test]
    #[should_panic(expected = "the size is seen")]
    fn loom_a_relaxed_slot_is_caught() {
        appears(|world| world.state.0.store(LIVE, Ordering::Relaxed));
    }

    /// Two threads free one block, while a third wants its slot and writes to the pages.
    fn freed_twice(close: fn(&World) -> bool, shut: fn(&World)) {
        loom::model(move || {
            let world = World::new();
            assert!(world.take(24, live));
            let other = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || world.give(close, shut))
            };
            let taker = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || world.take(48, live))
            };
            let ours = world.give(close, shut);
            let theirs = other.join().unwrap();
            // The second free may find the block that came after: then both were freed.
            let taken = taker.join().unwrap();
            assert!(ours || theirs, "nobody frees it");
            assert!(!(ours && theirs) || taken, "a double free is seen");
        });
    }

    #[test]
    fn loom_a_guarded_block_is_freed_once_and_its_slot_taken_when_shut() {
        freed_twice(close, shut);
    }

    /// The same with a free that looks and then writes.
    #[test]
    #[should_panic(expected = "a double free is seen")]
    fn loom_closing_without_exchange_is_caught() {
        let close = |world: &World| {
            let is_live = world.state.get() == LIVE;
            if is_live {
                world.state.set(CLOSING);
            }
            is_live
        };
        freed_twice(close, shut);
    }

    /// The same with a slot that is free before its pages are shut.
    #[test]
    #[should_panic(expected = "pages are opened zeroed")]
    fn loom_a_slot_that_is_free_before_it_is_shut_is_caught() {
        freed_twice(close, |world| {
            world.lock.with(|()| world.state.set(FREED));
            world.lock.with(|()| world.write_pages(0));
        });
    }

    /// The same with pages that are shut outside of the lock, by a state that publishes nothing.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_shutting_without_lock_and_release_is_caught() {
        freed_twice(close, |world| {
            world.write_pages(0);
            world.state.0.store(FREED, Ordering::Relaxed);
        });
    }
}
