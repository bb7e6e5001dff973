//! How idle slots leave the pool: decay, trim, close.

use alloc::vec::Vec;
use core::ptr::NonNull;

use super::{Shared, is_scarce};
use crate::chunk::Object;
use crate::recycle::DropReason;
use crate::sync::{AtomicUsize, Ordering, Step, left_out};

/// Most objects that one call drops because they are too many, of either kind.
const SHED_SLOTS: usize = 64;

/// How many idle objects are too many; slow calls drop them, a few each. Counts are hints,
/// so all accesses are relaxed: what is there to be dropped is found in the depot.
#[derive(Debug)]
pub(super) struct Excess {
    /// Not needed for two epochs.
    idle: AtomicUsize,
    /// More than is retained.
    surplus: AtomicUsize,
}

impl Excess {
    pub(super) fn new() -> Self {
        Self {
            idle: AtomicUsize::new(0),
            surplus: AtomicUsize::new(0),
        }
    }
}

impl Shared {
    /// Closes the pool: from now on what comes back is dropped by who brings it. Passes
    /// every idle slot to `drop_idle`, which drops the object and releases its permit. After
    /// that the caller calls [`Live::release`] for the handle.
    ///
    /// [`Live::release`]: crate::live::Live::release
    pub(crate) fn close(&self, mut drop_idle: impl FnMut(NonNull<Object>)) {
        {
            let mut registry = self.registry.lock();
            registry.closed = true;
            let mut held: Vec<_> = registry.caches.iter().map(|cache| cache.lock()).collect();
            self.caches_to_loose(&registry, &mut held);
            for held in &mut held {
                held.closed = !left_out(Step::MarkClosed);
            }
            drop(held);
            registry.caches.clear();
        }
        self.drain_depot(&mut drop_idle);
        let _queue = self.queue.lock();
        // With one reference more for the caller, so that nobody frees the pool before the
        // lock is released.
        self.live.close();
    }

    fn drain_depot(&self, pass: &mut impl FnMut(NonNull<Object>)) {
        while let Some(slot) = self.take_shared() {
            pass(slot);
        }
    }

    /// Makes all idle slots loose and passes them on one by one; caches open again when
    /// their owners come by.
    pub(crate) fn trim(&self, mut pass: impl FnMut(NonNull<Object>)) {
        {
            let registry = self.registry.lock();
            let mut held: Vec<_> = registry.caches.iter().map(|cache| cache.lock()).collect();
            self.caches_to_loose(&registry, &mut held);
        }
        self.drain_depot(&mut pass);
        self.storage.release_vacant_chunks();
    }

    /// One epoch of the decay: all caches are emptied into the depot, from which their owners
    /// take back what they need, and what was not needed for two epochs is noted as
    /// excess. `last_low` is the low watermark of the epoch before; returns this one's.
    pub(crate) fn decay(&self, last_low: usize) -> usize {
        self.caches_to_depot();
        let low = self.depot.low_watermark(&self.storage);
        // Relaxed, both: see `Excess`. What is left of the last epoch's is still in the depot,
        // and was not counted as its low.
        let left = self.excess.idle.load(Ordering::Relaxed);
        let excess = low.min(last_low.saturating_add(left));
        self.excess.idle.store(excess, Ordering::Relaxed);
        low - excess
    }

    /// An exiting thread has shared what it had.
    pub(super) fn note_surplus(&self) {
        if self.limits.retain == usize::MAX {
            return;
        }
        let surplus = self.depot.idle(&self.storage);
        let surplus = surplus.saturating_sub(self.limits.retain);
        // Relaxed: see `Excess`. The most that any of several exiting threads saw.
        self.excess.surplus.fetch_max(surplus, Ordering::Relaxed);
    }

    /// Whether [`Shared::shed`] has something to do.
    pub(crate) fn has_excess(&self) -> bool {
        // Relaxed, both: see `Excess`.
        self.excess.idle.load(Ordering::Relaxed) > 0
            || self.excess.surplus.load(Ordering::Relaxed) > 0
    }

    /// Passes some of the excess on to be dropped.
    pub(crate) fn shed(&self, mut pass: impl FnMut(NonNull<Object>, DropReason)) {
        let Excess { idle, surplus } = &self.excess;
        for (excess, keep, reason) in [
            (idle, 0, DropReason::Idle),
            (surplus, self.limits.retain, DropReason::Surplus),
        ] {
            for _ in 0..SHED_SLOTS {
                // Relaxed, here and below: see `Excess`.
                let counted = excess.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                });
                let Ok(left) = counted else {
                    break;
                };
                let many = self.depot.idle(&self.storage) > keep;
                let Some(slot) = many.then(|| self.take_shared()).flatten() else {
                    excess.store(0, Ordering::Relaxed);
                    break;
                };
                pass(slot, reason);
                if left == 1 {
                    self.storage.release_vacant_chunks();
                }
            }
        }
    }

    /// Moves what is in the caches to the depot, by magazines; they open again when their
    /// owners come by.
    fn caches_to_depot(&self) {
        let registry = self.registry.lock();
        // Relaxed: the mode changes under the registry lock only. In scarce mode the caches
        // are empty already, and magazines would break P2.
        if is_scarce(self.mode.load(Ordering::Relaxed)) {
            return;
        }
        let mut held: Vec<_> = registry.caches.iter().map(|cache| cache.lock()).collect();
        let mut magazine = self.depot.empty();
        Self::empty_caches(&registry, &mut held, |slot| self.load(&mut magazine, slot));
        self.depot.put(magazine);
    }
}
