//! What all handles of one open store share, and the writer's part of it.

use core::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::backing::Segment;
use crate::error::{CommitError, ReadError};
use crate::format::ring;
use crate::group::{Group, GroupError};
use crate::ids::{Child, Extent, FIRST_TXN};
use crate::lasting::{Lasts, await_end, has_room, kept, take_notice};
use crate::pages::Pages;
use crate::space::Space;
use crate::sync::{Mutex, MutexGuard};
use crate::tree::memory::PageMemory;
use crate::versions::{Version, Versions};
use crate::worker::{Bell, Worker};

/// The file grows by a sixteenth, at least and at most by so many pages.
const LEAST_GROWTH_PAGES: u32 = 64;
const MOST_GROWTH_PAGES: u32 = 1 << 14;

/// The share of the file from which on a commit would rather wait for a checkpoint than
/// make the file longer: it takes milliseconds in any case.
const WAITING_SHARE: u32 = 8;

/// Free pages left at the end of a file that is cut: a share of it, and so many at least.
const SPARE_SHARE: u32 = 64;
const LEAST_SPARE_PAGES: u32 = if cfg!(test) { 2 } else { LEAST_GROWTH_PAGES };
/// Shorter free runs keep their blocks.
const LEAST_HOLLOW_PAGES: u32 = if cfg!(test) { 2 } else { 16 };

/// See the module.
///
/// Locks are taken in this order: `head`, `checkpointing`, then those inside of
/// `versions` and `group`. A checkpoint drops `head` while it waits for the disk.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pages: Pages,
    pub(crate) versions: Versions,
    /// Shared with the futures of commits, which may outlive the store.
    pub(crate) group: Arc<Group>,
    /// For the store's threads.
    pub(crate) me: Weak<Self>,
    /// Makes transactions last for those who do not wait.
    pub(crate) syncer: Worker,
    /// Makes the checkpoints that are due, when `bell` rings.
    pub(crate) cleaner: Worker,
    pub(crate) bell: Bell,
    /// The writer's state: held by a write transaction while it lives.
    pub(crate) head: Mutex<Head>,
    /// Held by the checkpoint that is on its way.
    pub(crate) checkpointing: Mutex<()>,
    /// The last checkpoint that became durable, until the writer has noticed.
    pub(crate) done: Mutex<Option<Durable>>,
    pub(crate) ring_bytes: u64,
    pub(crate) read_only: bool,
    /// Most pages that a checkpoint moves down.
    pub(crate) checkpoint_budget: u32,
    /// When the store was opened, if readers say when and where they begin.
    pub(crate) opened: Option<Instant>,
    /// A thread makes the checkpoints that are due, and not the commit that finds them so.
    pub(crate) checkpoint_thread: bool,
    /// What `commit` asks for.
    pub(crate) durability: Durability,
    /// Errors planted by tests of the tests.
    #[cfg(test)]
    pub(crate) sabotage: Sabotage,
}

/// When a commit returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When readers see it. It lasts with the next durable commit, checkpoint or close,
    /// and until then is lost whole or not at all if the power goes or the process dies.
    Visible,
    /// When it lasts. Only then do readers see it. Commits of several threads share
    /// barriers.
    #[default]
    Durable,
}

/// Errors planted to see that the crash tests find them.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sabotage {
    /// Pages of the last checkpoint are reused at once.
    pub(crate) reuse_early: bool,
    /// Records of the ring are believed without their checksum.
    pub(crate) believe_records: bool,
    /// Opening for writing does not walk the nodes.
    pub(crate) believe_files: bool,
    /// Pages are believed without theirs.
    pub(crate) believe_pages: bool,
    /// The file is cut before the slot that names fewer pages lasts.
    pub(crate) cut_early: bool,
}

/// A checkpoint that lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Durable {
    pub(crate) txn: u64,
    pub(crate) ring_start: u64,
    pub(crate) map: Extent,
    /// Length of the file that its slot names: the file must not become shorter.
    pub(crate) pages: u32,
}

impl Lasts for Durable {
    fn txn(&self) -> u64 {
        self.txn
    }

    fn ring_start(&self) -> u64 {
        self.ring_start
    }
}

