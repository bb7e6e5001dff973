//! Where a hardened heap's freed blocks wait, so that a pointer that was kept finds nobody's
//! data for a while, and nobody can tell which block comes next.
//!
//! ```text
//! free -> | pool: a random place, whose block goes on | -> | ring: in order | -> magazine
//! ```
//!
//! After `hardened_malloc` (Micay), which has such a pair a size class; ours has one a thread,
//! of all classes together, so that it fits a processor's first cache.
//!
//! Invariants:
//! - Q1: each entry names a block that nobody holds and whose state is freed.
//! - Q2: `ring_bytes` is the sum over the ring; the pool holds small blocks only.
//! - Q3: only the owner of the cache writes, inside `alone`, or a harvest that found the
//!   owner elsewhere. Others read numbers.

use crate::size_class::block_size;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::units::ClassIndex;

/// Places of the pool; a power of two.
const POOL: usize = 64;
/// Places of the ring: so many blocks are freed by the thread before a block comes back,
/// unless they are big. A power of two.
const RING: usize = 64;
/// Largest blocks that wait in the pool, which is bounded by their number alone.
const POOL_BLOCK_BYTES: usize = 1024;
/// Most bytes in the ring.
const RING_BYTES: usize = 64 * 1024;

/// A block on its way through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) addr: usize,
    pub(crate) class: ClassIndex,
}

impl Waiting {
    /// Addresses have at most 48 bits (`page_map`).
    const fn pack(self) -> usize {
        self.addr << 8 | self.class.byte() as usize
    }

    fn unpack(word: usize) -> Option<Self> {
        (word != 0).then(|| Self {
            addr: word >> 8,
            class: ClassIndex::new(word & 0xff),
        })
    }
}

/// See the module. All zeroes is an empty one. Relaxed throughout: by Q3 each access is
/// ordered by the thread itself or by the harvest's barrier, or is a number for statistics.
#[derive(Debug)]
pub(crate) struct Quarantine {
    pool: [AtomicUsize; POOL],
    ring: [AtomicUsize; RING],
    /// Entries that were put into the ring, and taken, so far.
    put: AtomicUsize,
    taken: AtomicUsize,
    ring_bytes: AtomicUsize,
    random: AtomicU64,
    /// Allocations until the next guarded one.
    countdown: AtomicUsize,
}

impl Quarantine {
    /// Starts the random numbers; the quarantine is empty.
    pub(crate) fn seed(&self, seed: u64) {
        debug_assert_eq!(self.len(), 0, "a new owner finds it empty");
        self.random.store(seed | 1, Ordering::Relaxed);
        self.countdown.store(0, Ordering::Relaxed);
    }

    /// A number below `bound`, which is at least 1: Marsaglia's xorshift, and Lemire's
    /// multiplication in place of a division. Good enough to surprise, not for secrets.
    #[inline]
    pub(crate) fn random_below(&self, bound: usize) -> usize {
        let mut state = self.random.load(Ordering::Relaxed);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.store(state, Ordering::Relaxed);
        // Below `bound`, so it fits.
        usize::try_from(((state >> 32) * (bound as u64)) >> 32).unwrap_or(0)
    }

    /// Counts an allocation; whether it is to be guarded, which one in `every` is on average.
    #[inline]
    pub(crate) fn is_sampled(&self, every: impl FnOnce() -> usize) -> bool {
        let left = self.countdown.load(Ordering::Relaxed);
        if left > 1 {
            self.countdown.store(left - 1, Ordering::Relaxed);
            return false;
        }
        self.draw(left, every())
    }

    #[cold]
    fn draw(&self, left: usize, every: usize) -> bool {
        if every == 0 {
            self.countdown.store(usize::MAX, Ordering::Relaxed);
            return false;
        }
        let next = 1 + self.random_below(every.saturating_mul(2).min(1 << 30) - 1);
        self.countdown.store(next, Ordering::Relaxed);
        // The first draw of a thread only says when.
        left == 1 || every == 1
    }

    /// Takes in a freed block. [`Self::next`] must be asked until it has none.
    #[inline]
    pub(crate) fn put(&self, block: Waiting) {
        let mut word = block.pack();
        if block_size(block.class) <= POOL_BLOCK_BYTES {
            let place = &self.pool[self.random_below(POOL) % POOL];
            let other = place.load(Ordering::Relaxed);
            place.store(word, Ordering::Relaxed);
            word = other;
        }
        let Some(last) = Waiting::unpack(word) else {
            return;
        };
        let put = self.put.load(Ordering::Relaxed);
        self.ring[put % RING].store(word, Ordering::Relaxed);
        self.put.store(put.wrapping_add(1), Ordering::Relaxed);
        let bytes = self.ring_bytes.load(Ordering::Relaxed) + block_size(last.class);
        self.ring_bytes.store(bytes, Ordering::Relaxed);
    }

