//! The one place that names atomics and locks: core's and `parking_lot`'s, or loom's
//! under `cfg(loom)`; and the steps of the protocols that a model's twin leaves out.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use shim::{Condvar, Mutex, MutexGuard};

/// A step of a protocol between threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A reader's slot is taken in one step.
    TakeSlot,
    /// A reader looks again whether its version is still the published one.
    LookAgain,
    /// A leader acknowledges what it wrote, and not what came meanwhile.
    AcknowledgeWritten,
    /// A leader wakes those who wait.
    WakeCommitters,
    /// A checkpoint takes what it made durable out of the buffer.
    DropDurable,
    /// Futures whose transaction became durable are woken.
    WakeFutures,
    /// The syncing thread does what is asked of it before it ends.
    FinishBeforeEnd,
    /// The version of a checkpoint on its way is kept.
    KeepPinned,
    /// The ring is used anew up to where the last checkpoint says.
    KeepRing,
    /// The thread that makes checkpoints is woken.
    WakeCleaner,
    /// A commit that finds the ring full waits for the checkpoint on its way.
    AwaitCheckpoint,
    /// What is known of the values in a page is forgotten before it is written anew.
    ForgetValidated,
    /// A signal handler looks again whether a place changed while it read it.
    LookAtTurnAgain,
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

/// loom's locks with the shape of `parking_lot`'s.
#[cfg(loom)]
mod shim {
    pub(crate) use loom::sync::MutexGuard;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    #[derive(Debug)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        /// loom's wait takes the guard by value; it is put back before returning.
        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(guard).unwrap()
        }
    }
}

/// Waits on `condvar`; the guard goes in and comes back.
#[cfg(not(loom))]
pub(crate) fn wait<'a, T>(condvar: &Condvar, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(&mut guard);
    guard
}

/// Waits on `condvar`; the guard goes in and comes back.
#[cfg(loom)]
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard)
}
