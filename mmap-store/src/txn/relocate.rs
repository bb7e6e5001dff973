//! Moving pages down, so that the file can end sooner.
//!
//! A checkpoint that finds much of the file free looks at its end: how much of it could be
//! cut off if at most so many pages moved to free ones below (`Space::tail`)? Those pages
//! are copied by transactions of their own, which change nothing but where things lie: few
//! pages each, so that writers wait for a millisecond and no longer. The ring has an empty
//! record for each, since its numbers must have no gap. The checkpoint makes the copies
//! last; then nobody but old snapshots sees the originals, and the end is cut off
//! ([`Shared::trim`]).
//!
//! Which nodes lie there is said by their parents: the walk reads inner nodes only. Large
//! values are named by leaves, so leaves are read, too, if that did not empty the tail. A
//! walk has an end before its time, too, and the next one goes on there.

use crate::error::{CommitError, Flaw, ReadError, WriteError, damaged};
use crate::format::node::Node;
use crate::format::ring;
use crate::format::table::{LargeRef, TableRecord};
use crate::ids::{Alignment, Child, Extent};
use crate::shared::{Head, Shared, SweepPlace};
use crate::space::Space;
use crate::tree::cursor::Cursor;
use crate::tree::memory::ValueMemory;
use crate::tree::search::node_at;
use crate::tree::work::Work;
use crate::txn::write::WriteTxn;

/// Pages that one transaction moves.
const STEP_PAGES: u32 = 256;
/// Nodes that it reads, and that a checkpoint reads of each kind.
const STEP_VISITS: u32 = 1 << 12;
/// A checkpoint moves pages if so much of the file is free: a share, and so many pages.
const FREE_SHARE: u32 = 4;
const LEAST_FREE_PAGES: u64 = if cfg!(test) { 4 } else { 256 };

/// What [`Store::compact`](crate::Store::compact) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// Pages copied to another place.
    pub moved_pages: u64,
    /// Pages cut off the end of the file.
    pub cut_pages: u64,
    /// Pages of the file that snapshots hold and nothing else.
    pub held_pages: u64,
    /// Nothing is left to be moved. What snapshots hold goes with a checkpoint after them.
    pub done: bool,
}

/// Why there is a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The program asked for it, or closes the store: the file becomes as short as may be.
    Asked,
    /// The ring is half full, and a thread has the time.
    Due,
    /// The ring is half full, and a commit does not return before.
    InCommit,
}

/// How much may be done at once.
#[derive(Clone, Copy, Debug)]
struct Effort {
    pages: u32,
    /// Steps of each kind; `None`: through the whole store.
    steps: Option<u32>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    /// Pages copied.
    pages: u32,
    /// Those of them that lay at the end of the file.
    vacated: u32,
    /// The walk came to the end of the store.
    whole: bool,
    /// Nothing found room; less to be vacated at once may leave more of it.
    cramped: bool,
}

impl Shared {
    /// A checkpoint that makes the file shorter where that is worth while.
    pub(crate) fn checkpoint_and_shrink(&self, why: Occasion) -> Result<(), CommitError> {
        let budget = self.checkpoint_budget;
        let shrinks = !self.read_only && budget > 0;
        let much_is_free = || self.much_is_free(&mut self.head.lock());
        if shrinks && much_is_free() {
            self.move_some(budget);
        }
        self.checkpoint()?;
        if why == Occasion::Asked && shrinks && much_is_free() && !self.newest_is_read() {
            // What it has freed itself.
            self.move_some(budget);
            self.checkpoint()?;
        }
        let head = if why == Occasion::InCommit {
            // The next checkpoint cuts if this one would have to wait for a writer.
            self.head.try_lock()
        } else {
            Some(self.head.lock())
        };
        if let Some(mut head) = head {
            self.trim(&mut head, why != Occasion::Asked);
            let is_held = why == Occasion::Asked && self.much_is_free(&mut head);
            if is_held || head.space.is_pinned() {
                self.hollow_out(&mut head, budget);
            }
        }
        Ok(())
    }

    /// Moves pages down, up to `budget`.
    fn move_some(&self, budget: u32) {
        let effort = Effort {
            pages: budget,
            steps: Some(budget.div_ceil(STEP_PAGES)),
        };
        // A page that cannot be read or written stays where it is; whether the disk works
        // at all is for the checkpoint to say.
        let _ = self.move_down(effort);
    }

