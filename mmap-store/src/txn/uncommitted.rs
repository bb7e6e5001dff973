//! Reading a table with the changes of the transaction that makes them.

use core::ops::{Bound, RangeBounds};

use crate::error::{ReadError, WriteError};
use crate::tree::range::{TreeRange, as_slices};
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
    inner: TreeRange<'t, Work<'t>>,
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
        let (work, bounds) = (&self.txn.work, as_slices(&bounds));
        let inner = TreeRange::new(work, self.root(), self.len(), bounds)?;
        Ok(UncommittedRange { inner })
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
        self.inner.next()
    }

    /// The next entry from the back.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn next_back(&mut self) -> Result<Option<Entry<'_, 't>>, ReadError> {
        self.inner.next_back()
    }
}
