//! A heap, whole: the tiers put together, and every decision between them.
//!
//! Lock order, for code that holds more than one: shared cache, cache store, a cache's own,
//! class locks by rising class, page heap, dropping, big blocks, guards, options, profile. Most paths hold
//! one at a time; slow paths hold the cache's own besides.
//!
//! Block addresses become pointers by exposed provenance: segments and big blocks are exposed
//! when they are mapped, and the page map vouches for an address before it is used.

use core::ptr::{self, NonNull};

use crate::alarm::Alarm;
use crate::bell::Bell;
use crate::big::BigCache;
use crate::bitmap::{below, lowest_run};
use crate::cache_store::{CacheStore, SharedCache};
use crate::central::Central;
use crate::config::{Builder, Options};
use crate::fatal::{Misuse, die};
use crate::faults::Os;
use crate::guard::Guards;
use crate::lend::Lending;
use crate::magazines::Push;
use crate::os;
use crate::page_heap::{Given, Growth, PageHeap, Placement, Wanted};
use crate::page_map::PAGE_MAP;
use crate::purge;
use crate::segment::Segment;
use crate::size_class::{block_size, class_of, span_align, span_granules};
use crate::span::{Kind, Span};
use crate::state_window;
use crate::sweeping::Sweeping;
use crate::sync::{AtomicU64, AtomicUsize, Lock, Ordering};
use crate::thread_cache::ThreadCache;
use crate::units::{
    CLASS_COUNT, Change, Claim, ClassIndex, Contents, GRANULE_SHIFT, HARDENED_HEAP, PROCESS_HEAP,
};
use crate::window;

/// One heap; see the module. Used through `heap.rs` and `process.rs`.
#[derive(Debug)]
pub(crate) struct HeapCore {
    pub(crate) id: u16,
    pub(crate) os: Os,
    pub(crate) options: Options,
    /// Whether the heap's front is that of `hardened.rs`.
    pub(crate) hardened: bool,
    /// The guarded blocks of a hardened heap.
    pub(crate) guards: Guards,
    /// Starts the heap's purge thread; `false` when that cannot be. `None`: it has none.
    pub(crate) start_purging: Option<fn() -> bool>,
    /// Wakes it.
    pub(crate) bell: Bell,
    /// Threads that have a cache of their own and will give it back: while there are some,
    /// the purge thread stays.
    pub(crate) owners: AtomicUsize,
    /// Whether the program is to be told that the soft limit is passed.
    pub(crate) alarm: Alarm,
    /// Bytes of blocks that the limits of all caches allow, beyond what is free.
    pub(crate) cacheable: AtomicUsize,
    /// For threads without a cache of their own.
    pub(crate) shared: Lock<SharedCache>,
    pub(crate) caches: Lock<CacheStore>,
    pub(crate) centrals: [Central; CLASS_COUNT],
    pub(crate) pages: Lock<PageHeap>,
    /// Held while a kept mapping is out of `big` and not unmapped yet.
    pub(crate) dropping: Lock<()>,
    pub(crate) big: Lock<BigCache>,
    /// Granules of blocks, runs and big blocks that may be resident.
    pub(crate) committed: AtomicUsize,
    /// Granules given back to the system so far.
    pub(crate) purged: AtomicUsize,
    /// Bytes in whole runs and big blocks that the program holds, or threads keep.
    pub(crate) large: AtomicUsize,
    /// Classes of which a span may be wholly free, one bit each: a hint.
    pub(crate) empties: AtomicU64,
    /// Committed granules at which the sweep policy is asked again.
    pub(crate) look_at: AtomicUsize,
    /// Granules of resident free blocks in spans that the last sweep left, or fewer.
    pub(crate) swept: AtomicUsize,
    /// What became of what sweeps gave back.
    pub(crate) sweeping: Sweeping,
    /// Index of the class at which the last sweep stopped.
    pub(crate) sweep_from: AtomicUsize,
    /// Granules of spans of blocks that are not resident.
    pub(crate) fresh: AtomicUsize,
    /// What is known about runs to lend.
    pub(crate) lending: Lending,
    /// When the decay policy last looked, in milliseconds; 0 before the first time.
    pub(crate) ticked_ms: AtomicU64,
    /// From when on [`Self::settle`] may act again, in milliseconds.
    pub(crate) settle_from_ms: AtomicU64,
    /// [`Self::free_granules`] when one thread got company, for [`Self::settle`]; else `MAX`.
    pub(crate) free_before: AtomicUsize,
    /// Bytes in an OS page; 0 until it is asked for.
    os_page: AtomicUsize,
}