    /// Whether somebody reads the newest version, and so every page that could move.
    fn newest_is_read(&self) -> bool {
        let newest = self.head.lock().version.txn;
        let mut readers = Vec::new();
        self.versions.held(&mut readers);
        readers.contains(&newest)
    }

    /// A checkpoint, if the ring is more than half full and none is on its way: soon, if a
    /// thread makes it, or else now.
    pub(crate) fn checkpoint_when_due(&self) {
        let started = self.checkpoint_thread
            && self
                .cleaner
                .start("brickyard-clean", || {
                    let shared = self.me.upgrade();
                    let shared = shared.expect("the caller borrows the store, which owns it");
                    move || {
                        while shared.bell.wait() {
                            // The thread may wait for writers, nobody waits for it.
                            shared.checkpoint_if_due(Occasion::Due);
                        }
                    }
                })
                .is_ok();
        if started {
            self.bell.ring();
        } else {
            self.checkpoint_if_due(Occasion::InCommit);
        }
    }

    fn checkpoint_if_due(&self, why: Occasion) {
        let due = self.checkpoint_is_due(&mut self.head.lock());
        if due {
            // Whether it works or not, the commit that asked is done; a failure shows in
            // the next.
            let _ = self.checkpoint_and_shrink(why);
        }
    }

    fn much_is_free(&self, head: &mut Head) -> bool {
        self.reclaim(head);
        let least = u64::from(head.len / FREE_SHARE).max(LEAST_FREE_PAGES);
        head.space.free_pages() >= least
    }

    /// Moves at most `most` pages down and cuts the file, over and over.
    pub(crate) fn compact(&self, most: u64) -> Result<Compaction, CommitError> {
        let mut report = Compaction::default();
        // What was replaced since the last one is free after it.
        self.checkpoint()?;
        self.head.lock().sweep.reach = u32::MAX;
        loop {
            let left = most.saturating_sub(report.moved_pages);
            let moved = self.move_down(Effort {
                pages: u32::try_from(left).unwrap_or(u32::MAX),
                steps: None,
            })?;
            report.moved_pages += u64::from(moved.pages);
            report.done = moved.pages == 0 && !moved.cramped;
            if moved.pages > 0 {
                self.checkpoint()?;
            }
            let mut head = self.head.lock();
            report.cut_pages += u64::from(self.trim(&mut head, false));
            report.held_pages = head.space.held_pages();
            if report.done || report.moved_pages >= most {
                return Ok(report);
            }
        }
    }

    /// Copies pages from the end of the file to free ones below it.
    fn move_down(&self, effort: Effort) -> Result<Moved, CommitError> {
        let tail = {
            let mut head = self.head.lock();
            self.reclaim(&mut head);
            let map = head.durable.map;
            let most = effort.pages.min(head.sweep.reach);
            let tail = head.space.tail(head.len, most, map);
            let Some(tail) = tail else {
                return Ok(Moved::default());
            };
            head.space.set_ceiling(tail.first);
            if effort.steps.is_none() {
                head.sweep = SweepPlace {
                    reach: head.sweep.reach,
                    ..SweepPlace::START
                };
            }
            tail
        };
        let mut sum = Moved::default();
        for values in [false, true] {
            let mut steps = effort.steps.unwrap_or(u32::MAX);
            let mut whole = false;
            while sum.vacated < tail.live && sum.pages < effort.pages && !whole && steps > 0 {
                steps -= 1;
                let mut sweep = Sweep {
                    from: tail.first,
                    values,
                    visits: STEP_VISITS,
                    left: effort.pages - sum.pages,
                    moved: Moved::default(),
                    runs: Vec::new(),
                    stopped: None,
                };
                if !self.step(&mut sweep)? {
                    break;
                }
                sum.pages += sweep.moved.pages;
                sum.vacated += sweep.moved.vacated;
                whole = sweep.moved.whole;
            }
        }
        // Large values need runs: the higher the ceiling, the more of them are below it.
        sum.cramped = sum.pages == 0 && tail.live > 1;
        let mut head = self.head.lock();
        head.sweep.reach = if sum.cramped {
            tail.live / 2
        } else {
            head.sweep.reach.saturating_mul(2)
        };
        Ok(sum)
    }

