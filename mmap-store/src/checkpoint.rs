//! Making the tree last, so that the ring may be used anew.
//!
//! | we die after | what opening finds |
//! |---|---|
//! | choosing the version (pages are written, unsynced) | the old slot; replays the ring |
//! | writing the map of free pages | the same: the map lies in pages that were free |
//! | the barrier | the same; the new tree is there and nobody names it |
//! | writing the slot | the old or the new slot, whichever is whole |
//! | the second barrier | the new slot |
//!
//! Before the barrier the pages are written in small steps that give way to commits
//! ([`Shared::clean`]): one barrier over all of them would keep the disk busy, and every
//! commit waiting, for its whole length.
//!
//! Only then are the ring's records up to the version, the old map and the pages that
//! only the old checkpoint saw given up, and the file may become shorter.
//!
//! The slot names the pages up to the last one in use, whatever follows: recovery treats
//! the rest of the file as if it were not there, and a cut that did not last hurts nobody.

use core::time::Duration;
use std::io::{self, IoSlice};
use std::thread;

use crate::error::CommitError;
use crate::format::meta::Meta;
use crate::ids::{Extent, FIRST_PAGE, PAGE_BYTES, pages_for};
use crate::shared::{Durable, Head, Shared};
use crate::versions::Version;

/// Pages of a step beside commits: with 32 KiB on its way the next record waits little.
const BUSY_STEP_PAGES: u32 = 8;
/// Pages of a step while nobody commits, or the ring fills up.
const QUIET_STEP_PAGES: u32 = 256;
/// Rest after a step beside commits, so that most of them meet none.
const BUSY_REST: Duration = Duration::from_micros(300);
/// Clean pages between two runs that are written in one step all the same.
const MOST_GAP_PAGES: u32 = 16;

/// A checkpoint that was chosen and not written.
#[derive(Debug)]
struct Plan {
    meta: Meta,
    version: Version,
    /// Pages written since the last one was chosen: those of this version are among them.
    dirty: Vec<Extent>,
    /// Bytes of the ring that were left when it was chosen.
    room: u64,
}

impl Shared {
    /// Makes everything committed so far durable in the tree. Other threads commit
    /// meanwhile, but for the moment in which the version is chosen.
    pub(crate) fn checkpoint(&self) -> Result<(), CommitError> {
        if self.read_only {
            return Err(CommitError::ReadOnly);
        }
        // One on its way is waited for before writers have to wait as well.
        drop(self.checkpointing.lock());
        let mut head = self.head.lock();
        let one = self.checkpointing.lock();
        let plan = self.plan(&mut head)?;
        drop(head);
        let result = self.clean(&plan).and_then(|()| self.carry_out(&plan));
        drop(one);
        // Wakers are called, which may do anything: no lock is held.
        result.map(|txn| self.group.note_durable(txn))
    }

    /// Writes the pages of a plan to the disk, in steps between commits.
    fn clean(&self, plan: &Plan) -> Result<(), CommitError> {
        let mut seen = 0;
        let (_, appended_before) = self.group.give_way(&mut seen);
        let mut runs = joined(&plan.dirty);
        let total = runs.iter().map(|run| u64::from(run.pages)).sum();
        // The last run is next.
        runs.reverse();
        let mut left = total;
        while left > 0 {
            let (busy, appended) = self.group.give_way(&mut seen);
            let taken = appended - appended_before;
            let (step, rest) = pace(busy, (total - left, total), (taken, plan.room));
            thread::sleep(rest);
            let (span, pages) = take_span(&mut runs, step);
            let cleaned = self.pages.backing().clean_pages(span);
            cleaned.map_err(|source| self.failed(source))?;
            left -= u64::from(pages);
        }
        Ok(())
    }

    /// What a failed barrier has left on the disk cannot be known.
    fn failed(&self, source: io::Error) -> CommitError {
        self.group.poison();
        CommitError::Unknown {
            action: "write a checkpoint",
            source,
        }
    }

    /// Starts the thread that makes transactions last for others, unless it runs.
    pub(crate) fn start_syncer(&self) -> io::Result<()> {
        self.syncer.start("brickyard-sync", || {
            let shared = self.me.upgrade();
            let shared = shared.expect("the caller borrows the store, which owns it");
            move || shared.sync_for_others()
        })
    }

    /// Makes transactions last as long as anybody asks for it.
    fn sync_for_others(&self) {
        while let Some(txn) = self.group.next_asked() {
            // A failure poisons the group, which tells all who wait.
            let _ = self.settle(txn);
        }
    }

