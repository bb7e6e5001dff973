//! The front end: per thread and size class a *magazine*, an array of free blocks used
//! as a stack. An allocation pops, a free pushes; neither touches the block nor any
//! metadata of it.
//!
//! ```text
//! slots   | null | b0 | b1 | b2 |    …    |        (one such row a class)
//!                               ^ top     ^ limit
//!         pop: slot below top; null means empty      push: slot at top, unless at limit
//! ```
//!
//! After Bonwick and Adams, "Magazines and Vmem" (2001), and the thread caches of
//! jemalloc; ours has no second magazine and no depot, because the middle tier takes and
//! gives blocks 64 at a time.
//!
//! Invariants:
//! - T1: `base <= top <= limit <= base + capacity`, for every class.
//! - T2: the slots in `base .. top` hold blocks of the class that nobody else holds; the
//!   slot below `base` holds null, for ever.
//! - T3: only the owning thread writes; others read `top` and `requested` for statistics.
//! - T4: a block is above `top` before it is given to anybody, and below it only after
//!   it was received: at every instant each block has one holder.

use core::mem::size_of;
use core::ptr::{self, NonNull};

use crate::size_class::{block_size, magazine_capacity};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, UnsafeCell};
use crate::tally::Account;
use crate::units::{CLASS_COUNT, ClassIndex};

/// Entries that a magazine may hold before it has shown use.
const FIRST_LIMIT: usize = 8;
/// Bytes of blocks up to which the magazines of one thread may grow together.
pub(crate) const MAX_CACHED_BYTES: usize = 1 << 20;
/// Most blocks that move between a magazine and the middle tier at once.
pub(crate) const MAX_BATCH: usize = 64;

/// Index of the slot below the base of each class (T2).
static SENTINELS: [u16; CLASS_COUNT] = sentinels();
const SLOTS: usize = slot_count();

const fn sentinels() -> [u16; CLASS_COUNT] {
    let mut out = [0; CLASS_COUNT];
    let mut next: u16 = 0;
    let mut class = 0;
    while class < CLASS_COUNT {
        out[class] = next;
        #[expect(clippy::cast_possible_truncation, reason = "at most 128")]
        let width = 1 + magazine_capacity(class) as u16;
        next += width;
        class += 1;
    }
    out
}

const fn slot_count() -> usize {
    let mut sum = 0;
    let mut class = 0;
    while class < CLASS_COUNT {
        sum += 1 + magazine_capacity(class);
        class += 1;
    }
    sum
}

/// What became of a block that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// It is in the magazine.
    Done,
    /// The magazine is at its limit.
    Full,
    /// It is the block that was pushed last: a double free.
    Twice,
}

/// The magazines of one thread.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct ThreadCache {
    tops: [AtomicPtr<*mut u8>; CLASS_COUNT],
    limits: [AtomicPtr<*mut u8>; CLASS_COUNT],
    /// Bytes that this thread asked for, less those that it freed.
    pub(crate) requested: Account,
    /// Bytes of blocks that the limits allow together.
    allowed: AtomicUsize,
    /// Next in the list of all caches of the heap (cache-store lock).
    pub(crate) next: AtomicPtr<Self>,
    /// Next in the list of caches without a thread (cache-store lock).
    pub(crate) next_free: AtomicPtr<Self>,
    slots: UnsafeCell<[*mut u8; SLOTS]>,
}

// SAFETY: `slots` is touched by the owning thread alone (T3); the rest is atomic.
unsafe impl Sync for ThreadCache {}

/// Bytes of a cache; a multiple of 4096 by its alignment.
pub(crate) const CACHE_BYTES: usize = size_of::<ThreadCache>();

impl ThreadCache {
    /// Makes the magazines empty.
    ///
    /// # Safety
    ///
    /// `memory` is a cache's worth of memory that is zeroed or holds a cache, aligned for
    /// one, and no thread owns it.
    pub(crate) unsafe fn initialise(memory: NonNull<Self>) {
        // SAFETY: zeroes and former contents are valid for all fields (raw pointers and
        // atomics), and nobody else writes.
        let cache = unsafe { memory.as_ref() };
        for class in ClassIndex::all() {
            let base = cache.base(class);
            let first = FIRST_LIMIT.min(magazine_capacity(class.get()));
            // The slot below the base is null already (T2): not touching the slots keeps
            // those of unused classes from becoming resident.
            // SAFETY: the first slots are inside `slots`.
            let limit = unsafe { base.add(first) };
            cache.set_top(class, base);
            cache.set_limit(class, limit);
        }
        // Relaxed: published with the cache.
        cache.allowed.store(0, Ordering::Relaxed);
    }

    /// Takes the block that was pushed last, or null.
    #[inline(always)]
    pub(crate) fn pop(&self, class: ClassIndex) -> *mut u8 {
        let top = self.top(class);
        // SAFETY: `top` is above the sentinel (T1), so the slot below is inside `slots`;
        // the owning thread alone touches it (T3).
        let (slot, block) = unsafe { (top.sub(1), top.sub(1).read()) };
        if !block.is_null() {
            self.set_top(class, slot);
        }
        block
    }

