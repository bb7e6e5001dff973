//! Values that are written in place.
//!
//! The memory is lent when the value is stored, and its bytes are final only when the
//! loan is over, which the borrow checker says and nobody tells us. So the transaction
//! remembers the loan, and its next operation, savepoint or commit copies the bytes into
//! the record for the ring and sums them. Forgetting the slice does no harm.

use crate::error::{ReadError, WriteError};
use crate::format::ring::Change;
use crate::ids::{DIRTY_BIT, PAGE_BYTES, PAGE_BYTES_U64};
use crate::tree::memory::ValueMemory;
use crate::tree::{mutate, search};
use crate::txn::write::{TableMut, WriteTxn, check_key};

/// Memory that was lent.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// Index of the table.
    table: usize,
    key: Box<[u8]>,
}

impl WriteTxn<'_> {
    /// The loan is over: what the memory holds is the value.
    pub(super) fn settle_reserved(&mut self) -> Result<(), ReadError> {
        let Some(Reserved { table, key }) = self.reserved.take() else {
            return Ok(());
        };
        let keep = !self.saved.is_empty();
        let table = &self.tables[table];
        let root = table.record.root;
        let mut settle = || {
            mutate::seal_reserved(&mut self.work, root, &key)?;
            let value = search::get(&self.work, root, &key)?.unwrap_or(&[]);
            let table = table.name.as_bytes();
            let key = &key[..];
            self.record.log(Change::Put { table, key, value }, keep);
            Ok(())
        };
        let result = settle();
        self.broken |= result.is_err();
        result
    }
}

impl TableMut<'_, '_> {
    /// Stores `bytes` zeros under `key`, in the place of an older value, and lends them to
    /// be written over: large values are put together where they are kept.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = brickyard_store::Options::new().open_in_memory()?;
    /// let mut write = store.write()?;
    /// let mut table = write.table("images")?;
    /// let image = table.reserve(b"black to white", 256)?;
    /// for (to, byte) in image.iter_mut().zip(0..=u8::MAX) {
    ///     *to = byte;
    /// }
    /// assert_eq!(table.get(b"black to white")?.map(|image| image[200]), Some(200));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`]; [`WriteError::ValueTooLong`], which leaves the transaction
    /// as it was.
    ///
    /// # Complexity
    ///
    /// As [`TableMut::put`]. If the transaction is short enough for the ring, its next
    /// operation copies the value once.
    pub fn reserve(&mut self, key: &[u8], bytes: usize) -> Result<&mut [u8], WriteError> {
        check_key(key)?;
        self.begin()?;
        if !fits(bytes) {
            return Err(WriteError::ValueTooLong { bytes });
        }
        let table = &self.txn.tables[self.index];
        let (mut record, alignment) = (table.record, table.alignment());
        let memory = ValueMemory::zeroed(bytes, alignment);
        let root = &mut record.root;
        let result = mutate::put_owned(&mut self.txn.work, root, alignment, key, memory);
        let new = self.finish(result)?;
        record.len += u64::from(new);
        self.changed(record);
        self.txn.reserved = Some(Reserved {
            table: self.index,
            key: key.into(),
        });
        let result = mutate::reserved(&mut self.txn.work, record.root, key);
        self.txn.broken |= result.is_err();
        Ok(result?)
    }
}

/// Whether a file has room for a value of so many bytes, and memory for now.
fn fits(bytes: usize) -> bool {
    let most = u64::from(DIRTY_BIT) * PAGE_BYTES_U64;
    // The allocator is asked, since running out of memory later ends the process.
    let with_alignment = bytes.saturating_add(PAGE_BYTES);
    bytes as u64 <= most && Vec::<u8>::new().try_reserve_exact(with_alignment).is_ok()
}
