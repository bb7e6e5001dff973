//! A span: a run of granules cut into blocks of one size class, with one bit a block
//! that says whether the block is free. The bits live apart from the blocks.
//!
//! ```text
//! words    [ 63 … 0 ][ 127 … 64 ] …          1 = free in the span
//!               |          |                 0 = outside: in a thread cache, or in use
//! blocks   | 0 | 1 | 2 | … | 63 | 64 | …      start + index * block size
//! granules |       0       |      1     | …   fresh bit: not resident, reads as zero
//! ```
//!
//! Who may do what:
//!
//! | operation | who |
//! |---|---|
//! | set bits (`give`) | any thread that holds the blocks, without a lock |
//! | clear bits (`take`) | the holder of the class lock |
//! | `links`, `hint`, writing `listed`, changing `kind` | the holder of the class lock; of the page-heap lock while `kind` is not a class |
//! | read anything atomic | any thread |
//!
//! Invariants:
//! - S1: a bit is set exactly if its block is outside no longer; bits beyond the last
//!   block are never set.
//! - S2: only the holder of the class lock clears bits, so bits that it has seen stay set
//!   until it clears them.
//! - S3: a span with a free block is listed in its class, or a thread that set a bit is
//!   about to list it.
//! - S4: `Span`s and their words are never unmapped while their heap lives (type-stable),
//!   so a thread may read a hint from a span that was reused meanwhile.
//! - S5: granules that a sweep gave back (`swept`) are fresh.
//!
//! Between threads this is all there is: `give` is a `SeqCst` `fetch_or` followed by
//! a `SeqCst` load of `listed`; the taker that finds a span exhausted does a `SeqCst` store
//! to `listed` followed by `SeqCst` loads of the words. One of the two sees the other
//! (Dekker): either the giver sees `false` and lists the span, or the taker sees the bit
//! and keeps it listed.

use core::ptr;

use crate::bitmap::below;
use crate::lend::Barren;
use crate::size_class::{granules_of, span_blocks};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering, UnsafeCell};
#[cfg(not(loom))]
use crate::units::MagazineIndex;
use crate::units::{CLASS_COUNT, ClassIndex};

/// Words of bits inside a `Span`; classes with more blocks have theirs in the segment.
pub(crate) const INLINE_WORDS: usize = 8;
/// Most words that any class needs (8-byte blocks in 64 KiB).
pub(crate) const MAX_WORDS: usize = 128;

/// What a span is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not in use, or on its way between a class and the page heap.
    Unused,
    /// Cut into blocks of a class.
    Blocks(ClassIndex),
    /// The same, and runs of its blocks were lent (`lend`): the label of its granules. The
    /// span itself says `Blocks`.
    Lent(ClassIndex),
    /// One allocation of whole granules.
    Whole,
    /// The same, freed and kept by a thread: the label of its first granule.
    Cached,
}

const KIND_UNUSED: u8 = 0;
const KIND_WHOLE: u8 = u8::MAX;
const KIND_CACHED: u8 = u8::MAX - 1;
#[expect(clippy::cast_possible_truncation, reason = "asserted below")]
const FIRST_LENT: u8 = CLASS_COUNT as u8 + 1;
const _: () = assert!(2 * CLASS_COUNT < KIND_CACHED as usize);

impl Kind {
    #[inline]
    pub(crate) const fn pack(self) -> u8 {
        match self {
            Self::Unused => KIND_UNUSED,
            Self::Blocks(class) => class.byte() + 1,
            Self::Lent(class) => class.byte() + FIRST_LENT,
            Self::Whole => KIND_WHOLE,
            Self::Cached => KIND_CACHED,
        }
    }

    /// The magazine of a block there, where the kind alone tells it.
    #[cfg(not(loom))]
    pub(crate) fn magazine(self) -> MagazineIndex {
        match self {
            Self::Blocks(class) => MagazineIndex::of(class),
            Self::Unused | Self::Lent(_) | Self::Whole | Self::Cached => MagazineIndex::NONE,
        }
    }

    pub(crate) fn unpack(byte: u8) -> Self {
        match byte {
            KIND_WHOLE => Self::Whole,
            KIND_CACHED => Self::Cached,
            byte if byte != KIND_UNUSED && usize::from(byte) <= CLASS_COUNT => {
                Self::Blocks(ClassIndex::new(usize::from(byte) - 1))
            }
            byte if byte >= FIRST_LENT && usize::from(byte - FIRST_LENT) < CLASS_COUNT => {
                Self::Lent(ClassIndex::new(usize::from(byte - FIRST_LENT)))
            }
            _ => Self::Unused,
        }
    }
}

