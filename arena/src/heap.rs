//! Heaps as values: what tests, fuzzers and sanitizers drive, and what a program uses
//! that wants a part of its memory apart.

use alloc::boxed::Box;
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use crate::block_state::STATES_BYTES;
use crate::config::Builder;
use crate::faults::{FaultPlan, Os};
use crate::heap_core::HeapCore;
use crate::page_map::{Entry, PAGE_MAP};
use crate::segment::{HEADER_GRANULES, Segment};
use crate::snapshot::Violation;
use crate::stats::Stats;
use crate::sync::{AtomicU64, Ordering};
use crate::thread_cache::ThreadCache;
use crate::units::{GRANULE_BYTES, GRANULE_SHIFT, SEGMENT_BYTES};

/// Heaps that may live at the same time, less the process heap (identity 0).
const MAX_HEAPS: usize = 4096;

/// Identities in use, one bit each.
static IDENTITIES: [AtomicU64; MAX_HEAPS / 64] = [const { AtomicU64::new(0) }; MAX_HEAPS / 64];

/// Why a heap could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeapError {
    /// 4095 heaps live already; drop one first.
    TooManyHeaps,
}

impl fmt::Display for HeapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyHeaps => write!(f, "{} heaps live already; drop one first", MAX_HEAPS - 1),
        }
    }
}

impl core::error::Error for HeapError {}

/// A heap of its own. Dropping it unmaps everything that was allocated from it.
///
/// Any thread may use it; operations on the `Heap` itself share one cache under a lock,
/// and a [`HeapCache`] gives a thread one without.
///
/// | | `Heap` | [`HeapCache`] |
/// |---|---|---|
/// | receiver | `&self`, any thread | `&mut self`, one thread |
/// | cost | a lock an operation | that of the global allocator's fast path |
///
/// # Examples
///
/// ```
/// use brickyard_arena::Heap;
/// use core::alloc::Layout;
///
/// let heap = Heap::new()?;
/// let layout = Layout::new::<[u64; 6]>();
/// let block = heap.alloc(layout);
/// assert!(!block.is_null());
/// assert_eq!(heap.stats().live, 48);
/// // SAFETY: allocated above with this layout.
/// unsafe { heap.dealloc(block, layout) };
/// # Ok::<(), brickyard_arena::HeapError>(())
/// ```
pub struct Heap {
    core: Box<HeapCore>,
}

impl Heap {
    /// An empty heap. No memory is mapped before the first allocation.
    ///
    /// # Errors
    ///
    /// [`HeapError::TooManyHeaps`] when 4095 heaps live.
    pub fn new() -> Result<Self, HeapError> {
        Self::with_os(Os::new(), &Builder::new())
    }

    /// An empty heap with options of its own.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// use brickyard_arena::{Arena, Heap};
    /// use core::alloc::Layout;
    ///
    /// let heap = Heap::with_options(&Arena::builder().memory_limit(1 << 20))?;
    /// assert!(heap.alloc(Layout::new::<[u8; 2 << 20]>()).is_null());
    /// assert!(!heap.alloc(Layout::new::<[u8; 1 << 10]>()).is_null());
    /// # Ok::<(), brickyard_arena::HeapError>(())
    /// ```
    pub fn with_options(options: &Builder) -> Result<Self, HeapError> {
        Self::with_os(Os::new(), options)
    }

