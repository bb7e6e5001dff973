//! Loading entries in any order: sorted outside of memory, then appended.

use std::io;
use std::path::PathBuf;

use crate::error::LoadError;
use crate::spill::{Sorted, Sorter};
use crate::txn::write::{TableMut, check_key};

/// How [`TableMut::bulk_load_with`] sorts.
#[derive(Clone, Debug)]
#[must_use]
pub struct LoadOptions {
    memory_bytes: usize,
    dir: Option<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            dir: None,
        }
    }
}

impl LoadOptions {
    /// The defaults: 64 MiB of memory, and temporary files in the store's folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of memory for sorting. What does not fit goes to a temporary file.
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// The folder for temporary files. They have no names there, and are gone with the
    /// process, whatever ends it.
    pub fn temporary_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }
}

impl TableMut<'_, '_> {
    /// Stores entries that come in any order; how many different keys there were. Of equal
    /// keys the last one counts, and entries replace what the table has.
    ///
    /// As fast as sorting allows where the keys are above those of the table, as for an
    /// empty one: leaves are full and written one after another
    /// ([`TableMut::appender`]). Entries among those of the table are put, in order.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = brickyard_store::Options::new().open_in_memory()?;
    /// let mut write = store.write()?;
    /// let words = ["pear", "apple", "fig", "apple"];
    /// let lengths = words.map(|word| (word, word.len().to_string()));
    /// assert_eq!(write.table("words")?.bulk_load(lengths)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Any [`LoadError`] but [`LoadError::Order`]; nothing of it is in the table then.
    ///
    /// # Complexity
    ///
    /// Sorts; reads and writes what does not fit in memory once more.
    pub fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<u64, LoadError> {
        self.bulk_load_with(&LoadOptions::new(), entries)
    }

    /// Like [`TableMut::bulk_load`], with options.
    ///
    /// # Errors
    ///
    /// As [`TableMut::bulk_load`].
    pub fn bulk_load_with<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        options: &LoadOptions,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<u64, LoadError> {
        self.begin()?;
        let backing = self.txn.shared.pages.backing();
        let own = backing.dir().map_or_else(std::env::temp_dir, Into::into);
        let dir = options.dir.clone().unwrap_or(own);
        let mut sorter = Sorter::new(options.memory_bytes, dir);
        for (key, value) in entries {
            check_key(key.as_ref())?;
            let pushed = sorter.push(key.as_ref(), value.as_ref());
            pushed.map_err(spilled)?;
        }
        let sorted = sorter.finish().map_err(spilled)?;
        let savepoint = self.txn.savepoint()?;
        let result = self.store_sorted(sorted);
        if result.is_err() {
            self.txn.roll_back(&savepoint)?;
        }
        self.txn.release(savepoint)?;
        result
    }

    fn store_sorted(&mut self, mut sorted: Sorted) -> Result<u64, LoadError> {
        let last = self.last_key()?;
        let mut count = 0;
        let mut next = sorted.next().map_err(spilled)?;
        // Up to the last key of the table.
        while let (Some((key, value)), Some(last)) = (next, &last) {
            if key > last.as_slice() {
                break;
            }
            self.put(key, value)?;
            count += 1;
            next = sorted.next().map_err(spilled)?;
        }
        let mut appender = self.appender()?;
        while let Some((key, value)) = next {
            appender.append(key, value)?;
            next = sorted.next().map_err(spilled)?;
        }
        Ok(count + appender.finish()?)
    }
}

fn spilled(source: io::Error) -> LoadError {
    LoadError::Io {
        action: "sort in a temporary file",
        source,
    }
}