/// Fields that only the holder of the class lock touches.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) next: *const Span,
    pub(crate) prev: *const Span,
    /// Word at which the next search for free blocks starts.
    pub(crate) hint: usize,
    /// Runs to lend that were searched and not found.
    pub(crate) barren: Barren,
}

impl Links {
    pub(crate) const UNLISTED: Self = Self {
        next: ptr::null(),
        prev: ptr::null(),
        hint: 0,
        barren: Barren::NEW,
    };
}

/// Most granules in a span of blocks.
const MAX_GRANULES: usize = 32;
const _: () = assert!(granules_of(usize::MAX) <= MAX_GRANULES);

/// See the module. All zeros is a valid, unused span.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Span {
    kind: AtomicU8,
    pub(crate) listed: AtomicBool,
    /// Granules in the run.
    granules: AtomicUsize,
    /// Address of the first byte.
    start: AtomicUsize,
    words: AtomicPtr<AtomicU64>,
    /// One bit a granule: nothing has touched it since the system last zeroed it. In the upper half,
    /// which granules a sweep gave back, as long as they are fresh.
    fresh: AtomicU64,
    links: UnsafeCell<Links>,
    inline: [AtomicU64; INLINE_WORDS],
}

// SAFETY: all fields but `links` are atomic, and `links` is touched only under the class
// lock (module table), so by one thread at a time.
unsafe impl Sync for Span {}
// SAFETY: the pointers in `links` are to spans, which any thread may use (above).
unsafe impl Send for Span {}

