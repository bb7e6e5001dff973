//! What a driver may do to a heap.
//!
//! An [`Op`] holds no addresses and no absolute block numbers: it says "the
//! newest block" or "a byte more than the seventh size class", and the driver
//! resolves that against the heap as it is. So every sequence of operations is
//! a legal program, shrinking never makes one illegal, and a corpus survives a
//! change of the size-class table.
//!
//! Runs (`count`) are in the operation itself: the rare paths of a heap are
//! those at the end of a magazine or of a span, some hundred blocks away, and
//! a fuzzer should reach them with a handful of bytes.

use core::alloc::Layout;

use arbitrary::Arbitrary;

/// One step of a program for a heap.
#[derive(Clone, Debug, Arbitrary)]
pub enum Op {
    /// Allocates `count` blocks of one layout.
    Alloc {
        /// Which handle serves it.
        via: Via,
        /// What is asked for.
        shape: Shape,
        /// How often.
        count: Count,
    },
    /// Allocates `count` zeroed blocks of one layout.
    AllocZeroed {
        /// Which handle serves it.
        via: Via,
        /// What is asked for.
        shape: Shape,
        /// How often.
        count: Count,
    },
    /// Changes the size of one block.
    Realloc {
        /// Which handle serves it.
        via: Via,
        /// The block.
        pick: Pick,
        /// Its new size.
        resize: Resize,
    },
    /// Frees `count` blocks, each chosen by `pick`.
    Free {
        /// Which handle serves it; often another than the allocating one.
        via: Via,
        /// The blocks.
        pick: Pick,
        /// How many.
        count: Count,
    },
    /// Compares one block's content with what was written there.
    Inspect {
        /// The block.
        pick: Pick,
    },
    /// Empties a cache into the heap.
    Flush {
        /// The cache.
        cache: CacheSlot,
    },
    /// Drops a cache, as a thread's exit does, and opens another.
    Reopen {
        /// The cache.
        cache: CacheSlot,
    },
    /// Gives memory back to the operating system.
    Trim,
    /// Compares the statistics with the oracle.
    CheckStats,
    /// Lets the heap check its own invariants.
    Validate,
}

/// Caches that a driver keeps open; they stand for threads.
pub const CACHE_SLOTS: usize = 4;

/// Number of a cache, taken modulo [`CACHE_SLOTS`].
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct CacheSlot(pub u8);

impl CacheSlot {
    /// The slot's place in an array of [`CACHE_SLOTS`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0) % CACHE_SLOTS
    }
}

/// The handle through which an operation reaches the heap.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Via {
    /// The heap itself.
    Heap,
    /// One of the caches.
    Cache(CacheSlot),
}

/// Length of a run, skewed to one.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Count {
    /// A single block.
    One,
    /// Up to 16 blocks.
    Few(u8),
    /// Up to 512 blocks: more than a magazine holds.
    Many(u16),
}

impl Count {
    /// The number, at least one.
    #[must_use]
    pub fn get(self) -> usize {
        match self {
            Self::One => 1,
            Self::Few(n) => 1 + usize::from(n) % 16,
            Self::Many(n) => 1 + usize::from(n) % 512,
        }
    }
}

/// Chooses one of the live blocks.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Pick {
    /// The one allocated first.
    Oldest,
    /// The one allocated last.
    Newest,
    /// The `n`-th in order of age, modulo their number.
    Nth(u16),
}

impl Pick {
    /// Resolves the choice among `len` blocks in order of age.
    #[must_use]
    pub fn index(self, len: usize) -> Option<usize> {
        let last = len.checked_sub(1)?;
        Some(match self {
            Self::Oldest => 0,
            Self::Newest => last,
            Self::Nth(n) => usize::from(n) % len,
        })
    }
}

/// One less, exactly, or one more than a number where something changes.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Edge {
    /// One less.
    Below,
    /// The number itself.
    At,
    /// One more.
    Above,
}

impl Edge {
    fn of(self, size: usize) -> usize {
        match self {
            Self::Below => size.saturating_sub(1),
            Self::At => size,
            Self::Above => size.saturating_add(1),
        }
    }
}

