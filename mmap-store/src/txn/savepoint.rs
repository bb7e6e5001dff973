//! Savepoints: going back to an earlier state of a write transaction.
//!
//! Nothing is copied when a savepoint is made, but for the list of open tables. A node
//! that was in the transaction's memory then is copied once more when it is changed
//! after it, as a page of the file is when the transaction first changes it
//! ([`Work::make_dirty`](crate::tree::work::Work::make_dirty)); a log names what was made
//! and what was given up since.

use crate::error::WriteError;
use crate::sync::{AtomicU64, Ordering};
use crate::tree::work::Mark;
use crate::txn::write::{OpenTable, WriteTxn};

/// Names a state of a [`WriteTxn`]; see [`WriteTxn::savepoint`].
///
/// Dropping it gives nothing up: what it keeps goes with the transaction, or with
/// [`WriteTxn::release`].
#[derive(Debug)]
#[must_use = "without it the state cannot be gone back to"]
pub struct Savepoint {
    id: u64,
}

/// What the transaction was at a savepoint.
#[derive(Debug)]
pub(crate) struct Saved {
    id: u64,
    work: Mark,
    tables: Vec<OpenTable>,
    /// Length of the record, if it had every change.
    recorded: Option<usize>,
    kept_early: usize,
}

/// A number that no other savepoint of the process has: that of another transaction or
/// store is never taken for one's own.
fn new_id() -> u64 {
    static SAVEPOINTS: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only the number counts, nothing is read through it.
    SAVEPOINTS.fetch_add(1, Ordering::Relaxed)
}

impl WriteTxn<'_> {
    /// Notes the state that the transaction is in, for [`WriteTxn::roll_back`]. Savepoints
    /// nest: as many may live as one likes.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = brickyard_store::Options::new().open_in_memory()?;
    /// let mut write = store.write()?;
    /// write.table("stock")?.put(b"apples", b"7")?;
    /// let before = write.savepoint()?;
    /// write.table("stock")?.delete(b"apples")?;
    /// write.roll_back(&before)?;
    /// assert_eq!(write.table("stock")?.get(b"apples")?, Some(&b"7"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError::Broken`].
    ///
    /// # Complexity
    ///
    /// As the number of tables that the transaction has opened. Afterwards each node
    /// that the transaction had changed before is copied once more when it is changed
    /// again.
    pub fn savepoint(&mut self) -> Result<Savepoint, WriteError> {
        if self.broken {
            return Err(WriteError::Broken);
        }
        self.settle_reserved()?;
        let id = new_id();
        let saved = Saved {
            id,
            work: self.work.mark(),
            tables: self.tables.clone(),
            recorded: self.record.is_whole.then_some(self.record.bytes.len()),
            kept_early: self.kept_early,
        };
        self.saved.push(saved);
        Ok(Savepoint { id })
    }

    /// Makes the transaction what it was at `savepoint`, as often as one likes. Later
    /// savepoints are given up. This also mends a transaction in which an operation
    /// failed half way after the savepoint.
    ///
    /// # Errors
    ///
    /// [`WriteError::NoSavepoint`].
    ///
    /// # Complexity
    ///
    /// As the number of nodes that were copied or made since.
    pub fn roll_back(&mut self, savepoint: &Savepoint) -> Result<(), WriteError> {
        let index = self.saved_index(savepoint)?;
        self.saved.truncate(index + 1);
        let saved = &self.saved[index];
        self.work.roll_back(saved.work);
        self.tables.clone_from(&saved.tables);
        self.record.is_whole = saved.recorded.is_some();
        if let Some(bytes) = saved.recorded {
            self.record.bytes.truncate(bytes);
        }
        // What was lent since is gone.
        self.reserved = None;
        self.kept_early = saved.kept_early;
        self.head.give_back(self.kept_early);
        self.broken = false;
        Ok(())
    }

    /// Gives `savepoint` and all later ones up, and keeps what was done since.
    ///
    /// # Errors
    ///
    /// [`WriteError::NoSavepoint`].
    ///
    /// # Complexity
    ///
    /// Constant; for the oldest one as the number of nodes that were kept.
    pub fn release(&mut self, savepoint: Savepoint) -> Result<(), WriteError> {
        let index = self.saved_index(&savepoint)?;
        self.saved.truncate(index);
        match self.saved.last() {
            Some(saved) => self.work.keep_from(saved.work),
            None => self.forget_savepoints(),
        }
        Ok(())
    }

    fn saved_index(&self, savepoint: &Savepoint) -> Result<usize, WriteError> {
        let found = self.saved.iter().position(|saved| saved.id == savepoint.id);
        found.ok_or(WriteError::NoSavepoint)
    }

    /// Gives all savepoints up.
    pub(crate) fn forget_savepoints(&mut self) {
        self.saved.clear();
        self.work.forget_marks();
        if !self.record.is_whole {
            self.record.bytes = Vec::new();
        }
    }
}
