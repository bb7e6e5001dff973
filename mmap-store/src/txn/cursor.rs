//! Walking through a table while changing it.
//!
//! A cursor knows its place by the key. The path through the tree is kept as long as the
//! cursor does not write, which makes steps cheap; after a change it is found again by
//! the key. Nobody else can write meanwhile: the cursor borrows the table. A
//! [`Position`] borrows nothing, has no path, and is found again wherever it is used.

use crate::error::WriteError;
use crate::tree::cursor::Cursor;
use crate::txn::write::TableMut;

/// An entry of a table with the changes of its transaction.
type Entry<'c> = (&'c [u8], &'c [u8]);

/// Where a cursor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    /// Before all entries.
    Start,
    /// On the entry with the key.
    Entry,
    /// Where the key was: after all smaller ones, before all others.
    Gap,
    /// After all entries.
    End,
}

/// A place in a table that borrows nothing: it stays good whatever becomes of the table,
/// also from one transaction to another. See [`CursorMut::position`].
///
/// It is known by its key. If the entry is gone, it is between the entries around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    spot: Spot,
    key: Vec<u8>,
}

/// A place in a table of a write transaction, from which one reads and writes.
///
/// | call | where the cursor is then |
/// |---|---|
/// | `seek`, `first`, `last`, `next`, `prev` | on the entry they give; before or after all, if none |
/// | `put` | where it was |
/// | `insert` | on the new entry |
/// | `delete` | between the entries around: `next` gives the one after |
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = brickyard_store::Options::new().open_in_memory()?;
/// let mut write = store.write()?;
/// let mut table = write.table("ages")?;
/// table.put(b"Ada", b"36")?;
/// table.put(b"Bob", b"17")?;
/// let mut cursor = table.cursor();
/// while let Some((_, age)) = cursor.next()? {
///     if age < &b"18"[..] {
///         cursor.delete()?;
///     }
/// }
/// assert_eq!(table.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CursorMut<'c, 's> {
    table: TableMut<'c, 's>,
    spot: Spot,
    key: Vec<u8>,
    /// The way to the entry, if nothing was written since.
    path: Option<Cursor>,
}

impl<'s> TableMut<'_, 's> {
    /// A cursor before all entries.
    pub fn cursor(&mut self) -> CursorMut<'_, 's> {
        self.cursor_at(Position {
            spot: Spot::Start,
            key: Vec::new(),
        })
    }

    /// A cursor where another one was.
    ///
    /// # Complexity
    ///
    /// Constant; the next move looks the key up.
    pub fn cursor_at(&mut self, position: Position) -> CursorMut<'_, 's> {
        CursorMut {
            table: TableMut {
                txn: self.txn,
                index: self.index,
            },
            spot: position.spot,
            key: position.key,
            path: None,
        }
    }
}

impl CursorMut<'_, '_> {
    /// The place, for [`TableMut::cursor_at`] after the table was changed by other means.
    pub fn position(&self) -> Position {
        Position {
            spot: self.spot,
            key: self.key.clone(),
        }
    }

