//! The contract between the store and whatever keeps its bytes.
//!
//! Two files: the *tree* (pages, read through a mapping) and the *ring* (redo records).
//! What is written is seen through the mapping at once and lasts after a barrier only;
//! without one any part of it may last, in any order, torn at 512 bytes.
//!
//! The mapping never moves: `file` maps more address space than the file has bytes, so a
//! growing file needs no new mapping and readers no protocol. Only pages below the
//! file's end may be touched; the end moves down only over pages that no reader reaches
//! (`design.md`, "A shorter file").

pub(crate) mod file;
mod guard;
pub(crate) mod memory;
mod warm;

use core::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use memmap2::MmapRaw;

use crate::backing::guard::Guard;
use crate::ids::{Extent, PAGE_BYTES};

/// Bytes to write to the ring, and where.
pub(crate) type Segment = (u64, Vec<u8>);

/// Keeps the bytes. Calls may come from several threads, but those that write never
/// overlap one another in the bytes they touch.
pub(crate) trait Backing: fmt::Debug + Send + Sync {
    /// Where the tree is seen.
    fn map(&self) -> &Arc<Map>;

    /// Length of the tree.
    fn pages(&self) -> io::Result<u32>;

    /// Makes the tree `pages` long, with space set aside so that writing cannot lack it.
    fn grow(&self, pages: u32) -> io::Result<()>;

    /// Makes the tree `pages` long, or leaves it if it is shorter. Nobody looks at the
    /// pages above any more, and before the next barrier the cut may or may not last.
    fn cut(&self, pages: u32) -> io::Result<()>;

    /// Gives the blocks of `extent` back, where that is possible: nobody looks at those
    /// pages before they are written anew, which may then find the disk full.
    fn punch(&self, extent: Extent) -> io::Result<()>;

    /// Writes `buffers`, whole pages in all, one after another from page `first`.
    fn write_pages(&self, first: u32, buffers: &[IoSlice<'_>]) -> io::Result<()>;

    /// Writes pages of the tree to the disk ahead of a barrier, and waits for them. No
    /// barrier itself: they need not last. An error is as bad as a barrier's.
    fn clean_pages(&self, run: Extent) -> io::Result<()>;

    /// Barrier: everything written to the tree before, and its length, lasts after.
    fn sync_tree(&self) -> io::Result<()>;

    /// Writes to the ring; everything written to the ring so far lasts after.
    fn write_ring(&self, segments: &[Segment]) -> io::Result<()>;

    /// The first checkpoint of a new store lasts: from now on there is a store.
    fn created(&self) -> io::Result<()> {
        Ok(())
    }

    /// The folder of the files, if there are files.
    fn dir(&self) -> Option<&Path> {
        None
    }

    /// The store is about to be closed: notes which pages are in memory, if that was asked
    /// for. A failure costs the next open time and nothing else.
    fn remember(&self) {}

    /// The whole ring, or its first `most` bytes.
    fn read_ring(&self, most: u64) -> io::Result<Vec<u8>>;
}

/// The bytes of the tree as they are seen.
#[derive(Debug)]
pub(crate) struct Map {
    /// Goes before the mapping does.
    guard: Option<Guard>,
    raw: MmapRaw,
}

impl Map {
    pub(crate) fn new(raw: MmapRaw) -> Self {
        Self { guard: None, raw }
    }

    /// Makes bytes that vanish an error, and no signal; false if too many mappings are.
    /// The mapping is one of this file, from its beginning on.
    pub(crate) fn guard(&mut self, file: &File) -> io::Result<bool> {
        self.guard = Guard::over(&self.raw, file)?;
        Ok(self.guard.is_some())
    }

    /// Whether bytes that vanish are an error.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// Whether bytes vanished that somebody read, which are zeros since.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_lost)
    }

    /// Pages of address space.
    pub(crate) fn capacity(&self) -> usize {
        self.raw.len() / PAGE_BYTES
    }

    pub(crate) fn raw(&self) -> &MmapRaw {
        &self.raw
    }

    /// The bytes of `len` pages from `first`.
    ///
    /// # Safety
    ///
    /// - The pages lie below the end of the tree, and stay there while the slice lives.
    /// - Nobody writes to them while the slice lives.
    pub(crate) unsafe fn slice(&self, first: usize, len: usize) -> &[u8] {
        debug_assert!(first + len <= self.capacity());
        // SAFETY: (1) the range lies in the mapping, which lives as long as `self`, and by
        // contract in the file, so reading does not fault; (2) by contract nobody writes
        // to it; (3) bytes need no alignment and any value is valid.
        unsafe {
            core::slice::from_raw_parts(self.raw.as_ptr().add(first * PAGE_BYTES), len * PAGE_BYTES)
        }
    }

    /// Asks the processor to load `lines` cache lines, from the one that holds byte
    /// `offset` of a page.
    #[inline]
    pub(crate) fn prefetch(&self, page: usize, offset: usize, lines: usize) {
        #[cfg(target_arch = "x86_64")]
        if page < self.capacity() {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let start = self.raw.as_ptr().wrapping_add(page * PAGE_BYTES + offset);
            for line in 0..lines {
                // SAFETY: a prefetch does not fault, whatever the address.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * 64).cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (page, offset, lines);
    }
}