    /// Whether the ring is more than half full and no checkpoint is on its way.
    pub(crate) fn checkpoint_is_due(&self, head: &mut Head) -> bool {
        self.reclaim(head);
        let used = head.ring - head.durable.ring_start;
        used > self.ring_bytes / 2 && head.pinned.is_none()
    }

    /// A checkpoint with the writer's state already in hand, which is kept until the end.
    /// Returns the transaction up to which all lasts; who holds the state notes that
    /// ([`Group::note_durable`](crate::group::Group::note_durable)) once he holds it no more.
    pub(crate) fn checkpoint_holding(&self, head: &mut Head) -> Result<u64, CommitError> {
        let one = self.checkpointing.lock();
        let plan = self.plan(head)?;
        let txn = self.carry_out(&plan)?;
        drop(one);
        self.trim(head, true);
        Ok(txn)
    }

    fn plan(&self, head: &mut Head) -> Result<Plan, CommitError> {
        if self.group.is_poisoned() {
            return Err(CommitError::Poisoned);
        }
        // The ring may have what the tree lost, also where nobody has looked yet.
        self.pages.intact(Ok(()))?;
        self.whole(head)?;
        self.reclaim(head);
        // A bit for each page, also for those by which the file may grow right now.
        let bits = u64::from(head.len) + u64::from(head.len / 4) + 4096;
        let pages = u32::try_from(pages_for(bits / 8)).expect("a file has 2³¹ pages at most");
        let extent = self.take_run(head, pages)?;
        let map = head
            .space
            .to_map(pages as usize * PAGE_BYTES, head.durable.map);
        let used = used_pages(&map, head.len);
        #[cfg(test)]
        if self.sabotage.cut_early {
            let _ = self.pages.backing().cut(used);
        }
        // A full disk is met here, where nothing has happened yet.
        let buffers = &[IoSlice::new(&map)];
        if let Err(source) = self.pages.write(extent.first, buffers) {
            head.space.insert(extent);
            return Err(CommitError::Aborted {
                action: "write the map of free pages",
                source,
            });
        }
        head.generation += 1;
        head.pinned = Some(head.version.txn);
        let meta = Meta {
            generation: head.generation,
            txn: head.version.txn,
            salt: head.salt,
            ring_start: head.ring,
            root: head.version.root,
            pages: used,
            map: extent,
            map_crc: crc32c::crc32c(&map),
            ring_bytes: self.ring_bytes,
        };
        Ok(Plan {
            meta,
            version: head.version,
            dirty: core::mem::take(&mut head.dirty),
            room: self.ring_bytes - (head.ring - head.durable.ring_start).min(self.ring_bytes),
        })
    }

    fn carry_out(&self, plan: &Plan) -> Result<u64, CommitError> {
        self.write(plan).map_err(|source| self.failed(source))?;
        *self.done.lock() = Some(Durable {
            txn: plan.meta.txn,
            ring_start: plan.meta.ring_start,
            map: plan.meta.map,
            pages: plan.meta.pages,
        });
        self.versions.publish(plan.version);
        Ok(plan.meta.txn)
    }

    fn write(&self, plan: &Plan) -> io::Result<()> {
        let backing = self.pages.backing();
        backing.sync_tree()?;
        let slot = u32::from(plan.meta.generation % 2 == 1);
        let page = plan.meta.encode();
        backing.write_pages(slot, &[IoSlice::new(&page[..])])?;
        backing.sync_tree()
    }
}

/// Pages of the next step, and the rest before it, if commits are `busy`, so many of all
/// pages are written, and so many bytes of the ring's room are taken.
///
/// The pages are to be written when half of the room is taken: where they are behind, the
/// steps are long and follow one another.
fn pace(busy: bool, (done, total): (u64, u64), (taken, room): (u64, u64)) -> (u32, Duration) {
    let is_behind = u128::from(taken) * 2 * u128::from(total) > u128::from(done) * u128::from(room);
    // At the start nothing is written, and little taken.
    if !busy || is_behind && taken > room / 16 {
        (QUIET_STEP_PAGES, Duration::ZERO)
    } else {
        (BUSY_STEP_PAGES, BUSY_REST)
    }
}

/// Takes runs of up to `most` pages that lie near one another, from the last on, which is
/// the lowest: where they lie, and how many pages they have. There is one.
fn take_span(runs: &mut Vec<Extent>, most: u32) -> (Extent, u32) {
    let first = runs.last().expect("there is a run").first;
    let (mut end, mut pages) = (first, 0);
    while pages < most
        && let Some(run) = runs.last_mut()
        && run.first - end <= MOST_GAP_PAGES
    {
        let part = run.pages.min(most - pages);
        pages += part;
        end = run.first + part;
        run.first = end;
        run.pages -= part;
        if run.pages == 0 {
            runs.pop();
        }
    }
    let span = Extent {
        first,
        pages: end - first,
    };
    (span, pages)
}

