//! Tables with several values per key.
//!
//! A pair of key and value is one key of an ordinary tree ([`crate::format::pair`]), and
//! has no value there. So a multi-map is written, checked and recovered as any table is.

use core::ops::{Bound, RangeBounds};

use crate::error::{ReadError, TableError, WriteError};
use crate::format::pair;
use crate::format::table::TableRecord;
use crate::ids::MAX_KEY_BYTES;
use crate::schema::TableOptions;
use crate::tree::range::{TreeRange, as_slices};
use crate::tree::search;
use crate::tree::work::Source;
use crate::txn::read::{ReadTxn, Table};
use crate::txn::write::{TableMut, WriteTxn};

/// Bounds of keys.
type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

pub(crate) fn options() -> TableOptions {
    let mut options = TableOptions::new();
    options.multi_map = true;
    options
}

impl ReadTxn<'_> {
    /// The multi-map called `name`, or `None` if there is nothing of that name. Whatever
    /// types its record names: keys and values are read as bytes.
    ///
    /// # Errors
    ///
    /// [`TableError::Mismatch`] if it is a table; [`TableError::Read`].
    pub fn multi_map(&self, name: &str) -> Result<Option<MultiMap<'_>>, TableError> {
        match self.raw_table(name)? {
            Some(table) if table.options().multi_map => Ok(Some(MultiMap { table })),
            Some(table) => Err(table.mismatch(name, &options())),
            None => Ok(None),
        }
    }

    /// Like [`ReadTxn::multi_map`], if it was created with these options.
    pub(crate) fn multi_map_with(
        &self,
        name: &str,
        options: &TableOptions,
    ) -> Result<Option<MultiMap<'_>>, TableError> {
        let table = self.table_with(name, options)?;
        Ok(table.map(|table| MultiMap { table }))
    }
}

impl<'s> WriteTxn<'s> {
    /// The multi-map called `name`, which is created if it is not there: several values
    /// per key, each once, in the order of their bytes. Whatever types the record of one
    /// that is there names: keys and values are bytes.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = brickyard_store::Options::new().open_in_memory()?;
    /// let mut write = store.write()?;
    /// let mut tags = write.multi_map("tags")?;
    /// assert!(tags.insert(b"apple", b"red")?);
    /// assert!(tags.insert(b"apple", b"fruit")?);
    /// assert!(!tags.insert(b"apple", b"red")?); // It is there.
    /// write.commit()?;
    ///
    /// let read = store.read();
    /// let tags = read.multi_map("tags")?.expect("it was made above");
    /// let mut of_apple = tags.get(b"apple")?;
    /// assert_eq!(of_apple.next()?, Some(&b"fruit"[..]));
    /// assert_eq!(of_apple.next()?, Some(&b"red"[..]));
    /// assert_eq!(of_apple.next()?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError::Table`] if it is a table; else as [`WriteTxn::table`].
    pub fn multi_map(&mut self, name: &str) -> Result<MultiMapMut<'_, 's>, WriteError> {
        if self.raw_table(name)?.is_multi_map() {
            let table = self.raw_table(name)?;
            return Ok(MultiMapMut { table });
        }
        self.multi_map_with(name, &options())
    }

    /// The multi-map called `name`, created with these options or to be created.
    pub(crate) fn multi_map_with(
        &mut self,
        name: &str,
        options: &TableOptions,
    ) -> Result<MultiMapMut<'_, 's>, WriteError> {
        let table = self.raw_table_with(name, options)?;
        Ok(MultiMapMut { table })
    }
}

/// Where the pairs are read from.
#[derive(Clone, Copy)]
struct View<'t> {
    source: &'t dyn Source,
    record: TableRecord,
}

