//! Which free blocks of one class can serve as one block of a larger class.
//!
//! Free blocks that lie next to each other are memory like any other, and as bits apart from
//! the blocks they are easy to find. So before the heap grows for a class, a run of free
//! blocks of a smaller class (the *host*) is lent to it as one block (the *guest*):
//!
//! ```text
//! host's bits   0 1 0 1 1 1 1 1 0 1 …        1 = free in the span
//! blocks       |■| |■| | | | | |■| | …       64 bytes each
//!                     ^^^^^^^^^              a guest of 256 bytes: four bits are cleared
//! ```
//!
//! General allocators coalesce neighbours at each free (boundary tags, Knuth 1968, section
//! 2.5); here it happens only when memory is wanted, and costs nothing before.

#[cfg(not(loom))]
use crate::purge;
use crate::size_class::block_size;
use crate::sync::{AtomicU8, Ordering};
#[cfg(not(loom))]
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize};
use crate::units::{CLASS_COUNT, ClassIndex, GRANULE_BYTES};

/// Largest guest: spans start on granules, so larger alignments cannot be promised.
const MOST_GUEST_BYTES: usize = GRANULE_BYTES;
/// Smallest host: one byte for each 32 says what starts there (`guest_table`).
pub(crate) const LEAST_HOST_BYTES: usize = 32;
/// Most host's blocks in a guest: a run lies in one word of bits, so that it is taken and
/// given back by one atomic operation.
const MOST_BLOCKS: usize = 64;

/// How a block of one class fits into blocks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Host's blocks that make a guest.
    pub(crate) blocks: usize,
    /// A guest may start at every so many blocks: the others are not aligned.
    step: usize,
    /// The same as bits of a word.
    aligned: u64,
}

impl Fit {
    /// How `guest` fits into blocks of `host`; `None` when it does not.
    pub(crate) fn new(host: ClassIndex, guest: ClassIndex) -> Option<Self> {
        let (small, large) = (block_size(host), block_size(guest));
        if small >= large || small < LEAST_HOST_BYTES || large > MOST_GUEST_BYTES {
            return None;
        }
        let blocks = large.div_ceil(small);
        // Blocks are aligned to the largest power of two in their size; 64 blocks of the
        // host are aligned to 64 times that of the host's.
        let step = lowest_bit(large) / lowest_bit(small).min(lowest_bit(large));
        if blocks > MOST_BLOCKS || step > 64 {
            return None;
        }
        let aligned = (0..64)
            .step_by(step)
            .fold(0, |mask, index| mask | 1u64 << index);
        Some(Self {
            blocks,
            step,
            aligned,
        })
    }

    /// Runs of so many blocks that may start anywhere.
    #[cfg(loom)]
    pub(crate) fn for_model(blocks: usize) -> Self {
        Self {
            blocks,
            step: 1,
            aligned: u64::MAX,
        }
    }

    /// The lowest run of set bits of `word` that makes a guest, as a mask; 0 if there is none.
    pub(crate) fn find(self, word: u64) -> u64 {
        // After the loop a bit is set where a run of `blocks` begins.
        let (mut starts, mut width) = (word, 1);
        while width < self.blocks && starts != 0 {
            let shift = width.min(self.blocks - width);
            starts &= starts >> shift;
            width += shift;
        }
        starts &= self.aligned;
        if starts == 0 {
            return 0;
        }
        self.run_at(starts.trailing_zeros() as usize)
    }

    /// The bits of a guest that starts at bit `index` of a word.
    pub(crate) fn run_at(self, index: usize) -> u64 {
        (u64::MAX >> (64 - self.blocks)) << index
    }
}

/// What starts at a place of a lent run: 0 for nothing, else 1 + the class of the guest. All
/// zeros is a valid entry.
///
/// Set before a guest is handed out, and cleared before its blocks are free again, when
/// they may become part of another guest.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(transparent))]
pub(crate) struct GuestEntry(AtomicU8);

impl GuestEntry {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Notes that a guest of `class` starts here. Its blocks are the caller's.
    pub(crate) fn put(&self, class: ClassIndex) {
        // Relaxed: whoever looks holds the guest, which is handed out afterwards.
        self.0.store(class.byte() + 1, Ordering::Relaxed);
    }

    /// The class of the guest that starts here, if there is one.
    pub(crate) fn get(&self) -> Option<ClassIndex> {
        // Relaxed: as in `put`; otherwise only good for finding misuse.
        let index = usize::from(self.0.load(Ordering::Relaxed)).checked_sub(1)?;
        (index < CLASS_COUNT).then(|| ClassIndex::new(index))
    }

    /// Forgets the guest, if it is one of `class`. Of several threads that give it back, one
    /// gets `true`.
    pub(crate) fn take(&self, class: ClassIndex) -> bool {
        // Relaxed, both: elects one; the next `put` comes after the bits that are set after
        // this (Release in `Central::give`, Acquire in `Central::lend`).
        let taken =
            self.0
                .compare_exchange(class.byte() + 1, 0, Ordering::Relaxed, Ordering::Relaxed);
        taken.is_ok()
    }
}

/// What the searches of a round have not found in a span: no longer runs either, and none at
/// wider steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Barren {
    round: u32,
    /// Blocks of the shortest run that starts anywhere.
    anywhere: usize,
    /// Blocks and step of the last that had to be aligned.
    aligned: (usize, usize),
}

