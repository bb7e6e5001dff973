//! Which pages may be written to. Pure: numbers in, decisions out.
//!
//! A page is *live* from the transaction that wrote it (`born`) to the one that replaced
//! it (`freed`). A snapshot `s` sees it if `born ≤ s < freed`. Snapshots are: every
//! reader, the last durable checkpoint, a checkpoint on its way, and every version that
//! may still be published. A page that none of them sees is free, however old the oldest
//! of them is: one forgotten reader holds one copy of the store, not every page since.
//!
//! ```text
//!   allocate          release(born)              reclaim
//!  free ─────► written, live ─────► waiting ──┬─────────► free
//!   ▲                                         └► held by snapshot s ─┐
//!   └───────────────────────── s is gone ◄───────────────────────────┘
//! ```
//!
//! Invariants:
//! - I1: free runs do not touch or overlap, and `by_size` holds exactly the runs of `free`.
//! - I2: a page is in at most one of `free`, `waiting` and `held`.
//! - I3: an entry in `held[s]` has `born ≤ s < freed`, and no larger snapshot below
//!   `freed` existed when it was put there; later snapshots are not below `freed`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::Extent;

/// Up to this many pages a commit is scattered over small holes before the file grows:
/// five scattered pages cost 10 µs, an appended one 10 to 20.
const SCATTER_PAGES: u32 = 16;
/// Above that, holes smaller than this are left alone.
const LEAST_RUN_PAGES: u32 = 8;

/// Pages that were replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) extent: Extent,
    pub(crate) born: u64,
    pub(crate) freed: u64,
}

/// See the module. Belongs to the writer.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// First page → pages.
    free: BTreeMap<u32, u32>,
    /// (pages, first page).
    by_size: BTreeSet<(u32, u32)>,
    free_pages: u64,
    /// In the order of `freed`.
    waiting: VecDeque<Freed>,
    held: BTreeMap<u64, Vec<Freed>>,
}

impl Space {
    /// From the map of a checkpoint: bit `n` of it says that page `n` is free.
    pub(crate) fn from_map(map: &[u8], pages: u32) -> Self {
        let mut space = Self::default();
        let is_free = |page: u32| {
            let byte = map.get(page as usize / 8);
            byte.is_some_and(|byte| byte & (1 << (page % 8)) != 0)
        };
        let mut page = crate::ids::FIRST_PAGE;
        while page < pages {
            let first = page;
            while page < pages && is_free(page) {
                page += 1;
            }
            if page > first {
                space.insert(Extent {
                    first,
                    pages: page - first,
                });
            }
            page += 1;
        }
        space
    }

    /// The map for a checkpoint that becomes the only snapshot there is, `bytes` long:
    /// free pages and all that wait, are held, or are in `also`.
    pub(crate) fn to_map(&self, bytes: usize, also: Extent) -> Vec<u8> {
        let mut map = vec![0; bytes];
        let held = self.held.values().flatten().chain(&self.waiting);
        let free = self
            .free
            .iter()
            .map(|(&first, &pages)| Extent { first, pages });
        for extent in free.chain(held.map(|freed| freed.extent)).chain([also]) {
            for page in extent.first..extent.end() {
                map[page as usize / 8] |= 1 << (page % 8);
            }
        }
        map
    }

    pub(crate) fn free_pages(&self) -> u64 {
        self.free_pages
    }

    /// Pages that a snapshot still holds.
    pub(crate) fn held_pages(&self) -> u64 {
        let held = self.held.values().flatten().chain(&self.waiting);
        held.map(|freed| u64::from(freed.extent.pages)).sum()
    }

    /// Adds free pages, joining them with their neighbours. A run that is free already in
    /// part was reached twice, which only a forged file brings about: it is not used any
    /// more, and [`Store::check`](crate::Store::check) reports it as lost.
    pub(crate) fn insert(&mut self, extent: Extent) {
        let Extent {
            mut first,
            mut pages,
        } = extent;
        if pages == 0 || self.overlaps(extent) {
            return;
        }
        self.free_pages += u64::from(pages);
        if let Some((&before, &len)) = self.free.range(..first).next_back()
            && before + len == first
        {
            self.unlink(before, len);
            first = before;
            pages += len;
        }
        if let Some((&after, &len)) = self.free.range(first..).next()
            && first + pages == after
        {
            self.unlink(after, len);
            pages += len;
        }
        self.free.insert(first, pages);
        self.by_size.insert((pages, first));
    }

    fn overlaps(&self, extent: Extent) -> bool {
        let before = self.free.range(..extent.end()).next_back();
        before.is_some_and(|(&first, &pages)| first + pages > extent.first)
    }

