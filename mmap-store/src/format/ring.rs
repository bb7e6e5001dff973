//! Records of the redo ring: what a transaction did, so that it can be done again.
//!
//! ```text
//!  0     4     8      16    24                 24 + len, padded to 8
//!  +-----+-----+------+-----+------------------+
//!  | crc | len | salt | seq | operations       |
//!  +-----+-----+------+-----+------------------+
//!  operation: kind u8, table u32 + bytes, then each as u32 + bytes
//!    1 put: key, value      2 delete: key      3 define: schema      4 drop
//! ```
//!
//! `crc` (CRC-32C) is over bytes 4 to 24 + len. `seq` is the transaction's number. A record
//! of length [`WRAP`] says that the next one is at the start of the ring.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use crate::format::bytes::{slice, take, take_u32, u32_at, u64_at};

/// Bytes before a record's operations.
pub(crate) const HEADER_BYTES: usize = 24;
/// Records start at multiples of this many bytes.
pub(crate) const ALIGN_BYTES: u64 = 8;
/// The longest ring: opening reads it whole.
pub(crate) const MOST_RING_BYTES: u64 = 1 << 32;
/// The length that marks the jump to the start of the ring.
const WRAP: u32 = u32::MAX;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DEFINE: u8 = 3;
const DROP: u8 = 4;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Put {
        table: &'a [u8],
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        table: &'a [u8],
        key: &'a [u8],
    },
    /// Creates a table with options.
    Define {
        table: &'a [u8],
        schema: &'a [u8],
    },
    /// Takes a table out, with all it holds.
    Drop {
        table: &'a [u8],
    },
}

impl<'a> Change<'a> {
    /// The table that is changed.
    pub(crate) fn table(&self) -> &'a [u8] {
        match *self {
            Self::Put { table, .. }
            | Self::Delete { table, .. }
            | Self::Define { table, .. }
            | Self::Drop { table } => table,
        }
    }
}

fn parts(change: Change<'_>) -> (u8, [Option<&[u8]>; 3]) {
    match change {
        Change::Put { table, key, value } => (PUT, [Some(table), Some(key), Some(value)]),
        Change::Delete { table, key } => (DELETE, [Some(table), Some(key), None]),
        Change::Define { table, schema } => (DEFINE, [Some(table), Some(schema), None]),
        Change::Drop { table } => (DROP, [Some(table), None, None]),
    }
}

/// Bytes that [`push`] adds.
pub(crate) fn bytes_of(change: Change<'_>) -> usize {
    let (_, parts) = parts(change);
    let parts = parts.into_iter().flatten();
    parts.fold(1, |sum: usize, part| {
        sum.saturating_add(4).saturating_add(part.len())
    })
}

/// Appends the change to a record's operations. Lengths above 4 GiB do not come here:
/// such transactions commit as their own checkpoint.
pub(crate) fn push(out: &mut Vec<u8>, change: Change<'_>) {
    let (kind, parts) = parts(change);
    out.push(kind);
    for part in parts.into_iter().flatten() {
        let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(part);
    }
}

/// The changes of a record; `None` where they make no sense.
pub(crate) fn changes(mut rest: &[u8]) -> impl Iterator<Item = Option<Change<'_>>> {
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let change = next_change(&mut rest);
        if change.is_none() {
            rest = &[];
        }
        Some(change)
    })
}

fn next_change<'a>(rest: &mut &'a [u8]) -> Option<Change<'a>> {
    let kind = *take(rest, 1)?.first()?;
    let table = part(rest)?;
    match kind {
        PUT => {
            let (key, value) = (part(rest)?, part(rest)?);
            Some(Change::Put { table, key, value })
        }
        DELETE => part(rest).map(|key| Change::Delete { table, key }),
        DEFINE => part(rest).map(|schema| Change::Define { table, schema }),
        DROP => Some(Change::Drop { table }),
        _ => None,
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_u32(rest)?;
    take(rest, usize::try_from(len).ok()?)
}

/// Makes the record of operations that start at `HEADER_BYTES` of `record`, whose
/// header is still empty.
pub(crate) fn seal(record: &mut Vec<u8>, salt: u64, seq: u64) {
    let len = record.len().saturating_sub(HEADER_BYTES);
    let len = u32::try_from(len).unwrap_or(WRAP);
    write_header(record, len, salt, seq);
    record.resize(record.len().next_multiple_of(8), 0);
}

/// The mark that the ring goes on at its start.
pub(crate) fn wrap_mark(salt: u64, seq: u64) -> Vec<u8> {
    let mut record = vec![0; HEADER_BYTES];
    write_header(&mut record, WRAP, salt, seq);
    record
}

fn write_header(record: &mut [u8], len: u32, salt: u64, seq: u64) {
    let fields = [
        &len.to_le_bytes()[..],
        &salt.to_le_bytes(),
        &seq.to_le_bytes(),
    ]
    .concat();
    for (to, from) in record.iter_mut().skip(4).zip(fields) {
        *to = from;
    }
    let crc = crc32c::crc32c(record.get(4..).unwrap_or(&[]));
    for (to, from) in record.iter_mut().zip(crc.to_le_bytes()) {
        *to = from;
    }
}

/// What is found at a place of the ring.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// The operations of the expected transaction, and the bytes the record takes.
    Record { operations: &'a [u8], bytes: u64 },
    /// Go on at the start of the ring.
    Wrap,
    /// The end of what can be replayed.
    End,
}

/// Reads the record of transaction `seq` at `at`. `check` is false only where a test
/// wants to see what happens without the checksum.
pub(crate) fn read(ring: &[u8], at: u64, salt: u64, seq: u64, check: bool) -> Found<'_> {
    parse(ring, at, salt, seq, check).unwrap_or(Found::End)
}

fn parse(ring: &[u8], at: u64, salt: u64, seq: u64, check: bool) -> Option<Found<'_>> {
    let record = ring.get(usize::try_from(at).ok()?..)?;
    let crc = u32_at(record, 0)?;
    let len = u32_at(record, 4)?;
    let expected = u64_at(record, 8)? == salt && u64_at(record, 16)? == seq;
    let body = if len == WRAP {
        0
    } else {
        usize::try_from(len).ok()?
    };
    let covered = slice(record, 4, body.checked_add(20)?)?;
    if !expected || (check && crc32c::crc32c(covered) != crc) {
        return None;
    }
    if len == WRAP {
        return Some(Found::Wrap);
    }
    let bytes = u64::from(len).checked_add(24)?;
    Some(Found::Record {
        operations: slice(record, HEADER_BYTES, body)?,
        bytes: bytes.checked_next_multiple_of(ALIGN_BYTES)?,
    })
}
