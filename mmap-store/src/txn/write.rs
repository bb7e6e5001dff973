//! Changing the store: one transaction at a time, all or nothing.

use core::ops::{Bound, RangeBounds};

use crate::error::{Flaw, ReadError, TableError, WriteError, damaged};
use crate::format::ring::{self, Change};
use crate::format::table::{TableRecord, decode_schema, encode_schema};
use crate::ids::{Alignment, Child, Extent, MAX_KEY_BYTES};
use crate::schema::TableOptions;
use crate::shared::{Head, Shared, Turn};
use crate::sync::MutexGuard;
use crate::tree::cursor::Cursor;
use crate::tree::work::Work;
use crate::tree::{mutate, search};
use crate::txn::reserve::Reserved;
use crate::txn::savepoint::Saved;

/// A table that the transaction has looked at.
#[derive(Clone, Debug)]
pub(crate) struct OpenTable {
    pub(crate) name: Box<str>,
    pub(crate) record: TableRecord,
    pub(crate) options: TableOptions,
    /// Whether there is such a table, with these options; an empty one too, if it was
    /// filled or given options once.
    pub(crate) exists: bool,
    /// The tree of tables does not know yet what it has become.
    pub(crate) changed: bool,
}

/// A write transaction: sees its own changes, others see them after the commit. Dropping
/// it undoes everything. Others that want to write wait while it lives.
#[derive(Debug)]
pub struct WriteTxn<'s> {
    pub(crate) shared: &'s Shared,
    pub(crate) head: Turn<'s>,
    pub(crate) work: Work<'s>,
    /// Root of the tree of tables.
    pub(crate) root: Child,
    pub(crate) tables: Vec<OpenTable>,
    pub(crate) record: RingRecord,
    /// Savepoints that live, oldest first.
    pub(crate) saved: Vec<Saved>,
    /// Memory that was lent for a value, and is still written to.
    pub(super) reserved: Option<Reserved>,
    /// Runs of `head.early` that the trees reach.
    pub(super) kept_early: usize,
    /// An operation failed half way.
    pub(crate) broken: bool,
    /// It moves pages down: large values go to these runs, and nodes below the ceiling.
    pub(super) moves: Option<Vec<Extent>>,
}

impl<'s> WriteTxn<'s> {
    pub(crate) fn begin(shared: &'s Shared, mut head: MutexGuard<'s, Head>) -> Self {
        let txn = head.version.txn + 1;
        let spare = core::mem::take(&mut head.spare);
        Self {
            shared,
            work: Work::new(&shared.pages, txn, spare),
            root: head.version.root,
            head: Turn::new(head),
            tables: Vec::new(),
            record: RingRecord {
                bytes: vec![0; ring::HEADER_BYTES],
                is_whole: true,
                limit: usize::try_from(shared.ring_bytes / 4).unwrap_or(usize::MAX),
            },
            saved: Vec::new(),
            reserved: None,
            kept_early: 0,
            broken: false,
            moves: None,
        }
    }

    /// The table called `name`, which comes into being with its first entry. Whatever
    /// alignment and types its record names: entries are bytes.
    ///
    /// # Errors
    ///
    /// [`WriteError::Table`] if it is a multi-map or compressed; [`WriteError::Read`];
    /// [`WriteError::KeyTooLong`] for the name, which is a key.
    pub fn table(&mut self, name: &str) -> Result<TableMut<'_, 's>, WriteError> {
        let index = self.open_table(name)?;
        let table = &self.tables[index];
        if !table.options.is_raw() {
            return Err(table.mismatch(&TableOptions::new()).into());
        }
        Ok(TableMut { txn: self, index })
    }

    /// The table called `name`, which is created with these options if it is not there.
    ///
    /// # Errors
    ///
    /// [`WriteError::Table`] if it is there with other options, or no table can have
    /// these; else as [`WriteTxn::table`].
    pub fn table_with(
        &mut self,
        name: &str,
        options: &TableOptions,
    ) -> Result<TableMut<'_, 's>, WriteError> {
        self.raw_table_with(name, options)
    }

    /// The table as its entries are stored, whatever they mean: what recovery changes.
    pub(crate) fn raw_table(&mut self, name: &str) -> Result<TableMut<'_, 's>, WriteError> {
        let index = self.open_table(name)?;
        Ok(TableMut { txn: self, index })
    }

    /// Like [`WriteTxn::table_with`], for tables of all kinds.
    pub(crate) fn raw_table_with(
        &mut self,
        name: &str,
        options: &TableOptions,
    ) -> Result<TableMut<'_, 's>, WriteError> {
        if self.broken {
            return Err(WriteError::Broken);
        }
        let index = self.open_table(name)?;
        if !self.tables[index].exists {
            self.define(index, options)?;
        }
        let table = &self.tables[index];
        if table.options != *options {
            return Err(table.mismatch(options).into());
        }
        Ok(TableMut { txn: self, index })
    }

