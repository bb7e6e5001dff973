//! One heap and the caches that a single-threaded driver has open on it.

use core::alloc::Layout;

use brickyard_arena::{Heap, HeapCache};

use crate::op::{CACHE_SLOTS, CacheSlot, Via};
use crate::poison::PoisonedRanges;

/// Bytes of an OS page that the oracle reckons with.
pub const OS_PAGE_BYTES: usize = 4096;

/// Routes calls to a heap or one of its caches, and keeps the poison.
#[derive(Debug)]
pub struct Handles<'h> {
    heap: &'h Heap,
    /// Opened at first use. A slot whose cache the heap refused stays empty, and
    /// the heap itself serves it.
    caches: [Option<HeapCache<'h>>; CACHE_SLOTS],
    /// Block sizes of the classes, ascending.
    block_sizes: Vec<usize>,
    poison: PoisonedRanges,
    /// The poison is lifted for a run of calls.
    open: bool,
}

impl<'h> Handles<'h> {
    /// No cache is open yet.
    #[must_use]
    pub fn new(heap: &'h Heap) -> Self {
        let block_sizes = heap
            .stats()
            .classes
            .iter()
            .map(|class| class.block_size)
            .collect();
        Self {
            heap,
            caches: [const { None }; CACHE_SLOTS],
            block_sizes,
            poison: PoisonedRanges::default(),
            open: false,
        }
    }

    /// The heap behind all of them.
    #[must_use]
    pub fn heap(&self) -> &'h Heap {
        self.heap
    }

    /// Block sizes of the heap's classes, ascending.
    #[must_use]
    pub fn block_sizes(&self) -> &[usize] {
        &self.block_sizes
    }

    /// Size of the block that a layout gets: the smallest class that holds the
    /// size rounded up to the alignment. None when no class does.
    #[must_use]
    pub fn block_size(&self, layout: Layout) -> Option<usize> {
        let wanted = layout.size().max(1).next_multiple_of(layout.align());
        let index = self.block_sizes.partition_point(|&size| size < wanted);
        self.block_sizes.get(index).copied()
    }

    /// Allocates a block; null when memory is exhausted.
    pub fn alloc(&mut self, via: Via, layout: Layout) -> *mut u8 {
        let ptr = match self.cache(via) {
            Some(cache) => cache.alloc(layout),
            None => self.heap.alloc(layout),
        };
        self.given_out(ptr, layout);
        ptr
    }

    /// Allocates a zeroed block; null when memory is exhausted.
    pub fn alloc_zeroed(&mut self, via: Via, layout: Layout) -> *mut u8 {
        if !self.open {
            self.poison.suspend();
        }
        let ptr = match self.cache(via) {
            Some(cache) => cache.alloc_zeroed(layout),
            None => self.heap.alloc_zeroed(layout),
        };
        if !self.open {
            self.poison.resume();
        }
        self.given_out(ptr, layout);
        ptr
    }

    /// Lifts the poison for a run of zeroed allocations, until
    /// [`close_poison`](Self::close_poison); to lift it for each is quadratic.
    pub fn open_poison(&mut self) {
        self.poison.suspend();
        self.open = true;
    }

    /// Ends what [`open_poison`](Self::open_poison) began.
    pub fn close_poison(&mut self) {
        self.open = false;
        self.poison.resume();
    }

    /// Frees a block.
    ///
    /// # Safety
    ///
    /// `ptr` came from these handles for `layout` and was not freed since.
    pub unsafe fn dealloc(&mut self, via: Via, ptr: *mut u8, layout: Layout) {
        let block_size = self.block_size(layout);
        self.poison.freed(ptr.addr(), layout, block_size);
        match self.cache(via) {
            // SAFETY: a block of this heap by contract, whichever handle it
            // came through, freed once with its layout.
            Some(cache) => unsafe { cache.dealloc(ptr, layout) },
            // SAFETY: as above.
            None => unsafe { self.heap.dealloc(ptr, layout) },
        }
    }

    /// Changes a block's size; null leaves the old one as it is.
    ///
    /// # Safety
    ///
    /// - `ptr` came from these handles for `layout` and was not freed since.
    /// - `size` makes a valid layout with `layout.align()`.
    pub unsafe fn realloc(
        &mut self,
        via: Via,
        ptr: *mut u8,
        layout: Layout,
        size: usize,
    ) -> *mut u8 {
        self.poison.suspend();
        if PoisonedRanges::enabled() {
            // The heap may copy the whole of the old block.
            crate::poison::unpoison(ptr.addr(), self.block_size(layout).unwrap_or(layout.size()));
        }
        let new = match self.cache(via) {
            // SAFETY: a live block of this heap by contract, whichever handle
            // it came through, and a valid new layout.
            Some(cache) => unsafe { cache.realloc(ptr, layout, size) },
            // SAFETY: as above.
            None => unsafe { self.heap.realloc(ptr, layout, size) },
        };
        self.poison.resume();
        if !new.is_null() {
            if PoisonedRanges::enabled() && new != ptr {
                let block_size = self.block_size(layout);
                self.poison.freed(ptr.addr(), layout, block_size);
            }
            self.given_out(new, crate::op::layout_of(size, layout.align()));
        }
        new
    }

    /// Empties a cache into the heap.
    pub fn flush(&mut self, slot: CacheSlot) {
        if let Some(cache) = &mut self.caches[slot.index()] {
            cache.flush();
        }
    }

    /// Drops a cache and opens another; false when the heap refused.
    pub fn reopen(&mut self, slot: CacheSlot) -> bool {
        let cache = &mut self.caches[slot.index()];
        *cache = None;
        *cache = self.heap.cache();
        cache.is_some()
    }

    /// Gives memory back to the operating system.
    pub fn trim(&mut self) {
        self.poison.clear();
        self.heap.trim();
    }

    /// Leaves freed blocks open to the program, also under `ASan`: for a heap whose
    /// calls to the operating system fail, which unmaps memory at any time.
    pub fn stop_poisoning(&mut self) {
        self.poison.stop();
    }

    /// Drops all caches.
    pub fn close(&mut self) {
        self.caches = [const { None }; CACHE_SLOTS];
    }

    fn cache(&mut self, via: Via) -> Option<&mut HeapCache<'h>> {
        let Via::Cache(slot) = via else {
            return None;
        };
        let cache = &mut self.caches[slot.index()];
        if cache.is_none() {
            *cache = self.heap.cache();
        }
        cache.as_mut()
    }

    fn given_out(&mut self, ptr: *mut u8, layout: Layout) {
        if !ptr.is_null() {
            let block_size = self.block_size(layout);
            self.poison.allocated(ptr.addr(), layout, block_size);
        }
    }
}
