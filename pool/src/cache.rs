//! A thread's cache: an array of free slots that its owner pops and pushes without an
//! atomic read-modify-write, and that any other thread can empty.
//!
//! After the magazines of Bonwick and Adams ("Magazines and Vmem", 2001); the way it is
//! emptied is the THE protocol of Cilk (Frigo, Leiserson and Randall, 1998) with an
//! asymmetric fence, so that the owner pays one compare for it.
//!
//! ```text
//!             1            tail       capacity + 1
//!   entries   | slot … slot |  unused  | spill |        LIFO at the tail
//!
//!   open:     floor = 1,   limit = capacity + 1
//!   frozen:   floor = MAX, limit = 0
//! ```
//!
//! The owner first does and then looks: it stores the new tail, passes a light barrier,
//! and compares with `floor` (pop: empty or frozen) or `limit` (push: full or frozen). One
//! that must not go on takes the lock and sorts out under it what became of the slot. Who
//! empties a cache takes the lock, freezes it, passes a heavy barrier, and then takes every
//! entry below the tail that it sees.
//!
//! - If the owner's store of the tail comes before the barrier, the tail that is read
//!   counts it: a slot just popped lies above, a slot just pushed lies below.
//! - If it comes after, the owner's look comes after too and sees the cache frozen.
//!
//! A push into a full cache therefore stores first too, into the spill entry.
//!
//! The *budget* counts pops down, so that every [`BUDGET`] pops the owner comes to the slow
//! path: metrics and decay need nothing else on the fast one.
//!
//! # Invariants
//!
//! - C1: `1 <= drained_to` and `1 <= tail <= capacity + 2`; entries `[drained_to, tail)` hold
//!   slots that nobody else has, but for the one that a call of the owner is busy with.
//! - C2: `tail` and `budget` are written by the owner alone; `floor`, `limit` and
//!   `drained_to` under the lock.
//! - C3: while the cache is frozen no push or pop succeeds outside the lock.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::chunk::Object;
use crate::sync::{
    AtomicBool, AtomicPtr, AtomicUsize, Mutex, MutexGuard, Ordering, Step, UnsafeCell,
    heavy_barrier, left_out, light_barrier,
};

/// Most slots a cache holds.
pub(crate) const CACHE_SLOTS: usize = if cfg!(loom) { 4 } else { 128 };
/// Pops between two visits of the slow path by a thread that always hits.
const BUDGET: u64 = if cfg!(loom) { 8 } else { 1 << 14 };
/// The same while there are objects to be dropped, a few a visit.
const HURRIED_BUDGET: u64 = 64;

/// Index of the first entry; a tail of this value says empty.
const BASE: usize = 1;
const OPEN: usize = BASE;
const FROZEN: usize = usize::MAX;

/// What the lock of a cache protects.
#[derive(Debug)]
pub(crate) struct CacheState {
    /// Entries below were taken by whoever emptied the cache; the owner has not
    /// noticed yet.
    drained_to: usize,
    /// The pool is gone: nothing may enter any more.
    pub(crate) closed: bool,
    /// Pops that hit, up to the last visit of the slow path.
    pub(crate) hits: u64,
    /// What the budget was then.
    granted: u64,
}

/// What was pushed from this index on must not stay: see [`Cache::settle_push`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(usize);

/// See the module.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Cache {
    tail: AtomicUsize,
    floor: AtomicUsize,
    limit: AtomicUsize,
    budget: UnsafeCell<u64>,
    capacity: usize,
    /// The owner has exited; another thread may take the cache over. Changed under the
    /// lock.
    abandoned: AtomicBool,
    state: Mutex<CacheState>,
    entries: [AtomicPtr<Object>; CACHE_SLOTS + 2],
}

/// Slots of a cache on their way out of it, oldest first.
#[derive(Debug)]
pub(crate) struct Taken<'c>(core::slice::Iter<'c, AtomicPtr<Object>>);

impl Iterator for Taken<'_> {
    type Item = NonNull<Object>;

    #[inline]
    fn next(&mut self) -> Option<NonNull<Object>> {
        self.0.next().map(slot_in)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl Taken<'_> {
    /// Writes what `make` makes of each slot into `room`, as many as fit. Returns how many.
    #[inline]
    pub(crate) fn write_to<U>(
        self,
        room: &mut [MaybeUninit<U>],
        make: impl Fn(NonNull<Object>) -> U,
    ) -> usize {
        let count = self.0.len().min(room.len());
        for (place, entry) in room.iter_mut().zip(self.0) {
            place.write(make(slot_in(entry)));
        }
        count
    }
}