/// What the next transaction builds on.
#[derive(Debug)]
pub(crate) struct Head {
    /// The newest version, published or not.
    pub(crate) version: Version,
    /// Pages of the file.
    pub(crate) len: u32,
    pub(crate) space: Space,
    /// Pages written since the last checkpoint was chosen.
    pub(crate) dirty: Vec<Extent>,
    /// Logical position of the next record.
    pub(crate) ring: u64,
    pub(crate) salt: u64,
    /// Generation of the newest meta slot.
    pub(crate) generation: u64,
    pub(crate) durable: Durable,
    /// The version of a checkpoint on its way.
    pub(crate) pinned: Option<u64>,
    /// Pages that the transaction which is being made has written already: neither free
    /// nor in any version.
    pub(crate) early: Vec<Extent>,
    /// Where moving pages down goes on.
    pub(crate) sweep: SweepPlace,
    /// Memory that the last transaction left to the next.
    pub(crate) spare: Vec<Box<PageMemory>>,
}

/// The writer's state, held by a write transaction. If it ends without a commit, the pages
/// that it wrote are free again.
#[derive(Debug)]
pub(crate) struct Turn<'s>(MutexGuard<'s, Head>);

impl<'s> Turn<'s> {
    pub(crate) fn new(head: MutexGuard<'s, Head>) -> Self {
        debug_assert!(head.early.is_empty(), "the turn before gave them back");
        Self(head)
    }

    /// Gives back what was written early, from the run with this index on.
    pub(crate) fn give_back(&mut self, from: usize) {
        let head = &mut *self.0;
        head.early
            .drain(from..)
            .for_each(|run| head.space.insert(run));
    }
}

impl Deref for Turn<'_> {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.0
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.0
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.give_back(0);
    }
}

/// How far the walks that look for pages at the end of the file have come: the next table
/// and key, for nodes and for large values.
#[derive(Debug)]
pub(crate) struct SweepPlace {
    /// Most pages to vacate at once: less after an attempt that found no room.
    pub(crate) reach: u32,
    pub(crate) nodes: (Vec<u8>, Vec<u8>),
    pub(crate) values: (Vec<u8>, Vec<u8>),
}

impl SweepPlace {
    /// The beginning, with all that is allowed.
    pub(crate) const START: Self = Self {
        reach: u32::MAX,
        nodes: (Vec::new(), Vec::new()),
        values: (Vec::new(), Vec::new()),
    };
}

/// Where new pages go.
#[derive(Debug)]
pub(crate) struct Placement {
    /// One run for each large value.
    pub(crate) values: Vec<Extent>,
    /// Runs for the nodes.
    pub(crate) nodes: Vec<Extent>,
}

impl Placement {
    pub(crate) fn runs(&self) -> impl Iterator<Item = Extent> {
        self.values.iter().chain(&self.nodes).copied()
    }
}

impl Shared {
    /// Takes notice of a finished checkpoint, and frees what nobody sees any more.
    pub(crate) fn reclaim(&self, head: &mut Head) {
        if let Some(old) = take_notice(&self.done, &mut head.durable, &mut head.pinned) {
            head.space.insert(old.map);
        }
        let mut snapshots = Vec::with_capacity(8);
        let published = self.versions.snapshots(&mut snapshots);
        snapshots.extend(kept(&head.durable, head.pinned));
        #[cfg(test)]
        if self.sabotage.reuse_early {
            snapshots.retain(|&snapshot| snapshot == published);
        }
        snapshots.sort_unstable();
        snapshots.dedup();
        head.space.reclaim(published, &snapshots);
    }

    /// [`ReadError::Vanished`] if somebody else cut the file.
    pub(crate) fn whole(&self, head: &Head) -> Result<(), ReadError> {
        let found = self.pages.backing().pages();
        if found.is_ok_and(|pages| pages < head.len) {
            return Err(ReadError::Vanished);
        }
        Ok(())
    }

