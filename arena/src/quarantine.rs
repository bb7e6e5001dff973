//! Where a hardened heap's freed blocks wait, so that a pointer that was kept finds nobody's
//! data for a while, and nobody can tell which block comes next.
//!
//! ```text
//! lane    | 9 | 2 | 7 | 8 | 4 | 6 | 3 | 5 |      numbers: when the block was freed
//!               ^ next              ^ random, among the half that was written last
//!
//! exchange(10): 2 goes on, 3 takes its place, 10 takes the place of 3
//!
//! lane    | 9 | 3 | 7 | 8 | 4 | 6 | 10| 5 |
//!                   ^ next
//! ```
//!
//! So in a lane of *n* places a block waits until more than *n* / 2 others were freed, for
//! *n* of them on average, and leaves in an order that cannot be told before. Each block that
//! comes drives one out: there is no sum to keep and no branch to guess. The lanes are
//! by size, and so short that the blocks in one fit a processor's first cache. One word a lane
//! says both what is next and what is random: its low bits count, its high bits do not look
//! like it ([`Turn`]).
//!
//! (`hardened_malloc` (Micay) has a random pool and a queue behind it, both a size class.)
//!
//! Invariants:
//! - Q1: each entry names a block that nobody holds and whose state is freed.
//! - Q2: a lane holds blocks of the classes that [`LANE_OF`] sends there.
//! - Q3: only the owner of the cache writes, inside `alone` but for the countdown, or a harvest
//!   that found the owner elsewhere and leaves the countdown alone. Others read numbers.

use crate::size_class::{MAX_SMALL_BYTES, block_bytes};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::units::{CLASS_COUNT, ClassIndex};
use crate::zeroes::FEW_BYTES;

/// Places for blocks up to some size.
#[derive(Clone, Copy, Debug)]
struct Lane {
    index: u8,
    /// Its first place among all.
    start: u8,
    /// Places less one; places are a power of two.
    mask: u8,
}

/// The lane of the smallest blocks, of which the short way knows that they are.
const FIRST_LANE: Lane = Lane {
    index: 0,
    start: 0,
    mask: LANES[0].0 - 1,
};
const _: () = assert!(LANES[0].1 == FEW_BYTES);

/// Places of each lane, and its largest block in bytes: up to 4 KiB a lane has 16 KiB.
const LANES: [(u8, usize); 4] = [(64, 256), (16, 1024), (4, 4096), (2, MAX_SMALL_BYTES)];
const PLACES: usize = 64 + 16 + 4 + 2;

/// The lane of each class, and more up to a power of two, so that a mask is enough of a check.
static LANE_OF: [Lane; LANE_MASK + 1] = lanes();
const LANE_MASK: usize = CLASS_COUNT.next_power_of_two() - 1;

const fn lanes() -> [Lane; LANE_MASK + 1] {
    let (mut index, mut start) = (0, 0);
    let mut out = [FIRST_LANE; LANE_MASK + 1];
    let mut class = 0;
    while class < CLASS_COUNT {
        if block_bytes()[class] as usize > LANES[index as usize].1 {
            start += LANES[index as usize].0;
            index += 1;
        }
        let places = LANES[index as usize].0;
        assert!(places.is_power_of_two() && start as usize + places as usize <= PLACES);
        out[class] = Lane {
            index,
            start,
            mask: places - 1,
        };
        class += 1;
    }
    out
}

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

/// The state of a lane: a linear congruential generator whose multiplier and increment are 1
/// in their low bits, so that those count, whatever the others do. Its high bits are good
/// enough to surprise, not for secrets.
#[derive(Debug)]
struct Turn(AtomicU64);

/// Knuth's (MMIX), with other low bits.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005 & !LOW | 1;
/// The bits that count: enough for the places of any lane.
const LOW: u64 = LANES[0].0 as u64 - 1;

/// The bits above are as many as half of the places of the largest lane need.
const HIGH_SHIFT: u32 = u64::BITS - (LOW >> 1).count_ones();

