//! The record of a table in the tree of tables, and of a large value in a leaf.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use crate::format::bytes::{u32_at, u64_at};
use crate::ids::{Child, DIRTY_BIT, Extent, PAGE_BYTES_U64};

/// Bytes of a table's record: root page, its CRC, number of entries.
pub(crate) const TABLE_BYTES: usize = 16;
/// Bytes of a reference to a large value: first page, CRC of the bytes, length.
pub(crate) const LARGE_BYTES: usize = 16;

/// What the tree of tables keeps for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableRecord {
    pub(crate) root: Child,
    pub(crate) len: u64,
}

impl TableRecord {
    pub(crate) const EMPTY: Self = Self {
        root: Child::NONE,
        len: 0,
    };

    pub(crate) fn encode(&self) -> [u8; TABLE_BYTES] {
        pack(self.root.page, self.root.crc, self.len)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (page, crc, len) = unpack(bytes)?;
        // Only what is in the file has been written to it.
        (page & DIRTY_BIT == 0).then_some(())?;
        Some(Self {
            root: Child { page, crc },
            len,
        })
    }
}

/// A value in pages of its own: whole pages in one run, read as one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LargeRef {
    /// First page, or an index in the transaction's memory (`DIRTY_BIT`).
    pub(crate) page: u32,
    /// CRC-32C of the `len` bytes; what follows in the last page is zero.
    pub(crate) crc: u32,
    pub(crate) len: u64,
}

impl LargeRef {
    pub(crate) fn encode(&self) -> [u8; LARGE_BYTES] {
        pack(self.page, self.crc, self.len)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (page, crc, len) = unpack(bytes)?;
        Some(Self { page, crc, len })
    }

    /// The pages it takes in the file; `None` if no file has so many.
    pub(crate) fn extent(&self) -> Option<Extent> {
        let pages = u32::try_from(self.len.div_ceil(PAGE_BYTES_U64)).ok()?;
        (pages > 0 && pages < DIRTY_BIT).then_some(Extent {
            first: self.page,
            pages,
        })
    }
}

fn pack(one: u32, two: u32, three: u64) -> [u8; 16] {
    let value =
        u128::from(one) | u128::from(two).wrapping_shl(32) | u128::from(three).wrapping_shl(64);
    value.to_le_bytes()
}

fn unpack(bytes: &[u8]) -> Option<(u32, u32, u64)> {
    (bytes.len() == 16).then_some(())?;
    Some((u32_at(bytes, 0)?, u32_at(bytes, 4)?, u64_at(bytes, 8)?))
}