impl HeapCore {
    pub(crate) const fn new(
        id: u16,
        os: Os,
        builder: &Builder,
        start_purging: Option<fn() -> bool>,
    ) -> Self {
        Self {
            id,
            os,
            options: Options::new(builder),
            hardened: builder.hardened,
            guards: Guards::new(),
            start_purging,
            bell: Bell::new(),
            owners: AtomicUsize::new(0),
            alarm: Alarm::new(),
            cacheable: AtomicUsize::new(0),
            shared: Lock::new(SharedCache::new()),
            caches: Lock::new(CacheStore::new()),
            centrals: [const { Central::new() }; CLASS_COUNT],
            pages: Lock::new(PageHeap::new()),
            dropping: Lock::new(()),
            big: Lock::new(BigCache::new()),
            committed: AtomicUsize::new(0),
            purged: AtomicUsize::new(0),
            large: AtomicUsize::new(0),
            empties: AtomicU64::new(0),
            look_at: AtomicUsize::new(purge::KEEP_GRANULES),
            swept: AtomicUsize::new(0),
            sweeping: Sweeping::new(),
            sweep_from: AtomicUsize::new(0),
            fresh: AtomicUsize::new(0),
            lending: Lending::new(),
            ticked_ms: AtomicU64::new(0),
            settle_from_ms: AtomicU64::new(0),
            free_before: AtomicUsize::new(usize::MAX),
            os_page: AtomicUsize::new(0),
        }
    }

    /// Allocates; null when memory is short or the request cannot be met.
    #[inline]
    pub(crate) fn alloc(&self, cache: &ThreadCache, size: usize, align: usize) -> *mut u8 {
        if self.hardened {
            return self.alloc_hardened(cache, size, align, Contents::Any);
        }
        let Some(class) = class_of(size, align) else {
            return self.alloc_large_slow(cache, size, align, Contents::Any);
        };
        let block = cache.pop(class);
        if block.is_null() {
            return self.refill(cache, class, size);
        }
        block
    }

