//! The thread caches of one heap: where they come from, who has one, what they add up to.
//!
//! Caches are cut from chunks that stay mapped as long as the heap lives. A thread that
//! exits empties its cache and leaves it for the next.
//!
//! Invariants:
//! - K1: every cache ever cut is in the list `all`; those without a thread are in `free`.
//! - K2: the magazines of a cache in `free` are empty.

use core::ptr::{self, NonNull};

use crate::faults::Os;
use crate::sync::{AtomicPtr, Ordering};
use crate::thread_cache::{CACHE_BYTES, ThreadCache};

/// Caches in a chunk after the first.
const CHUNK_CACHES: usize = 8;
/// Free caches that stay resident; the memory of others goes back to the system.
const KEEP_RESIDENT: usize = 4;

/// See the module; used under its heap's cache-store lock.
#[derive(Debug)]
pub(crate) struct CacheStore {
    all: *mut ThreadCache,
    free: *mut ThreadCache,
    free_count: usize,
    caches: usize,
    /// Rest of the newest chunk.
    chunk: *mut u8,
    chunk_left: usize,
    /// Bytes from one cache of a chunk to the next.
    stride: usize,
}

// SAFETY: the pointers are to caches and chunks, which live as long as the heap and which
// any thread may use under the lock.
unsafe impl Send for CacheStore {}

impl CacheStore {
    pub(crate) const fn new() -> Self {
        Self {
            all: ptr::null_mut(),
            free: ptr::null_mut(),
            free_count: 0,
            caches: 0,
            chunk: ptr::null_mut(),
            chunk_left: 0,
            stride: CACHE_BYTES,
        }
    }

    /// A cache with empty magazines, or `None` when memory is short.
    pub(crate) fn acquire(&mut self, os: Os, os_page: usize) -> Option<NonNull<ThreadCache>> {
        if let Some(cache) = NonNull::new(self.free) {
            // SAFETY: caches live as long as the heap.
            // Relaxed, here and below: the lists are used under the lock alone.
            self.free = unsafe { cache.as_ref() }.next_free.load(Ordering::Relaxed);
            self.free_count -= 1;
            // SAFETY: it was a cache, and no thread owns a free one (K1).
            unsafe { ThreadCache::initialise(cache) };
            return Some(cache);
        }
        let cache = self.cut(os, os_page)?;
        // SAFETY: zeroed memory of a cache's size and alignment that is only ours; the
        // pointer to the list's head is valid for the life of the heap.
        unsafe {
            ThreadCache::initialise(cache);
            cache.as_ref().next.store(self.all, Ordering::Relaxed);
        }
        self.all = cache.as_ptr();
        self.caches += 1;
        Some(cache)
    }

    /// Takes back a cache whose magazines are empty.
    ///
    /// # Safety
    ///
    /// The cache came from [`Self::acquire`], and its thread does not use it any more.
    pub(crate) unsafe fn release(&mut self, os: Os, os_page: usize, cache: NonNull<ThreadCache>) {
        // SAFETY: caches live as long as the heap.
        let this = unsafe { cache.as_ref() };
        if self.free_count >= KEEP_RESIDENT {
            let next = this.next.load(Ordering::Relaxed);
            let addr = cache.as_ptr().addr();
            let whole_pages = addr % os_page == 0 && CACHE_BYTES % os_page == 0;
            // SAFETY: whole OS pages of a chunk of ours; nothing but `next`, which is
            // written again below, is needed of the contents: `acquire` initialises.
            if whole_pages && unsafe { os.purge(addr, CACHE_BYTES) } {
                // SAFETY: no thread owns the cache.
                unsafe { ThreadCache::initialise(cache) };
                this.next.store(next, Ordering::Relaxed);
            }
        }
        this.next_free.store(self.free, Ordering::Relaxed);
        self.free = cache.as_ptr();
        self.free_count += 1;
    }

    /// Shows every cache, those without a thread too (theirs are empty).
    pub(crate) fn for_each(&self, mut f: impl FnMut(&ThreadCache)) {
        // SAFETY: caches live as long as the heap; the same for the next ones.
        let mut next = unsafe { self.all.as_ref() };
        while let Some(cache) = next {
            f(cache);
            // SAFETY: as above.
            next = unsafe { cache.next.load(Ordering::Relaxed).as_ref() };
        }
    }

    /// Caches cut so far.
    pub(crate) fn caches(&self) -> usize {
        self.caches
    }

    /// Unmaps every cache. The store is empty afterwards.
    ///
    /// # Safety
    ///
    /// No thread uses a cache of this store any more.
    pub(crate) unsafe fn unmap_all(&mut self, os: Os) {
        let mut next = core::mem::replace(self, Self::new());
        if next.chunk_left > 0 {
            // SAFETY: the rest of the newest chunk was never given out.
            unsafe { os.unmap(next.chunk.addr(), next.chunk_left * next.stride) };
        }
        // SAFETY: by contract nobody uses the caches; each is read before it is unmapped.
        while let Some(cache) = unsafe { next.all.as_ref() } {
            let addr = next.all.addr();
            next.all = cache.next.load(Ordering::Relaxed);
            // SAFETY: as above.
            unsafe { os.unmap(addr, next.stride) };
        }
    }

    fn cut(&mut self, os: Os, os_page: usize) -> Option<NonNull<ThreadCache>> {
        if self.chunk_left == 0 {
            // The first chunk holds one cache: most heaps have one thread.
            let count = if self.caches == 0 { 1 } else { CHUNK_CACHES };
            // Whole OS pages each, so that each can be unmapped.
            self.stride = CACHE_BYTES.next_multiple_of(os_page);
            let chunk = os.map_aligned(count * self.stride, align_of::<ThreadCache>())?;
            self.chunk = chunk.as_ptr();
            self.chunk_left = count;
        }
        let cache = NonNull::new(self.chunk)?;
        // SAFETY: the chunk has `chunk_left` caches left, at least one.
        self.chunk = unsafe { self.chunk.add(self.stride) };
        self.chunk_left -= 1;
        Some(cache.cast())
    }
}

/// A pointer to a cache that many threads share under a lock.
#[derive(Debug)]
pub(crate) struct SharedCache(pub(crate) AtomicPtr<ThreadCache>);

impl SharedCache {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }
}
