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

use std::io::{self, IoSlice};

use crate::error::CommitError;
use crate::format::meta::Meta;
use crate::ids::{Extent, FIRST_PAGE, PAGE_BYTES, pages_for};
use crate::shared::{Durable, Head, Shared};
use crate::sync::MutexGuard;
use crate::versions::Version;

/// Pages of a step beside commits: with 32 KiB on its way the next record waits little.
const BUSY_STEP_PAGES: u32 = 8;
/// Pages of a step while nobody commits.
const QUIET_STEP_PAGES: u32 = 256;

/// A checkpoint that was chosen and not written.
#[derive(Debug)]
struct Plan {
    meta: Meta,
    version: Version,
    /// Pages written since the last one was chosen: those of this version are among them.
    dirty: Vec<Extent>,
}

impl Shared {
    /// Makes everything committed so far durable in the tree. Other threads commit
    /// meanwhile, but for the moment in which the version is chosen.
    pub(crate) fn checkpoint(&self) -> Result<(), CommitError> {
        if self.read_only {
            return Err(CommitError::ReadOnly);
        }
        self.checkpoint_from(self.head.lock())
    }

    fn checkpoint_from(&self, mut head: MutexGuard<'_, Head>) -> Result<(), CommitError> {
        let one = self.checkpointing.lock();
        let plan = self.plan(&mut head)?;
        drop(head);
        let result = self.clean(&plan).and_then(|()| self.carry_out(&plan));
        drop(one);
        result
    }

    /// Writes the pages of a plan to the disk, in steps between commits.
    fn clean(&self, plan: &Plan) -> Result<(), CommitError> {
        let mut seen = 0;
        self.group.give_way(&mut seen);
        for run in joined(&plan.dirty) {
            let mut first = run.first;
            while first < run.end() {
                let step = if self.group.give_way(&mut seen) {
                    BUSY_STEP_PAGES
                } else {
                    QUIET_STEP_PAGES
                };
                let pages = step.min(run.end() - first);
                let cleaned = self.pages.backing().clean_pages(Extent { first, pages });
                cleaned.map_err(|source| self.failed(source))?;
                first += pages;
            }
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
        self.syncer.start(|| {
            let shared = self.me.upgrade();
            let shared = shared.expect("the caller borrows the store, which owns it");
            move || shared.sync_for_others()
        })
    }

    /// Makes transactions last as long as anybody asks for it. The checkpoints that are
    /// due are made here, too, but not while a transaction is being made: it may take
    /// long, and somebody else may ask meanwhile.
    fn sync_for_others(&self) {
        while let Some(txn) = self.group.next_asked() {
            // A failure poisons the group, which tells all who wait.
            if self.settle(txn).is_err() {
                continue;
            }
            if let Some(mut head) = self.head.try_lock()
                && self.checkpoint_is_due(&mut head)
            {
                // A failure shows in the next commit.
                let _ = self.checkpoint_from(head);
            }
        }
    }

    /// Whether the ring is more than half full and no checkpoint is on its way.
    pub(crate) fn checkpoint_is_due(&self, head: &mut Head) -> bool {
        self.reclaim(head);
        let used = head.ring - head.durable.ring_start;
        used > self.ring_bytes / 2 && head.pinned.is_none()
    }

    /// A checkpoint with the writer's state already in hand, which is kept until the end.
    pub(crate) fn checkpoint_holding(&self, head: &mut Head) -> Result<(), CommitError> {
        let one = self.checkpointing.lock();
        let plan = self.plan(head)?;
        self.carry_out(&plan)?;
        drop(one);
        self.trim(head, true);
        Ok(())
    }

    fn plan(&self, head: &mut Head) -> Result<Plan, CommitError> {
        if self.group.is_poisoned() {
            return Err(CommitError::Poisoned);
        }
        self.reclaim(head);
        // A bit for each page, also for those by which the file may grow right now.
        let bits = u64::from(head.len) + u64::from(head.len / 4) + 4096;
        let pages = u32::try_from(pages_for(bits / 8)).expect("a file has 2³¹ pages at most");
        let extent = self.take_run(head, pages)?;
        self.pages.clear_verified(extent);
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
        if let Err(source) = self.pages.backing().write_pages(extent.first, buffers) {
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
        })
    }

    fn carry_out(&self, plan: &Plan) -> Result<(), CommitError> {
        self.write(plan).map_err(|source| self.failed(source))?;
        *self.done.lock() = Some(Durable {
            txn: plan.meta.txn,
            ring_start: plan.meta.ring_start,
            map: plan.meta.map,
            pages: plan.meta.pages,
        });
        self.versions.publish(plan.version);
        self.group.note_durable(plan.meta.txn);
        Ok(())
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
    use super::*;

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
}
