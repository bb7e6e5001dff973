//! The harvest: how another thread takes the free blocks of a thread that sleeps.
//!
//! A thread that sleeps cannot give its blocks back, and `pop` and `push` are to stay
//! free of atomic operations. So another thread takes them in four steps, under `lock`:
//!
//! ```text
//! 1. freeze    `stop` is set, and the owner's pointer becomes that to no cache: new
//!              operations see no cache, slow paths see `stop`, and both wait for `lock`
//! 2. barrier   every thread passes a full barrier (membarrier): what the owner did
//!              before is seen here. If it is `busy` with a slow path, go on to 4;
//!              else, by T5, at most one `pop` or `push` is under way, for any time
//! 3. take      | b0 | b1 | b2 | b3 |      ->      | null | null | null | b3 |
//!                               ^ top                      holes = 3   ^ top
//! 4. thaw      the owner's pointer comes back
//! ```
//!
//! `top` does not move, so the store to it that the operation under way may still do is
//! right: a `pop` takes `b3`, which was left, a `push` writes above it. Later ones find
//! `b3` and then null, which is what an empty magazine looks like. The limit may fall to
//! one above `top`, where that `push` still fits. The owner closes the holes when it comes
//! to the slow path. The model is `loom_a_harvest_leaves_what_the_owner_may_take`.
//!
//! A hardened heap's operations are all inside `alone`, and there is no pointer to change:
//! an owner that is not `busy` is elsewhere, and everything can be taken
//! (`loom_a_harvest_of_an_exclusive_cache_takes_all`).

use core::ptr;

use super::{MAX_ENTRIES, ThreadCache, charge, free_entries};
use crate::magazines::EMPTY;
use crate::size_class::block_size;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, compiler_barrier};
use crate::units::ClassIndex;

impl ThreadCache {
    /// Runs `f` while no harvest is under way. The owner calls it, and does everything but
    /// single pops and pushes inside (T5). Not inside itself.
    ///
    /// The owner's side of a Dekker pair whose fence is the barrier of the harvest: if it
    /// falls before our store to `busy`, we see `stop` and wait; if after, the harvest
    /// sees `busy` and leaves the cache alone.
    #[inline]
    pub(crate) fn alone<R>(&self, f: impl FnOnce() -> R) -> R {
        // Relaxed: ordered by the barrier, and for the compiler by the line that follows.
        self.busy.store(true, Ordering::Relaxed);
        compiler_barrier();
        // Acquire: pairs with the Release in `thaw`: we see what the harvest did.
        while self.stop.load(Ordering::Acquire) {
            self.wait_for_harvest();
        }
        let result = f();
        // Release: pairs with the Acquire in `is_busy`: the harvest sees what we did.
        self.busy.store(false, Ordering::Release);
        result
    }

    /// Begins what [`Self::alone`] does, and [`Self::leave`] must end; `false`, and nothing begun,
    /// where that would wait. (Two functions, because the compiler does not put every closure in
    /// line.)
    #[inline(always)]
    pub(crate) fn enter(&self) -> bool {
        // Relaxed: as in `alone`.
        self.busy.store(true, Ordering::Relaxed);
        compiler_barrier();
        // Acquire: as in `alone`.
        let may = !self.stop.load(Ordering::Acquire);
        if !may {
            self.leave();
        }
        may
    }