    /// One transaction. False if there is no room for what it would do.
    fn step(&self, sweep: &mut Sweep) -> Result<bool, CommitError> {
        if self.group.is_poisoned() {
            return Err(CommitError::Poisoned);
        }
        let mut txn = WriteTxn::begin(self, self.head.lock());
        let mut place = core::mem::take(sweep.place(&mut txn.head));
        let result = txn.sweep(sweep, &mut place);
        let result = result.and_then(|()| self.pages.intact(Ok(())));
        *sweep.place(&mut txn.head) = place;
        let runs = core::mem::take(&mut sweep.runs);
        if result.is_err() || sweep.moved.pages == 0 {
            runs.into_iter().for_each(|run| txn.head.space.insert(run));
            return result.map(|()| true).map_err(Into::into);
        }
        let mut record = vec![0; ring::HEADER_BYTES];
        ring::seal(&mut record, txn.head.salt, txn.work.txn);
        let room = self.ring_room(&txn.head, record, txn.work.txn);
        let Ok((segments, end)) = room else {
            runs.into_iter().for_each(|run| txn.head.space.insert(run));
            return Ok(false);
        };
        txn.moves = Some(runs);
        let version = match txn.build() {
            Ok(version) => version,
            Err(error) => {
                // Unless they were placed already, and given back.
                let runs = txn.moves.take().unwrap_or_default();
                runs.into_iter().for_each(|run| txn.head.space.insert(run));
                let full = matches!(error, CommitError::Full { .. });
                return if full { Ok(false) } else { Err(error) };
            }
        };
        let WriteTxn { mut head, work, .. } = txn;
        head.version = version;
        head.ring = end;
        work.freed
            .into_iter()
            .for_each(|freed| head.space.release(freed));
        if cfg!(debug_assertions) {
            head.space.validate();
        }
        self.group.append(segments, version);
        Ok(true)
    }
}

impl WriteTxn<'_> {
    /// Goes through the tables from `place` on; leaves the place where it stopped.
    fn sweep(
        &mut self,
        sweep: &mut Sweep,
        place: &mut (Vec<u8>, Vec<u8>),
    ) -> Result<(), ReadError> {
        let (mut name, mut key) = core::mem::take(place);
        let mut cursor = Cursor::seek(&self.work, self.root, &name, false)?;
        let mut start = name.clone();
        while let Some(record) = cursor.entry(&self.work, &mut name)? {
            let record = TableRecord::decode(record);
            let (record, _) = record.ok_or(damaged(self.root.page, Flaw::Record))?;
            if name != start {
                key.clear();
            }
            start.clone_from(&name);
            let (work, space) = (&mut self.work, &mut self.head.space);
            let root = sweep.tree(work, space, record.root, &key)?;
            if root != record.root {
                let index = self.open_table_bytes(&name)?;
                self.tables[index].record.root = root;
                self.tables[index].changed = true;
            }
            if let Some(stopped) = sweep.stopped.take() {
                *place = (name, stopped);
                return Ok(());
            }
            cursor.forward(&self.work)?;
        }
        // The tree of tables itself, whose leaves hold records and nothing large.
        let values = core::mem::replace(&mut sweep.values, false);
        let (work, space) = (&mut self.work, &mut self.head.space);
        self.root = sweep.tree(work, space, self.root, &[])?;
        sweep.values = values;
        sweep.moved.whole = sweep.stopped.take().is_none();
        Ok(())
    }

    fn open_table_bytes(&mut self, name: &[u8]) -> Result<usize, ReadError> {
        let flawed = damaged(self.root.page, Flaw::Record);
        let name = core::str::from_utf8(name).map_err(|_| flawed)?;
        self.open_table(name).map_err(|error| match error {
            WriteError::Read(error) => error,
            _ => flawed,
        })
    }
}

/// A walk that copies what lies at or above `from` into the memory of a transaction.
struct Sweep {
    from: u32,
    /// Leaves are read, too.
    values: bool,
    /// Nodes that it may still read.
    visits: u32,
    /// Pages that may still be moved, which bounds a large value.
    left: u32,
    moved: Moved,
    /// Where the large values go, in the order in which they were met.
    runs: Vec<Extent>,
    /// The key before which it stopped.
    stopped: Option<Vec<u8>>,
}

