//! The one place that names atomics and cells: core's, or loom's under `cfg(loom)`.
//!
//! Under loom this library is empty but for [`shared`](crate::shared), which
//! `tests/loom_shared.rs` checks: no static can hold what loom watches.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering,
};
#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// A cell with loom's shape: the pointer is lent to a closure.
#[cfg(not(loom))]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(
    #[expect(clippy::disallowed_types, reason = "the one wrapper of it")] core::cell::UnsafeCell<T>,
);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