    /// Takes the table called `name` out, with all it holds, whatever its options are;
    /// false if it was not there.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], after which the transaction can only be dropped;
    /// [`WriteError::Broken`]; [`WriteError::KeyTooLong`] for the name.
    ///
    /// # Complexity
    ///
    /// Reads each node of the table.
    pub fn delete_table(&mut self, name: &str) -> Result<bool, WriteError> {
        if self.broken {
            return Err(WriteError::Broken);
        }
        self.settle_reserved()?;
        let index = self.open_table(name)?;
        let table = &mut self.tables[index];
        if !table.exists {
            return Ok(false);
        }
        let root = table.record.root;
        (table.record, table.options) = (TableRecord::EMPTY, TableOptions::new());
        (table.exists, table.changed) = (false, true);
        let result = mutate::drop_tree(&mut self.work, root);
        self.broken |= result.is_err();
        result?;
        let table = name.as_bytes();
        let keep = !self.saved.is_empty();
        self.record.log(Change::Drop { table }, keep);
        Ok(true)
    }

    pub(super) fn open_table(&mut self, name: &str) -> Result<usize, WriteError> {
        check_key(name.as_bytes())?;
        let known = self.tables.iter().position(|table| &*table.name == name);
        if let Some(index) = known {
            return Ok(index);
        }
        let found = search::get(&self.work, self.root, name.as_bytes())?;
        let (record, options) = match found {
            Some(bytes) => TableRecord::decode(bytes)
                .and_then(|(record, schema)| Some((record, decode_schema(schema)?)))
                .ok_or(damaged(self.root.page, Flaw::Record))?,
            None => (TableRecord::EMPTY, TableOptions::new()),
        };
        let exists = found.is_some();
        self.tables.push(OpenTable {
            name: name.into(),
            record,
            options,
            exists,
            changed: false,
        });
        Ok(self.tables.len() - 1)
    }

    /// Gives options to a table that is not there yet.
    fn define(&mut self, index: usize, options: &TableOptions) -> Result<(), TableError> {
        let table = &mut self.tables[index];
        if let Err(reason) = options.validate() {
            return Err(TableError::Options {
                table: table.name.clone(),
                reason,
            });
        }
        table.options = options.clone();
        if options.is_plain() {
            return Ok(());
        }
        (table.exists, table.changed) = (true, true);
        let (table, mut schema) = (table.name.as_bytes(), Vec::new());
        encode_schema(options, &mut schema);
        let schema = &schema;
        let keep = !self.saved.is_empty();
        self.record.log(Change::Define { table, schema }, keep);
        Ok(())
    }
}

/// What goes into the ring.
#[derive(Debug)]
pub(crate) struct RingRecord {
    /// The record, without its header's content.
    pub(crate) bytes: Vec<u8>,
    /// Whether it has every change; not if it became longer than the ring takes.
    pub(crate) is_whole: bool,
    /// Longest record that goes to the ring.
    pub(super) limit: usize,
}

impl RingRecord {
    /// Adds a change, unless the record is too long already. `keep` says that the start
    /// of the record may be gone back to.
    pub(super) fn log(&mut self, change: Change<'_>, keep: bool) {
        if !self.is_whole {
            return;
        }
        if self.bytes.len() + ring::bytes_of(change) > self.limit {
            self.is_whole = false;
            if !keep {
                self.bytes = Vec::new();
            }
            return;
        }
        ring::push(&mut self.bytes, change);
    }
}

impl OpenTable {
    /// Where its values start.
    pub(crate) fn alignment(&self) -> Alignment {
        let checked = self.options.alignment_checked();
        checked.expect("options are checked before a table has them")
    }

    #[cold]
    fn mismatch(&self, asked: &TableOptions) -> TableError {
        TableError::Mismatch {
            table: self.name.clone(),
            recorded: Box::new(self.options.clone()),
            asked: Box::new(asked.clone()),
        }
    }
}

pub(super) fn check_key(key: &[u8]) -> Result<(), WriteError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(WriteError::KeyTooLong {
            bytes: key.len(),
            most: MAX_KEY_BYTES,
        });
    }
    Ok(())
}

/// A table in a write transaction.
#[derive(Debug)]
pub struct TableMut<'t, 's> {
    pub(super) txn: &'t mut WriteTxn<'s>,
    pub(super) index: usize,
}

impl TableMut<'_, '_> {
    pub(super) fn root(&self) -> Child {
        self.txn.tables[self.index].record.root
    }

    /// Whether it is there, and a multi-map.
    pub(crate) fn is_multi_map(&self) -> bool {
        let table = &self.txn.tables[self.index];
        table.exists && table.options.multi_map
    }

