//! What a thread does when a magazine is empty or full: blocks come and go some tens at a
//! time, and limits grow with use, as far as there is room.

use core::ptr;

use crate::depot::{self, BATCH};
use crate::heap_core::HeapCore;
use crate::magazines::Push;
use crate::os;
use crate::purge;
use crate::size_class::{block_size, magazine_capacity, span_blocks};
use crate::sync::Ordering;
use crate::thread_cache::{Aside, MAX_BATCH, Room, ThreadCache};
use crate::units::{ClassIndex, GRANULE_SHIFT};

/// Slow paths of a thread after which it may look for room that its other magazines do
/// not use.
const REGROUP_VISITS: usize = 64;
/// Most bytes that a magazine grows by at once: all that it may hold.
const MAX_GROWTH: usize = 128 << 10;
/// Entries from which on a magazine does without.
const FEW_ENTRIES: usize = 16;

impl HeapCore {
    /// Fetches blocks for the empty magazine of `class` and returns one of them, for `request` bytes.
    #[cold]
    #[inline(never)]
    pub(crate) fn refill(&self, cache: &ThreadCache, class: ClassIndex, request: usize) -> *mut u8 {
        let block = cache.alone(|| self.refill_alone(cache, class, request));
        self.after_slow_path(Some(cache));
        block
    }

    /// [`Self::refill`] inside `alone`.
    pub(crate) fn refill_alone(
        &self,
        cache: &ThreadCache,
        class: ClassIndex,
        request: usize,
    ) -> *mut u8 {
        let mut blocks = [ptr::null_mut(); MAX_BATCH];
        let visits = self.visit(cache);
        cache.close_holes(class);
        if cache.depot.bytes() > 0 {
            let block = cache.take_back(class, !self.hardened);
            if !block.is_null() {
                return block;
            }
            if self.is_exhausted(class) {
                // A span more is wanted: what others of the thread's classes hold may be one.
                self.empty_depot_for_growth(cache);
            }
        }
        let want = match cache.allowance(class) {
            0 => {
                self.widen(cache, class, visits);
                cache.batch(class)
            }
            _ => {
                let want = cache.batch(class);
                self.widen(cache, class, visits);
                want
            }
        };
        if self.sweep_is_due() {
            // Memory that was given back is being touched again: the heap grows.
            self.sweep_for_growth();
        }
        let mut got = self.take_blocks(class, blocks.get_mut(..want).unwrap_or_default());
        if got == 0 && self.give_up_kept_by(cache) {
            // Memory is short, and the thread had some that it did not use.
            got = self.take_blocks(class, blocks.get_mut(..want).unwrap_or_default());
        }
        if got == 0 && self.harvest_for_limit(block_size(class)) {
            got = self.take_blocks(class, blocks.get_mut(..want).unwrap_or_default());
        }
        let Some((&first, rest)) = blocks.get(..got).and_then(<[_]>::split_first) else {
            return ptr::null_mut();
        };
        if let Some(central) = self.centrals.get(class.get()) {
            central.note_request(request);
        }
        cache.depot.note_fetched(class, got);
        cache.fill(class, rest);
        first
    }

    /// Makes room in the full magazine of `class` and puts `block` there.
    #[cold]
    #[inline(never)]
    pub(crate) fn make_room(&self, cache: &ThreadCache, class: ClassIndex, block: *mut u8) {
        cache.alone(|| self.make_room_alone(cache, class, block));
        self.after_slow_path(Some(cache));
    }

    /// [`Self::make_room`] inside `alone`.
    pub(crate) fn make_room_alone(&self, cache: &ThreadCache, class: ClassIndex, block: *mut u8) {
        let visits = self.visit(cache);
        cache.close_holes(class);
        if cache.allowance(class) == 0 {
            // The thread has not allocated of the class yet: the block is another's, and so
            // may its neighbours be. Back in its span, it is nobody's next one.
            self.give_blocks(class, &[block]);
            self.widen(cache, class, visits);
            return;
        }
        let is_full = cache.len(class) >= cache.allowance(class);
        if is_full && !self.widen(cache, class, visits) {
            self.lower(cache, class);
            self.tick();
        }
        if cache.push(class, block) == Push::Full {
            // There is no room for even one.
            self.give_blocks(class, &[block]);
        }
    }

    /// Sets the older half of a full magazine aside, or gives it back to the spans.
    #[inline(never)]
    fn lower(&self, cache: &ThreadCache, class: ClassIndex) {
        match self.set_aside(cache, class) {
            Aside::Done => return,
            Aside::Full => {}
            // The bits of the spans know if it was freed before. If it was, it lies in the list of
            // its class.
            Aside::Marked => {
                self.give_back(cache, |other| if other == class { usize::MAX } else { 0 });
            }
        }
        let mut blocks = [ptr::null_mut(); MAX_BATCH];
        let half = cache.len(class).div_ceil(2).min(MAX_BATCH);
        let count = cache.drain(class, blocks.get_mut(..half).unwrap_or_default());
        self.give_blocks(class, blocks.get(..count).unwrap_or_default());
    }