/// A size, skewed to where an allocator's decisions change.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Size {
    /// 0 to 255 bytes.
    Tiny(u8),
    /// Around the block size of a class.
    Class(u8, Edge),
    /// Around a power of two, up to 4 MiB.
    PowerOfTwo(u8, Edge),
    /// 32 KiB to 1 MiB, around whole KiB.
    Medium(u16, Edge),
    /// 1 MiB to 5 MiB, around multiples of 64 KiB.
    Big(u8, Edge),
    /// More than any address space holds.
    Huge(u8),
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// No 64-bit processor maps so many bytes for a program: 52 address bits are
/// the most that aarch64 and x86-64 translate.
const BEYOND_ADDRESS_SPACE: usize = 1 << 53;

/// The largest size that a [`Layout`] of alignment one has.
const LARGEST: usize = isize::MAX.unsigned_abs();

impl Size {
    /// Resolves the size; `classes` holds the block sizes of the heap.
    #[must_use]
    pub fn bytes(self, classes: &[usize]) -> usize {
        match self {
            Self::Tiny(n) => usize::from(n),
            Self::Class(n, edge) => {
                let Some(last) = classes.len().checked_sub(1) else {
                    return edge.of(16 << (n % 10));
                };
                edge.of(classes[usize::from(n) % (last + 1)])
            }
            Self::PowerOfTwo(n, edge) => edge.of(1 << (n % 23)),
            Self::Medium(n, edge) => edge.of((32 + usize::from(n) % 993) * KIB),
            Self::Big(n, edge) => edge.of(MIB + usize::from(n % 65) * (64 * KIB)),
            Self::Huge(n) => {
                let room = LARGEST - BEYOND_ADDRESS_SPACE;
                BEYOND_ADDRESS_SPACE + room / 255 * usize::from(n)
            }
        }
    }
}

/// Whether no heap can serve a layout of this size.
#[must_use]
pub fn is_impossible(size: usize) -> bool {
    size >= BEYOND_ADDRESS_SPACE
}

/// An alignment, skewed to what programs ask for.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Align {
    /// 1: strings and byte buffers.
    Byte,
    /// 8: most structures.
    Word,
    /// 16: what `malloc` promises.
    Sixteen,
    /// 1 to 4096.
    UpToOsPage(u8),
    /// 1 to 4 MiB: more than a segment may be aligned to.
    Wide(u8),
}

impl Align {
    /// The alignment in bytes, a power of two.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 8,
            Self::Sixteen => 16,
            Self::UpToOsPage(n) => 1 << (n % 13),
            Self::Wide(n) => 1 << (n % 23),
        }
    }
}

/// A size and an alignment.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Shape {
    /// The size.
    pub size: Size,
    /// The alignment.
    pub align: Align,
}

impl Shape {
    /// Resolves the layout; `classes` holds the block sizes of the heap.
    #[must_use]
    pub fn layout(self, classes: &[usize]) -> Layout {
        layout_of(self.size.bytes(classes), self.align.bytes())
    }
}

/// The layout of `size` and `align`, or the largest one of that alignment.
///
/// # Panics
///
/// Panics when `align` is not a power of two.
#[must_use]
pub fn layout_of(size: usize, align: usize) -> Layout {
    let largest = LARGEST - (align - 1);
    Layout::from_size_align(size.min(largest), align).expect("a power of two, and a size that fits")
}

/// A new size for a block.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Resize {
    /// A size of its own, in whatever class.
    To(Size),
    /// Some bytes more, often in the same block.
    Grow(u8),
    /// Some bytes less, often in the same block.
    Shrink(u8),
    /// As a growing vector does.
    Double,
    /// As `shrink_to_fit` does.
    Halve,
}

impl Resize {
    /// Resolves the new size of a block that has `old` bytes.
    #[must_use]
    pub fn bytes(self, old: usize, classes: &[usize]) -> usize {
        match self {
            Self::To(size) => size.bytes(classes),
            Self::Grow(n) => old.saturating_add(usize::from(n)),
            Self::Shrink(n) => old.saturating_sub(usize::from(n)),
            Self::Double => old.saturating_mul(2),
            Self::Halve => old / 2,
        }
    }
}