    /// What the table was created with.
    pub fn options(&self) -> &TableOptions {
        &self.txn.tables[self.index].options
    }

    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.txn.tables[self.index].record.len
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of `key`, with the changes of this transaction.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, WriteError> {
        self.check_whole()?;
        let found = search::get(&self.txn.work, self.root(), key);
        Ok(self.txn.shared.pages.intact(found)?)
    }

    /// Where the table is read from.
    pub(crate) fn source(&self) -> Result<(&Work<'_>, TableRecord), WriteError> {
        self.check_whole()?;
        Ok((&self.txn.work, self.txn.tables[self.index].record))
    }

    pub(super) fn check_whole(&self) -> Result<(), WriteError> {
        if self.txn.broken {
            return Err(WriteError::Broken);
        }
        Ok(())
    }

    /// Stores `value` under `key`, in the place of an older one; true if the key is new.
    ///
    /// # Errors
    ///
    /// [`WriteError::KeyTooLong`], which leaves the transaction as it was;
    /// [`WriteError::Read`], after which it can only be dropped; [`WriteError::Broken`].
    ///
    /// # Complexity
    ///
    /// One node a level, each copied the first time the transaction touches it.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        check_key(key)?;
        self.begin()?;
        let table = &self.txn.tables[self.index];
        let (mut record, alignment) = (table.record, table.alignment());
        let root = &mut record.root;
        let result = mutate::put(&mut self.txn.work, root, alignment, key, value);
        let new = self.finish(result)?;
        record.len += u64::from(new);
        self.changed(record);
        self.log(key, Some(value));
        Ok(new)
    }

    /// Stores `value` under `key` if there is nothing; true if it did.
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`].
    pub fn insert_if_absent(&mut self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        if self.get(key)?.is_some() {
            return Ok(false);
        }
        self.put(key, value)
    }

    /// If the value of `key` is `expected` (`None`: there is none), replaces it by `new`
    /// (`None`: deletes it); true if it did.
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`].
    pub fn compare_and_swap(
        &mut self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool, WriteError> {
        if self.get(key)? != expected {
            return Ok(false);
        }
        match new {
            Some(value) => self.put(key, value)?,
            None => self.delete(key)?,
        };
        Ok(true)
    }

    /// Takes `key` out; false if it was not there.
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, WriteError> {
        self.begin()?;
        let mut record = self.txn.tables[self.index].record;
        let result = mutate::delete(&mut self.txn.work, &mut record.root, key);
        let existed = self.finish(result)?;
        if existed {
            record.len = record.len.saturating_sub(1);
            self.changed(record);
            self.log(key, None);
        }
        Ok(existed)
    }

    /// Takes the entries whose keys lie in `bounds` out; how many there were.
    ///
    /// # Errors
    ///
    /// As [`TableMut::delete`]; what was taken out before the error stays out.
    ///
    /// # Complexity
    ///
    /// One look-up, one deletion and one line in the record of the ring for each entry.
    pub fn delete_range<K: AsRef<[u8]> + ?Sized>(
        &mut self,
        bounds: impl RangeBounds<K>,
    ) -> Result<u64, WriteError> {
        self.check_whole()?;
        let (start, after) = match bounds.start_bound() {
            Bound::Included(key) => (key.as_ref(), false),
            Bound::Excluded(key) => (key.as_ref(), true),
            Bound::Unbounded => (&[][..], false),
        };
        let (mut key, mut count) = (Vec::new(), 0);
        loop {
            // All entries between `start` and the next one are gone already.
            let cursor = Cursor::seek(&self.txn.work, self.root(), start, after)?;
            let found = cursor.entry(&self.txn.work, &mut key)?.is_some();
            let inside = match bounds.end_bound() {
                Bound::Included(end) => key.as_slice() <= end.as_ref(),
                Bound::Excluded(end) => key.as_slice() < end.as_ref(),
                Bound::Unbounded => true,
            };
            if !found || !inside {
                return Ok(count);
            }
            self.delete(&key)?;
            count += 1;
        }
    }

    /// What comes before each change.
    pub(super) fn begin(&mut self) -> Result<(), WriteError> {
        self.check_whole()?;
        Ok(self.txn.settle_reserved()?)
    }

    /// After a failure half way the nodes in memory may not be a tree any more.
    pub(super) fn finish<T>(&mut self, result: Result<T, ReadError>) -> Result<T, WriteError> {
        let result = self.txn.shared.pages.intact(result);
        self.txn.broken |= result.is_err();
        Ok(result?)
    }

    pub(super) fn changed(&mut self, record: TableRecord) {
        let table = &mut self.txn.tables[self.index];
        table.record = record;
        (table.exists, table.changed) = (true, true);
    }

    fn log(&mut self, key: &[u8], value: Option<&[u8]>) {
        let keep = !self.txn.saved.is_empty();
        let table = self.txn.tables[self.index].name.as_bytes();
        let change = match value {
            Some(value) => Change::Put { table, key, value },
            None => Change::Delete { table, key },
        };
        self.txn.record.log(change, keep);
    }
}