impl Barren {
    /// Nothing was searched yet.
    pub(crate) const NEW: Self = Self {
        round: 0,
        anywhere: usize::MAX,
        aligned: (usize::MAX, usize::MAX),
    };

    /// Whether a search of `round` for runs of `fit` is in vain.
    pub(crate) fn has_not(&self, round: u32, fit: Fit) -> bool {
        let (blocks, step) = self.aligned;
        let is_barren = self.anywhere <= fit.blocks || (blocks <= fit.blocks && step <= fit.step);
        self.round == round && is_barren
    }

    /// Notes that there is no run of `fit`.
    pub(crate) fn note(&mut self, round: u32, fit: Fit) {
        if self.round != round {
            *self = Self { round, ..Self::NEW };
        }
        if fit.step == 1 {
            self.anywhere = self.anywhere.min(fit.blocks);
        } else {
            self.aligned = (fit.blocks, fit.step);
        }
    }
}

/// What a heap knows of its searches for runs to lend. A *round* lasts until so much was
/// freed that another search is worth its time; what one of a round has not found is not
/// searched again.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Lending {
    round: AtomicU32,
    /// Granules of resident free blocks in spans when the round began, or fewer.
    free: AtomicUsize,
    /// Guest classes for which this round has nothing, one bit each.
    exhausted: AtomicU64,
    /// Tables of guests that were mapped.
    pub(crate) tables: AtomicUsize,
}

#[cfg(not(loom))]
impl Lending {
    pub(crate) const fn new() -> Self {
        Self {
            round: AtomicU32::new(0),
            free: AtomicUsize::new(0),
            exhausted: AtomicU64::new(0),
            tables: AtomicUsize::new(0),
        }
    }

    /// The round in which a guest of `guest` is worth a search in a heap of `committed`
    /// granules, of which `free` granules' worth are free blocks in spans.
    pub(crate) fn round(&self, guest: ClassIndex, committed: usize, free: usize) -> Option<u32> {
        // Relaxed throughout: hints for the policy; two threads that begin a round at the
        // same time begin one twice, and search once more.
        let least = self.free.fetch_min(free, Ordering::Relaxed).min(free);
        if purge::sweep_is_due(committed, free, least) {
            self.free.store(free, Ordering::Relaxed);
            self.exhausted.store(0, Ordering::Relaxed);
            self.round.fetch_add(1, Ordering::Relaxed);
        }
        let exhausted = self.exhausted.load(Ordering::Relaxed) >> guest.get() & 1 == 1;
        let worth = !exhausted && purge::lending_is_due(committed, free);
        worth.then(|| self.round.load(Ordering::Relaxed))
    }

    /// Notes that a search for `guest` found nothing.
    pub(crate) fn note_exhausted(&self, guest: ClassIndex) {
        // Relaxed: as in `round`.
        self.exhausted.fetch_or(1 << guest.get(), Ordering::Relaxed);
    }
}

const fn lowest_bit(value: usize) -> usize {
    value & value.wrapping_neg()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::size_class::{class_of, span_align};

    fn class(bytes: usize) -> ClassIndex {
        class_of(bytes, 1).expect("a small size")
    }

    #[test]
    fn a_guest_fits_and_is_aligned_wherever_it_starts() {
        for host in ClassIndex::all() {
            for guest in ClassIndex::all() {
                let Some(fit) = Fit::new(host, guest) else {
                    continue;
                };
                assert!(fit.blocks * block_size(host) >= block_size(guest));
                assert!((fit.blocks - 1) * block_size(host) < block_size(guest));
                let align = lowest_bit(block_size(guest));
                assert!(align <= span_align(host) * GRANULE_BYTES);
                for word in 0..3 {
                    for index in (0..64).filter(|index| fit.aligned >> index & 1 == 1) {
                        assert_eq!((word * 64 + index) * block_size(host) % align, 0);
                    }
                }
            }
        }
    }

    #[test]
    fn the_lowest_run_is_found() {
        let fit = Fit::new(class(64), class(320)).expect("five of 64 make 320");
        assert_eq!(fit.blocks, 5);
        assert_eq!(fit.find(0b0111_1011_1110), 0b11_1110);
        assert_eq!(fit.find(0b0111_1011_1100), 0);
        assert_eq!(fit.find(u64::MAX << 59), u64::MAX << 59);
        assert_eq!(fit.find(u64::MAX << 60), 0);
        let fit = Fit::new(class(64), class(256)).expect("four of 64 make 256");
        assert_eq!(fit.find(0b1111_1110), 0b1111_0000, "256 bytes are aligned");
    }

    #[test]
    fn found_runs_are_free_and_there_is_none_lower() {
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200 {
            word = word.rotate_left(17).wrapping_mul(0xd134_2543_de82_ef95) | word << 7;
            for (host, guest) in [(32, 64), (48, 320), (64, 1024), (96, 640), (1024, 4096)] {
                let fit = Fit::new(class(host), class(guest)).expect("fits");
                let by_hand = (0..=64 - fit.blocks)
                    .filter(|index| fit.aligned >> index & 1 == 1)
                    .map(|index| fit.run_at(index))
                    .find(|run| word & run == *run);
                assert_eq!(fit.find(word), by_hand.unwrap_or(0));
            }
        }
    }
}
