//! Reading a table with the changes of the transaction that makes them.

use core::cmp::Ordering;
use core::ops::{Bound, RangeBounds};

use crate::error::{ReadError, WriteError};
use crate::tree::cursor::Cursor;
use crate::tree::work::Work;
use crate::txn::read::{Entry, OwnedEntry, end_of_prefix};
use crate::txn::write::TableMut;

/// Entries in the order of their keys, with the changes of the transaction. Not an
/// `Iterator`, because a key is put together in the range's own memory and lasts until
/// the next one.
///
/// It borrows the table: who wants to change it on the way takes a
/// [`CursorMut`](crate::CursorMut).
#[derive(Debug)]
pub struct UncommittedRange<'t> {
    work: &'t Work<'t>,
    front: Cursor,
    back: Cursor,
    key: Vec<u8>,
}

impl TableMut<'_, '_> {
    /// The entry with the smallest key.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn first(&self) -> Result<Option<OwnedEntry<'_>>, WriteError> {
        let mut range = self.range::<[u8]>(..)?;
        Ok(range.next()?.map(|(key, value)| (key.to_vec(), value)))
    }

    /// The entry with the largest key.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn last(&self) -> Result<Option<OwnedEntry<'_>>, WriteError> {
        let mut range = self.range::<[u8]>(..)?;
        Ok(range.next_back()?.map(|(key, value)| (key.to_vec(), value)))
    }

    /// The entries whose keys lie in `bounds`, from either end.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn range<K: AsRef<[u8]> + ?Sized>(
        &self,
        bounds: impl RangeBounds<K>,
    ) -> Result<UncommittedRange<'_>, WriteError> {
        self.check_whole()?;
        let (work, root) = (&self.txn.work, self.root());
        let front = match bounds.start_bound() {
            Bound::Included(key) => Cursor::seek(work, root, key.as_ref(), false),
            Bound::Excluded(key) => Cursor::seek(work, root, key.as_ref(), true),
            Bound::Unbounded => Cursor::seek(work, root, &[], false),
        }?;
        let back = match bounds.end_bound() {
            Bound::Included(key) => Cursor::seek(work, root, key.as_ref(), true)?,
            Bound::Excluded(key) => Cursor::seek(work, root, key.as_ref(), false)?,
            Bound::Unbounded => Cursor::end(root),
        };
        Ok(UncommittedRange {
            work,
            front,
            back,
            key: Vec::new(),
        })
    }

    /// The entries whose keys start with `prefix`, from either end.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn prefix(&self, prefix: &[u8]) -> Result<UncommittedRange<'_>, WriteError> {
        let end = end_of_prefix(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.range::<[u8]>((Bound::Included(prefix), end))
    }
}

impl<'t> UncommittedRange<'t> {
    fn is_done(&self) -> bool {
        self.front.order(&self.back) != Ordering::Less
    }

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
        if self.is_done() {
            return Ok(None);
        }
        let value = self.front.entry(self.work, &mut self.key)?;
        self.front.forward(self.work)?;
        Ok(value.map(|value| (self.key.as_slice(), value)))
    }

    /// The next entry from the back.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn next_back(&mut self) -> Result<Option<Entry<'_, 't>>, ReadError> {
        if self.is_done() || !self.back.back(self.work)? {
            return Ok(None);
        }
        let value = self.back.entry(self.work, &mut self.key)?;
        Ok(value.map(|value| (self.key.as_slice(), value)))
    }
}