    /// Ends what [`Self::enter`] began.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        // Release: as in `alone`.
        self.busy.store(false, Ordering::Release);
    }

    #[cold]
    #[inline(never)]
    fn wait_for_harvest(&self) {
        // Release: as in `alone`; nothing was done.
        self.busy.store(false, Ordering::Release);
        self.lock.acquire();
        self.lock.release();
        // Relaxed: as in `alone`.
        self.busy.store(true, Ordering::Relaxed);
        compiler_barrier();
    }

    /// Waits until no harvest is under way.
    pub(crate) fn await_thaw(&self) {
        self.lock.acquire();
        self.lock.release();
    }

    /// Makes `word`, the owner's pointer to this cache, known to the harvest, or takes it
    /// back with null; returns when no harvest is under way.
    pub(crate) fn set_home(&self, word: *mut AtomicPtr<Self>) {
        self.lock.acquire();
        // Relaxed: under the lock.
        self.home.store(word, Ordering::Relaxed);
        self.lock.release();
    }

    /// Makes the cache one of a hardened heap; `seed` begins its random numbers.
    pub(crate) fn harden(&self, seed: u64) {
        self.quarantine.seed(seed);
        self.set_exclusive(true);
    }

    /// Says that every operation on the cache is inside [`Self::alone`], which is what a
    /// harvest needs to know if there is no pointer to change.
    pub(crate) fn set_exclusive(&self, exclusive: bool) {
        self.lock.acquire();
        // Relaxed: under the lock.
        self.exclusive.store(exclusive, Ordering::Relaxed);
        self.lock.release();
    }

    /// Forgets the owner and the room that it had: in the child of a fork, where the owner
    /// is not. The caller adds up anew what caches have.
    pub(crate) fn orphan(&self) {
        // Relaxed: the child has one thread.
        self.home.store(ptr::null_mut(), Ordering::Relaxed);
        self.exclusive.store(false, Ordering::Relaxed);
        self.give_up_all();
    }

    /// Bytes of blocks that a harvest would take.
    pub(crate) fn harvestable(&self) -> usize {
        ClassIndex::all()
            .map(|class| self.len(class).saturating_sub(1) * block_size(class))
            .sum::<usize>()
            + self.runs.bytes()
            + self.depot.bytes()
            + self.quarantine_bytes()
    }

    /// Bytes of blocks in quarantine.
    fn quarantine_bytes(&self) -> usize {
        let mut bytes = 0;
        self.quarantine
            .for_each_class(|class| bytes += block_size(class));
        bytes
    }

    /// Since how many milliseconds the owner has done nothing that can be seen, as far as
    /// the calls of this function show. Under the cache-store lock.
    pub(crate) fn idle_for(&self, now_ms: u64) -> u64 {
        // Relaxed, all: numbers; a wrong guess costs a refill.
        let mut sum = self.visits.load(Ordering::Relaxed);
        for class in ClassIndex::all() {
            sum = sum.rotate_left(5) ^ self.height(class);
        }
        if self.seen.swap(sum, Ordering::Relaxed) != sum {
            self.seen_ms.store(now_ms, Ordering::Relaxed);
        }
        now_ms.saturating_sub(self.seen_ms.load(Ordering::Relaxed))
    }

    /// What the thread's pointer is where there is no cache: [`EMPTY`].
    pub(crate) fn none() -> *mut Self {
        ptr::from_ref(&EMPTY).cast_mut().cast()
    }

    /// Step 1 of a harvest; `false` if the owner cannot be frozen. Under the cache-store
    /// lock; [`Self::thaw`] must follow.
    pub(crate) fn freeze(&self) -> bool {
        if !self.lock.try_acquire() {
            return false;
        }
        // Relaxed: under the lock.
        let home = self.home.load(Ordering::Relaxed);
        // SAFETY: the word is the owner's until it takes it back, for which it needs the
        // lock; so the thread lives, and with it its word.
        let word = unsafe { home.as_ref() };
        // Relaxed: under the lock.
        if word.is_none() && !self.exclusive.load(Ordering::Relaxed) {
            self.lock.release();
            return false;
        }
        // SeqCst, both: before the barrier of step 2, whatever the processor.
        self.stop.store(true, Ordering::SeqCst);
        if let Some(word) = word {
            word.store(Self::none(), Ordering::SeqCst);
        }
        // Relaxed: under the cache-store lock.
        self.frozen.store(true, Ordering::Relaxed);
        true
    }

    /// Whether [`Self::freeze`] froze it. Under the cache-store lock.
    pub(crate) fn is_frozen(&self) -> bool {
        // Relaxed: as in `freeze`.
        self.frozen.load(Ordering::Relaxed)
    }

    /// After step 2: whether the owner is on a slow path, so that the cache must be left.
    pub(crate) fn is_busy(&self) -> bool {
        // Acquire: pairs with the Release in `alone`.
        self.busy.load(Ordering::Acquire)
    }

    /// Step 3 of a harvest, for one class: takes all blocks but the newest, and the room
    /// that they had; returns how many.
    ///
    /// # Safety
    ///
    /// The cache is frozen, a barrier on every thread came after, and then the owner was
    /// not busy.
    pub(crate) unsafe fn harvest(
        &self,
        class: ClassIndex,
        out: &mut [*mut u8; MAX_ENTRIES],
        taken: &AtomicUsize,
    ) -> usize {
        let (base, holes, height) = (self.base(class), self.holes(class), self.height(class));
        let end = height.saturating_sub(1).max(holes);
        let count = end - holes;
        // SAFETY: the slots hold blocks (T2). A `pop` under way touches slot `height - 1`
        // or, if it was seen already, the one that is now below it, which is `end` or
        // above; a `push` the one above. So nobody else touches those below `end`.
        unsafe {
            ptr::copy_nonoverlapping(base.add(holes), out.as_mut_ptr(), count);
            ptr::write_bytes(base.add(holes), 0, count);
        }
        let allowance = self.allowance(class);
        #[expect(clippy::cast_possible_truncation, reason = "at most 128 entries")]
        self.set_holes(class, end as u8);
        // The allowance is without holes; those just made had room until here.
        let now = allowance - count;
        let less = charge(class, allowance) - charge(class, now);
        // Relaxed: as in `grow`.
        self.allowed.store(
            self.allowed.load(Ordering::Relaxed) - less,
            Ordering::Relaxed,
        );
        taken.fetch_sub(less, Ordering::Relaxed);
        // One above the top, where a `push` under way still fits.
        let wanted = (height + 1 - end).max(free_entries(class));
        if wanted < now {
            self.lower_limit(class, wanted, taken);
        }
        count
    }

    /// Step 4 of a harvest.
    pub(crate) fn thaw(&self) {
        // Relaxed: under the lock and the cache-store lock.
        self.frozen.store(false, Ordering::Relaxed);
        // Release: pairs with the Acquire in `alone`.
        self.stop.store(false, Ordering::Release);
        let home = self.home.load(Ordering::Relaxed);
        // SAFETY: as in `freeze`: we hold the lock.
        if let Some(word) = unsafe { home.as_ref() } {
            // Release: the owner that sees the pointer sees the harvest.
            word.store(ptr::from_ref(self).cast_mut(), Ordering::Release);
        }
        self.lock.release();
    }
}
