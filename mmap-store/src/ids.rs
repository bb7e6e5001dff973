//! Names of things in the file: pages, transactions, runs of pages.

use core::fmt;

/// Bytes of a page of the store's file. The operating system's page may be larger.
pub const PAGE_BYTES: usize = 4096;

/// [`PAGE_BYTES`] as a file offset.
pub(crate) const PAGE_BYTES_U64: u64 = PAGE_BYTES as u64;

/// The first page that is not a meta slot: pages 0 and 1 hold one slot each.
pub(crate) const FIRST_PAGE: u32 = 2;

/// The number of the state before any transaction.
pub(crate) const FIRST_TXN: u64 = 1;

/// Set in the number of a page that so far exists in the memory of a write transaction
/// only. No page of a file has it, which bounds a file to 2³¹ pages, 8 TiB.
pub(crate) const DIRTY_BIT: u32 = 1 << 31;

/// Longest key, in bytes: with its place in a node it takes about half a page.
pub const MAX_KEY_BYTES: usize = 2048;

/// Values above this go to pages of their own, so that a leaf holds at least two entries
/// of short keys.
pub(crate) const INLINE_BYTES: usize = 1536;

/// Key and value of an entry in a leaf are no longer together.
pub(crate) const ENTRY_BYTES: usize = PAGE_BYTES / 2 + 512;

/// Values lie in leaves up to this alignment, a cache line: above it the bytes between
/// them would be more than those in pages of their own.
pub(crate) const LEAF_ALIGNMENT_BYTES: usize = 64;

/// Numbers that only grow, read from a file, start below this: what is added to them in
/// the life of a store cannot overflow.
pub(crate) const MOST_COUNT: u64 = 1 << 62;

/// One page's bytes.
pub(crate) type PageBuf = [u8; PAGE_BYTES];

/// Number of a page in the store's file; its offset is the number times [`PAGE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    pub(crate) first: u32,
    pub(crate) pages: u32,
}

impl Extent {
    /// The first page after the run.
    pub(crate) fn end(self) -> u32 {
        self.first.saturating_add(self.pages)
    }
}

/// Where a page is and what its CRC-32C must be: how a parent names a child.
///
/// Page 0 is a meta slot, so it stands for "no page": the root of an empty tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) page: u32,
    pub(crate) crc: u32,
}

impl Child {
    /// The root of an empty tree.
    pub(crate) const NONE: Self = Self { page: 0, crc: 0 };

    pub(crate) fn is_none(self) -> bool {
        self.page == 0
    }

    /// The index in the transaction's memory, if the page is not in the file yet.
    pub(crate) fn dirty_index(self) -> Option<usize> {
        (self.page & DIRTY_BIT != 0).then_some((self.page & !DIRTY_BIT) as usize)
    }
}

/// How many pages `bytes` bytes take.
pub(crate) fn pages_for(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES_U64)
}

/// Where values start: at multiples of a power of two, from 1 to [`PAGE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alignment {
    shift: u8,
}

impl Alignment {
    /// Anywhere.
    pub(crate) const NONE: Self = Self { shift: 0 };

    /// `None` if `bytes` is no such power of two.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let fits = bytes.is_power_of_two() && bytes <= PAGE_BYTES;
        let shift = u8::try_from(bytes.trailing_zeros()).ok()?;
        fits.then_some(Self { shift })
    }

    /// `None` if two to the power of `shift` is too much.
    pub(crate) fn from_shift(shift: u8) -> Option<Self> {
        (1_usize.checked_shl(shift.into())? <= PAGE_BYTES).then_some(Self { shift })
    }

    /// Whether values lie in pages of their own for its sake.
    pub(crate) fn is_outside(self) -> bool {
        self.bytes() > LEAF_ALIGNMENT_BYTES
    }

    /// What leaves do of it: nothing if no value lies in one.
    pub(crate) fn in_leaf(self) -> Self {
        if self.is_outside() { Self::NONE } else { self }
    }

    pub(crate) fn shift(self) -> u8 {
        self.shift
    }

    pub(crate) fn bytes(self) -> usize {
        1 << self.shift
    }
}
