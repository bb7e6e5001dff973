//! A thread's cache: an array of free slots that its owner pops and pushes without an
//! atomic read-modify-write, and that any other thread can empty.
//!
//! After the magazines of Bonwick and Adams ("Magazines and Vmem", 2001); the way it is
//! emptied is the THE protocol of Cilk (Frigo, Leiserson and Randall, 1998) with an
//! asymmetric fence, so that the owner pays one load and one compare for it.
//!
//! ```text
//!             1          tail            capacity
//!   entries   | slot … slot |    unused     |         LIFO at the tail
//!
//!   word      [ budget : 56 | tail : 8 ]              written by the owner only
//!   floor     1 = open, FROZEN = closed               written under the lock only
//! ```
//!
//! The owner first does and then looks: it stores the new tail, passes a light barrier,
//! and reads the floor. One that finds the cache frozen goes to the lock and sorts out
//! under it whether the slot was taken. Who empties a cache takes the lock, freezes the
//! floor, passes a heavy barrier, and then takes every entry below the tail that it sees.
//!
//! - If the owner's store of the tail comes before the barrier, the tail that is read
//!   counts it: a slot just popped lies above, a slot just pushed lies below.
//! - If it comes after, the owner's load of the floor comes after too and sees FROZEN.
//!
//! The *budget* counts pops down, so that each [`BUDGET`] pops the owner comes to the
//! slow path by the borrow of one subtraction: metrics and decay need no instruction of
//! their own.
//!
//! # Invariants
//!
//! - C1: `1 <= drained_to` and `tail <= capacity`; entries `[drained_to, tail)` hold slots
//!   that nobody else has.
//! - C2: `word` is written by the owner alone; `floor` and `drained_to` under the lock.
//! - C3: while the floor is frozen no push or pop succeeds outside the lock.

use core::ptr::NonNull;

use crate::chunk::SlotHeader;
use crate::sync::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, heavy_barrier, light_barrier,
};

/// Most slots a cache holds.
pub(crate) const CACHE_SLOTS: usize = if cfg!(loom) { 4 } else { 128 };
/// Pops between two visits of the slow path by a thread that always hits.
pub(crate) const BUDGET: u64 = 1 << 14;

/// Length of the array: all that eight bits can say, so that no index needs a check.
const ENTRIES: usize = if cfg!(loom) { 8 } else { 1 << TAIL_BITS };
const TAIL_BITS: u32 = 8;
const TAIL_MASK: u64 = (1 << TAIL_BITS) - 1;
/// Index of the first entry; a tail of this value says empty.
const BASE: u64 = 1;
const OPEN: u32 = 1;
const FROZEN: u32 = u32::MAX;
/// One pop: one less of the budget and of the tail.
const POP: u64 = (1 << TAIL_BITS) + 1;

const fn word(budget: u64, tail: u64) -> u64 {
    (budget << TAIL_BITS) | tail
}

/// What the lock of a cache protects.
#[derive(Debug)]
pub(crate) struct CacheState {
    /// Entries below were taken by whoever emptied the cache; the owner has not
    /// noticed yet.
    drained_to: u64,
    /// The pool is gone: nothing may enter any more.
    pub(crate) closed: bool,
    /// Pops that hit, up to the last visit.
    pub(crate) hits: u64,
    /// The word at the last look of the decay, to see whether the owner sleeps.
    pub(crate) word_seen: u64,
}

/// Why a push did not end on the fast path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PushFailed {
    /// Nothing was stored.
    Full,
    /// The slot was stored at this index and the cache was found frozen: see
    /// [`Cache::settle_push`].
    Frozen(u64),
}

/// See the module.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Cache {
    word: AtomicU64,
    floor: AtomicU32,
    capacity: u32,
    /// The owner has exited; another thread may take the cache over. Changed under the
    /// lock.
    abandoned: AtomicBool,
    entries: [AtomicPtr<SlotHeader>; ENTRIES],
    state: Mutex<CacheState>,
}

