//! A pointer that any thread follows without a lock: null until what it leads to is whole, and what it
//! leads to stays as long as who may ask.
//!
//! | | `load` | `store` | `adopt` |
//! |---|---|---|---|
//! | null | null | → leads | → leads, `true` |
//! | leads | the pointer | the same again | stays, `false` |

use core::ptr;

use crate::sync::{AtomicPtr, Ordering};

/// See the module. All zeroes is null.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(transparent))]
pub(crate) struct Published<T>(AtomicPtr<T>);

impl<T> Published<T> {
    #[cfg(not(loom))]
    pub(crate) const fn nothing() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[cfg(loom)]
    fn nothing() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The pointer; what it leads to is whole.
    #[inline(always)]
    pub(crate) fn load(&self) -> *mut T {
        // Acquire: pairs with the Release in `store` and `adopt`.
        self.0.load(Ordering::Acquire)
    }

    /// Publishes what `pointer` leads to, which is whole. Of several threads each stores the same.
    #[inline]
    pub(crate) fn store(&self, pointer: *mut T) {
        // Release: pairs with the Acquire in `load`.
        self.0.store(pointer, Ordering::Release);
    }

    /// Publishes what `pointer` leads to, which is whole, unless there is something; whether it did.
    pub(crate) fn adopt(&self, pointer: *mut T) -> bool {
        // Release: pairs with the Acquire in `load`. Relaxed on failure: who wants what is there
        // loads it.
        let adopted = self.0.compare_exchange(
            ptr::null_mut(),
            pointer,
            Ordering::Release,
            Ordering::Relaxed,
        );
        adopted.is_ok()
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::UnsafeCell;
    use loom::sync::Arc;
    use std::boxed::Box;

    /// What a heap knows of the blocks of a segment: once in the segment's header (`Segment`), once in
    /// the window (`state_window`).
    struct World {
        header: Published<UnsafeCell<u32>>,
        window: Published<UnsafeCell<u32>>,
    }

    // SAFETY: the pointers are atomic, and the cells what loom watches.
    unsafe impl Sync for World {}
    // SAFETY: as above.
    unsafe impl Send for World {}

    /// New states, whole: 7.
    fn states() -> *mut UnsafeCell<u32> {
        let states = Box::leak(Box::new(UnsafeCell::new(0)));
        // SAFETY: nobody else knows them.
        states.with_mut(|states| unsafe { *states = 7 });
        states
    }

    /// What one sees who follows `pointer`; `None` where there is nothing.
    fn follow(pointer: *mut UnsafeCell<u32>) -> Option<u32> {
        // SAFETY: null, or leaked states; loom checks that nobody writes.
        unsafe { pointer.as_ref() }.map(|states| states.with(|states| unsafe { *states }))
    }

    /// Two threads cut spans from a new segment, as `prepare_states` does by `adopt` and `store`; a
    /// third frees by the window.
    fn model(
        adopt: fn(&Published<UnsafeCell<u32>>, *mut UnsafeCell<u32>) -> bool,
        store: fn(&Published<UnsafeCell<u32>>, *mut UnsafeCell<u32>),
    ) {
        loom::model(move || {
            let world = Arc::new(World {
                header: Published::nothing(),
                window: Published::nothing(),
            });
            let cut = move |world: &World| {
                if world.header.load().is_null() {
                    adopt(&world.header, states());
                }
                let ours = world.header.load();
                assert_eq!(follow(ours), Some(7));
                store(&world.window, ours);
                ours.addr()
            };
            let other = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || cut(&world))
            };
            let free = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || {
                    let found = follow(world.window.load());
                    assert!(found.is_none_or(|states| states == 7));
                })
            };
            let first = cut(&world);
            free.join().unwrap();
            assert_eq!(first, other.join().unwrap(), "a segment has one of them");
        });
    }

    #[test]
    fn loom_states_are_whole_and_a_segment_has_one_of_them() {
        model(Published::adopt, Published::store);
    }

    /// The same with a window whose pointer publishes nothing.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_a_relaxed_window_is_caught() {
        model(Published::adopt, |window, states| {
            window.0.store(states, Ordering::Relaxed);
        });
    }

    /// The same with a header whose pointer publishes nothing.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_a_relaxed_adoption_is_caught() {
        let adopt = |header: &Published<UnsafeCell<u32>>, states| {
            let (null, relaxed) = (ptr::null_mut(), Ordering::Relaxed);
            header
                .0
                .compare_exchange(null, states, relaxed, relaxed)
                .is_ok()
        };
        model(adopt, Published::store);
    }

    /// The same with a header that takes whatever comes last.
    #[test]
    #[should_panic(expected = "a segment has one of them")]
    fn loom_an_adoption_without_exchange_is_caught() {
        let adopt = |header: &Published<UnsafeCell<u32>>, states| {
            header.store(states);
            true
        };
        model(adopt, Published::store);
    }
}