    /// An empty heap whose calls to the operating system fail as `plan` says.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with_faults(plan: &'static FaultPlan) -> Result<Self, HeapError> {
        Self::with_os(Os::with_faults(plan), &Builder::new())
    }

    /// An empty heap with options whose calls to the operating system fail as `plan` says.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with_options_and_faults(
        options: &Builder,
        plan: &'static FaultPlan,
    ) -> Result<Self, HeapError> {
        Self::with_os(Os::with_faults(plan), options)
    }

    fn with_os(os: Os, options: &Builder) -> Result<Self, HeapError> {
        let id = claim_identity().ok_or(HeapError::TooManyHeaps)?;
        Ok(Self {
            core: Box::new(HeapCore::new(id, os, options, None)),
        })
    }

    /// Allocates; null when memory is short. A size of 0 gives a block of its own.
    ///
    /// # Complexity
    ///
    /// Constant, plus a system call or a sweep now and then.
    pub fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        self.shared(|cache| self.core.alloc(cache, size, align))
            .unwrap_or(ptr::null_mut())
    }

    /// Allocates zeroed memory; null when memory is short.
    pub fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        self.shared(|cache| self.core.alloc_zeroed(cache, size, align))
            .unwrap_or(ptr::null_mut())
    }

    /// Frees a block.
    ///
    /// # Safety
    ///
    /// - `block` came from this heap, through any of its caches, with `layout` (or was
    ///   last reallocated to that size).
    /// - Nobody uses it any more.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: by contract.
        let done = self.shared(|cache| unsafe { self.core.dealloc(cache, block, size, align) });
        if done.is_none() {
            // SAFETY: by contract.
            unsafe { self.core.dealloc_uncached(block, size, align) };
        }
    }

    /// Changes the size of a block; null when memory is short, and then the old block is
    /// as it was.
    ///
    /// # Safety
    ///
    /// As for [`Self::dealloc`], and `new_size` rounded up to the alignment does not
    /// exceed `isize::MAX`. The old pointer is dead unless null is returned.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by contract.
        self.shared(|cache| unsafe { realloc(&self.core, cache, block, layout, new_size) })
            .unwrap_or(ptr::null_mut())
    }

    /// A cache for one thread, or `None` when memory is short.
    pub fn cache(&self) -> Option<HeapCache<'_>> {
        let cache = self.core.acquire_cache()?;
        self.core.note_start();
        Some(HeapCache {
            core: &self.core,
            cache,
            one_thread: PhantomData,
        })
    }

    /// A snapshot of the heap's figures.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Gives all memory that neither a block nor a [`HeapCache`] pins back to the
    /// operating system; returns how many bytes that was.
    pub fn trim(&self) -> usize {
        self.shared(|cache| self.core.flush(cache));
        self.core.purge()
    }

    /// Checks every invariant of the heap. For tests: it visits every granule.
    ///
    /// Call it while no other thread is inside the heap.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn validate(&self) -> Result<(), Violation> {
        self.core.validate()
    }

    fn shared<R>(&self, f: impl FnOnce(&ThreadCache) -> R) -> Option<R> {
        self.core.with_shared(f)
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("id", &self.core.id)
            .finish_non_exhaustive()
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let core = &*self.core;
        // Plain system calls: a fault plan must not make a heap leak.
        let os = Os::new();
        PAGE_MAP.for_each_of(core.id, |addr, entry| {
            PAGE_MAP.clear(addr);
            let len = match entry {
                Entry::Big { granules, .. } => granules << GRANULE_SHIFT,
                Entry::Segment { .. } => {
                    // SAFETY: a segment of this heap starts there.
                    let segment: &Segment = unsafe { Segment::containing(addr) };
                    // SAFETY: `&mut self`: nobody uses it.
                    unsafe { segment.guests.drop_mapping(os) };
                    if let Some(states) = segment.block_states() {
                        let states = ptr::from_ref(states).addr();
                        // SAFETY: the segment's own mapping, which goes with it.
                        unsafe { os.unmap(states, STATES_BYTES) };
                    }
                    if segment.is_hollow() {
                        HEADER_GRANULES * GRANULE_BYTES
                    } else {
                        SEGMENT_BYTES
                    }
                }
                Entry::Guarded { .. } | Entry::Nothing => SEGMENT_BYTES,
            };
            // SAFETY: `&mut self`: no thread and no cache uses the heap, and blocks do
            // not outlive it by the contract of `alloc`'s callers.
            unsafe { os.unmap(addr, len) };
        });
        while let Some(kept) = core.big.with(|big| big.take_oldest()) {
            // SAFETY: kept mappings are unused.
            unsafe { os.unmap(kept.addr, kept.len) };
        }
        // SAFETY: every `HeapCache` borrowed the heap, so none is left.
        core.caches.with(|store| unsafe { store.unmap_all(os) });
        release_identity(core.id);
    }
}

