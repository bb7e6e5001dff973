//! Reading one version of the store.

use core::ops::{Bound, RangeBounds};
use core::panic::Location;

use crate::error::{Flaw, ReadError, TableError, damaged};
use crate::format::node::MOST_ENTRIES;
use crate::format::table::{TableRecord, decode_schema};
use crate::pages::Pages;
use crate::schema::TableOptions;
use crate::shared::Shared;
use crate::tree::cursor::Cursor;
use crate::tree::range::{TreeRange, as_slices};
use crate::tree::search;
use crate::versions::{Slot, Version};

/// A snapshot: what was published when it began, whatever is committed since.
///
/// Blocks nobody and is blocked by nobody. While it lives the pages of its version are
/// kept, and no others.
///
/// ```compile_fail
/// # fn late(store: &brickyard_store::Store) -> &'static [u8] {
/// // A value does not outlive its transaction.
/// let read = store.read();
/// read.table("t").unwrap().unwrap().get(b"k").unwrap().unwrap()
/// # }
/// ```
#[derive(Debug)]
pub struct ReadTxn<'s> {
    shared: &'s Shared,
    version: Version,
    slot: &'s Slot,
}

impl<'s> ReadTxn<'s> {
    #[inline]
    #[track_caller]
    pub(crate) fn begin(shared: &'s Shared) -> Self {
        let trace = shared.trace(Location::caller());
        let (version, slot) = shared.versions.begin(trace);
        Self {
            shared,
            version,
            slot,
        }
    }

    /// The number of the last transaction that this snapshot sees.
    pub fn txn(&self) -> u64 {
        self.version.txn
    }

    /// The table called `name`, or `None` if nothing was ever put into one. Whatever
    /// alignment and types its record names: entries are read as bytes.
    ///
    /// # Errors
    ///
    /// [`TableError::Mismatch`] if it is a multi-map or compressed; [`TableError::Read`].
    pub fn table(&self, name: &str) -> Result<Option<Table<'_>>, TableError> {
        match self.raw_table(name)? {
            Some(table) if table.is_raw() => Ok(Some(table)),
            Some(table) => Err(table.mismatch(name, &TableOptions::new())),
            None => Ok(None),
        }
    }

    /// Like [`ReadTxn::table`], if the table was created with these options.
    ///
    /// # Errors
    ///
    /// [`TableError::Mismatch`] if not; [`TableError::Read`].
    pub fn table_with(
        &self,
        name: &str,
        options: &TableOptions,
    ) -> Result<Option<Table<'_>>, TableError> {
        match self.raw_table(name)? {
            Some(table) if table.options() == *options => Ok(Some(table)),
            Some(table) => Err(table.mismatch(name, options)),
            None => Ok(None),
        }
    }

    /// All tables, in the order of their names.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    ///
    /// # Complexity
    ///
    /// Linear in the number of tables.
    pub fn tables(&self) -> Result<Vec<TableInfo>, ReadError> {
        self.shared.pages.intact(self.all_tables())
    }

    fn all_tables(&self) -> Result<Vec<TableInfo>, ReadError> {
        let (pages, root) = (&self.shared.pages, self.version.root);
        let bad = damaged(root.page, Flaw::Record);
        let mut cursor = Cursor::seek(pages, root, &[], false)?;
        let (mut tables, mut name) = (Vec::<TableInfo>::new(), Vec::new());
        while let Some(record) = cursor.entry(pages, &mut name)? {
            let name = core::str::from_utf8(&name).map_err(|_| bad)?;
            // Names that ascend end a walk around a forged tree.
            if tables.last().is_some_and(|last| *last.name >= *name) {
                return Err(bad);
            }
            let table = self.decode(record)?;
            tables.push(TableInfo {
                name: name.into(),
                entries: table.len(),
                options: table.options(),
            });
            cursor.forward(pages)?;
        }
        Ok(tables)
    }

    /// The table as its entries are stored, whatever they mean.
    #[inline]
    pub(crate) fn raw_table(&self, name: &str) -> Result<Option<Table<'_>>, ReadError> {
        let pages = &self.shared.pages;
        let record = search::get(pages, self.version.root, name.as_bytes());
        let table = record.and_then(|found| found.map(|record| self.decode(record)).transpose());
        pages.intact(table)
    }

    #[inline]
    fn decode<'t>(&'t self, record: &'t [u8]) -> Result<Table<'t>, ReadError> {
        let pages = &self.shared.pages;
        let bad = damaged(self.version.root.page, Flaw::Record);
        let (record, schema) = TableRecord::decode(record).ok_or(bad)?;
        // No pages hold more: a walk that believes the number ends.
        if record.len > u64::from(pages.len()) * MOST_ENTRIES {
            return Err(bad);
        }
        Ok(Table {
            pages,
            record,
            schema,
        })
    }
}

