//! Changing the store: one transaction at a time, all or nothing.

use core::ops::{Bound, RangeBounds};

use crate::error::{Flaw, ReadError, WriteError, damaged};
use crate::format::ring::{self, Change};
use crate::format::table::TableRecord;
use crate::ids::{Child, MAX_KEY_BYTES};
use crate::shared::{Head, Shared};
use crate::sync::MutexGuard;
use crate::tree::cursor::Cursor;
use crate::tree::work::Work;
use crate::tree::{mutate, search};
use crate::txn::savepoint::Saved;

/// A table that the transaction has looked at.
#[derive(Clone, Debug)]
pub(crate) struct OpenTable {
    pub(crate) name: Box<str>,
    pub(crate) record: TableRecord,
    pub(crate) changed: bool,
}

/// A write transaction: sees its own changes, others see them after the commit. Dropping
/// it undoes everything. Others that want to write wait while it lives.
#[derive(Debug)]
pub struct WriteTxn<'s> {
    pub(crate) shared: &'s Shared,
    pub(crate) head: MutexGuard<'s, Head>,
    pub(crate) work: Work<'s>,
    /// Root of the tree of tables.
    pub(crate) root: Child,
    pub(crate) tables: Vec<OpenTable>,
    /// The record for the ring, without its header's content.
    pub(crate) record: Vec<u8>,
    /// Whether `record` has every change; not if it became longer than the ring takes.
    pub(crate) is_recorded: bool,
    /// Longest record that goes to the ring.
    record_limit: usize,
    /// Savepoints that live, oldest first.
    pub(crate) saved: Vec<Saved>,
    /// An operation failed half way.
    pub(crate) broken: bool,
}

impl<'s> WriteTxn<'s> {
    pub(crate) fn begin(shared: &'s Shared, head: MutexGuard<'s, Head>) -> Self {
        let txn = head.version.txn + 1;
        Self {
            shared,
            work: Work::new(&shared.pages, txn),
            root: head.version.root,
            head,
            tables: Vec::new(),
            record: vec![0; ring::HEADER_BYTES],
            is_recorded: true,
            saved: Vec::new(),
            record_limit: usize::try_from(shared.ring_bytes / 4).unwrap_or(usize::MAX),
            broken: false,
        }
    }

    /// The table called `name`, which comes into being with its first entry.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`]; [`WriteError::KeyTooLong`] for the name, which is a key.
    pub fn table(&mut self, name: &str) -> Result<TableMut<'_, 's>, WriteError> {
        check_key(name.as_bytes())?;
        let known = self.tables.iter().position(|table| &*table.name == name);
        let index = match known {
            Some(index) => index,
            None => self.open_table(name)?,
        };
        Ok(TableMut { txn: self, index })
    }

    fn open_table(&mut self, name: &str) -> Result<usize, ReadError> {
        let found = search::get(&self.work, self.root, name.as_bytes())?;
        let record = match found {
            Some(bytes) => {
                TableRecord::decode(bytes).ok_or(damaged(self.root.page, Flaw::Record))?
            }
            None => TableRecord::EMPTY,
        };
        self.tables.push(OpenTable {
            name: name.into(),
            record,
            changed: false,
        });
        Ok(self.tables.len() - 1)
    }

    /// Adds a change to the record for the ring, unless that is too long already.
    fn log(&mut self, index: usize, key: &[u8], value: Option<&[u8]>) {
        if !self.is_recorded {
            return;
        }
        let table = self.tables[index].name.as_bytes();
        let value_bytes = value.map_or(0, <[u8]>::len);
        let bytes = self.record.len() + table.len() + key.len() + value_bytes;
        if bytes + 16 > self.record_limit {
            self.is_recorded = false;
            if self.saved.is_empty() {
                // Otherwise the start of it may be gone back to.
                self.record = Vec::new();
            }
            return;
        }
        let change = match value {
            Some(value) => Change::Put { table, key, value },
            None => Change::Delete { table, key },
        };
        ring::push(&mut self.record, change);
    }
}

fn check_key(key: &[u8]) -> Result<(), WriteError> {
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
    txn: &'t mut WriteTxn<'s>,
    index: usize,
}

impl TableMut<'_, '_> {
    fn root(&self) -> Child {
        self.txn.tables[self.index].record.root
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
        Ok(search::get(&self.txn.work, self.root(), key)?)
    }

    fn check_whole(&self) -> Result<(), WriteError> {
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
        self.check_whole()?;
        let mut record = self.txn.tables[self.index].record;
        let result = mutate::put(&mut self.txn.work, &mut record.root, key, value);
        let new = self.finish(result)?;
        record.len += u64::from(new);
        self.changed(record);
        self.txn.log(self.index, key, Some(value));
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
        self.check_whole()?;
        let mut record = self.txn.tables[self.index].record;
        let result = mutate::delete(&mut self.txn.work, &mut record.root, key);
        let existed = self.finish(result)?;
        if existed {
            record.len = record.len.saturating_sub(1);
            self.changed(record);
            self.txn.log(self.index, key, None);
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

    /// After a failure half way the nodes in memory may not be a tree any more.
    fn finish<T>(&mut self, result: Result<T, ReadError>) -> Result<T, WriteError> {
        self.txn.broken |= result.is_err();
        Ok(result?)
    }

    fn changed(&mut self, record: TableRecord) {
        let table = &mut self.txn.tables[self.index];
        table.record = record;
        table.changed = true;
    }
}
