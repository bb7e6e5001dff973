//! The one way in which every store is used: one table of byte keys and values.
//!
//! What is read is handed to a closure, since the stores lend it in different ways. Every
//! write transaction is durable when `write` returns.

use std::path::Path;

use anyhow::Result;

/// Takes the next entry of a sorted load.
pub(crate) type Append<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<()>;

/// A store under test.
pub(crate) trait Store: Sync + Sized {
    /// The table as a read transaction sees it.
    type View<'v>: View
    where
        Self: 'v;

    /// Files that hold nothing after `settle`, whatever was written: a log of fixed size,
    /// which the rows about files leave out and the notes name.
    const EMPTY_LOG: &'static [&'static str] = &[];

    /// Opens the store in a folder that exists, and creates it if it is not there.
    fn open(dir: &Path) -> Result<Self>;

    /// Begins and ends a read transaction, and does nothing in it.
    fn begin(&self) -> Result<()>;

    /// Runs `body` in a read transaction with the table open.
    fn read<R>(&self, body: impl FnOnce(&Self::View<'_>) -> Result<R>) -> Result<R>;

    /// Runs `body` in a write transaction and commits it, durably.
    fn write(&self, body: impl FnOnce(&mut dyn Changes) -> Result<()>) -> Result<()>;

    /// Stores the entries that `body` gives, whose keys ascend and are above all that are
    /// there, by the store's best call for that; durable when it returns.
    fn append(&self, body: impl FnOnce(Append<'_>) -> Result<()>) -> Result<()> {
        self.write(|changes| body(&mut |key, value| changes.append(key, value)))
    }

    /// Brings what was committed into its final place, where that is done later than the
    /// commit. False if the store has no such step.
    fn settle(&self) -> Result<bool>;
}

/// A table that is read.
pub(crate) trait View {
    /// Hands the value of `key` to `take`.
    fn get<R>(&self, key: &[u8], take: impl FnOnce(Option<&[u8]>) -> R) -> Result<R>;

    /// Hands the value of each key to `take`; one by one where the store has no such call.
    #[inline]
    fn get_many(&self, keys: &[&[u8]], mut take: impl FnMut(usize, Option<&[u8]>)) -> Result<()> {
        for (index, key) in keys.iter().enumerate() {
            self.get(key, |value| take(index, value))?;
        }
        Ok(())
    }

    /// Hands up to `most` entries from `from` on to `each`; how many there were.
    fn scan(&self, from: &[u8], most: usize, each: impl FnMut(&[u8], &[u8])) -> Result<usize>;
}

/// A table that is written.
pub(crate) trait Changes {
    /// Stores a value under a key.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Stores a value under a key above all others, by the transaction's own call for that
    /// if it has one.
    fn append(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put(key, value)
    }

    /// Takes a key out.
    fn delete(&mut self, key: &[u8]) -> Result<()>;
}
