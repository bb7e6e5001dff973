//! How many objects exist: the bound, and the life of the pool.
//!
//! ```text
//!   word   [ releases : 29 | handle : 1 | objects : 34 ]
//! ```
//!
//! The pool's handle and every object that exists, or is being created, keep the pool. The
//! releases are counted so that one who found the bound reached can tell whether it was
//! reached all the time until a second look; they wrap after 2²⁹, and for a mistake exactly
//! that many would have to come between two looks.

use crate::sync::{AtomicU64, Ordering, Step, left_out};

const HANDLE: u64 = 1 << 34;
const OBJECTS: u64 = HANDLE - 1;
/// One release more, one object less.
const RELEASE: u64 = (HANDLE << 1) - 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct Live(AtomicU64);

/// The bound was reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Full(u64);

impl Live {
    /// The handle, and no object.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(HANDLE))
    }

    /// Takes the right to create an object, if fewer than `capacity` exist.
    pub(crate) fn reserve(&self, capacity: usize) -> Result<(), Full> {
        if left_out(Step::CountAtOnce) {
            let word = self.0.load(Ordering::Relaxed);
            self.0.store(word + 1, Ordering::Relaxed);
            return match objects(word) < capacity {
                true => Ok(()),
                false => Err(Full(word)),
            };
        }
        // Acquire on failure: who finds the bound reached sees what those had returned before
        // who reached it; partner: the Release on success.
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                (objects(word) < capacity).then_some(word + 1)
            })
            .map(drop)
            .map_err(Full)
    }

    /// Whether the bound was reached ever since `full`: nothing was released, and without a
    /// release nothing is reserved.
    pub(crate) fn is_still(&self, full: Full) -> bool {
        // Acquire: read after what the caller looked at before, which was with Acquire.
        let now = self.0.load(Ordering::Acquire);
        if left_out(Step::CountReleases) {
            return objects(now) == objects(full.0);
        }
        now == full.0
    }

    /// Objects that exist or are being created.
    pub(crate) fn count(&self) -> usize {
        // Acquire: objects that were dropped before are gone.
        objects(self.0.load(Ordering::Acquire))
    }

    /// Whether the handle is there; for sure while the queue lock is held.
    pub(crate) fn is_open(&self) -> bool {
        // Relaxed: the handle goes under the queue lock.
        self.0.load(Ordering::Relaxed) & HANDLE != 0
    }

    /// One object less. Whether nothing keeps the pool any more: then the caller frees it.
    pub(crate) fn release(&self) -> bool {
        // AcqRel: what others did before they gave theirs up happens before the pool is
        // freed by the last.
        let before = self.0.fetch_add(RELEASE, Ordering::AcqRel);
        debug_assert_ne!(before & OBJECTS, 0, "released more often than reserved");
        before & (HANDLE | OBJECTS) == 1
    }

    /// The handle goes, under the queue lock; instead of it the caller holds one object
    /// more, to [`Live::release`] when the lock is free.
    pub(crate) fn close(&self) {
        // AcqRel: as in `release`.
        self.0.fetch_sub(HANDLE - 1, Ordering::AcqRel);
    }
}

const fn objects(word: u64) -> usize {
    // Each lies in memory, with a link of eight bytes.
    (word & OBJECTS) as usize
}
