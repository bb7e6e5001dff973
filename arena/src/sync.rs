//! The one place that names atomics and cells: core's, or loom's under `cfg(loom)`.
//!
//! Also the lock. It is our own because a lock inside an allocator must not allocate
//! (`parking_lot` may), must be held across `fork` by the handlers, and must be released
//! in the child by a thread that is not the one that took it as far as the system knows.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// The fence that orders a store before a later load, where the accesses around it are
/// all `SeqCst`.
///
/// `SeqCst` accesses need no fence between them. loom models them as `AcqRel` only, and
/// fences in full, so the fence exists for the model alone.
#[inline(always)]
pub(crate) fn seqcst_fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Keeps the compiler from moving accesses to memory across; no instruction.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn compiler_barrier() {
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// A cell with loom's shape: the pointer is lent to a closure.
#[derive(Debug)]
#[cfg(not(loom))]
pub(crate) struct UnsafeCell<T>(
    #[expect(clippy::disallowed_types, reason = "the one wrapper of it")] core::cell::UnsafeCell<T>,
);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        #[expect(clippy::disallowed_types, reason = "the one wrapper of it")]
        Self(core::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;
/// Looks at a held lock before sleeping; a critical section is some hundred cycles.
const SPINS: u32 = 100;

/// A futex mutex with three states ("Futexes Are Tricky", Drepper, mutex 3), without
/// owner and without poison.
///
/// | state | meaning |
/// |---|---|
/// | 0 | free |
/// | 1 | held, nobody sleeps |
/// | 2 | held, somebody may sleep: the holder wakes one when it releases |
#[derive(Debug)]
pub(crate) struct RawLock {
    state: AtomicU32,
}

impl RawLock {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
        }
    }

    /// Waits until the lock is free and takes it.
    #[inline]
    pub(crate) fn acquire(&self) {
        // Acquire: sees what the last holder did before the Release in `release`.
        // Relaxed on failure: nothing is read before the lock is held.
        if self
            .state
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.acquire_slow();
        }
    }

    /// Takes the lock if it is free at once.
    pub(crate) fn try_acquire(&self) -> bool {
        // Acquire / Relaxed: as in `acquire`.
        self.state
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    #[inline(never)]
    fn acquire_slow(&self) {
        for _ in 0..SPINS {
            // Relaxed: only a hint that the CAS below may work.
            if self.state.load(Ordering::Relaxed) == FREE
                // Acquire / Relaxed: as in `acquire`.
                && self
                    .state
                    .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            pause();
        }
        // Acquire: as in `acquire`. From here on we may sleep, or may have slept beside
        // others, so the lock is taken in the contended state.
        while self.state.swap(CONTENDED, Ordering::Acquire) != FREE {
            sleep_while_contended(&self.state);
        }
    }

    /// Releases the lock; the caller holds it (or its forking parent did).
    #[inline]
    pub(crate) fn release(&self) {
        // Release: publishes the critical section to the Acquire in `acquire`.
        if self.state.swap(FREE, Ordering::Release) == CONTENDED {
            wake_sleeper(&self.state);
        }
    }
}

#[cfg(not(loom))]
fn pause() {
    core::hint::spin_loop();
}

#[cfg(not(loom))]
fn sleep_while_contended(state: &AtomicU32) {
    // SAFETY: the reference is live for the whole call.
    unsafe { crate::os::wait(state.as_ptr(), CONTENDED) };
}

#[cfg(not(loom))]
fn wake_sleeper(state: &AtomicU32) {
    crate::os::wake_one(state.as_ptr());
}

#[cfg(loom)]
fn pause() {
    loom::thread::yield_now();
}

#[cfg(loom)]
fn sleep_while_contended(_state: &AtomicU32) {
    loom::thread::yield_now();
}

#[cfg(loom)]
fn wake_sleeper(_state: &AtomicU32) {}

/// A value behind a [`RawLock`].
#[derive(Debug)]
pub(crate) struct Lock<T> {
    raw: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only while the lock is held (`with`), so by one thread at
// a time; it moves between threads with the lock, hence `T: Send`.
unsafe impl<T: Send> Sync for Lock<T> {}
// SAFETY: owning the lock is owning the value.
unsafe impl<T: Send> Send for Lock<T> {}

impl<T> Lock<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new(value: T) -> Self {
        Self {
            raw: RawLock::new(),
            value: UnsafeCell::new(value),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Self {
        Self {
            raw: RawLock::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Runs `f` on the value while holding the lock. `f` does not panic.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.raw.acquire();
        // SAFETY: the lock is held, so no other reference to the value exists.
        let result = self.value.with_mut(|value| f(unsafe { &mut *value }));
        self.raw.release();
        result
    }

    /// Runs `f` on the value of a lock that is held.
    ///
    /// # Safety
    ///
    /// The caller, or the parent that forked it, holds the lock, and no reference to the
    /// value is alive.
    #[cfg(not(loom))]
    pub(crate) unsafe fn with_held<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: by contract the caller is the only one inside.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }

    /// The lock alone, for the fork handlers.
    pub(crate) fn raw(&self) -> &RawLock {
        &self.raw
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;

    /// Two threads add to a plain counter under the lock. A wrong ordering shows as a
    /// causality violation on the cell, a wrong state as a lost increment.
    #[test]
    fn loom_lock_excludes() {
        loom::model(|| {
            let lock = Arc::new(Lock::new(0));
            let other = {
                let lock = Arc::clone(&lock);
                loom::thread::spawn(move || lock.with(|n| *n += 1))
            };
            lock.with(|n| *n += 1);
            other.join().unwrap();
            assert_eq!(lock.with(|n| *n), 2);
        });
    }

    /// The same with a lock whose release is relaxed: the model must see it.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_lock_with_a_relaxed_release_is_caught() {
        loom::model(|| {
            let lock = Arc::new(Lock::new(0));
            let other = {
                let lock = Arc::clone(&lock);
                loom::thread::spawn(move || {
                    lock.raw.acquire();
                    // SAFETY: as in `with`; the planted bug is the Relaxed below.
                    lock.value.with_mut(|n| unsafe { *n += 1 });
                    lock.raw.state.swap(FREE, Ordering::Relaxed);
                })
            };
            lock.with(|n| *n += 1);
            other.join().unwrap();
        });
    }
}