    fn unlink(&mut self, first: u32, pages: u32) {
        self.free.remove(&first);
        self.by_size.remove(&(pages, first));
    }

    /// Takes `pages` from the run `run`, at its start.
    fn cut(&mut self, run: Extent, pages: u32) -> Extent {
        self.unlink(run.first, run.pages);
        self.free_pages -= u64::from(run.pages);
        self.insert(Extent {
            first: run.first + pages,
            pages: run.pages - pages,
        });
        Extent {
            first: run.first,
            pages,
        }
    }

    /// One run of `pages` pages: the smallest that is large enough, the lowest of equals.
    pub(crate) fn take_run(&mut self, pages: u32) -> Option<Extent> {
        let &(len, first) = self.by_size.range((pages, 0)..).next()?;
        Some(self.cut(Extent { first, pages: len }, pages))
    }

    /// Runs of `pages` pages in all: one if there is one; else holes, where that is
    /// cheaper than growing the file. `None` asks for growth, and takes nothing.
    pub(crate) fn take(&mut self, pages: u32) -> Option<Vec<Extent>> {
        if let Some(run) = self.take_run(pages) {
            return Some(vec![run]);
        }
        if self.free_pages < u64::from(pages) {
            return None;
        }
        let least = if pages <= SCATTER_PAGES {
            1
        } else {
            LEAST_RUN_PAGES
        };
        let (mut runs, mut missing) = (Vec::new(), pages);
        while missing > 0 {
            let run = self.by_size.last().filter(|&&(len, _)| len >= least);
            let Some(&(len, first)) = run else {
                runs.into_iter().for_each(|run| self.insert(run));
                return None;
            };
            let part = len.min(missing);
            runs.push(self.cut(Extent { first, pages: len }, part));
            missing -= part;
        }
        Some(runs)
    }

    /// Hands over pages that a transaction replaced. `freed` never decreases.
    pub(crate) fn release(&mut self, freed: Freed) {
        debug_assert!(
            self.waiting
                .back()
                .is_none_or(|last| last.freed <= freed.freed)
        );
        self.waiting.push_back(freed);
    }

    /// Frees what no snapshot sees. `snapshots` ascends and holds every snapshot there
    /// is; no version below `published` can become one any more.
    pub(crate) fn reclaim(&mut self, published: u64, snapshots: &[u64]) {
        debug_assert!(snapshots.is_sorted());
        let gone = |held: &u64| snapshots.binary_search(held).is_err();
        let gone: Vec<u64> = self.held.keys().copied().filter(gone).collect();
        for snapshot in gone {
            for freed in self.held.remove(&snapshot).unwrap_or_default() {
                self.judge(freed, snapshots);
            }
        }
        // What was freed after `published` may yet be seen by a version between.
        while let Some(freed) = self.waiting.pop_front_if(|freed| freed.freed <= published) {
            self.judge(freed, snapshots);
        }
    }

    fn judge(&mut self, freed: Freed, snapshots: &[u64]) {
        let below = snapshots.partition_point(|&snapshot| snapshot < freed.freed);
        let last = below.checked_sub(1).map(|index| snapshots[index]);
        match last.filter(|&snapshot| snapshot >= freed.born) {
            Some(snapshot) => self.held.entry(snapshot).or_default().push(freed),
            None => self.insert(freed.extent),
        }
    }

    /// Every run that is free, waits or is held.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Extent> {
        let free = self
            .free
            .iter()
            .map(|(&first, &pages)| Extent { first, pages });
        let held = self.held.values().flatten().chain(&self.waiting);
        free.chain(held.map(|freed| freed.extent))
    }

    /// Checks I1 to I3.
    pub(crate) fn validate(&self) {
        let mut end = 0;
        for (&first, &pages) in &self.free {
            assert!(first > end || end == 0, "I1: runs touch at {first}");
            assert!(self.by_size.contains(&(pages, first)), "I1: {first}");
            end = first + pages;
        }
        assert_eq!(self.free.len(), self.by_size.len(), "I1");
        assert_eq!(
            self.free_pages,
            self.free.values().map(|&n| u64::from(n)).sum::<u64>()
        );
        let mut seen: Vec<Extent> = self.runs().collect();
        seen.sort();
        for pair in seen.windows(2) {
            assert!(pair[0].end() <= pair[1].first, "I2: {pair:?}");
        }
        for (&snapshot, held) in &self.held {
            for freed in held {
                assert!(freed.born <= snapshot && snapshot < freed.freed, "I3");
            }
        }
    }
}
