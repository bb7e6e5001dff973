//! The one place that names atomics, locks and fences: core's, or loom's under
//! `cfg(loom)`.
//!
//! Also the *asymmetric fence*: a barrier that costs the frequent side nothing and the
//! rare side a system call. [`light_barrier`] on the thread that owns a cache pairs with
//! [`heavy_barrier`] on a thread that wants to empty it: either the owner's stores before
//! its light barrier are seen after the heavy one, or its loads after the light barrier
//! see what was stored before the heavy one. Linux: `membarrier(2)`. Where that is
//! missing, [`asymmetric_fences_work`] says no and caches stay closed.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

/// Steps of the protocols that a model can leave out, to show that it would notice.
#[cfg_attr(
    not(any(loom, miri)),
    expect(dead_code, reason = "some are asked for under loom only")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A stack's pop raises the tag.
    RaiseTag,
    /// A stack's push publishes the element.
    Publish,
    /// The owner of a cache stores before it looks.
    LightBarrier,
    /// Who empties a cache sees what was stored before, or is seen.
    HeavyBarrier,
    /// Who empties a cache notes how far.
    NoteDrained,
    /// The hits are counted and the budget renewed in one step.
    RenewBudget,
    /// The bound is looked at and counted in one step.
    CountAtOnce,
    /// Who found the bound reached sees whether it was so all the time.
    CountReleases,
    /// Before "empty" is said, all caches are emptied.
    EmptyCaches,
    /// Giver and waiter both give first and look then.
    ServeFence,
    /// The mode goes back to plenty only if nobody waits.
    AskQueue,
    /// Closing marks the caches.
    MarkClosed,
    /// Who popped in vain shares what was left in its cache.
    Surrender,
    /// In scarce mode an exiting thread's slots become loose.
    LooseAtExit,
    /// The last generation is followed by the first.
    WrapGeneration,
    /// Removing a key raises the generation.
    RaiseGeneration,
    /// The last user of a key has seen what the others did.
    ReleaseReader,
}

/// Whether a step is left out: never, outside of a model's twin.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn left_out(_: Step) -> bool {
    false
}

#[cfg(loom)]
pub(crate) use planted::left_out;
#[cfg(all(test, loom))]
pub(crate) use planted::without;

#[cfg(loom)]
mod planted {
    use super::Step;
    use core::cell::Cell;

    std::thread_local! {
        // All threads of a model run on one thread of the system.
        static LEFT_OUT: Cell<Option<Step>> = const { Cell::new(None) };
    }

    /// Runs a model without a step.
    #[cfg(test)]
    pub(crate) fn without(step: Step, model: impl FnOnce()) {
        LEFT_OUT.set(Some(step));
        model();
    }

    pub(crate) fn left_out(step: Step) -> bool {
        LEFT_OUT.get() == Some(step)
    }
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

#[cfg(loom)]
pub(crate) use loom_lock::{Mutex, MutexGuard};
#[cfg(all(not(loom), feature = "std"))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(all(not(loom), not(feature = "std")))]
pub(crate) use spin::{Mutex, MutexGuard};

/// loom's mutex in the shape of `parking_lot`'s: no poison.
#[cfg(loom)]
mod loom_lock {
    pub(crate) use loom::sync::MutexGuard;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

/// The frequent side of the asymmetric fence: keeps the compiler from moving accesses
/// across; the processor is told by the other side.
#[inline(always)]
pub(crate) fn light_barrier() {
    if left_out(Step::LightBarrier) {
        return;
    }
    #[cfg(not(any(loom, miri)))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    // A full fence on both sides has exactly the guarantee that the pair gives. Miri knows no
    // membarrier.
    #[cfg(any(loom, miri))]
    fence(Ordering::SeqCst);
}

/// The rare side of the asymmetric fence: when it returns, every thread of the process
/// has passed a full barrier since the call. About 0.5 µs.
#[cfg(any(loom, miri))]
pub(crate) fn heavy_barrier() {
    if left_out(Step::HeavyBarrier) {
        return;
    }
    fence(Ordering::SeqCst);
}

/// Whether [`heavy_barrier`] works on this system; the answer never changes.
#[cfg(any(loom, miri))]
pub(crate) fn asymmetric_fences_work() -> bool {
    true
}

#[cfg(not(any(loom, miri)))]
pub(crate) use membarrier::{asymmetric_fences_work, heavy_barrier};

#[cfg(all(not(any(loom, miri)), feature = "std", target_os = "linux"))]
mod membarrier {
    use super::{AtomicU32, Ordering, fence};

    const UNKNOWN: u32 = 0;
    const WORKS: u32 = 1;
    const MISSING: u32 = 2;
    static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);

    fn call(command: libc::c_int) -> bool {
        // SAFETY: membarrier takes two integers (and a CPU number that it ignores
        // without the flag) and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    pub(crate) fn asymmetric_fences_work() -> bool {
        // Relaxed: the value is the whole message; a race registers twice, which is fine.
        match STATE.load(Ordering::Relaxed) {
            UNKNOWN => {
                let works = call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
                STATE.store(if works { WORKS } else { MISSING }, Ordering::Relaxed);
                works
            }
            state => state == WORKS,
        }
    }

    pub(crate) fn heavy_barrier() {
        if !asymmetric_fences_work() {
            // No cache was ever opened, so no light barrier needs this side.
            fence(Ordering::SeqCst);
            return;
        }
        if call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            return;
        }
        // A child of fork may have lost the registration.
        let again = call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
            && call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        assert!(
            again,
            "membarrier worked before and fails now: a seccomp filter must allow it"
        );
    }
}

#[cfg(all(not(any(loom, miri)), not(all(feature = "std", target_os = "linux"))))]
mod membarrier {
    pub(crate) fn asymmetric_fences_work() -> bool {
        false
    }

    pub(crate) fn heavy_barrier() {
        super::fence(super::Ordering::SeqCst);
    }
}
