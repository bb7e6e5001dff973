//! Sizes and index types shared by every layer. No logic beyond conversions.
//!
//! The heap cuts its memory into *granules* of 4 KiB, whatever the size of an OS
//! page is. Only purging looks at the real OS page size, which is read at run time.

/// log2 of [`GRANULE_BYTES`].
pub(crate) const GRANULE_SHIFT: u32 = 12;
/// Bytes in a granule: the unit in which segments are divided.
pub(crate) const GRANULE_BYTES: usize = 1 << GRANULE_SHIFT;
/// log2 of [`SEGMENT_BYTES`].
pub(crate) const SEGMENT_SHIFT: u32 = 22;
/// Bytes in a segment, and its alignment: an address finds its segment by a mask.
pub(crate) const SEGMENT_BYTES: usize = 1 << SEGMENT_SHIFT;
/// Granules in a segment.
pub(crate) const SEGMENT_GRANULES: usize = SEGMENT_BYTES / GRANULE_BYTES;

/// Number of size classes.
pub(crate) const CLASS_COUNT: usize = 57;

/// Index of a size class, `0..CLASS_COUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassIndex(u8);

impl ClassIndex {
    /// The class with this index; indices out of range wrap into it.
    #[inline]
    pub(crate) const fn new(index: usize) -> Self {
        debug_assert!(index < CLASS_COUNT);
        #[expect(clippy::cast_possible_truncation, reason = "CLASS_COUNT is below 256")]
        Self(index as u8)
    }

    /// For indexing tables.
    #[inline]
    pub(crate) const fn get(self) -> usize {
        self.0 as usize
    }

    /// As stored in a byte of a span or of a segment's table.
    #[inline]
    pub(crate) const fn byte(self) -> u8 {
        self.0
    }

    /// All classes, smallest blocks first.
    pub(crate) fn all() -> impl DoubleEndedIterator<Item = Self> + Clone {
        (0..CLASS_COUNT).map(Self::new)
    }
}

/// Identity of the heap of the process ([`crate::process`]).
#[cfg(not(loom))]
pub(crate) const PROCESS_HEAP: u16 = 0;
/// Identity of the hardened heap of the process: above those of heaps as values.
#[cfg(not(loom))]
pub(crate) const HARDENED_HEAP: u16 = u16::MAX;

/// Which magazine the blocks of a granule go to: 1 + the class, or 0 for none. A whole word, so that
/// the 1 is part of an address and no instruction of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MagazineIndex(usize);

impl MagazineIndex {
    /// No magazine: frees take the slow path.
    pub(crate) const NONE: Self = Self(0);

    /// That of `class`.
    #[inline]
    pub(crate) const fn of(class: ClassIndex) -> Self {
        Self(class.0 as usize + 1)
    }

    /// As stored in a byte by [`Self::byte`].
    #[inline]
    pub(crate) const fn from_byte(byte: u8) -> Self {
        debug_assert!(byte as usize <= CLASS_COUNT);
        Self(byte as usize)
    }

    /// For storing in a byte.
    #[expect(clippy::cast_possible_truncation, reason = "at most CLASS_COUNT")]
    pub(crate) const fn byte(self) -> u8 {
        self.0 as u8
    }

    /// For indexing magazines: at most [`CLASS_COUNT`].
    #[inline]
    pub(crate) const fn get(self) -> usize {
        self.0
    }

    /// The class, if there is one.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) const fn class(self) -> Option<ClassIndex> {
        match self.0 {
            0 => None,
            _ => Some(ClassIndex(self.byte() - 1)),
        }
    }
}

/// A run of granules inside one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Index of the first granule in its segment.
    pub(crate) start: usize,
    /// How many granules.
    pub(crate) len: usize,
}

impl Run {
    /// Index just past the last granule.
    pub(crate) const fn end(self) -> usize {
        self.start + self.len
    }
}

/// Granules that cover `bytes`; `None` when that overflows.
#[inline]
pub(crate) const fn granules_for(bytes: usize) -> Option<usize> {
    match bytes.checked_add(GRANULE_BYTES - 1) {
        Some(sum) => Some(sum >> GRANULE_SHIFT),
        None => None,
    }
}

/// Rounds `value` up to a multiple of the power of two `align`; `None` on overflow.
#[inline]
pub(crate) const fn align_up(value: usize, align: usize) -> Option<usize> {
    match value.checked_add(align - 1) {
        Some(sum) => Some(sum & !(align - 1)),
        None => None,
    }
}

/// What is known of a block whose size changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The program had asked for less, and may go on: what the block has beyond the request stays.
    Growth,
    /// It had asked for more, or nobody knows.
    Other,
}

/// Whether a block must be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Anything.
    Any,
    /// Zeroes; memory that is zero already is not written.
    Zero,
}

/// What a free says that its pointer is; only hardened heaps ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A block of this size and alignment.
    Layout(usize, usize),
    /// A block.
    Any,
}
