//! Committing: nodes get their pages, pages their checksums, the ring its record.
//!
//! 1. Sparse nodes are shared out over fewer (`tree/gather.rs`); the records of changed
//!    tables are put into the tree of tables.
//! 2. All new pages are placed, in one run if there is one ([`Shared::place`]).
//! 3. Children get their page and checksum before their parents are summed
//!    ([`Writer::settle_tree`]); one vectored write a run. Nobody can see them yet.
//! 4. The record goes into the ring's buffer; a transaction too long for the ring, or
//!    for what is left of it, becomes a checkpoint instead.
//! 5. The next transaction may begin. This one waits for the barrier, and is published.
//!
//! Up to step 4 a failure leaves everything as it was.

use std::io::{self, IoSlice};

use crate::error::{CommitError, ReadError};
use crate::format::ring;
use crate::format::table::LargeRef;
use crate::ids::{Alignment, Child, DIRTY_BIT, Extent, PAGE_BYTES, PageBuf, pages_for};
use crate::shared::{Durability, Placement, Shared, Turn};
use crate::space::Freed;
use crate::tree::edit::{NodeMut, own, own_children};
use crate::tree::gather::gather;
use crate::tree::memory::ValueMemory;
use crate::tree::mutate;
use crate::tree::work::Work;
use crate::txn::future::CommitFuture;
use crate::txn::write::{OpenTable, WriteTxn};
use crate::versions::Version;

