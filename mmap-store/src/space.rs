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
//! While the file is being made shorter there is a *ceiling*: free pages at or above it are
//! parked, and used only when there are none below, so that what was moved down is not
//! followed by new pages at the old place.
//!
//! Invariants:
//! - I1: the runs of `free`, and those of `parked`, do not touch or overlap; `by_size` has
//!   exactly the same runs.
//! - I2: a page is in at most one of `free`, `parked`, `waiting` and `held`.
//! - I3: an entry in `held[s]` has `born ≤ s < freed`, and no larger snapshot below
//!   `freed` existed when it was put there; later snapshots are not below `freed`.
//! - I4: `free` lies below `ceiling`, `parked` does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::Extent;

/// Pages that were replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) extent: Extent,
    pub(crate) born: u64,
    pub(crate) freed: u64,
}

/// Runs of pages, joined with their neighbours.
#[derive(Debug, Default)]
struct Runs {
    /// First page → pages.
    runs: BTreeMap<u32, u32>,
    /// (pages, first page).
    by_size: BTreeSet<(u32, u32)>,
    pages: u64,
}

impl Runs {
    fn iter(&self) -> impl DoubleEndedIterator<Item = Extent> {
        let runs = self.runs.iter();
        runs.map(|(&first, &pages)| Extent { first, pages })
    }

    fn overlaps(&self, extent: Extent) -> bool {
        let before = self.runs.range(..extent.end()).next_back();
        before.is_some_and(|(&first, &pages)| first + pages > extent.first)
    }

    /// Adds a run that overlaps none, joining it with its neighbours.
    fn insert(&mut self, extent: Extent) {
        let (mut first, mut pages) = (extent.first, extent.pages);
        if let Some((&before, &len)) = self.runs.range(..first).next_back()
            && before + len == first
        {
            self.remove(before, len);
            first = before;
            pages += len;
        }
        if let Some((&after, &len)) = self.runs.range(first..).next()
            && first + pages == after
        {
            self.remove(after, len);
            pages += len;
        }
        self.runs.insert(first, pages);
        self.by_size.insert((pages, first));
        self.pages += u64::from(pages);
    }

    fn remove(&mut self, first: u32, pages: u32) {
        self.runs.remove(&first);
        self.by_size.remove(&(pages, first));
        self.pages -= u64::from(pages);
    }

    /// Takes `pages` from the run `run`, at its start.
    fn cut(&mut self, run: Extent, pages: u32) -> Extent {
        self.remove(run.first, run.pages);
        if pages < run.pages {
            self.insert(Extent {
                first: run.first + pages,
                pages: run.pages - pages,
            });
        }
        Extent { pages, ..run }
    }

    /// The smallest run of at least `pages` pages, the lowest of equals.
    fn take_run(&mut self, pages: u32) -> Option<Extent> {
        let &(len, first) = self.by_size.range((pages, 0)..).next()?;
        Some(self.cut(Extent { first, pages: len }, pages))
    }

    /// Takes what starts at or above `page` out.
    fn split_off(&mut self, page: u32) -> Vec<Extent> {
        let above: Vec<Extent> = self
            .runs
            .range(page..)
            .map(|(&first, &pages)| Extent { first, pages })
            .collect();
        above
            .iter()
            .for_each(|run| self.remove(run.first, run.pages));
        above
    }

    /// Checks I1.
    fn validate(&self) {
        let mut end = 0;
        for run in self.iter() {
            assert!(
                run.first > end || end == 0,
                "I1: runs touch at {}",
                run.first
            );
            assert!(self.by_size.contains(&(run.pages, run.first)), "I1");
            end = run.end();
        }
        assert_eq!(self.runs.len(), self.by_size.len(), "I1");
        let pages = self.iter().map(|run| u64::from(run.pages)).sum::<u64>();
        assert_eq!(self.pages, pages, "I1");
    }
}

/// What lies at the end of the file, seen by who wants to make it shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Its first page.
    pub(crate) first: u32,
    /// Pages in it that have to move down.
    pub(crate) live: u32,
}

/// See the module. Belongs to the writer.
#[derive(Debug)]
pub(crate) struct Space {
    free: Runs,
    parked: Runs,
    ceiling: u32,
    /// In the order of `freed`.
    waiting: VecDeque<Freed>,
    held: BTreeMap<u64, Vec<Freed>>,
    /// Runs whose blocks were given back to the file system.
    hollow: BTreeSet<(u32, u32)>,
}

/// No ceiling.
const NO_CEILING: u32 = u32::MAX;

