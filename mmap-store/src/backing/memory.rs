//! Memory in the place of files: a store that lasts as long as its handle, and in tests
//! the model of a disk that loses power.
//!
//! The model keeps what was written since the last barrier apart. At the call it was told
//! to die at, it keeps that state as a [`Wreck`], and fails from then on. A wreck gives as
//! many disks as one likes: any subset of the unsynced sectors, in any order.

use std::io::{self, IoSlice};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};

use crate::backing::{Backing, Map, Segment};
use crate::ids::{Extent, PAGE_BYTES};
use crate::sync::Mutex;

#[cfg(test)]
pub(crate) use model::{Failure, Wreck};

/// See the module.
#[derive(Debug)]
pub(crate) struct MemoryBacking {
    map: Arc<Map>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pages: u32,
    ring: Vec<u8>,
    #[cfg(test)]
    disk: model::Disk,
}

impl MemoryBacking {
    /// An empty tree with room for `map_bytes`, and a ring of zeros.
    pub(crate) fn new(map_bytes: u64, ring_bytes: u64) -> io::Result<Self> {
        let len = usize::try_from(map_bytes).unwrap_or(usize::MAX);
        // Not reserved: pages cost memory when they are written.
        let map = MmapOptions::new().len(len).no_reserve_swap().map_anon()?;
        let ring = vec![0; usize::try_from(ring_bytes).unwrap_or(usize::MAX)];
        Ok(Self {
            map: Arc::new(Map::new(MmapRaw::from(map))),
            state: Mutex::new(State {
                pages: 0,
                #[cfg(test)]
                disk: model::Disk::new(&ring),
                ring,
            }),
        })
    }

    /// Gives the memory of pages back to the system: they read as zero from now
    /// on, or as they were.
    fn forget(&self, extent: Extent) -> io::Result<()> {
        let (at, bytes) = (extent.first as usize, extent.pages as usize);
        let (at, bytes) = (at * PAGE_BYTES, bytes * PAGE_BYTES);
        if bytes == 0 || rustix::param::page_size() > PAGE_BYTES {
            // A page of the system may hold others of ours.
            return Ok(());
        }
        // SAFETY: (1) the range lies in the mapping, which is checked there; (2) nobody
        // reads those pages: by the contract of `cut` and `punch` no snapshot reaches
        // them.
        unsafe {
            let raw = self.map.raw();
            raw.unchecked_advise_range(UncheckedAdvice::DontNeed, at, bytes)
        }
    }

    /// Copies `bytes` over the tree from byte `at`.
    fn copy_in(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.map.raw().len(), "outside the map");
        let to = self.map.raw().as_mut_ptr();
        // SAFETY: (1) the target lies in the mapping, by the assertion; (2) it is not the
        // source, which is the caller's memory; (3) nobody reads those pages meanwhile:
        // the store writes only pages that no snapshot reaches.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to.add(at), bytes.len()) };
    }
}

impl Backing for MemoryBacking {
    fn map(&self) -> &Arc<Map> {
        &self.map
    }

    fn pages(&self) -> io::Result<u32> {
        Ok(self.state.lock().pages)
    }

    fn grow(&self, pages: u32) -> io::Result<()> {
        let mut state = self.state.lock();
        #[cfg(test)]
        state.disk.call()?;
        if pages as usize > self.map.capacity() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.pages = state.pages.max(pages);
        #[cfg(test)]
        {
            let len = pages as usize * PAGE_BYTES;
            state.disk.grow(len);
        }
        Ok(())
    }

    fn cut(&self, pages: u32) -> io::Result<()> {
        let mut state = self.state.lock();
        if pages >= state.pages {
            return Ok(());
        }
        #[cfg(test)]
        state.disk.cut(pages as usize * PAGE_BYTES)?;
        let gone = Extent {
            first: pages,
            pages: state.pages - pages,
        };
        state.pages = pages;
        self.forget(gone)
    }

    fn punch(&self, extent: Extent) -> io::Result<()> {
        #[cfg(test)]
        self.state.lock().disk.punch(extent)?;
        self.forget(extent)
    }

    fn write_pages(&self, first: u32, buffers: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = first as usize * PAGE_BYTES;
        #[cfg(test)]
        let mut state = self.state.lock();
        #[cfg(test)]
        let dies = {
            let alive = !state.disk.is_dead();
            let result = state.disk.call();
            // The write during which the power goes may have been done in part.
            if alive {
                for buffer in buffers {
                    state.disk.write_tree(at, buffer);
                    at += buffer.len();
                }
            }
            at = first as usize * PAGE_BYTES;
            result
        };
        #[cfg(test)]
        dies?;
        for buffer in buffers {
            self.copy_in(at, buffer);
            at += buffer.len();
        }
        Ok(())
    }