    /// A block that has waited long enough.
    #[inline]
    pub(crate) fn next(&self) -> Option<Waiting> {
        let full = self.in_ring() == RING;
        (full || self.ring_bytes.load(Ordering::Relaxed) > RING_BYTES)
            .then(|| self.oldest())
            .flatten()
    }

    /// Any block, for emptying.
    pub(crate) fn take_any(&self) -> Option<Waiting> {
        self.oldest().or_else(|| {
            let mut places = self.pool.iter();
            places.find_map(|place| Waiting::unpack(place.swap(0, Ordering::Relaxed)))
        })
    }

    fn oldest(&self) -> Option<Waiting> {
        if self.in_ring() == 0 {
            return None;
        }
        let taken = self.taken.load(Ordering::Relaxed);
        let word = self.ring.get(taken % RING)?.load(Ordering::Relaxed);
        self.taken.store(taken.wrapping_add(1), Ordering::Relaxed);
        let block = Waiting::unpack(word)?;
        let bytes = self.ring_bytes.load(Ordering::Relaxed) - block_size(block.class);
        self.ring_bytes.store(bytes, Ordering::Relaxed);
        Some(block)
    }

    fn in_ring(&self) -> usize {
        let put = self.put.load(Ordering::Relaxed);
        put.wrapping_sub(self.taken.load(Ordering::Relaxed))
    }

    /// Shows the class of every waiting block; any thread may ask.
    pub(crate) fn for_each_class(&self, mut f: impl FnMut(ClassIndex)) {
        let taken = self.taken.load(Ordering::Relaxed);
        let in_ring = (0..self.in_ring().min(RING))
            .filter_map(|at| self.ring.get(taken.wrapping_add(at) % RING));
        for word in self.pool.iter().chain(in_ring) {
            if let Some(block) = Waiting::unpack(word.load(Ordering::Relaxed)) {
                f(block.class);
            }
        }
    }

    /// Blocks that wait; any thread may ask.
    pub(crate) fn len(&self) -> usize {
        let mut count = 0;
        self.for_each_class(|_| count += 1);
        count
    }
}

const _: () = assert!(POOL.is_power_of_two() && RING.is_power_of_two());

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn empty() -> Quarantine {
        let quarantine = Quarantine {
            pool: [const { AtomicUsize::new(0) }; POOL],
            ring: [const { AtomicUsize::new(0) }; RING],
            put: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            ring_bytes: AtomicUsize::new(0),
            random: AtomicU64::new(0),
            countdown: AtomicUsize::new(0),
        };
        quarantine.seed(42);
        quarantine
    }

    fn block(number: usize, class: usize) -> Waiting {
        Waiting {
            addr: (1 << 46) + number * 32 * 1024,
            class: ClassIndex::new(class),
        }
    }

    #[test]
    fn a_block_comes_back_late_and_once_and_in_no_order() {
        let quarantine = empty();
        let mut out = Vec::new();
        for number in 0..2000 {
            quarantine.put(block(number, 3));
            while let Some(back) = quarantine.next() {
                let age = number - (back.addr - (1 << 46)) / (32 * 1024);
                assert!(age >= RING - 1, "{age}");
                out.push(back.addr);
            }
        }
        assert!(!out.is_sorted());
        assert_eq!(quarantine.len(), POOL + RING - 1);
        out.extend(core::iter::from_fn(|| quarantine.take_any()).map(|block| block.addr));
        out.sort_unstable();
        out.dedup();
        assert_eq!((out.len(), quarantine.len()), (2000, 0));
    }

    #[test]
    fn big_blocks_are_bounded_in_bytes() {
        let quarantine = empty();
        for number in 0..100 {
            quarantine.put(block(number, 40));
            while quarantine.next().is_some() {}
            assert!(quarantine.ring_bytes.load(Ordering::Relaxed) <= RING_BYTES);
            assert_eq!(quarantine.len(), (number + 1).min(2));
        }
    }

    #[test]
    fn one_allocation_in_so_many_is_sampled() {
        let quarantine = empty();
        let sampled = (0..100_000)
            .filter(|_| quarantine.is_sampled(|| 100))
            .count();
        assert!((800..1250).contains(&sampled), "{sampled}");
        let quarantine = empty();
        assert!((0..100).all(|_| quarantine.is_sampled(|| 1)));
        assert!(!(0..100).any(|_| empty().is_sampled(|| 0)));
    }
}