    /// The entry that the cursor is on.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn current(&mut self) -> Result<Option<Entry<'_>>, WriteError> {
        if self.spot != Spot::Entry {
            return Ok(None);
        }
        if self.path.is_none() {
            let wanted = self.key.clone();
            let path = self.find(false)?;
            if self
                .land(path, Spot::End)?
                .is_none_or(|(key, _)| key != wanted)
            {
                (self.spot, self.key, self.path) = (Spot::Gap, wanted, None);
                return Ok(None);
            }
        }
        self.entry()
    }

    /// To the first entry whose key is not below `key`.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    ///
    /// # Complexity
    ///
    /// One node a level.
    pub fn seek(&mut self, key: &[u8]) -> Result<Option<Entry<'_>>, WriteError> {
        self.key.clear();
        self.key.extend_from_slice(key);
        let path = self.find(false)?;
        self.land(path, Spot::End)
    }

    /// To the entry with the smallest key.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn first(&mut self) -> Result<Option<Entry<'_>>, WriteError> {
        self.seek(&[])
    }

    /// To the entry with the largest key.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn last(&mut self) -> Result<Option<Entry<'_>>, WriteError> {
        let path = Cursor::end(self.table.root());
        self.step_back(path)
    }

    /// To the next entry: from before all to the first, from the last to after all.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    ///
    /// # Complexity
    ///
    /// Constant, on average; one node a level after a change.
    #[expect(
        clippy::should_implement_trait,
        reason = "the entry is lent until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, WriteError> {
        let path = match (self.spot, self.path.take()) {
            (Spot::Start, _) => return self.first(),
            (Spot::End, _) => return Ok(None),
            (Spot::Entry, Some(mut path)) => {
                self.table.check_whole()?;
                path.forward(&self.table.txn.work)?;
                path
            }
            (Spot::Entry, None) => self.find(true)?,
            (Spot::Gap, _) => self.find(false)?,
        };
        self.land(path, Spot::End)
    }

    /// To the entry before: from after all to the last, from the first to before all.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    ///
    /// # Complexity
    ///
    /// As [`CursorMut::next`].
    pub fn prev(&mut self) -> Result<Option<Entry<'_>>, WriteError> {
        let path = match (self.spot, self.path.take()) {
            (Spot::Start, _) => return Ok(None),
            (Spot::End, _) => return self.last(),
            (Spot::Entry, Some(path)) => path,
            (Spot::Entry | Spot::Gap, _) => self.find(false)?,
        };
        self.step_back(path)
    }

    /// Replaces the value of the entry that the cursor is on; false if it is on none.
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`].
    pub fn put(&mut self, value: &[u8]) -> Result<bool, WriteError> {
        if self.current()?.is_none() {
            return Ok(false);
        }
        self.path = None;
        self.table.put(&self.key, value)?;
        Ok(true)
    }

    /// Stores `value` under `key`, wherever that is, and goes there; true if the key is
    /// new.
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`].
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        let new = self.table.put(key, value)?;
        self.path = None;
        self.spot = Spot::Entry;
        self.key.clear();
        self.key.extend_from_slice(key);
        Ok(new)
    }

    /// Takes the entry that the cursor is on out; false if it is on none.
    ///
    /// # Errors
    ///
    /// As [`TableMut::delete`].
    pub fn delete(&mut self) -> Result<bool, WriteError> {
        if self.spot != Spot::Entry {
            return Ok(false);
        }
        self.path = None;
        let existed = self.table.delete(&self.key)?;
        self.spot = Spot::Gap;
        Ok(existed)
    }

    /// The way to the first entry that is not below the key; nor at it, if `after`.
    fn find(&self, after: bool) -> Result<Cursor, WriteError> {
        self.table.check_whole()?;
        let (work, root) = (&self.table.txn.work, self.table.root());
        Ok(Cursor::seek(work, root, &self.key, after)?)
    }

    /// To the entry before `path`.
    fn step_back(&mut self, mut path: Cursor) -> Result<Option<Entry<'_>>, WriteError> {
        self.table.check_whole()?;
        if !path.back(&self.table.txn.work)? {
            path = Cursor::end(self.table.root());
        }
        self.land(path, Spot::Start)
    }

    /// To the entry that `path` leads to; if to none, to `otherwise`.
    fn land(&mut self, path: Cursor, otherwise: Spot) -> Result<Option<Entry<'_>>, WriteError> {
        self.spot = if path.is_end() {
            otherwise
        } else {
            Spot::Entry
        };
        self.path = Some(path);
        self.entry()
    }

    fn entry(&mut self) -> Result<Option<Entry<'_>>, WriteError> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        let value = path.entry(&self.table.txn.work, &mut self.key)?;
        Ok(value.map(|value| (self.key.as_slice(), value)))
    }
}