impl Turn {
    /// The next place and how far back the other is, both of `mask` and more: higher bits of the
    /// first are not to be used.
    #[inline(always)]
    fn take(&self, mask: usize) -> (usize, usize) {
        // Relaxed: as all of the quarantine.
        let now = self.0.load(Ordering::Relaxed);
        let next = now.wrapping_mul(MULTIPLIER).wrapping_add(1);
        self.0.store(next, Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "bits are taken of it")]
        let (low, high) = (now as usize, (now >> HIGH_SHIFT) as usize);
        (low & mask, high & mask >> 1)
    }
}

/// See the module. All zeroes is an empty one. Relaxed throughout: by Q3 each access is
/// ordered by the thread itself or by the harvest's barrier, or is a number for statistics.
#[derive(Debug)]
pub(crate) struct Quarantine {
    places: [AtomicUsize; PLACES],
    turns: [Turn; LANES.len()],
    random: AtomicU64,
    /// Allocations until the next guarded one.
    countdown: AtomicUsize,
}

impl Quarantine {
    /// Starts the random numbers; the quarantine is empty.
    pub(crate) fn seed(&self, seed: u64) {
        debug_assert_eq!(self.len(), 0, "a new owner finds it empty");
        self.random.store(seed, Ordering::Relaxed);
        for (turn, bits) in self.turns.iter().zip(1..) {
            turn.0.store(seed.rotate_left(bits * 13), Ordering::Relaxed);
        }
        self.countdown.store(0, Ordering::Relaxed);
    }

    /// Starts the random numbers anew; what waits here goes on waiting.
    pub(crate) fn reseed(&self, seed: u64) {
        self.random.store(seed, Ordering::Relaxed);
        for (turn, bits) in self.turns.iter().zip(1..) {
            // The low bits say which place is next.
            let count = turn.0.load(Ordering::Relaxed) & LOW;
            turn.0.store(
                seed.rotate_left(bits * 13) & !LOW | count,
                Ordering::Relaxed,
            );
        }
    }

    /// 32 random bits: the upper ones of a linear congruential generator with the constants
    /// of Knuth's MMIX. Good enough to surprise, not for secrets.
    #[inline(always)]
    fn random(&self) -> usize {
        let state = self.random.load(Ordering::Relaxed);
        let next = state.wrapping_mul(6_364_136_223_846_793_005);
        let next = next.wrapping_add(1_442_695_040_888_963_407);
        self.random.store(next, Ordering::Relaxed);
        (next >> 32) as usize
    }

    /// A number below `bound`, which is at least 1 and below 2^32: Lemire's multiplication in
    /// place of a division.
    pub(crate) fn random_below(&self, bound: usize) -> usize {
        (self.random() * bound) >> 32
    }

    /// Counts an allocation; `false`, and nothing counted, when [`Self::is_sampled`] has to
    /// decide about it.
    #[inline(always)]
    pub(crate) fn count(&self) -> bool {
        let left = self.countdown.load(Ordering::Relaxed);
        if left > 1 {
            self.countdown.store(left - 1, Ordering::Relaxed);
        }
        left > 1
    }

    /// After [`Self::count`]: whether the allocation is to be guarded, which one in `every` is
    /// on average.
    pub(crate) fn is_sampled(&self, every: impl FnOnce() -> usize) -> bool {
        let left = self.countdown.load(Ordering::Relaxed);
        if left > 1 {
            return false;
        }
        let every = every();
        if every == 0 {
            self.countdown.store(usize::MAX, Ordering::Relaxed);
            return false;
        }
        let next = 1 + self.random_below(every.saturating_mul(2).min(1 << 30) - 1);
        self.countdown.store(next, Ordering::Relaxed);
        // The first draw of a thread only says when.
        left == 1 || every == 1
    }

    /// Takes in a freed block and gives out one that has waited, if the lane is full.
    #[inline(always)]
    pub(crate) fn exchange(&self, block: Waiting) -> Option<Waiting> {
        self.exchange_in(LANE_OF[block.class.get() & LANE_MASK], block)
    }

