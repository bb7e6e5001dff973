//! Memory on its way back while the threads that freed it sleep: the free blocks in their
//! caches, and what the purge thread does. The protocol is in `thread_cache/freeze.rs` and
//! `bell.rs`; when memory goes back is decided in `purge.rs`.

use core::ptr;

use crate::bell::{Bell, Duty};
use crate::heap_core::HeapCore;
use crate::os;
use crate::purge;
use crate::sync::{AtomicU32, Ordering};
use crate::thread_cache::{MAX_ENTRIES, ThreadCache};
use crate::units::{ClassIndex, GRANULE_SHIFT};

/// Never changes: to sleep on for a time.
static CLOCK: AtomicU32 = AtomicU32::new(0);

/// Bytes in a cache that are not worth a harvest.
const FEW_BYTES: usize = 4096;

/// Whose caches are harvested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Every thread's.
    All,
    /// Those of threads that did nothing for this many milliseconds.
    Idle(u64),
}

/// What the purge thread remembers from one look to the next.
#[derive(Debug, Default)]
struct Last {
    /// Granules of resident free blocks in spans.
    free: usize,
    dirty: usize,
}

impl HeapCore {
    /// Gives the free blocks in the caches of other threads back to their spans; returns
    /// whether caches are left for which it was too early.
    ///
    /// Does nothing on a system without `membarrier`.
    pub(crate) fn harvest(&self, whose: Whose) -> bool {
        let now = os::now_ms();
        self.caches.with(|store| {
            let mut frozen = 0;
            let mut early = false;
            store.for_each(|cache| {
                let least = match whose {
                    Whose::All => 0,
                    Whose::Idle(ms) => ms,
                };
                let idle = cache.idle_for(now);
                if cache.harvestable() < FEW_BYTES || cache.is_shared() {
                    return;
                }
                if idle < least {
                    early = true;
                } else if (frozen > 0 || os::can_barrier()) && cache.freeze() {
                    frozen += 1;
                }
            });
            if frozen == 0 {
                return early;
            }
            let ordered = os::barrier_everywhere();
            store.for_each(|cache| {
                if cache.is_frozen() {
                    if ordered && !cache.is_busy() {
                        self.harvest_cache(cache);
                    }
                    cache.thaw();
                }
            });
            early
        })
    }

    /// The memory limit forbids `bytes` more: gives back what other threads have in their caches, before
    /// an allocation fails; `false`, and nothing done, where that cannot help. Its caller may be inside
    /// `alone`, and holds no lock: its own cache is busy then, and left alone.
    #[cold]
    #[inline(never)]
    pub(crate) fn harvest_for_limit(&self, bytes: usize) -> bool {
        let may_help = self
            .options
            .memory_limit()
            .is_some_and(|limit| bytes >> GRANULE_SHIFT <= limit);
        if may_help {
            self.harvest(Whose::All);
        }
        may_help
    }

    /// `cache` is frozen, a barrier came after, and then its owner was not busy.
    fn harvest_cache(&self, cache: &ThreadCache) {
        if self.hardened {
            // The owner does everything inside `alone`, and is elsewhere.
            self.flush_alone(cache);
            cache.give_up_rest(&self.cacheable);
            return;
        }
        for class in ClassIndex::all() {
            let mut blocks = [ptr::null_mut(); MAX_ENTRIES];
            // SAFETY: by the only caller, just above.
            let count = unsafe { cache.harvest(class, &mut blocks, &self.cacheable) };
            self.give_blocks(class, blocks.get(..count).unwrap_or_default());
        }
        self.empty_depot(cache);
        self.give_up_runs(cache);
    }

    /// Wakes the purge thread, or starts it, if the heap has one and `committed` granules
    /// are worth it. No lock is held.
    pub(crate) fn ring(&self, committed: usize) {
        let Some(start) = self.start_purging else {
            return;
        };
        if !self.options.purge_thread() {
            return;
        }
        // Relaxed: a guess; a thread that starts finds out for itself.
        let start_it =
            committed >= purge::START_GRANULES && self.owners.load(Ordering::Relaxed) > 0;
        match self.bell.ring(start_it) {
            Duty::None => {}
            Duty::Wake => os::wake_one(self.bell.word()),
            Duty::Start => {
                if !start() {
                    self.bell.fail();
                }
            }
        }
    }

    /// A thread has got a cache.
    pub(crate) fn note_start(&self) {
        // Relaxed: counts for the policy.
        if self.owners.fetch_add(1, Ordering::Relaxed) == 1 {
            self.free_before
                .fetch_min(self.free_granules(), Ordering::Relaxed);
        }
    }

    /// A thread that owned a cache has given it back, and is about to end.
    pub(crate) fn note_exit(&self) {
        // SeqCst: before the ring, after which the purge thread looks.
        match self.owners.fetch_sub(1, Ordering::SeqCst) {
            1 => self.ring(0),
            2 => self.settle(),
            _ => {}
        }
    }

    /// The purge thread: looks at the heap while there is something to give back, and
    /// sleeps until the bell rings when there is not.
    ///
    /// Returns when no other thread owns a cache: a process ends with its last thread,
    /// and this one must not keep it. The next that needs it starts another.
    pub(crate) fn purge_while_wanted(&self) {
        let mut last = Last::default();
        loop {
            self.bell.begin();
            // SeqCst: after `begin`; see `note_exit`.
            if self.owners.load(Ordering::SeqCst) == 0 {
                self.bell.forget();
                return;
            }
            if self.options.purge_thread() && self.look(&mut last) {
                let pause = purge::pause_ms(self.options.decay_ms(), self.options.idle_ms());
                // SAFETY: a static.
                unsafe { os::wait_for(CLOCK.as_ptr(), 0, pause) };
            } else if self.bell.sleep() {
                while self.bell.is_silent() {
                    // SAFETY: the heap of the process lives as long as the process.
                    unsafe { os::wait(self.bell.word(), Bell::ASLEEP) };
                }
            }
        }
    }

    /// One look of the purge thread; whether there will be something to do later.
    fn look(&self, last: &mut Last) -> bool {
        let early = self.harvest(Whose::Idle(self.options.idle_ms()));
        self.tick();
        let (free, dirty) = (self.free_granules(), self.pages.with(|pages| pages.dirty()));
        let quiet = (free, dirty) == (last.free, last.dirty);
        // What was free at both looks: nobody wants it.
        let unwanted = free.min(last.free);
        // Relaxed: counts for the policy.
        let committed = self.committed.load(Ordering::Relaxed);
        let swept = self.swept.fetch_min(free, Ordering::Relaxed);
        let decays = self.options.decay_ms() != u64::MAX;
        if decays && purge::background_sweep_is_due(committed, unwanted, swept, quiet) {
            self.sweep(usize::MAX);
        }
        (last.free, last.dirty) = (self.free_granules(), dirty);
        // Relaxed: as above.
        let swept = self.swept.load(Ordering::Relaxed);
        let left = purge::background_sweep_is_due(committed, last.free, swept, true)
            || dirty > purge::KEEP_GRANULES
            || self.big.with(|big| big.bytes()) > 0;
        early || (decays && left) || (decays && !quiet)
    }
}

const _: () = assert!(purge::KEEP_GRANULES < purge::START_GRANULES && GRANULE_SHIFT == 12);
