//! Loading entries that ascend: pages are written before the commit.
//!
//! Pages that are free may be written to at any time. So full nodes go to the file while
//! the transaction goes on, some hundred at a time and next to one another, and what is
//! in memory stays small. Nobody names them before the commit: a crash leaves them free,
//! and a transaction that ends otherwise gives them back
//! ([`Turn`](crate::shared::Turn)).

use std::io::IoSlice;

use crate::error::{LoadError, WriteError};
use crate::format::ring::Change;
use crate::format::table::LargeRef;
use crate::ids::{Child, Extent, PAGE_BYTES, PageBuf, pages_for};
use crate::tree::bulk::{Builder, Output, graft};
use crate::tree::cursor::Cursor;
use crate::tree::edit::NodeMut;
use crate::tree::mutate;
use crate::txn::write::{RingRecord, TableMut, WriteTxn, check_key};

/// The first run of pages that is taken, and the longest: each is twice the one before.
const LEAST_RUN_PAGES: u32 = 16;
const MOST_RUN_PAGES: u32 = 1024;
/// Bytes that are written at a time: nodes are kept in memory up to so many.
const WRITE_BYTES: usize = 1 << 20;

/// Appends entries to a table; see [`TableMut::appender`].
#[derive(Debug)]
#[must_use = "without `finish` nothing is appended"]
pub struct Appender<'t, 's> {
    txn: &'t mut WriteTxn<'s>,
    index: usize,
    builder: Builder,
    ahead: Ahead,
    /// What the ring will have to say of it.
    record: RingRecord,
    /// The last key, if there is an entry in the table or here.
    last: Option<Vec<u8>>,
    entries: u64,
    failed: bool,
}

/// Pages that were taken, and nodes that are not written yet.
#[derive(Debug)]
struct Ahead {
    /// Pages taken and not given out.
    run: Extent,
    /// Length of the next run.
    next: u32,
    /// Nodes whose pages end where `run` begins.
    nodes: Vec<u8>,
}

impl<'s> TableMut<'_, 's> {
    /// Begins to append entries whose keys ascend and are above all that are there.
    ///
    /// Leaves are filled to the brim and written as they become full: a load of any
    /// length needs little memory, and its pages lie next to one another. A load of more
    /// than a quarter of the ring commits as a checkpoint.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = brickyard_store::Options::new().open_in_memory()?;
    /// let mut write = store.write()?;
    /// let mut table = write.table("squares")?;
    /// let mut squares = table.appender()?;
    /// for n in 0..10_000_u32 {
    ///     squares.append(&n.to_be_bytes(), &(n * n).to_be_bytes())?;
    /// }
    /// assert_eq!(squares.finish()?, 10_000);
    /// write.commit()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn appender(&mut self) -> Result<Appender<'_, 's>, WriteError> {
        self.begin()?;
        let last = self.last_key()?;
        let alignment = self.txn.tables[self.index].alignment();
        let txn = &mut *self.txn;
        // Those of an appender that was not finished.
        txn.head.give_back(txn.kept_early);
        let record = RingRecord {
            bytes: Vec::new(),
            is_whole: txn.record.is_whole,
            limit: txn.record.limit.saturating_sub(txn.record.bytes.len()),
        };
        Ok(Appender {
            txn,
            index: self.index,
            builder: Builder::new(alignment),
            ahead: Ahead {
                run: Extent { first: 0, pages: 0 },
                next: LEAST_RUN_PAGES,
                nodes: Vec::new(),
            },
            record,
            last,
            entries: 0,
            failed: false,
        })
    }

    /// The last key of the table.
    pub(super) fn last_key(&self) -> Result<Option<Vec<u8>>, WriteError> {
        let mut cursor = Cursor::end(self.root());
        if !cursor.back(&self.txn.work)? {
            return Ok(None);
        }
        let mut key = Vec::new();
        cursor.entry(&self.txn.work, &mut key)?;
        Ok(Some(key))
    }
}

impl Appender<'_, '_> {
    /// Appends an entry.
    ///
    /// # Errors
    ///
    /// [`LoadError::Order`] and [`WriteError::KeyTooLong`], after which it goes on
    /// without the entry; [`LoadError::Pages`] and [`LoadError::Io`], after which nothing
    /// of it can be kept; [`LoadError::Unfinished`] after those.
    ///
    /// # Complexity
    ///
    /// Constant, on average: a comparison, a copy, and now and then a node.
    pub fn append(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        if self.failed {
            return Err(LoadError::Unfinished);
        }
        check_key(key)?;
        if self
            .last
            .as_ref()
            .is_some_and(|last| key <= last.as_slice())
        {
            return Err(LoadError::Order {
                entry: self.entries,
            });
        }
        let mut pen = Pen {
            txn: self.txn,
            ahead: &mut self.ahead,
        };
        let pushed = self
            .builder
            .push(&mut pen, self.last.as_deref(), key, value);
        self.failed = pushed.is_err();
        pushed?;
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.entries += 1;
        let table = self.txn.tables[self.index].name.as_bytes();
        self.record.log(Change::Put { table, key, value }, false);
        Ok(())
    }