impl<'t> View<'t> {
    fn range(&self, bounds: KeyBounds<'_>) -> Result<TreeRange<'t, dyn Source + 't>, ReadError> {
        let start = match bounds.0 {
            Bound::Included(key) => Bound::Included(pair::lower(key)),
            Bound::Excluded(key) => Bound::Included(pair::upper(key)),
            Bound::Unbounded => Bound::Unbounded,
        };
        let end = match bounds.1 {
            Bound::Included(key) => Bound::Excluded(pair::upper(key)),
            Bound::Excluded(key) => Bound::Excluded(pair::lower(key)),
            Bound::Unbounded => Bound::Unbounded,
        };
        let bounds = (
            start.as_ref().map(Vec::as_slice),
            end.as_ref().map(Vec::as_slice),
        );
        let range = TreeRange::new(self.source, self.record.root, self.record.len, bounds);
        self.source.intact()?;
        range
    }

    fn values(&self, key: &[u8]) -> Result<Values<'t>, ReadError> {
        let range = self.range((Bound::Included(key), Bound::Included(key)))?;
        let start = pair::lower(key).len();
        Ok(Values { range, start })
    }

    fn pairs(&self, bounds: KeyBounds<'_>) -> Result<Pairs<'t>, ReadError> {
        let (range, key) = (self.range(bounds)?, Vec::new());
        Ok(Pairs { range, key })
    }

    fn contains(&self, key: &[u8], value: &[u8]) -> Result<bool, ReadError> {
        let pair = pair::encode(key, value);
        let found = search::get(self.source, self.record.root, &pair)?;
        self.source.intact()?;
        Ok(found.is_some())
    }

    fn count(&self, key: &[u8]) -> Result<u64, ReadError> {
        let (mut values, mut count) = (self.values(key)?, 0);
        while values.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

/// A multi-map as a snapshot sees it.
///
/// A value is put together from its node, so it lasts until the next one is asked for;
/// where values should be slices of the file, keep their keys here and them in a table.
#[derive(Clone, Copy, Debug)]
pub struct MultiMap<'t> {
    table: Table<'t>,
}

impl<'t> MultiMap<'t> {
    fn view(&self) -> View<'t> {
        View {
            source: self.table.pages,
            record: self.table.record,
        }
    }

    /// Number of values of all keys.
    pub fn len(&self) -> u64 {
        self.table.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The values of `key`, ascending, from either end.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    ///
    /// # Complexity
    ///
    /// Two look-ups, and constant time for a value.
    pub fn get(&self, key: &[u8]) -> Result<Values<'t>, ReadError> {
        self.view().values(key)
    }

    /// Whether `value` is one of the values of `key`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn contains(&self, key: &[u8], value: &[u8]) -> Result<bool, ReadError> {
        self.view().contains(key, value)
    }

    /// Number of values of `key`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    ///
    /// # Complexity
    ///
    /// Linear in the result.
    pub fn count(&self, key: &[u8]) -> Result<u64, ReadError> {
        self.view().count(key)
    }

    /// The keys in `bounds` with each of their values, from either end.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn range<K: AsRef<[u8]> + ?Sized>(
        &self,
        bounds: impl RangeBounds<K>,
    ) -> Result<Pairs<'t>, ReadError> {
        self.view().pairs(as_slices(&bounds))
    }
}

/// A multi-map in a write transaction.
#[derive(Debug)]
pub struct MultiMapMut<'t, 's> {
    table: TableMut<'t, 's>,
}

