//! The hooks of the process are registered once, by the first thread that wants a cache: what tells
//! the others how far that is.
//!
//! | word | | who comes |
//! |---|---|---|
//! | 0 | not yet | registers |
//! | 1 | somebody is at it | does without: it is the registration's own allocation, or another thread at the very start |
//! | 2 | the system has no key left | does without |
//! | 3 and above | the key plus 3 | has the key |

use crate::sync::{AtomicU32, Ordering};

const NONE: u32 = 0;
const BUSY: u32 = 1;
const FAILED: u32 = 2;
const KEY: u32 = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hooks(AtomicU32);

impl Hooks {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(NONE))
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self(AtomicU32::new(NONE))
    }

    /// The key; `register` makes it, and is called once a process. It may come back here.
    pub(crate) fn key(&self, register: impl FnOnce() -> Option<u32>) -> Option<u32> {
        // Acquire: pairs with the Release in `register`: the hooks are in place.
        match self.0.load(Ordering::Acquire) {
            NONE => self.register(register),
            BUSY | FAILED => None,
            key => Some(key - KEY),
        }
    }

    fn register(&self, register: impl FnOnce() -> Option<u32>) -> Option<u32> {
        // Relaxed, both: only elects the thread that registers.
        self.0
            .compare_exchange(NONE, BUSY, Ordering::Relaxed, Ordering::Relaxed)
            .ok()?;
        let key = register();
        // Release: pairs with the Acquire in `key`.
        self.0
            .store(key.map_or(FAILED, |key| key + KEY), Ordering::Release);
        key
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::UnsafeCell;
    use loom::sync::Arc;

    /// The word, and what the hooks are in the C library.
    struct World {
        hooks: Hooks,
        registered: UnsafeCell<u32>,
    }

    // SAFETY: the cell is what loom watches.
    unsafe impl Sync for World {}

    impl World {
        fn register(&self) -> Option<u32> {
            // SAFETY: loom checks that nobody else is there.
            self.registered.with_mut(|count| unsafe { *count += 1 });
            // What it allocates comes back here.
            assert_eq!(self.hooks.key(|| unreachable!()), None);
            Some(0)
        }
    }

    /// Two threads want a cache at the same time, by `key`.
    fn model(key: fn(&World) -> Option<u32>) {
        loom::model(move || {
            let world = Arc::new(World {
                hooks: Hooks::new(),
                registered: UnsafeCell::new(0),
            });
            let attach = move |world: &World| {
                let key = key(world);
                if key.is_some() {
                    // SAFETY: as in `register`.
                    let count = world.registered.with(|count| unsafe { *count });
                    assert_eq!(count, 1, "registered once");
                }
                key.is_some()
            };
            let other = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || attach(&world))
            };
            let ours = attach(&world);
            let theirs = other.join().unwrap();
            assert!(ours || theirs, "one of them registers");
        });
    }

    #[test]
    fn loom_hooks_are_registered_once_and_before_their_key_is_known() {
        model(|world| world.hooks.key(|| world.register()));
    }

    /// The same with a key that publishes nothing.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_a_relaxed_key_is_caught() {
        model(|world| match world.hooks.0.load(Ordering::Relaxed) {
            NONE => world.hooks.register(|| world.register()),
            BUSY | FAILED => None,
            key => Some(key - KEY),
        });
    }

    /// The same with threads that elect nobody.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_registering_without_election_is_caught() {
        model(|world| match world.hooks.0.load(Ordering::Acquire) {
            NONE => {
                world.hooks.0.store(BUSY, Ordering::Release);
                let key = world.register();
                world.hooks.0.store(KEY, Ordering::Release);
                key
            }
            BUSY | FAILED => None,
            key => Some(key - KEY),
        });
    }
}