impl Drop for ReadTxn<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slot.end();
    }
}

/// A key of its own, and a value in the mapped file.
pub type OwnedEntry<'t> = (Vec<u8>, &'t [u8]);

/// A key that lasts until the range's next one, and a value in the mapped file.
pub type Entry<'k, 't> = (&'k [u8], &'t [u8]);

/// What [`ReadTxn::tables`] says of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// Its name.
    pub name: Box<str>,
    /// Number of entries; of a multi-map, number of values.
    pub entries: u64,
    /// What it was created with.
    pub options: TableOptions,
}

/// A table as a snapshot sees it. Values are slices of the mapped file: nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Table<'t> {
    pub(crate) pages: &'t Pages,
    pub(crate) record: TableRecord,
    /// Empty for a plain table.
    schema: &'t [u8],
}

impl<'t> Table<'t> {
    /// What the table was created with.
    pub fn options(&self) -> TableOptions {
        // The schema was decoded when the table was opened: it makes sense.
        decode_schema(self.schema).unwrap_or_default()
    }

    fn is_raw(&self) -> bool {
        self.schema.is_empty() || self.options().is_raw()
    }

    #[cold]
    pub(crate) fn mismatch(&self, name: &str, asked: &TableOptions) -> TableError {
        TableError::Mismatch {
            table: name.into(),
            recorded: Box::new(self.options()),
            asked: Box::new(asked.clone()),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.record.len
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.record.len == 0
    }

    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    ///
    /// # Complexity
    ///
    /// One node a level; about three levels for a million entries.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<&'t [u8]>, ReadError> {
        self.pages
            .intact(search::get(self.pages, self.record.root, key))
    }

    /// The values of `keys`, in their order. Sixteen look-ups wait for memory at a time,
    /// which is several times as fast as one after another where the store is larger
    /// than the processor's caches.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<&'t [u8]>>, ReadError> {
        let mut out = Vec::with_capacity(keys.len());
        let found = search::get_many(self.pages, self.record.root, keys, &mut out);
        self.pages.intact(found)?;
        Ok(out)
    }

    /// The entry with the smallest key.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn first(&self) -> Result<Option<OwnedEntry<'t>>, ReadError> {
        let mut range = self.range::<[u8]>(..)?;
        Ok(range.next()?.map(|(key, value)| (key.to_vec(), value)))
    }

    /// The entry with the largest key.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn last(&self) -> Result<Option<OwnedEntry<'t>>, ReadError> {
        let mut range = self.range::<[u8]>(..)?;
        Ok(range.next_back()?.map(|(key, value)| (key.to_vec(), value)))
    }

    /// The entries whose keys lie in `bounds`, from either end.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn range<K: AsRef<[u8]> + ?Sized>(
        &self,
        bounds: impl RangeBounds<K>,
    ) -> Result<Range<'t>, ReadError> {
        let (root, len) = (self.record.root, self.record.len);
        let inner = TreeRange::new(self.pages, root, len, as_slices(&bounds));
        let (inner, pages) = (self.pages.intact(inner)?, self.pages);
        Ok(Range { inner, pages })
    }

    /// The entries whose keys start with `prefix`, from either end.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn prefix(&self, prefix: &[u8]) -> Result<Range<'t>, ReadError> {
        let end = end_of_prefix(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.range::<[u8]>((Bound::Included(prefix), end))
    }
}

/// The first key above all that start with `prefix`: its last byte that is not 255, plus
/// one. `None` if there is no such byte, and no such key.
pub(crate) fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}

/// Entries in the order of their keys. Not an `Iterator`, because a key is put together
/// in the range's own memory and lasts until the next one.
#[derive(Debug)]
pub struct Range<'t> {
    inner: TreeRange<'t, Pages>,
    pub(crate) pages: &'t Pages,
}

impl<'t> Range<'t> {
    /// The next entry from the front.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    #[expect(
        clippy::should_implement_trait,
        reason = "the key is lent until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<Entry<'_, 't>>, ReadError> {
        self.pages.intact(self.inner.next())
    }

    /// The next entry from the back.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn next_back(&mut self) -> Result<Option<Entry<'_, 't>>, ReadError> {
        self.pages.intact(self.inner.next_back())
    }
}