    /// [`Self::exchange`] of a block of at most [`FEW_BYTES`].
    #[inline(always)]
    pub(crate) fn exchange_few(&self, block: Waiting) -> Option<Waiting> {
        self.exchange_in(FIRST_LANE, block)
    }

    #[inline(always)]
    fn exchange_in(&self, lane: Lane, block: Waiting) -> Option<Waiting> {
        let (start, mask) = (usize::from(lane.start), usize::from(lane.mask));
        let turn = &self.turns[usize::from(lane.index) % LANES.len()];
        let (next, back) = turn.take(mask);
        let oldest = self.places.get(start + next)?;
        let other = self.places.get(start + (next.wrapping_sub(back) & mask))?;
        let out = oldest.load(Ordering::Relaxed);
        oldest.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
        other.store(block.pack(), Ordering::Relaxed);
        Waiting::unpack(out)
    }

    /// Any block, for emptying.
    pub(crate) fn take_any(&self) -> Option<Waiting> {
        let mut places = self.places.iter();
        places.find_map(|place| {
            let block = Waiting::unpack(place.load(Ordering::Relaxed))?;
            place.store(0, Ordering::Relaxed);
            Some(block)
        })
    }

    /// Shows the class of every waiting block; any thread may ask.
    pub(crate) fn for_each_class(&self, mut f: impl FnMut(ClassIndex)) {
        for place in &self.places {
            if let Some(block) = Waiting::unpack(place.load(Ordering::Relaxed)) {
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn empty() -> Quarantine {
        let quarantine = Quarantine {
            places: [const { AtomicUsize::new(0) }; PLACES],
            turns: [const { Turn(AtomicU64::new(0)) }; LANES.len()],
            random: AtomicU64::new(0),
            countdown: AtomicUsize::new(0),
        };
        quarantine.seed(42);
        quarantine
    }

    fn block(number: usize, class: ClassIndex) -> Waiting {
        Waiting {
            addr: (1 << 46) + number * MAX_SMALL_BYTES,
            class,
        }
    }

    #[test]
    fn a_block_comes_back_late_and_once_and_in_no_order() {
        for class in ClassIndex::all() {
            let places = usize::from(LANE_OF[class.get()].mask) + 1;
            let quarantine = empty();
            let mut out = Vec::new();
            for number in 0..2000 {
                let Some(back) = quarantine.exchange(block(number, class)) else {
                    continue;
                };
                let age = number - (back.addr - (1 << 46)) / MAX_SMALL_BYTES;
                assert!(age > places / 2, "{age} of {places}");
                out.push(back.addr);
            }
            assert!(!out.is_sorted() || places == 2, "{places}");
            assert!(quarantine.len() <= places && out.len() >= 2000 - places);
            out.extend(core::iter::from_fn(|| quarantine.take_any()).map(|block| block.addr));
            out.sort_unstable();
            out.dedup();
            assert_eq!((out.len(), quarantine.len()), (2000, 0));
        }
    }

    #[test]
    fn waiting_blocks_are_bounded_in_bytes() {
        let quarantine = empty();
        for class in ClassIndex::all() {
            for number in 0..1000 {
                quarantine.exchange(block(number, class));
            }
        }
        let mut bytes = 0;
        quarantine.for_each_class(|class| bytes += block_bytes()[class.get()] as usize);
        assert!(bytes <= 112 * 1024, "{bytes}");
    }

    #[test]
    fn one_allocation_in_so_many_is_sampled() {
        let is_sampled =
            |quarantine: &Quarantine, every| !quarantine.count() && quarantine.is_sampled(|| every);
        let quarantine = empty();
        let sampled = (0..100_000)
            .filter(|_| is_sampled(&quarantine, 100))
            .count();
        assert!((800..1250).contains(&sampled), "{sampled}");
        let quarantine = empty();
        assert!((0..100).all(|_| is_sampled(&quarantine, 1)));
        assert!(!(0..100).any(|_| is_sampled(&empty(), 0)));
    }
}