    fn clean_pages(&self, _run: Extent) -> io::Result<()> {
        // The disk may keep what was written at any time: nothing to model but failure.
        #[cfg(test)]
        self.state.lock().disk.call()?;
        Ok(())
    }

    fn sync_tree(&self) -> io::Result<()> {
        #[cfg(test)]
        self.state.lock().disk.sync_tree()?;
        Ok(())
    }

    fn write_ring(&self, segments: &[Segment]) -> io::Result<()> {
        let mut state = self.state.lock();
        #[cfg(test)]
        state.disk.write_ring(segments)?;
        for (at, bytes) in segments {
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            state.ring[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn read_ring(&self, most: u64) -> io::Result<Vec<u8>> {
        let ring = &self.state.lock().ring;
        let len = usize::try_from(most).unwrap_or(usize::MAX).min(ring.len());
        Ok(ring[..len].to_vec())
    }
}

/// The disk that loses power.
#[cfg(test)]
mod model {
    use super::*;

    /// Smallest piece that a disk writes whole.
    const SECTOR_BYTES: usize = 512;

    /// What the disk does at the chosen call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Failure {
        /// Nothing works from then on; a [`Wreck`] is kept.
        Dies,
        /// The call fails, the next ones work.
        Once,
    }

    /// What was on the disk for certain, and what perhaps.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Wreck {
        pub(crate) tree: Vec<u8>,
        pub(crate) ring: Vec<u8>,
        tree_pending: Vec<Change>,
        ring_pending: Vec<Change>,
    }

    /// What was done to a file since the last barrier, and may or may not last.
    #[derive(Clone, Debug)]
    enum Change {
        /// A sector was written.
        Write(usize, Vec<u8>),
        /// The file became at least so long.
        Grow(usize),
        /// It was cut to this length.
        Cut(usize),
    }

    /// What the model knows besides the current bytes.
    #[derive(Debug)]
    pub(super) struct Disk {
        now: Wreck,
        calls: u64,
        failure: Option<(u64, Failure)>,
        dead: Option<Wreck>,
        /// Barriers that do nothing: a planted error.
        lazy_tree: bool,
        lazy_ring: bool,
    }

    fn power_cut() -> io::Error {
        io::Error::other("the power is off")
    }

    fn sectors(at: usize, bytes: &[u8]) -> impl Iterator<Item = Change> {
        let chunks = bytes.chunks(SECTOR_BYTES).enumerate();
        chunks.map(move |(index, chunk)| Change::Write(at + index * SECTOR_BYTES, chunk.to_vec()))
    }

    fn settle(file: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write(at, bytes) => {
                let end = at + bytes.len();
                file.resize(file.len().max(end), 0);
                file[*at..end].copy_from_slice(bytes);
            }
            Change::Grow(len) => file.resize(file.len().max(*len), 0),
            Change::Cut(len) => file.truncate(*len),
        }
    }

    impl Disk {
        pub(super) fn new(ring: &[u8]) -> Self {
            Self {
                now: Wreck {
                    ring: ring.to_vec(),
                    ..Wreck::default()
                },
                calls: 0,
                failure: None,
                dead: None,
                lazy_tree: false,
                lazy_ring: false,
            }
        }

        /// Counts a call; fails if it is the chosen one or the disk is dead.
        pub(super) fn call(&mut self) -> io::Result<()> {
            if self.dead.is_some() {
                return Err(power_cut());
            }
            self.calls += 1;
            match self.failure {
                Some((at, Failure::Once)) if at == self.calls => Err(io::Error::other("planted")),
                Some((at, Failure::Dies)) if at == self.calls => {
                    self.dead = Some(self.now.clone());
                    Err(power_cut())
                }
                _ => Ok(()),
            }
        }

        pub(super) fn grow(&mut self, len: usize) {
            self.now.tree_pending.push(Change::Grow(len));
        }

        /// Notes a cut: if the power goes during it, it may have been done.
        pub(super) fn cut(&mut self, len: usize) -> io::Result<()> {
            let alive = !self.is_dead();
            let result = self.call();
            if alive && (result.is_ok() || self.is_dead()) {
                let wreck = self.dead.as_mut().unwrap_or(&mut self.now);
                wreck.tree_pending.push(Change::Cut(len));
            }
            result
        }