    /// Allocates zeroed memory; null as for [`Self::alloc`].
    pub(crate) fn alloc_zeroed(&self, cache: &ThreadCache, size: usize, align: usize) -> *mut u8 {
        if self.hardened {
            return self.alloc_hardened(cache, size, align, Contents::Zero);
        }
        if class_of(size, align).is_none() {
            return self.alloc_large_slow(cache, size, align, Contents::Zero);
        }
        let block = self.alloc(cache, size, align);
        if !block.is_null() {
            // SAFETY: a block of at least `size` bytes, just allocated.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    /// Allocates whole granules.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_large_slow(
        &self,
        cache: &ThreadCache,
        size: usize,
        align: usize,
        contents: Contents,
    ) -> *mut u8 {
        let block = self.alloc_large_with(cache, size, align, contents);
        self.after_slow_path(Some(cache));
        block
    }

    /// Frees a block of whole granules.
    ///
    /// # Safety
    ///
    /// As for [`Self::free_large`].
    #[inline(never)]
    pub(crate) unsafe fn free_large_slow(&self, cache: &ThreadCache, block: *mut u8) {
        // SAFETY: by contract.
        unsafe { self.free_large_with(cache, block) };
        self.after_slow_path(Some(cache));
    }

    /// Frees a block of the layout it was allocated or last reallocated with.
    ///
    /// # Safety
    ///
    /// `block` came from this heap with this layout, and nobody uses it any more. (Most
    /// violations are found and end the process.)
    #[inline]
    pub(crate) unsafe fn dealloc(
        &self,
        cache: &ThreadCache,
        block: *mut u8,
        size: usize,
        align: usize,
    ) {
        if self.hardened {
            return self.free_hardened(cache, block, Claim::Layout(size, align));
        }
        match class_of(size, align) {
            Some(class) => {
                self.dealloc_small(cache, class, block);
            }
            // SAFETY: by contract.
            None => unsafe { self.free_large_slow(cache, block) },
        }
    }

    /// [`Self::dealloc`] for a thread that can have no cache because memory is short: the
    /// block goes straight back to where it came from.
    ///
    /// # Safety
    ///
    /// As for [`Self::dealloc`].
    #[cold]
    pub(crate) unsafe fn dealloc_uncached(&self, block: *mut u8, size: usize, align: usize) {
        match class_of(size, align) {
            _ if self.hardened => self.free_rare(None, block, Claim::Layout(size, align)),
            Some(class) => self.give_blocks(class, &[block]),
            // SAFETY: by contract.
            None => unsafe { self.free_large(block) },
        }
    }

    /// Puts a block of `class` into the magazine, making room when it is full.
    #[inline]
    pub(crate) fn dealloc_small(&self, cache: &ThreadCache, class: ClassIndex, block: *mut u8) {
        match cache.push(class, block) {
            Push::Done => {}
            Push::Twice => die(Misuse::DoubleFree, block.addr()),
            Push::Full => self.make_room(cache, class, block),
        }
    }

    /// Changes the size of a block without moving it to another kind of place; `None`
    /// when the caller has to allocate, copy and free. (Not done here: those are two
    /// operations on the cache, T5.)
    ///
    /// # Safety
    ///
    /// As for [`Self::dealloc`], with the size and alignment of the old layout.
    pub(crate) unsafe fn resize(
        &self,
        block: *mut u8,
        (size, align): (usize, usize),
        new_size: usize,
    ) -> Option<*mut u8> {
        if self.hardened {
            // SAFETY: by contract.
            return unsafe { self.resize_hardened(block, (size, align), new_size) };
        }
        match (class_of(size, align), class_of(new_size, align)) {
            (Some(old), Some(new)) => (old == new).then_some(block),
            // SAFETY: by contract; both sizes are large.
            (None, None) => unsafe {
                let change = if new_size > size {
                    Change::Growth
                } else {
                    Change::Other
                };
                self.resize_large(block, new_size, align, change)
            },
            _ => None,
        }
    }

    /// Takes up to `out.len()` blocks of `class` from the spans; 0 when memory is short.
    pub(crate) fn take_blocks(&self, class: ClassIndex, out: &mut [*mut u8]) -> usize {
        match self.options.memory_limit() {
            None => self.take_any_blocks(class, out),
            Some(_) => self.take_reserved_blocks(class, out),
        }
    }

    /// [`Self::take_blocks`] without regard to the memory limit.
    pub(crate) fn take_any_blocks(&self, class: ClassIndex, out: &mut [*mut u8]) -> usize {
        let Some(central) = self.centrals.get(class.get()) else {
            return 0;
        };
        let mut got = 0;
        loop {
            let want = out.len() - got;
            central.take(class, want, |span, word, mask| {
                self.note_touched(class, span, word, mask);
                let start = span.start() + word * 64 * block_size(class);
                let room = out.get_mut(got..).unwrap_or_default();
                got += write_addresses(start, block_size(class), mask, room);
            });
            if got > 0 {
                return got;
            }
            if let Some(round) = self.lending_round(class) {
                if self.add_span(class, Growth::Refuse) {
                    continue;
                }
                got = self.borrow(class, round, out);
                if got > 0 {
                    return got;
                }
            }
            if !self.add_span(class, Growth::Allow) {
                return 0;
            }
        }
    }

    /// Blocks are being handed out: their granules become resident. Under the class lock.
    pub(crate) fn note_touched(&self, class: ClassIndex, span: &Span, word: usize, mask: u64) {
        let fresh = span.fresh();
        if fresh == 0 {
            return;
        }
        let mut touched = 0u64;
        let mut rest = mask;
        while rest != 0 {
            let run = lowest_run(rest);
            let first = (word * 64 + run.start) * block_size(class);
            let last = (word * 64 + run.end()) * block_size(class) - 1;
            touched |= below((last >> GRANULE_SHIFT) + 1) & !below(first >> GRANULE_SHIFT);
            rest &= !below(run.end());
        }
        let swept = span.swept();
        span.set_fresh(fresh & !touched, swept & !touched);
        self.sweeping
            .note_back((swept & touched).count_ones() as usize);
        let count = (fresh & touched).count_ones() as usize;
        // Relaxed: counts for statistics and for the policy.
        self.committed.fetch_add(count, Ordering::Relaxed);
        self.fresh.fetch_sub(count, Ordering::Relaxed);
    }

    /// Adds a span to `class`; `false` when memory is short, or would have to grow and may
    /// not.
    #[cold]
    fn add_span(&self, class: ClassIndex, growth: Growth) -> bool {
        let Some(central) = self.centrals.get(class.get()) else {
            return false;
        };
        let wanted = Wanted {
            len: span_granules(class),
            placement: Placement::Tight {
                align: span_align(class),
            },
        };
        let Some(given) = self.alloc_granules(wanted, Kind::Blocks(class), growth) else {
            return false;
        };
        let start = given.segment.run_of(given.span).start;
        if self.hardened && !self.prepare_states(given.segment, start, class) {
            // SAFETY: the span was just given out to us, and is unused.
            self.pages
                .with(|pages| unsafe { pages.free(given.segment, given.span, &given.fresh) });
            return false;
        }
        let mut fresh = 0u64;
        for index in 0..span_granules(class) {
            fresh |= u64::from(given.fresh.get(start + index)) << index;
        }
        // Relaxed: a count for the policy.
        self.fresh
            .fetch_add(fresh.count_ones() as usize, Ordering::Relaxed);
        let words = given.segment.words_for(given.span, class);
        central.announce();
        // SAFETY: the span was just given out to us and is unused; `words_for` gives the
        // words that belong to it, as many as its class needs.
        unsafe { given.span.open(class, words, fresh) };
        central.adopt(class, given.span);
        true
    }

    /// Gives out a run of granules. Before the heap's resident part grows, if it may, what
    /// is there is used: spans that became empty, and OS pages inside part-used spans when
    /// the policy says that it is time.
    pub(crate) fn alloc_granules(
        &self,
        wanted: Wanted,
        kind: Kind,
        growth: Growth,
    ) -> Option<Given<'static>> {
        self.tick();
        let alloc = |growth| {
            self.pages
                .with(|pages| pages.alloc(self.os(), self.id, wanted, kind, growth))
        };
        // Relaxed: hints and counts for the policy.
        let empties = self.empties.load(Ordering::Relaxed) != 0;
        let due = self.sweep_is_due();
        if empties || due {
            if let Some(given) = alloc(Growth::Refuse) {
                return Some(given);
            }
            if due {
                self.sweep_for_growth();
            } else {
                self.retire_empties();
            }
        }
        let mut given = alloc(growth);
        if given.is_none() && growth == Growth::Allow {
            self.relieve();
            given = alloc(growth);
        }
        if let Some(given) = given.as_ref().filter(|given| given.fresh_count > 0) {
            self.give_up_kept(given.fresh_count << GRANULE_SHIFT);
        }
        given
    }

