//! How a table is reached: through the interface of plain tables or of compressed ones.

use core::ops::{Bound, Deref};

use brickyard_store::{
    CompressedTable, CompressedTableMut, Compression, MultiMap, ReadError, ReadTxn, Table,
    TableError, TableMut, WriteError, WriteTxn,
};

use super::args::{PACKED, PACKED_ABOVE, PAIRS, Span, Turns, table_name, table_options};
use super::outcome::{Failure, Pair};

/// More steps than that and a range has no end.
const MOST_STEPS: usize = 1 << 22;

/// Reads a range to its end, from the ends that `turns` says. The ranges of the library have
/// these methods and no trait, since they lend what they give.
macro_rules! read_through {
    ($range:expr, $turns:expr, $visit:expr) => {{
        let (mut range, turns, visit) = ($range, $turns, $visit);
        for step in 0..MOST_STEPS {
            let next = if turns.is_back(step) {
                range.next_back()?
            } else {
                range.next()?
            };
            let Some((key, value)) = next else {
                return Ok(());
            };
            visit(key.deref(), value.deref());
        }
        panic!("the range has no end");
    }};
}

/// What is done with an entry.
pub type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]);

/// The bounds of a range.
pub fn bounds(span: Span) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (span.from.bound(), span.to.bound())
}

/// The entries that `read` visits.
///
/// # Errors
///
/// What `read` says.
pub fn collect<E>(read: impl FnOnce(Visit<'_>) -> Result<(), E>) -> Result<Vec<Pair>, E> {
    let mut out = Vec::new();
    read(&mut |key, value| out.push((key.to_vec(), value.to_vec())))?;
    Ok(out)
}

/// A table in a snapshot.
#[derive(Debug)]
pub enum Map<'t> {
    /// Read as slices.
    Plain(Table<'t>),
    /// Read as copies where they were compressed.
    Packed(CompressedTable<'t>),
}

impl<'t> Map<'t> {
    /// The table, if it is there.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn open(read: &'t ReadTxn<'_>, table: u8) -> Result<Option<Self>, TableError> {
        let name = table_name(table);
        if table == PACKED {
            match read.compressed(&name) {
                // Made without the feature.
                Err(TableError::Uncompressed { .. }) => {}
                found => return Ok(found?.map(Self::Packed)),
            }
        }
        Ok(read.table(&name)?.map(Self::Plain))
    }

    /// The number of entries that is recorded.
    #[must_use]
    pub fn entries(&self) -> u64 {
        match self {
            Self::Plain(table) => table.len(),
            Self::Packed(table) => table.len(),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(match self {
            Self::Plain(table) => table.get(key)?.map(<[u8]>::to_vec),
            Self::Packed(table) => table.get(key)?.map(|value| value.into_owned()),
        })
    }

    /// Reads a range to its end.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Panics
    ///
    /// Panics if it has no end.
    pub fn each(&self, span: Span, turns: Turns, visit: Visit<'_>) -> Result<(), ReadError> {
        match self {
            Self::Plain(table) => read_through!(table.range(bounds(span))?, turns, visit),
            Self::Packed(table) => read_through!(table.range(bounds(span))?, turns, visit),
        }
    }
}

/// Reads the entries of a prefix to their end.
///
/// # Errors
///
/// What the store says.
///
/// # Panics
///
/// Panics if they have no end.
pub fn each_of_prefix(
    table: &Table<'_>,
    prefix: &[u8],
    turns: Turns,
    visit: Visit<'_>,
) -> Result<(), ReadError> {
    read_through!(table.prefix(prefix)?, turns, visit)
}

/// The multi-map of a snapshot, if it is there.
///
/// # Errors
///
/// What the store says.
pub fn open_pairs<'t>(read: &'t ReadTxn<'_>) -> Result<Option<MultiMap<'t>>, TableError> {
    read.multi_map(&table_name(PAIRS))
}

/// Reads the pairs of a range to their end.
///
/// # Errors
///
/// What the store says.
///
/// # Panics
///
/// Panics if they have no end.
pub fn each_pair(
    pairs: &MultiMap<'_>,
    span: Span,
    turns: Turns,
    visit: Visit<'_>,
) -> Result<(), ReadError> {
    read_through!(pairs.range(bounds(span))?, turns, visit)
}

/// The values of a key, in the order of `turns`.
///
/// # Errors
///
/// What the store says.
///
/// # Panics
///
/// Panics if they have no end.
pub fn values_of(
    mut values: brickyard_store::Values<'_>,
    turns: Turns,
) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut out = Vec::new();
    for step in 0..MOST_STEPS {
        let next = if turns.is_back(step) {
            values.next_back()?
        } else {
            values.next()?
        };
        match next {
            Some(value) => out.push(value.to_vec()),
            None => return Ok(out),
        }
    }
    panic!("the values have no end");
}

/// A table in a write transaction, which is created if it is not there.
#[derive(Debug)]
pub enum MapMut<'t, 's> {
    /// Written as it is.
    Plain(TableMut<'t, 's>),
    /// Compressed above [`PACKED_ABOVE`].
    Packed(CompressedTableMut<'t, 's>),
}

impl<'t, 's> MapMut<'t, 's> {
    /// The table.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn open(txn: &'t mut WriteTxn<'s>, table: u8) -> Result<Self, WriteError> {
        if table != PACKED || !knows_lz4(txn)? {
            return Ok(Self::Plain(open_plain(txn, table)?));
        }
        let packed = txn.compressed(&table_name(table), Compression::Lz4, PACKED_ABOVE);
        Ok(Self::Packed(packed?))
    }

    /// `get`.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, WriteError> {
        Ok(match self {
            Self::Plain(table) => table.get(key)?.map(<[u8]>::to_vec),
            Self::Packed(table) => table.get(key)?.map(|value| value.into_owned()),
        })
    }

    /// `put`.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        match self {
            Self::Plain(table) => table.put(key, value),
            Self::Packed(table) => table.put(key, value),
        }
    }

    /// `insert_if_absent`.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        match self {
            Self::Plain(table) => table.insert_if_absent(key, value),
            Self::Packed(table) => table.insert_if_absent(key, value),
        }
    }

    /// `delete`.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, WriteError> {
        match self {
            Self::Plain(table) => table.delete(key),
            Self::Packed(table) => table.delete(key),
        }
    }

    /// `delete_range`.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn delete_range(&mut self, span: Span) -> Result<u64, WriteError> {
        match self {
            Self::Plain(table) => table.delete_range(bounds(span)),
            Self::Packed(table) => table.delete_range(bounds(span)),
        }
    }
}