        /// Notes that pages may have become zero.
        pub(super) fn punch(&mut self, extent: Extent) -> io::Result<()> {
            self.call()?;
            let zeros = vec![0; extent.pages as usize * PAGE_BYTES];
            self.write_tree(extent.first as usize * PAGE_BYTES, &zeros);
            Ok(())
        }

        pub(super) fn is_dead(&self) -> bool {
            self.dead.is_some()
        }

        /// Notes a write; the caller saw that the disk was alive when it began.
        pub(super) fn write_tree(&mut self, at: usize, bytes: &[u8]) {
            let wreck = self.dead.as_mut().unwrap_or(&mut self.now);
            wreck.tree_pending.extend(sectors(at, bytes));
        }

        pub(super) fn sync_tree(&mut self) -> io::Result<()> {
            self.call()?;
            if self.lazy_tree {
                return Ok(());
            }
            for change in core::mem::take(&mut self.now.tree_pending) {
                settle(&mut self.now.tree, &change);
            }
            Ok(())
        }

        pub(super) fn write_ring(&mut self, segments: &[Segment]) -> io::Result<()> {
            let alive = self.dead.is_none();
            let result = self.call();
            let pending = match &mut self.dead {
                Some(dead) if alive => &mut dead.ring_pending,
                Some(_) => return result,
                None => &mut self.now.ring_pending,
            };
            for (at, bytes) in segments {
                pending.extend(sectors(usize::try_from(*at).expect("a small ring"), bytes));
            }
            result?;
            if !self.lazy_ring {
                for change in core::mem::take(&mut self.now.ring_pending) {
                    settle(&mut self.now.ring, &change);
                }
            }
            Ok(())
        }
    }

    impl Wreck {
        /// A disk that holds these files for certain.
        pub(crate) fn with_files(tree: Vec<u8>, ring: Vec<u8>) -> Self {
            Self {
                tree,
                ring,
                ..Self::default()
            }
        }

        /// A disk as it may be found: `random(n)` gives a number below `n`.
        pub(crate) fn image(&self, random: &mut dyn FnMut(usize) -> usize) -> Self {
            let mut image = Self {
                tree: self.tree.clone(),
                ring: self.ring.clone(),
                ..Self::default()
            };
            // Nothing, all, or some of what was pending, in any order.
            let share = random(5);
            for (file, pending) in [
                (&mut image.tree, &self.tree_pending),
                (&mut image.ring, &self.ring_pending),
            ] {
                let mut order: Vec<usize> = (0..pending.len()).collect();
                if random(2) == 0 {
                    for index in (1..order.len()).rev() {
                        order.swap(index, random(index + 1));
                    }
                }
                for index in order {
                    if random(4) < share {
                        settle(file, &pending[index]);
                    }
                }
            }
            image
                .tree
                .resize(image.tree.len().next_multiple_of(PAGE_BYTES), 0);
            image
        }
    }

    impl MemoryBacking {
        /// A disk with this content.
        pub(crate) fn with_content(map_bytes: u64, wreck: &Wreck) -> Self {
            let new = Self::new(map_bytes, 0).expect("address space");
            new.copy_in(0, &wreck.tree);
            {
                let mut state = new.state.lock();
                state.pages = u32::try_from(wreck.tree.len() / PAGE_BYTES).expect("a small tree");
                state.ring = wreck.ring.clone();
                state.disk = Disk::new(&wreck.ring);
                state.disk.now.tree = wreck.tree.clone();
            }
            new
        }

        /// Fails the `call`-th call from now on, counted from 1.
        pub(crate) fn fail(&self, call: u64, failure: Failure) {
            let mut state = self.state.lock();
            let at = state.disk.calls + call;
            state.disk.failure = Some((at, failure));
        }

        /// Makes the barriers of one file do nothing.
        pub(crate) fn be_lazy(&self, tree: bool, ring: bool) {
            let mut state = self.state.lock();
            state.disk.lazy_tree = tree;
            state.disk.lazy_ring = ring;
        }

        pub(crate) fn calls(&self) -> u64 {
            self.state.lock().disk.calls
        }

        /// What is left if the power goes now, or of the moment when it went.
        pub(crate) fn wreck(&self) -> Wreck {
            let state = self.state.lock();
            state
                .disk
                .dead
                .clone()
                .unwrap_or_else(|| state.disk.now.clone())
        }
    }
}