impl Default for Space {
    fn default() -> Self {
        Self {
            free: Runs::default(),
            parked: Runs::default(),
            ceiling: NO_CEILING,
            waiting: VecDeque::new(),
            held: BTreeMap::new(),
            hollow: BTreeSet::new(),
        }
    }
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
        for extent in self.runs().chain([also]) {
            for page in extent.first..extent.end() {
                map[page as usize / 8] |= 1 << (page % 8);
            }
        }
        map
    }

    pub(crate) fn free_pages(&self) -> u64 {
        self.free.pages + self.parked.pages
    }

    /// Pages that are held, by the newest snapshot that sees them.
    pub(crate) fn held_by_snapshot(&self) -> BTreeMap<u64, u64> {
        let pages =
            |held: &Vec<Freed>| held.iter().map(|freed| u64::from(freed.extent.pages)).sum();
        self.held
            .iter()
            .map(|(&txn, held)| (txn, pages(held)))
            .collect()
    }

    /// Pages that a snapshot still holds.
    pub(crate) fn held_pages(&self) -> u64 {
        let held = self.held.values().flatten().chain(&self.waiting);
        held.map(|freed| u64::from(freed.extent.pages)).sum()
    }

    /// Adds free pages. A run that is free already in part was reached twice, which only
    /// a forged file brings about: it is not used any more, and
    /// [`Store::check`](crate::Store::check) reports it as lost.
    pub(crate) fn insert(&mut self, extent: Extent) {
        if extent.pages == 0 || self.free.overlaps(extent) || self.parked.overlaps(extent) {
            return;
        }
        let below = extent.end().min(self.ceiling).saturating_sub(extent.first);
        if below > 0 {
            self.free.insert(Extent {
                pages: below,
                ..extent
            });
        }
        if below < extent.pages {
            self.parked.insert(Extent {
                first: extent.first + below,
                pages: extent.pages - below,
            });
        }
    }

    /// From now on pages at or above `page` are used only when there are none below.
    pub(crate) fn set_ceiling(&mut self, page: u32) {
        let mut moved = self.parked.split_off(0);
        // A run that starts below and reaches above is cut when it is put back.
        let straddling = self.free.runs.range(..page).next_back();
        let start = straddling.map_or(page, |(&first, _)| first);
        moved.extend(self.free.split_off(start));
        self.ceiling = page;
        moved.into_iter().for_each(|run| self.insert(run));
    }

    /// Gives the parked pages up for use; false if there are none.
    fn lift(&mut self) -> bool {
        let parked = self.parked.pages > 0;
        if parked {
            self.set_ceiling(NO_CEILING);
        }
        parked
    }

    /// One run of `pages` pages: the smallest that is large enough, the lowest of equals.
    pub(crate) fn take_run(&mut self, pages: u32) -> Option<Extent> {
        let run = self.take_run_below(pages);
        if run.is_some() || !self.lift() {
            return run;
        }
        self.take_run_below(pages)
    }

    /// Runs of `pages` pages in all: one if there is one; else holes, the largest first,
    /// since a page in a hole costs 3 µs and one by which the file grows 10 to 20. `None`
    /// asks for growth, and takes nothing.
    pub(crate) fn take(&mut self, pages: u32) -> Option<Vec<Extent>> {
        if let Some(run) = self.take_run(pages) {
            return Some(vec![run]);
        }
        if self.free.pages < u64::from(pages) {
            return None;
        }
        let (mut runs, mut missing) = (Vec::new(), pages);
        while missing > 0 {
            let &(len, first) = self.free.by_size.last()?;
            let part = self
                .free
                .cut(Extent { first, pages: len }, len.min(missing));
            self.used(part);
            missing -= part.pages;
            runs.push(part);
        }
        Some(runs)
    }

    /// One run of `pages` pages below the ceiling.
    pub(crate) fn take_run_below(&mut self, pages: u32) -> Option<Extent> {
        let part = self.free.take_run(pages)?;
        self.used(part);
        Some(part)
    }

    /// Pages that were taken have blocks soon.
    fn used(&mut self, part: Extent) {
        let before = self.hollow.range(..=(part.first, u32::MAX)).next_back();
        let before = before
            .copied()
            .filter(|&(first, pages)| first + pages > part.first);
        if let Some(run) = before {
            self.hollow.remove(&run);
        }
    }

    /// Runs of `pages` pages in all, all below the ceiling and the lowest there are: what
    /// is free comes together above them. `None` takes nothing.
    pub(crate) fn take_lowest(&mut self, pages: u32) -> Option<Vec<Extent>> {
        if self.free.pages < u64::from(pages) {
            return None;
        }
        let (mut runs, mut missing) = (Vec::new(), pages);
        while missing > 0 {
            let run = self.free.iter().next()?;
            let part = self.free.cut(run, run.pages.min(missing));
            self.used(part);
            missing -= part.pages;
            runs.push(part);
        }
        Some(runs)
    }

    /// The end of a file of `len` pages that can be vacated by moving at most `most`
    /// pages to free ones below it. What snapshots hold is not moved: it goes when they
    /// do, and `also` with the next checkpoint. `None` if nothing would be won.
    pub(crate) fn tail(&self, len: u32, most: u32, also: Extent) -> Option<Tail> {
        let usable = self.free.iter().chain(self.parked.iter());
        let usable = usable.map(|run| (run, run.pages));
        let held = self.held.values().flatten().chain(&self.waiting);
        let held = held.map(|freed| freed.extent).chain([also]);
        let mut runs: Vec<(Extent, u32)> = usable.chain(held.map(|run| (run, 0))).collect();
        runs.sort_unstable_by(|one, other| other.cmp(one));
        let mut tail = Tail {
            first: len,
            live: 0,
        };
        let mut below = self.free_pages();
        // The lowest page that there is, so that the loop sees what is below all runs.
        let bottom = Extent {
            first: crate::ids::FIRST_PAGE,
            pages: 0,
        };
        for (run, usable) in runs.into_iter().chain([(bottom, 0)]) {
            let gap = tail.first.saturating_sub(run.end());
            // Room for the copies of the nodes above, too.
            let room = (below * 7 / 8).saturating_sub(8).min(u64::from(most));
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            let part = gap.min(room.saturating_sub(tail.live));
            tail.live += part;
            tail.first -= part;
            below -= u64::from(usable);
            if part < gap || below * 7 / 8 < u64::from(tail.live) + 8 {
                break;
            }
            tail.first = tail.first.min(run.first);
        }
        (tail.first < len).then_some(tail)
    }

    /// Whether a snapshot holds pages at or above the ceiling.
    pub(crate) fn is_pinned(&self) -> bool {
        let mut held = self.held.values().flatten();
        held.any(|freed| freed.extent.end() > self.ceiling)
    }

    /// The first page of the free run that ends a file of `len` pages, or `len`.
    pub(crate) fn free_from(&self, len: u32) -> u32 {
        // The parked ones lie above the others and are joined.
        [&self.parked, &self.free]
            .into_iter()
            .fold(len, |end, runs| {
                let last = runs.iter().next_back().filter(|last| last.end() == end);
                last.map_or(end, |last| last.first)
            })
    }

    /// The file ends at page `len` from now on; all pages above are free.
    pub(crate) fn cut_off(&mut self, len: u32) {
        let ceiling = self.ceiling;
        self.set_ceiling(len);
        debug_assert!(self.parked.runs.len() <= 1, "only the end is cut off");
        self.parked = Runs::default();
        self.set_ceiling(ceiling);
    }

    /// Free runs of at least `least` pages, `most` pages in all, whose blocks have not
    /// been given back yet; they count as given back from now on.
    pub(crate) fn hollow_out(&mut self, least: u32, most: u32) -> Vec<Extent> {
        let runs = self.free.iter().chain(self.parked.iter());
        let long: BTreeSet<(u32, u32)> = runs
            .filter(|run| run.pages >= least)
            .map(|run| (run.first, run.pages))
            .collect();
        // Others have been joined with new neighbours since.
        self.hollow = self.hollow.intersection(&long).copied().collect();
        let mut left = most;
        let mut chosen = Vec::new();
        for &(first, pages) in long.difference(&self.hollow) {
            if pages <= left {
                left -= pages;
                chosen.push(Extent { first, pages });
            }
        }
        self.hollow
            .extend(chosen.iter().map(|run| (run.first, run.pages)));
        chosen
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
        let mut free = Vec::new();
        for snapshot in gone {
            for freed in self.held.remove(&snapshot).unwrap_or_default() {
                free.extend(self.judge(freed, snapshots));
            }
        }
        // What was freed after `published` may yet be seen by a version between.
        while let Some(freed) = self.waiting.pop_front_if(|freed| freed.freed <= published) {
            free.extend(self.judge(freed, snapshots));
        }
        // What one commit replaced often lies side by side: fewer and longer runs.
        free.sort_unstable();
        let neighbours = free.chunk_by(|one, next| one.end() == next.first);
        neighbours.for_each(|runs| {
            self.insert(Extent {
                first: runs[0].first,
                pages: runs.iter().map(|run| run.pages).sum(),
            });
        });
    }

    /// Gives what no snapshot sees, and keeps it with the newest one that does else.
    fn judge(&mut self, freed: Freed, snapshots: &[u64]) -> Option<Extent> {
        let below = snapshots.partition_point(|&snapshot| snapshot < freed.freed);
        let last = below.checked_sub(1).map(|index| snapshots[index]);
        let Some(snapshot) = last.filter(|&snapshot| snapshot >= freed.born) else {
            return Some(freed.extent);
        };
        self.held.entry(snapshot).or_default().push(freed);
        None
    }

    /// Every run that is free, waits or is held.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Extent> {
        let free = self.free.iter().chain(self.parked.iter());
        let held = self.held.values().flatten().chain(&self.waiting);
        free.chain(held.map(|freed| freed.extent))
    }

    /// Checks I1 to I4.
    pub(crate) fn validate(&self) {
        self.free.validate();
        self.parked.validate();
        let below = self.free.iter().next_back();
        assert!(below.is_none_or(|run| run.end() <= self.ceiling), "I4");
        let above = self.parked.iter().next();
        assert!(above.is_none_or(|run| run.first >= self.ceiling), "I4");
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