/// The slot in an entry below the tail.
#[inline(always)]
fn slot_in(entry: &AtomicPtr<Object>) -> NonNull<Object> {
    // Relaxed: written by this thread; or by another before it published the tail or
    // released the lock.
    let slot = entry.load(Ordering::Relaxed);
    debug_assert!(!slot.is_null(), "C1");
    // SAFETY: entries below the tail hold slots (C1): `push` stored a `NonNull`.
    unsafe { NonNull::new_unchecked(slot) }
}

// SAFETY: all fields but `budget` are `Sync`, and `budget` is touched by the owner alone
// (C2); ownership passes on under the lock (`abandon`, `adopt`).
unsafe impl Sync for Cache {}
// SAFETY: what the entries point to goes with them: see `Grant`.
unsafe impl Send for Cache {}

impl Cache {
    /// An empty, frozen cache of at most `capacity` slots.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            tail: AtomicUsize::new(BASE),
            floor: AtomicUsize::new(FROZEN),
            limit: AtomicUsize::new(0),
            budget: UnsafeCell::new(BUDGET),
            capacity: capacity.clamp(1, CACHE_SLOTS),
            abandoned: AtomicBool::new(false),
            state: Mutex::new(CacheState {
                drained_to: BASE,
                closed: false,
                hits: 0,
                granted: BUDGET,
            }),
            entries: core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut())),
        }
    }

    /// Owner: takes the newest slot. `None`: go to the slow path; nothing has changed.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<NonNull<Object>> {
        if !self.spend(1) {
            self.spend_back(1);
            return None;
        }
        // Relaxed: written by this thread alone (C2).
        let before = self.tail.load(Ordering::Relaxed);
        let index = before - 1;
        // Relaxed: ordered before the load of the floor by the light barrier, whose
        // partner is the heavy one that follows `freeze`.
        self.tail.store(index, Ordering::Relaxed);
        light_barrier();
        // Relaxed: see the store.
        if index < self.floor.load(Ordering::Relaxed) {
            self.undo_pop(before);
            return None;
        }
        Some(self.read(index))
    }

    /// Empty, or frozen: whoever froze the cache may have seen the lower tail, and leaves
    /// the entry to us then (`drained_to`).
    #[cold]
    fn undo_pop(&self, before: usize) {
        // Release: as in `push`: the entry is below the tail again.
        self.tail.store(before, Ordering::Release);
        self.spend_back(1);
    }

    /// Owner: puts `slot` on top.
    #[inline(always)]
    pub(crate) fn push(&self, slot: NonNull<Object>) -> Result<(), Refused> {
        // Relaxed: written by this thread alone (C2).
        let index = self.tail.load(Ordering::Relaxed);
        // Relaxed: published by the Release store of the tail.
        self.entry(index).store(slot.as_ptr(), Ordering::Relaxed);
        // Release: pairs with the Acquire load in `take_all`, which then sees the entry and
        // what the last user wrote into the object.
        self.tail.store(index + 1, Ordering::Release);
        light_barrier();
        // Relaxed: ordered after the store by the light barrier.
        if index >= self.limit.load(Ordering::Relaxed) {
            return Err(Refused(index));
        }
        Ok(())
    }

    /// Owner: takes up to `count` of the newest slots at once and passes them on; if none can
    /// be taken, an empty list or nothing.
    #[inline]
    pub(crate) fn pop_many(&self, count: usize, take: impl FnOnce(Taken<'_>)) {
        // Orderings as in `pop`.
        let before = self.tail.load(Ordering::Relaxed);
        let count = count.min(before - BASE);
        if !self.spend(count as u64) {
            self.spend_back(count as u64);
            return;
        }
        self.tail.store(before - count, Ordering::Relaxed);
        light_barrier();
        if self.floor.load(Ordering::Relaxed) != OPEN {
            self.tail.store(before, Ordering::Release);
            self.spend_back(count as u64);
            return;
        }
        take(self.taken(before - count, count));
    }

    /// Owner: puts all of `slots` on top at once. `Ok(false)`: there is no room for all of
    /// them, and nothing has changed. `Err`: none of them may stay, see
    /// [`Cache::settle_push`].
    #[inline]
    pub(crate) fn push_many(&self, slots: &[NonNull<Object>]) -> Result<bool, Refused> {
        // Orderings as in `push`.
        let before = self.tail.load(Ordering::Relaxed);
        let end = before + slots.len();
        if end > self.limit.load(Ordering::Relaxed) {
            return Ok(false);
        }
        for (place, &slot) in slots.iter().enumerate() {
            self.write(before + place, slot);
        }
        self.tail.store(end, Ordering::Release);
        light_barrier();
        if end > self.limit.load(Ordering::Relaxed) {
            return Err(Refused(before));
        }
        Ok(true)
    }

    /// Owner: takes `pops` from the budget; whether it had them. If not,
    /// [`Cache::spend_back`] follows.
    #[inline(always)]
    fn spend(&self, pops: u64) -> bool {
        self.budget.with_mut(|budget| {
            // SAFETY: the owner's alone (C2), and no reference to it outlives a closure.
            let budget = unsafe { &mut *budget };
            let (left, over) = budget.overflowing_sub(pops);
            // Stored in any case: one instruction subtracts in memory and says whether it
            // went over.
            *budget = left;
            !over
        })
    }

    #[cold]
    fn spend_back(&self, pops: u64) {
        self.budget.with_mut(|budget| {
            // SAFETY: as in `spend`.
            let budget = unsafe { &mut *budget };
            *budget = budget.wrapping_add(pops);
        });
    }

    /// Owner: whether it was on the slow path a few pops ago.
    pub(crate) fn was_here_lately(&self) -> bool {
        self.budget.with_mut(|budget| {
            // SAFETY: as in `spend`; called by the owner.
            let left = unsafe { *budget };
            left > BUDGET - BUDGET / 16
        })
    }

    #[inline(always)]
    fn entry(&self, index: usize) -> &AtomicPtr<Object> {
        debug_assert!(index < self.entries.len());
        // SAFETY: `index` is at most the tail, which is at most `capacity + 2` after a push,
        // so at most `capacity + 1 <= CACHE_SLOTS + 1` before it (C1): a push that went
        // beyond `capacity` is settled before the next.
        unsafe { self.entries.get_unchecked(index) }
    }

    /// The slot at an index below the tail.
    #[inline(always)]
    fn read(&self, index: usize) -> NonNull<Object> {
        slot_in(self.entry(index))
    }

    /// The slots from an index on, all of them below the tail (or just taken from there).
    #[inline]
    fn taken(&self, from: usize, count: usize) -> Taken<'_> {
        Taken(self.entries[from..from + count].iter())
    }

    /// The lock; everything below wants it held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock()
    }

    /// Slots in the cache; a hint while the owner runs.
    pub(crate) fn len(&self, held: &CacheState) -> usize {
        // Relaxed: a hint.
        let tail = self.tail.load(Ordering::Relaxed);
        tail.saturating_sub(held.drained_to)
    }

    /// Owner: whether there may be slots in the cache; sure if it says no.
    pub(crate) fn may_hold_slots(&self) -> bool {
        // Relaxed: the owner's own word.
        self.tail.load(Ordering::Relaxed) != BASE
    }

    /// Whether pops and pushes fail on the fast path.
    #[cfg(all(test, loom))]
    pub(crate) fn is_frozen(&self, _held: &CacheState) -> bool {
        // Relaxed: changed under the lock, which the caller holds.
        self.floor.load(Ordering::Relaxed) != OPEN
    }

    /// Closes the cache to its owner's fast path; a [`heavy_barrier`] must follow before
    /// [`Cache::take_all`].
    pub(crate) fn freeze(&self, _held: &mut CacheState) {
        // Relaxed, both: ordered by the heavy barrier that follows.
        self.floor.store(FROZEN, Ordering::Relaxed);
        self.limit.store(0, Ordering::Relaxed);
    }

    /// Takes every slot of a cache that was frozen before a heavy barrier. Any thread.
    pub(crate) fn take_all(&self, held: &mut CacheState, mut take: impl FnMut(NonNull<Object>)) {
        // Acquire: pairs with the Release in `push`.
        let tail = self.tail.load(Ordering::Acquire);
        for index in held.drained_to..tail {
            take(self.read(index));
        }
        if !left_out(Step::NoteDrained) {
            held.drained_to = held.drained_to.max(tail);
        }
    }

    /// Freezes and empties one cache. Any thread.
    pub(crate) fn drain(&self, held: &mut CacheState, take: impl FnMut(NonNull<Object>)) {
        self.freeze(held);
        heavy_barrier();
        self.take_all(held, take);
    }

    /// Owner: after a push that was refused: whether the slots are still ours. If so they
    /// are out of the cache again. Whoever empties the cache reads the tail once, and one
    /// store has moved it past all of them: all are ours, or none.
    #[cold]
    pub(crate) fn settle_push(&self, refused: Refused) -> bool {
        let mut held = self.lock();
        let Refused(index) = refused;
        let ours = index >= held.drained_to;
        if ours {
            // Relaxed: takes an entry away, which nobody else looks at without the lock.
            self.tail.store(index, Ordering::Relaxed);
        }
        self.normalise(&mut held);
        ours
    }

    /// Owner: takes note of what was drained, so that the indices start at the base
    /// again, counts the hits, and renews the budget.
    pub(crate) fn normalise(&self, held: &mut CacheState) {
        held.hits += self.budget.with_mut(|budget| {
            // SAFETY: as in `spend`; called by the owner.
            let budget = unsafe { &mut *budget };
            let spent = held.granted - *budget;
            if !left_out(Step::RenewBudget) {
                *budget = BUDGET;
                held.granted = BUDGET;
            }
            spent
        });
        if held.drained_to > BASE {
            // Relaxed: the owner's own word.
            let tail = self.tail.load(Ordering::Relaxed);
            let mut to = BASE;
            for from in held.drained_to..tail {
                self.write(to, self.read(from));
                to += 1;
            }
            held.drained_to = BASE;
            // Release: as in `push`.
            self.tail.store(to, Ordering::Release);
        }
        self.validate(held);
    }

    /// Owner, normalised: wants to be back on the slow path soon.
    pub(crate) fn hurry(&self, held: &mut CacheState) {
        held.granted = BUDGET.min(HURRIED_BUDGET);
        self.budget.with_mut(|budget| {
            // SAFETY: as in `spend`; called by the owner.
            unsafe { *budget = held.granted };
        });
    }

    #[inline(always)]
    fn write(&self, index: usize, slot: NonNull<Object>) {
        // Relaxed: published by the tail or by the lock.
        self.entry(index).store(slot.as_ptr(), Ordering::Relaxed);
    }

    /// Owner, normalised: opens the cache.
    pub(crate) fn thaw(&self, held: &mut CacheState) {
        debug_assert_eq!(held.drained_to, BASE, "normalise first");
        // Relaxed, both: the owner itself reads them; others change them under the lock.
        self.floor.store(OPEN, Ordering::Relaxed);
        self.limit.store(BASE + self.capacity, Ordering::Relaxed);
    }

    /// Owner, normalised: takes the newest slot under the lock.
    pub(crate) fn pop_locked(&self, _held: &mut CacheState) -> Option<NonNull<Object>> {
        // Relaxed, both: the owner's own word; others look at it under the lock.
        let tail = self.tail.load(Ordering::Relaxed);
        if tail == BASE {
            return None;
        }
        self.tail.store(tail - 1, Ordering::Relaxed);
        Some(self.read(tail - 1))
    }

    /// Owner, normalised: puts `slot` on top if it fits.
    pub(crate) fn push_locked(&self, _held: &mut CacheState, slot: NonNull<Object>) -> bool {
        // Relaxed: the owner's own word.
        let tail = self.tail.load(Ordering::Relaxed);
        if tail >= BASE + self.capacity {
            return false;
        }
        self.write(tail, slot);
        // Release: as in `push`.
        self.tail.store(tail + 1, Ordering::Release);
        true
    }

    /// Owner, normalised: puts slots on top, all that fit.
    pub(crate) fn load_locked(
        &self,
        _held: &mut CacheState,
        slots: impl Iterator<Item = NonNull<Object>>,
    ) {
        // Relaxed: the owner's own word.
        let mut tail = self.tail.load(Ordering::Relaxed);
        let room = (BASE + self.capacity).saturating_sub(tail);
        for slot in slots.take(room) {
            self.write(tail, slot);
            tail += 1;
        }
        // Release: as in `push`.
        self.tail.store(tail, Ordering::Release);
    }

    /// Owner, normalised: takes the newest slots out, up to `count`, by passing them to
    /// `take` all at once.
    pub(crate) fn take_newest(
        &self,
        _held: &mut CacheState,
        count: usize,
        take: impl FnOnce(Taken<'_>),
    ) {
        // Relaxed, both: the owner's own word; others look at it under the lock.
        let tail = self.tail.load(Ordering::Relaxed);
        let count = count.min(tail - BASE);
        take(self.taken(tail - count, count));
        self.tail.store(tail - count, Ordering::Relaxed);
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
        // Relaxed, both: changed under the lock.
        let adopted = self.abandoned.load(Ordering::Relaxed);
        if adopted {
            self.abandoned.store(false, Ordering::Relaxed);
            self.normalise(&mut held);
        }
        adopted
    }

    /// Checks C1 under the lock, for the owner.
    fn validate(&self, held: &CacheState) {
        let tail = self.tail.load(Ordering::Relaxed);
        debug_assert!(
            BASE <= held.drained_to && BASE <= tail && tail <= self.capacity + 2,
            "C1: tail {tail}, drained to {}",
            held.drained_to
        );
    }
}