impl MultiMapMut<'_, '_> {
    fn view(&self) -> Result<View<'_>, WriteError> {
        let (source, record) = self.table.source()?;
        Ok(View { source, record })
    }

    /// Number of values of all keys.
    pub fn len(&self) -> u64 {
        self.table.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Adds `value` to the values of `key`; false if it was one of them.
    ///
    /// # Errors
    ///
    /// [`WriteError::PairTooLong`] if the two take more than
    /// [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES) together, with two bytes between them and
    /// one more for each zero in the key; else as [`TableMut::put`].
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        let pair = pair::encode(key, value);
        if pair.len() > MAX_KEY_BYTES {
            return Err(WriteError::PairTooLong {
                bytes: pair.len(),
                most: MAX_KEY_BYTES,
            });
        }
        self.table.put(&pair, &[])
    }

    /// Takes `value` out of the values of `key`; false if it was none of them.
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`].
    pub fn remove(&mut self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        self.table.delete(&pair::encode(key, value))
    }

    /// Takes `key` out with all its values; how many there were.
    ///
    /// # Errors
    ///
    /// As [`TableMut::delete_range`].
    ///
    /// # Complexity
    ///
    /// That of [`MultiMapMut::remove`] for each value.
    pub fn remove_all(&mut self, key: &[u8]) -> Result<u64, WriteError> {
        let (start, end) = (pair::lower(key), pair::upper(key));
        self.table.delete_range::<Vec<u8>>(start..end)
    }

    /// The values of `key`, ascending, with the changes of this transaction.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn get(&self, key: &[u8]) -> Result<Values<'_>, WriteError> {
        Ok(self.view()?.values(key)?)
    }

    /// Whether `value` is one of the values of `key`.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn contains(&self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        Ok(self.view()?.contains(key, value)?)
    }

    /// Number of values of `key`.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    ///
    /// # Complexity
    ///
    /// Linear in the result.
    pub fn count(&self, key: &[u8]) -> Result<u64, WriteError> {
        Ok(self.view()?.count(key)?)
    }

    /// The keys in `bounds` with each of their values, from either end.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn range<K: AsRef<[u8]> + ?Sized>(
        &self,
        bounds: impl RangeBounds<K>,
    ) -> Result<Pairs<'_>, WriteError> {
        Ok(self.view()?.pairs(as_slices(&bounds))?)
    }
}

/// The values of one key, ascending. Not an `Iterator`, because a value is put together
/// in memory of its own and lasts until the next one.
#[derive(Debug)]
pub struct Values<'t> {
    range: TreeRange<'t, dyn Source + 't>,
    /// Where the value starts in a pair.
    start: usize,
}

impl Values<'_> {
    /// The smallest value that was not there yet.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    #[expect(
        clippy::should_implement_trait,
        reason = "the value is lent until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<&[u8]>, ReadError> {
        let (start, source) = (self.start, self.range.source());
        let pair = self.range.next()?;
        source.intact()?;
        Ok(pair.and_then(|(pair, _)| pair.get(start..)))
    }

    /// The largest value that was not there yet.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn next_back(&mut self) -> Result<Option<&[u8]>, ReadError> {
        let (start, source) = (self.start, self.range.source());
        let pair = self.range.next_back()?;
        source.intact()?;
        Ok(pair.and_then(|(pair, _)| pair.get(start..)))
    }
}

/// A key and one of its values, both until the next ones.
pub type Pair<'k> = (&'k [u8], &'k [u8]);

/// Keys with each of their values, in the order of both.
#[derive(Debug)]
pub struct Pairs<'t> {
    range: TreeRange<'t, dyn Source + 't>,
    key: Vec<u8>,
}

impl Pairs<'_> {
    /// The next pair from the front.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    #[expect(
        clippy::should_implement_trait,
        reason = "key and value are lent until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<Pair<'_>>, ReadError> {
        let (bad, source) = (self.range.bad_entry(), self.range.source());
        let pair = self.range.next()?;
        source.intact()?;
        pair.map(|(pair, _)| split(pair, &mut self.key).ok_or(bad))
            .transpose()
    }

    /// The next pair from the back.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn next_back(&mut self) -> Result<Option<Pair<'_>>, ReadError> {
        let (bad, source) = (self.range.bad_entry(), self.range.source());
        let pair = self.range.next_back()?;
        source.intact()?;
        pair.map(|(pair, _)| split(pair, &mut self.key).ok_or(bad))
            .transpose()
    }
}

fn split<'a>(mut pair: &'a [u8], key: &'a mut Vec<u8>) -> Option<Pair<'a>> {
    pair::take_key(&mut pair, key)?;
    Some((key, pair))
}