impl Cache {
    /// An empty, frozen cache of at most `capacity` slots.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, CACHE_SLOTS);
        Self {
            word: AtomicU64::new(word(BUDGET, BASE)),
            floor: AtomicU32::new(FROZEN),
            capacity: u32::try_from(capacity).unwrap_or(1) + 1,
            abandoned: AtomicBool::new(false),
            entries: core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut())),
            state: Mutex::new(CacheState {
                drained_to: BASE,
                closed: false,
                hits: 0,
                word_seen: 0,
            }),
        }
    }

    /// Owner: takes the newest slot. `None`: go to the slow path; nothing has changed.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<NonNull<SlotHeader>> {
        // Relaxed: written by this thread alone (C2).
        let before = self.word.load(Ordering::Relaxed);
        let after = before.checked_sub(POP)?;
        // Relaxed: ordered before the load of the floor by the light barrier, whose
        // partner is the heavy one in `freeze`.
        self.word.store(after, Ordering::Relaxed);
        light_barrier();
        let index = after & TAIL_MASK;
        // Relaxed: see the store.
        if index < u64::from(self.floor.load(Ordering::Relaxed)) {
            // Empty, or frozen: whoever freezes may have seen the lower tail, and leaves
            // this entry to us then (`drained_to`).
            self.word.store(before, Ordering::Relaxed);
            return None;
        }
        // Relaxed: written by this thread, or under the lock that it took since.
        NonNull::new(self.entry(index).load(Ordering::Relaxed))
    }

    /// Owner: puts `slot` on top.
    #[inline(always)]
    pub(crate) fn push(&self, slot: NonNull<SlotHeader>) -> Result<(), PushFailed> {
        // Relaxed: written by this thread alone (C2).
        let before = self.word.load(Ordering::Relaxed);
        let index = before & TAIL_MASK;
        if index >= u64::from(self.capacity) {
            return Err(PushFailed::Full);
        }
        // Relaxed: published by the Release store of the word.
        self.entry(index).store(slot.as_ptr(), Ordering::Relaxed);
        // Release: pairs with the Acquire load in `freeze`, which then sees the entry and
        // what the last user wrote into the object.
        self.word.store(before + 1, Ordering::Release);
        light_barrier();
        // Relaxed: ordered after the store by the light barrier.
        if index < u64::from(self.floor.load(Ordering::Relaxed)) {
            return Err(PushFailed::Frozen(index));
        }
        Ok(())
    }

    /// Owner: takes up to `count` of the newest slots at once and passes them on. Returns
    /// how many.
    #[inline]
    pub(crate) fn pop_many(
        &self,
        count: usize,
        mut take: impl FnMut(NonNull<SlotHeader>),
    ) -> usize {
        // Orderings as in `pop`.
        let before = self.word.load(Ordering::Relaxed);
        let tail = before & TAIL_MASK;
        let taken = (tail - BASE).min(count as u64);
        let Some(after) = before.checked_sub(taken * POP) else {
            return 0;
        };
        self.word.store(after, Ordering::Relaxed);
        light_barrier();
        if self.floor.load(Ordering::Relaxed) != OPEN {
            self.word.store(before, Ordering::Relaxed);
            return 0;
        }
        for index in (tail - taken..tail).rev() {
            if let Some(slot) = NonNull::new(self.entry(index).load(Ordering::Relaxed)) {
                take(slot);
            }
        }
        usize::try_from(taken).unwrap_or(0)
    }

    #[inline(always)]
    fn entry(&self, index: u64) -> &AtomicPtr<SlotHeader> {
        const { assert!(CACHE_SLOTS < ENTRIES && ENTRIES.is_power_of_two()) };
        #[expect(clippy::cast_possible_truncation, reason = "eight bits")]
        let index = index as usize;
        &self.entries[index % ENTRIES]
    }

    /// The lock; everything below wants it held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock()
    }

    /// Slots in the cache; a hint while the owner runs.
    pub(crate) fn len(&self, held: &CacheState) -> usize {
        // Relaxed: a hint.
        let tail = self.word.load(Ordering::Relaxed) & TAIL_MASK;
        usize::try_from(tail.saturating_sub(held.drained_to)).unwrap_or(0)
    }

    /// Hits since `normalise` counted them; a hint while the owner runs.
    pub(crate) fn hits(&self, held: &CacheState) -> u64 {
        // Relaxed: a hint.
        held.hits + BUDGET - (self.word.load(Ordering::Relaxed) >> TAIL_BITS)
    }

    /// Owner, as it exits.
    pub(crate) fn abandon(&self, _held: &mut CacheState) {
        // Relaxed: looked at again under the lock.
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether an abandoned cache was found; the caller is its owner then.
    pub(crate) fn adopt(&self) -> bool {
        // Relaxed: looked at again under the lock.
        if !self.abandoned.load(Ordering::Relaxed) {
            return false;
        }
        let mut held = self.lock();
        // Relaxed: changed under the lock.
        let adopted = self.abandoned.swap(false, Ordering::Relaxed);
        if adopted {
            self.normalise(&mut held);
        }
        adopted
    }

    /// Whether pops and pushes fail on the fast path. Stable only under the lock.
    pub(crate) fn is_frozen(&self) -> bool {
        // Relaxed: changed only under the lock, which the caller holds.
        self.floor.load(Ordering::Relaxed) != OPEN
    }

    /// Closes the floor; a [`heavy_barrier`] must follow before [`Cache::take_all`].
    pub(crate) fn freeze(&self, _held: &mut CacheState) {
        // Relaxed: ordered by the heavy barrier that follows.
        self.floor.store(FROZEN, Ordering::Relaxed);
    }

    /// Takes every slot of a cache that was frozen before a heavy barrier. Any thread.
    pub(crate) fn take_all(&self, held: &mut CacheState, mut take: impl FnMut(NonNull<SlotHeader>)) {
        // Acquire: pairs with the Release in `push`.
        let tail = self.word.load(Ordering::Acquire) & TAIL_MASK;
        for index in held.drained_to..tail {
            if let Some(slot) = NonNull::new(self.entry(index).load(Ordering::Relaxed)) {
                take(slot);
            }
        }
        held.drained_to = held.drained_to.max(tail);
    }

    /// Freezes and empties one cache. Any thread.
    pub(crate) fn drain(&self, held: &mut CacheState, take: impl FnMut(NonNull<SlotHeader>)) {
        self.freeze(held);
        heavy_barrier();
        self.take_all(held, take);
    }

    /// Owner: after a push that found the cache frozen at `index`: whether the slot is
    /// still ours. If so it is out of the cache again.
    pub(crate) fn settle_push(&self, held: &mut CacheState, index: u64) -> bool {
        let ours = index >= held.drained_to;
        if ours {
            // Relaxed: the owner's own word; it is frozen or the lock is held.
            let now = self.word.load(Ordering::Relaxed);
            self.word.store(now - 1, Ordering::Relaxed);
        }
        ours
    }

    /// Owner: takes note of what was drained, so that the indices start at the base
    /// again, counts the hits, and renews the budget.
    pub(crate) fn normalise(&self, held: &mut CacheState) {
        // Relaxed throughout: the owner's own word, entries under the lock.
        let now = self.word.load(Ordering::Relaxed);
        let tail = now & TAIL_MASK;
        held.hits += BUDGET - (now >> TAIL_BITS);
        let mut to = BASE;
        for from in held.drained_to..tail {
            let slot = self.entry(from).load(Ordering::Relaxed);
            self.entry(to).store(slot, Ordering::Relaxed);
            to += 1;
        }
        held.drained_to = BASE;
        // Release: as in `push`.
        self.word.store(word(BUDGET, to), Ordering::Release);
        self.validate(held);
    }

    /// Owner: opens the floor of a normalised cache.
    pub(crate) fn thaw(&self, held: &mut CacheState) {
        debug_assert_eq!(held.drained_to, BASE, "normalise first");
        // Relaxed: the owner itself reads it; others change it under the lock.
        self.floor.store(OPEN, Ordering::Relaxed);
    }

    /// Owner, normalised: takes the newest slot under the lock.
    pub(crate) fn pop_locked(&self, _held: &mut CacheState) -> Option<NonNull<SlotHeader>> {
        // Relaxed: the owner's own word.
        let now = self.word.load(Ordering::Relaxed);
        let tail = now & TAIL_MASK;
        if tail == BASE {
            return None;
        }
        self.word.store(now - 1, Ordering::Relaxed);
        NonNull::new(self.entry(tail - 1).load(Ordering::Relaxed))
    }

    /// Owner, normalised: whether one more slot fits; if so it is put on top.
    pub(crate) fn push_locked(&self, _held: &mut CacheState, slot: NonNull<SlotHeader>) -> bool {
        // Relaxed and Release as in `push`.
        let now = self.word.load(Ordering::Relaxed);
        let tail = now & TAIL_MASK;
        if tail >= u64::from(self.capacity) {
            return false;
        }
        self.entry(tail).store(slot.as_ptr(), Ordering::Relaxed);
        self.word.store(now + 1, Ordering::Release);
        true
    }

    /// Owner, normalised: takes the `count` oldest slots out.
    pub(crate) fn take_oldest(
        &self,
        _held: &mut CacheState,
        count: usize,
        mut take: impl FnMut(NonNull<SlotHeader>),
    ) {
        // Relaxed and Release as in `push`.
        let now = self.word.load(Ordering::Relaxed);
        let tail = now & TAIL_MASK;
        let count = (count as u64).min(tail - BASE);
        for index in BASE..BASE + count {
            if let Some(slot) = NonNull::new(self.entry(index).load(Ordering::Relaxed)) {
                take(slot);
            }
        }
        for index in BASE + count..tail {
            let slot = self.entry(index).load(Ordering::Relaxed);
            self.entry(index - count).store(slot, Ordering::Relaxed);
        }
        self.word.store(now - count, Ordering::Release);
    }

    /// The word, for seeing whether the owner has moved.
    pub(crate) fn word_hint(&self) -> u64 {
        // Relaxed: compared only.
        self.word.load(Ordering::Relaxed)
    }

    /// Checks C1 under the lock, for the owner.
    fn validate(&self, held: &CacheState) {
        let tail = self.word.load(Ordering::Relaxed) & TAIL_MASK;
        debug_assert!(BASE <= held.drained_to && tail <= u64::from(self.capacity), "C1");
        debug_assert!(
            (held.drained_to..tail).all(|index| !self.entry(index).load(Ordering::Relaxed).is_null()),
            "C1: an entry below the tail is empty"
        );
    }
}