impl WriteTxn<'_> {
    /// Commits with the durability that [`Options::durability`](crate::Options::durability)
    /// chose; see [`WriteTxn::commit_with`].
    ///
    /// # Errors
    ///
    /// As [`WriteTxn::commit_with`].
    pub fn commit(self) -> Result<(), CommitError> {
        let durability = self.shared.durability;
        self.commit_with(durability)
    }

    /// Commits.
    ///
    /// # Errors
    ///
    /// [`CommitError::Aborted`], [`CommitError::Full`], [`CommitError::Read`] and
    /// [`CommitError::Broken`]: nothing happened. [`CommitError::Unknown`] and
    /// [`CommitError::Poisoned`]: the next open shows whether it did.
    ///
    /// # Complexity
    ///
    /// Writes the changed nodes, and for [`Durability::Durable`] one record and one barrier.
    pub fn commit_with(self, durability: Durability) -> Result<(), CommitError> {
        let shared = self.shared;
        let (version, due) = match self.append()? {
            Appended::Lasts => return Ok(()),
            // Nothing of its own; but what it saw may be visible only so far.
            Appended::Nothing { seen } => (seen, false),
            Appended::Buffered { version, due } => (version, due),
        };
        match durability {
            Durability::Visible => shared.versions.publish(version),
            Durability::Durable => shared.settle(version.txn)?,
        }
        if due {
            shared.checkpoint_when_due();
        }
        Ok(())
    }

    /// Commits, and gives a future that resolves when the transaction lasts. Readers see
    /// it from then on.
    ///
    /// The first call starts a thread, which writes and syncs for all who commit so, with
    /// one barrier for all who wait at that moment; it ends with the store. A
    /// transaction that is too long for the ring is a checkpoint, which this call waits
    /// for, as for one that is due if no thread makes it
    /// ([`Options::checkpoint_thread`](crate::Options::checkpoint_thread)).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = brickyard_store::Options::new().open_in_memory()?;
    /// let mut write = store.write()?;
    /// write.table("t")?.put(b"k", b"v")?;
    /// let commit = write.commit_async()?;
    /// // The next transaction may begin, and sees this one.
    /// assert_eq!(store.write()?.table("t")?.len(), 1);
    /// # struct Unpark(std::thread::Thread);
    /// # impl std::task::Wake for Unpark {
    /// #     fn wake(self: std::sync::Arc<Self>) { self.0.unpark(); }
    /// # }
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    /// #     let mut future = std::pin::pin!(future);
    /// #     let mut cx = std::task::Context::from_waker(&waker);
    /// #     loop {
    /// #         match future.as_mut().poll(&mut cx) {
    /// #             std::task::Poll::Ready(out) => return out,
    /// #             std::task::Poll::Pending => std::thread::park(),
    /// #         }
    /// #     }
    /// # }
    /// block_on(commit)?; // `commit.await?` in a task of any runtime.
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing happened: [`CommitError::Aborted`], also if the thread cannot be started,
    /// [`CommitError::Full`], [`CommitError::Read`] and [`CommitError::Broken`]. For a
    /// transaction too long for the ring also [`CommitError::Unknown`] and
    /// [`CommitError::Poisoned`].
    ///
    /// # Complexity
    ///
    /// Writes the changed nodes without waiting for the disk.
    pub fn commit_async(self) -> Result<CommitFuture, CommitError> {
        let shared = self.shared;
        let started = shared.start_syncer();
        started.map_err(|source| CommitError::Aborted {
            action: "start the thread that syncs",
            source,
        })?;
        let (txn, due) = match self.append()? {
            Appended::Lasts => return Ok(CommitFuture::new(shared, 0)),
            Appended::Nothing { seen } => (seen.txn, false),
            Appended::Buffered { version, due } => (version.txn, due),
        };
        shared.group.ask(txn);
        if due {
            shared.checkpoint_when_due();
        }
        Ok(CommitFuture::new(shared, txn))
    }

    /// Steps 1 to 4.
    fn append(mut self) -> Result<Appended, CommitError> {
        if self.broken {
            return Err(CommitError::Broken);
        }
        // What it is made of may have been read as zeros.
        self.shared.pages.intact(Ok(()))?;
        if !self.tables.iter().any(|table| table.changed) {
            let seen = self.head.version;
            return Ok(Appended::Nothing { seen });
        }
        if self.shared.pages.backing().map().is_guarded() {
            // Also where nobody has looked yet.
            self.shared.whole(&self.head)?;
        }
        self.settle_reserved()?;
        let version = self.build()?;
        let Self {
            shared,
            mut head,
            work,
            record,
            ..
        } = self;
        let record = record.is_whole.then_some(record.bytes);
        let freed = work.end(&mut head.spare);
        install(shared, head, version, freed, record)
    }

    /// Commits what the ring records already.
    pub(crate) fn commit_unrecorded(mut self) -> Result<(), CommitError> {
        // Also a record that changes nothing is a transaction with a number.
        let version = self.build()?;
        self.head.version = version;
        for freed in self.work.end(&mut self.head.spare) {
            self.head.space.release(freed);
        }
        self.shared.versions.publish(version);
        Ok(())
    }

    /// Steps 1 to 3.
    pub(super) fn build(&mut self) -> Result<Version, CommitError> {
        self.forget_savepoints();
        // What a load wrote that was not finished.
        self.head.give_back(self.kept_early);
        let placed = self.place()?;
        match self.write_pages(&placed) {
            Ok(version) => {
                self.head.dirty.extend(placed.runs());
                for run in placed.runs() {
                    (run.first..run.end()).for_each(|page| self.shared.pages.set_verified(page));
                }
                Ok(version)
            }
            Err(error) => {
                placed.runs().for_each(|run| self.head.space.insert(run));
                Err(error)
            }
        }
    }

    /// Steps 1 and 2.
    fn place(&mut self) -> Result<Placement, CommitError> {
        for table in self.tables.iter_mut().filter(|table| table.changed) {
            gather(&mut self.work, &mut table.record.root)?;
        }
        for table in self.tables.iter().filter(|table| table.changed) {
            let name = table.name.as_bytes();
            if table.exists {
                let record = table.record.encode(&table.options);
                mutate::put(
                    &mut self.work,
                    &mut self.root,
                    Alignment::NONE,
                    name,
                    &record,
                )?;
            } else {
                mutate::delete(&mut self.work, &mut self.root, name)?;
            }
        }
        self.shared.reclaim(&mut self.head);
        let nodes = self.work.nodes.iter().flatten().count();
        let pages = |value: &[u8]| u32::try_from(pages_for(value.len() as u64));
        let values = self.work.values.iter().flatten();
        let values: Result<Vec<u32>, _> = values.map(|value| pages(value)).collect();
        let (Ok(nodes), Ok(values)) = (u32::try_from(nodes), values) else {
            return Err(CommitError::Full {
                pages: u64::MAX,
                most: u64::from(DIRTY_BIT),
            });
        };
        if let Some(values) = self.moves.take() {
            let placed = self.shared.place_below(&mut self.head, values, nodes);
            return placed.ok_or(CommitError::Full {
                pages: u64::from(nodes),
                most: self.head.space.free_pages(),
            });
        }
        self.shared.place(&mut self.head, &values, nodes)
    }

    /// Step 3.
    fn write_pages(&mut self, placed: &Placement) -> Result<Version, CommitError> {
        let mut writer = Writer::new(&mut self.work, placed);
        for table in self.tables.iter_mut().filter(|table| table.changed) {
            table.record.root = writer.settle_tree(table.record.root)?;
        }
        // The records have their final length, so that only their bytes change.
        let exist = |table: &&OpenTable| table.changed && table.exists;
        for table in self.tables.iter().filter(exist) {
            let (name, record) = (table.name.as_bytes(), table.record.encode(&table.options));
            mutate::put(writer.work, &mut self.root, Alignment::NONE, name, &record)?;
        }
        let root = writer.settle_tree(self.root)?;
        let (work, order) = (writer.work, writer.order);
        let written = write_out(self.shared, work, placed, &order);
        written.map_err(|source| CommitError::Aborted {
            action: "write the new pages",
            source,
        })?;
        Ok(Version {
            txn: work.txn,
            root,
        })
    }
}