    /// The segment of this heap that holds `addr`.
    #[inline]
    pub(crate) fn segment_of(&self, addr: usize) -> Option<&'static Segment> {
        // SAFETY: the page map has a segment of this heap there, and the heap lives.
        PAGE_MAP
            .is_segment(addr, self.id)
            .then(|| unsafe { Segment::containing(addr) })
    }

    /// The system with the huge-page policy in force.
    pub(crate) fn os(&self) -> Os {
        self.os.with_huge_pages(self.options.huge_pages())
    }

    /// Bytes in an OS page.
    pub(crate) fn os_page(&self) -> usize {
        // Relaxed: whoever computes it computes the same.
        match self.os_page.load(Ordering::Relaxed) {
            0 => {
                let size = os::page_size();
                self.os_page.store(size, Ordering::Relaxed);
                size
            }
            size => size,
        }
    }

    /// A cache for a thread, or `None` when memory is short.
    pub(crate) fn acquire_cache(&self) -> Option<NonNull<ThreadCache>> {
        let os_page = self.os_page();
        let cache = self.caches.with(|store| {
            let cache = store.acquire(self.os, os_page)?;
            if self.id == PROCESS_HEAP {
                window::place(cache.as_ptr().addr());
            }
            Some(cache)
        })?;
        if self.id == PROCESS_HEAP {
            // SAFETY: caches live as long as the heap, and this one is the caller's alone.
            unsafe { cache.as_ref().magazines.set_view(window::view()) };
        }
        if self.id == HARDENED_HEAP {
            state_window::place(cache.as_ptr().addr());
        }
        if self.hardened {
            // SAFETY: caches live as long as the heap.
            unsafe { cache.as_ref() }.harden(os::random());
        }
        Some(cache)
    }

    /// Empties a cache and takes it back.
    ///
    /// # Safety
    ///
    /// The cache came from [`Self::acquire_cache`], and its thread has stopped using it.
    pub(crate) unsafe fn release_cache(&self, cache: NonNull<ThreadCache>) {
        // SAFETY: caches live as long as the heap, and by contract we are its only user.
        let this = unsafe { cache.as_ref() };
        this.set_exclusive(false);
        self.flush(this);
        // Relaxed: a sum of numbers.
        self.cacheable
            .fetch_sub(this.give_up_all(), Ordering::Relaxed);
        let os_page = self.os_page();
        // SAFETY: by contract; the magazines are empty now.
        self.caches
            .with(|store| unsafe { store.release(self.os, os_page, cache) });
    }

    /// Runs `f` with the cache that threads without their own share; `None` when memory
    /// is short.
    pub(crate) fn with_shared<R>(&self, f: impl FnOnce(&ThreadCache) -> R) -> Option<R> {
        let result = self.shared.with(|shared| {
            // Relaxed: used under the lock alone.
            let mut cache = NonNull::new(shared.0.load(Ordering::Relaxed));
            if cache.is_none() {
                cache = self.acquire_cache();
                if let Some(cache) = cache {
                    // SAFETY: caches live as long as the heap.
                    unsafe { cache.as_ref() }.set_shared();
                }
                let pointer = cache.map_or(ptr::null_mut(), NonNull::as_ptr);
                shared.0.store(pointer, Ordering::Relaxed);
            }
            // SAFETY: caches live as long as the heap; the lock makes us its only user.
            cache.map(|cache| f(unsafe { cache.as_ref() }))
        });
        self.after_slow_path(None);
        result
    }
}