    /// Makes what was appended part of the table; how many entries there were. Without
    /// this call nothing of it is there.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unfinished`] and those of [`Appender::append`]; [`WriteError::Read`],
    /// after which the transaction is broken.
    ///
    /// # Complexity
    ///
    /// One node a level.
    pub fn finish(mut self) -> Result<u64, LoadError> {
        if self.failed {
            return Err(LoadError::Unfinished);
        }
        if self.entries == 0 {
            return Ok(0);
        }
        let table = &self.txn.tables[self.index];
        let (mut record, alignment) = (table.record, table.alignment());
        let done = if let Some(items) = self.builder.few() {
            // So few belong into the leaf that is there, or one load after another would
            // leave a leaf each.
            let (work, root) = (&mut self.txn.work, &mut record.root);
            let done = items.iter().try_for_each(|item| {
                mutate::put_item(work, root, alignment, item)?;
                Ok(())
            });
            self.ahead.end(self.txn)?;
            done
        } else {
            let mut pen = Pen {
                txn: self.txn,
                ahead: &mut self.ahead,
            };
            let built = self.builder.finish(&mut pen)?;
            self.ahead.end(self.txn)?;
            built.map_or(Ok(()), |built| {
                graft(&mut self.txn.work, &mut record.root, built)
            })
        };
        let mut table = TableMut {
            txn: self.txn,
            index: self.index,
        };
        table.finish(done)?;
        record.len += self.entries;
        table.changed(record);
        let txn = self.txn;
        txn.kept_early = txn.head.early.len();
        let keep = !txn.saved.is_empty();
        txn.record.join(self.record, keep);
        Ok(self.entries)
    }
}

impl RingRecord {
    /// Adds the changes of another record.
    fn join(&mut self, other: Self, keep: bool) {
        if self.is_whole && other.is_whole {
            self.bytes.extend(other.bytes);
            return;
        }
        self.is_whole = false;
        if !keep {
            self.bytes = Vec::new();
        }
    }
}

/// Writes what the builder finishes.
struct Pen<'p, 's> {
    txn: &'p mut WriteTxn<'s>,
    ahead: &'p mut Ahead,
}

fn take_run(txn: &mut WriteTxn<'_>, pages: u32) -> Result<Extent, LoadError> {
    let run = txn.shared.take_run(&mut txn.head, pages);
    let run = run.map_err(|error| LoadError::Pages(Box::new(error)))?;
    txn.head.early.push(run);
    Ok(run)
}

fn write(txn: &WriteTxn<'_>, first: u32, buffers: &[IoSlice<'_>]) -> Result<(), LoadError> {
    if txn.shared.pages.backing().map().is_guarded() {
        // What is written behind the end of a file that was cut hides that from the commit.
        txn.shared.whole(&txn.head).map_err(WriteError::Read)?;
    }
    let written = txn.shared.pages.write(first, buffers);
    written.map_err(|source| LoadError::Io {
        action: "write pages",
        source,
    })
}

impl Ahead {
    /// Writes the nodes that are in memory.
    fn write(&mut self, txn: &WriteTxn<'_>) -> Result<(), LoadError> {
        let pages = u32::try_from(self.nodes.len() / PAGE_BYTES).expect("less than a run");
        if pages == 0 {
            return Ok(());
        }
        let first = self.run.first - pages;
        write(txn, first, &[IoSlice::new(&self.nodes)])?;
        (first..self.run.first).for_each(|page| txn.shared.pages.set_verified(page));
        self.nodes.clear();
        Ok(())
    }

    /// Writes the rest, and gives pages back that were not needed.
    fn end(&mut self, txn: &mut WriteTxn<'_>) -> Result<(), LoadError> {
        self.write(txn)?;
        let rest = core::mem::replace(&mut self.run, Extent { first: 0, pages: 0 });
        let runs = txn.head.early.iter_mut();
        let mut ours = runs.filter(|run| run.end() == rest.end() && rest.pages > 0);
        if let Some(run) = ours.next() {
            run.pages -= rest.pages;
            txn.head.space.insert(rest);
        }
        Ok(())
    }
}

impl Output for Pen<'_, '_> {
    type Error = LoadError;

    fn node(&mut self, page: &mut PageBuf) -> Result<Child, LoadError> {
        let ahead = &mut *self.ahead;
        if ahead.run.pages == 0 {
            ahead.write(self.txn)?;
            ahead.run = take_run(self.txn, ahead.next)?;
            ahead.next = (ahead.next * 2).min(MOST_RUN_PAGES);
        }
        NodeMut(page).set_born(self.txn.work.txn);
        let child = Child {
            page: ahead.run.first,
            crc: crc32c::crc32c(page),
        };
        ahead.nodes.extend_from_slice(page);
        ahead.run.first += 1;
        ahead.run.pages -= 1;
        if ahead.nodes.len() >= WRITE_BYTES {
            ahead.write(self.txn)?;
        }
        Ok(child)
    }

    fn value(&mut self, value: &[u8]) -> Result<LargeRef, LoadError> {
        let bytes = value.len();
        let pages = u32::try_from(pages_for(bytes as u64));
        let pages = pages.map_err(|_| WriteError::ValueTooLong { bytes })?;
        let run = take_run(self.txn, pages)?;
        let zeros = [0; PAGE_BYTES];
        let pad = run.pages as usize * PAGE_BYTES - bytes;
        let buffers = [IoSlice::new(value), IoSlice::new(&zeros[..pad])];
        write(self.txn, run.first, &buffers)?;
        self.txn.shared.pages.set_verified(run.first);
        Ok(LargeRef {
            page: run.first,
            crc: crc32c::crc32c(value),
            len: bytes as u64,
        })
    }
}