/// A table that is not compressed, which is created if it is not there.
///
/// # Errors
///
/// What the store says.
pub fn open_plain<'t, 's>(
    txn: &'t mut WriteTxn<'s>,
    table: u8,
) -> Result<TableMut<'t, 's>, WriteError> {
    txn.table_with(&table_name(table), &table_options(table))
}

/// Reads the range of a table with the changes of its transaction.
///
/// # Errors
///
/// What the store says.
///
/// # Panics
///
/// Panics if it has no end.
pub fn each_open(
    table: &TableMut<'_, '_>,
    span: Span,
    turns: Turns,
    visit: Visit<'_>,
) -> Result<(), Failure> {
    read_through!(table.range(bounds(span))?, turns, visit)
}

/// Reads the entries of a prefix with the changes of their transaction.
///
/// # Errors
///
/// What the store says.
///
/// # Panics
///
/// Panics if they have no end.
pub fn each_open_of_prefix(
    table: &TableMut<'_, '_>,
    prefix: &[u8],
    turns: Turns,
    visit: Visit<'_>,
) -> Result<(), Failure> {
    read_through!(table.prefix(prefix)?, turns, visit)
}

/// Reads the pairs of a range with the changes of their transaction.
///
/// # Errors
///
/// What the store says.
///
/// # Panics
///
/// Panics if they have no end.
pub fn each_open_pair(
    pairs: &brickyard_store::MultiMapMut<'_, '_>,
    span: Span,
    turns: Turns,
    visit: Visit<'_>,
) -> Result<(), Failure> {
    read_through!(pairs.range(bounds(span))?, turns, visit)
}

/// Whether the library was built with the feature that the compressed table asks for.
fn knows_lz4(txn: &mut WriteTxn<'_>) -> Result<bool, WriteError> {
    match txn.compressed(&table_name(PACKED), Compression::Lz4, PACKED_ABOVE) {
        Ok(_) => Ok(true),
        Err(WriteError::Table(TableError::Feature { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}
