//! How idle slots leave the pool: decay, trim, close.

use alloc::vec::Vec;
use core::ptr::NonNull;

use super::{Shared, is_scarce};
use crate::chunk::Object;
use crate::sync::{Ordering, Step, left_out};

impl Shared {
    /// Closes the pool: from now on what comes back is dropped by who brings it. Passes
    /// every idle slot to `drop_idle`, which drops the object and releases its permit.
    /// Returns whether the caller frees the pool.
    pub(crate) fn close(&self, mut drop_idle: impl FnMut(NonNull<Object>)) -> bool {
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
        {
            let _queue = self.queue.lock();
            // With one reference more for ourselves, so that nobody frees the pool before the
            // lock is released.
            self.live.close();
        }
        self.live.release()
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
    /// take back what they need, and what was not needed for two epochs is passed on to
    /// be dropped.
    /// `last_low` is the low watermark of the epoch before; returns this one's.
    pub(crate) fn decay(&self, last_low: usize, mut pass: impl FnMut(NonNull<Object>)) -> usize {
        self.caches_to_depot();
        let low = self.depot.low_watermark(&self.storage);
        let surplus = low.min(last_low);
        let mut dropped = 0;
        // One by one: a destructor that panics takes no other slot with it.
        while dropped < surplus {
            let Some(slot) = self.take_shared() else {
                break;
            };
            dropped += 1;
            pass(slot);
        }
        if dropped > 0 {
            self.storage.release_vacant_chunks();
        }
        low.saturating_sub(dropped)
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