/// Gives nodes and values their pages.
struct Writer<'w, 's> {
    work: &'w mut Work<'s>,
    /// Page of each value, by its index in the transaction's memory.
    values: Vec<u32>,
    /// Pages for nodes that are still to be given out.
    nodes: std::vec::IntoIter<Extent>,
    run: Extent,
    /// Indexes of nodes in the order of their pages.
    order: Vec<usize>,
    /// Children in memory, with their places, of the nodes on the way down.
    found: Vec<(usize, Child)>,
}

impl<'w, 's> Writer<'w, 's> {
    fn new(work: &'w mut Work<'s>, placed: &Placement) -> Self {
        let mut runs = placed.values.iter();
        let mut first = |value: &Option<ValueMemory>| match value {
            Some(_) => runs.next().expect("placed one by one").first,
            None => 0,
        };
        let values = work.values.iter().map(&mut first).collect();
        Self {
            work,
            values,
            nodes: placed.nodes.clone().into_iter(),
            run: Extent { first: 0, pages: 0 },
            order: Vec::new(),
            found: Vec::new(),
        }
    }

    fn next_page(&mut self) -> u32 {
        while self.run.pages == 0 {
            self.run = self.nodes.next().expect("as many pages as nodes");
        }
        let page = self.run.first;
        self.run.first += 1;
        self.run.pages -= 1;
        page
    }