impl Sweep {
    /// Where the last walk of this kind stopped.
    fn place<'h>(&self, head: &'h mut Head) -> &'h mut (Vec<u8>, Vec<u8>) {
        if self.values {
            &mut head.sweep.values
        } else {
            &mut head.sweep.nodes
        }
    }

    fn is_spent(&self) -> bool {
        self.visits == 0 || self.moved.pages >= STEP_PAGES.min(self.left)
    }

    fn tree(
        &mut self,
        work: &mut Work<'_>,
        space: &mut Space,
        root: Child,
        start: &[u8],
    ) -> Result<Child, ReadError> {
        if root.is_none() {
            return Ok(root);
        }
        if self.is_spent() {
            self.stopped = Some(start.to_vec());
            return Ok(root);
        }
        self.node(work, space, root, (None, start))
    }

    /// The node in memory; copied there, and counted, if it is not yet.
    fn copy(&mut self, work: &mut Work<'_>, child: Child) -> Result<Child, ReadError> {
        if child.dirty_index().is_none() {
            self.moved.pages += 1;
            self.moved.vacated += u32::from(child.page >= self.from);
        }
        work.make_dirty(child)
    }

    /// What becomes of `child` and what is under it, from the key `start` on. Depth is
    /// bounded: each step is one level down.
    fn node(
        &mut self,
        work: &mut Work<'_>,
        space: &mut Space,
        child: Child,
        (level, start): (Option<u8>, &[u8]),
    ) -> Result<Child, ReadError> {
        self.visits = self.visits.saturating_sub(1);
        let flawed = |flaw| damaged(child.page, flaw);
        let node = node_at(work.pages, child, level)?;
        let mut new = child;
        if child.page >= self.from {
            new = self.copy(work, child)?;
        }
        if node.is_leaf() {
            return self.leaf(work, space, (child, &node), new);
        }
        let below = node.level() - 1;
        let first = node.child_index(start).map_err(flawed)?;
        for index in first..node.count() {
            if self.is_spent() {
                self.stopped = Some(Vec::new());
            } else {
                let old = node.child(index).map_err(flawed)?;
                let start = if index == first { start } else { &[] };
                let moved = if below > 0 || self.values {
                    self.node(work, space, old, (Some(below), start))?
                } else if old.page >= self.from {
                    node_at(work.pages, old, Some(0))?;
                    self.copy(work, old)?
                } else {
                    old
                };
                if moved != old {
                    new = self.copy(work, new)?;
                    work.edit(new).set_child(index, moved);
                }
            }
            if let Some(key) = &mut self.stopped {
                // The first child has no key of its own: the parent knows one.
                if key.is_empty() {
                    node.key_into(index, key).map_err(flawed)?;
                }
                break;
            }
        }
        Ok(new)
    }

    /// Copies the large values of a leaf that reach above `from`.
    fn leaf(
        &mut self,
        work: &mut Work<'_>,
        space: &mut Space,
        (at, node): (Child, &Node<'_>),
        mut new: Child,
    ) -> Result<Child, ReadError> {
        if !self.values {
            return Ok(new);
        }
        for index in 0..node.count() {
            let entry = node.entry(index);
            let entry = entry.map_err(|flaw| damaged(at.page, flaw))?;
            if !entry.large {
                continue;
            }
            let flawed = damaged(at.page, Flaw::Record);
            let large = LargeRef::decode(entry.value).ok_or(flawed)?;
            if large == LargeRef::EMPTY {
                continue;
            }
            let extent = large.extent().ok_or(flawed)?;
            let left = self.left.saturating_sub(self.moved.pages);
            if extent.end() <= self.from || extent.pages > left {
                continue;
            }
            let bytes = work.pages.large(&large)?;
            let Some(run) = space.take_run_below(extent.pages) else {
                continue;
            };
            self.runs.push(run);
            // How it lies in memory is nobody's concern: nobody reads it there.
            let memory = ValueMemory::copy_of(bytes, Alignment::NONE);
            let reference = work.keep_large(memory).encode();
            new = self.copy(work, new)?;
            let replaced = work.edit(new).replace_value(index, &reference, true);
            assert!(replaced, "references have one length");
            work.drop_large(&large)?;
            self.moved.pages += extent.pages;
            self.moved.vacated += extent.end() - extent.first.max(self.from);
        }
        Ok(new)
    }
}
