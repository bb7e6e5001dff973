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

use crate::bitmap::below;
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

/// Every bit, every second, every fourth, … of a word.
const EVERY: [u64; 7] = {
    let mut out = [u64::MAX; 7];
    let mut doublings = 1;
    while doublings < out.len() {
        let (step, mut mask, mut index) = (1 << doublings, 0, 0);
        while index < 64 {
            mask |= 1 << index;
            index += step;
        }
        out[doublings] = mask;
        doublings += 1;
    }
    out
};

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
        let doublings = large
            .trailing_zeros()
            .saturating_sub(small.trailing_zeros());
        let aligned = *EVERY.get(doublings as usize)?;
        (blocks <= MOST_BLOCKS).then_some(Self {
            blocks,
            step: 1 << doublings,
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

    /// Up to `most` runs of set bits of `word` that make guests, the lowest first and no two with a
    /// bit in common: where they start. Fewer than `most` only if there are no more.
    pub(crate) fn find(self, word: u64, most: usize) -> u64 {
        // After the loop a bit is set where a run of `blocks` begins.
        let (mut starts, mut width) = (word, 1);
        while width < self.blocks && starts != 0 {
            let shift = width.min(self.blocks - width);
            starts &= starts >> shift;
            width += shift;
        }
        starts &= self.aligned;
        let (mut found, mut left) = (0, most);
        while starts != 0 && left > 0 {
            let lowest = starts & starts.wrapping_neg();
            found |= lowest;
            left -= 1;
            // Those that start before its end have bits in common with it.
            starts &= !below(lowest.trailing_zeros() as usize + self.blocks);
        }
        found
    }

    /// The bits of the guests that start at the bits `starts`, as [`Self::find`] gives them.
    pub(crate) fn runs_at(self, starts: u64) -> u64 {
        // No two have a bit in common, so that nothing is carried.
        starts.wrapping_mul(self.run_at(0))
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

    /// Reads it, so that it is at hand soon.
    pub(crate) fn touch(&self) {
        // Relaxed: the value is not used.
        core::hint::black_box(self.0.load(Ordering::Relaxed));
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
    /// Where the search for guests of each class goes on.
    cursors: [Cursor; CLASS_COUNT],
    /// Tables of guests that were mapped.
    pub(crate) tables: AtomicUsize,
}

/// A place in the search of a round for guests of one class, which visits hosts by falling
/// class, their spans in the order of the list, and the words of a span.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Index of the class of the host.
    pub(crate) host: usize,
    /// Address of a span that was in its list, or 0 for the first there.
    pub(crate) span: usize,
    /// Index of the word in the span.
    pub(crate) word: usize,
}

/// A [`Place`] and its round. The two fields may be of two places, when two threads search at the
/// same time, and the span another's by now: the place is a hint, and who goes on there checks it
/// under the lock of the host (`Central::lend`).
#[cfg(not(loom))]
#[derive(Debug)]
struct Cursor {
    /// The round, the word and the host: 32, 16 and 16 bits.
    at: AtomicU64,
    span: AtomicUsize,
}

#[cfg(not(loom))]
impl Cursor {
    const fn new() -> Self {
        Self {
            at: AtomicU64::new(CLASS_COUNT as u64 - 1),
            span: AtomicUsize::new(0),
        }
    }

    /// The place in `round`.
    fn get(&self, round: u32) -> Place {
        // Relaxed, both: hints, as the type says.
        let at = self.at.load(Ordering::Relaxed);
        if at >> 32 != u64::from(round) {
            return Place {
                host: CLASS_COUNT - 1,
                span: 0,
                word: 0,
            };
        }
        Place {
            host: (at & 0xffff) as usize,
            span: self.span.load(Ordering::Relaxed),
            word: (at >> 16 & 0xffff) as usize,
        }
    }

    fn set(&self, round: u32, place: Place) {
        let inner = (place.word << 16 | place.host) as u64;
        // Relaxed, both: as in `get`.
        self.span.store(place.span, Ordering::Relaxed);
        self.at
            .store(u64::from(round) << 32 | inner, Ordering::Relaxed);
    }
}

#[cfg(not(loom))]
impl Lending {
    pub(crate) const fn new() -> Self {
        Self {
            round: AtomicU32::new(0),
            free: AtomicUsize::new(0),
            exhausted: AtomicU64::new(0),
            cursors: [const { Cursor::new() }; CLASS_COUNT],
            tables: AtomicUsize::new(0),
        }
    }

    /// The round in which a guest of `guest` is worth a search in a heap of `committed`
    /// granules, of which `free` granules' worth are free blocks in spans.
    pub(crate) fn round(&self, guest: ClassIndex, committed: usize, free: usize) -> Option<u32> {
        // Relaxed throughout: hints for the policy; two threads that begin a round at the
        // same time begin one twice, and search once more.
        let least = self.free.fetch_min(free, Ordering::Relaxed).min(free);
        if purge::sweep_is_due(committed, free, least, 0) {
            self.free.store(free, Ordering::Relaxed);
            self.exhausted.store(0, Ordering::Relaxed);
            self.round.fetch_add(1, Ordering::Relaxed);
        }
        let exhausted = self.exhausted.load(Ordering::Relaxed) >> guest.get() & 1 == 1;
        let worth = !exhausted && purge::lending_is_due(committed, free);
        worth.then(|| self.round.load(Ordering::Relaxed))
    }

    /// Where the search of `round` for guests of `guest` goes on.
    pub(crate) fn place(&self, guest: ClassIndex, round: u32) -> Option<Place> {
        Some(self.cursors.get(guest.get())?.get(round))
    }

    /// Notes where it stopped.
    pub(crate) fn note_place(&self, guest: ClassIndex, round: u32, place: Place) {
        if let Some(cursor) = self.cursors.get(guest.get()) {
            cursor.set(round, place);
        }
    }

    /// Notes that a search for `guest` found nothing.
    pub(crate) fn note_exhausted(&self, guest: ClassIndex) {
        // Relaxed: as in `round`.
        self.exhausted.fetch_or(1 << guest.get(), Ordering::Relaxed);
    }
}

/// Guests that were given back and are not counted yet.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(crate) struct Returned {
    /// How many, of all hosts.
    pub(crate) guests: usize,
    /// The host of the last.
    pub(crate) host: Option<ClassIndex>,
    /// Blocks of that host.
    pub(crate) blocks: usize,
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
                let align = 1 << block_size(guest).trailing_zeros();
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
    fn the_lowest_runs_are_found() {
        let fit = Fit::new(class(64), class(320)).expect("five of 64 make 320");
        assert_eq!(fit.blocks, 5);
        assert_eq!(fit.find(0b0111_1011_1110, 9), 0b10);
        assert_eq!(fit.find(0b0111_1011_1100, 9), 0);
        assert_eq!(fit.find(u64::MAX << 59, 9), 1 << 59);
        assert_eq!(fit.find(u64::MAX << 60, 9), 0);
        assert_eq!(fit.find(u64::MAX << 50, 9), 1 << 50 | 1 << 55);
        assert_eq!(fit.find(u64::MAX << 50, 1), 1 << 50);
        let fit = Fit::new(class(64), class(256)).expect("four of 64 make 256");
        assert_eq!(fit.find(0b1111_1110, 9), 0b1_0000, "256 bytes are aligned");
    }

    #[test]
    fn found_runs_are_free_and_apart_and_there_is_none_lower() {
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200 {
            word = word.rotate_left(17).wrapping_mul(0xd134_2543_de82_ef95) | word << 7;
            for (host, guest) in [(32, 64), (48, 320), (64, 1024), (96, 640), (1024, 4096)] {
                let fit = Fit::new(class(host), class(guest)).expect("fits");
                let (mut rest, mut by_hand) = (word, 0);
                for index in (0..=64 - fit.blocks).filter(|i| fit.aligned >> i & 1 == 1) {
                    let run = fit.run_at(index);
                    if rest & run == run {
                        rest &= !run;
                        by_hand |= 1 << index;
                    }
                }
                assert_eq!(fit.find(word, 64), by_hand);
                for most in 0..by_hand.count_ones() {
                    let found = fit.find(word, most as usize);
                    assert_eq!(fit.runs_at(found) & !word, 0);
                    assert_eq!(found.count_ones(), most);
                    let lowest = most > 0 && by_hand & !found != 0;
                    assert!(
                        !lowest || (by_hand & !found).trailing_zeros() > 63 - found.leading_zeros()
                    );
                }
            }
        }
    }

    /// The proof of decision 029 in numbers. After a whole sweep each resident OS page of a span has a
    /// block that is in use. A class has no more pages than its blocks in use and its guests ever filled
    /// at once, `most` of the live bytes; to keep them it needs the share `pins` of the live bytes, one
    /// block a page (or in two, across their border). The classes that pin for least share what is live.
    #[test]
    fn what_spans_hold_after_a_sweep_is_at_most_thirty_times_what_lives() {
        let ratio = |part: usize, whole: usize| part as f64 / whole as f64;
        let of = |class| {
            let size = block_size(class);
            let pages = match (size % GRANULE_BYTES, GRANULE_BYTES % size) {
                (0, _) => size / GRANULE_BYTES,
                (_, 0) => 1,
                _ => size.div_ceil(GRANULE_BYTES) + 1,
            };
            let guests = ClassIndex::all().filter_map(|guest| {
                let fit = Fit::new(class, guest)?;
                Some(ratio(fit.blocks * size, block_size(guest)))
            });
            let most = guests.fold(1.0, f64::max);
            (ratio(size, pages * GRANULE_BYTES), most)
        };
        let mut classes: Vec<(f64, f64)> = ClassIndex::all().map(of).collect();
        classes.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (mut live, mut held) = (1.0, 0.0);
        for (pins, most) in classes {
            let pages = f64::min(most, live / pins);
            held += pages;
            live -= pages * pins;
        }
        assert!(held <= 30.0, "{held}");
    }
}
