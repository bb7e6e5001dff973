//! The meta slot: the first 80 bytes of pages 0 and 1, which name the last two
//! checkpoints.
//!
//! ```text
//!  0        8       12      16           24    32    40          48     52
//!  +--------+-------+-------+------------+-----+-----+-----------+------+------+
//!  | MAGIC  |format | crc   | generation | txn | salt| ring_start| root | crc  |
//!  +--------+-------+-------+------------+-----+-----+-----------+------+------+
//!  56      60       64      68        72           80
//!  | pages | map    | map   | map crc | ring bytes |
//! ```
//!
//! `map` is the map of free pages: first page, pages, CRC.
//!
//! `crc` (CRC-32C) is over bytes 16 to 80. A slot fits in one sector of 512 bytes, and the
//! checksum makes even that unnecessary.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use crate::error::Flaw;
use crate::format::bytes::{slice, u32_at, u64_at};
use crate::ids::{Child, Extent, PAGE_BYTES, PageBuf};

/// First bytes of a slot.
const MAGIC: [u8; 8] = *b"BrickSt\x1a";
/// The format this library writes.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of a slot.
const SLOT_BYTES: usize = 80;

/// A checkpoint: everything that opening starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Counts slots written; the valid slot with the larger one is the newer.
    pub(crate) generation: u64,
    /// The last transaction in the tree.
    pub(crate) txn: u64,
    /// Records of the ring that carry another salt are of another life of the store.
    pub(crate) salt: u64,
    /// Logical position of the first record to replay.
    pub(crate) ring_start: u64,
    /// Root of the tree of tables.
    pub(crate) root: Child,
    /// Length of the file.
    pub(crate) pages: u32,
    /// Where the map of free pages lies; a run of zero pages if nothing is free.
    pub(crate) map: Extent,
    /// CRC-32C of the map's pages.
    pub(crate) map_crc: u32,
    /// Length of the ring: places of records are positions modulo this.
    pub(crate) ring_bytes: u64,
}

/// Why a slot is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotError {
    /// No mark of this library.
    Foreign,
    /// A later format.
    Version(u32),
    /// Ours, and damaged.
    Damaged(Flaw),
}

impl Meta {
    /// The bytes of a slot, zero-filled to a page.
    pub(crate) fn encode(&self) -> Box<PageBuf> {
        let mut body = Vec::with_capacity(SLOT_BYTES);
        body.extend_from_slice(&self.generation.to_le_bytes());
        body.extend_from_slice(&self.txn.to_le_bytes());
        body.extend_from_slice(&self.salt.to_le_bytes());
        body.extend_from_slice(&self.ring_start.to_le_bytes());
        for word in [
            self.root.page,
            self.root.crc,
            self.pages,
            self.map.first,
            self.map.pages,
            self.map_crc,
        ] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        body.extend_from_slice(&self.ring_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&body);
        let head = [&MAGIC[..], &FORMAT.to_le_bytes(), &crc.to_le_bytes()].concat();
        let mut page = Box::new([0; PAGE_BYTES]);
        for (to, from) in page.iter_mut().zip(head.into_iter().chain(body)) {
            *to = from;
        }
        page
    }

    /// Reads a slot.
    pub(crate) fn decode(page: &[u8]) -> Result<Self, SlotError> {
        if !page.starts_with(&MAGIC) {
            return Err(SlotError::Foreign);
        }
        let short = SlotError::Damaged(Flaw::Header);
        let format = u32_at(page, 8).ok_or(short)?;
        if format != FORMAT {
            return Err(SlotError::Version(format));
        }
        let crc = u32_at(page, 12).ok_or(short)?;
        // Bytes 16 to 80.
        if crc32c::crc32c(slice(page, 16, 64).ok_or(short)?) != crc {
            return Err(SlotError::Damaged(Flaw::Checksum));
        }
        let long = |at| u64_at(page, at).ok_or(short);
        let word = |at| u32_at(page, at).ok_or(short);
        Ok(Self {
            generation: long(16)?,
            txn: long(24)?,
            salt: long(32)?,
            ring_start: long(40)?,
            root: Child {
                page: word(48)?,
                crc: word(52)?,
            },
            pages: word(56)?,
            map: Extent {
                first: word(60)?,
                pages: word(64)?,
            },
            map_crc: word(68)?,
            ring_bytes: long(72)?,
        })
    }
}
