//! The stream of an incremental backup: a header, blocks of pages, an end.
//!
//! ```text
//!  0        8       12     16                       64
//!  +--------+-------+------+------------------------+
//!  | MAGIC  |format | crc  | base, result, lengths  |    header
//!  +--------+-------+------+------------------------+
//!  | first page | pages | crc | pages × 4096 bytes  |    block, as often as needed
//!  +------------+-------+-----+---------------------+
//!  | 0          | 0     | crc | number of blocks    |    end
//! ```
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use crate::format::bytes::{slice, u32_at, u64_at};
use crate::ids::{Child, DIRTY_BIT, Extent, FIRST_PAGE, PAGE_BYTES};

const MAGIC: [u8; 8] = *b"BrickIn\x1a";
/// The format of streams that this library writes.
pub(crate) const STREAM_FORMAT: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes before a block's pages.
pub(crate) const BLOCK_BYTES: usize = 12;
/// Most pages of a block: what a reader must be ready to hold.
pub(crate) const MOST_BLOCK_PAGES: u32 = 256;

/// A state of a store, named by its last transaction and the checksum over everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) txn: u64,
    pub(crate) root: Child,
}

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What it is to be applied to.
    pub(crate) base: State,
    /// What comes of it.
    pub(crate) result: State,
    /// Pages of the tree file that comes of it, the map of free pages among them.
    pub(crate) pages: u32,
    pub(crate) map: Extent,
    pub(crate) map_crc: u32,
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Foreign,
    Version(u32),
    Damaged,
}

fn put_state(out: &mut Vec<u8>, state: &State) {
    out.extend_from_slice(&state.txn.to_le_bytes());
    out.extend_from_slice(&state.root.page.to_le_bytes());
    out.extend_from_slice(&state.root.crc.to_le_bytes());
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEADER_BYTES);
        put_state(&mut body, &self.base);
        put_state(&mut body, &self.result);
        for word in [self.pages, self.map.first, self.map.pages, self.map_crc] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&body);
        let head = [
            MAGIC.as_slice(),
            &STREAM_FORMAT.to_le_bytes(),
            &crc.to_le_bytes(),
        ];
        [head.concat(), body].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(HeaderError::Foreign);
        }
        let format = u32_at(bytes, 8).ok_or(HeaderError::Damaged)?;
        if format != STREAM_FORMAT {
            return Err(HeaderError::Version(format));
        }
        let header = Self::body(bytes).ok_or(HeaderError::Damaged)?;
        let map_end = header.map.first.checked_add(header.map.pages);
        let fits = header.pages < DIRTY_BIT && map_end.is_some_and(|end| end <= header.pages);
        fits.then_some(header).ok_or(HeaderError::Damaged)
    }

    fn body(bytes: &[u8]) -> Option<Self> {
        let crc = crc32c::crc32c(slice(bytes, 16, 48)?);
        let state = |at: usize| {
            Some(State {
                txn: u64_at(bytes, at)?,
                root: Child {
                    page: u32_at(bytes, at.checked_add(8)?)?,
                    crc: u32_at(bytes, at.checked_add(12)?)?,
                },
            })
        };
        (u32_at(bytes, 12)? == crc).then_some(())?;
        Some(Self {
            base: state(16)?,
            result: state(32)?,
            pages: u32_at(bytes, 48)?,
            map: Extent {
                first: u32_at(bytes, 52)?,
                pages: u32_at(bytes, 56)?,
            },
            map_crc: u32_at(bytes, 60)?,
        })
    }
}

/// What comes before a block's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Pages { extent: Extent, crc: u32 },
    End { crc: u32 },
}

/// The header of a block with these pages.
pub(crate) fn encode_block(extent: Extent, data: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut bytes = [0; BLOCK_BYTES];
    let crc = block_crc(extent, data);
    let words = [extent.first, extent.pages, crc].map(u32::to_le_bytes);
    for (to, from) in bytes.iter_mut().zip(words.iter().flatten()) {
        *to = *from;
    }
    bytes
}

/// The end of a stream of `blocks` blocks.
pub(crate) fn encode_end(blocks: u64) -> Vec<u8> {
    let count = blocks.to_le_bytes();
    let end = encode_block(Extent { first: 0, pages: 0 }, &count);
    [end.as_slice(), &count].concat()
}

/// CRC of a block's extent and data.
pub(crate) fn block_crc(extent: Extent, data: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&extent.first.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &extent.pages.to_le_bytes());
    crc32c::crc32c_append(crc, data)
}

/// Reads what comes before a block's data; `None` if no stream for a file of `pages`
/// pages has it.
pub(crate) fn decode_block(bytes: &[u8; BLOCK_BYTES], pages: u32) -> Option<Block> {
    let extent = Extent {
        first: u32_at(bytes, 0)?,
        pages: u32_at(bytes, 4)?,
    };
    let crc = u32_at(bytes, 8)?;
    if extent.first == 0 && extent.pages == 0 {
        return Some(Block::End { crc });
    }
    let end = extent.first.checked_add(extent.pages)?;
    let fits = extent.first >= FIRST_PAGE
        && (1..=MOST_BLOCK_PAGES).contains(&extent.pages)
        && end <= pages;
    fits.then_some(Block::Pages { extent, crc })
}

/// Bytes of the pages of a block.
pub(crate) fn data_bytes(extent: Extent) -> usize {
    (extent.pages as usize).saturating_mul(PAGE_BYTES)
}