    /// Counts a slow path; gives up what was not wanted for a while. Inside `alone`.
    fn visit(&self, cache: &ThreadCache) -> usize {
        let visits = cache.visit();
        if visits % REGROUP_VISITS == 0 {
            if cache.runs.take_idle() {
                self.give_up_runs(cache);
            }
            // Room that it does not use is wanted elsewhere, so an empty one has its time too.
            if cache.depot.room() > 0 && cache.depot.is_time(os::now_ms()) {
                self.give_back(cache, |class| cache.depot.take_unwanted(class));
            }
        }
        visits
    }

    /// Whether the spans of `class` have no free block, as far as counts show.
    fn is_exhausted(&self, class: ClassIndex) -> bool {
        let central = self.centrals.get(class.get());
        central.is_none_or(|central| central.outside() >= central.spans() * span_blocks(class))
    }

    /// Gives all blocks of the depot back to their spans, and its room; whether there were any
    /// blocks. Inside `alone`, or during a harvest.
    pub(crate) fn empty_depot(&self, cache: &ThreadCache) -> bool {
        let any = cache.depot.bytes() > 0;
        if cache.depot.room() > 0 {
            self.give_back(cache, |_| usize::MAX);
        }
        any
    }

    /// [`Self::empty_depot`] before the heap grows, if the depot holds enough to be felt.
    pub(crate) fn empty_depot_for_growth(&self, cache: &ThreadCache) {
        // Relaxed: a count for the policy.
        let committed = self.committed.load(Ordering::Relaxed) << GRANULE_SHIFT;
        if purge::aside_is_felt(committed, cache.depot.bytes()) {
            self.empty_depot(cache);
        }
    }

    /// Memory is short: gives up what the thread keeps beyond its magazines; whether there was
    /// any. Inside `alone`.
    #[cold]
    pub(crate) fn give_up_kept_by(&self, cache: &ThreadCache) -> bool {
        let any = self.empty_depot(cache);
        self.give_up_runs(cache) || any
    }

    /// Gives as many batches of each class back to their spans as `batches` says.
    #[cold]
    fn give_back(&self, cache: &ThreadCache, batches: impl Fn(ClassIndex) -> usize) {
        let mut blocks = [ptr::null_mut(); BATCH];
        for class in ClassIndex::all().take_while(|&class| depot::is_wanted(class)) {
            let mut left = batches(class);
            while left > 0 && cache.take_aside(class, &mut blocks, !self.hardened) {
                self.give_blocks(class, &blocks);
                left -= 1;
            }
        }
        cache.give_up_depot_room(&self.cacheable);
    }

    /// Lets the magazine of `class` hold more; `false` when it stays. Inside `alone`.
    fn widen(&self, cache: &ThreadCache, class: ClassIndex, visits: usize) -> bool {
        if cache.allowance(class) == magazine_capacity(class) {
            return false;
        }
        let room = self.room();
        if cache.grow(class, room) {
            return true;
        }
        if cache.depot.room() > 0 && !room.has(MAX_GROWTH) {
            // A magazine's next entries are worth more than what lies deeper: the depot has the
            // room that magazines leave, and gives up a batch of each class when it uses all of its.
            let batches = usize::from(cache.depot.room() == cache.depot.bytes());
            self.give_back(cache, |_| batches);
            if cache.grow(class, room) {
                return true;
            }
        }
        // Other classes may have had their time. Looking costs a visit to each, and this
        // one may be full for good.
        if visits % REGROUP_VISITS == 0 && cache.allowance(class) < FEW_ENTRIES {
            cache.give_up_unused(class, room);
            return cache.grow(class, room);
        }
        false
    }

    /// What caches may hold now.
    pub(crate) fn room(&self) -> Room<'_> {
        // Relaxed: a count for the policy.
        let committed = self.committed.load(Ordering::Relaxed) << GRANULE_SHIFT;
        // Relaxed: as above.
        let threads = self.owners.load(Ordering::Relaxed);
        Room {
            each: self.options.thread_cache(),
            depot: purge::most_set_aside(self.options.thread_cache(), threads),
            all: purge::most_cached(committed),
            taken: &self.cacheable,
        }
    }

    /// Gives every block of every magazine of `cache` back to the spans, and its runs. The owner calls
    /// it, or nobody owns the cache.
    pub(crate) fn flush(&self, cache: &ThreadCache) {
        cache.alone(|| self.flush_alone(cache));
        self.after_slow_path(Some(cache));
    }

    /// [`Self::flush`] inside `alone`, or during a harvest of a cache that is exclusive.
    pub(crate) fn flush_alone(&self, cache: &ThreadCache) {
        if self.hardened {
            self.empty_quarantine(cache);
        }
        for class in ClassIndex::all() {
            let mut blocks = [ptr::null_mut(); MAX_BATCH];
            cache.close_holes(class);
            loop {
                let count = cache.drain(class, &mut blocks);
                if count == 0 {
                    break;
                }
                self.give_blocks(class, blocks.get(..count).unwrap_or_default());
            }
        }
        self.empty_depot(cache);
        self.give_up_runs(cache);
    }
}