impl Span {
    /// What the span is used for.
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        // Acquire: pairs with the Release in `set_kind`, so that the fields written
        // before are seen.
        Kind::unpack(self.kind.load(Ordering::Acquire))
    }

    /// Changes the use. The caller holds the lock that the module's table names.
    pub(crate) fn set_kind(&self, kind: Kind) {
        // Release: pairs with the Acquire in `kind`.
        self.kind.store(kind.pack(), Ordering::Release);
    }

    /// Address of the first byte. Stable while the caller holds a block of the span.
    #[inline]
    pub(crate) fn start(&self) -> usize {
        // Relaxed: written before the span's blocks are handed out, and the hand-over of
        // the block orders it for whoever holds one.
        self.start.load(Ordering::Relaxed)
    }

    /// Granules in the span. Stable while the caller holds a block of the span.
    #[inline]
    pub(crate) fn granules(&self) -> usize {
        // Relaxed: as in `start`.
        self.granules.load(Ordering::Relaxed)
    }

    /// Granules that are not resident, one bit each (spans of blocks only).
    pub(crate) fn fresh(&self) -> u64 {
        // Relaxed: changed and read under the class lock; statistics may read it stale.
        self.fresh.load(Ordering::Relaxed) & below(MAX_GRANULES)
    }

    /// Those of [`Self::fresh`] that a sweep gave back.
    pub(crate) fn swept(&self) -> u64 {
        // Relaxed: as in `fresh`.
        self.fresh.load(Ordering::Relaxed) >> MAX_GRANULES
    }

    /// Sets [`Self::fresh`] and [`Self::swept`]; the caller holds the class lock.
    pub(crate) fn set_fresh(&self, fresh: u64, swept: u64) {
        // Relaxed: as in `fresh`.
        self.fresh
            .store(fresh | swept << MAX_GRANULES, Ordering::Relaxed);
    }

    /// Describes a run of granules; the caller holds the page-heap lock.
    pub(crate) fn describe(&self, start: usize, granules: usize) {
        // Relaxed: `set_kind` publishes.
        self.start.store(start, Ordering::Relaxed);
        self.granules.store(granules, Ordering::Relaxed);
    }

    /// Makes the span one of `class` with every block free. It is not listed yet.
    ///
    /// # Safety
    ///
    /// - The caller alone owns the span, and its kind is `Unused`.
    /// - `words` points to as many words as `class` needs, which live as long as the
    ///   span (S4).
    pub(crate) unsafe fn open(&self, class: ClassIndex, words: *mut AtomicU64, fresh: u64) {
        // Relaxed throughout: published by `set_kind` below and by the class lock.
        self.words.store(words, Ordering::Relaxed);
        self.fresh.store(fresh, Ordering::Relaxed);
        self.listed.store(false, Ordering::Relaxed);
        self.links.with_mut(|links| {
            // SAFETY: the span is not listed and owned by the caller, so nobody else
            // touches the links.
            unsafe { *links = Links::UNLISTED };
        });
        // SAFETY: by contract `words` has as many words as the class needs.
        let words = unsafe { words_of(words, class) };
        for (index, word) in words.iter().enumerate() {
            word.store(full_word(class, index), Ordering::Relaxed);
        }
        self.set_kind(Kind::Blocks(class));
    }

    /// The words of the span's bits.
    ///
    /// # Safety
    ///
    /// The span was opened for `class`, and it is still: the caller holds a block of it,
    /// or the class lock and has seen its kind. The slice itself stays valid (S4).
    #[inline]
    pub(crate) unsafe fn words(&self, class: ClassIndex) -> &[AtomicU64] {
        // Relaxed: as in `start`.
        // SAFETY: by contract the pointer is the one given to `open` for this class.
        unsafe { words_of(self.words.load(Ordering::Relaxed), class) }
    }

    /// Runs `f` on the fields under the class lock.
    ///
    /// # Safety
    ///
    /// The caller holds the lock of the span's class, or owns the span alone, and `f`
    /// does not come back here for the same span.
    #[inline]
    pub(crate) unsafe fn with_links<R>(&self, f: impl FnOnce(&mut Links) -> R) -> R {
        // SAFETY: by contract nobody else touches the links meanwhile.
        self.links.with_mut(|links| f(unsafe { &mut *links }))
    }

    /// The words inside the span.
    #[cfg(not(loom))]
    pub(crate) fn inline_words(&self) -> *mut AtomicU64 {
        self.inline.as_ptr().cast_mut()
    }

    #[cfg(loom)]
    pub(crate) fn for_model() -> Self {
        Self {
            kind: AtomicU8::new(KIND_UNUSED),
            listed: AtomicBool::new(false),
            granules: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            words: AtomicPtr::new(ptr::null_mut()),
            fresh: AtomicU64::new(0),
            links: UnsafeCell::new(Links::UNLISTED),
            inline: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// # Safety
///
/// `words` points to as many live words as `class` needs.
#[inline]
unsafe fn words_of<'a>(words: *mut AtomicU64, class: ClassIndex) -> &'a [AtomicU64] {
    // SAFETY: by contract.
    unsafe { core::slice::from_raw_parts(words, word_count(class)) }
}

/// Words of bits that a span of `class` needs.
#[inline]
pub(crate) fn word_count(class: ClassIndex) -> usize {
    span_blocks(class).div_ceil(64)
}

/// Word `index` of a span of `class` with every block free.
#[inline]
pub(crate) fn full_word(class: ClassIndex, index: usize) -> u64 {
    below(span_blocks(class).saturating_sub(index * 64))
}

/// Whether any block is free in `words`.
#[inline]
pub(crate) fn any_free(words: &[AtomicU64]) -> bool {
    // SeqCst: the taker's side of the Dekker pair in the module text.
    words.iter().any(|word| word.load(Ordering::SeqCst) != 0)
}

/// Whether every block is free in the `words` of a span of `class`.
#[inline]
pub(crate) fn all_free(words: &[AtomicU64], class: ClassIndex) -> bool {
    // Acquire: who reuses the memory must come after those who freed it in `give`.
    let mut words = words.iter().enumerate().rev();
    words.all(|(index, word)| word.load(Ordering::Acquire) == full_word(class, index))
}

/// How many blocks are free in `words`.
pub(crate) fn count_free(words: &[AtomicU64]) -> usize {
    // Relaxed: a number for statistics.
    words
        .iter()
        .map(|word| word.load(Ordering::Relaxed).count_ones() as usize)
        .sum()
}

const _: () = assert!(64 * 1024 / 8 / 64 == MAX_WORDS);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_packing() {
        let classes = ClassIndex::all().map(Kind::Blocks);
        let lent = ClassIndex::all().map(Kind::Lent);
        for kind in classes
            .chain(lent)
            .chain([Kind::Unused, Kind::Whole, Kind::Cached])
        {
            assert_eq!(Kind::unpack(kind.pack()), kind);
        }
        assert_eq!(Kind::unpack(200), Kind::Unused);
    }

    #[test]
    fn full_words_have_a_bit_for_each_block() {
        for class in ClassIndex::all() {
            assert!(word_count(class) <= MAX_WORDS);
            let bits: u32 = (0..word_count(class))
                .map(|i| full_word(class, i).count_ones())
                .sum();
            assert_eq!(bits as usize, span_blocks(class));
        }
    }
}