    /// Gives pages to the nodes under `child` that have none, leaves first.
    fn settle_tree(&mut self, child: Child) -> Result<Child, ReadError> {
        let Some(index) = child.dirty_index() else {
            return Ok(child);
        };
        let node = own(self.work.page_mut(child));
        if !node.is_leaf() {
            // The last one that is found is the first that comes back.
            let first = self.found.len();
            let children = own_children(self.work.page_mut(child)).enumerate();
            let in_memory = children.filter(|(_, child)| child.dirty_index().is_some());
            self.found.extend(in_memory);
            self.found[first..].reverse();
            while self.found.len() > first
                && let Some((entry, old)) = self.found.pop()
            {
                let new = self.settle_tree(old)?;
                self.work.edit(child).set_child(entry, new);
            }
        } else if !self.values.is_empty() {
            self.settle_values(child);
        }
        let page = self.next_page();
        let txn = self.work.txn;
        let bytes: &mut PageBuf = self.work.page_mut(child);
        NodeMut(bytes).set_born(txn);
        let crc = crc32c::crc32c(bytes);
        self.order.push(index);
        Ok(Child { page, crc })
    }

    /// Lets the references of a leaf name the pages that values in memory were given.
    fn settle_values(&mut self, leaf: Child) {
        let trusted = "the node is our own";
        for index in 0..own(self.work.page_mut(leaf)).count() {
            let entry = own(self.work.page_mut(leaf)).entry(index).expect(trusted);
            if !entry.large {
                continue;
            }
            let mut large = LargeRef::decode(entry.value).expect(trusted);
            if large.page & DIRTY_BIT != 0 {
                large.page = self.values[(large.page & !DIRTY_BIT) as usize];
                let reference = large.encode();
                let replaced = self.work.edit(leaf).replace_value(index, &reference, true);
                assert!(replaced, "references have one length");
            }
        }
    }
}

/// Writes values and nodes: one vectored write for each run of nodes, one a value.
fn write_out(
    shared: &Shared,
    work: &Work<'_>,
    placed: &Placement,
    order: &[usize],
) -> io::Result<()> {
    let zeros = [0; PAGE_BYTES];
    for (value, run) in work.values.iter().flatten().zip(&placed.values) {
        let pad = run.pages as usize * PAGE_BYTES - value.len();
        let buffers = [IoSlice::new(value), IoSlice::new(&zeros[..pad])];
        shared.pages.write(run.first, &buffers)?;
    }
    let mut nodes = order.iter().map(|&index| {
        let page = work.nodes[index].as_ref();
        IoSlice::new(&page.expect("the node is in use")[..])
    });
    // Where the last table was dropped there are none.
    for run in placed.nodes.iter().filter(|run| run.pages > 0) {
        let buffers: Vec<IoSlice<'_>> = nodes.by_ref().take(run.pages as usize).collect();
        shared.pages.write(run.first, &buffers)?;
    }
    Ok(())
}

/// What became of a transaction.
enum Appended {
    /// It changed nothing; this is the version that it saw.
    Nothing { seen: Version },
    /// It was too long for the ring, and a checkpoint made it last.
    Lasts,
    /// Its record is in the buffer.
    Buffered {
        version: Version,
        /// The ring is half full, and no checkpoint is on its way.
        due: bool,
    },
}

/// Step 4.
fn install(
    shared: &Shared,
    mut head: Turn<'_>,
    version: Version,
    freed: Vec<Freed>,
    record: Option<Vec<u8>>,
) -> Result<Appended, CommitError> {
    let room = record.and_then(|mut record| {
        ring::seal(&mut record, head.salt, version.txn);
        shared.await_ring_room(&mut head, record, version.txn)
    });
    head.version = version;
    // They are the version's from now on.
    head.early.clear();
    freed
        .into_iter()
        .for_each(|freed| head.space.release(freed));
    if cfg!(debug_assertions) {
        head.space.validate();
    }
    let Some((segments, end)) = room else {
        let result = shared.checkpoint_holding(&mut head);
        if result.is_err() {
            // The ring has no record of this version: nothing may follow it.
            shared.group.poison();
        }
        drop(head);
        return result.map(|txn| {
            shared.group.note_durable(txn);
            Appended::Lasts
        });
    };
    head.ring = end;
    let due = head.pinned.is_none() && end - head.durable.ring_start > shared.ring_bytes / 2;
    shared.group.append(segments, version);
    Ok(Appended::Buffered { version, due })
}