    /// Adds a free block of `class`.
    #[inline(always)]
    pub(crate) fn push(&self, class: ClassIndex, block: *mut u8) -> Push {
        let top = self.top(class);
        // SAFETY: as in `pop`.
        if unsafe { top.sub(1).read() } == block {
            return Push::Twice;
        }
        if top == self.limit(class) {
            return Push::Full;
        }
        // SAFETY: below the limit, so inside the class's slots (T1, T3).
        unsafe { top.write(block) };
        // SAFETY: as above: at most the limit.
        self.set_top(class, unsafe { top.add(1) });
        Push::Done
    }

    /// Counts `bytes` as asked for.
    #[inline(always)]
    pub(crate) fn credit(&self, bytes: usize) {
        self.requested.credit(bytes);
    }

    /// Counts `bytes` as freed.
    #[inline(always)]
    pub(crate) fn debit(&self, bytes: usize) {
        self.requested.credit(bytes.wrapping_neg());
    }

    /// Blocks of `class` in the magazine; any thread may ask.
    pub(crate) fn len(&self, class: ClassIndex) -> usize {
        (self.top(class).addr() - self.base(class).addr()) / size_of::<*mut u8>()
    }

    /// Entries that the magazine of `class` may hold now.
    fn allowance(&self, class: ClassIndex) -> usize {
        (self.limit(class).addr() - self.base(class).addr()) / size_of::<*mut u8>()
    }

    /// Blocks to fetch when the magazine of `class` is empty.
    pub(crate) fn batch(&self, class: ClassIndex) -> usize {
        (self.allowance(class) / 2).clamp(1, MAX_BATCH)
    }

    /// Doubles the limit of `class` within its capacity and the thread's allowance;
    /// `false` when it stays.
    pub(crate) fn grow(&self, class: ClassIndex) -> bool {
        let now = self.allowance(class);
        let wanted = (now * 2).min(magazine_capacity(class.get()));
        let added = (wanted - now) * block_size(class);
        // Relaxed: only the owner touches it.
        let sum = self.allowed.load(Ordering::Relaxed) + added;
        if added == 0 || sum > MAX_CACHED_BYTES {
            return false;
        }
        self.allowed.store(sum, Ordering::Relaxed);
        // SAFETY: at most the capacity of the class, so inside its slots.
        self.set_limit(class, unsafe { self.base(class).add(wanted) });
        true
    }

    /// Fills the empty magazine of `class` with `blocks`, such that they pop in order.
    pub(crate) fn fill(&self, class: ClassIndex, blocks: &[*mut u8]) {
        debug_assert!(self.len(class) == 0 && blocks.len() <= self.allowance(class));
        let mut top = self.base(class);
        for &block in blocks.iter().rev().take(self.allowance(class)) {
            // SAFETY: at most the limit many entries from the base (T1, T3).
            top = unsafe {
                top.write(block);
                top.add(1)
            };
        }
        self.set_top(class, top);
    }

    /// Removes the oldest blocks of `class`, at most as many as `out` holds; returns how
    /// many. They are out of the cache when this returns (T4).
    pub(crate) fn drain(&self, class: ClassIndex, out: &mut [*mut u8]) -> usize {
        let base = self.base(class);
        let len = self.len(class);
        let count = len.min(out.len());
        // SAFETY: `count` entries are valid at the base, and as many fit into `out`; the
        // rest moves down inside the class's slots (T1, T3).
        unsafe {
            ptr::copy_nonoverlapping(base, out.as_mut_ptr(), count);
            ptr::copy(base.add(count), base, len - count);
            self.set_top(class, base.add(len - count));
        }
        count
    }

    /// First slot of `class`.
    fn base(&self, class: ClassIndex) -> *mut *mut u8 {
        let sentinel = SENTINELS.get(class.get()).copied().unwrap_or(0);
        // SAFETY: every class has its sentinel and its slots inside `slots`.
        self.slots
            .with_mut(|slots| unsafe { slots.cast::<*mut u8>().add(usize::from(sentinel) + 1) })
    }

    #[inline(always)]
    fn top(&self, class: ClassIndex) -> *mut *mut u8 {
        // Relaxed: only the owner writes (T3); others only compare it with the base.
        // SAFETY: a class index is below CLASS_COUNT.
        unsafe { self.tops.get_unchecked(class.get()) }.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_top(&self, class: ClassIndex, top: *mut *mut u8) {
        // Relaxed: as in `top`; nothing is read through it by other threads.
        // SAFETY: a class index is below CLASS_COUNT.
        unsafe { self.tops.get_unchecked(class.get()) }.store(top, Ordering::Relaxed);
    }

    #[inline(always)]
    fn limit(&self, class: ClassIndex) -> *mut *mut u8 {
        // Relaxed: only the owner touches it.
        // SAFETY: a class index is below CLASS_COUNT.
        unsafe { self.limits.get_unchecked(class.get()) }.load(Ordering::Relaxed)
    }

    fn set_limit(&self, class: ClassIndex, limit: *mut *mut u8) {
        // Relaxed: only the owner touches it.
        // SAFETY: a class index is below CLASS_COUNT.
        unsafe { self.limits.get_unchecked(class.get()) }.store(limit, Ordering::Relaxed);
    }
}

const _: () = assert!(CACHE_BYTES <= 32 * 1024);
