//! What an exiting thread leaves.

use alloc::vec::Vec;
use core::mem;
use core::ptr::NonNull;

use super::{Shared, is_scarce};
use crate::cache::{Cache, CacheState};
use crate::chunk::Object;
use crate::depot::Held;
use crate::sync::{Ordering, Step, left_out};
use crate::wait::wake_all;

impl Shared {
    /// The owner of `cache` exits: its slots are shared. No object is dropped here, for
    /// destructors would run where the thread's other thread-locals may be gone: what is
    /// more than the pool retains, gets drop later.
    ///
    /// # Safety
    ///
    /// `shared` was live when the cache was attached to it and was freed, if at all, after
    /// [`Shared::close`].
    pub(crate) unsafe fn abandon(shared: NonNull<Self>, cache: &Cache) {
        let mut wake = Vec::new();
        {
            let mut held = cache.lock();
            if held.closed {
                return;
            }
            // SAFETY: the cache is not closed, and closing waits for its lock: the pool is
            // live until we release it.
            let shared = unsafe { shared.as_ref() };
            cache.normalise(&mut held);
            // Relaxed: the mode becomes scarce only while this cache's lock is held (P3).
            let scarce = is_scarce(shared.mode.load(Ordering::Relaxed));
            if scarce && !left_out(Step::LooseAtExit) {
                while let Some(slot) = cache.pop_locked(&mut held) {
                    shared.depot.put_loose(&shared.storage, slot);
                }
                shared.serve(&mut wake);
            } else {
                shared.drain_to_depot(cache, &mut held);
                cache.normalise(&mut held);
            }
            shared.note_surplus();
            cache.abandon(&mut held);
        }
        wake_all(wake);
    }

    /// Freezes a cache and moves its slots to the depot, by magazines.
    fn drain_to_depot(&self, cache: &Cache, held: &mut CacheState) {
        let mut magazine = self.depot.empty();
        cache.drain(held, |slot| self.load(&mut magazine, slot));
        self.depot.put(magazine);
    }

    /// Puts a slot into a magazine; a full one is shared and replaced.
    pub(super) fn load(&self, magazine: &mut Held, slot: NonNull<Object>) {
        if self.depot.load(magazine, slot) == self.limits.magazine {
            let full = mem::replace(magazine, self.depot.empty());
            self.depot.put(full);
        }
    }
}