/// The runs in the order of their pages, those that touch or overlap as one.
fn joined(runs: &[Extent]) -> Vec<Extent> {
    let mut sorted = runs.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<Extent> = Vec::new();
    for run in sorted {
        match joined.last_mut() {
            Some(last) if run.first <= last.end() => {
                last.pages = last.pages.max(run.end() - last.first);
            }
            _ => joined.push(run),
        }
    }
    joined
}

/// Pages of a file of `len` pages up to the last one that the map does not call free.
pub(crate) fn used_pages(map: &[u8], len: u32) -> u32 {
    let is_free = |page: u32| map[page as usize / 8] & (1 << (page % 8)) != 0;
    let last = (FIRST_PAGE..len).rev().find(|&page| !is_free(page));
    last.map_or(FIRST_PAGE, |page| page + 1)
}

/// No map at all.
pub(crate) const NO_MAP: Extent = Extent { first: 0, pages: 0 };

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::store::{Options, Store};

    const ENTRIES: u32 = 900;

    /// Replaces every leaf.
    fn replace_all(store: &Store, byte: u8) {
        let mut txn = store.write().expect("sound");
        let mut table = txn.table("t").expect("there");
        for n in 0..ENTRIES {
            table.put(&n.to_be_bytes(), &[byte; 1000]).expect("sound");
        }
        txn.commit().expect("memory");
    }

    /// What could go wrong: commits beside a checkpoint keep the pages of two checkpoints,
    /// and the file grows by one more copy of the table.
    #[test]
    fn a_commit_of_much_of_the_file_waits_for_a_checkpoint_before_it_grows() {
        let store = Options::new().open_in_memory().expect("address space");
        (0..3).for_each(|byte| replace_all(&store, byte));
        store.checkpoint().expect("memory");
        (3..7).for_each(|byte| replace_all(&store, byte));
        let before = store.stat().expect("sound").pages;
        let shared = store.write().expect("sound").shared;
        thread::scope(|scope| {
            let (chosen, choice) = mpsc::channel();
            scope.spawn(move || {
                let mut head = shared.head.lock();
                let one = shared.checkpointing.lock();
                let plan = shared.plan(&mut head).expect("memory");
                drop(head);
                chosen.send(()).expect("the other side waits");
                // Long enough for two commits that do not wait.
                thread::sleep(Duration::from_millis(200));
                shared.carry_out(&plan).expect("memory");
                drop(one);
            });
            choice.recv().expect("a version is chosen");
            replace_all(&store, 7);
            replace_all(&store, 8);
        });
        assert_eq!(store.stat().expect("sound").pages, before);
        assert_eq!(store.check().problems, []);
    }

    #[test]
    fn runs_that_touch_or_overlap_are_cleaned_once() {
        let run = |first, pages| Extent { first, pages };
        let runs = [
            run(20, 2),
            run(5, 5),
            run(3, 4),
            run(10, 1),
            run(30, 1),
            run(5, 1),
        ];
        assert_eq!(joined(&runs), [run(3, 8), run(20, 2), run(30, 1)]);
        assert_eq!(joined(&[]), []);
    }

    #[test]
    fn a_step_spans_runs_that_lie_near_one_another() {
        let run = |first, pages| Extent { first, pages };
        let mut runs = vec![run(100, 3), run(20, 6), run(10, 4)];
        assert_eq!(take_span(&mut runs, 8), (run(10, 14), 8));
        assert_eq!(take_span(&mut runs, 8), (run(24, 2), 2), "100 is far away");
        assert_eq!(take_span(&mut runs, 2), (run(100, 2), 2));
        assert_eq!(take_span(&mut runs, 2), (run(102, 1), 1));
        assert_eq!(runs, []);
    }

    #[test]
    fn a_checkpoint_is_done_before_the_ring_is_full() {
        let slow = (BUSY_STEP_PAGES, BUSY_REST);
        let fast = (QUIET_STEP_PAGES, Duration::ZERO);
        assert_eq!(
            pace(false, (0, 100), (0, 1000)),
            fast,
            "nobody is kept waiting"
        );
        assert_eq!(pace(true, (0, 100), (0, 1000)), slow);
        assert_eq!(pace(true, (50, 100), (200, 1000)), slow, "on time");
        assert_eq!(pace(true, (30, 100), (200, 1000)), fast, "behind");
        assert_eq!(
            pace(true, (99, 100), (500, 1000)),
            fast,
            "half of it is taken"
        );
    }
}
