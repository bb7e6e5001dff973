//! A value of a compressed table: as it is, or packed.
//!
//! ```text
//!   0 | value
//!   1 | length of the value, u32 | packed value
//! ```
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use crate::format::bytes::take_u32;
use crate::schema::Compression;

const PLAIN: u8 = 0;
const PACKED: u8 = 1;

/// Longer values are not packed: one that is read takes no more memory than this.
pub(crate) const MOST_PACKED_BYTES: usize = 1 << 30;

/// What is stored of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    /// The value.
    Plain(&'a [u8]),
    /// The value has `len` bytes.
    Packed { len: usize, bytes: &'a [u8] },
}

impl<'a> Stored<'a> {
    /// Replaces `out` by what is stored.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Plain(value) => {
                out.push(PLAIN);
                out.extend_from_slice(value);
            }
            Self::Packed { len, bytes } => {
                out.push(PACKED);
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }

    /// `None` if no value is stored so, or if so few bytes unpack to so many in no way.
    pub(crate) fn decode(bytes: &'a [u8], compression: Compression) -> Option<Self> {
        let (&kind, mut rest) = bytes.split_first()?;
        match kind {
            PLAIN => Some(Self::Plain(rest)),
            PACKED => {
                let len = usize::try_from(take_u32(&mut rest)?).ok()?;
                let most = rest.len().saturating_mul(most_ratio(compression));
                (len <= most.min(MOST_PACKED_BYTES)).then_some(Self::Packed { len, bytes: rest })
            }
            _ => None,
        }
    }
}

/// How many bytes one byte becomes at most.
fn most_ratio(compression: Compression) -> usize {
    match compression {
        // A byte of a match's length stands for 255 bytes.
        Compression::Lz4 => 255,
        // A block of at least three bytes becomes at most 128 KiB.
        Compression::Zstd => 1 << 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let mut out = vec![7];
        for stored in [
            Stored::Plain(b""),
            Stored::Plain(b"\x01value"),
            Stored::Packed {
                len: 1275,
                bytes: b"five.",
            },
        ] {
            stored.encode(&mut out);
            assert_eq!(Stored::decode(&out, Compression::Lz4), Some(stored));
        }
    }

    #[test]
    fn a_length_that_no_packed_value_has_is_none() {
        let mut out = Vec::new();
        let bytes = b"five.";
        for (compression, len) in [
            (Compression::Lz4, 1276),
            (Compression::Zstd, 5 << 16 | 1),
            (Compression::Zstd, MOST_PACKED_BYTES),
        ] {
            Stored::Packed { len, bytes }.encode(&mut out);
            assert_eq!(Stored::decode(&out, compression), None);
        }
        let long = vec![0; 1 << 15];
        let len = MOST_PACKED_BYTES;
        for (len, is_some) in [(len, true), (len.wrapping_add(1), false)] {
            Stored::Packed { len, bytes: &long }.encode(&mut out);
            assert_eq!(Stored::decode(&out, Compression::Zstd).is_some(), is_some);
        }
        for bytes in [&b""[..], b"\x02", b"\x01\x01\x00\x00"] {
            assert_eq!(Stored::decode(bytes, Compression::Lz4), None);
        }
    }
}