    /// Pages for a commit: all in one run where there is one.
    pub(crate) fn place(
        &self,
        head: &mut Head,
        values: &[u32],
        nodes: u32,
    ) -> Result<Placement, CommitError> {
        let total = values.iter().map(|&pages| u64::from(pages)).sum::<u64>() + u64::from(nodes);
        let total = u32::try_from(total).map_err(|_| self.full(total))?;
        let mut placement = Placement {
            values: Vec::new(),
            nodes: Vec::new(),
        };
        if values.is_empty() {
            placement.nodes = self.take_any(head, total)?;
        } else {
            let mut run = self.take_run(head, total)?;
            let mut cut = |pages: u32| {
                let part = Extent { pages, ..run };
                run.first += pages;
                part
            };
            placement.values = values.iter().map(|&pages| cut(pages)).collect();
            placement.nodes = vec![cut(nodes)];
        }
        Ok(placement)
    }

    /// Pages below the ceiling for nodes that move down, beside the runs of large values;
    /// `None`, and those given back, if there are not enough.
    pub(crate) fn place_below(
        &self,
        head: &mut Head,
        values: Vec<Extent>,
        nodes: u32,
    ) -> Option<Placement> {
        let Some(nodes) = head.space.take_lowest(nodes) else {
            values.into_iter().for_each(|run| head.space.insert(run));
            return None;
        };
        Some(Placement { values, nodes })
    }

    /// Cuts free pages off the end of the file, but for some that the next commits would
    /// only add again, if `spare` says so. What cannot be cut because of a snapshot gives
    /// its blocks back instead.
    ///
    /// The end moves over pages that nobody sees, readers included that are about to
    /// begin (`Space::reclaim`), and never below what a slot names: that of the last
    /// checkpoint is `durable`, and that of one on its way reaches pages that are not
    /// free. Failures leave a longer file, which the next checkpoint cuts.
    pub(crate) fn trim(&self, head: &mut Head, spare: bool) -> u32 {
        let backing = self.pages.backing();
        if self.whole(head).is_err() {
            // What there is is left for whoever saves it.
            return 0;
        }
        self.reclaim(head);
        let end = head.space.free_from(head.len);
        let spare = if spare {
            (end / SPARE_SHARE).max(LEAST_SPARE_PAGES)
        } else {
            0
        };
        let cut = head.len - end;
        if cut > 2 * spare {
            head.len = end + spare;
            head.space.cut_off(head.len);
            self.pages.set_len(head.len);
        }
        let least = head.len.max(head.durable.pages);
        let Ok(before) = backing.pages() else {
            return 0;
        };
        if before <= least || backing.cut(least).is_err() {
            return 0;
        }
        before - least
    }

    /// Gives blocks of free pages back to the file system while a snapshot holds the end
    /// of the file.
    pub(crate) fn hollow_out(&self, head: &mut Head, most: u32) {
        for run in head.space.hollow_out(LEAST_HOLLOW_PAGES, most) {
            // A failure leaves the blocks where they are.
            let _ = self.pages.backing().punch(run);
        }
    }

    /// Runs of `pages` pages in all: those that are free, or one by which the file grows.
    ///
    /// A commit of a large share of the file waits for a checkpoint on its way before the
    /// file grows: what only the checkpoint before that one has is free then.
    fn take_any(&self, head: &mut Head, pages: u32) -> Result<Vec<Extent>, CommitError> {
        if let Some(runs) = head.space.take(pages) {
            return Ok(runs);
        }
        if head.pinned.is_some() && pages > head.len / WAITING_SHARE {
            await_end(&self.checkpointing);
            self.reclaim(head);
            if let Some(runs) = head.space.take(pages) {
                return Ok(runs);
            }
        }
        Ok(vec![self.take_run(head, pages)?])
    }

    /// One run, growing the file if there is none by what the free pages at its end lack.
    pub(crate) fn take_run(&self, head: &mut Head, pages: u32) -> Result<Extent, CommitError> {
        if let Some(run) = head.space.take_run(pages) {
            return Ok(run);
        }
        let growth = (head.len / 16).clamp(LEAST_GROWTH_PAGES, MOST_GROWTH_PAGES);
        let most = self.pages.capacity().min(crate::ids::DIRTY_BIT as usize) as u64;
        // Shorter than the run, which would have been found. The ceiling was lifted.
        let tail = head.len - head.space.free_from(head.len);
        let least = u64::from(head.len) + u64::from(pages - tail);
        if least > most {
            return Err(self.full(least));
        }
        let len = (least + u64::from(growth)).min(most);
        let len = u32::try_from(len).map_err(|_| self.full(len))?;
        if self.pages.backing().map().is_guarded() {
            // A file that was cut would be as long as before, with zeros in it.
            self.whole(head)?;
        }
        let grown = self.pages.backing().grow(len);
        grown.map_err(|source| CommitError::Aborted {
            action: "grow the file",
            source,
        })?;
        self.pages.set_len(len);
        head.space.insert(Extent {
            first: head.len,
            pages: len - head.len,
        });
        head.len = len;
        Ok(head
            .space
            .take_run(pages)
            .expect("the file has just grown by more"))
    }

