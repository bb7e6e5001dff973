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
//! jemalloc. Behind the magazines is the thread's own `depot`; there is no depot that threads
//! share.
//!
//! Invariants:
//! - T1: `base + holes <= top <= limit <= base + capacity`, for every class.
//! - T2: the slots in `base + holes .. top` hold blocks of the class that nobody else
//!   holds; the `holes` slots below and the one below `base` hold null.
//! - T3: only the owning thread writes, but for the harvest (`freeze.rs`); others read `top`
//!   and `holes` for statistics.
//! - T4: a block is above `top` before it is given to anybody, and below it only after
//!   it was received: at every instant each block has one holder.
//! - T5: an operation of the process heap loads the thread's pointer to the cache once,
//!   does one `pop` or `push` with it, and everything else inside `alone`.

use core::mem::size_of;
use core::ptr::{self, NonNull};

use crate::depot::{BATCH, Depot, MAX_BATCHES, SLOTS_BYTES};
use crate::magazines::{Magazines, Push};
use crate::quarantine::Quarantine;
use crate::run_cache::RunCache;
use crate::size_class::{MAGAZINE_CAPACITIES, block_size, blocks_per_line, magazine_capacity};
use crate::sync::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering, RawLock, UnsafeCell,
};
use crate::units::{CLASS_COUNT, ClassIndex, MagazineIndex};

mod depot;
mod freeze;

pub(crate) use depot::Aside;

/// Entries that a magazine gets when it first grows.
const FIRST_LIMIT: usize = 8;
/// Bytes of blocks that every magazine may hold without asking for room.
const FREE_BYTES: usize = 256;
/// Most blocks that move between a magazine and the middle tier at once.
pub(crate) const MAX_BATCH: usize = 64;
/// Most entries that any magazine holds.
pub(crate) const MAX_ENTRIES: usize = 128;

/// Index of the slot below the base of each class (T2).
static SENTINELS: [u16; CLASS_COUNT] = sentinels();
const SLOTS: usize = slot_count();

const fn sentinels() -> [u16; CLASS_COUNT] {
    let mut out = [0; CLASS_COUNT];
    let mut next: u16 = 0;
    let mut class = 0;
    while class < CLASS_COUNT {
        out[class] = next;
        next += 1 + MAGAZINE_CAPACITIES[class] as u16;
        class += 1;
    }
    out
}

const fn slot_count() -> usize {
    let mut sum = 0;
    let mut class = 0;
    while class < CLASS_COUNT {
        sum += 1 + MAGAZINE_CAPACITIES[class] as usize;
        class += 1;
    }
    sum
}

/// What the caches of a heap may hold: for one of them, and for all together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'a> {
    /// Most bytes of blocks that the limits of one cache allow, without its depot.
    pub(crate) each: usize,
    /// Most bytes of blocks in a depot.
    pub(crate) depot: usize,
    /// Most bytes of blocks that the limits of all caches allow together.
    pub(crate) all: usize,
    /// Bytes of blocks that they allow now.
    pub(crate) taken: &'a AtomicUsize,
}

impl Room<'_> {
    /// Whether all caches together may hold `bytes` more.
    pub(crate) fn has(&self, bytes: usize) -> bool {
        // Relaxed: a sum of numbers.
        self.taken.load(Ordering::Relaxed) + bytes <= self.all
    }
}

/// The magazines of one thread.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct ThreadCache {
    /// Tops and limits: all that fast paths touch. First, so that the thread's
    /// pointer is to both.
    pub(crate) magazines: Magazines,
    /// Freed blocks of whole granules.
    pub(crate) runs: RunCache,
    /// Freed small blocks beyond the magazines; they lie in `aside`.
    pub(crate) depot: Depot,
    /// Whether the owner is on a slow path (it writes, the harvest reads).
    busy: AtomicBool,
    /// Whether it is to wait before the next (the harvest writes, the owner reads).
    stop: AtomicBool,
    /// Held during a harvest.
    lock: RawLock,
    /// Null slots at the bottom of each magazine (`alone`; statistics read it).
    holes: [AtomicU8; CLASS_COUNT],
    /// Bytes of blocks that the limits allow together, beyond what is free (`alone`).
    allowed: AtomicUsize,
    /// Slow paths taken (`alone`; the harvest reads it).
    visits: AtomicUsize,
    /// The owner's pointer to this cache, or null where there is none to freeze (`lock`).
    home: AtomicPtr<AtomicPtr<Self>>,
    /// Whether threads without a cache share this one, under a lock.
    shared: AtomicBool,
    /// Whether a harvest is under way here (cache-store lock).
    frozen: AtomicBool,
    /// What the owner had done when it was looked at last, and since when it is the same,
    /// in milliseconds (cache-store lock).
    seen: AtomicUsize,
    seen_ms: AtomicU64,
    /// Next in the list of all caches of the heap (cache-store lock).
    pub(crate) next: AtomicPtr<Self>,
    /// Next in the list of caches without a thread (cache-store lock).
    pub(crate) next_free: AtomicPtr<Self>,
    /// Whether every operation is inside `alone` (`lock`).
    exclusive: AtomicBool,
    slots: UnsafeCell<[*mut u8; SLOTS]>,
    /// The batches of the depot.
    aside: UnsafeCell<[*mut u8; MAX_BATCHES * BATCH]>,
    /// A hardened heap's freed blocks; last, so that others do not touch it.
    pub(crate) quarantine: Quarantine,
}