/// One thread's cache of a [`Heap`]. Dropping it gives its free blocks back.
///
/// It may be sent to another thread, but not shared. Blocks may be freed through another
/// cache than the one that allocated them.
pub struct HeapCache<'heap> {
    core: &'heap HeapCore,
    cache: NonNull<ThreadCache>,
    one_thread: PhantomData<*mut ()>,
}

// SAFETY: the cache is used through `&mut self` only, so by one thread at a time.
unsafe impl Send for HeapCache<'_> {}

impl HeapCache<'_> {
    /// As [`Heap::alloc`].
    pub fn alloc(&mut self, layout: Layout) -> *mut u8 {
        self.core.alloc(self.cache(), layout.size(), layout.align())
    }

    /// As [`Heap::alloc_zeroed`].
    pub fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        self.core
            .alloc_zeroed(self.cache(), layout.size(), layout.align())
    }

    /// As [`Heap::dealloc`].
    ///
    /// # Safety
    ///
    /// As for [`Heap::dealloc`].
    pub unsafe fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        // SAFETY: by contract.
        unsafe {
            self.core
                .dealloc(self.cache(), block, layout.size(), layout.align());
        };
    }

    /// As [`Heap::realloc`].
    ///
    /// # Safety
    ///
    /// As for [`Heap::realloc`].
    pub unsafe fn realloc(&mut self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { realloc(self.core, self.cache(), block, layout, new_size) }
    }

    /// Gives every free block of the cache back to the heap.
    pub fn flush(&mut self) {
        self.core.flush(self.cache());
    }

    fn cache(&self) -> &ThreadCache {
        // SAFETY: acquired from the heap, which is borrowed, and released in `drop` only.
        unsafe { self.cache.as_ref() }
    }
}

impl Drop for HeapCache<'_> {
    fn drop(&mut self) {
        // SAFETY: acquired in `Heap::cache`, and not used after this.
        unsafe { self.core.release_cache(self.cache) };
        self.core.note_exit();
    }
}

impl fmt::Debug for HeapCache<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapCache")
            .field("heap", &self.core.id)
            .finish_non_exhaustive()
    }
}

/// [`Heap::realloc`] with a cache that no harvest freezes.
///
/// # Safety
///
/// As there; the caller may use the cache.
unsafe fn realloc(
    core: &HeapCore,
    cache: &ThreadCache,
    block: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    let (size, align) = (layout.size(), layout.align());
    // SAFETY: by contract.
    if let Some(block) = unsafe { core.resize(block, (size, align), new_size) } {
        return block;
    }
    let new = core.alloc(cache, new_size, align);
    if !new.is_null() {
        // SAFETY: both blocks hold the smaller of the sizes, and they are different.
        unsafe { ptr::copy_nonoverlapping(block, new, size.min(new_size)) };
        // SAFETY: by contract; the contents were copied.
        unsafe { core.dealloc(cache, block, size, align) };
    }
    new
}

fn claim_identity() -> Option<u16> {
    for (index, word) in IDENTITIES.iter().enumerate() {
        // Identity 0 is the process heap's.
        let reserved = u64::from(index == 0);
        // Relaxed: the bit alone is claimed; what the heap's last owner did is ordered by
        // the Release in `release_identity` and the Acquire on success here.
        let claimed = word.fetch_update(Ordering::Acquire, Ordering::Relaxed, |bits| {
            let free = !(bits | reserved);
            (free != 0).then(|| bits | (free & free.wrapping_neg()))
        });
        if let Ok(bits) = claimed {
            let bit = (!(bits | reserved)).trailing_zeros() as usize;
            return u16::try_from(index * 64 + bit).ok();
        }
    }
    None
}

fn release_identity(id: u16) {
    if let Some(word) = IDENTITIES.get(usize::from(id) / 64) {
        // Release: pairs with the Acquire in `claim_identity`: the page map is clear.
        word.fetch_and(!(1 << (id % 64)), Ordering::Release);
    }
}