    fn full(&self, pages: u64) -> CommitError {
        CommitError::Full {
            pages,
            most: self.pages.capacity() as u64,
        }
    }

    /// Room in the ring for a record: what to write and the position after it. Gives the
    /// record back if it does not fit before the next checkpoint.
    pub(crate) fn ring_room(
        &self,
        head: &Head,
        record: Vec<u8>,
        seq: u64,
    ) -> Result<(Vec<Segment>, u64), Vec<u8>> {
        let place = head.ring % self.ring_bytes;
        let left = self.ring_bytes - place;
        let bytes = record.len() as u64;
        let start = head.ring + if bytes > left { left } else { 0 };
        let end = start + bytes;
        if !has_room(&head.durable, end, self.ring_bytes) {
            return Err(record);
        }
        let mut segments = Vec::with_capacity(1);
        // Less room than a mark takes says the same as a mark.
        if bytes > left && left >= ring::HEADER_BYTES as u64 {
            segments.push((place, ring::wrap_mark(head.salt, seq)));
        }
        segments.push((start % self.ring_bytes, record));
        Ok((segments, end))
    }

    /// Like [`Shared::ring_room`]; a checkpoint on its way is waited for if the record fits
    /// after it.
    pub(crate) fn await_ring_room(
        &self,
        head: &mut Head,
        record: Vec<u8>,
        seq: u64,
    ) -> Option<(Vec<Segment>, u64)> {
        let record = match self.ring_room(head, record, seq) {
            Ok(room) => return Some(room),
            Err(record) => record,
        };
        head.pinned?;
        await_end(&self.checkpointing);
        self.reclaim(head);
        self.ring_room(head, record, seq).ok()
    }

    /// Waits until transaction `txn` is durable, and published.
    pub(crate) fn settle(&self, txn: u64) -> Result<(), CommitError> {
        let backing = self.pages.backing();
        let result = self.group.settle(
            txn,
            |records| backing.write_ring(records),
            |version| self.versions.publish(version),
        );
        result.map_err(|error| match error {
            GroupError::Io(source) => CommitError::Unknown {
                action: "write the ring",
                source,
            },
            GroupError::Poisoned => CommitError::Poisoned,
        })
    }
}

/// The root that a version of no tables has.
pub(crate) const EMPTY: Version = Version {
    txn: FIRST_TXN,
    root: Child::NONE,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    /// What could go wrong: what is free at the end is left behind when the file grows,
    /// so that a file of large commits grows by more than they take.
    #[test]
    fn a_file_grows_by_what_its_end_lacks() {
        let store = Options::new().open_in_memory().expect("address space");
        // Until the file has grown.
        for _ in 0..8 {
            let mut txn = store.write().expect("sound");
            txn.table("t")
                .expect("sound")
                .put(b"k", b"v")
                .expect("sound");
            txn.commit().expect("memory");
        }
        let free = store.stat().expect("sound").free_pages;
        assert!(free > u64::from(LEAST_GROWTH_PAGES / 2), "{free}");
        let mut txn = store.write().expect("sound");
        let mut table = txn.table("t").expect("there");
        for n in 0..900_u32 {
            table.put(&n.to_be_bytes(), &[7; 1000]).expect("sound");
        }
        txn.commit().expect("memory");
        let stat = store.stat().expect("sound");
        assert!(stat.tables[0].leaf_pages > u64::from(2 * LEAST_GROWTH_PAGES));
        // What it grew ahead, and the few pages that small commits take and replace.
        let most = u64::from(LEAST_GROWTH_PAGES) + 8;
        assert!(stat.free_pages <= most, "{}", stat.free_pages);
        assert_eq!(store.check().problems, []);
    }
}