// SAFETY: `slots` and `aside` are touched by the owning thread alone (T3, D4); the rest is atomic.
unsafe impl Sync for ThreadCache {}

/// Bytes of a cache; a multiple of 4096 by its alignment.
pub(crate) const CACHE_BYTES: usize = size_of::<ThreadCache>();
/// The same without the batches of the depot.
pub(crate) const OWN_BYTES: usize = CACHE_BYTES - MAX_BATCHES * SLOTS_BYTES;

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
        // SAFETY: by contract no thread owns it.
        unsafe { cache.magazines.initialise() };
        for class in ClassIndex::all() {
            let base = cache.base(class);
            // The slot below the base is null already (T2): not touching the slots keeps
            // those of unused classes from becoming resident.
            cache.set_top(class, base);
            cache.set_limit(class, base);
            cache.set_holes(class, 0);
        }
        // Relaxed: published with the cache.
        cache.allowed.store(0, Ordering::Relaxed);
        cache.runs.set_room(0);
        cache.depot.forget_owner();
        cache.home.store(ptr::null_mut(), Ordering::Relaxed);
        cache.shared.store(false, Ordering::Relaxed);
        cache.exclusive.store(false, Ordering::Relaxed);
    }

    /// Makes the cache one that many threads share under a lock.
    pub(crate) fn set_shared(&self) {
        // Relaxed: used under that lock.
        self.shared.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::set_shared`] was called.
    pub(crate) fn is_shared(&self) -> bool {
        // Relaxed: as there.
        self.shared.load(Ordering::Relaxed)
    }

    /// Takes the block that was pushed last, or null.
    #[inline(always)]
    pub(crate) fn pop(&self, class: ClassIndex) -> *mut u8 {
        self.magazines.pop(MagazineIndex::of(class))
    }

    /// Adds a free block of `class`.
    #[inline(always)]
    pub(crate) fn push(&self, class: ClassIndex, block: *mut u8) -> Push {
        self.magazines.push(MagazineIndex::of(class), block)
    }

    /// Blocks of `class` in the magazine; any thread may ask.
    pub(crate) fn len(&self, class: ClassIndex) -> usize {
        self.height(class).saturating_sub(self.holes(class))
    }

    /// Entries from the base to the top, holes included.
    fn height(&self, class: ClassIndex) -> usize {
        (self.top(class).addr() - self.base(class).addr()) / size_of::<*mut u8>()
    }

    /// Blocks that the magazine of `class` may hold now. Under the lock.
    pub(crate) fn allowance(&self, class: ClassIndex) -> usize {
        let entries = (self.limit(class).addr() - self.base(class).addr()) / size_of::<*mut u8>();
        entries - self.holes(class)
    }

    /// Blocks to fetch when the magazine of `class` is empty.
    pub(crate) fn batch(&self, class: ClassIndex) -> usize {
        let allowance = self.allowance(class);
        (allowance / 2)
            .max(blocks_per_line(class).min(allowance))
            .clamp(1, MAX_BATCH)
    }

    /// Doubles the limit of `class` within its capacity and the room there is; `false`
    /// when it stays. Inside `alone`, without holes.
    pub(crate) fn grow(&self, class: ClassIndex, room: Room<'_>) -> bool {
        let now = self.allowance(class);
        let wanted = (now * 2).max(FIRST_LIMIT).min(magazine_capacity(class));
        if wanted <= now {
            return false;
        }
        let added = charge(class, wanted) - charge(class, now);
        // Relaxed: under the lock; and a sum of numbers through which nothing is read.
        let sum = self.allowed.load(Ordering::Relaxed) + added;
        if sum.saturating_sub(self.depot.room()) > room.each || !claim(room, added) {
            return false;
        }
        self.allowed.store(sum, Ordering::Relaxed);
        // SAFETY: at most the capacity of the class, so inside its slots.
        self.set_limit(class, unsafe { self.base(class).add(wanted) });
        true
    }

    /// Gives up the room that magazines other than that of `keep` have and do not use.
    /// The owner, inside `alone`.
    pub(crate) fn give_up_unused(&self, keep: ClassIndex, room: Room<'_>) {
        for class in ClassIndex::all().filter(|&class| class != keep) {
            self.close_holes(class);
            self.give_up_rest_of(class, room.taken);
        }
    }

    /// Makes room for `wanted` bytes of runs in all; `false` when there is none. Inside
    /// `alone`.
    pub(crate) fn widen_runs(&self, wanted: usize, room: Room<'_>) -> bool {
        let added = wanted.saturating_sub(self.runs.room());
        // Relaxed: as in `grow`.
        let sum = self.allowed.load(Ordering::Relaxed) + added;
        if sum.saturating_sub(self.depot.room()) > room.each || !claim(room, added) {
            return false;
        }
        self.allowed.store(sum, Ordering::Relaxed);
        self.runs.set_room(wanted);
        true
    }

    /// Gives up the room for runs, of which there are none left. Inside `alone`, or during
    /// a harvest.
    pub(crate) fn give_up_run_room(&self, taken: &AtomicUsize) {
        let less = self.runs.room();
        if less > 0 {
            // Relaxed: as in `grow`.
            let sum = self.allowed.load(Ordering::Relaxed) - less;
            self.allowed.store(sum, Ordering::Relaxed);
            taken.fetch_sub(less, Ordering::Relaxed);
            self.runs.set_room(0);
        }
    }

    /// Gives up all room that magazines have and do not use. Inside `alone`, or during a
    /// harvest that may close holes.
    pub(crate) fn give_up_rest(&self, taken: &AtomicUsize) {
        for class in ClassIndex::all() {
            self.give_up_rest_of(class, taken);
        }
    }

    fn give_up_rest_of(&self, class: ClassIndex, taken: &AtomicUsize) {
        let used = self.len(class).max(free_entries(class));
        if used < self.allowance(class) {
            self.lower_limit(class, used, taken);
        }
    }

    /// Lowers the limit of `class` to `entries` blocks above the holes. Under the lock.
    fn lower_limit(&self, class: ClassIndex, entries: usize, taken: &AtomicUsize) {
        let less = charge(class, self.allowance(class)) - charge(class, entries);
        // Relaxed: as in `grow`.
        let sum = self.allowed.load(Ordering::Relaxed) - less;
        self.allowed.store(sum, Ordering::Relaxed);
        taken.fetch_sub(less, Ordering::Relaxed);
        let above = self.holes(class) + entries;
        // SAFETY: below the old limit, so inside the class's slots.
        self.set_limit(class, unsafe { self.base(class).add(above) });
    }

    /// Gives up all room, and returns it: the cache is about to be released, or its owner is gone.
    pub(crate) fn give_up_all(&self) -> usize {
        // Relaxed: as in `grow`.
        self.allowed.swap(0, Ordering::Relaxed)
    }

    /// Bytes of blocks that the limits allow together, beyond what is free.
    pub(crate) fn allowed(&self) -> usize {
        // Relaxed: a number.
        self.allowed.load(Ordering::Relaxed)
    }

    /// Counts a slow path, under the lock, and returns how many there were.
    pub(crate) fn visit(&self) -> usize {
        // Relaxed: written under the lock; the harvest reads a number.
        let visits = self.visits.load(Ordering::Relaxed).wrapping_add(1);
        self.visits.store(visits, Ordering::Relaxed);
        visits
    }

    /// Moves the blocks of `class` down over the holes that a harvest left, if there are
    /// any. The owner, inside `alone`.
    pub(crate) fn close_holes(&self, class: ClassIndex) {
        let holes = self.holes(class);
        if holes == 0 {
            return;
        }
        let (base, len, allowance) = (self.base(class), self.len(class), self.allowance(class));
        self.set_holes(class, 0);
        // SAFETY: the blocks lie in `base + holes .. base + holes + len` and go to the
        // base, inside the class's slots; the limit falls by as much as the top (T1, T3).
        unsafe {
            ptr::copy(base.add(holes), base, len);
            self.set_top(class, base.add(len));
            self.set_limit(class, base.add(allowance));
        }
    }

    /// Fills the empty magazine of `class` with `blocks`, such that they pop in order.
    pub(crate) fn fill(&self, class: ClassIndex, blocks: &[*mut u8]) {
        debug_assert!(self.height(class) == 0 && blocks.len() <= self.allowance(class));
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

    /// Brings the blocks of `class` into a random order (Fisher and Yates). Inside `alone`,
    /// without holes.
    pub(crate) fn shuffle(&self, class: ClassIndex) {
        let base = self.base(class);
        for last in (1..self.len(class)).rev() {
            let place = self.quarantine.random_below(last + 1);
            // SAFETY: `place` and `last` are below the top, so inside the class's slots, and
            // the owner alone touches them (T1, T3).
            unsafe { base.add(place).swap(base.add(last)) };
        }
    }

    /// Puts `block` in a random place of the magazine of `class`, and returns what was there,
    /// or `block` when the magazine is empty. Inside `alone`, without holes.
    pub(crate) fn exchange_random(&self, class: ClassIndex, block: *mut u8) -> *mut u8 {
        let len = self.len(class);
        if len == 0 {
            return block;
        }
        // SAFETY: as in `shuffle`.
        unsafe {
            let place = self.base(class).add(self.quarantine.random_below(len));
            place.replace(block)
        }
    }

    /// Removes the oldest blocks of `class`, at most as many as `out` holds; returns how
    /// many. They are out of the cache when this returns (T4). Inside `alone`,
    /// without holes.
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

    fn holes(&self, class: ClassIndex) -> usize {
        // Relaxed: written under the lock; statistics read a number.
        let holes = self.holes.get(class.get());
        holes.map_or(0, |holes| usize::from(holes.load(Ordering::Relaxed)))
    }

    fn set_holes(&self, class: ClassIndex, count: u8) {
        if let Some(holes) = self.holes.get(class.get()) {
            // Relaxed: as in `holes`.
            holes.store(count, Ordering::Relaxed);
        }
    }

    /// First slot of `class`.
    fn base(&self, class: ClassIndex) -> *mut *mut u8 {
        let sentinel = SENTINELS.get(class.get()).copied().unwrap_or(0);
        // SAFETY: every class has its sentinel and its slots inside `slots`.
        self.slots
            .with_mut(|slots| unsafe { slots.cast::<*mut u8>().add(usize::from(sentinel) + 1) })
    }

    fn top(&self, class: ClassIndex) -> *mut *mut u8 {
        self.magazines.top(MagazineIndex::of(class))
    }

    fn set_top(&self, class: ClassIndex, top: *mut *mut u8) {
        self.magazines.set_top(MagazineIndex::of(class), top);
    }

    fn limit(&self, class: ClassIndex) -> *mut *mut u8 {
        self.magazines.limit(MagazineIndex::of(class))
    }

    fn set_limit(&self, class: ClassIndex, limit: *mut *mut u8) {
        self.magazines.set_limit(MagazineIndex::of(class), limit);
    }
}

/// Blocks of `class` that its magazine may hold without asking for room.
pub(crate) fn free_entries(class: ClassIndex) -> usize {
    (FREE_BYTES / block_size(class)).min(FIRST_LIMIT)
}

/// Bytes of room that `entries` blocks of `class` need.
fn charge(class: ClassIndex, entries: usize) -> usize {
    entries.saturating_sub(free_entries(class)) * block_size(class)
}

/// Takes `bytes` of the room of all caches.
fn claim(room: Room<'_>, bytes: usize) -> bool {
    if bytes == 0 {
        return true;
    }
    // Relaxed: a sum of numbers. The look before keeps threads that find no room from
    // writing to a line that all share.
    if !room.has(bytes) {
        return false;
    }
    if room.taken.fetch_add(bytes, Ordering::Relaxed) + bytes > room.all {
        room.taken.fetch_sub(bytes, Ordering::Relaxed);
        return false;
    }
    true
}

const _: () = assert!(OWN_BYTES <= 48 * 1024 && MAX_ENTRIES <= 255);
