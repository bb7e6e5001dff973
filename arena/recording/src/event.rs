//! One event and its bytes.

use crate::bytes::{MAX_VARINT_BYTES, Sink, Source, unzigzag, zigzag};

/// Most bytes of an event: kind, gap, alignment, size, address.
pub(crate) const MAX_EVENT_BYTES: usize = 32;

const _: () = assert!(MAX_EVENT_BYTES == 2 + 3 * MAX_VARINT_BYTES);

/// Bits of the first byte that say which kind it is; the others are the gap.
const KIND_BITS: u32 = 3;

/// The gap that says that the true one, less this, follows.
const LONG_GAP: u64 = 31;

/// A block, by the sixteenth of its address: the C library aligns all blocks to 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(u64);

impl Block {
    /// Names the block at an address.
    #[must_use]
    pub const fn at(address: u64) -> Self {
        Self(address >> 4)
    }

    /// Returns the number that stands for the block: its address divided by 16.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What a thread asked of the allocator.
///
/// A change of size is two events: the block is given up in the first, and another thread
/// may get its place before the second says where the content is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `malloc`.
    Allocate {
        /// What was given.
        block: Block,
        /// The bytes asked for.
        size: u64,
    },
    /// `calloc`.
    AllocateZeroed {
        /// What was given.
        block: Block,
        /// The bytes asked for.
        size: u64,
    },
    /// `aligned_alloc` and its relatives.
    AllocateAligned {
        /// What was given.
        block: Block,
        /// The bytes asked for.
        size: u64,
        /// The alignment asked for is two to the power of this.
        align_log2: u8,
    },
    /// `free`.
    Free {
        /// What was given back.
        block: Block,
    },
    /// `realloc` was called.
    ReallocBegin {
        /// The block as it was.
        block: Block,
    },
    /// The thread's last `realloc` has moved the block, or has left it where it was.
    ReallocEnd {
        /// The block as it is.
        block: Block,
        /// The bytes asked for.
        size: u64,
    },
    /// The thread's last `realloc` has failed; the block is as it was.
    ReallocFailed,
}

impl Event {
    /// Writes the event, whose number is `gap + 1` more than that of the thread's event
    /// before it; `last` is the block there, and becomes this one.
    pub(crate) fn encode(self, gap: u64, last: &mut u64, sink: &mut Sink<'_>) {
        let (kind, align, size, block) = match self {
            Self::Free { block } => (0, None, None, Some(block)),
            Self::Allocate { block, size } => (1, None, Some(size), Some(block)),
            Self::AllocateZeroed { block, size } => (2, None, Some(size), Some(block)),
            Self::AllocateAligned {
                block,
                size,
                align_log2,
            } => (3, Some(align_log2), Some(size), Some(block)),
            Self::ReallocBegin { block } => (4, None, None, Some(block)),
            Self::ReallocEnd { block, size } => (5, None, Some(size), Some(block)),
            Self::ReallocFailed => (6, None, None, None),
        };
        let short_gap = u8::try_from(gap.min(LONG_GAP)).unwrap_or(u8::MAX);
        sink.byte(kind | (short_gap << KIND_BITS));
        if let Some(rest) = gap.checked_sub(LONG_GAP) {
            sink.varint(rest);
        }
        if let Some(align_log2) = align {
            sink.byte(align_log2);
        }
        if let Some(size) = size {
            sink.varint(size);
        }
        if let Some(Block(block)) = block {
            sink.varint(zigzag(*last, block));
            *last = block;
        }
    }

    /// Reads the gap and the event that [`Event::encode`] wrote; `None` for what it never
    /// writes.
    pub(crate) fn decode(last: &mut u64, source: &mut Source<'_>) -> Option<(u64, Self)> {
        let first = source.byte()?;
        let mut gap = u64::from(first >> KIND_BITS);
        if gap == LONG_GAP {
            gap = source.varint()?.checked_add(LONG_GAP)?;
        }
        let mut block = |source: &mut Source<'_>| {
            *last = unzigzag(*last, source.varint()?);
            Some(Block(*last))
        };
        let event = match first & 7 {
            0 => Self::Free {
                block: block(source)?,
            },
            1 => Self::Allocate {
                size: source.varint()?,
                block: block(source)?,
            },
            2 => Self::AllocateZeroed {
                size: source.varint()?,
                block: block(source)?,
            },
            3 => Self::AllocateAligned {
                align_log2: source.byte().filter(|log2| *log2 < 64)?,
                size: source.varint()?,
                block: block(source)?,
            },
            4 => Self::ReallocBegin {
                block: block(source)?,
            },
            5 => Self::ReallocEnd {
                size: source.varint()?,
                block: block(source)?,
            },
            6 => Self::ReallocFailed,
            _ => return None,
        };
        Some((gap, event))
    }
}
