//! The record of a table in the tree of tables, and of a large value in a leaf.
//!
//! A plain table's record is 16 bytes. One with options has a *schema* after them:
//!
//! ```text
//!  0       1       2             3   4           8
//!  +-------+-------+-------------+---+-----------+----------+------+------------+------+
//!  | flags | shift | compression | 0 | threshold | key type | name | value type | name |
//!  |       |       |             |   | u32       | len u16  |      | len u16    |      |
//!  +-------+-------+-------------+---+-----------+----------+------+------------+------+
//! ```
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use crate::format::bytes::{take, take_u32, u16_at, u32_at, u64_at};
use crate::ids::{Alignment, Child, DIRTY_BIT, Extent, PAGE_BYTES_U64};
use crate::schema::{Compression, MAX_TYPE_NAME_BYTES, TableOptions};

/// Bytes of a table's record before its schema: root page, its CRC, number of entries.
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

    /// The record, with the schema of `options`.
    pub(crate) fn encode(&self, options: &TableOptions) -> Vec<u8> {
        let mut out = pack(self.root.page, self.root.crc, self.len).to_vec();
        encode_schema(options, &mut out);
        out
    }

    /// The record, and the bytes of its schema, which make sense.
    #[inline]
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (record, schema) = bytes.split_at_checked(TABLE_BYTES)?;
        let (page, crc, len) = unpack(record)?;
        // Only what is in the file has been written to it.
        (page & DIRTY_BIT == 0).then_some(())?;
        if !schema.is_empty() && decode_schema(schema).is_none() {
            return None;
        }
        let root = Child { page, crc };
        Some((Self { root, len }, schema))
    }
}

/// Set in a schema's flags: a key may have several values.
const MULTI_MAP: u8 = 1;

/// Appends the schema of `options`, which are valid: nothing for a plain table.
pub(crate) fn encode_schema(options: &TableOptions, out: &mut Vec<u8>) {
    if options.is_plain() {
        return;
    }
    let alignment = options.alignment_checked().unwrap_or(Alignment::NONE);
    let (compression, threshold) = match options.compression {
        None => (0, 0),
        Some((Compression::Lz4, threshold)) => (1, threshold),
        Some((Compression::Zstd, threshold)) => (2, threshold),
    };
    let flags = if options.multi_map { MULTI_MAP } else { 0 };
    out.extend_from_slice(&[flags, alignment.shift(), compression, 0]);
    out.extend_from_slice(&threshold.to_le_bytes());
    for name in [&options.key_type, &options.value_type] {
        let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(name.as_bytes());
    }
}

/// The options that a schema says; `None` if [`encode_schema`] would not write it so.
pub(crate) fn decode_schema(mut bytes: &[u8]) -> Option<TableOptions> {
    let rest = &mut bytes;
    if rest.is_empty() {
        return Some(TableOptions::default());
    }
    let &[flags, shift, compression, zero] = take(rest, 4)? else {
        return None;
    };
    let threshold = take_u32(rest)?;
    let mut options = TableOptions::new()
        .alignment(Alignment::from_shift(shift)?.bytes())
        .key_type(type_name(rest)?)
        .value_type(type_name(rest)?);
    options.multi_map = flags & MULTI_MAP != 0;
    options.compression = match compression {
        0 => None,
        1 => Some((Compression::Lz4, threshold)),
        2 => Some((Compression::Zstd, threshold)),
        _ => return None,
    };
    let known = flags & !MULTI_MAP == 0 && zero == 0 && rest.is_empty();
    let threshold_used = options.compression.is_some() || threshold == 0;
    let sound = !options.is_plain() && options.validate().is_ok();
    (known && threshold_used && sound).then_some(options)
}

fn type_name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::from(u16_at(take(rest, 2)?, 0)?);
    let name = core::str::from_utf8(take(rest, len)?).ok()?;
    (len <= MAX_TYPE_NAME_BYTES).then_some(name)
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
    /// A value of no bytes where none may lie in a leaf.
    pub(crate) const EMPTY: Self = Self {
        page: 0,
        crc: 0,
        len: 0,
    };

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

#[cfg(test)]
mod tests {
    //! What could go wrong: bytes that no version wrote are taken for options, or options
    //! come back as others. How it is seen: options go there and back; each byte of their
    //! schema is set to each value, cut and continued, and what is accepted must be what
    //! would be written for it.

    use super::*;

    fn samples() -> Vec<TableOptions> {
        let typed = TableOptions::new().key_type("u64").value_type("town 1");
        let mut multi_map = TableOptions::new();
        multi_map.multi_map = true;
        let mut packed = typed.clone();
        packed.compression = Some((Compression::Zstd, 0x0102_0304));
        let mut fast = TableOptions::new();
        fast.compression = Some((Compression::Lz4, 0));
        vec![
            typed.clone(),
            typed.alignment(4096),
            TableOptions::new().alignment(2),
            multi_map,
            packed,
            fast,
        ]
    }

    fn encoded(options: &TableOptions) -> Vec<u8> {
        let mut out = Vec::new();
        encode_schema(options, &mut out);
        out
    }

    #[test]
    fn a_record_comes_back_with_its_options() {
        for options in samples().into_iter().chain([TableOptions::new()]) {
            let root = Child { page: 7, crc: 9 };
            let record = TableRecord { root, len: 11 };
            let bytes = record.encode(&options);
            let back = TableRecord::decode(&bytes);
            let back = back.map(|(record, schema)| (record, decode_schema(schema)));
            assert_eq!(back, Some((record, Some(options))));
        }
    }

    #[test]
    fn only_what_would_be_written_is_a_schema() {
        for options in samples() {
            let bytes = encoded(&options);
            for at in 0..bytes.len() {
                for byte in 0..=u8::MAX {
                    let mut forged = bytes.clone();
                    if let Some(place) = forged.get_mut(at) {
                        *place = byte;
                    }
                    if let Some(options) = decode_schema(&forged) {
                        assert_eq!(encoded(&options), forged);
                        assert_eq!(options.validate(), Ok(()));
                    }
                }
                let cut = decode_schema(bytes.get(..at).unwrap_or(&[]));
                assert!(at == 0 || cut.is_none(), "a schema cut at {at}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(decode_schema(&longer), None);
        }
        assert_eq!(decode_schema(&[0; 12]), None, "a plain table has none");
    }

    #[test]
    fn names_of_types_have_a_limit() {
        let longest = "n".repeat(MAX_TYPE_NAME_BYTES);
        let options = TableOptions::new().key_type(&longest);
        assert_eq!(decode_schema(&encoded(&options)), Some(options));
        let options = TableOptions::new().key_type(&(longest + "n"));
        assert!(options.validate().is_err());
        assert_eq!(decode_schema(&encoded(&options)), None);
    }
}