/// Writes the addresses of the blocks of `mask` into `out`, as far as there is room; returns
/// how many. The first block of the mask's word starts at `start`.
pub(crate) fn write_addresses(
    start: usize,
    block_bytes: usize,
    mask: u64,
    out: &mut [*mut u8],
) -> usize {
    let first = mask.trailing_zeros();
    let count = mask.count_ones() as usize;
    let mut addr = start + first as usize * block_bytes;
    if mask != 0 && mask >> first == below(count) {
        // Side by side, as in a new span.
        let room = count.min(out.len());
        for slot in out.iter_mut().take(room) {
            *slot = ptr::with_exposed_provenance_mut(addr);
            addr += block_bytes;
        }
        return room;
    }
    let mut rest = mask;
    let mut written = 0;
    for slot in out {
        if rest == 0 {
            break;
        }
        let addr = start + rest.trailing_zeros() as usize * block_bytes;
        *slot = ptr::with_exposed_provenance_mut(addr);
        written += 1;
        rest &= rest - 1;
    }
    written
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_those_of_the_bits() {
        for mask in [0, 1, 0b1011, u64::MAX, u64::MAX << 20, 0x00ff_ff00, 1 << 63] {
            for room in [0, 1, 3, 64] {
                let mut out = [ptr::null_mut(); 64];
                let written = write_addresses(4096, 48, mask, &mut out[..room]);
                let bits = (0..64).filter(|bit| mask >> bit & 1 == 1).take(room);
                let expected: Vec<usize> = bits.map(|bit| 4096 + bit * 48).collect();
                let found: Vec<usize> = out[..written].iter().map(|block| block.addr()).collect();
                assert_eq!(found, expected, "{mask:x} into {room}");
            }
        }
    }
}
